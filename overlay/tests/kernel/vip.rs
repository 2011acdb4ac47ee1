//! Virtual addresses and the resolver inside a sandbox.

use std::collections::{BTreeMap, BTreeSet};

use super::lab::*;

const SUBNETS: &[(&str, &str)] = &[("10.1.0.0/24", "10.1.0.1"), ("fd01::/64", "fd01::1")];

fn with_vip(lab: &mut Lab, on: usize, key: &str, vip: &str, backends: &[&str]) {
    let sandbox = lab.nodes[on].desired.sandboxes.get_mut(key).unwrap();
    sandbox.vips.insert(ip(vip), backends.iter().map(|backend| ip(backend)).collect());
}

#[test]
fn connections_rotate_over_backends_also_the_client_itself() {
    let mut lab = Lab::new(2, false);
    lab.network(VNI, SUBNETS, false);
    let a = lab.attach(0, "a", &[(VNI, &["10.1.0.2/24", "fd01::2/64"])]);
    let b = lab.attach(1, "b", &[(VNI, &["10.1.0.3/24", "fd01::3/64"])]);
    with_vip(&mut lab, 0, "a", "10.1.0.200", &["10.1.0.2", "10.1.0.3"]);
    with_vip(&mut lab, 0, "a", "fd01::200", &["fd01::2", "fd01::3"]);
    lab.settle();
    for (space, name, v4, v6) in
        [(&a, "a", "10.1.0.2", "[fd01::2]"), (&b, "b", "10.1.0.3", "[fd01::3]")]
    {
        space.serve_tcp(&format!("{v4}:80"), name);
        space.serve_tcp(&format!("{v6}:80"), name);
        space.serve_udp(&format!("{v4}:81"), name);
    }
    for (address, own) in [("10.1.0.200:80", "10.1.0.2"), ("[fd01::200]:80", "fd01::2")] {
        let mut answers = BTreeMap::new();
        for _ in 0..10 {
            *answers.entry(a.ask_tcp(address).unwrap()).or_insert(0) += 1;
        }
        // No source translation: the task sees the real client.
        let expected = BTreeMap::from([(format!("a {own}"), 5), (format!("b {own}"), 5)]);
        assert_eq!(answers, expected, "{address}");
    }
    let udp: BTreeSet<String> =
        (0..4).map(|_| ask_udp(&a.udp("0.0.0.0:0"), "10.1.0.200:81").unwrap()).collect();
    assert_eq!(udp.len(), 2, "{udp:?}");
    for _ in 0..2 {
        assert!(a.reaches("10.1.0.200"), "ping over IPv4");
        assert!(a.reaches("fd01::200"), "ping over IPv6");
    }
}

#[test]
fn a_vip_without_backends_refuses_at_once() {
    let mut lab = Lab::new(1, false);
    lab.network(VNI, SUBNETS, false);
    let a = lab.attach(0, "a", &[(VNI, &["10.1.0.2/24", "fd01::2/64"])]);
    with_vip(&mut lab, 0, "a", "10.1.0.200", &[]);
    with_vip(&mut lab, 0, "a", "fd01::200", &[]);
    lab.settle();
    assert!(a.reaches("fd01::1"), "the interface is ready");
    for address in ["10.1.0.200:80", "[fd01::200]:80"] {
        let error = a.ask_tcp(address).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{address}: {error}");
    }
    // A local sender of UDP is told by the system call itself (EPERM), or by ICMP.
    let udp = a.udp("0.0.0.0:0");
    udp.connect("10.1.0.200:80").unwrap();
    let error = udp.send(b"?").and_then(|_| udp.recv(&mut [0; 8])).unwrap_err();
    let kinds = [std::io::ErrorKind::PermissionDenied, std::io::ErrorKind::ConnectionRefused];
    assert!(kinds.contains(&error.kind()), "{error}");
}

#[test]
fn flows_to_a_backend_that_leaves_move_on() {
    let mut lab = Lab::new(1, false);
    lab.network(VNI, SUBNETS, false);
    let a = lab.attach(0, "a", &[(VNI, &["10.1.0.2/24"])]);
    let b = lab.attach(0, "b", &[(VNI, &["10.1.0.3/24"])]);
    let c = lab.attach(0, "c", &[(VNI, &["10.1.0.4/24"])]);
    with_vip(&mut lab, 0, "a", "10.1.0.200", &["10.1.0.3"]);
    lab.settle();
    b.serve_udp("10.1.0.3:81", "b");
    c.serve_udp("10.1.0.4:81", "c");
    let socket = a.udp("0.0.0.0:0");
    assert_eq!(ask_udp(&socket, "10.1.0.200:81").unwrap(), "b");
    with_vip(&mut lab, 0, "a", "10.1.0.200", &["10.1.0.3", "10.1.0.4"]);
    lab.settle();
    assert_eq!(ask_udp(&socket, "10.1.0.200:81").unwrap(), "b", "a flow keeps its backend");
    with_vip(&mut lab, 0, "a", "10.1.0.200", &["10.1.0.4"]);
    lab.settle();
    assert_eq!(ask_udp(&socket, "10.1.0.200:81").unwrap(), "c", "the backend left");
}

#[test]
fn names_are_asked_at_the_resolver_and_port_53_stays_free() {
    let mut lab = Lab::new(1, false);
    lab.network(VNI, &[("fd01::/64", "fd01::1")], false);
    let a = lab.attach(0, "a", &[(VNI, &["fd01::2/64"])]);
    lab.nodes[0].desired.sandboxes.get_mut("a").unwrap().dns_port = Some(5353);
    lab.settle();
    a.serve_udp("127.0.0.11:5353", "resolver");
    a.serve_tcp("127.0.0.11:5353", "resolver");
    a.serve_udp("[::]:53", "somebody");
    let socket = a.udp("0.0.0.0:0");
    let mut buffer = [0; 64];
    socket.send_to(b"?", "127.0.0.11:53").unwrap();
    let (length, from) = socket.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..length], from.to_string()), (&b"resolver"[..], "127.0.0.11:53".into()));
    assert_eq!(a.ask_tcp("127.0.0.11:53").unwrap(), "resolver 127.0.0.1");
    assert_eq!(a.sh("cat /proc/sys/net/netfilter/nf_conntrack_count").trim(), "0", "tracked");
    assert_eq!(ask_udp(&a.udp("0.0.0.0:0"), "127.0.0.1:53").unwrap(), "somebody");
}
