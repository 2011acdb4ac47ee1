//! What the kernel of a host holds, as text that two moments can be compared by.

use std::collections::BTreeMap;

use super::host::Host;

/// What each part is asked with. Counters, timers, ages, and the multicast and anycast addresses that
/// the kernel itself listens on are not part of it: they change by themselves.
const PARTS: &[(&str, &str)] = &[
    (
        "links",
        "ip -d -o link | sed -E 's/(qlen|promiscuity|allmulti) [0-9]+//g; s/[a-z_]+_timer +[0-9.]+//g; s/(port_id|port_no|designated_port) [^ ]+//g'",
    ),
    ("addresses", "ip -o addr | sed -E 's/(valid|preferred)_lft [^ ]+//g'"),
    (
        "routes",
        "ip -4 route show table all; ip -6 route show table all | grep -vE '^(multicast|anycast)'; ip rule; ip -6 rule",
    ),
    (
        "fdb",
        "bridge -d fdb show | grep -vE '^(33:33|01:00:5e):' | sed -E 's/ (used|updated) [0-9/]+//g'",
    ),
    ("neighbours", "ip neigh show nud permanent; ip -6 neigh show nud permanent"),
    (
        "nftables",
        "nft list ruleset | sed -E 's/counter packets [0-9]+ bytes [0-9]+/counter/; s/ expires [0-9a-z]+//g'",
    ),
];

/// The kernel of one host at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    parts: BTreeMap<&'static str, Vec<String>>,
}

impl Snapshot {
    pub(super) fn take(host: &Host) -> Self {
        let part = |(name, script): &(&'static str, &'static str)| {
            let text = host.sh(script).ok();
            let mut lines: Vec<String> =
                text.lines().map(|line| line.trim_end().to_owned()).collect();
            if *name != "nftables" {
                lines.sort();
            }
            (*name, lines)
        };
        Self { parts: PARTS.iter().map(part).collect() }
    }

    /// What is there and was not, and what was there and is not; empty if nothing changed.
    pub fn changes(&self, later: &Self) -> Vec<String> {
        let mut found = Vec::new();
        for (part, before) in &self.parts {
            let after = &later.parts[part];
            let gone = before.iter().filter(|line| !after.contains(line));
            let new = after.iter().filter(|line| !before.contains(line));
            found.extend(gone.map(|line| format!("{part}: - {line}")));
            found.extend(new.map(|line| format!("{part}: + {line}")));
        }
        found
    }
}
