//! Keys of the encrypted links: what nodes say of theirs, how far rotations are, and who is told.

#![allow(clippy::unwrap_used)]

use std::{collections::BTreeSet, time::Duration};

use proptest::prelude::*;
use weft_model::{
    AttachmentId, Cluster, ClusterId, Command, Engine, NetworkId, NodeId, NodeKey, Proposal,
    PublicKey, Rejected, Rotation, State, Time, Tunnel, TunnelReport,
    assignments::{Item, Key},
    command::{Force, NewForeign, NewNode},
    object::{ClusterSpec, Meta, NodeDescription, Subnet, Tokens},
    spec::{NetworkSpec, NodeSpec, Role},
};

const NET: NetworkId = NetworkId::from_bytes([7; 32]);

/// A cluster of three nodes, changed one command after the other.
struct World {
    state: State,
    now: Time,
}

fn id(number: u8) -> NodeId {
    NodeId::from_bytes([number; 32])
}

fn new_node(number: u8, role: Role) -> NewNode {
    NewNode {
        id: id(number),
        spec: NodeSpec { role, ..NodeSpec::default() },
        description: NodeDescription {
            hostname: format!("n{number}"),
            address: format!("10.99.0.{number}:2377").parse().unwrap(),
            data_path: format!("10.99.0.{number}").parse().unwrap(),
            os: "linux".into(),
            architecture: "x86_64".into(),
            engine_version: String::new(),
            nano_cpus: 0,
            memory: 0,
            used_prefixes: Default::default(),
            certificate_expires: None,
        },
    }
}

/// A key of its own for each node, generation, and number of times that it was made.
fn key(node: u8, generation: u64, made: u8) -> PublicKey {
    let mut bytes = [node; 32];
    (bytes[1], bytes[2]) = (u8::try_from(generation).unwrap(), made);
    PublicKey(bytes)
}

fn report(keys: impl IntoIterator<Item = (u64, PublicKey)>) -> TunnelReport {
    TunnelReport {
        engine: Engine::Userspace,
        reason: "the kernel has no WireGuard".into(),
        lanes: 2,
        keys: keys.into_iter().collect(),
    }
}

impl World {
    fn new() -> Self {
        let mut world = Self { state: State::default(), now: Time(1_000) };
        let cluster = Cluster {
            id: ClusterId::from_bytes([9; 32]),
            meta: Meta::new(Time(1)),
            spec: ClusterSpec::default(),
            tokens: Tokens { worker: [1; 16], manager: [2; 16], extra: Vec::new() },
            root_certificate: String::new(),
            root_key: String::new(),
            next_number: 1,
            last_vni: None,
        };
        let node = new_node(1, Role::Manager);
        world.done(Command::CreateCluster { cluster: Box::new(cluster), node });
        for number in 2..=3 {
            let node = new_node(number, Role::Worker);
            world.done(Command::AddNode { node, secret: [1; 16] });
        }
        world
    }

    fn apply(&mut self, command: Command) -> Result<(), Rejected> {
        self.now = self.now + Duration::from_secs(1);
        let proposal = Proposal { request: None, now: self.now, commands: vec![command] };
        let result = self.state.apply(self.state.revision() + 1, &proposal).into_result();
        assert_eq!(self.state.check(), vec![]);
        result.map(drop)
    }

    fn done(&mut self, command: Command) {
        self.apply(command).unwrap();
    }

    fn say(&mut self, node: u8, keys: impl IntoIterator<Item = (u64, PublicKey)>) {
        self.done(Command::ReportTunnel { id: id(node), report: report(keys) });
    }

    fn tunnel(&self, node: u8) -> Tunnel {
        self.state.node(id(node)).unwrap().tunnel.clone().unwrap()
    }

    /// The next step of a rotation, from where it stands.
    fn rotate(&mut self, node: u8) {
        let Tunnel { current, rotation, .. } = self.tunnel(node);
        let (id, generation) = (id(node), current.generation);
        self.done(Command::RotateKey { id, generation, from: rotation });
    }

