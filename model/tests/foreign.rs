//! Namespaces of others: what they may join, what they may be called, and when they are found.

#![allow(clippy::unwrap_used)]

use std::{net::IpAddr, sync::Arc};

use weft_model::{
    AttachmentId, Cluster, ClusterId, Command, NetworkId, NodeId, Proposal, Rejected, ServiceId,
    State, Subnet, TaskId, Time,
    assignments::{Item, Key, Visibility, label_hash},
    command::{Force, NewAttachment, NewForeign, NewNode},
    object::{ClusterSpec, Holder, Meta, NodeDescription, NodeState, Slot, Tokens},
    spec::{ContainerSpec, NetworkSpec, NetworkUse, NodeSpec, Role, ServiceSpec},
};

const OPEN: NetworkId = NetworkId::from_bytes([1; 32]);
const CLOSED: NetworkId = NetworkId::from_bytes([2; 32]);
const MANAGER: NodeId = NodeId::from_bytes([3; 32]);
const WORKER: NodeId = NodeId::from_bytes([4; 32]);
const WEB: ServiceId = ServiceId::from_bytes([5; 32]);
const CLUSTER: ClusterId = ClusterId::from_bytes([6; 32]);

/// A state, and what was done to it.
struct World {
    state: State,
    index: u64,
}

impl World {
    fn try_(&mut self, command: Command) -> Result<(), Rejected> {
        self.index += 1;
        let proposal = Proposal { request: None, now: Time(self.index), commands: vec![command] };
        let result = self.state.apply(self.index, &proposal).into_result().map(drop);
        assert_eq!(self.state.check(), vec![], "after {proposal:?}");
        result
    }

    fn make(&mut self, command: Command) {
        self.try_(command).unwrap();
    }

    /// Two nodes in touch, a network for everybody and one for services, and a service on the first.
    fn new() -> Self {
        let mut world = Self { state: State::default(), index: 0 };
        let tokens = Tokens { worker: [1; 16], manager: [2; 16], extra: Vec::new() };
        let cluster = Cluster {
            id: CLUSTER,
            meta: Meta::default(),
            spec: ClusterSpec::default(),
            tokens,
            root_certificate: String::new(),
            root_key: String::new(),
            next_number: 1,
            last_vni: None,
        };
        let node = new_node(MANAGER, 1, Role::Manager);
        world.make(Command::CreateCluster { cluster: Box::new(cluster), node });
        let node = new_node(WORKER, 2, Role::Worker);
        world.make(Command::AddNode { node, secret: [1; 16] });
        for id in [MANAGER, WORKER] {
            let (state, message) = (NodeState::Ready, String::new());
            world.make(Command::SetNodeState { id, state, message });
        }
        for (number, id, attachable) in [(1, OPEN, true), (2, CLOSED, false)] {
            let mut spec = NetworkSpec::overlay(&format!("net{number}"));
            spec.attachable = attachable;
            let subnets = vec![subnet(&format!("10.0.{number}.0/29"), &format!("10.0.{number}.1"))];
            world.make(Command::CreateNetwork { id, spec, vni: Some(65_536 + number), subnets });
        }
        let mut spec = ServiceSpec::replicated("web", 0, ContainerSpec::new("rootfs:/", &["sh"]));
        spec.networks = vec![NetworkUse { network: OPEN, aliases: vec!["shop".into()] }];
        let vips = world.state.choose_vips(&spec, &Default::default()).unwrap();
        world.make(Command::CreateService { id: WEB, spec: Arc::new(spec), vips });
        world
    }

    fn foreign(&self, number: u8, name: &str) -> NewForeign {
        NewForeign {
            id: id(number),
            network: OPEN,
            node: WORKER,
            name: name.to_owned(),
            aliases: Vec::new(),
            service: None,
            addresses: self.state.choose_addresses(OPEN).unwrap_or_default(),
        }
    }

    fn attach(&mut self, number: u8, name: &str) {
        let foreign = self.foreign(number, name);
        self.make(Command::AttachForeign { foreign });
    }

