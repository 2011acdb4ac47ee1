//! Kernel parameters below /proc/sys/net: they are those of the calling thread's network namespace.

use std::collections::BTreeSet;
use std::fs;

use super::KernelError;
use crate::plane::{Object, Setting};

/// Reads parameters; one that does not exist is left out.
pub(crate) fn read<'a>(paths: impl IntoIterator<Item = &'a String>) -> Vec<Object> {
    let value = |path: &String| {
        let text = fs::read_to_string(format!("/proc/sys/{path}")).ok()?;
        let blanks: Vec<&str> = text.split_whitespace().collect();
        Some(Object::Sysctl(path.clone(), Setting::Is(blanks.join(" "))))
    };
    paths.into_iter().collect::<BTreeSet<_>>().into_iter().filter_map(value).collect()
}

/// Writes one parameter.
pub(crate) fn write(path: &str, setting: &Setting) -> Result<(), KernelError> {
    if path == "net/ipv6/conf/all/forwarding" && setting.text() == "1" {
        keep_router_advertisements();
    }
    fs::write(format!("/proc/sys/{path}"), setting.text())
        .map_err(|error| KernelError::io(format!("/proc/sys/{path}"), &error))
}

/// A host that begins to forward IPv6 stops listening to router advertisements, and loses a default route
/// it had from them. The value 2 says "also when forwarding" (Documentation/networking/ip-sysctl.rst).
fn keep_router_advertisements() {
    let Ok(links) = fs::read_dir("/proc/sys/net/ipv6/conf") else { return };
    for link in links.flatten() {
        let path = link.path().join("accept_ra");
        let listens = fs::read_to_string(&path).is_ok_and(|text| text.trim() == "1");
        if listens && let Err(error) = fs::write(&path, "2") {
            tracing::warn!(path = %path.display(), %error, "router advertisements stay off");
        }
    }
}

/// Whether the old `iptables` (not on nftables) has a filter table here, which sees forwarded packets.
pub(crate) fn legacy_iptables() -> bool {
    let loaded = |path: &str| {
        fs::read_to_string(path).is_ok_and(|text| text.lines().any(|line| line == "filter"))
    };
    loaded("/proc/thread-self/net/ip_tables_names")
        || loaded("/proc/thread-self/net/ip6_tables_names")
}

/// Whether this kernel speaks IPv6 at all.
pub(crate) fn has_ipv6() -> bool {
    fs::exists("/proc/sys/net/ipv6/conf").unwrap_or(false)
}
