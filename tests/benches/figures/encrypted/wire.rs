//! What lies between two hosts: one veth pair, so that nothing but the two of them works for a packet.

use weft_tests::Lab;

/// What the pair does with frames that are larger than its MTU of 1,500 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// They pass as they are, up to 64 KB.
    Whole,
    /// The kernel cuts them before they are sent, as for a network card without offloads.
    Cut,
}

/// A lab of two hosts that are joined by such a pair, not by the switch; 10.99.0.1 and 10.99.0.2 as ever.
pub fn lab(name: &str) -> Lab {
    let lab = Lab::new(name, 2);
    for host in lab.hosts() {
        host.sh("ip link del eth0").ok();
    }
    let other = lab.host(2).holder();
    lab.host(1).sh(&format!("ip link add eth0 type veth peer name eth0 netns {other}")).ok();
    for host in lab.hosts() {
        let address = host.ip();
        host.sh(&format!(
            "ip addr add {address}/24 dev eth0; ip link set eth0 addrgenmode none; ip link set eth0 up"
        ))
        .ok();
    }
    lab
}

/// Makes the pair of a lab such a wire.
pub fn set(lab: &Lab, wire: Wire) {
    let switch = match wire {
        Wire::Whole => "on",
        Wire::Cut => "off",
    };
    for host in lab.hosts() {
        host.sh(&format!(
            "ethtool -K eth0 tso {switch} gso {switch} tx-udp-segmentation {switch} gro on"
        ))
        .ok();
    }
}

/// How many packets of VXLAN the two hosts send in the clear while something is done.
pub fn clear<T>(lab: &Lab, work: impl FnOnce() -> T) -> u64 {
    for host in lab.hosts() {
        host.sh("nft add table inet bench
             nft add chain inet bench out '{ type filter hook output priority 0; }'
             nft add rule inet bench out udp dport 4789 counter")
            .ok();
    }
    let _ = work();
    let counts = lab.hosts().map(|host| {
        let text = host.sh("nft list chain inet bench out; nft delete table inet bench").ok();
        // "udp dport 4789 counter packets 12 bytes 1234"
        let number = text.split_once("packets ").and_then(|(_, rest)| rest.split(' ').next());
        number.and_then(|number| number.parse::<u64>().ok()).unwrap_or_else(|| panic!("{text}"))
    });
    counts.sum()
}
