//! A place for one test's containers.

use std::fs;
use std::future::Future;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use weft_worker::container::{
    ContainerConfig, ContainerId, Embedded, EmbeddedConfig, Exit, Image, LogQuery, OutputStream,
    Runtime,
};

/// How long anything here may take before the test has failed.
pub const PATIENCE: Duration = Duration::from_secs(20);
const BUSYBOX: &str = "/bin/busybox";
const APPLETS: &[&str] = &[
    "sh", "cat", "echo", "sleep", "true", "false", "ls", "mount", "unshare", "mkdir", "grep",
    "hostname", "id", "kill", "mknod", "dd", "head", "yes", "touch", "pwd", "env", "readlink",
    "stty", "tty", "ps", "stat", "tail", "ifconfig", "rm", "chroot", "test", "wc", "seq", "nc",
];

pub struct Lab {
    pub dir: tempfile::TempDir,
    pub embedded: Embedded,
    tag: String,
}

impl Lab {
    /// `name` makes the ids of this test its own.
    pub fn new(name: &str) -> Self {
        let dir = tempfile::tempdir().expect("tempdir");
        make_rootfs(&dir.path().join("rootfs"));
        let embedded = open(&dir.path().join("run"), &dir.path().join("state"));
        Self { embedded, tag: format!("t-{name}-{}", std::process::id()), dir }
    }

    pub fn rootfs(&self) -> PathBuf {
        self.dir.path().join("rootfs")
    }

    pub fn run_dir(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    pub fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// A second daemon over the same directories.
    pub fn reopen(&self) -> Embedded {
        open(&self.run_dir(), &self.state_dir())
    }

    pub fn id(&self, suffix: &str) -> ContainerId {
        ContainerId::new(format!("{}-{suffix}", self.tag)).expect("id")
    }

    pub fn config(&self, suffix: &str, args: &[&str]) -> ContainerConfig {
        let args = args.iter().map(|a| (*a).to_owned()).collect();
        ContainerConfig::new(self.id(suffix), Image::Rootfs(self.rootfs()), args)
    }

    pub fn shell(&self, suffix: &str, script: &str) -> ContainerConfig {
        self.config(suffix, &["sh", "-c", script])
    }

    /// Creates, starts and waits: (exit, stdout, stderr).
    pub async fn run(&self, config: ContainerConfig) -> (Exit, String, String) {
        let id = config.id.clone();
        self.embedded.create(config).await.expect("create");
        self.embedded.start(&id).await.expect("start");
        let exit = self.embedded.wait(&id).await.expect("wait");
        let (out, err) = self.output(&id).await;
        (exit, out, err)
    }

    pub async fn started(&self, config: ContainerConfig) -> (ContainerId, i32) {
        let id = config.id.clone();
        self.embedded.create(config).await.expect("create");
        let pid = self.embedded.start(&id).await.expect("start");
        (id, pid)
    }

    /// What is in the log now.
    pub async fn output(&self, id: &ContainerId) -> (String, String) {
        let mut stream = self.embedded.logs(id, LogQuery::default()).await.expect("logs");
        let (mut out, mut err) = (String::new(), String::new());
        while let Some(record) = stream.next().await {
            let record = record.expect("record");
            let text = String::from_utf8_lossy(&record.data).into_owned();
            match record.stream {
                OutputStream::Stdout => out.push_str(&text),
                OutputStream::Stderr => err.push_str(&text),
            }
        }
        (out, err)
    }

    /// Nothing of ours is left on this machine: no process, mount, cgroup or file.
    pub fn assert_nothing_left(&self) {
        for root in [self.run_dir(), self.state_dir()] {
            let left: Vec<_> = fs::read_dir(root.join("containers")).expect("dir").collect();
            assert!(left.is_empty(), "{left:?}");
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        assert!(!mounts.contains(&*self.dir.path().to_string_lossy()), "{mounts}");
        assert_eq!(self.processes(), Vec::<i32>::new());
        assert_eq!(self.cgroups(), Vec::<PathBuf>::new());
    }

    /// Processes with this test's directories on their command line.
    pub fn processes(&self) -> Vec<i32> {
        let needle = self.dir.path().to_string_lossy().into_owned();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").expect("proc").flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            if pid != std::process::id() as i32 && String::from_utf8_lossy(&line).contains(&needle)
            {
                found.push(pid);
            }
        }
        found
    }

    /// Cgroups named after this test's containers, wherever this process's own are.
    pub fn cgroups(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut todo = vec![PathBuf::from("/sys/fs/cgroup")];
        while let Some(dir) = todo.pop() {
            for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
                if !entry.file_type().is_ok_and(|t| t.is_dir()) {
                    continue;
                }
                if entry.file_name().to_string_lossy().contains(&self.tag) {
                    found.push(entry.path());
                }
                todo.push(entry.path());
            }
        }
        found
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let embedded = self.embedded.clone();
        // A test may already be inside of a runtime, so this one gets a thread of its own.
        let cleaner = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("rt");
            runtime.block_on(async {
                for found in embedded.list().await.unwrap_or_default() {
                    if let Err(error) = embedded.remove(&found.id).await {
                        eprintln!("cleaning {}: {error}", found.id);
                    }
                }
            });
        });
        let _ = cleaner.join();
    }
}

pub fn helper() -> PathBuf {
    env!("CARGO_BIN_EXE_weft-container-helper").into()
}

fn open(run: &Path, state: &Path) -> Embedded {
    let config = EmbeddedConfig { helper: helper(), ..EmbeddedConfig::new(run, state) };
    Embedded::new(config).expect("embedded")
}

pub fn make_rootfs(root: &Path) {
    for dir in ["bin", "etc", "tmp", "root"] {
        fs::create_dir_all(root.join(dir)).expect("mkdir");
    }
    fs::copy(BUSYBOX, root.join("bin/busybox")).expect("busybox-static is installed");
    for applet in APPLETS {
        symlink("busybox", root.join("bin").join(applet)).expect("symlink");
    }
}

/// Runs one test's future with threads to spare, and fails it if it hangs.
pub fn block_on(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    runtime.block_on(async {
        tokio::time::timeout(PATIENCE, work).await.expect("the test hung");
    });
}

/// Waits for a condition.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
