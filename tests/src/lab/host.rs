//! One host: its namespaces, its directories, its daemon.

use std::{
    cell::{Cell, RefCell},
    fs,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{
    PATIENCE,
    cgroup::Cgroups,
    command::{Output, weft_binary},
    container::Container,
    snapshot::Snapshot,
    space::Space,
    wait::eventually,
};

/// A machine of the lab.
pub struct Host {
    number: usize,
    space: Space,
    dir: PathBuf,
    cgroups: Cgroups,
    daemon: RefCell<Option<Child>>,
    /// Whether the daemon reads its own clock.
    own_clock: Cell<bool>,
    /// `K=V` for the next daemon.
    environment: RefCell<Vec<String>>,
}

/// Debian's `faketime`: what a preloaded daemon takes for the time of day.
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

impl Host {
    /// Host `number`, joined to the switch, with the switch as its default gateway.
    pub(super) fn new(number: usize, lab: &Path, switch: &Space, cgroups: &Cgroups) -> Self {
        let name = format!("n{number}");
        let dir = lab.join(&name);
        fs::create_dir(&dir).expect("the lab's directory can be written");
        let cgroups = cgroups.child(&name);
        let space = Space::new(&name, lab, cgroups.clone());
        switch.sh(&format!(
            "ip link add v{number} type veth peer name eth0 netns {}; ip link set v{number} master br0 up",
            space.pid()
        ));
        space.sh(&format!(
            "ip addr add 10.99.0.{number}/24 dev eth0; ip -6 addr add fd99::{number}/64 dev eth0 nodad; \
             ip link set eth0 addrgenmode none; ip link set eth0 up; ip route add default via 10.99.0.254; \
             ip -6 route add default via fd99::fe"
        ));
        let (daemon, environment) = (RefCell::default(), RefCell::default());
        Self { number, space, dir, cgroups, daemon, own_clock: Cell::default(), environment }
    }

    /// Name of the node: n1, n2, ...
    pub fn name(&self) -> String {
        format!("n{}", self.number)
    }

    /// Address on the switch.
    pub fn ip(&self) -> String {
        format!("10.99.0.{}", self.number)
    }

    pub fn state_dir(&self) -> PathBuf {
        self.dir.join("s")
    }

    pub fn run_dir(&self) -> PathBuf {
        self.dir.join("r")
    }

    /// What the daemon has logged, over all its starts.
    pub fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// What `WEFT_HOST` is for this host's daemon.
    pub fn uri(&self) -> String {
        format!("unix://{}", self.run_dir().join("weft.sock").display())
    }

    /// Sets the time of day that the daemon sees, as an offset such as `+1d`: at once if it has had
    /// a clock of its own since its start, otherwise from its next start on. Monotonic time and the
    /// rest of the host stay.
    pub fn clock(&self, offset: &str) {
        let (file, next) = (self.clock_file(), self.dir.join("clock.new"));
        fs::write(&next, offset).expect("the lab's directory can be written");
        fs::rename(next, file).expect("the lab's directory can be written");
        self.own_clock.set(true);
    }

    fn clock_file(&self) -> PathBuf {
        self.dir.join("clock")
    }

    /// What stands before the daemon's program so that it reads its own clock.
    fn with_clock(&self) -> Vec<String> {
        if !self.own_clock.get() {
            return Vec::new();
        }
        assert!(Path::new(FAKETIME).exists(), "{FAKETIME} is missing: apt-get install faketime");
        let file = self.clock_file();
        vec![
            "env".to_owned(),
            format!("LD_PRELOAD={FAKETIME}"),
            format!("FAKETIME_TIMESTAMP_FILE={}", file.display()),
            "FAKETIME_CACHE_DURATION=1".to_owned(),
            "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
            "FAKETIME_DISABLE_SHM=1".to_owned(),
            "NO_FAKE_STAT=1".to_owned(),
        ]
    }

    /// Starts the daemon and waits until it answers.
    #[track_caller]
    pub fn start(&self) {
        self.start_with(&[]);
        eventually(&format!("the daemon of {} answers", self.name()), PATIENCE, || {
            if let Some(child) = self.daemon.borrow_mut().as_mut()
                && let Ok(Some(status)) = child.try_wait()
            {
                panic!("the daemon of {} ended: {status}", self.name());
            }
            self.weft(&["info"]).text()
        });
    }

    /// Starts a daemon that dies at a point of its program (see `weft_worker::failpoint`), and passes
    /// its name to nobody else. Comes back when it answers, or has died already.
    pub fn start_dying_at(&self, point: &str) {
        self.environment.replace(vec![format!("WEFT_FAILPOINT={point}")]);
        self.start_with(&[]);
        self.environment.take();
        eventually("the daemon answers or has died", PATIENCE, || {
            if self.has_died() { Ok(String::new()) } else { self.weft(&["info"]).text() }
        });
    }

    /// Starts a daemon that writes the names of such points to a file, as it passes them.
    pub fn start_listing(&self, file: &Path) {
        self.environment.replace(vec![format!("WEFT_FAILPOINT_LIST={}", file.display())]);
        self.start();
        self.environment.take();
    }

    /// Whether no daemon runs, the one that was started having ended perhaps.
    pub fn has_died(&self) -> bool {
        let mut daemon = self.daemon.borrow_mut();
        let died = daemon.as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None)));
        if died {
            *daemon = None;
        }
        died
    }

    /// Starts the daemon with more options and does not wait.
    pub fn start_with(&self, more: &[&str]) {
        assert!(self.daemon.borrow().is_none(), "the daemon of {} runs already", self.name());
        *self.daemon.borrow_mut() =
            Some(self.spawn_daemon(&self.state_dir(), &self.run_dir(), more));
    }

    /// A daemon in this host's namespace with these directories; the caller owns it.
    pub fn spawn_daemon(&self, state: &Path, run: &Path, more: &[&str]) -> Child {
        let (program, name) = (weft_binary(), self.name());
        let text = |path: &Path| path.display().to_string();
        let (program, state, run) = (text(&program), text(state), text(run));
        let (clock, environment) = (self.with_clock(), self.environment.borrow().clone());
        let mut argv: Vec<&str> = clock.iter().map(String::as_str).collect();
        if !environment.is_empty() {
            argv.push("env");
            argv.extend(environment.iter().map(String::as_str));
        }
        argv.extend([
            program.as_str(),
            "daemon",
            "--state-dir",
            &state,
            "--run-dir",
            &run,
            "--node-name",
            &name,
            "--listen-addr",
            "0.0.0.0:2377",
            "--log-level",
            "debug",
        ]);
        argv.extend(more);
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log());
        let log = log.expect("the log can be written");
        self.space
            .command(&argv)
            .stdout(log.try_clone().expect("a file can be shared"))
            .stderr(Stdio::from(log))
            .spawn()
            .expect("the daemon can be started")
    }

    /// Ends the daemon without a warning.
    pub fn kill9(&self) {
        let mut child = self.daemon.borrow_mut().take().expect("the daemon runs");
        child.kill().expect("it can be killed");
        child.wait().expect("it is our child");
    }

    /// Asks the daemon to end and waits for it.
    #[track_caller]
    pub fn stop(&self) {
        let mut child = self.daemon.borrow_mut().take().expect("the daemon runs");
        kill(pid_of(&child), Signal::SIGTERM).expect("it can be asked");
        eventually("the daemon ends when asked", PATIENCE, || match child.try_wait() {
            Ok(Some(status)) => Ok(status),
            other => Err(format!("{other:?}")),
        });
    }

    /// Stops the daemon's process in its tracks, or lets it go on.
    pub fn freeze(&self, frozen: bool) {
        let daemon = self.daemon.borrow();
        let child = daemon.as_ref().expect("the daemon runs");
        let signal = if frozen { Signal::SIGSTOP } else { Signal::SIGCONT };
        kill(pid_of(child), signal).expect("it can be signalled");
    }

    /// `kill -9` and a start that is waited for.
    #[track_caller]
    pub fn restart(&self) {
        self.kill9();
        self.start();
    }

    /// Process of the daemon.
    pub fn pid(&self) -> u32 {
        self.daemon.borrow().as_ref().expect("the daemon runs").id()
    }

    /// Types `weft ARGS` on this host.
    pub fn weft(&self, args: &[&str]) -> Output {
        let program = weft_binary().display().to_string();
        let mut argv = vec![program.as_str()];
        argv.extend(args);
        let mut output = self.space.run(&argv, &[("WEFT_HOST", &self.uri())]);
        output.command = format!("{}# weft {}", self.name(), args.join(" "));
        output
    }

    /// The words of `weft ARGS`, for [`Self::command`].
    pub fn weft_argv(&self, args: &[&str]) -> Vec<String> {
        let program = weft_binary().display().to_string();
        std::iter::once(program).chain(args.iter().map(|arg| (*arg).to_owned())).collect()
    }

    /// Runs a shell script on this host.
    pub fn sh(&self, script: &str) -> Output {
        let mut output = self.space.run(&["sh", "-ec", script], &[("WEFT_HOST", &self.uri())]);
        output.command = format!("{}# {script}", self.name());
        output
    }

    /// Runs a program on this host to its end.
    pub fn run(&self, argv: &[&str]) -> Output {
        self.space.run(argv, &[])
    }

    /// A command to be started on this host.
    pub fn command(&self, argv: &[&str]) -> std::process::Command {
        let mut command = self.space.command(argv);
        command.env("WEFT_HOST", self.uri());
        command
    }

    /// The host's own name servers.
    pub fn resolvers(&self, text: &str) {
        // Written in place: the file is bound over /etc/resolv.conf.
        let path = self.dir.with_file_name(format!("{}.resolv.conf", self.name()));
        fs::write(path, text).expect("the lab's directory can be written");
    }

    /// The running containers of a service on this host.
    pub fn containers(&self, service: &str) -> Vec<Container<'_>> {
        let filter = format!("service={service}");
        let list = self.weft(&["ps", "--filter", &filter, "-q", "--no-trunc"]).ok();
        list.lines().map(|id| Container::new(self, id)).collect()
    }

    /// The only container of a service on this host; waits for it.
    #[track_caller]
    pub fn container(&self, service: &str) -> Container<'_> {
        eventually(&format!("{} has a container of {service}", self.name()), PATIENCE, || {
            match <[Container<'_>; 1]>::try_from(self.containers(service)) {
                Ok([only]) => Ok(only),
                Err(other) => Err(format!("{} containers", other.len())),
            }
        })
    }

    /// The container that `run` or `create` gave this name.
    pub fn container_named(&self, name: &str) -> Container<'_> {
        Container::new(self, name)
    }

    /// Everything in the kernel that a restart must not touch.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::take(self)
    }

    /// Cgroups of containers below this host's.
    pub fn container_cgroups(&self) -> Vec<String> {
        let own: Vec<_> = self.cgroups.dirs().to_vec();
        let below = self.cgroups.below();
        let more = below.iter().filter(|dir| !own.contains(dir));
        more.map(|dir| dir.display().to_string()).filter(|dir| dir.contains("weft-")).collect()
    }

    /// All processes of this host, the one that holds its namespaces too.
    pub(super) fn processes(&self) -> Vec<i32> {
        self.cgroups.processes()
    }

    /// The process that holds this host's namespaces.
    pub fn holder(&self) -> u32 {
        self.space.pid()
    }

    /// Waits for `time` at most until `look` is satisfied.
    #[track_caller]
    pub fn eventually<T>(
        &self,
        what: &str,
        seconds: u64,
        mut look: impl FnMut(&Self) -> Result<T, String>,
    ) -> T {
        eventually(what, Duration::from_secs(seconds), || look(self))
    }
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(child.id().cast_signed())
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(mut child) = self.daemon.borrow_mut().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