    /// A task of the service on the worker, and the attachment of a namespace there; their addresses.
    fn occupy_worker(&mut self) -> Vec<IpAddr> {
        let task = TaskId::from_bytes([9; 32]);
        let (slot, start_at) = (Slot::Replica(1), Time(0));
        self.make(Command::CreateTask { id: task, service: WEB, slot, attempt: 0, start_at });
        let addresses = self.state.choose_addresses(OPEN).unwrap();
        let attachment = NewAttachment { id: id(9), network: OPEN, addresses };
        self.make(Command::Attach { task, attachments: vec![attachment] });
        self.make(Command::Assign { task, node: WORKER });
        self.attach(1, "probe");
        let held: Vec<_> = self.state.attachments().flat_map(|a| a.addresses.clone()).collect();
        assert_eq!(held.len(), 2);
        self.make(Command::SetNodeState {
            id: WORKER,
            state: NodeState::Down,
            message: "not heard of".to_owned(),
        });
        held
    }

    fn holds(&self, addresses: &[IpAddr]) -> bool {
        let taken = self.state.taken(OPEN);
        let held = addresses.iter().filter(|address| taken.contains(address)).count();
        assert!(held == 0 || held == addresses.len(), "{held} of {}", addresses.len());
        held > 0
    }

    fn shown(&self, number: u8) -> Visibility {
        match &self.state.assignments(WORKER).items[&Key::Endpoint(id(number))] {
            Item::Endpoint(endpoint) => endpoint.visible,
            other => panic!("{other:?}"),
        }
    }
}

fn id(number: u8) -> AttachmentId {
    AttachmentId::from_bytes([number; 32])
}

fn subnet(cidr: &str, gateway: &str) -> Subnet {
    let cidr = cidr.parse().unwrap();
    Subnet {
        cidr,
        gateway: gateway.parse().unwrap(),
        range: cidr,
        auxiliary: Default::default(),
        cursor: None,
        resting: Default::default(),
    }
}

fn new_node(id: NodeId, host: u8, role: Role) -> NewNode {
    let description = NodeDescription {
        hostname: format!("n{host}"),
        address: format!("10.99.0.{host}:2377").parse().unwrap(),
        data_path: format!("10.99.0.{host}").parse().unwrap(),
        os: "linux".into(),
        architecture: "x86_64".into(),
        engine_version: "0".into(),
        nano_cpus: 1,
        memory: 1,
        used_prefixes: Default::default(),
        certificate_expires: None,
    };
    NewNode { id, spec: NodeSpec { role, ..NodeSpec::default() }, description }
}

#[test]
fn what_may_not_join_is_told_why() {
    let mut world = World::new();
    world.attach(1, "probe");
    let ip = |text: &str| -> Vec<IpAddr> { vec![text.parse().unwrap()] };
    let cases: [(&str, fn(&mut NewForeign)); 9] = [
        ("the network is not attachable", |f| f.network = CLOSED),
        ("attachment Probe already exists", |f| f.name = "Probe".into()),
        ("service web already exists", |f| f.name = "web".into()),
        ("alias of a service SHOP already exists", |f| f.aliases = vec!["SHOP".into()]),
        ("must have no dot", |f| f.name = "web.1".into()),
        ("must have no dot", |f| f.aliases = vec!["tasks.web".into()]),
        ("no such node", |f| f.node = NodeId::from_bytes([9; 32])),
        ("no such service", |f| f.service = Some(ServiceId::from_bytes([9; 32]))),
        ("attachment 010101010101 already exists", |f| f.id = id(1)),
    ];
    for (words, spoil) in cases {
        let mut foreign = world.foreign(2, "other");
        spoil(&mut foreign);
        let said = world.try_(Command::AttachForeign { foreign }).unwrap_err().to_string();
        assert!(said.contains(words), "{said} lacks {words}");
    }
    for (address, words) in [
        ("10.0.1.2", "is taken"),
        ("10.0.1.3", "is taken"),
        ("10.0.1.1", "may not be given out"),
        ("10.0.2.2", "may not be given out"),
        ("fd00::2", "may not be given out"),
    ] {
        let foreign = NewForeign { addresses: ip(address), ..world.foreign(2, "other") };
        let said = world.try_(Command::AttachForeign { foreign }).unwrap_err().to_string();
        assert!(said.contains(words), "{address}: {said}");
    }
    let foreign = NewForeign { network: CLOSED, ..world.foreign(2, "other") };
    let hint = world.try_(Command::AttachForeign { foreign }).unwrap_err().hint();
    assert!(hint.unwrap().contains("--attachable"));
}

