//! From whatever state, reconciling converges to what is wanted, then plans nothing, and touches nobody
//! else's things.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use proptest::prelude::*;
use weft_wire::{Identity, Key, Member, Node, PeerIdentity};

use super::*;
use crate::dataplane::*;
use crate::lower::lower;
use crate::names::mac_for;
use crate::reconcile::{Completeness, Driver, Scope};

/// What varies between wishes; small numbers, so that wishes differ in few things.
#[derive(Clone, Debug)]
struct Wish {
    underlay: Option<u8>,
    networks: [bool; 3],
    sandboxes: [[bool; 3]; 3],
    remotes: u8,
    backends: u8,
    mtu: Option<u32>,
    moved: bool,
    swapped: bool,
    secret: Secret,
}

/// What varies of encryption.
#[derive(Clone, Debug)]
struct Secret {
    /// Whether the first network is encrypted.
    encrypted: bool,
    engine: Option<Engine>,
    /// How far a rotation of all keys is: one, both, both the other way round, the other.
    rotation: u8,
}

fn secret() -> impl Strategy<Value = Secret> {
    let engine = prop_oneof![Just(Engine::Kernel), Just(Engine::Userspace)];
    let engine = prop::option::weighted(0.9, engine);
    (any::<bool>(), engine, 0u8..4).prop_map(|(encrypted, engine, rotation)| Secret {
        encrypted,
        engine,
        rotation,
    })
}

fn wish() -> impl Strategy<Value = Wish> {
    let underlay = prop::option::weighted(0.9, 1u8..3);
    let sandboxes = any::<[[bool; 3]; 3]>();
    (
        underlay,
        any::<[bool; 3]>(),
        sandboxes,
        0u8..4,
        0u8..4,
        prop::option::of(1300u32..1500),
        (any::<bool>(), any::<bool>()),
        secret(),
    )
        .prop_map(|(underlay, networks, sandboxes, remotes, backends, mtu, flags, secret)| {
            let (moved, swapped) = flags;
            Wish { underlay, networks, sandboxes, remotes, backends, mtu, moved, swapped, secret }
        })
}

/// The tunnel of node 1, and two other nodes.
fn tunnel(wish: &Wish) -> Option<Tunnel> {
    let phase = |numbers: [u8; 2]| match wish.secret.rotation {
        0 => vec![numbers[0]],
        1 => numbers.to_vec(),
        2 => vec![numbers[1], numbers[0]],
        _ => vec![numbers[1]],
    };
    let address = |number: u8| Ipv4Addr::new(100, 64, 0, number);
    let identity = |number| Identity {
        private_key: Key([number; 32]),
        address: address(number),
        ports: vec![51820 + u16::from(number & 1)],
    };
    let node = |number: u8| {
        let key = |number: u8| PeerIdentity {
            public_key: Key([number; 32]),
            address: address(number),
            ports: vec![51820 + u16::from(number & 1)],
        };
        let identities = phase([2 * number, 2 * number + 1]).into_iter().map(key).collect();
        let endpoint = ip(format!("192.0.2.{}", if wish.moved { number } else { number + 10 }));
        (u64::from(number), Node { endpoint, identities, keepalive: wish.swapped.then_some(25) })
    };
    Some(Tunnel {
        engine: wish.secret.engine?,
        identities: phase([2, 3]).into_iter().map(identity).collect(),
        nodes: [node(2), node(3)].into(),
    })
}

fn ip(text: String) -> IpAddr {
    text.parse().unwrap()
}

/// Network 0 is dual, 1 is IPv6 only and internal, 2 is IPv4 only.
fn subnets(number: usize) -> Vec<Subnet> {
    let v4 = Subnet {
        cidr: format!("10.{number}.0.0/24").parse().unwrap(),
        gateway: ip(format!("10.{number}.0.1")),
    };
    let v6 = Subnet {
        cidr: format!("fd0{number}::/64").parse().unwrap(),
        gateway: ip(format!("fd0{number}::1")),
    };
    match number {
        0 => vec![v4, v6],
        1 => vec![v6],
        _ => vec![v4],
    }
}

