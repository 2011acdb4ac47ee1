//! What a container is made from.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Invalid, check_label_count};

/// Most bytes of all arguments and environment variables together; the kernel's own limit for
/// `execve` is larger, but no message of ours should be.
const ARGUMENT_BYTES_MAX: usize = 1024 * 1024;
/// Time a container gets between TERM and KILL, as in Docker.
pub(super) const STOP_GRACE: Duration = Duration::from_secs(10);
/// Longest such time.
const STOP_GRACE_MAX: Duration = Duration::from_secs(24 * 3600);
/// Longest host name (`HOST_NAME_MAX` of Linux).
const HOSTNAME_MAX: usize = 64;
/// Shortest and longest span of a health check, as in Docker.
const HEALTH_SPAN_MIN: Duration = Duration::from_millis(1);
const HEALTH_SPAN_MAX: Duration = Duration::from_secs(24 * 3600);
/// All permission bits of a directory.
const MODE_MAX: u32 = 0o7777;
/// Least memory limit, as in Docker: less does not start a process.
const MEMORY_MIN: u64 = 6 * 1024 * 1024;

/// A file system made visible in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mount {
    /// A path of the host.
    Bind {
        /// On the host; absolute.
        source: String,
        /// In the container; absolute.
        target: String,
        /// Whether it can be written.
        access: Access,
        /// What happens if there is no such path.
        #[serde(default)]
        missing: Missing,
    },
    /// Memory.
    Tmpfs {
        /// In the container; absolute.
        target: String,
        /// Bytes; none is no limit.
        #[serde(default)]
        size: Option<u64>,
        /// Permission bits; none is 1777.
        #[serde(default)]
        mode: Option<u32>,
    },
}

/// What happens to a container whose bind mount has no source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Missing {
    /// It is refused.
    #[default]
    Refuse,
    /// A directory is made.
    Make,
}

/// Whether a mount can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Access {
    /// Read and written.
    ReadWrite,
    /// Only read.
    ReadOnly,
}

/// Bounds on what a container uses; 0 is no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes.
    pub memory: u64,
    /// 1e9 is one CPU.
    pub nano_cpus: u64,
    /// Processes and threads.
    pub pids: u64,
}

/// How a container's health is probed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// What is run in the container.
    pub test: HealthTest,
    /// From the end of a probe to the next; 0 is 30 s.
    pub interval: Duration,
    /// Longest time of a probe; 0 is 30 s.
    pub timeout: Duration,
    /// How long failures after the start do not count.
    pub start_period: Duration,
    /// Failures in a row until it is unhealthy; 0 is 3.
    pub retries: u32,
}

/// A probe; it succeeds with exit code 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HealthTest {
    /// A line for `/bin/sh -c`.
    Shell(String),
    /// A command and its arguments.
    Exec(Vec<String>),
    /// There is none, whatever the image says.
    Off,
}

/// What a container is made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// `rootfs:DIR`, or what a container engine knows.
    pub image: String,
    /// Command and its arguments.
    pub args: Vec<String>,
    /// `K=V`.
    pub env: Vec<String>,
    /// Empty: the short ID.
    pub hostname: String,
    /// Labels of the container.
    pub labels: BTreeMap<String, String>,
    /// What is mounted.
    pub mounts: Vec<Mount>,
    /// More lines of /etc/hosts.
    pub hosts: Vec<(String, IpAddr)>,
    /// Name servers instead of the host's.
    pub dns: Vec<IpAddr>,
    /// Search domains instead of the host's.
    pub dns_search: Vec<String>,
    /// Resolver options instead of the host's.
    pub dns_options: Vec<String>,
    /// Between TERM and KILL.
    pub stop_grace: Duration,
    /// Bounds.
    pub limits: Limits,
    /// Working directory; empty is `/`.
    pub workdir: String,
    // A spec of before there were any lacks what follows.
    /// `USER[:GROUP]`, names or numbers; empty is root.
    #[serde(default)]
    pub user: String,
    /// Number of the signal that asks it to end; none is TERM.
    #[serde(default)]
    pub stop_signal: Option<i32>,
    /// It has a terminal.
    #[serde(default)]
    pub tty: bool,
    /// Its standard input stays open.
    #[serde(default)]
    pub open_stdin: bool,
    /// Capabilities beside the default ones, with or without `CAP_`; `ALL` is all.
    #[serde(default)]
    pub cap_add: Vec<String>,
    /// Capabilities it does not have.
    #[serde(default)]
    pub cap_drop: Vec<String>,
    /// All capabilities, and nothing of the host hidden.
    #[serde(default)]
    pub privileged: bool,
    /// Kernel settings of its namespaces.
    #[serde(default)]
    pub sysctls: BTreeMap<String, String>,
    /// The root file system can only be read.
    #[serde(default)]
    pub read_only: bool,
    /// A small init is its first process.
    #[serde(default)]
    pub init: bool,
    /// How its health is probed.
    #[serde(default)]
    pub health: Option<Health>,
}

