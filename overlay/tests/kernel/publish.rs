//! Published ports: who reaches them, whom the container sees, and beside which firewalls.

use weft_overlay::*;

use super::lab::*;

const ONE: &[(&str, &str)] = &[("10.1.0.0/24", "10.1.0.1"), ("fd01::/64", "fd01::1")];
const TWO: &[(&str, &str)] = &[("10.2.0.0/24", "10.2.0.1"), ("fd02::/64", "fd02::1")];

fn publish(protocol: Protocol, host: &str, host_port: u16, target: &str, port: u16) -> Publish {
    Publish { protocol, host: ip(host), host_port, network: local(1), target: ip(target), port }
}

/// Two networks; `a` with a server and `peer` on the first, `b` on the second; and somebody outside.
struct World {
    lab: Lab,
    a: Space,
    peer: Space,
    b: Space,
    outside: Space,
}

impl World {
    fn new(edit: impl FnOnce(&mut Bridge)) -> Self {
        let mut lab = Lab::new(1, false);
        lab.nodes[0].desired.underlay = None;
        let mut first = bridge("weft0");
        edit(&mut first);
        let one = lab.local(1, ONE, Kind::Bridge(first));
        let two = lab.local(2, TWO, Kind::Bridge(bridge("br-000000000002")));
        let a = lab.join("a", &[(one, "eth0", &["10.1.0.2/24", "fd01::2/64"], 0)]);
        let peer = lab.join("peer", &[(one, "eth0", &["10.1.0.3/24", "fd01::3/64"], 0)]);
        let b = lab.join("b", &[(two, "eth0", &["10.2.0.2/24", "fd02::2/64"], 0)]);
        let outside = plug(&lab.switch, 9);
        let desired = &mut lab.nodes[0].desired;
        desired.publish = [
            publish(Protocol::Tcp, "0.0.0.0", 8080, "10.1.0.2", 80),
            publish(Protocol::Tcp, "::", 8080, "fd01::2", 80),
            publish(Protocol::Udp, "0.0.0.0", 5300, "10.1.0.2", 53),
        ]
        .into();
        lab.settle();
        a.serve_tcp("10.1.0.2:80", "a");
        a.serve_tcp("[fd01::2]:80", "a");
        a.serve_udp("10.1.0.2:53", "a");
        Self { lab, a, peer, b, outside }
    }

    fn host(&self) -> &Space {
        &self.lab.nodes[0].space
    }

    /// Everybody reaches it, and the client is seen where it can be.
    fn check(&self, when: &str) {
        let ask = |space: &Space, address: &str| {
            let answer = space.ask_tcp(address);
            answer.unwrap_or_else(|error| panic!("{address} {when}: {error}"))
        };
        assert_eq!(ask(&self.outside, "192.0.2.1:8080"), "a 192.0.2.9", "{when}");
        assert_eq!(ask(&self.outside, "[2001:db8::1]:8080"), "a 2001:db8::9", "{when}");
        assert_eq!(ask(self.host(), "192.0.2.1:8080"), "a 192.0.2.1", "{when}");
        assert_eq!(ask(self.host(), "[2001:db8::1]:8080"), "a 2001:db8::1", "{when}");
        assert_eq!(ask(&self.b, "192.0.2.1:8080"), "a 10.2.0.2", "another network, {when}");
        assert_eq!(ask(&self.b, "[2001:db8::1]:8080"), "a fd02::2", "another network, {when}");
        assert_eq!(ask(&self.b, "10.2.0.1:8080"), "a 10.2.0.2", "its gateway's address, {when}");
        assert_eq!(ask(&self.peer, "192.0.2.1:8080"), "a 10.1.0.1", "the same bridge, {when}");
        assert_eq!(ask(&self.a, "192.0.2.1:8080"), "a 10.1.0.1", "itself, {when}");
        assert_eq!(ask(&self.a, "[2001:db8::1]:8080"), "a fd01::1", "itself, {when}");
        for space in [&self.outside, &self.b, &self.peer] {
            let udp = ask_udp(&space.udp("0.0.0.0:0"), "192.0.2.1:5300");
            assert_eq!(udp.unwrap_or_else(|error| panic!("UDP {when}: {error}")), "a");
        }
    }
}