    fn network(&mut self, encrypted: &str) -> Result<(), Rejected> {
        let mut spec = NetworkSpec::overlay("net");
        spec.attachable = true;
        spec.options.insert("encrypted".into(), encrypted.into());
        self.create(NET, spec)
    }

    fn create(&mut self, id: NetworkId, spec: NetworkSpec) -> Result<(), Rejected> {
        let cidr: ipnet::IpNet = "10.0.0.0/24".parse().unwrap();
        let subnet = Subnet {
            cidr,
            gateway: "10.0.0.1".parse().unwrap(),
            range: cidr,
            auxiliary: Default::default(),
            cursor: None,
            resting: Default::default(),
        };
        let subnets = vec![subnet];
        self.apply(Command::CreateNetwork { id, spec, vni: Some(65_536), subnets })
    }

    fn attach(&mut self, node: u8) -> AttachmentId {
        let attachment = AttachmentId::from_bytes([node; 32]);
        let foreign = NewForeign {
            id: attachment,
            network: NET,
            node: id(node),
            name: format!("a{node}"),
            aliases: Vec::new(),
            service: None,
            addresses: self.state.choose_addresses(NET).unwrap(),
        };
        self.done(Command::AttachForeign { foreign });
        attachment
    }

    /// The keys that a node knows of others, and the generations it must have itself.
    fn told(&self, node: u8) -> (Vec<(NodeId, Vec<u64>)>, Vec<u64>) {
        let items = self.state.assignments(id(node)).items;
        let peers = items.iter().filter_map(|(key, item)| match (key, item) {
            (Key::Peer(peer), Item::Peer(item)) => {
                Some((*peer, item.keys.iter().map(|key| key.generation).collect()))
            }
            _ => None,
        });
        let peers = peers.collect();
        let Some(Item::Node(own)) = items.get(&Key::Node) else { panic!("{items:?}") };
        (peers, own.tunnel.clone().map(|tunnel| tunnel.generations).unwrap_or_default())
    }
}

#[test]
fn a_rotation_goes_from_one_key_to_the_next_by_way_of_both() {
    let mut world = World::new();
    world.network("true").unwrap();
    for node in 1..=2 {
        world.say(node, [(1, key(node, 1, 0))]);
        world.attach(node);
    }
    assert_eq!(world.told(2), (vec![(id(1), vec![1])], vec![1]));
    world.rotate(1);
    assert_eq!(world.told(1).1, [1, 2], "it is to make the next");
    assert_eq!(world.told(2).0, [(id(1), vec![1])], "which is not known yet");
    world.say(1, [(1, key(1, 1, 0)), (2, key(1, 2, 0))]);
    let at = world.state.revision();
    let next = NodeKey { generation: 2, public: key(1, 2, 0) };
    assert_eq!(world.tunnel(1).rotation, Rotation::Distributed { next, at });
    assert_eq!((world.told(2).0, world.told(1).1), (vec![(id(1), vec![1, 2])], vec![1, 2]));
    world.rotate(1);
    assert_eq!(world.tunnel(1).since, world.now);
    assert_eq!((world.told(2).0, world.told(1).1), (vec![(id(1), vec![2, 1])], vec![2, 1]));
    world.rotate(1);
    assert_eq!((world.told(2).0, world.told(1).1), (vec![(id(1), vec![2])], vec![2]));
}

#[test]
fn a_daemon_that_starts_again_says_what_it_has_and_a_rotation_stands_where_it_stood() {
    let mut world = World::new();
    let (one, two) = ((1, key(1, 1, 0)), (2, key(1, 2, 0)));
    let keys: [&[_]; 7] =
        [&[one], &[one], &[one, two], &[one, two], &[one, two], &[two], &[one, two]];
    world.say(1, [one]);
    for (step, keys) in keys.into_iter().enumerate() {
        if matches!(step, 1 | 3 | 5) {
            world.rotate(1);
        }
        world.say(1, keys.iter().copied());
        let stands = world.tunnel(1);
        world.say(1, keys.iter().copied());
        assert_eq!(world.tunnel(1), stands, "step {step}");
        assert!(world.state.knows_tunnel(id(1), &report(keys.iter().copied())));
    }
    let done = world.tunnel(1);
    assert_eq!((done.current.generation, done.rotation), (2, Rotation::Idle));
}