impl ContainerSpec {
    /// A spec with Docker's defaults for all but these.
    pub fn new(image: &str, args: &[&str]) -> Self {
        Self {
            image: image.to_owned(),
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            env: Vec::new(),
            hostname: String::new(),
            labels: BTreeMap::new(),
            mounts: Vec::new(),
            hosts: Vec::new(),
            dns: Vec::new(),
            dns_search: Vec::new(),
            dns_options: Vec::new(),
            stop_grace: STOP_GRACE,
            limits: Limits::default(),
            workdir: String::new(),
            user: String::new(),
            stop_signal: None,
            tty: false,
            open_stdin: false,
            cap_add: Vec::new(),
            cap_drop: Vec::new(),
            privileged: false,
            sysctls: BTreeMap::new(),
            read_only: false,
            init: false,
            health: None,
        }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// The first field that is not allowed.
    pub fn check(&self) -> Result<(), Invalid> {
        self.check_image()?;
        self.check_arguments()?;
        self.check_names()?;
        check_label_count(&self.labels)?;
        if self.stop_grace > STOP_GRACE_MAX {
            let value = format!("{} s", self.stop_grace.as_secs());
            return Err(Invalid::new("--stop-grace-period", value, "at most 24h"));
        }
        if (1..MEMORY_MIN).contains(&self.limits.memory) {
            let reason = format!("at least {MEMORY_MIN} bytes (6m)");
            return Err(Invalid::new("--limit-memory", self.limits.memory, reason));
        }
        if !self.workdir.is_empty() && !self.workdir.starts_with('/') {
            return Err(Invalid::new("--workdir", &self.workdir, "must be an absolute path"));
        }
        self.check_security()?;
        self.health.as_ref().map_or(Ok(()), Health::check)?;
        self.mounts.iter().try_for_each(Mount::check)?;
        for (index, mount) in self.mounts.iter().enumerate() {
            let target = mount.target();
            if self.mounts[..index].iter().any(|other| other.target() == target) {
                return Err(Invalid::new("--mount target", target, "is mounted twice"));
            }
        }
        Ok(())
    }

    fn check_image(&self) -> Result<(), Invalid> {
        let Some(directory) = self.image.strip_prefix("rootfs:") else {
            let reason = if self.image.is_empty() {
                "an image is needed"
            } else {
                "no engine for registry images or OCI layouts is configured"
            };
            return Err(Invalid::new("image", &self.image, reason)
                .hint("use rootfs:DIR, a directory that is the root file system"));
        };
        if !directory.starts_with('/') || directory.contains(['\0', '\n']) {
            return Err(Invalid::new("image", &self.image, "rootfs:DIR needs an absolute path"));
        }
        if directory.split('/').any(|part| part == "..") {
            return Err(Invalid::new("image", &self.image, "the path may not contain .."));
        }
        Ok(())
    }

    fn check_arguments(&self) -> Result<(), Invalid> {
        if self.args.is_empty() {
            return Err(Invalid::new("command", "", "a rootfs image has no default command")
                .hint("put the command after the image: IMAGE COMMAND [ARG...]"));
        }
        let mut bytes = 0;
        for text in self.args.iter().chain(&self.env) {
            if text.contains('\0') {
                return Err(Invalid::new("argument", text, "may not contain a NUL byte"));
            }
            bytes += text.len();
        }
        if bytes > ARGUMENT_BYTES_MAX {
            let reason = format!("at most {ARGUMENT_BYTES_MAX} bytes");
            return Err(Invalid::new("arguments and environment", bytes, reason));
        }
        match self.env.iter().find(|pair| pair.is_empty() || pair.starts_with('=')) {
            Some(pair) => Err(Invalid::new("--env", pair, "must be KEY=VALUE")),
            None => Ok(()),
        }
    }

    fn check_names(&self) -> Result<(), Invalid> {
        if !self.hostname.is_empty() {
            check_hostname("--hostname", &self.hostname)?;
        }
        self.hosts.iter().try_for_each(|(name, _)| check_hostname("--host", name))?;
        for domain in &self.dns_search {
            if domain != "." {
                check_hostname("--dns-search", domain)?;
            }
        }
        match self
            .dns_options
            .iter()
            .find(|option| option.is_empty() || !option.bytes().all(|byte| byte.is_ascii_graphic()))
        {
            Some(option) => Err(Invalid::new("--dns-opt", option, "must be one printable word")),
            None => Ok(()),
        }
    }
}

/// What ends up in a file that others parse line by line must not hold white space.
fn check_hostname(field: &str, name: &str) -> Result<(), Invalid> {
    let fits = !name.is_empty() && name.len() <= HOSTNAME_MAX.max(253);
    let limit = if field == "--hostname" { HOSTNAME_MAX } else { 253 };
    let clean = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    if fits && clean && name.len() <= limit && !name.starts_with(['-', '.']) {
        Ok(())
    } else {
        let reason = format!("must be a host name of at most {limit} characters");
        Err(Invalid::new(field, name, reason))
    }
}

impl Health {
    fn check(&self) -> Result<(), Invalid> {
        let spans = [
            ("--health-interval", self.interval),
            ("--health-timeout", self.timeout),
            ("--health-start-period", self.start_period),
        ];
        for (field, span) in spans {
            if (!span.is_zero() && span < HEALTH_SPAN_MIN) || span > HEALTH_SPAN_MAX {
                let reason = "must be 0, or from 1ms to 24h";
                return Err(Invalid::new(field, format!("{span:?}"), reason));
            }
        }
        let empty = match &self.test {
            HealthTest::Off => false,
            HealthTest::Shell(line) => line.is_empty(),
            HealthTest::Exec(args) => args.first().is_none_or(String::is_empty),
        };
        if empty {
            return Err(Invalid::new("--health-cmd", "", "a command is needed"));
        }
        Ok(())
    }
}

impl Mount {
    /// Where it is in the container.
    pub fn target(&self) -> &str {
        match self {
            Self::Bind { target, .. } | Self::Tmpfs { target, .. } => target,
        }
    }