fn addresses(number: usize, host: usize) -> Vec<IpAddr> {
    subnets(number)
        .iter()
        .map(|subnet| match subnet.gateway {
            IpAddr::V4(_) => ip(format!("10.{number}.0.{host}")),
            IpAddr::V6(_) => ip(format!("fd0{number}::{host}")),
        })
        .collect()
}

fn dataplane(wish: &Wish) -> Dataplane {
    let vtep = |n: u8| ip(format!("192.0.2.{n}"));
    let members: BTreeSet<IpAddr> = (1..=4).map(vtep).collect();
    let underlay = wish.underlay.map(|n| Underlay { vtep: vtep(n), port: 4789, members });
    let mut networks = BTreeMap::new();
    for number in (0..3).filter(|number| wish.networks[*number]) {
        let remotes = (0..wish.remotes).map(|n| {
            let addresses = addresses(number, 100 + usize::from(n));
            let mac = mac_for(addresses.iter().copied());
            Remote { addresses, mac, vtep: vtep(if wish.moved { 3 } else { 4 }) }
        });
        let overlay = Overlay::Plain(Plain {
            remotes: remotes.collect(),
            peers: (3..3 + wish.remotes.min(2)).map(vtep).collect(),
        });
        let members = (0..wish.remotes).map(|n| {
            let addresses = addresses(number, 100 + usize::from(n));
            let node = if wish.moved { 2 } else { 3 };
            (mac_for(addresses.iter().copied()), Member { node, addresses })
        });
        let overlay = match number == 0 && wish.secret.encrypted {
            true => Overlay::Encrypted(members.collect()),
            false => overlay,
        };
        let network = Network {
            id: format!("n{number}"),
            subnets: subnets(number),
            internal: number == 1,
            mtu: wish.mtu,
            kind: if number == LOCAL { local(wish) } else { Kind::Overlay(overlay) },
        };
        networks.insert(network_key(number), network);
    }
    let sandboxes = (0..3).map(|s| (format!("s{s}"), sandbox(wish, s))).collect();
    networks.insert(NetworkKey::Local([3; 6]), on_a_parent(wish));
    let cables = (0..wish.remotes).map(|n| (format!("c{n}"), wire(wish, usize::from(n))));
    let cables = cables.collect();
    let host = HostPolicy { respects_firewall: wish.moved, ..HostPolicy::default() };
    Dataplane {
        underlay,
        tunnel: tunnel(wish),
        networks,
        sandboxes,
        publish: publish(wish),
        cables,
        host,
    }
}

/// A network on a device of the host: on none, on one that is there, on one with a tag that is not.
fn on_a_parent(wish: &Wish) -> Network {
    let parent = match wish.remotes % 3 {
        0 => None,
        1 => Some("docker0".to_owned()),
        _ => Some("docker0.10".to_owned()),
    };
    let kind = if wish.swapped {
        Kind::Ipvlan(Ipvlan { parent, mode: IpvlanMode::L3 })
    } else {
        Kind::Macvlan(Macvlan { parent, mode: MacvlanMode::Bridge })
    };
    let (cidr, gateway) = ("10.3.0.0/24".parse().unwrap(), ip("10.3.0.1".into()));
    let subnets = vec![Subnet { cidr, gateway }];
    Network { id: "n3".into(), subnets, internal: false, mtu: None, kind }
}

/// A wire from one sandbox to the next.
fn wire(wish: &Wish, number: usize) -> Cable {
    let end = |sandbox: usize, last: usize| CableEnd {
        sandbox: format!("s{}", sandbox % 3),
        ifname: format!("p{number}"),
        addresses: vec![format!("10.9.{number}.{last}/30").parse().unwrap()],
    };
    let first = usize::from(wish.moved);
    Cable { ends: [end(number + first, 1), end(number + first + 1, 2)] }
}

/// Ports that lead to the sandboxes on the host's bridge, one for each backend.
fn publish(wish: &Wish) -> BTreeSet<Publish> {
    let one = |n: u8| Publish {
        protocol: if wish.swapped { Protocol::Udp } else { Protocol::Tcp },
        host: ip(if n == 0 { "0.0.0.0".into() } else { format!("192.0.2.{n}") }),
        host_port: 8080,
        network: network_key(LOCAL),
        target: ip(format!("10.2.0.{}", 10 + n)),
        port: 80,
    };
    (0..wish.backends).map(one).collect()
}

