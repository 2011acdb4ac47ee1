//! /etc/resolv.conf: read from the host, overridden by the user, written for the container; and
//! the servers in it, which our resolver asks in the container's place.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};

use super::{Ipv6, is_word};
use crate::limits::UPSTREAMS;

/// Where containers find the resolver, the same address as Docker's.
pub const RESOLVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
/// The port of upstream servers: resolv.conf cannot name another.
const PORT: u16 = 53;
/// Single labels are ours, so they are asked for as they are, before any search domain.
const NDOTS: &str = "ndots:0";
/// What a container without our resolver gets if the host's servers are on its loopback.
const FALLBACK_V4: [&str; 2] = ["8.8.8.8", "8.8.4.4"];
const FALLBACK_V6: [&str; 2] = ["2001:4860:4860::8888", "2001:4860:4860::8844"];

/// What the user set for one container. An empty list leaves what the host has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    pub nameservers: Vec<IpAddr>,
    /// Search domains; a single `.` means none.
    pub search: Vec<String>,
    pub options: Vec<String>,
}

/// A resolv.conf with the overrides in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvConf {
    nameservers: Vec<String>,
    search: Vec<String>,
    options: Vec<String>,
    /// Lines with directives we do not know, kept as they are.
    other: Vec<String>,
    overridden: Vec<&'static str>,
    ndots_from: &'static str,
}

/// The file for a container that uses our resolver.
pub fn resolv_conf(host: &str, overrides: &Overrides) -> String {
    ResolvConf::new(host, overrides).text()
}

/// The first three servers of a resolv.conf, on port 53. IPv6 scopes must be numbers; use
/// [`upstreams_with_scopes`] where interface names can be looked up. `127.0.0.11` is left out,
/// lest a resolver asks itself, except if there is no other: then the host is itself a container,
/// and that address is the resolver of the engine around it.
pub fn upstreams_from_resolv_conf(text: &str) -> Vec<SocketAddr> {
    upstreams_with_scopes(text, |_| None)
}

/// The same, with a function that knows the index of an interface by name (`fe80::1%eth0`).
pub fn upstreams_with_scopes(text: &str, index: impl Fn(&str) -> Option<u32>) -> Vec<SocketAddr> {
    let conf = ResolvConf::new(text, &Overrides::default());
    let all: Vec<SocketAddr> =
        conf.nameservers.iter().filter_map(|server| upstream(server, &index)).collect();
    let others: Vec<_> = all.iter().copied().filter(|server| server.ip() != RESOLVER).collect();
    let mut chosen = if others.is_empty() { all } else { others };
    chosen.truncate(UPSTREAMS);
    chosen
}

fn upstream(server: &str, index: impl Fn(&str) -> Option<u32>) -> Option<SocketAddr> {
    let (address, scope) = match server.split_once('%') {
        Some((address, scope)) => (address, Some(scope)),
        None => (server, None),
    };
    let address: IpAddr = address.parse().ok()?;
    match (address, scope) {
        (address, _) if address.is_unspecified() => None,
        (IpAddr::V6(v6), Some(scope)) => {
            let scope = scope.parse().ok().or_else(|| index(scope))?;
            Some(SocketAddrV6::new(v6, PORT, 0, scope).into())
        }
        (IpAddr::V4(_), Some(_)) => None,
        (address, None) => Some(SocketAddr::new(address, PORT)),
    }
}

impl ResolvConf {
    /// Reads the host's file and applies the overrides.
    pub fn new(host: &str, overrides: &Overrides) -> Self {
        let mut conf = Self::default();
        host.lines().for_each(|line| conf.line(line));
        if conf.option("ndots").is_some() {
            conf.ndots_from = "host";
        }
        conf.apply(overrides);
        conf
    }

    fn line(&mut self, line: &str) {
        let mut words = line.split_whitespace();
        let Some(directive) = words.next().filter(|word| !word.starts_with(['#', ';'])) else {
            return;
        };
        let words: Vec<String> = words.map(String::from).collect();
        match (directive, words.is_empty()) {
            ("nameserver" | "domain" | "search" | "options", true) => {}
            ("nameserver", false) => self.nameservers.extend(words.into_iter().next()),
            // The last one counts; `domain` is the old name of `search`.
            ("domain" | "search", false) => self.search = words,
            ("options", false) => self.options.extend(words),
            // What ends a line elsewhere may come before its end here.
            (_, _) => self.other.push(line.trim_end().to_string()),
        }
    }

