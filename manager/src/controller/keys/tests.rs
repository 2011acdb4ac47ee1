//! Rotations on a small cluster whose nodes apply what the tests say.

use proptest::prelude::*;
use weft_model::{
    AttachmentId, Cluster, ClusterId, Engine, Proposal, PublicKey, TunnelReport,
    command::{Force, NewForeign, NewNode},
    object::{ClusterSpec, Meta, NodeDescription, NodeState, Subnet, Tokens},
    spec::{NetworkSpec, NodeSpec, Role},
};

use super::*;

/// Age at which keys are rotated here.
const PERIOD: Duration = Duration::from_secs(3_600);
const NOBODY: [u64; 0] = [];

struct World {
    state: State,
    applied: Applied,
    now: Time,
}

fn id(number: u8) -> NodeId {
    NodeId::from_bytes([number; 32])
}

fn network(number: u8) -> NetworkId {
    NetworkId::from_bytes([number; 32])
}

impl World {
    /// Nodes 1..=`nodes`, all in touch, with a key each, and encrypted networks 1 and 2.
    fn new(nodes: u8) -> Self {
        let mut world =
            Self { state: State::default(), applied: Applied::new(), now: Time(1_000_000) };
        let cluster = Cluster {
            id: ClusterId::from_bytes([1; 32]),
            meta: Meta::new(world.now),
            spec: ClusterSpec { key_rotation: Some(PERIOD), ..ClusterSpec::default() },
            tokens: Tokens { worker: [1; 16], manager: [2; 16], extra: Vec::new() },
            root_certificate: String::new(),
            root_key: String::new(),
            next_number: 1,
            last_vni: None,
        };
        let node = new_node(1, Role::Manager);
        world.apply(Command::CreateCluster { cluster: Box::new(cluster), node });
        for number in 2..=nodes {
            let node = new_node(number, Role::Worker);
            world.apply(Command::AddNode { node, secret: [1; 16] });
        }
        for number in 1..=nodes {
            world.set_node(number, NodeState::Ready);
            world.say(number, &[1]);
        }
        for number in 1..=2 {
            let mut spec = NetworkSpec::overlay(&format!("net{number}"));
            spec.attachable = true;
            spec.options.insert("encrypted".into(), String::new());
            let cidr: ipnet::IpNet = format!("10.0.{number}.0/24").parse().unwrap();
            let subnet = Subnet {
                cidr,
                gateway: cidr.hosts().next().unwrap(),
                range: cidr,
                auxiliary: Default::default(),
                cursor: None,
                resting: Default::default(),
            };
            let (id, vni) = (network(number), Some(65_536 + u32::from(number)));
            world.apply(Command::CreateNetwork { id, spec, vni, subnets: vec![subnet] });
        }
        world
    }

    fn apply(&mut self, command: Command) {
        let proposal = Proposal { request: None, now: self.now, commands: vec![command] };
        let outcome = self.state.apply(self.state.revision() + 1, &proposal);
        outcome.into_result().unwrap();
        assert_eq!(self.state.check(), vec![]);
    }

    fn set_node(&mut self, number: u8, state: NodeState) {
        self.apply(Command::SetNodeState { id: id(number), state, message: String::new() });
    }

    fn say(&mut self, number: u8, generations: &[u8]) {
        let key = |generation: &u8| {
            let mut key = [number; 32];
            key[0] = *generation;
            (u64::from(*generation), PublicKey(key))
        };
        let keys = generations.iter().map(key).collect();
        let report = TunnelReport { engine: Engine::Kernel, reason: String::new(), lanes: 1, keys };
        self.apply(Command::ReportTunnel { id: id(number), report });
    }

    fn attach(&mut self, number: u8, to: u8) {
        let mut attachment = [number; 32];
        attachment[0] = to;
        let foreign = NewForeign {
            id: AttachmentId::from_bytes(attachment),
            network: network(to),
            node: id(number),
            name: format!("a{number}-{to}"),
            aliases: Vec::new(),
            service: None,
            addresses: self.state.choose_addresses(network(to)).unwrap(),
        };
        self.apply(Command::AttachForeign { foreign });
    }

    /// These nodes apply everything there is so far.
    fn level(&mut self, nodes: impl IntoIterator<Item = u8>) {
        self.applied.extend(nodes.into_iter().map(|number| (id(number), self.state.revision())));
    }

    /// What is decided, which is applied; the numbers of the nodes.
    fn look(&mut self) -> Vec<u64> {
        let step = step(&self.state, &self.applied, self.now);
        let decided = step.commands.iter().map(|command| match command {
            Command::RotateKey { id, .. } => self.state.node(*id).unwrap().number,
            other => panic!("{other:?}"),
        });
        let decided = decided.collect();
        step.commands.into_iter().for_each(|command| self.apply(command));
        decided
    }

    fn rotation(&self, number: u8) -> Rotation {
        self.state.node(id(number)).unwrap().tunnel.as_ref().unwrap().rotation
    }

    fn waits_for(&self, number: u8) -> Vec<NodeId> {
        waits_for(&self.state, &self.applied, self.state.node(id(number)).unwrap())
    }