#[test]
fn a_published_port_is_reached_from_everywhere_and_sees_its_clients() {
    let mut world = World::new(|_| {});
    world.check("as it is made");
    assert!(!world.outside.tcp_passes("192.0.2.1:80"), "only what is published");
    assert!(!world.b.tcp_passes("10.1.0.2:80"), "not by its own address");
    let route_localnet = "cat /proc/sys/net/ipv4/conf/*/route_localnet | sort -u";
    assert_eq!(world.host().sh(route_localnet).trim(), "0");
    assert!(!world.host().tcp_passes("127.0.0.1:8080"), "loopback is a proxy's");
    // A binding goes, and only its own elements with it.
    let first = world.lab.nodes[0].desired.publish.iter().next().copied().unwrap();
    world.lab.nodes[0].desired.publish.remove(&first);
    let changed = world.lab.nodes[0].look(Completeness::Complete, Scope::Changed([].into()));
    let ops: Vec<String> = changed.executed.iter().map(ToString::to_string).collect();
    assert_eq!(ops.len(), 1, "{ops:#?}");
    assert!(!world.outside.tcp_passes("192.0.2.1:8080"));
}

#[test]
fn a_binding_to_one_address_is_not_on_another() {
    let mut world = World::new(|_| {});
    world.host().sh("ip addr add 192.0.2.101/24 dev up0");
    world.lab.nodes[0].desired.publish =
        [publish(Protocol::Tcp, "192.0.2.101", 8080, "10.1.0.2", 80)].into();
    world.lab.settle();
    assert_eq!(world.outside.ask_tcp("192.0.2.101:8080").unwrap(), "a 192.0.2.9");
    assert!(!world.outside.tcp_passes("192.0.2.1:8080"));
    assert_eq!(world.b.ask_tcp("192.0.2.101:8080").unwrap(), "a 10.2.0.2");
}

#[test]
fn members_that_do_not_talk_still_reach_published_ports() {
    let world = World::new(|bridge| bridge.icc = false);
    world.check("without icc");
    assert!(!world.peer.tcp_passes("10.1.0.2:80"));
}

#[test]
fn an_internal_network_neither_publishes_nor_reaches_what_others_publish() {
    let mut world = World::new(|_| {});
    world.lab.nodes[0].desired.networks.get_mut(&local(2)).unwrap().internal = true;
    world.lab.settle();
    assert!(!world.b.tcp_passes("192.0.2.1:8080") && !world.b.tcp_passes("10.2.0.1:8080"));
    world.lab.nodes[0].desired.networks.get_mut(&local(1)).unwrap().internal = true;
    world.lab.settle();
    assert!(!world.outside.tcp_passes("192.0.2.1:8080"));
}

#[test]
fn beside_docker_and_with_bridged_frames_in_the_firewall() {
    let world = World::new(|_| {});
    world.host().sh(
        "iptables -N DOCKER-USER; iptables -A DOCKER-USER -j RETURN; iptables -P FORWARD DROP; \
         iptables -I FORWARD -j DOCKER-USER; \
         ip6tables -N DOCKER-USER; ip6tables -A DOCKER-USER -j RETURN; ip6tables -P FORWARD DROP; \
         ip6tables -I FORWARD -j DOCKER-USER",
    );
    world.lab.settle();
    world.check("beside Docker");
    for value in [1, 0] {
        world.host().sh(&format!(
            "test ! -e /proc/sys/net/bridge || for f in iptables ip6tables; do \
             echo {value} > /proc/sys/net/bridge/bridge-nf-call-$f; done"
        ));
        world.check(&format!("beside Docker, bridge-nf-call {value}"));
    }
}

#[test]
fn a_host_that_wants_its_own_rules_obeyed_gets_no_translation() {
    let mut world = World::new(|_| {});
    world.lab.nodes[0].desired.host.respects_firewall = true;
    world.lab.settle();
    assert!(!world.outside.tcp_passes("192.0.2.1:8080"), "nobody serves it yet");
    // The proxy, as a program of the host.
    world.host().serve_tcp("0.0.0.0:8080", "proxy");
    assert_eq!(world.outside.ask_tcp("192.0.2.1:8080").unwrap(), "proxy 192.0.2.9");
    assert_eq!(world.b.ask_tcp("192.0.2.1:8080").unwrap(), "proxy 10.2.0.2");
    world.host().serve_tcp("0.0.0.0:8081", "host");
    assert!(!world.b.tcp_passes("192.0.2.1:8081"), "what is not published stays the host's");
    world.host().sh("nft add table inet fw; \
         nft add chain inet fw i '{ type filter hook input priority 0; policy drop; }'; \
         nft add rule inet fw i ip protocol icmp accept");
    assert!(!world.outside.tcp_passes("192.0.2.1:8080"), "the host's rules decide");
    assert!(!world.b.tcp_passes("192.0.2.1:8080"));
}

