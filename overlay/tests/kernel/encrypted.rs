//! Encrypted networks: they work over both engines and over any mixture, and nothing of them leaves in the clear.
//!
//! The kernel's WireGuard takes part where the kernel has it; with `WEFT_WIREGUARD=required` in the environment
//! it has to.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use weft_overlay::kernel::wireguard_available;
use weft_overlay::wire::{Client, Identity, Key, Member, Node as Far, PeerIdentity, Reason};
use weft_overlay::*;

use super::lab::*;

const SUBNETS: &[(&str, &str)] = &[("10.1.0.0/24", "10.1.0.1"), ("fd01::/64", "fd01::1")];
/// How long engines and handshakes may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// All mixtures of engines that two nodes may have here.
fn mixtures() -> Vec<[Engine; 2]> {
    use Engine::{Kernel, Userspace};
    match wireguard_available() {
        Ok(()) => vec![[Userspace, Userspace], [Kernel, Kernel], [Kernel, Userspace]],
        Err(why) => {
            let required = std::env::var("WEFT_WIREGUARD").is_ok_and(|word| word == "required");
            assert!(!required, "{why}");
            vec![[Userspace, Userspace]]
        }
    }
}

/// The sockets of UDP: `sl: LOCAL-ADDRESS:PORT ...`, in hexadecimal (proc(5)).
const LISTENING: &str = "cat /proc/net/udp /proc/net/udp6";

fn listens(sockets: &str, port: u16) -> bool {
    let local = |line: &str| line.split_whitespace().nth(1).map(ToOwned::to_owned);
    sockets.lines().filter_map(local).any(|local| local.ends_with(&format!(":{port:04X}")))
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "not within {PATIENCE:?}: {what}");
    }
}

/// The private key of a node and generation.
fn key(number: u64, generation: u8) -> Key {
    Key([u8::try_from(number).unwrap() * 16 + generation + 1; 32])
}

fn tunnel_address(number: u64, generation: u8) -> Ipv4Addr {
    Ipv4Addr::new(100, 64, 0, u8::try_from(number).unwrap() * 2 + generation % 2)
}

fn port_of(generation: u8) -> u16 {
    51820 + u16::from(generation % 2)
}

/// A node's number in the cluster.
fn number(index: usize) -> u64 {
    index as u64 + 1
}

/// Tells every node of the tunnel: engines and generations of keys, the current one first, by node.
fn tunnels(lab: &mut Lab, engines: &[Engine], generations: &[&[u8]]) {
    let vteps: Vec<_> =
        lab.nodes.iter().map(|node| node.desired.underlay.as_ref().unwrap().vtep).collect();
    for (index, node) in lab.nodes.iter_mut().enumerate() {
        let identity = |generation: &u8| Identity {
            private_key: key(number(index), *generation),
            address: tunnel_address(number(index), *generation),
            ports: vec![port_of(*generation)],
        };
        let far = |other: usize| {
            let identity = |generation: &u8| PeerIdentity {
                public_key: key(number(other), *generation).public(),
                address: tunnel_address(number(other), *generation),
                ports: vec![port_of(*generation)],
            };
            let identities = generations[other].iter().map(identity).collect();
            (number(other), Far { endpoint: vteps[other], identities, keepalive: None })
        };
        node.desired.tunnel = Some(Tunnel {
            engine: engines[index],
            identities: generations[index].iter().map(identity).collect(),
            nodes: (0..vteps.len()).filter(|other| *other != index).map(far).collect(),
        });
    }
}

/// Makes all networks encrypted ones, with the same members.
fn encrypt(lab: &mut Lab) {
    let vteps: Vec<_> =
        lab.nodes.iter().map(|node| node.desired.underlay.as_ref().unwrap().vtep).collect();
    for node in &mut lab.nodes {
        for network in node.desired.networks.values_mut() {
            let Some(Overlay::Plain(plain)) = network.kind.overlay() else { continue };
            let members = plain.remotes.iter().map(|remote| {
                let index = vteps.iter().position(|vtep| *vtep == remote.vtep).unwrap();
                (remote.mac, Member { node: number(index), addresses: remote.addresses.clone() })
            });
            let members: BTreeMap<Mac, Member> = members.collect();
            network.kind = Kind::Overlay(Overlay::Encrypted(members));
        }
    }
}

/// A node's engine in user space; killed with the value.
struct Process(Child);

