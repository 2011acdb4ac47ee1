//! One lab: the directory, the switch and the hosts of one test.

mod alone;
pub mod cgroup;
pub mod command;
pub mod container;
mod faults;
mod guardian;
pub mod host;
mod rootfs;
pub mod snapshot;
mod space;
pub mod teardown;
mod upstream;
pub mod wait;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use cgroup::Cgroups;
use guardian::Guardian;
use host::Host;
use space::Space;

/// How long a cluster may take to do what it was asked, on a busy machine. No promise of the product:
/// those are stated by the tests that check them.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Time that tasks have to stop, where that is not what is tested.
const GRACE: &str = "500ms";
/// Lines of each daemon's log that a failed test shows.
const TAIL: usize = 40;
/// Unix sockets have 108 bytes for their path, so the directory is short, whatever TMPDIR says.
const BASE: &str = "/tmp";

/// The machines of one test. Dropping it ends everything in it.
pub struct Lab {
    hosts: Vec<Host>,
    switch: Space,
    name: String,
    dir: PathBuf,
    cgroups: Cgroups,
    // Last: it ends what is left when the others are gone.
    guardian: Guardian,
}

impl Lab {
    /// Hosts 1 to `count` at 10.99.0.N and fd99::N, with no daemon running.
    pub fn new(name: &str, count: usize) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("wl.")
            .rand_bytes(6)
            .tempdir_in(BASE)
            .expect("a directory for the lab")
            .keep();
        let cgroups = Cgroups::new(&dir);
        let guardian = Guardian::start(&dir, &cgroups);
        let switch = Space::new("switch", &dir, cgroups.child("switch"));
        switch.sh("ip link add br0 type bridge && ip link set br0 up \
             && ip addr add 10.99.0.254/24 dev br0 && ip -6 addr add fd99::fe/64 dev br0 nodad");
        let hosts = (1..=count).map(|n| Host::new(n, &dir, &switch, &cgroups)).collect();
        Self { hosts, switch, name: name.to_owned(), dir, cgroups, guardian }
    }

    /// A cluster of `managers` managers (hosts 1 to `managers`) and `workers` workers behind them.
    pub fn cluster(name: &str, managers: usize, workers: usize) -> Self {
        let lab = Self::new(name, managers + workers);
        for host in &lab.hosts {
            host.start();
        }
        lab.host(1).weft(&["cluster", "init", "--advertise-addr", &lab.host(1).ip()]).ok();
        for n in 2..=managers {
            lab.join(n, "manager");
        }
        for n in managers + 1..=managers + workers {
            lab.join(n, "worker");
        }
        lab.nodes_ready(managers + workers);
        lab
    }

    /// Makes host `n` a member, by the standing token of `role` and host 1.
    pub fn join(&self, n: usize, role: &str) {
        let token = self.token(role);
        self.host(n)
            .weft(&["cluster", "join", "--token", &token, &format!("{}:2377", self.host(1).ip())])
            .ok();
    }

    /// The standing token of a role, from host 1.
    pub fn token(&self, role: &str) -> String {
        self.host(1).weft(&["cluster", "join-token", "-q", role]).ok()
    }

    /// Waits until host 1 sees `count` nodes ready.
    pub fn nodes_ready(&self, count: usize) {
        wait::eventually("all nodes are ready", PATIENCE, || {
            let list = self.host(1).weft(&["node", "ls", "--format", "{{.Status}}"]);
            let text = list.text()?;
            let ready = text.lines().filter(|line| line.eq_ignore_ascii_case("ready")).count();
            if ready == count { Ok(()) } else { Err(format!("{ready} of {count}: {text}")) }
        });
    }

    /// More hosts on the same switch, numbered from `first`, with no daemon running.
    pub fn more_hosts(&self, first: usize, count: usize) -> Vec<Host> {
        let numbers = first..first + count;
        numbers.map(|n| Host::new(n, &self.dir, &self.switch, &self.cgroups)).collect()
    }

    /// Host `n`, from 1.
    pub fn host(&self, n: usize) -> &Host {
        &self.hosts[n - 1]
    }

    pub fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.hosts.iter()
    }

    /// Runs a shell command in the switch, which stands for the world outside the hosts.
    pub fn outside(&self, script: &str) -> command::Output {
        self.switch.run(&["sh", "-c", script], &[])
    }

    /// Process that holds the namespaces of the switch.
    pub fn outside_pid(&self) -> u32 {
        self.switch.pid()
    }

    /// The image of the lab: busybox, `peer` and `canary`.
    pub fn image(&self) -> String {
        format!("rootfs:{}", rootfs::make(&self.dir).display())
    }

    /// Makes an overlay network with this subnet, on host 1.
    pub fn network(&self, name: &str, subnet: &str) {
        self.host(1).weft(&["network", "create", "-d", "overlay", "--subnet", subnet, name]).ok();
    }

    /// Number of the host that leads, as host `from` sees it.
    pub fn leader(&self, from: usize) -> Result<usize, String> {
        let list = self
            .host(from)
            .weft(&["node", "ls", "--format", "{{.Hostname}} {{.ManagerStatus}}"])
            .text()?;
        let line = list.lines().find(|line| line.ends_with("Leader")).ok_or(list.clone())?;
        let name = line.split(' ').next().unwrap_or_default();
        name.trim_start_matches('n').parse().map_err(|_| list)
    }

    /// Makes a service of `peer serve 80` from host 1 and waits until it runs. `flags` stand before
    /// the image.
    pub fn serve(&self, name: &str, flags: &[&str]) {
        self.service(name, flags, &["peer", "serve", "80"]);
    }

    /// Makes a service from host 1 and waits until it runs.
    pub fn service(&self, name: &str, flags: &[&str], command: &[&str]) {
        let image = self.image();
        // The first process of a container ignores what it has no handler for, SIGTERM too.
        let mut args = vec!["service", "create", "--name", name, "--stop-grace-period", GRACE];
        args.extend(flags);
        args.push(&image);
        args.extend(command);
        let said = self.host(1).weft(&args);
        assert!(
            said.stderr.contains("verify: Service converged")
                || said.stdout.contains("verify: Service converged"),
            "{said}"
        );
        said.ok();
    }

    /// A service with one task on each node, to ask from; one container for each host, in order.
    pub fn clients(&self, network: &str) -> Vec<container::Container<'_>> {
        let name = format!("clients-{network}");
        self.service(&name, &["--mode", "global", "--network", network], &["sleep", "1000000"]);
        self.hosts().map(|host| host.container(&name)).collect()
    }

    /// The directory with everything of this lab.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn print_logs(&self) {
        eprintln!("lab {}: the last lines of each daemon:", self.name);
        for host in &self.hosts {
            let text = fs::read_to_string(host.log()).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            eprintln!("--- {} ({} lines)", host.name(), lines.len());
            for line in &lines[lines.len().saturating_sub(TAIL)..] {
                eprintln!("{line}");
            }
        }
        if let Some(kept) = std::env::var_os("WEFT_LAB_LOGS") {
            let kept = PathBuf::from(kept).join(&self.name);
            let _ = fs::create_dir_all(&kept);
            for host in &self.hosts {
                let _ = fs::copy(host.log(), kept.join(format!("{}.log", host.name())));
            }
        }
    }

    /// Daemons must not panic, whatever is done to them.
    fn panics(&self) -> Vec<String> {
        let mut found = Vec::new();
        for host in &self.hosts {
            let text = fs::read_to_string(host.log()).unwrap_or_default();
            found.extend(
                text.lines()
                    .filter(|line| line.contains("panicked at"))
                    .map(|line| format!("{}: {line}", host.name())),
            );
        }
        found
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let failing = std::thread::panicking();
        let panics = self.panics();
        if failing || !panics.is_empty() {
            self.print_logs();
        }
        let left = self.guardian.end();
        if !failing {
            assert!(panics.is_empty(), "a daemon panicked: {panics:#?}");
            assert!(left.is_empty(), "the lab could not be cleared: {left:#?}");
        }
    }
}