#[test]
fn udp_follows_its_binding_though_the_client_keeps_sending() {
    let mut world = World::new(|_| {});
    world.peer.serve_udp("10.1.0.3:53", "peer");
    world.lab.nodes[0].desired.publish.clear();
    world.lab.settle();
    let client = world.outside.udp("0.0.0.0:0");
    client.connect("192.0.2.1:5300").unwrap();
    let ask = || {
        let mut buffer = [0; 64];
        client.send(b"?").and_then(|_| client.recv(&mut buffer)).map(|n| buffer[..n].to_vec()).ok()
    };
    // The kernel now remembers a flow to the host itself.
    assert_eq!(ask(), None);
    let bind = |world: &mut World, target: &str| {
        world.lab.nodes[0].desired.publish =
            [publish(Protocol::Udp, "0.0.0.0", 5300, target, 53)].into();
        world.lab.settle();
    };
    let answer = || (0..3).find_map(|_| ask());
    bind(&mut world, "10.1.0.2");
    assert_eq!(answer().as_deref(), Some(&b"a"[..]), "a binding appears");
    bind(&mut world, "10.1.0.3");
    assert_eq!(answer().as_deref(), Some(&b"peer"[..]), "it leads elsewhere");
    world.lab.nodes[0].desired.publish.clear();
    world.lab.settle();
    assert_eq!(ask(), None, "it goes");
}

#[test]
fn the_administrators_chain_is_first_and_his() {
    let mut world = World::new(|_| {});
    let host = &world.lab.nodes[0].space;
    // A set and a chain of his own, an anonymous set, and one of our sets.
    host.sh("nft add set inet weft mine '{ type ipv4_addr; elements = { 192.0.2.9 }; }'; \
         nft add chain inet weft mine; nft add rule inet weft mine counter; \
         nft add rule inet weft weft-user 'ip saddr @mine tcp dport { 8080, 9090 } drop'; \
         nft add rule inet weft weft-user iifname @bridges jump mine");
    let his = "nft list chain inet weft weft-user; nft list set inet weft mine; nft list chain inet weft mine \
        | sed 's/packets.*//'";
    let before = host.sh(his);
    let unmoved = |lab: &Lab, when: &str| {
        lab.settle();
        assert_eq!(lab.nodes[0].space.sh(his), before, "{when}");
    };
    unmoved(&world.lab, "his rules are no damage");
    assert!(!world.outside.tcp_passes("192.0.2.1:8080"), "dropped before translation");
    assert_eq!(world.b.ask_tcp("192.0.2.1:8080").unwrap(), "a 10.2.0.2");
    for damage in [
        "nft flush chain inet weft forward",
        "nft add chain inet weft rogue '{ type filter hook forward priority 0; policy drop; }'",
        "nft delete element inet weft bridges '{ \"weft0\" }'",
        "nft insert rule inet weft input accept",
    ] {
        world.lab.nodes[0].space.sh(damage);
        unmoved(&world.lab, damage);
    }
    assert_eq!(world.b.ask_tcp("192.0.2.1:8080").unwrap(), "a 10.2.0.2");
    let (networks, sandboxes, publish) = {
        let desired = &mut world.lab.nodes[0].desired;
        let networks = std::mem::take(&mut desired.networks);
        (networks, std::mem::take(&mut desired.sandboxes), std::mem::take(&mut desired.publish))
    };
    unmoved(&world.lab, "nothing of ours is left");
    assert!(!world.host().sh("nft list ruleset").contains("hook"));
    let desired = &mut world.lab.nodes[0].desired;
    (desired.networks, desired.sandboxes, desired.publish) = (networks, sandboxes, publish);
    unmoved(&world.lab, "and it is back");
    assert!(!world.outside.tcp_passes("192.0.2.1:8080"));
    world.lab.nodes[0].space.sh("nft flush ruleset");
    world.lab.settle();
    let empty = world.host().sh("nft list chain inet weft weft-user");
    assert_eq!(empty.lines().count(), 4, "{empty}");
    world.check("after a flush");
}
