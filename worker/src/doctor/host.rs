//! What the facts of a machine mean.

use weft_overlay::{
    kernel::checkup::{Checkup, Feature},
    plane::Integrity,
};

use super::{
    Facts, Finding,
    facts::{Directory, FoundDirectory, Host},
    size,
};

/// Permission bits of group and others: in our directories are keys.
const OTHERS: u32 = 0o077;
/// Room under so many times what is needed is little.
const LITTLE: u64 = 4;

/// Everything about the host.
pub(super) fn examine(facts: &Facts) -> Vec<Finding> {
    let host = &facts.host;
    let mut findings = vec![rights(host)];
    match &host.kernel {
        Ok(kernel) => findings.extend(kernel_has(host, kernel)),
        Err(why) => findings.push(Finding::problem(
            "kernel",
            "the kernel cannot be asked",
            why,
            "sudo weft doctor",
        )),
    }
    findings.push(tun(host));
    findings.push(Finding::ok("wireguard", &host.wireguard));
    findings.extend(ports(host));
    findings.extend(host.directories.iter().map(directory));
    findings.push(resolvers(host));
    findings
}

fn rights(host: &Host) -> Finding {
    if host.lacking.is_empty() {
        return Finding::ok("privileges", "all that is needed");
    }
    Finding::problem(
        "privileges",
        format!("missing: {}", host.lacking.join(", ")),
        "networks and containers are made with these capabilities",
        "run as root; in a container: --privileged",
    )
}

fn kernel_has(host: &Host, kernel: &Checkup) -> Vec<Finding> {
    let mut findings: Vec<_> = kernel
        .missing
        .iter()
        .map(|(feature, error)| missing(*feature, &error.to_string()))
        .collect();
    if findings.is_empty() {
        findings.push(Finding::ok("kernel", "bridge, veth, vxlan, nftables, conntrack"));
    }
    let used = !kernel.bridges.is_empty();
    if host.policy.nftables && used && !kernel.missing.contains_key(&Feature::Nftables) {
        findings.extend(tables(kernel));
    }
    findings.extend(forwarding(host, used));
    findings.push(dropping(kernel, used));
    findings
}

fn missing(feature: Feature, why: &str) -> Finding {
    let fix = match feature {
        Feature::Bridge => "modprobe bridge",
        Feature::Veth => "modprobe veth",
        Feature::Vxlan => "modprobe vxlan",
        Feature::Nftables => "apt-get install nftables; modprobe nf_tables nf_conntrack",
    };
    Finding::problem("kernel", format!("{} cannot be used", feature.word()), why, fix)
}

/// Our tables: the daemon puts them back at once, so what is missing was not seen by it.
fn tables(kernel: &Checkup) -> Vec<Finding> {
    let bad = kernel.tables.iter().filter_map(|(table, state)| {
        let (what, fix) = match state {
            Some(Integrity::Intact) => return None,
            Some(Integrity::Damaged) => {
                ("was changed", "is of another version or was edited by hand")
            }
            None => ("is not there", "was removed, as by nft flush ruleset"),
        };
        Some(Finding::problem(
            "nftables",
            format!("table {} {what}", table.spelled()),
            format!("it {fix}; without it containers are not masqueraded, published or guarded"),
            "start the daemon, which puts it back: systemctl start weft, or: weft daemon",
        ))
    });
    let bad: Vec<_> = bad.collect();
    if bad.is_empty() {
        vec![Finding::ok("nftables", "our tables are as they should be")]
    } else {
        bad
    }
}

fn forwarding(host: &Host, used: bool) -> Option<Finding> {
    match host.forwards {
        Some(false) if used && host.policy.ip_forward => Some(Finding::problem(
            "forwarding",
            "this host does not forward packets (net.ipv4.ip_forward = 0)",
            "containers reach nothing outside of their networks, and nothing reaches them",
            "sysctl -w net.ipv4.ip_forward=1",
        )),
        Some(false) if used => Some(Finding::warning(
            "forwarding",
            "this host does not forward packets, as the daemon was told (--ip-forward=false)",
            "containers reach the host and each other, and nothing outside",
            "sysctl -w net.ipv4.ip_forward=1, if that is not what you want",
        )),
        Some(true) => Some(Finding::ok("forwarding", "on")),
        Some(false) | None => None,
    }
}