/// The network that is a bridge of this host.
const LOCAL: usize = 2;

fn network_key(number: usize) -> NetworkKey {
    match number {
        LOCAL => NetworkKey::Local([2; 6]),
        _ => NetworkKey::Vni(65536 + number as u32),
    }
}

/// A stranger's bridge half of the time.
fn local(wish: &Wish) -> Kind {
    let opening = |n: u8| Opening {
        from: ip(format!("10.2.0.{}", 10 + n)),
        to: ip("10.2.0.11".into()),
        protocol: Protocol::Tcp,
        port: 80,
    };
    Kind::Bridge(Bridge {
        device: if wish.moved { "docker0".into() } else { "weft0".into() },
        owned: !wish.moved,
        icc: wish.swapped,
        masquerade: wish.backends > 1,
        openings: (0..wish.backends).map(opening).collect(),
    })
}

fn sandbox(wish: &Wish, number: usize) -> Sandbox {
    let mut attachments = BTreeMap::new();
    for net in (0..3).filter(|net| wish.sandboxes[number][*net]) {
        let own = addresses(net, 10 + number);
        let widen = |address: &IpAddr| {
            ipnet::IpNet::new(*address, if address.is_ipv4() { 24 } else { 64 }).unwrap()
        };
        let port = Port {
            ifname: format!("eth{}", if wish.swapped { 2 - net } else { net }),
            mac: mac_for(own.iter().copied()),
            addresses: own.iter().map(widen).collect(),
            default_gateway: true,
            rank: 0,
        };
        attachments.insert(network_key(net), port);
    }
    if wish.sandboxes[number][0] {
        let own: IpNet = format!("10.3.0.{}/24", 10 + number).parse().unwrap();
        let port = Port {
            ifname: "lan0".into(),
            mac: mac_for([own.addr()]),
            addresses: vec![own],
            default_gateway: wish.moved,
            rank: 7,
        };
        attachments.insert(NetworkKey::Local([3; 6]), port);
    }
    let backends = (0..wish.backends).map(|n| ip(format!("10.0.0.{}", 50 + n))).collect();
    Sandbox {
        netns: NetnsRef(format!("/proc/{number}/ns/net").into()),
        attachments,
        vips: BTreeMap::from([(ip("10.0.0.200".into()), backends)]),
        dns_port: wish.backends.is_multiple_of(2).then_some(5353),
    }
}

/// One thing that happens.
#[derive(Clone, Debug)]
enum Step {
    Want(Wish),
    Fail(Vec<bool>),
    Crash(usize),
    Restart,
    Hand(prop::sample::Index),
    Damage(prop::sample::Index),
    Reopen(usize),
    Engine { away: bool },
    Reconcile,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => wish().prop_map(Step::Want),
        2 => prop::collection::vec(prop::bool::weighted(0.2), 1..60).prop_map(Step::Fail),
        2 => (0usize..60).prop_map(Step::Crash),
        1 => Just(Step::Restart),
        4 => any::<prop::sample::Index>().prop_map(Step::Hand),
        1 => any::<prop::sample::Index>().prop_map(Step::Damage),
        1 => (0usize..3).prop_map(Step::Reopen),
        1 => any::<bool>().prop_map(|away| Step::Engine { away }),
        4 => Just(Step::Reconcile),
    ]
}

const PARAMETERS: &[(&str, &str)] = &[
    ("net/ipv4/ip_forward", "0"),
    ("net/ipv6/conf/all/forwarding", "0"),
    ("net/bridge/bridge-nf-call-iptables", "1"),
    ("net/ipv4/neigh/default/gc_thresh1", "128"),
];

/// Somebody else's bridge with an address, and one that has a name like ours but no mark.
fn foreign() -> Vec<Object> {
    let link = Link {
        kind: LinkKind::Bridge,
        alias: String::new(),
        mac: None,
        mtu: 1500,
        master: None,
        port: None,
        up: true,
    };
    vec![
        Object::Link("docker0".into(), link.clone()),
        Object::Address("docker0".into(), "172.17.0.1/16".parse().unwrap()),
        Object::Link("wbcafe00".into(), link),
        Object::Address("wbcafe00".into(), "172.18.0.1/16".parse().unwrap()),
    ]
}

