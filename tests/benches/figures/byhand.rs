//! The limit of the data path: a bridge, a veth pair and a VXLAN device on each of two hosts, made
//! with `ip` and `bridge` and nothing else. No learning, one static entry for the other side, and no
//! outer checksum: a VXLAN device with one takes about half as much through on this path.

use weft_tests::{Host, Lab};

use crate::inside::Inside;

/// Any number that is no port of the cluster's.
const PORT: u16 = 4790;
const VNI: u32 = 77;
/// What is left of 1500 bytes by VXLAN over IPv4 (RFC 7348, section 5).
const MTU: u32 = 1450;

/// Two hosts with a namespace each, 10.77.0.1 and 10.77.0.2.
pub struct ByHand {
    inner: Vec<Inside>,
    lab: Lab,
}

impl ByHand {
    pub fn new(name: &str) -> Self {
        let lab = Lab::new(name, 2);
        let inner = (1..=2).map(|n| namespace(lab.host(n), n, 3 - n)).collect();
        Self { inner, lab }
    }

    /// Runs a command in the namespace of a host.
    pub fn command(&self, n: usize, argv: &[&str]) -> std::process::Command {
        let pid = self.inner[n - 1].pid().to_string();
        let mut words = vec!["nsenter", "-t", &pid, "-n", "--"];
        words.extend(argv);
        self.lab.host(n).command(&words)
    }
}

fn namespace(host: &Host, own: usize, other: usize) -> Inside {
    let inside = Inside::new(host);
    let pid = inside.pid();
    let mac = |n: usize| format!("02:00:00:00:77:{n:02x}");
    host.sh(&format!(
        "ip link add br77 mtu {MTU} type bridge; ip link set br77 up
         ip link add vx77 mtu {MTU} type vxlan id {VNI} dstport {PORT} local 10.99.0.{own} nolearning noudpcsum
         ip link set vx77 master br77 up; bridge link set dev vx77 learning off
         ip link add vh77 mtu {MTU} type veth peer name eth0 mtu {MTU} address {own_mac} netns {pid}
         ip link set vh77 master br77 up
         bridge fdb append 00:00:00:00:00:00 dev vx77 dst 10.99.0.{other}
         bridge fdb add {other_mac} dev vx77 master static
         bridge fdb add {other_mac} dev vx77 self dst 10.99.0.{other}
         nsenter -t {pid} -n ip addr add 10.77.0.{own}/24 dev eth0
         nsenter -t {pid} -n ip link set eth0 up",
        own_mac = mac(own),
        other_mac = mac(other),
    ))
    .ok();
    inside
}