/// Where the engine that this process is to be has its directory.
const ENGINE_DIR: &str = "WEFT_ENGINE_DIR";

#[test]
#[ignore = "the engine of other tests, which is a process of its own"]
fn engine() {
    if let Some(run) = std::env::var_os(ENGINE_DIR) {
        weft_overlay::wire::run(Path::new(&run)).unwrap();
    }
}

impl Process {
    fn start(node: &Node) -> Self {
        let run = node.run.path().to_owned();
        let at = run.clone();
        let child = node.space.run(move || {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(["--exact", "encrypted::engine", "--ignored"]).env(ENGINE_DIR, at);
            command.stdout(Stdio::null()).spawn().unwrap()
        });
        until("the engine answers", || Client::connect(&run).is_ok());
        Self(child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let killed = self.0.kill().and_then(|()| self.0.wait());
        assert!(killed.is_ok() || std::thread::panicking(), "{killed:?}");
    }
}

fn processes(lab: &Lab, engines: &[Engine]) -> Vec<Process> {
    let nodes = lab.nodes.iter().zip(engines);
    let own = nodes.filter(|(_, engine)| **engine == Engine::Userspace);
    own.map(|(node, _)| Process::start(node)).collect()
}

/// Two nodes with a container each on an encrypted network.
fn pair(engines: [Engine; 2], v6: bool) -> (Lab, Space, Space) {
    let mut lab = Lab::new(2, v6);
    lab.network(VNI, SUBNETS, false);
    let a = lab.attach(0, "a", &[(VNI, &["10.1.0.2/24", "fd01::2/64"])]);
    let b = lab.attach(1, "b", &[(VNI, &["10.1.0.3/24", "fd01::3/64"])]);
    encrypt(&mut lab);
    tunnels(&mut lab, &engines, &[&[0], &[0]]);
    (lab, a, b)
}

/// Counts at the switch what passes: VXLAN, WireGuard, and frames of containers.
fn count(lab: &Lab) {
    lab.switch.sh("nft -f - <<E
table bridge count {
  chain seen {
    type filter hook prerouting priority 0;
    udp dport 4789 counter
    udp dport 51820-51823 counter
    ip saddr 10.1.0.0/24 counter
    arp saddr ip 10.1.0.0/24 counter
    ip6 saddr fd01::/64 counter
  }
}
E");
}

/// What was counted: WireGuard's, and everything that should not have been there.
fn counted(lab: &Lab) -> (u64, u64) {
    let text = lab.switch.sh("nft list table bridge count | grep -o 'packets [0-9]*'");
    let all: Vec<u64> =
        text.lines().map(|line| line.trim_start_matches("packets ").parse().unwrap()).collect();
    let [vxlan, wireguard, v4, arp, v6] = all[..] else { panic!("{text}") };
    (wireguard, vxlan + v4 + arp + v6)
}

/// Sends bytes from one container to another, until all were received.
fn send(from: &Space, to: &Space, address: &str, bytes: usize) -> std::io::Result<usize> {
    let address: SocketAddr = address.parse().unwrap();
    let listener = to.run(move || TcpListener::bind(address).unwrap());
    let receiver = std::thread::spawn(move || {
        let mut buffer = Vec::new();
        let (mut stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.read_to_end(&mut buffer)
    });
    from.run(move || {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.write_all(&vec![7; bytes])
    })?;
    receiver.join().unwrap()
}

#[test]
fn members_reach_each_other_and_nothing_leaves_in_the_clear() {
    for v6 in [false, true] {
        for engines in mixtures() {
            let (lab, a, b) = pair(engines, v6);
            let _processes = processes(&lab, &engines);
            count(&lab);
            lab.settle();
            println!("{engines:?}, IPv6 outside: {v6}");
            until("the first answer", || a.pings("10.1.0.3"));
            for target in ["10.1.0.3", "fd01::3", "10.1.0.1"] {
                assert!(a.reaches(target), "{target}");
            }
            assert!(b.reaches("fd01::2"));
            assert_eq!(send(&a, &b, "10.1.0.3:80", 1 << 20).unwrap(), 1 << 20);
            let mtu = if v6 { "mtu 1370 " } else { "mtu 1390 " };
            for link in ["wx010000", "wb010000"] {
                assert!(lab.nodes[0].space.sh(&format!("ip link show {link}")).contains(mtu));
            }
            assert!(a.sh("ip link show eth0").contains(mtu));
            let (wireguard, clear) = counted(&lab);
            assert!(wireguard > 0);
            assert_eq!(clear, 0, "in the clear");
            assert!(lab.nodes.iter().all(|node| !listens(&node.space.sh(LISTENING), 4789)));
            let tunnel = lab.nodes[0].desired.tunnel.clone().unwrap();
            let node = &lab.nodes[0];
            let status = node.runtime.block_on(node.reconciler.tunnel_status(tunnel));
            let status = status.unwrap().unwrap();
            let peer = &status.peers[&2];
            assert!(peer.sent > 1 << 20 && peer.received > 0, "{peer:?}");
            assert!(peer.handshake_age.is_some_and(|age| age < PATIENCE), "{peer:?}");
            assert_eq!(
                peer.endpoint.map(|at| at.ip()),
                Some(ip(if v6 { "2001:db8::2" } else { "192.0.2.2" }))
            );
        }
    }
}

#[test]
fn teardown_leaves_nothing() {
    const STATE: &str = "ip -o link | sed 's/@.*//' | cut -d' ' -f2; ip rule; ip -6 rule; \
        ip -4 route show table all; nft list ruleset; bridge fdb | grep -v -e 33:33 -e 01:00:5e || true";
    for engines in mixtures() {
        let (mut lab, a, _b) = pair(engines, false);
        let before = lab.nodes[0].space.sh(STATE);
        let ports = [4789, port_of(0), port_of(1)];
        let _processes = processes(&lab, &engines);
        lab.settle();
        until("the first answer", || a.pings("10.1.0.3"));
        let node = &mut lab.nodes[0];
        node.desired.networks.clear();
        node.desired.sandboxes.clear();
        node.desired.tunnel = None;
        node.settle();
        until("the kernel has finished", || {
            let listening = node.space.sh(LISTENING);
            node.space.sh(STATE) == before && !ports.iter().any(|port| listens(&listening, *port))
        });
        assert!(!node.run.path().join("tunnel").exists());
    }
}

/// Two devices or two sets of sessions while keys change; a connection goes on through all of it.
#[test]
fn keys_change_under_a_connection() {
    for engines in mixtures() {
        let (mut lab, a, b) = pair(engines, false);
        let _processes = processes(&lab, &engines);
        lab.settle();
        println!("{engines:?}");
        until("the first answer", || a.pings("10.1.0.3"));
        let address: SocketAddr = "10.1.0.3:80".parse().unwrap();
        let listener = b.run(move || TcpListener::bind(address).unwrap());
        let mut near = a.run(move || TcpStream::connect_timeout(&address, PATIENCE)).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        far.set_read_timeout(Some(PATIENCE)).unwrap();
        // The first node's key is replaced, then the second one's: old, both, switched, new.
        let phases: &[[&[u8]; 2]] = &[
            [&[0, 1], &[0]],
            [&[1, 0], &[0]],
            [&[1], &[0]],
            [&[1], &[0, 1]],
            [&[1], &[1, 0]],
            [&[1], &[1]],
        ];
        for phase in phases {
            tunnels(&mut lab, &engines, phase);
            lab.settle();
            let mut word = [0; 4];
            near.write_all(b"word").unwrap();
            far.read_exact(&mut word).unwrap_or_else(|error| panic!("{phase:?}: {error}"));
            assert!(a.reaches("10.1.0.3") && b.reaches("10.1.0.2"), "{phase:?}");
        }
    }
}

#[test]
fn an_engine_that_is_away_lets_nothing_out() {
    let engines = [Engine::Userspace; 2];
    let (lab, a, _b) = pair(engines, false);
    count(&lab);
    let report = lab.nodes[0].look(Completeness::Complete, Scope::Full);
    let failed: Vec<String> = report.failed.iter().map(ToString::to_string).collect();
    let [failure] = &failed[..] else { panic!("{failed:#?}") };
    assert!(failure.contains("the engine of encrypted networks cannot be reached"), "{failure}");
    assert!(report.troubled()["a"].contains("cannot be reached"), "{:?}", report.troubled());
    assert!(!a.pings("10.1.0.3"));
    assert_eq!(counted(&lab), (0, 0));
    // A TAP whose neighbours send frames of 64 KB cuts none of them itself.
    let host = &lab.nodes[0].space;
    let size = |link: &str| {
        let shown = host.sh(&format!("ip -d -o link show {link}"));
        let (_, rest) = shown.split_once("gso_max_size ").unwrap();
        rest.split(' ').next().unwrap().parse::<u32>().unwrap()
    };
    let veth = host.sh("ip -o link show master wb010000 | grep -o 'wv[0-9a-f]*'");
    assert!(size("wx010000") >= size(veth.trim()));
    let processes = processes(&lab, &engines);
    lab.settle();
    until("it answers", || a.pings("10.1.0.3"));
    // It dies, and what it was told with it; the devices stay, and the next one goes on.
    drop(processes);
    let device = "ip -o link show wx010000 | cut -d: -f1";
    let before = host.sh(device);
    assert!(!a.pings("10.1.0.3"));
    let _processes = self::processes(&lab, &engines);
    lab.settle();
    until("it answers again", || a.pings("10.1.0.3"));
    assert_eq!(host.sh(device), before);
    assert_eq!(counted(&lab).1, 0);
}

/// A daemon that starts again finds everything as it left it, and the containers notice nothing.
#[test]
fn a_new_process_adopts_the_tunnel() {
    for engines in mixtures() {
        let (lab, a, _b) = pair(engines, false);
        let _processes = processes(&lab, &engines);
        lab.settle();
        until("the first answer", || a.pings("10.1.0.3"));
        let Lab { mut nodes, switch: _switch } = lab;
        let Node { run, space, reconciler, desired, runtime } = nodes.remove(0);
        drop((reconciler, runtime));
        let mut node = Node::in_dir(space, run);
        node.desired = desired;
        for completeness in [Completeness::Partial, Completeness::Complete] {
            let report = node.look(completeness, Scope::Changed([].into()));
            let ops: Vec<String> = report.executed.iter().map(ToString::to_string).collect();
            assert!(report.is_settled() && ops.is_empty(), "{engines:?} {ops:#?}");
        }
        assert!(a.reaches("10.1.0.3"));
    }
}

/// What a hand does to a TAP device, or to somebody else's of its name.
#[test]
fn a_tap_that_is_not_as_wanted_is_made_anew() {
    let engines = [Engine::Userspace; 2];
    let (lab, a, _b) = pair(engines, false);
    let _processes = processes(&lab, &engines);
    lab.settle();
    let node = &lab.nodes[0];
    for command in [
        "ip link del wx010000",
        "ip link set wx010000 nomaster",
        "ip link set wx010000 down",
        "ip link set wx010000 mtu 1300",
        "ip link del wx010000; ip tuntap add wx010000 mode tap; ip link set wx010000 alias weft:net65536",
        "ip link del wx010000; ip link add wx010000 type vxlan id 65536 dstport 4789 local 192.0.2.1; \
         ip link set wx010000 alias weft:net65536 master wb010000",
    ] {
        node.space.sh(command);
        let report = node.look(Completeness::Complete, Scope::Full);
        assert!(
            report.is_settled() && !report.executed.is_empty(),
            "{command}: {:?}",
            report.failed
        );
        let left = node.look(Completeness::Complete, Scope::Full).executed;
        assert!(left.is_empty(), "{command}: {left:?}");
        until(command, || a.pings("10.1.0.3"));
    }
}

#[test]
fn a_network_that_becomes_encrypted_loses_its_plain_device_first() {
    let engines = [Engine::Userspace; 2];
    let (mut lab, a, _b) = pair(engines, false);
    let _processes = processes(&lab, &engines);
    let encrypted: Vec<Dataplane> = lab.nodes.iter().map(|node| node.desired.clone()).collect();
    let vtep = |n: u64| ip(&format!("192.0.2.{n}"));
    lab.nodes.iter_mut().for_each(|node| clear(node, vtep));
    lab.settle();
    assert!(a.reaches("10.1.0.3"));
    let plain: Vec<Dataplane> = lab.nodes.iter().map(|node| node.desired.clone()).collect();
    for wish in [&encrypted, &plain, &encrypted] {
        for (node, wish) in lab.nodes.iter_mut().zip(wish) {
            node.desired = wish.clone();
            let report = node.settle();
            let lines: Vec<String> = report.executed.iter().map(ToString::to_string).collect();
            // The engine forgets the network, its device goes, and only then something new comes.
            let first = lines.iter().find(|line| !line.starts_with("weft wire del"));
            assert_eq!(first.map(String::as_str), Some("ip link del wx010000"), "{lines:#?}");
        }
        until("it answers", || a.pings("10.1.0.3"));
    }
}

/// With nothing in it but what we made, the namespace of the tunnel leads nowhere: whether or not the kernel
/// knows WireGuard, a VXLAN device of an encrypted network has no socket in the host.
#[test]
fn a_tunnelled_device_sends_in_the_tunnel_and_nowhere_else() {
    let (lab, a, b) = pair([Engine::Kernel; 2], false);
    count(&lab);
    let without = wireguard_available().is_err();
    for node in &lab.nodes {
        let report = node.look(Completeness::Complete, Scope::Full);
        if without {
            let why = report.troubled().into_values().next().unwrap();
            assert!(why.ends_with("this kernel has no WireGuard (CONFIG_WIREGUARD)"), "{why}");
        }
        let shown = node.space.sh("ip -d link show wx010000");
        assert!(shown.contains("link-netns") && shown.contains("vxlan id 65536"), "{shown}");
        assert!(!listens(&node.space.sh(LISTENING), 4789));
        assert!(listens(&node.inside(LISTENING), 4789));
        let inside = node.inside("cat /proc/sys/net/ipv4/ip_forward; ip -4 route; ip -6 route");
        assert!(inside.starts_with("0\n") && !inside.contains("default"), "{inside}");
    }
    if !without {
        return;
    }
    assert!(!a.pings("10.1.0.3"));
    assert_eq!(counted(&lab), (0, 0));
    // A wire in the place of WireGuard, from tunnel to tunnel, shows that rows, routes and filters agree.
    let held: Vec<String> =
        lab.nodes.iter().map(|node| node.run.path().join("tunnel").display().to_string()).collect();
    let middle = Space::new();
    for (index, node) in lab.nodes.iter().enumerate() {
        let (own, far) = (number(index) * 2, number(1 - index) * 2);
        let (own, far) = (format!("100.64.0.{own}"), format!("100.64.0.{far}"));
        middle
            .sh("ip link show br0 2>/dev/null || ip link add br0 type bridge; ip link set br0 up");
        node.space.sh(&format!(
            "ip link add stand{index} netns {} type veth peer name weft-wg0 netns {}",
            middle.path, held[index]
        ));
        middle.sh(&format!("ip link set stand{index} master br0 up"));
        node.inside(&format!(
            "ip link set weft-wg0 up; ip addr add {own}/32 dev weft-wg0; \
             ip route add {far} dev weft-wg0 src {own}"
        ));
    }
    until("through the stand-in", || a.pings("10.1.0.3"));
    assert!(b.reaches("fd01::2"));
    assert_eq!(send(&a, &b, "10.1.0.3:80", 1 << 20).unwrap(), 1 << 20);
    // Whose MAC and network are not known to be of that node is not let in, and counted by what is wrong.
    let drops = || {
        let node = &lab.nodes[1];
        let tunnel = node.desired.tunnel.clone().unwrap();
        let status = node.runtime.block_on(node.reconciler.tunnel_status(tunnel));
        status.unwrap().unwrap().drops
    };
    assert_eq!(drops(), BTreeMap::new());
    lab.nodes[1].inside("nft flush set inet weft senders");
    assert!(!a.pings("10.1.0.3"));
    let spoofed = drops();
    assert!(spoofed[&Reason::SpoofedSource] > 0 && spoofed.len() == 1, "{spoofed:?}");
    lab.nodes[1].inside("nft flush set inet weft sharers");
    assert!(!a.pings("10.1.0.3"));
    let foreign = drops();
    assert!(foreign[&Reason::ForeignNetwork] > 0 && foreign.len() == 2, "{foreign:?}");
    let open =
        "nft flush chain inet weft output; nft \"chain inet weft output { policy accept; }\"";
    lab.nodes[0].inside(open);
    lab.nodes[0].inside("ping -c 1 -W 1 100.64.0.4 || true");
    assert_eq!(drops().get(&Reason::ForeignInside), Some(&1));
    // A table that is put back goes on counting.
    lab.nodes[1].inside("nft flush chain inet weft input");
    lab.nodes.iter().for_each(|node| drop(node.look(Completeness::Complete, Scope::Full)));
    assert_eq!(drops().get(&Reason::ForeignInside), Some(&1));
    until("through the stand-in again", || a.pings("10.1.0.3"));
    assert_eq!(counted(&lab), (0, 0));
}

/// The path shrinks, and nobody says so: packets outside may be cut into pieces on the way.
#[test]
fn a_path_that_shrinks_in_silence_still_carries_a_megabyte() {
    let all = [false, true].map(|v6| [false, true].map(|encrypted| (v6, encrypted)));
    for (v6, encrypted) in all.into_iter().flatten() {
        for engines in mixtures().into_iter().take(if encrypted { 3 } else { 1 }) {
            let (mut lab, a, b) = pair(engines, v6);
            let router = route_between(&mut lab, v6);
            if !encrypted {
                lab.nodes.iter_mut().for_each(|node| clear(node, |n| beyond(n, v6)));
            }
            let _processes = processes(&lab, &engines);
            lab.settle();
            until("the first answer", || a.pings("10.1.0.3"));
            for mtu in [1368, 1296] {
                // Towards the receiver alone: what is too large for a veth itself is not even taken in.
                router.sh(&format!("ip link set r2 mtu {mtu}"));
                let before = too_large(&router, v6);
                let sent = send(&a, &b, "10.1.0.3:80", 1 << 20);
                assert_eq!(sent.ok(), Some(1 << 20), "{v6} {encrypted} {mtu} {engines:?}");
                assert!(too_large(&router, v6) > before, "{v6} {encrypted} {mtu}: wide enough");
            }
        }
    }
}

/// How many packets a router found too large: cut, or over IPv6 dropped.
fn too_large(router: &Space, v6: bool) -> u64 {
    let text = match v6 {
        true => router.sh("grep Ip6InTooBigErrors /proc/net/snmp6 | sed 's/.*[^0-9]//'"),
        false => router.sh("grep ^Ip: /proc/net/snmp | tail -1 | cut -d' ' -f18"),
    };
    text.trim().parse().unwrap()
}

/// The address of a node that is behind a router.
fn beyond(number: u64, v6: bool) -> std::net::IpAddr {
    ip(&if v6 { format!("2001:db8:{number}::1") } else { format!("198.51.{number}.1") })
}

/// Takes the nodes off the switch and puts a router between them that says nothing of packets that are too
/// large.
fn route_between(lab: &mut Lab, v6: bool) -> Space {
    let router = Space::new();
    router.sh(
        "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding; \
         nft add table inet mute; \
         nft 'add chain inet mute out { type filter hook output priority 0; }'; \
         nft add rule inet mute out icmp type destination-unreachable drop; \
         nft add rule inet mute out icmpv6 type packet-too-big drop",
    );
    let new: Vec<_> = (1..=2).map(|number| beyond(number, v6)).collect();
    for (index, node) in lab.nodes.iter_mut().enumerate() {
        let n = index + 1;
        node.space.sh("ip link del up0");
        router.sh(&format!(
            "ip link add r{n} type veth peer name up0 netns {}; ip link set r{n} up; \
             ip addr add 198.51.{n}.254/24 dev r{n}; ip addr add 2001:db8:{n}::fe/64 dev r{n} nodad",
            node.space.path
        ));
        node.space.sh(&format!(
            "ip link set up0 up; ip addr add 198.51.{n}.1/24 dev up0; \
             ip addr add 2001:db8:{n}::1/64 dev up0 nodad; ip route add default via 198.51.{n}.254; \
             ip -6 route add default via 2001:db8:{n}::fe"
        ));
        let underlay = node.desired.underlay.as_mut().unwrap();
        underlay.vtep = new[index];
        underlay.members = new.iter().copied().collect();
        for (number, far) in &mut node.desired.tunnel.as_mut().unwrap().nodes {
            far.endpoint = beyond(*number, v6);
        }
    }
    router
}

/// Makes a node's networks plain ones; `vtep` is the endpoint of a node by its number.
fn clear(node: &mut Node, vtep: impl Fn(u64) -> std::net::IpAddr) {
    for network in node.desired.networks.values_mut() {
        let Some(Overlay::Encrypted(members)) = network.kind.overlay() else { continue };
        let remotes = members.iter().map(|(mac, member)| Remote {
            addresses: member.addresses.clone(),
            mac: *mac,
            vtep: vtep(member.node),
        });
        let peers = members.values().map(|member| vtep(member.node)).collect();
        network.kind = Kind::Overlay(Overlay::Plain(Plain { remotes: remotes.collect(), peers }));
    }
}