fn is_foreign(object: &Object) -> bool {
    foreign().iter().any(|other| other.key() == object.key())
}

fn happen(driver: &mut Driver<FakeKernel>, desired: &mut Dataplane, step: Step) {
    let kernel = driver.kernel();
    match step {
        Step::Want(wish) => *desired = dataplane(&wish),
        Step::Fail(which) => kernel.failures = which.into(),
        Step::Crash(after) => {
            kernel.failures = std::iter::repeat_n(false, after).chain([true; 500]).collect();
            driver.reconcile(desired, Completeness::Complete, &Scope::Full);
            driver.kernel().failures.clear();
        }
        Step::Restart => {
            let mut kernel = kernel.clone();
            kernel.held.clear();
            *driver = Driver::new(kernel);
        }
        Step::Hand(index) => {
            let things: Vec<Op> = removable(kernel);
            if !things.is_empty() {
                kernel.by_hand(index.get(&things)).unwrap();
            }
        }
        Step::Damage(index) => {
            let all = kernel.plane.places.values_mut().flat_map(|objects| objects.values_mut());
            let mut tables: Vec<&mut Object> =
                all.filter(|object| matches!(object, Object::Table(..))).collect();
            if !tables.is_empty() {
                let chosen = index.index(tables.len());
                if let Object::Table(_, integrity) = &mut *tables[chosen] {
                    *integrity = Integrity::Damaged;
                }
            }
        }
        Step::Reopen(number) => {
            kernel.close_sandbox(&format!("s{number}"));
            kernel.open_sandbox(&format!("s{number}"));
        }
        Step::Engine { away } => {
            kernel.engine.away = away;
            // It was started anew.
            kernel.engine.config = weft_wire::Config::default();
        }
        Step::Reconcile => {
            driver.reconcile(desired, Completeness::Complete, &Scope::Full);
        }
    }
}

/// Everything a hand could remove, but for parameters, the loopback and strangers.
fn removable(kernel: &FakeKernel) -> Vec<Op> {
    let all = kernel.plane.places.iter();
    let all = all.flat_map(|(place, objects)| objects.values().map(move |object| (place, object)));
    all.filter(|(_, object)| match object {
        Object::Sysctl(..) => false,
        Object::Link(_, link) => link.kind != LinkKind::Loopback && !is_foreign(object),
        other => !is_foreign(other),
    })
    .map(|(place, object)| Op::remove(place.clone(), object.clone()))
    .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn any_history_converges(steps in prop::collection::vec(step(), 1..14), last in wish()) {
        let mut kernel = FakeKernel::new(PARAMETERS.iter().copied());
        kernel.facts.underlay_mtu = Some(1500);
        (0..3).for_each(|number| kernel.open_sandbox(&format!("s{number}")));
        for object in foreign() {
            put(kernel.plane.places.get_mut(&Place::Host).unwrap(), object);
        }
        let mut driver = Driver::new(kernel);
        let mut desired = Dataplane::default();
        for step in steps {
            happen(&mut driver, &mut desired, step);
        }
        let desired = dataplane(&last);
        driver.kernel().failures.clear();
        driver.kernel().engine.away = false;
        let report = driver.reconcile(&desired, Completeness::Complete, &Scope::Full);
        prop_assert!(report.is_settled(), "{:?}", report.failed);
        let again = driver.reconcile(&desired, Completeness::Complete, &Scope::Full);
        let ops: Vec<String> = again.executed.iter().map(ToString::to_string).collect();
        prop_assert!(ops.is_empty(), "a second look still plans {ops:#?}");
        check(driver.kernel(), &desired)?;
    }

    #[test]
    fn nothing_is_removed_for_an_incomplete_wish(first in wish(), second in wish()) {
        let mut kernel = FakeKernel::new(PARAMETERS.iter().copied());
        (0..3).for_each(|number| kernel.open_sandbox(&format!("s{number}")));
        for object in foreign() {
            put(kernel.plane.places.get_mut(&Place::Host).unwrap(), object);
        }
        let mut driver = Driver::new(kernel);
        // The same endpoint and names: what is of the wrong kind has to be made anew in any case.
        let (underlay, swapped, moved) = (first.underlay, first.swapped, first.moved);
        let secret = Secret { rotation: second.secret.rotation, ..first.secret.clone() };
        let second = Wish { underlay, swapped, moved, secret, ..second };
        driver.reconcile(&dataplane(&first), Completeness::Complete, &Scope::Full);
        let keys = |kernel: &FakeKernel| -> BTreeSet<_> {
            let all = kernel.plane.places.iter();
            all.flat_map(|(place, objects)| objects.keys().map(move |key| (place.clone(), key.clone())))
                .collect()
        };
        let before = keys(driver.kernel());
        driver.reconcile(&dataplane(&second), Completeness::Partial, &Scope::Full);
        let after = keys(driver.kernel());
        let lost: Vec<_> = before.difference(&after).collect();
        prop_assert!(lost.is_empty(), "{lost:?}");
    }
}

