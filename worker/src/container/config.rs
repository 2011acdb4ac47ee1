//! What the daemon says about a container. It is kept in the container's state directory, so that
//! `list` gives it back after a restart.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Error;

/// Characters of an id: it is a file name, a cgroup name and an argument.
const MAX_ID: usize = 64;
/// The search path of a container that sets none (Docker's).
pub const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How long `stop` waits between the stop signal and SIGKILL unless told otherwise (Docker's).
pub const DEFAULT_STOP_GRACE: Duration = Duration::from_secs(10);
/// Smallest memory limit the kernel can start a process in (Docker's bound).
pub const MIN_MEMORY: u64 = 6 << 20;

/// A container's id: 1 to 64 characters of `[A-Za-z0-9_.-]`, the first one a letter or digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerId(String);

impl ContainerId {
    /// # Errors
    /// `Error::BadId` with the text.
    pub fn new(text: impl Into<String>) -> Result<Self, Error> {
        let text = text.into();
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        let first = text.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
        if first && text.len() <= MAX_ID && text.chars().all(good) {
            Ok(Self(text))
        } else {
            Err(Error::BadId { id: text })
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for ContainerId {
    type Error = Error;
    fn try_from(text: String) -> Result<Self, Error> {
        Self::new(text)
    }
}

impl From<ContainerId> for String {
    fn from(id: ContainerId) -> Self {
        id.0
    }
}

/// Where the root file system comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Image {
    /// A directory of this machine, never written to: every container has its own layer over it.
    Rootfs(PathBuf),
}

/// Whose network namespace the container gets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetNamespace {
    /// A new one, held by the shim, with the DNS sockets in it.
    #[default]
    Own,
    /// The daemon's.
    Host,
    /// The one at this path (`/proc/PID/ns/net` of another container).
    Join(PathBuf),
}

/// Resource limits; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes.
    pub memory: Option<u64>,
    /// Thousandths of a CPU.
    pub cpu_millis: Option<u32>,
    /// Processes and threads.
    pub pids: Option<u32>,
}

/// A directory or file of the host seen in the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindMount {
    pub source: PathBuf,
    pub target: PathBuf,
    pub access: Access,
    #[serde(default)]
    pub missing: MissingSource,
}

/// What becomes of a bind mount whose source is not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum MissingSource {
    /// As `--mount type=bind` in Docker.
    #[default]
    Refuse,
    /// As `-v` in Docker.
    MakeDirectory,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Access {
    ReadOnly,
    ReadWrite,
}

/// An empty file system in memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tmpfs {
    pub target: PathBuf,
    /// tmpfs(5) and mount(8), over Docker's `nosuid,nodev,noexec`.
    pub options: Vec<String>,
}

/// Options of a tmpfs without a value (moby `pkg/mount`).
const TMPFS_FLAGS: [&str; 22] = [
    "defaults",
    "ro",
    "rw",
    "suid",
    "nosuid",
    "dev",
    "nodev",
    "exec",
    "noexec",
    "sync",
    "async",
    "remount",
    "dirsync",
    "mand",
    "nomand",
    "atime",
    "noatime",
    "diratime",
    "nodiratime",
    "relatime",
    "norelatime",
    "strictatime",
];
/// Those with one.
const TMPFS_VALUES: [&str; 7] = ["size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol"];

impl Tmpfs {
    pub fn new(target: impl Into<PathBuf>) -> Self {
        Self { target: target.into(), options: Vec::new() }
    }

    /// From `PATH` or `PATH:OPTION,...`, as in `--tmpfs`.
    ///
    /// # Errors
    /// `BadTmpfs` with the path that is not absolute, or the option that is none.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let (target, options) = text.split_once(':').unwrap_or((text, ""));
        let options = options.split(',').filter(|option| !option.is_empty());
        let tmpfs =
            Self { target: target.into(), options: options.map(ToOwned::to_owned).collect() };
        tmpfs.check().map(|()| tmpfs)
    }

    fn check(&self) -> Result<(), Error> {
        let bad = |what: &str| Err(Error::BadTmpfs { what: what.to_owned() });
        if !self.target.is_absolute() || self.target == Path::new("/") {
            return bad(&self.target.to_string_lossy());
        }
        let known = |option: &str| match option.split_once('=') {
            Some((name, value)) => TMPFS_VALUES.contains(&name) && !value.is_empty(),
            None => TMPFS_FLAGS.contains(&option),
        };
        match self.options.iter().find(|option| !known(option) || option.contains([',', '\0'])) {
            Some(option) => bad(option),
            None => Ok(()),
        }
    }
}