#[test]
fn a_given_address_stays_and_missing_families_are_chosen() {
    let mut world = World::new();
    let given: Vec<IpAddr> = vec!["10.0.1.6".parse().unwrap()];
    assert_eq!(world.state.choose_addresses_beside(OPEN, &given).unwrap(), given);
    let subnets = vec![subnet("10.9.0.0/24", "10.9.0.1"), subnet("fd09::/64", "fd09::1")];
    let both = NetworkId::from_bytes([7; 32]);
    let spec = NetworkSpec::overlay("both");
    world.make(Command::CreateNetwork { id: both, spec, vni: Some(65_600), subnets });
    let given: Vec<IpAddr> = vec!["fd09::77".parse().unwrap()];
    let chosen = world.state.choose_addresses_beside(both, &given).unwrap();
    assert_eq!(chosen.len(), 2);
    assert!(chosen.contains(&given[0]) && chosen.iter().any(IpAddr::is_ipv4));
}

#[test]
fn it_is_found_from_ready_on_while_its_node_is_in_touch() {
    let mut world = World::new();
    let mut foreign = world.foreign(1, "probe");
    foreign.aliases = vec!["lookout".into()];
    foreign.service = Some(WEB);
    world.make(Command::AttachForeign { foreign });
    assert_eq!(world.shown(1), Visibility::Hidden);
    let other = world.try_(Command::ForeignReady { node: MANAGER, id: id(1) });
    assert!(other.unwrap_err().to_string().contains("no such attachment"));
    assert_eq!(world.shown(1), Visibility::Hidden, "only its own node can say so");
    world.make(Command::ForeignReady { node: WORKER, id: id(1) });
    assert_eq!(world.shown(1), Visibility::Shown);
    let items = world.state.assignments(WORKER).items;
    let Item::Endpoint(endpoint) = &items[&Key::Endpoint(id(1))] else { panic!() };
    assert_eq!(endpoint.names, ["probe", "010101010101", "lookout"]);
    assert_eq!(endpoint.service, Some(WEB), "it answers for the service");
    assert!(items.contains_key(&Key::Foreign(id(1))));
    assert!(!world.state.assignments(MANAGER).items.contains_key(&Key::Foreign(id(1))));
    let Item::Cluster(cluster) = &items[&Key::Cluster] else { panic!() };
    for label in ["probe", "lookout"] {
        assert!(cluster.labels.contains(&label_hash(CLUSTER, label)), "{label} exists somewhere");
    }
    let (state, message) = (NodeState::Silent, String::new());
    world.make(Command::SetNodeState { id: WORKER, state, message });
    assert_eq!(world.shown(1), Visibility::Hidden);
    world.make(Command::RemoveService { id: WEB });
    assert_eq!(world.state.foreign(id(1)).unwrap().service, None);
}

#[test]
fn what_goes_frees_its_address_and_its_name_and_the_network() {
    let mut world = World::new();
    world.attach(1, "probe");
    assert!(world.state.network_users(OPEN).contains(&"attachment probe".to_owned()));
    let usage = {
        let network = world.state.network(OPEN).unwrap();
        world.state.address_use(network, &network.subnets[0])
    };
    assert_eq!((usage.foreign, usage.tasks, usage.vips), (1, 0, 1));
    let removed = world.try_(Command::RemoveNetwork { id: OPEN });
    assert!(removed.unwrap_err().to_string().contains("attachment probe"));
    let address = world.state.attachment(id(1)).unwrap().addresses[0];
    assert!(world.try_(Command::DetachForeign { node: MANAGER, id: id(1) }).is_err());
    assert!(world.state.attachment(id(1)).is_some(), "only its own node gives it back");
    world.make(Command::DetachForeign { node: WORKER, id: id(1) });
    world.make(Command::DetachForeign { node: WORKER, id: id(1) });
    assert!(!world.state.taken(OPEN).contains(&address));
    assert_eq!(world.state.network_users(OPEN), ["service web"]);
    world.attach(2, "probe");
    let held = world.state.attachment(id(2)).unwrap();
    assert_ne!(held.addresses[0], address, "a freed address rests");
    assert_eq!(held.holder, Holder::Foreign(id(2)));
    world.make(Command::RemoveNode { id: WORKER, force: Force::Yes });
    assert_eq!(world.state.foreigners().count(), 0);
    assert_eq!(world.state.attachments().count(), 0);
}