/// A kernel that is looked at after each operation.
struct Watched {
    inner: FakeKernel,
    /// The networks that are encrypted by the wish that is being followed.
    encrypted: BTreeSet<u32>,
    /// How many more operations are executed before we are killed.
    left: usize,
    seen: Vec<String>,
}

impl Watched {
    /// No device of an encrypted network sends in the clear, nothing but its way into the tunnel and its
    /// members' ports is on its bridge, and what comes out of the tunnel is filtered before it can come.
    fn check(&mut self, op: &Op) {
        let host = &self.inner.plane.places[&Place::Host];
        let bridges: BTreeSet<String> =
            self.encrypted.iter().map(|vni| names::bridge(NetworkKey::Vni(*vni))).collect();
        for object in host.values() {
            let Object::Link(name, link) = object else { continue };
            let clear = match &link.kind {
                LinkKind::Vxlan { vni, .. } => self.encrypted.contains(vni),
                LinkKind::Tunnelled { .. } | LinkKind::Tap | LinkKind::Veth => false,
                _ => link.master.as_ref().is_some_and(|master| bridges.contains(master)),
            };
            // What a former wish left goes before anything else happens.
            if clear && op.verb != Verb::Remove {
                self.seen.push(format!("{name} is there after {op}"));
            }
        }
        let Some(inside) = self.inner.plane.places.get(&Place::Tunnel) else { return };
        let filtered = inside.contains_key(&plane::Key::Table(plane::Table::Tunnel));
        let speaks = inside.values().any(|object| matches!(object, Object::Peer(_)));
        if speaks && !filtered && !matches!(op.object, Object::Table(..)) {
            self.seen.push(format!("the tunnel is not filtered after {op}"));
        }
    }
}

impl Kernel for Watched {
    fn observe(&mut self, look: &Look) -> Observation {
        self.inner.observe(look)
    }

    fn execute(&mut self, ops: &[Op]) -> Vec<Result<(), KernelError>> {
        let one = |op: &Op| {
            let Some(left) = self.left.checked_sub(1) else { return Err(refused(libc::ESRCH)) };
            self.left = left;
            let result = self.inner.execute(std::slice::from_ref(op)).remove(0);
            self.check(op);
            result
        };
        ops.iter().map(one).collect()
    }

    fn release(&mut self, wanted: &BTreeMap<String, NetnsRef>) {
        self.inner.release(wanted);
    }