#[test]
fn a_node_that_has_lost_keys_begins_with_what_it_has() {
    let (one, two) = ((1, key(1, 1, 0)), (2, key(1, 2, 0)));
    let rotated = |steps: usize| {
        let mut world = World::new();
        world.say(1, [one]);
        world.rotate(1);
        world.say(1, [one, two]);
        (0..steps).for_each(|_| world.rotate(1));
        world
    };
    let stands = |world: &World| (world.tunnel(1).current, world.tunnel(1).rotation);
    // All of them, in any phase.
    for steps in 0..=2 {
        let mut world = rotated(steps);
        world.say(1, [(1, key(1, 1, 9))]);
        let current = NodeKey { generation: 1, public: key(1, 1, 9) };
        assert_eq!(stands(&world), (current, Rotation::Idle), "after {steps}");
    }
    // The next one: it makes it again, and is waited for again.
    let mut world = rotated(0);
    world.say(1, [one]);
    assert_eq!(world.tunnel(1).rotation, Rotation::Wanted);
    world.say(1, [one, (2, key(1, 2, 9))]);
    let (next, at) = (NodeKey { generation: 2, public: key(1, 2, 9) }, world.state.revision());
    assert_eq!(world.tunnel(1).rotation, Rotation::Distributed { next, at });
    // It has made another one than it had said.
    world.say(1, [one, (2, key(1, 2, 8))]);
    let (next, at) = (NodeKey { generation: 2, public: key(1, 2, 8) }, world.state.revision());
    assert_eq!(world.tunnel(1).rotation, Rotation::Distributed { next, at });
    // The current one: others know the next one already.
    let mut world = rotated(0);
    world.say(1, [two]);
    assert_eq!(stands(&world), (NodeKey { generation: 2, public: two.1 }, Rotation::Idle));
    // The current one when others know the former yet.
    let mut world = rotated(1);
    world.say(1, [one]);
    assert_eq!(stands(&world), (NodeKey { generation: 1, public: one.1 }, Rotation::Idle));
    // The former one.
    let mut world = rotated(1);
    world.say(1, [two]);
    assert_eq!(stands(&world), (NodeKey { generation: 2, public: two.1 }, Rotation::Idle));
}

#[test]
fn a_generation_that_is_skipped_is_not_taken() {
    let mut world = World::new();
    world.say(1, [(1, key(1, 1, 0))]);
    world.rotate(1);
    world.say(1, [(1, key(1, 1, 0)), (3, key(1, 3, 0))]);
    assert_eq!(world.tunnel(1).rotation, Rotation::Wanted);
}

#[test]
fn a_late_word_of_a_leader_changes_nothing() {
    let mut world = World::new();
    let (one, two) = ((1, key(1, 1, 0)), (2, key(1, 2, 0)));
    let id = id(1);
    let rotate = |generation, from| Command::RotateKey { id, generation, from };
    let begin = rotate(1, Rotation::Idle);
    let none = world.apply(begin.clone()).unwrap_err();
    assert!(none.to_string().contains("not said one yet"), "{none}");
    world.say(1, [one]);
    world.done(begin.clone());
    world.say(1, [one, two]);
    let distributed = rotate(1, world.tunnel(1).rotation);
    // To begin again what goes on changes nothing, and neither does it when it is done.
    for step in 0..3 {
        let stands = world.tunnel(1);
        world.done(begin.clone());
        assert_eq!(world.tunnel(1), stands, "step {step}");
        if step < 2 {
            world.rotate(1);
        }
    }
    let refused = world.apply(distributed).unwrap_err();
    assert!(refused.to_string().contains("already gone further"), "{refused}");
    // The same phase of another rotation is another one.
    world.rotate(1);
    world.say(1, [two, (3, key(1, 3, 0))]);
    let Rotation::Distributed { next, at } = world.tunnel(1).rotation else { panic!("next") };
    let earlier = Rotation::Distributed { next, at: at - 1 };
    assert!(world.apply(rotate(2, earlier)).is_err());
    world.done(rotate(2, Rotation::Distributed { next, at }));
}