/// A limit of each process (setrlimit(2)).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// Docker's name: that of the resource without `RLIMIT_`, in small letters.
    pub name: String,
    /// In the resource's own unit; `u64::MAX` is no limit.
    pub soft: u64,
    pub hard: u64,
}

impl Ulimit {
    const RESOURCES: [(&str, u32); 15] = [
        ("core", libc::RLIMIT_CORE),
        ("cpu", libc::RLIMIT_CPU),
        ("data", libc::RLIMIT_DATA),
        ("fsize", libc::RLIMIT_FSIZE),
        ("locks", libc::RLIMIT_LOCKS),
        ("memlock", libc::RLIMIT_MEMLOCK),
        ("msgqueue", libc::RLIMIT_MSGQUEUE),
        ("nice", libc::RLIMIT_NICE),
        ("nofile", libc::RLIMIT_NOFILE),
        ("nproc", libc::RLIMIT_NPROC),
        ("rss", libc::RLIMIT_RSS),
        ("rtprio", libc::RLIMIT_RTPRIO),
        ("rttime", libc::RLIMIT_RTTIME),
        ("sigpending", libc::RLIMIT_SIGPENDING),
        ("stack", libc::RLIMIT_STACK),
    ];

    /// The kernel's number of the resource.
    pub(crate) fn resource(&self) -> Option<u32> {
        let found = Self::RESOURCES.iter().find(|(name, _)| *name == self.name);
        found.map(|(_, number)| *number)
    }

    fn is_good(&self) -> bool {
        self.resource().is_some() && self.soft <= self.hard
    }
}

/// A file of ours in the container's /etc.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EtcFile {
    ResolvConf,
    Hosts,
    Hostname,
}

impl EtcFile {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ResolvConf => "resolv.conf",
            Self::Hosts => "hosts",
            Self::Hostname => "hostname",
        }
    }
}

/// Everything needed to make a container. `new` gives Docker's defaults for what is not said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerConfig {
    pub id: ContainerId,
    pub name: String,
    pub image: Image,
    /// The command and its arguments; a `rootfs:` image has no default one.
    pub args: Vec<String>,
    /// `KEY=VALUE`, over the defaults PATH, HOSTNAME, HOME (and TERM with a terminal).
    pub env: Vec<String>,
    /// Absolute; made if it is missing.
    pub cwd: PathBuf,
    /// The container's own UTS name; empty: the first twelve characters of the id, as Docker does.
    pub hostname: String,
    /// Text of the three files we own in /etc; `hostname` gives that of /etc/hostname.
    pub resolv_conf: String,
    pub hosts: String,
    pub network: NetNamespace,
    pub limits: Limits,
    pub mounts: Vec<BindMount>,
    pub tmpfs: Vec<Tmpfs>,
    /// The root file system cannot be written.
    pub read_only: bool,
    /// Kernel settings below /proc/sys, dotted names, as Docker's `--sysctl`.
    pub sysctls: BTreeMap<String, String>,
    /// Names without `CAP_`, or `ALL`, over and under Docker's default set; `drop` wins.
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
    /// Linux number of the signal `stop` sends first.
    pub stop_signal: i32,
    pub stop_grace: Duration,
    pub labels: BTreeMap<String, String>,
    /// `USER[:GROUP]`, names or numbers of the container's own /etc/passwd and /etc/group; empty:
    /// root.
    #[serde(default)]
    pub user: String,
    /// The main process has a terminal; the log gets what comes out of it.
    pub tty: bool,
    /// The main process has an input, which clients of `attach` feed; else it reads /dev/null.
    #[serde(default)]
    pub open_stdin: bool,
    /// The input ends with the first client that feeds it. A terminal's never does.
    #[serde(default)]
    pub stdin_once: bool,
    /// All capabilities and devices, no system call filter, nothing hidden but our own keys.
    #[serde(default)]
    pub privileged: bool,
    /// A process of ours is the first one, passes signals on and reaps orphans.
    #[serde(default)]
    pub init: bool,
    #[serde(default)]
    pub ulimits: Vec<Ulimit>,
}

impl ContainerConfig {
    pub fn new(id: ContainerId, image: Image, args: Vec<String>) -> Self {
        Self {
            name: id.to_string(),
            id,
            image,
            args,
            env: Vec::new(),
            cwd: PathBuf::from("/"),
            hostname: String::new(),
            resolv_conf: String::new(),
            hosts: String::new(),
            network: NetNamespace::Own,
            limits: Limits::default(),
            mounts: Vec::new(),
            tmpfs: Vec::new(),
            read_only: false,
            sysctls: BTreeMap::new(),
            cap_add: Vec::new(),
            cap_drop: Vec::new(),
            stop_signal: libc::SIGTERM,
            stop_grace: DEFAULT_STOP_GRACE,
            labels: BTreeMap::new(),
            user: String::new(),
            tty: false,
            open_stdin: false,
            stdin_once: false,
            privileged: false,
            init: false,
            ulimits: Vec::new(),
        }
    }

