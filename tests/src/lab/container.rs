//! A container on a host, as its user meets it.

use std::time::Duration;

use super::{
    PATIENCE,
    command::{Output, weft_binary},
    host::Host,
    wait::eventually,
};

/// A container of one host.
#[derive(Clone)]
pub struct Container<'a> {
    host: &'a Host,
    id: String,
}

impl<'a> Container<'a> {
    pub(super) fn new(host: &'a Host, id: &str) -> Self {
        Self { host, id: id.to_owned() }
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    /// `weft exec`.
    pub fn exec(&self, argv: &[&str]) -> Output {
        let mut args = vec!["exec", self.id.as_str()];
        args.extend(argv);
        self.host.weft(&args)
    }

    /// `weft exec CONTAINER sh -c SCRIPT`.
    pub fn sh(&self, script: &str) -> Output {
        self.exec(&["sh", "-c", script])
    }

    /// The IPv4 addresses that a name has, sorted.
    pub fn lookup(&self, name: &str) -> Result<Vec<String>, String> {
        self.lookup_type(name, "a")
    }

    /// The addresses of one record type (a, aaaa), sorted.
    pub fn lookup_type(&self, name: &str, kind: &str) -> Result<Vec<String>, String> {
        let said = self.sh(&format!("nslookup -type={kind} {name} 127.0.0.11 2>&1"));
        let answer = said.stdout.split_once("Name:").map(|(_, rest)| rest.to_owned());
        let answer = answer.ok_or_else(|| said.to_string())?;
        let mut found: Vec<String> = answer
            .lines()
            .filter_map(|line| line.trim().strip_prefix("Address"))
            .filter_map(|rest| rest.split_once(": ").map(|(_, address)| address.trim().to_owned()))
            .collect();
        found.sort();
        found.dedup();
        if found.is_empty() { Err(said.to_string()) } else { Ok(found) }
    }

    /// Whether the name is denied (NXDOMAIN), which is not the same as no answer.
    pub fn denied(&self, name: &str) -> Result<(), String> {
        let said = self.sh(&format!("nslookup -type=a {name} 127.0.0.11 2>&1"));
        let denied = said.stdout.contains("NXDOMAIN") && !said.stdout.contains("Name:");
        if denied { Ok(()) } else { Err(said.to_string()) }
    }

    /// One ping, one second.
    pub fn ping(&self, target: &str) -> Result<String, String> {
        self.exec(&["ping", "-c1", "-W1", target]).text()
    }

    /// Pings until there is an answer.
    #[track_caller]
    pub fn pings(&self, target: &str) {
        eventually(&format!("{} pings {target}", self.id), PATIENCE, || self.ping(target));
    }

    /// What the server `peer serve` says to a new TCP connection: its name and whom it sees.
    pub fn tcp(&self, host: &str, port: u16) -> Result<String, String> {
        self.exec(&["peer", "tcp", host, &port.to_string()]).text()
    }

    /// A program that is left running in the container; it ends with the lab.
    pub fn spawn(&self, argv: &[&str]) -> std::process::Child {
        let program = weft_binary().display().to_string();
        let mut args = vec![program.as_str(), "exec", self.id.as_str()];
        args.extend(argv);
        let mut command = self.host.command(&args);
        command.stdout(std::process::Stdio::piped()).spawn().expect("weft can be started")
    }

    /// What the server `peer serve` answers to one packet of UDP.
    pub fn udp(&self, host: &str, port: u16) -> Result<String, String> {
        let said = self.exec(&["peer", "udp", host, &port.to_string(), "1"]);
        let text = said.text()?;
        if text.starts_with("none") { Err(said.to_string()) } else { Ok(text) }
    }

    /// The first IPv4 address of a network, as `weft inspect` shows it.
    pub fn address(&self, network: &str) -> Result<String, String> {
        let shown = self.host.weft(&["inspect", &self.id]);
        let value: serde_json::Value =
            serde_json::from_str(&shown.text()?).map_err(|error| format!("{error}: {shown}"))?;
        let address = &value[0]["NetworkSettings"]["Networks"][network]["IPAddress"];
        let address = address.as_str().ok_or_else(|| shown.to_string())?;
        Ok(address.to_owned())
    }

    /// Its first process, as the host numbers it.
    pub fn pid(&self) -> Result<u64, String> {
        let shown = self.host.weft(&["inspect", "--format", "{{.State.Pid}}", &self.id]);
        shown.text()?.parse().map_err(|error| format!("{error}: {shown}"))
    }

    /// Waits at most so many seconds.
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