#[test]
fn a_report_that_cannot_be_is_refused() {
    let mut world = World::new();
    world.say(1, [(1, key(1, 1, 0))]);
    world.rotate(1);
    world.say(1, [(1, key(1, 1, 0)), (2, key(1, 2, 0))]);
    let cases: [(&str, TunnelReport); 8] = [
        ("has it", report([(1, key(1, 1, 0))])),
        ("has it", report([(1, key(2, 1, 0)), (2, key(1, 2, 0))])),
        ("from 1 to 4", report([])),
        ("from 1 to 4", report((1..=5).map(|at| (at, key(2, at, 0))))),
        ("key of its own", report([(1, key(2, 1, 0)), (2, key(2, 1, 0))])),
        ("must be from 1", report([(0, key(2, 0, 0))])),
        ("must be from 1", report([(u64::MAX, key(2, 0, 0))])),
        ("must be from 1", TunnelReport { lanes: 0, ..report([(1, key(2, 1, 0))]) }),
    ];
    for (why, report) in cases {
        let refused = world.apply(Command::ReportTunnel { id: id(2), report: report.clone() });
        let refused = refused.expect_err(&format!("{report:?}")).to_string();
        assert!(refused.contains(why), "{refused}");
        assert_eq!(world.state.node(id(2)).unwrap().tunnel, None);
    }
}

#[test]
fn keys_are_told_to_those_who_share_an_encrypted_network_and_to_nobody_else() {
    let mut world = World::new();
    (1..=3).for_each(|node| world.say(node, [(1, key(node, 1, 0))]));
    world.network("").unwrap();
    let attached = world.attach(1);
    world.attach(2);
    assert_eq!(world.told(1).0, [(id(2), vec![1])]);
    assert_eq!(world.told(2).0, [(id(1), vec![1])]);
    assert_eq!(world.told(3).0, []);
    world.done(Command::DetachForeign { node: id(1), id: attached });
    assert_eq!((world.told(1).0, world.told(2).0), (vec![], vec![]));
}

#[test]
fn a_removed_node_s_key_is_gone_from_everybody_at_once() {
    let mut world = World::new();
    world.network("true").unwrap();
    for node in 1..=3 {
        world.say(node, [(1, key(node, 1, 0))]);
        world.attach(node);
    }
    world.rotate(3);
    world.say(3, [(1, key(3, 1, 0)), (2, key(3, 2, 0))]);
    world.rotate(3);
    assert_eq!(world.told(1).0, [(id(2), vec![1]), (id(3), vec![2, 1])]);
    world.done(Command::RemoveNode { id: id(3), force: Force::Yes });
    assert_eq!(world.told(1).0, [(id(2), vec![1])]);
    assert_eq!(world.told(2).0, [(id(1), vec![1])]);
    assert_eq!(world.state.peers(id(1)), [id(2)].into());
    let items = world.state.assignments(id(3)).items;
    assert!(items.is_empty(), "what is no member is told nothing: {items:?}");
}

#[test]
fn a_network_stays_as_it_was_made_and_so_does_the_port_while_there_is_one() {
    let mut world = World::new();
    world.network("").unwrap();
    assert!(world.state.network(NET).unwrap().encrypted);
    let other = NetworkId::from_bytes([8; 32]);
    let refused = world.create(other, NetworkSpec::overlay("NET")).unwrap_err();
    assert!(
        refused.to_string().contains("already exists")
            && refused.to_string().contains("is encrypted")
    );
    let hint = refused.hint().unwrap();
    assert!(hint.contains("--network-add NEW --network-rm NET"), "{hint}");
    let mut same = NetworkSpec::overlay("net");
    same.options.insert("encrypted".into(), "true".into());
    let refused = world.create(other, same).unwrap_err();
    assert_eq!(refused.hint().as_deref(), Some("choose another name"));
    let port = |port| Command::UpdateCluster {
        expect: None,
        spec: ClusterSpec { wireguard_port: port, ..ClusterSpec::default() },
    };
    let refused = world.apply(port(4500)).unwrap_err();
    assert!(refused.to_string().contains("network net is encrypted"), "{refused}");
    world.done(Command::RemoveNetwork { id: NET });
    world.done(port(4500));
}