    fn held(&self) -> Vec<String> {
        self.inner.held()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// From any state to any other, and wherever we are killed in between.
    #[test]
    fn an_encrypted_network_is_closed_at_every_moment(
        wishes in prop::collection::vec((wish(), prop::option::of(0usize..80)), 2..6),
    ) {
        let mut kernel = FakeKernel::new(PARAMETERS.iter().copied());
        kernel.facts.underlay_mtu = Some(1500);
        (0..3).for_each(|number| kernel.open_sandbox(&format!("s{number}")));
        for object in foreign() {
            put(kernel.plane.places.get_mut(&Place::Host).unwrap(), object);
        }
        let watched =
            Watched { inner: kernel, encrypted: BTreeSet::new(), left: 0, seen: Vec::new() };
        let mut driver = Driver::new(watched);
        for (wish, killed) in wishes {
            let desired = dataplane(&wish);
            let encrypted = desired.networks.iter().filter_map(|(key, network)| {
                match (key, network.kind.overlay()) {
                    (NetworkKey::Vni(vni), Some(Overlay::Encrypted(_))) => Some(*vni),
                    _ => None,
                }
            });
            driver.kernel().encrypted = encrypted.collect();
            driver.kernel().left = killed.unwrap_or(usize::MAX);
            driver.reconcile(&desired, Completeness::Complete, &Scope::Full);
            let seen = &driver.kernel().seen;
            prop_assert!(seen.is_empty(), "{seen:#?}");
        }
    }
}

/// The kernel holds what is wanted, nothing else of ours, and the strangers' things.
fn check(kernel: &FakeKernel, desired: &Dataplane) -> Result<(), TestCaseError> {
    let wanted = lower(desired, kernel.facts);
    for (place, objects) in &kernel.plane.places {
        let want = wanted.plane.places.get(place).cloned().unwrap_or_default();
        for (key, object) in &want {
            if let Object::Wire(config) = object {
                prop_assert_eq!(config, &kernel.engine.config);
                continue;
            }
            let known = !matches!(object, Object::Sysctl(..)) || objects.contains_key(key);
            let there = objects.get(key).is_some_and(|seen| crate::op::satisfies(object, seen));
            prop_assert!(!known || there, "{place:?} lacks {object:?}");
        }
        for object in objects.values() {
            let expected = want.contains_key(&object.key())
                || is_foreign(object)
                || matches!(object, Object::Sysctl(..))
                || matches!(object, Object::Link(_, link) if link.kind == LinkKind::Loopback);
            prop_assert!(expected, "{place:?} still has {object:?}");
        }
    }
    let places =
        [&kernel.plane, &wanted.plane].map(|plane| plane.places.contains_key(&Place::Tunnel));
    prop_assert_eq!(places[0], places[1], "the tunnel's namespace");
    if !wanted.plane.places[&Place::Host].contains_key(&plane::Key::Wire) {
        prop_assert_eq!(&kernel.engine.config, &weft_wire::Config::default());
    }
    let host = &kernel.plane.places[&Place::Host];
    for object in foreign() {
        prop_assert_eq!(host.get(&object.key()), Some(&object));
    }
    Ok(())
}

/// One more among many costs what it needs itself: nothing of the others is written, or even looked at.
#[test]
fn one_more_among_two_hundred_touches_only_itself() {
    let mut kernel = FakeKernel::new(PARAMETERS.iter().copied());
    let network = Network {
        id: "many".into(),
        subnets: vec![Subnet {
            cidr: "10.5.0.0/16".parse().unwrap(),
            gateway: ip("10.5.0.1".into()),
        }],
        kind: Kind::Bridge(Bridge {
            device: "weft0".into(),
            owned: true,
            icc: true,
            masquerade: true,
            openings: BTreeSet::new(),
        }),
        ..Network::default()
    };
    let key = NetworkKey::Local([5; 6]);
    let mut desired = Dataplane { networks: [(key, network)].into(), ..Dataplane::default() };
    let add = |kernel: &mut FakeKernel, desired: &mut Dataplane, number: u8| {
        kernel.open_sandbox(&format!("s{number}"));
        let own: IpNet = format!("10.5.1.{number}/16").parse().unwrap();
        let port = Port {
            ifname: "eth0".into(),
            mac: mac_for([own.addr()]),
            addresses: vec![own],
            default_gateway: true,
            rank: 0,
        };
        let sandbox = Sandbox {
            netns: NetnsRef(format!("/proc/{number}/ns/net").into()),
            attachments: [(key, port)].into(),
            vips: BTreeMap::new(),
            dns_port: Some(5353),
        };
        desired.sandboxes.insert(format!("s{number}"), sandbox);
        desired.publish.insert(Publish {
            protocol: Protocol::Tcp,
            host: ip("0.0.0.0".into()),
            host_port: 8000 + u16::from(number),
            network: key,
            target: own.addr(),
            port: 80,
        });
    };
    (0..200).for_each(|number| add(&mut kernel, &mut desired, number));
    let mut driver = Driver::new(kernel);
    let changed = Scope::Changed(BTreeSet::new());
    assert!(driver.reconcile(&desired, Completeness::Complete, &changed).is_settled());
    add(driver.kernel(), &mut desired, 200);
    let report = driver.reconcile(&desired, Completeness::Complete, &changed);
    let lines: Vec<String> = report.executed.iter().map(ToString::to_string).collect();
    let others: BTreeSet<&Place> = report.executed.iter().map(|op| &op.place).collect();
    assert_eq!(others, [&Place::Host, &Place::Sandbox("s200".into())].into());
    // The limits of the neighbour table grow with the members: six of these are theirs.
    assert!(lines.len() < 30, "{} {lines:#?}", lines.len());
}

/// A tagged sub-interface is made where it is missing and goes with its last user; one that is there already is
/// its owner's. A kernel without ipvlan says so, once for each look.
#[test]
fn what_members_are_made_on() {
    let lan = |kind| Network {
        id: "lan".into(),
        subnets: vec![Subnet {
            cidr: "10.3.0.0/24".parse().unwrap(),
            gateway: ip("10.3.0.1".into()),
        }],
        kind,
        ..Network::default()
    };
    let parent = Some("docker0.10".to_owned());
    let key = NetworkKey::Local([3; 6]);
    let port = Port {
        ifname: "eth0".into(),
        mac: mac_for([ip("10.3.0.2".into())]),
        addresses: vec!["10.3.0.2/24".parse().unwrap()],
        default_gateway: true,
        rank: 0,
    };
    let sandbox = Sandbox {
        netns: NetnsRef("/proc/1/ns/net".into()),
        attachments: [(key, port)].into(),
        vips: BTreeMap::new(),
        dns_port: None,
    };
    let mode = MacvlanMode::Bridge;
    let wanted = Dataplane {
        networks: [(key, lan(Kind::Macvlan(Macvlan { parent: parent.clone(), mode })))].into(),
        sandboxes: [("s".to_owned(), sandbox)].into(),
        ..Dataplane::default()
    };
    let mut kernel = FakeKernel::new(PARAMETERS.iter().copied());
    kernel.open_sandbox("s");
    foreign().into_iter().for_each(|o| put(kernel.plane.places.get_mut(&Place::Host).unwrap(), o));
    let mut driver = Driver::new(kernel);
    let look = |desired: &Dataplane, driver: &mut Driver<FakeKernel>| {
        driver.reconcile(desired, Completeness::Complete, &Scope::Full)
    };
    let vlan = |driver: &mut Driver<FakeKernel>| {
        let host = driver.kernel().plane.places[&Place::Host].clone();
        plane::link(&host, "docker0.10").cloned()
    };
    assert!(look(&wanted, &mut driver).is_settled());
    let made = vlan(&mut driver).unwrap();
    assert_eq!(made.kind, LinkKind::Vlan { parent: "docker0".into(), tag: 10 });
    let without = Dataplane { sandboxes: BTreeMap::new(), ..wanted.clone() };
    assert!(look(&without, &mut driver).is_settled());
    assert_eq!(vlan(&mut driver), None, "it goes with its last user");
    let theirs = Link { alias: "mine".into(), ..made };
    let host = driver.kernel().plane.places.get_mut(&Place::Host).unwrap();
    put(host, Object::Link("docker0.10".into(), theirs.clone()));
    assert!(look(&wanted, &mut driver).is_settled());
    assert!(look(&without, &mut driver).is_settled());
    assert_eq!(vlan(&mut driver), Some(theirs), "its owner's stays as it is");
    let mut ipvlan = wanted;
    let mode = IpvlanMode::L3;
    ipvlan.networks.insert(key, lan(Kind::Ipvlan(Ipvlan { parent, mode })));
    driver.kernel().without = vec!["ipvlan"];
    let report = look(&ipvlan, &mut driver);
    let why = &report.troubled()["s"];
    assert!(why.ends_with("this kernel has no ipvlan (CONFIG_IPVLAN)"), "{why}");
    driver.kernel().without.clear();
    assert!(look(&ipvlan, &mut driver).is_settled());
    let inside = &driver.kernel().plane.places[&Place::Sandbox("s".into())];
    let default = inside.values().find(|object| matches!(object, Object::Route { .. }));
    assert!(matches!(default, Some(Object::Route { via: None, .. })), "{default:?}");
}