    fn apply(&mut self, overrides: &Overrides) {
        let words = |all: &[String]| -> Vec<String> {
            all.iter().filter(|word| is_word(word)).cloned().collect()
        };
        if !overrides.nameservers.is_empty() {
            self.nameservers = overrides.nameservers.iter().map(ToString::to_string).collect();
            self.overridden.push("nameservers");
        }
        if !overrides.search.is_empty() {
            self.search = words(&overrides.search);
            self.search.retain(|domain| domain != ".");
            self.overridden.push("search");
        }
        if !overrides.options.is_empty() {
            self.options = words(&overrides.options);
            self.ndots_from = if self.option("ndots").is_some() { "override" } else { "" };
            self.overridden.push("options");
        }
    }

    /// The value of the last option of this name.
    fn option(&self, name: &str) -> Option<&str> {
        self.options.iter().rev().find_map(|option| {
            let (key, value) = option.split_once(':').unwrap_or((option, ""));
            (key == name).then_some(value)
        })
    }

    /// The `ndots` the user or the host set, if it is a number.
    pub fn ndots(&self) -> Option<u8> {
        let valid = self.options.iter().rev().find_map(|option| {
            option.strip_prefix("ndots:").and_then(|value| value.parse::<u32>().ok())
        })?;
        Some(u8::try_from(valid).unwrap_or(u8::MAX))
    }

    /// The file for a container that uses our resolver, with a note about where it comes from.
    pub fn text(&self) -> String {
        let mut options: Vec<&str> = self
            .options
            .iter()
            .map(String::as_str)
            .filter(|option| !is_bad_ndots(option))
            .collect();
        let mut ndots_from = self.ndots_from;
        if !options.iter().any(|option| option.starts_with("ndots:")) {
            options.push(NDOTS);
            ndots_from = "internal";
        }
        let servers = match self.overridden.contains(&"nameservers") {
            true => self.nameservers.join(" "),
            false => {
                let marked: Vec<_> =
                    self.nameservers.iter().map(|s| format!("host({s})")).collect();
                marked.join(" ")
            }
        };
        format!(
            "# Generated by weft.\n\
             # This file can be edited; it is left alone once it has been.\n\n\
             {}\n\
             # Based on host file: '/etc/resolv.conf' (internal resolver)\n\
             # ExtServers: [{servers}]\n\
             # Overrides: [{}]\n\
             # Option ndots from: {ndots_from}\n",
            self.body(&[RESOLVER.to_string()], &options),
            self.overridden.join(" "),
        )
    }

    /// The file for a container that asks the servers itself. Those on the host's loopback would
    /// be its own, so they go; if none is left, public servers take their place.
    pub fn direct(&self, ipv6: Ipv6) -> String {
        let mut servers = self.nameservers.clone();
        if !self.overridden.contains(&"nameservers") {
            servers.retain(|server| {
                server.parse::<IpAddr>().is_ok_and(|address| {
                    !address.is_loopback() && (address.is_ipv4() || ipv6 == Ipv6::Enabled)
                })
            });
            if servers.is_empty() {
                servers.extend(FALLBACK_V4.map(String::from));
                if ipv6 == Ipv6::Enabled {
                    servers.extend(FALLBACK_V6.map(String::from));
                }
            }
        }
        let options: Vec<&str> = self.options.iter().map(String::as_str).collect();
        format!("# Generated by weft.\n\n{}", self.body(&servers, &options))
    }

    fn body(&self, servers: &[String], options: &[&str]) -> String {
        let mut text = String::new();
        servers.iter().for_each(|server| text.push_str(&format!("nameserver {server}\n")));
        if !self.search.is_empty() {
            text.push_str(&format!("search {}\n", self.search.join(" ")));
        }
        if !options.is_empty() {
            text.push_str(&format!("options {}\n", options.join(" ")));
        }
        self.other.iter().for_each(|line| text.push_str(&format!("{line}\n")));
        text
    }
}

/// An `ndots` without a number would be read as something else by each C library.
fn is_bad_ndots(option: &str) -> bool {
    let (key, value) = option.split_once(':').unwrap_or((option, ""));
    key == "ndots" && value.parse::<u32>().is_err()
}