#[test]
fn a_cluster_that_encrypts_overlays_does_so_unless_a_network_says_otherwise() {
    let mut world = World::new();
    let spec = ClusterSpec { encrypt_overlays: true, ..ClusterSpec::default() };
    world.done(Command::UpdateCluster { expect: None, spec });
    world.create(NET, NetworkSpec::overlay("net")).unwrap();
    assert!(world.state.network(NET).unwrap().encrypted);
    world.done(Command::RemoveNetwork { id: NET });
    world.network("false").unwrap();
    assert!(!world.state.network(NET).unwrap().encrypted);
}

/// What a node does with its keys.
#[derive(Clone, Debug)]
enum Event {
    /// It makes the generations that it must have, and forgets the others.
    Obeys,
    /// It makes them, and keeps what it had.
    Makes,
    /// It loses the one in this place.
    Loses(usize),
    /// It says what it has.
    Says,
    /// The leader goes on; with what stood two steps ago if it is a late one.
    Rotates { late: bool },
}

fn events() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => Just(Event::Obeys),
        1 => Just(Event::Makes),
        1 => (0usize..3).prop_map(Event::Loses),
        5 => Just(Event::Says),
        4 => Just(Event::Rotates { late: false }),
        1 => Just(Event::Rotates { late: true }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Whatever a node loses and says when, its keys follow each other, a key that it has is its
    /// current one, and in the end a rotation comes to its end.
    #[test]
    fn rotations_survive_what_nodes_lose(events in prop::collection::vec(events(), 1..60)) {
        let mut world = World::new();
        let mut has = std::collections::BTreeMap::from([(1, key(1, 1, 0))]);
        let mut made = 0;
        let mut earlier = Vec::new();
        world.say(1, has.clone());
        // At the end the node does what it should until it is at rest.
        let rest = [Event::Obeys, Event::Says, Event::Rotates { late: false }];
        let rest = std::iter::repeat_n(rest, 6).flatten();
        for event in events.into_iter().chain(rest) {
            let before = world.tunnel(1);
            let wanted = before.generations();
            match event {
                Event::Obeys | Event::Makes => {
                    for generation in wanted.iter().copied() {
                        made += 1;
                        has.entry(generation).or_insert(key(1, generation, made));
                    }
                    if matches!(event, Event::Obeys) {
                        has.retain(|generation, _| wanted.contains(generation));
                    }
                }
                Event::Loses(place) => {
                    if let Some(generation) = has.keys().nth(place).copied() {
                        has.remove(&generation);
                    }
                }
                Event::Says if has.is_empty() || has.len() > 4 => {}
                Event::Says => {
                    world.say(1, has.clone());
                    let after = world.tunnel(1);
                    let kept = has.get(&before.current.generation) == Some(&before.current.public);
                    prop_assert_eq!(kept, after.current == before.current);
                    prop_assert!(world.state.knows_tunnel(id(1), &report(has.clone())));
                }
                Event::Rotates { late } => {
                    let now = (before.current.generation, before.rotation);
                    earlier.push(now);
                    let (generation, from) = match late {
                        true => earlier[earlier.len().saturating_sub(3)],
                        false => now,
                    };
                    let begins = generation == before.current.generation && from == before.rotation;
                    let _ = world.apply(Command::RotateKey { id: id(1), generation, from });
                    if !begins {
                        prop_assert_eq!(&world.tunnel(1), &before);
                    }
                }
            }
            let after = world.tunnel(1);
            let known: BTreeSet<u64> = after.keys().iter().map(|key| key.generation).collect();
            let wanted: BTreeSet<u64> = after.generations().into_iter().collect();
            prop_assert!(known.is_subset(&wanted), "{:?}", after);
        }
        let end = world.tunnel(1);
        prop_assert_eq!(has.get(&end.current.generation), Some(&end.current.public));
    }
}
