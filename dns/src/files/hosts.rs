//! /etc/hosts and /etc/hostname.

use std::fmt::Write;
use std::net::IpAddr;

use super::{Ipv6, is_word};

/// The lines every container has, as Docker writes them.
const LOOPBACK_V4: &str = "127.0.0.1\tlocalhost\n";
const LOOPBACK_V6: &str = "::1\tlocalhost ip6-localhost ip6-loopback\n\
    fe00::\tip6-localnet\n\
    ff00::\tip6-mcastprefix\n\
    ff02::1\tip6-allnodes\n\
    ff02::2\tip6-allrouters\n";

/// One line: an address and its names, the full one first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostEntry {
    pub address: IpAddr,
    pub names: Vec<String>,
}

/// The text of /etc/hosts: loopback, the hosts the user added, the container's own addresses.
/// Lines with IPv6 addresses are left out where IPv6 is disabled; a name that would break the
/// line is left out, and a line without names as well.
pub fn hosts(extra: &[HostEntry], own: &[HostEntry], ipv6: Ipv6) -> String {
    let mut text = String::from(LOOPBACK_V4);
    if ipv6 == Ipv6::Enabled {
        text.push_str(LOOPBACK_V6);
    }
    for entry in extra.iter().chain(own) {
        let names: Vec<&str> =
            entry.names.iter().map(String::as_str).filter(|name| is_word(name)).collect();
        if names.is_empty() || (entry.address.is_ipv6() && ipv6 == Ipv6::Disabled) {
            continue;
        }
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}\t{}", entry.address, names.join(" "));
    }
    text
}

/// The text of /etc/hostname.
pub fn hostname(name: &str) -> String {
    format!("{name}\n")
}