    fn check(&self) -> Result<(), Invalid> {
        let (source, target) = match self {
            Self::Bind { source, target, .. } => (Some(source), target),
            Self::Tmpfs { target, .. } => (None, target),
        };
        let bad = |path: &str| !path.starts_with('/') || path.contains(['\0', '\n']);
        if let Some(source) = source.filter(|path| bad(path)) {
            return Err(Invalid::new("--mount source", source, "must be an absolute path"));
        }
        if bad(target) || target == "/" {
            return Err(Invalid::new("--mount target", target, "must be an absolute path below /"));
        }
        if let Self::Tmpfs { size, mode, .. } = self {
            if *size == Some(0) {
                return Err(Invalid::new("--mount tmpfs-size", 0, "must be more than 0"));
            }
            if let Some(mode) = mode.filter(|mode| *mode == 0 || *mode > MODE_MAX) {
                let reason = format!("must be from 1 to {MODE_MAX:o}, octal");
                return Err(Invalid::new("--mount tmpfs-mode", format!("{mode:o}"), reason));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(test: HealthTest) -> Health {
        let zero = Duration::ZERO;
        Health { test, interval: zero, timeout: zero, start_period: zero, retries: 0 }
    }

    #[test]
    fn bad_values_are_named() {
        let good = || ContainerSpec::new("rootfs:/srv", &["sh"]);
        assert_eq!(good().check(), Ok(()));
        let cases: &[(&str, fn(&mut ContainerSpec))] = &[
            ("image", |s| s.image = String::new()),
            ("image", |s| s.image = "alpine".into()),
            ("image", |s| s.image = "rootfs:srv".into()),
            ("image", |s| s.image = "rootfs:/srv/../etc".into()),
            ("command", |s| s.args.clear()),
            ("argument", |s| s.args.push("a\0b".into())),
            ("--env", |s| s.env.push("=x".into())),
            ("--hostname", |s| s.hostname = "a b".into()),
            ("--hostname", |s| s.hostname = "a".repeat(65)),
            ("--host", |s| s.hosts.push(("a\nb".into(), "::1".parse().unwrap()))),
            ("--dns-search", |s| s.dns_search.push("a b".into())),
            ("--dns-opt", |s| s.dns_options.push("a b".into())),
            ("--stop-grace-period", |s| s.stop_grace = Duration::from_secs(86_401)),
            ("--limit-memory", |s| s.limits.memory = 1),
            ("--workdir", |s| s.workdir = "tmp".into()),
            ("--user", |s| s.user = "a b".into()),
            ("--stop-signal", |s| s.stop_signal = Some(65)),
            ("--stop-signal", |s| s.stop_signal = Some(0)),
            ("--cap-add", |s| s.cap_add.push("NET".into())),
            ("--cap-drop", |s| s.cap_drop.push("NET".into())),
            ("--sysctl", |s| drop(s.sysctls.insert("vm.swappiness".into(), "1".into()))),
            ("--health-cmd", |s| s.health = Some(probe(HealthTest::Exec(vec![])))),
            ("--health-cmd", |s| s.health = Some(probe(HealthTest::Shell(String::new())))),
            ("--health-interval", |s| {
                let interval = Duration::from_micros(999);
                s.health = Some(Health { interval, ..probe(HealthTest::Off) });
            }),
            ("--health-timeout", |s| {
                let timeout = Duration::from_secs(86_401);
                s.health = Some(Health { timeout, ..probe(HealthTest::Off) });
            }),
            ("--mount target", |s| {
                let twice = Mount::Tmpfs { target: "/t".into(), size: None, mode: None };
                s.mounts = vec![twice.clone(), twice];
            }),
            ("--mount tmpfs-size", |s| {
                s.mounts.push(Mount::Tmpfs { target: "/t".into(), size: Some(0), mode: None });
            }),
            ("--mount tmpfs-mode", |s| {
                s.mounts.push(Mount::Tmpfs {
                    target: "/t".into(),
                    size: None,
                    mode: Some(0o10000),
                });
            }),
            ("--mount target", |s| {
                s.mounts.push(Mount::Tmpfs { target: "/".into(), size: None, mode: None })
            }),
        ];
        for (field, spoil) in cases {
            let mut spec = good();
            spoil(&mut spec);
            assert_eq!(spec.check().unwrap_err().field, *field);
        }
    }
}