#[test]
fn what_a_removed_node_holds_is_free_when_it_says_so_or_by_force() {
    // What happens after it was removed while it was away, and whether that frees its addresses.
    let again = || Command::AddNode {
        node: new_node(NodeId::from_bytes([8; 32]), 2, Role::Worker),
        secret: [1; 16],
    };
    let cases: [(&str, Command, bool); 4] = [
        ("it has heard", Command::NodeCleared { id: WORKER }, true),
        ("by force", Command::RemoveNode { id: WORKER, force: Force::Yes }, true),
        ("its machine joins anew", again(), true),
        ("another write", Command::RotateToken { role: Role::Worker, secret: [7; 16] }, false),
    ];
    for (what, then, frees) in cases {
        let mut world = World::new();
        let held = world.occupy_worker();
        world.make(Command::RemoveNode { id: WORKER, force: Force::No });
        assert!(world.state.node(WORKER).is_none());
        assert!(world.holds(&held), "it may still answer for them");
        assert_eq!(world.state.addresses_held_at(WORKER), 2);
        let refused = world.try_(Command::RemoveNetwork { id: OPEN }).unwrap_err().to_string();
        assert!(refused.contains("attachment probe"), "{refused}");
        world.make(then);
        assert_eq!(!world.holds(&held), frees, "{what}");
        assert_eq!(world.state.removed_nodes().count() == 0, frees, "{what}");
    }
}

#[test]
fn a_node_that_left_or_is_removed_by_force_holds_nothing() {
    let mut world = World::new();
    let held = world.occupy_worker();
    world.make(Command::NodeCleared { id: WORKER });
    assert!(world.holds(&held), "it is a member, and may come back");
    world.make(Command::RemoveNode { id: WORKER, force: Force::No });
    assert!(!world.holds(&held));
    let mut world = World::new();
    let held = world.occupy_worker();
    world.make(Command::NodeCleared { id: WORKER });
    // It came back without having left for good.
    let (state, message) = (NodeState::Ready, String::new());
    world.make(Command::SetNodeState { id: WORKER, state, message });
    let (state, message) = (NodeState::Down, String::new());
    world.make(Command::SetNodeState { id: WORKER, state, message });
    world.make(Command::RemoveNode { id: WORKER, force: Force::No });
    assert!(world.holds(&held));
    let mut world = World::new();
    let held = world.occupy_worker();
    world.make(Command::RemoveNode { id: WORKER, force: Force::Yes });
    assert!(!world.holds(&held));
    assert_eq!(world.state.removed_nodes().count(), 0);
    let unknown = world.try_(Command::NodeCleared { id: WORKER });
    assert!(unknown.is_err(), "nobody holds anything for it");
}

#[test]
fn no_service_takes_the_name_of_one_that_is_there() {
    let mut world = World::new();
    world.attach(1, "probe");
    let mut spec = ServiceSpec::replicated("probe", 0, ContainerSpec::new("rootfs:/", &["sh"]));
    let id = ServiceId::from_bytes([8; 32]);
    spec.networks = vec![NetworkUse { network: OPEN, aliases: Vec::new() }];
    let vips = world.state.choose_vips(&spec, &Default::default()).unwrap();
    let create = Command::CreateService { id, spec: Arc::new(spec.clone()), vips };
    assert!(world.try_(create).unwrap_err().to_string().contains("attachment probe already"));
    spec.networks = vec![NetworkUse { network: CLOSED, aliases: Vec::new() }];
    let vips = world.state.choose_vips(&spec, &Default::default()).unwrap();
    world.make(Command::CreateService { id, spec: Arc::new(spec), vips });
}