    /// An operator's word.
    fn begin(&mut self, number: u8) {
        let node = self.state.node(id(number)).unwrap().clone();
        self.apply(rotate(&node, node.tunnel.as_ref().unwrap()));
    }
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

#[test]
fn each_phase_waits_for_the_node_and_for_all_its_peers() {
    let mut world = World::new(4);
    (1..=3).for_each(|number| world.attach(number, 1));
    world.attach(4, 2);
    world.begin(1);
    assert_eq!((world.look(), world.waits_for(1)), (vec![], vec![id(1)]), "it makes its key");
    assert!(!awaits_nodes(&world.state), "its word is a change of the state");
    world.say(1, &[1, 2]);
    assert!(awaits_nodes(&world.state));
    assert_eq!(
        world.waits_for(1),
        [id(1), id(2), id(3)],
        "a new leader knows of nobody's progress"
    );
    for late in 1..=3 {
        world.applied.clear();
        world.level((1..=3).filter(|number| *number != late));
        assert_eq!((world.look(), world.waits_for(1)), (vec![], vec![id(late)]));
        world.applied.insert(id(late), world.state.revision() - 1);
        assert_eq!(world.look(), NOBODY, "node {late} has not applied the state that says so");
    }
    world.level(1..=3);
    assert_eq!(world.look(), [1]);
    assert!(matches!(world.rotation(1), Rotation::Switched { .. }));
    assert_eq!(world.look(), NOBODY, "what was applied before does not count");
    world.level(1..=2);
    assert_eq!((world.look(), world.waits_for(1)), (vec![], vec![id(3)]));
    world.level(1..=3);
    assert_eq!(world.look(), [1]);
    assert_eq!((world.rotation(1), world.waits_for(1)), (Rotation::Idle, vec![]));
}

#[test]
fn a_node_that_is_away_holds_the_rotation_until_it_is_no_member() {
    let mut world = World::new(3);
    (1..=3).for_each(|number| world.attach(number, 1));
    world.begin(1);
    world.say(1, &[1, 2]);
    world.level([1, 2]);
    world.set_node(3, NodeState::Down);
    assert_eq!((world.look(), world.waits_for(1)), (vec![], vec![id(3)]));
    world.now = world.now + PERIOD * 100;
    world.level([1, 2]);
    let stands = world.rotation(1);
    world.look();
    assert_eq!(world.rotation(1), stands, "time changes nothing");
    world.apply(Command::RemoveNode { id: id(3), force: Force::No });
    assert!(world.look().contains(&1));
    assert!(matches!(world.rotation(1), Rotation::Switched { .. }));
}

#[test]
fn keys_of_age_are_rotated_a_few_at_a_time_and_those_that_are_held_are_in_nobodys_way() {
    let mut world = World::new(9);
    [1, 2, 3, 4, 5].into_iter().for_each(|number| world.attach(number, 1));
    let made = world.now;
    assert_eq!(world.look(), NOBODY);
    let wake = step(&world.state, &world.applied, world.now).wake_at.unwrap();
    // The highest number is the first, and nobody waits longer than the period.
    assert_eq!(wake, made + (PERIOD - PERIOD / SPREAD / STEPS * 9));
    world.now = wake;
    assert_eq!(world.look(), [9]);
    world.now = made + PERIOD;
    assert_eq!(world.look(), [8, 7, 6], "four at a time");
    assert_eq!(world.look(), NOBODY);
    for number in [9, 8] {
        world.say(number, &[1, 2]);
        world.level([number]);
        assert_eq!(world.look(), [u64::from(number)], "it has no peers");
        world.level([number]);
        let begun = if number == 9 { 5 } else { 4 };
        assert_eq!(world.look(), [u64::from(number)]);
        assert_eq!(world.look(), [begun], "another one begins in its place");
    }
    // 6 and 7 are waited for, and 4 and 5, which now are held.
    (4..=5).for_each(|number| world.say(number, &[1, 2]));
    world.level(1..=9);
    world.applied.remove(&id(3));
    assert_eq!(world.look(), NOBODY);
    world.set_node(3, NodeState::Down);
    assert_eq!(world.look(), [2, 1], "but not that of the node that is away");
    world.set_node(3, NodeState::Ready);
    world.level(1..=9);
    assert_eq!(world.look(), [4, 5]);
}

#[test]
fn no_key_is_rotated_by_age_where_operators_do_it() {
    let mut world = World::new(2);
    let spec = ClusterSpec { key_rotation: None, ..ClusterSpec::default() };
    world.apply(Command::UpdateCluster { expect: None, spec });
    world.now = world.now + PERIOD * 1_000;
    assert_eq!(step(&world.state, &world.applied, world.now), Step::default());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// What goes on is what waits for nobody.
    #[test]
    fn a_rotation_goes_on_exactly_when_it_waits_for_nobody(
        attached in prop::collection::btree_set((1u8..=6, 1u8..=2), 0..12),
        rotating in prop::collection::btree_set(1u8..=6, 0..6),
        behind in prop::collection::vec(prop::option::of(0u64..20), 6),
        away in prop::collection::btree_set(1u8..=6, 0..3),
    ) {
        let mut world = World::new(6);
        attached.into_iter().for_each(|(number, to)| world.attach(number, to));
        for number in &rotating {
            world.begin(*number);
            world.say(*number, &[1, 2]);
        }
        away.into_iter().for_each(|number| world.set_node(number, NodeState::Silent));
        let revision = world.state.revision();
        for (number, behind) in (1u8..).zip(behind) {
            if let Some(behind) = behind {
                world.applied.insert(id(number), revision - behind);
            }
        }
        let free: Vec<u64> = (1..=6u8)
            .filter(|number| rotating.contains(number) && world.waits_for(*number).is_empty())
            .map(u64::from)
            .collect();
        prop_assert_eq!(world.look(), free);
    }
}
