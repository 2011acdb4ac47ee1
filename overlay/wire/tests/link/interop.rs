//! The wire is plain WireGuard around plain VXLAN: a node that uses somebody else's WireGuard, with the
//! kernel's VXLAN device on top, is a node like any other.

use std::{
    io::Write,
    process::{Child, Command, Stdio},
    thread,
};

use weft_wire::Key;

use crate::lab::{
    Host, PORT, Space, TAP, VNI, World, check_stream, key, mac, send_stream, tunnel, wait_until,
};

/// Bytes of the flow in each direction.
const FLOW: usize = 4 << 20;
/// Characters of base64.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// A key as `wg` writes it: base64 of 32 bytes.
fn base64(key: &Key) -> String {
    let mut bits = Vec::from(key.0);
    bits.push(0);
    let groups = bits.chunks(3).map(|it| u32::from_be_bytes([0, it[0], it[1], it[2]]));
    let digits = groups.flat_map(|group| [18, 12, 6, 0].map(|shift| group >> shift & 63));
    let mut text: String = digits.map(|digit| char::from(ALPHABET[digit as usize])).collect();
    text.replace_range(43.., "=");
    text
}

/// A running `wireguard-go`, which ends with its owner.
struct Foreign(Child);

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Gives the second node somebody else's WireGuard.
fn start(host: &Host, peer: &Key) -> Foreign {
    let device = format!("wt{}", std::process::id());
    let name = device.clone();
    let child = host.host.run(move || {
        let mut command = Command::new("wireguard-go");
        command
            .args(["--foreground", &name])
            .env("WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD", "1");
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("wireguard-go")
    });
    let foreign = Foreign(child);
    wait_until("its device is there", || host.host.try_sh(&format!("wg show {device}")).is_ok());
    let mut secret = tempfile::NamedTempFile::new().unwrap();
    writeln!(secret, "{}", base64(&key(2, 0))).unwrap();
    let file = secret.path().display();
    let [_, _, _, ours] = tunnel(2, 0);
    let [_, _, _, theirs] = tunnel(1, 0);
    let public = base64(&peer.public());
    host.host.sh(&format!(
        "wg set {device} private-key {file} listen-port {PORT} \
             peer {public} endpoint 10.99.0.1:{PORT} allowed-ips 100.64.0.{theirs}/32
         ip address add 100.64.0.{ours}/32 dev {device}
         ip link set {device} mtu 1440 up
         ip route add 100.64.0.{theirs}/32 dev {device}"
    ));
    host.host.sh(&vxlan(ours, theirs));
    foreign
}

fn vxlan(ours: u8, theirs: u8) -> String {
    let to = mac(1).map(|byte| format!("{byte:02x}")).join(":");
    format!(
        "ip link delete {TAP}
         ip link add vx0 type vxlan id {VNI} dstport 4789 local 100.64.0.{ours} nolearning
         ip link set vx0 master br0 mtu 1390 addrgenmode none up
         bridge fdb append 00:00:00:00:00:00 dev vx0 dst 100.64.0.{theirs}
         bridge fdb append {to} dev vx0 dst 100.64.0.{theirs}"
    )
}

fn flow(from: &Space, to: &Space, address: &str) {
    let listener = to.listen(&format!("{address}:5001"));
    let stream = from.connect(&format!("{address}:5001"));
    let (accepted, _) = listener.accept().unwrap();
    let sender = thread::spawn(move || send_stream(stream, 1, |sent| sent < FLOW));
    assert_eq!(check_stream(accepted, 1), FLOW);
    sender.join().unwrap();
}

#[test]
fn a_node_with_wireguard_go_and_the_kernels_vxlan() {
    let mut world = World::without_engines(2, 1);
    world.hosts[0].start();
    let [a, b] = &world.hosts[..] else { unreachable!() };
    let _foreign = start(b, &key(1, 0));
    a.client().set(world.config(1)).unwrap();
    wait_until("it answers", || a.guest.pings(&b.inner()));
    wait_until("and over IPv6", || b.guest.pings(&a.inner6()));
    flow(&a.guest, &b.guest, &b.inner());
    flow(&b.guest, &a.guest, &a.inner());
    assert!(a.status().peers[&2].received > FLOW as u64);
}
