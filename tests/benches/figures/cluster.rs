//! What is asked of ours and of the peer alike: one script measures both.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread::spawn,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use weft_tests::{Host, Lab, Output, eventually};

use crate::image;

/// How long anything may take before the bench gives up.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two looks at a name: below what is worth telling apart.
const WATCH_PAUSE_MS: u32 = 5;

/// A cluster with hosts n1, n2, ... on the switch of a lab.
pub trait Cluster {
    fn lab(&self) -> &Lab;

    /// Words that run its command line on a host.
    fn words(&self, host: usize) -> Vec<String>;

    /// What stands for the lab's image.
    fn image(&self) -> String;

    /// Identifier of the one container of a service on a host.
    fn container(&self, host: usize, service: &str) -> Result<String, String>;

    /// How many containers of a service a host has, in any state.
    fn containers(&self, host: usize, service: &str) -> Result<usize, String>;

    /// Flags of `service create` that only this one needs.
    fn own_flags(&self) -> &[&str];

    /// Ends the daemon of a host without a warning.
    fn kill9(&self, host: usize);

    /// Processes whose memory counts as the daemon of a host.
    fn daemons(&self, host: usize) -> Vec<i32>;

    /// The processes that hold a container each.
    fn shims(&self) -> Vec<i32>;

    /// Types a command on a host.
    fn say(&self, host: usize, args: &[&str]) -> Output {
        let words = self.words(host);
        let argv: Vec<&str> =
            words.iter().map(String::as_str).chain(args.iter().copied()).collect();
        Output::of(&mut self.lab().host(host).command(&argv), &argv)
    }

    /// A command of its command line for host 1, started beside the hosts: entering one takes time.
    fn client(&self, args: &[&str]) -> Command {
        let words = self.words(1);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args(args).env("WEFT_HOST", self.lab().host(1).uri());
        command.stdin(Stdio::null());
        command
    }

    /// Makes an overlay network.
    fn network(&self, name: &str, subnet: &str) {
        self.say(1, &["network", "create", "-d", "overlay", "--subnet", subnet, name]).ok();
    }

    /// Makes a service and does not wait. Its name gives the addresses of its tasks: that is what both
    /// can do on a kernel without IPVS.
    fn create(&self, name: &str, network: &str, flags: &[&str], command: &[&str]) {
        let image = self.image();
        let mut args = vec!["service", "create", "-d", "--name", name, "--network", network];
        args.extend(["--endpoint-mode", "dnsrr"]);
        args.extend(self.own_flags());
        args.extend(flags);
        args.push(&image);
        args.extend(command);
        self.say(1, &args).ok();
    }

    /// Whether `service ls` shows that as many run as are wanted.
    fn full(&self, service: &str) -> Result<(), String> {
        let list = self.say(1, &["service", "ls", "--format", "{{.Name}} {{.Replicas}}"]).text()?;
        let line = list.lines().find_map(|line| line.strip_prefix(&format!("{service} ")));
        let shown = line.ok_or_else(|| format!("no {service} in {list}"))?;
        let (running, wanted) = shown.split_once('/').ok_or_else(|| shown.to_owned())?;
        // More words may stand behind the numbers.
        let wanted = wanted.split(' ').next().unwrap_or(wanted);
        if running == wanted { Ok(()) } else { Err(shown.to_owned()) }
    }

    fn wait_full(&self, service: &str) {
        eventually(&format!("{service} runs"), PATIENCE, || self.full(service));
    }

    /// Removes a service and waits until nothing is left of it.
    fn remove(&self, service: &str) {
        self.say(1, &["service", "rm", service]).ok();
        for host in 1..=self.lab().hosts().count() {
            eventually("the containers are gone", PATIENCE, || {
                match self.containers(host, service)? {
                    0 => Ok(()),
                    left => Err(format!("{left} on n{host}")),
                }
            });
        }
    }

    /// A command in the container of a service on a host.
    fn inside(&self, host: usize, service: &str, argv: &[&str]) -> Command {
        let container =
            eventually("the container runs", PATIENCE, || self.container(host, service));
        let mut words = self.words(host);
        words.extend(["exec".to_owned(), container]);
        words.extend(argv.iter().map(|word| (*word).to_owned()));
        let argv: Vec<&str> = words.iter().map(String::as_str).collect();
        self.lab().host(host).command(&argv)
    }

    /// Its output; it must succeed.
    fn run_inside(&self, host: usize, service: &str, argv: &[&str]) -> String {
        Output::of(&mut self.inside(host, service, argv), argv).ok()
    }

    /// The first address of a container that is not loopback.
    fn address(&self, host: usize, service: &str, prefix: &str) -> String {
        let text = self.run_inside(host, service, &["ip", "-4", "-o", "addr"]);
        let mut words = text.split_whitespace();
        let found = words.find(|word| word.starts_with(prefix)).unwrap_or_else(|| panic!("{text}"));
        found.split('/').next().unwrap_or(found).to_owned()
    }

    /// Watches a name from the container of a service on a host.
    fn watch(&self, host: usize, service: &str, name: &str) -> Watch {
        let pause = WATCH_PAUSE_MS.to_string();
        Watch::start(self.inside(host, service, &[image::WATCH, "127.0.0.11", name, &pause]))
    }
}

/// One change of what a name means.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Since 1970.
    pub at: Duration,
    pub addresses: Vec<String>,
}

/// A program in a container that tells what a name means.
pub struct Watch {
    child: Child,
    told: Receiver<Seen>,
}

impl Watch {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("it can be started");
        let out = BufReader::new(child.stdout.take().expect("it is piped"));
        let (tell, told) = channel();
        // Ends with the program.
        spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                let Some(seen) = parse(&line) else { continue };
                if tell.send(seen).is_err() {
                    break;
                }
            }
        });
        Self { child, told }
    }

    /// Waits until the addresses are as wanted, and tells when that was.
    pub fn until(&self, what: &str, wanted: impl Fn(&[String]) -> bool) -> Seen {
        let start = Instant::now();
        let mut last = None;
        loop {
            let left = PATIENCE.saturating_sub(start.elapsed());
            match self.told.recv_timeout(left) {
                Ok(seen) if wanted(&seen.addresses) => return seen,
                Ok(seen) => last = Some(seen),
                Err(RecvTimeoutError::Timeout) => panic!("not seen: {what}; last {last:?}"),
                Err(RecvTimeoutError::Disconnected) => panic!("the watch ended; last {last:?}"),
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn parse(line: &str) -> Option<Seen> {
    let mut words = line.split(' ');
    let at = Duration::from_micros(words.next()?.parse().ok()?);
    let addresses = words.nth(1).unwrap_or_default();
    let addresses = addresses.split(',').filter(|word| !word.is_empty()).map(str::to_owned);
    Some(Seen { at, addresses: addresses.collect() })
}

/// The time on the clock that the watches use.
pub fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is after 1970")
}

/// A process whose command line begins with `program`, of one host: those of the lab in whose command
/// line `mark` is found.
pub fn processes(lab: &Lab, program: &str, mark: &str) -> Vec<i32> {
    let none = weft_tests::Cgroups::found(Vec::new());
    let mut pids = weft_tests::teardown::processes(lab.dir(), &none);
    pids.retain(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let first = line.split(' ').next().unwrap_or_default();
        first.rsplit('/').next() == Some(program) && line.contains(mark)
    });
    pids
}

/// Where a host of a lab keeps its files.
pub fn home(lab: &Lab, host: &Host) -> std::path::PathBuf {
    lab.dir().join(host.name())
}