/// In a chain of iptables ours is an exception, which the daemon makes.
fn dropping(kernel: &Checkup, used: bool) -> Finding {
    let of_iptables =
        |name: &&String| matches!(name.as_str(), "ip filter FORWARD" | "ip6 filter FORWARD");
    let in_the_way: Vec<_> = kernel.dropping.iter().filter(|name| !of_iptables(name)).collect();
    match in_the_way.first() {
        Some(chain) if used => Finding::problem(
            "firewall",
            format!("another firewall drops forwarded packets: chain {chain}"),
            "what containers send out or get from outside ends there; ours has let it pass and \
             marked it 0x1000",
            format!("nft insert rule {chain} meta mark \\& 0x1000 == 0x1000 accept"),
        ),
        Some(chain) => Finding::warning(
            "firewall",
            format!("another firewall drops forwarded packets: chain {chain}"),
            "no container of this node needs to pass there yet",
            format!("nft insert rule {chain} meta mark \\& 0x1000 == 0x1000 accept"),
        ),
        None => Finding::ok("firewall", "no other firewall drops forwarded packets"),
    }
}

fn tun(host: &Host) -> Finding {
    match &host.no_tun {
        None => Finding::ok("tun", "/dev/net/tun can be opened"),
        Some(why) => Finding::warning(
            "tun",
            "/dev/net/tun cannot be opened",
            format!("{why}; encrypted networks without WireGuard in the kernel need it"),
            "modprobe tun",
        ),
    }
}

fn ports(host: &Host) -> Vec<Finding> {
    if host.taken.is_empty() {
        return vec![Finding::ok("ports", "nobody else has one of ours")];
    }
    let taken = host.taken.iter().map(|taken| {
        let pid = taken.holder.split_whitespace().next().unwrap_or_default();
        Finding::problem(
            "ports",
            format!("{}/{} is held by process {}", taken.port, taken.protocol, taken.holder),
            format!("it is needed for {}", taken.purpose),
            format!("kill {pid}, or set another port (weft daemon --listen-addr, weft cluster init --data-path-port, --wireguard-port)"),
        )
    });
    taken.collect()
}

fn directory(directory: &Directory) -> Finding {
    let Directory { purpose, path, found, needed } = directory;
    let path = path.display();
    let Some(FoundDirectory { owner, mode, room }) = found else {
        return Finding::warning(
            "directories",
            format!("{purpose} directory {path} is not there"),
            "the daemon makes it when it starts",
            "systemctl start weft, or: weft daemon",
        );
    };
    if *owner != 0 {
        return Finding::problem(
            "directories",
            format!("{purpose} directory {path} belongs to user {owner}"),
            "keys are in it, and whoever owns it can change them",
            format!("chown root: {path}"),
        );
    }
    if mode & OTHERS != 0 {
        return Finding::problem(
            "directories",
            format!("{purpose} directory {path} is open to others (mode {mode:o})"),
            "keys are in it",
            format!("chmod 700 {path}"),
        );
    }
    match room {
        Some(room) if room.free < *needed => Finding::problem(
            "directories",
            format!("{purpose} directory {path} has {} left", size(room.free)),
            format!("what is written there needs {} at least", size(*needed)),
            format!("df -h {path}; du -xh --max-depth 2 {path} | sort -h | tail"),
        ),
        Some(room) if room.free < *needed * LITTLE => Finding::warning(
            "directories",
            format!("{purpose} directory {path} has {} left", size(room.free)),
            format!("below {} writes begin to be refused", size(*needed)),
            format!("df -h {path}; du -xh --max-depth 2 {path} | sort -h | tail"),
        ),
        Some(room) => {
            Finding::ok("directories", format!("{purpose} {path}: {} free", size(room.free)))
        }
        None => Finding::ok("directories", format!("{purpose} {path}")),
    }
}

fn resolvers(host: &Host) -> Finding {
    match host.resolvers {
        0 => Finding::warning(
            "resolvers",
            "/etc/resolv.conf of this host has no name server",
            "containers resolve names of their networks, and no others",
            "echo nameserver 9.9.9.9 >> /etc/resolv.conf, or start the daemon with --dns ADDRESS",
        ),
        count => Finding::ok("resolvers", format!("{count} in /etc/resolv.conf")),
    }
}