    /// The name the container's kernel will say.
    pub fn effective_hostname(&self) -> &str {
        if self.hostname.is_empty() {
            let end = self.id.as_str().len().min(12);
            &self.id.as_str()[..end]
        } else {
            &self.hostname
        }
    }

    /// The environment in the order it was said, defaults first, each name once.
    pub fn effective_env(&self) -> Vec<String> {
        let hostname = format!("HOSTNAME={}", self.effective_hostname());
        let defaults = [DEFAULT_PATH, &hostname, "TERM=xterm", "HOME=/root"];
        let kept = |entry: &&str| self.tty || !entry.starts_with("TERM=");
        merged_env(&defaults.into_iter().filter(kept).collect::<Vec<_>>(), &self.env)
    }

    /// What can be refused without looking at the machine.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.args.first().is_none_or(String::is_empty) {
            return Err(Error::NoCommand { id: self.id.clone() });
        }
        if !self.cwd.is_absolute() {
            return Err(Error::CwdNotAbsolute { cwd: self.cwd.clone() });
        }
        let words = self.args.iter().chain(&self.env).chain([&self.hostname, &self.user]);
        if let Some(word) = words.into_iter().find(|w| w.contains('\0')) {
            return Err(Error::NulInText { text: word.escape_debug().to_string() });
        }
        if let Some(entry) = self.env.iter().find(|e| e.find('=').is_none_or(|at| at == 0)) {
            return Err(Error::BadEnv { entry: entry.clone() });
        }
        let plain = |name: &str| {
            let part = |p: &str| !p.is_empty() && !p.contains(['/', '\0']);
            name.contains('.') && name.split('.').all(part)
        };
        let shared = self.network != NetNamespace::Own;
        let refused = |name: &&String| !plain(name) || (shared && name.starts_with("net."));
        if let Some(name) = self.sysctls.keys().find(refused) {
            return Err(Error::BadSysctl { name: name.clone() });
        }
        self.tmpfs.iter().try_for_each(Tmpfs::check)?;
        if let Some(bad) = self.ulimits.iter().find(|ulimit| !ulimit.is_good()) {
            return Err(Error::BadUlimit { ulimit: bad.clone() });
        }
        if let Some(memory) = self.limits.memory.filter(|m| *m < MIN_MEMORY) {
            return Err(Error::MemoryTooSmall { memory, least: MIN_MEMORY });
        }
        Ok(())
    }
}

/// `extra` over `defaults`; a name said twice keeps its place and takes the last value.
pub(crate) fn merged_env(defaults: &[&str], extra: &[String]) -> Vec<String> {
    let mut out: Vec<String> = Vec::with_capacity(defaults.len() + extra.len());
    for entry in defaults.iter().copied().chain(extra.iter().map(String::as_str)) {
        let name = entry.split_once('=').map_or(entry, |(name, _)| name);
        let same = |e: &&mut String| e.split_once('=').is_some_and(|(n, _)| n == name);
        match out.iter_mut().find(same) {
            Some(slot) => entry.clone_into(slot),
            None => out.push(entry.to_owned()),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_file_names() {
        for good in ["a", "A9_.-", &"x".repeat(64)] {
            assert!(ContainerId::new(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "-a", "a/b", "a b", "é", "a\n", &"x".repeat(65)] {
            assert!(ContainerId::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_tmpfs_takes_dockers_options_and_no_others() {
        let tmpfs = Tmpfs::parse("/run:size=64m,mode=1777,exec").expect("good");
        assert_eq!(tmpfs.target, Path::new("/run"));
        assert_eq!(tmpfs.options, ["size=64m", "mode=1777", "exec"]);
        assert_eq!(Tmpfs::parse("/run").expect("good"), Tmpfs::new("/run"));
        for bad in ["run", "/", "", "/run:size", "/run:size=", "/run:upperdir=/x", "/run:bind"] {
            assert!(matches!(Tmpfs::parse(bad), Err(Error::BadTmpfs { .. })), "{bad}");
        }
    }

    #[test]
    fn the_last_value_of_a_name_wins_in_the_first_place() {
        let extra = ["B=3".to_owned(), "PATH=/x".to_owned(), "B=4".to_owned()];
        assert_eq!(merged_env(&["PATH=/bin", "A=1"], &extra), ["PATH=/x", "A=1", "B=4"]);
    }
}
