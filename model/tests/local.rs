//! The state of a node by itself against random commands: the invariants hold, a refusal changes
//! nothing, a replay gives the same state, and a snapshot is the state. Then, one by one, what is
//! refused and how it is said.

#![allow(clippy::unwrap_used)]

use std::{net::IpAddr, sync::Arc};

use proptest::prelude::*;
use weft_ipam::default_pools;
use weft_model::{
    AttachmentId, Command, ContainerId, NetworkId, Proposal, Rejected, State, Subnet, Time,
    command::{Force, NewEndpoint},
    mac,
    object::{LastRun, PortBinding, Wanted},
    spec::{
        ContainerSpec, Driver, EndpointSpec, Link, Mount, NetworkMode, NetworkSpec, PoolSpec,
        Protocol, PublishSpec, Restart, RunSpec, Scope,
    },
    state::Surroundings,
};

/// Few of each kind, so that commands meet.
const FEW: u8 = 4;
/// The predefined `bridge`; user-defined networks follow it.
const DEFAULT: u8 = 0;

fn network(number: u8) -> NetworkId {
    NetworkId::from_bytes([number; 32])
}

fn container(number: u8) -> ContainerId {
    ContainerId::from_bytes([number + 1; 32])
}

fn subnet(cidr: &str) -> Subnet {
    Subnet::of(cidr.parse().unwrap(), &PoolSpec::default())
}

/// A state, and how many entries its log has.
#[derive(Clone)]
struct World {
    state: State,
    index: u64,
}

impl World {
    /// A node that has just been started for the first time.
    fn new() -> Self {
        let mut world = Self { state: State::default(), index: 0 };
        for (number, driver) in [(DEFAULT, Driver::Bridge), (98, Driver::Host), (99, Driver::Null)]
        {
            let subnets =
                if driver == Driver::Bridge { vec![subnet("10.0.0.0/28")] } else { Vec::new() };
            let spec = NetworkSpec::predefined(driver).unwrap();
            world.make(Command::SetPredefined { id: network(number), spec, subnets });
        }
        world
    }

    /// The same with a network `net1` of its own.
    fn with_network() -> Self {
        let mut world = Self::new();
        let spec = NetworkSpec::new("net1", Driver::Bridge);
        let subnets = vec![subnet("10.0.1.0/28")];
        world.make(Command::CreateNetwork { id: network(1), spec, vni: None, subnets });
        world
    }

    fn proposal(&mut self, command: Command) -> Proposal {
        self.index += 1;
        Proposal { request: None, now: Time(self.index * 1_000), commands: vec![command] }
    }

    fn try_(&mut self, command: Command) -> Result<(), Rejected> {
        let proposal = self.proposal(command);
        let result = self.state.apply(self.index, &proposal).into_result().map(drop);
        assert_eq!(self.state.check(), vec![], "after {proposal:?}");
        result
    }

    fn make(&mut self, command: Command) {
        self.try_(command).unwrap();
    }

    fn refusal(&mut self, command: Command) -> String {
        self.try_(command).unwrap_err().to_string()
    }

    fn create(&self, number: u8, spec: RunSpec) -> Command {
        let endpoints = (1..).zip(&spec.endpoints);
        let endpoints =
            endpoints.map(|(n, asked)| decided(&self.state, number, n, asked)).collect();
        Command::CreateContainer { id: container(number), spec: Arc::new(spec), endpoints }
    }

    fn run(&mut self, number: u8, name: &str) {
        let create = self.create(number, plain(name));
        self.make(create);
        self.make(start(number, &[]));
    }
}

/// What a node decides: free addresses, and those asked for.
fn decided(state: &State, number: u8, nth: u8, asked: &EndpointSpec) -> NewEndpoint {
    let mut id = [nth; 32];
    id[0] = number + 1;
    let chosen = state.choose_addresses_beside(asked.network, &asked.addresses);
    let addresses =
        if asked.scope == Scope::Local { chosen.unwrap_or_default() } else { Vec::new() };
    NewEndpoint {
        attachment: AttachmentId::from_bytes(id),
        mac: asked.mac.unwrap_or_else(|| mac::derive(&addresses)),
        addresses,
        ifname: format!("eth{}", nth - 1),
    }
}

fn on(number: u8) -> EndpointSpec {
    EndpointSpec::local(network(number))
}

fn named(name: &str) -> RunSpec {
    RunSpec::new(name, ContainerSpec::new("rootfs:/srv", &["sh"]))
}

/// On the default bridge.
fn plain(name: &str) -> RunSpec {
    named(name).on(vec![on(DEFAULT)])
}

fn set(number: u8, wanted: Wanted, ports: &[PortBinding], force: Force) -> Command {
    Command::SetContainer { id: container(number), wanted, ports: ports.to_vec(), force }
}

fn start(number: u8, ports: &[PortBinding]) -> Command {
    set(number, Wanted::Running, ports, Force::No)
}

fn end(number: u8, start: u64, wanted: Wanted) -> Command {
    let last = LastRun {
        start,
        exit_code: 0,
        error: String::new(),
        oom: false,
        started: Time(1),
        finished: Time(2),
        restarts: 0,
        health: None,
    };
    Command::NoteContainer { id: container(number), last, wanted }
}

fn binding(host_ip: &str, host_port: u16) -> PortBinding {
    let host_ip = host_ip.parse().unwrap();
    PortBinding { host_ip, host_port, port: 80, protocol: Protocol::Tcp }
}

// ---- random commands

/// What may be tried; turned into a command when the state is known.
#[derive(Clone, Debug)]
enum Try {
    Command(Command),
    Create(u8, RunSpec),
    Connect(u8, EndpointSpec, u8),
}

fn few() -> impl Strategy<Value = u8> {
    0..FEW
}

fn endpoint() -> impl Strategy<Value = EndpointSpec> {
    let addresses = prop_oneof![
        4 => Just(Vec::new()),
        1 => (0u8..3, 0u8..16)
            .prop_map(|(net, host)| vec![IpAddr::from([10, 0, net, host])]),
    ];
    let mac = prop_oneof![5 => Just(None), 1 => (0u8..4).prop_map(|n| Some([2, 0, 0, 0, 0, n]))];
    let alias = prop_oneof![3 => Just(Vec::new()), 1 => Just(vec!["db".to_owned()])];
    let link = prop::option::weighted(0.2, 0u8..6);
    let cluster = prop::bool::weighted(0.1);
    (few(), addresses, mac, alias, link, cluster).prop_map(
        |(net, addresses, mac, aliases, link, cluster)| EndpointSpec {
            scope: if cluster { Scope::Cluster } else { Scope::Local },
            addresses,
            mac,
            aliases,
            links: link
                .map(|n| Link { target: container(n), name: format!("c{n}"), alias: "peer".into() })
                .into_iter()
                .collect(),
            ..on(net)
        },
    )
}

fn run_spec() -> impl Strategy<Value = RunSpec> {
    let publish =
        PublishSpec { host_ip: None, host_ports: None, port: 80, protocol: Protocol::Tcp };
    let mode = prop_oneof![
        6 => prop::collection::vec(endpoint(), 1..3).prop_map(|e| (NetworkMode::Networks, e)),
        1 => Just((NetworkMode::Host, Vec::new())),
        1 => Just((NetworkMode::None, Vec::new())),
        2 => (0u8..6).prop_map(|n| (NetworkMode::Container(container(n)), Vec::new())),
    ];
    (0u8..6, mode, any::<bool>(), any::<bool>()).prop_map(
        move |(name, (network, endpoints), published, auto_remove)| {
            let mut spec = named(&format!("c{name}"));
            (spec.network, spec.endpoints) = (network, endpoints);
            spec.auto_remove = auto_remove;
            if published {
                spec.publish.push(publish.clone());
            }
            spec
        },
    )
}

fn wanted() -> impl Strategy<Value = Wanted> {
    prop_oneof![3 => Just(Wanted::Running), 2 => Just(Wanted::Stopped), 2 => Just(Wanted::Removed)]
}

fn ports() -> impl Strategy<Value = Vec<PortBinding>> {
    let address = prop_oneof![Just("0.0.0.0"), Just("::"), Just("127.0.0.1")];
    prop::collection::vec((address, 8080u16..8083).prop_map(|(ip, port)| binding(ip, port)), 0..3)
}

fn force() -> impl Strategy<Value = Force> {
    prop_oneof![Just(Force::No), Just(Force::Yes)]
}

fn tries() -> impl Strategy<Value = Try> {
    let networks = prop_oneof![
        3 => (1..FEW, few(), 0u8..4).prop_map(|(id, name, net)| Command::CreateNetwork {
            id: network(id),
            spec: NetworkSpec::new(&format!("net{name}"), Driver::Bridge),
            vni: None,
            subnets: vec![subnet(&format!("10.0.{net}.0/28"))],
        }),
        1 => few().prop_map(|id| Command::RemoveNetwork { id: network(id) }),
        1 => (0u8..2).prop_map(|net| Command::SetPredefined {
            id: network(77),
            spec: NetworkSpec::predefined(Driver::Bridge).unwrap(),
            subnets: vec![subnet(&format!("10.0.{net}.0/28"))],
        }),
    ];
    let containers = prop_oneof![
        4 => (0u8..6, wanted(), ports(), force())
            .prop_map(|(id, wanted, ports, force)| set(id, wanted, &ports, force)),
        3 => (0u8..6, 0u64..4, wanted()).prop_map(|(id, at, wanted)| end(id, at, wanted)),
        1 => (0u8..6, few()).prop_map(|(id, net)| Command::Disconnect {
            container: container(id),
            network: network(net),
        }),
        2 => (0u8..6).prop_map(|id| Command::ForgetContainer { id: container(id) }),
    ];
    prop_oneof![
        2 => networks.prop_map(Try::Command),
        5 => containers.prop_map(Try::Command),
        4 => (0u8..6, run_spec()).prop_map(|(id, spec)| Try::Create(id, spec)),
        2 => (0u8..6, endpoint(), 1u8..6)
            .prop_map(|(id, endpoint, nth)| Try::Connect(id, endpoint, nth)),
    ]
}

fn command(world: &World, what: Try) -> Command {
    match what {
        Try::Command(command) => command,
        Try::Create(number, spec) => world.create(number, spec),
        Try::Connect(number, spec, nth) => {
            let endpoint = decided(&world.state, number, nth, &spec);
            Command::Connect { container: container(number), spec, endpoint }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn whatever_comes_the_invariants_hold(tries in prop::collection::vec(tries(), 1..100)) {
        let mut world = World::new();
        let mut log = Vec::new();
        for what in tries {
            let command = command(&world, what);
            let proposal = world.proposal(command);
            let mut before = world.state.clone();
            // A refused proposal still moves the revision and the clock: the log entry is there.
            before.apply(world.index, &Proposal { commands: Vec::new(), ..proposal.clone() });
            let outcome = world.state.apply(world.index, &proposal);
            if outcome.results.iter().all(Result::is_err) {
                prop_assert_eq!(&world.state, &before, "a refusal changed something");
            }
            prop_assert_eq!(world.state.check(), vec![], "after {:?}", proposal);
            log.push((world.index, proposal));
        }
        let bytes = rmp_serde::to_vec_named(&log).unwrap();
        let log: Vec<(u64, Proposal)> = rmp_serde::from_slice(&bytes).unwrap();
        let mut replayed = World::new().state;
        for (index, proposal) in &log {
            replayed.apply(*index, proposal);
        }
        prop_assert_eq!(&replayed, &world.state, "a replay differs");
        let bytes = rmp_serde::to_vec_named(&world.state).unwrap();
        let restored: State = rmp_serde::from_slice(&bytes).unwrap();
        prop_assert_eq!(&restored, &world.state, "a snapshot differs");
    }
}

// ---- one by one

#[test]
fn a_container_lives_and_is_forgotten_and_its_address_rests() {
    let mut world = World::new();
    world.run(0, "web");
    let state = &world.state;
    let made = state.container_named("/WEB").unwrap();
    assert_eq!((made.wanted, made.starts), (Wanted::Running, 1));
    let attachment = state.attachment(made.endpoints[0].attachment).unwrap();
    assert_eq!(attachment.addresses, ["10.0.0.2".parse::<IpAddr>().unwrap()]);
    assert_eq!(attachment.mac, [2, 0x42, 10, 0, 0, 2]);
    let early = world.refusal(Command::ForgetContainer { id: container(0) });
    assert_eq!(early, "container web cannot be forgotten: nobody has removed it");
    let running = world.refusal(set(0, Wanted::Removed, &[], Force::No));
    assert_eq!(running, "container web cannot be removed: it is running");
    world.make(end(0, 1, Wanted::Stopped));
    world.make(set(0, Wanted::Removed, &[], Force::No));
    assert!(world.refusal(start(0, &[])).contains("it is being removed"));
    world.make(Command::ForgetContainer { id: container(0) });
    assert_eq!(world.state.attachments().count(), 0);
    let next = world.state.choose_addresses(network(DEFAULT)).unwrap();
    assert_eq!(next, ["10.0.0.3".parse::<IpAddr>().unwrap()], "10.0.0.2 rests");
}

#[test]
fn names_are_unique_and_the_refusal_is_dockers() {
    let mut world = World::new();
    world.run(0, "web");
    let again = world.create(1, plain("WEB"));
    let error = world.try_(again).unwrap_err();
    let expected = format!(
        "conflict: the container name \"/WEB\" is already in use by container {}",
        container(0)
    );
    assert_eq!(error.to_string(), expected);
    assert!(error.hint().unwrap().contains("weft rm WEB"));
}

#[test]
fn a_host_port_is_bound_once() {
    let mut world = World::new();
    for (number, name) in [(0, "a"), (1, "b")] {
        let mut spec = plain(name);
        let host_ports = Some((8080, 8090));
        let protocol = Protocol::Tcp;
        spec.publish.push(PublishSpec { host_ip: None, host_ports, port: 80, protocol });
        let create = world.create(number, spec);
        world.make(create);
    }
    world.make(start(0, &[binding("0.0.0.0", 8080), binding("::", 8080)]));
    let taken = world.refusal(start(1, &[binding("127.0.0.1", 8080)]));
    let expected = "bind for 127.0.0.1:8080 failed: port is already allocated, by container a";
    assert_eq!(taken, expected);
    let same = [binding("127.0.0.1", 8081), binding("0.0.0.0", 8081)];
    assert!(world.refusal(start(1, &same)).contains("already allocated"), "its own");
    assert!(world.refusal(start(1, &[binding("::", 80)])).contains("is not asked for"));
    // A container that is asked to stop has its ports until it has ended.
    world.make(set(0, Wanted::Stopped, &[], Force::No));
    assert!(world.refusal(start(1, &[binding("::1", 8080)])).contains("already allocated"));
    world.make(end(0, 1, Wanted::Stopped));
    world.make(start(1, &[binding("::1", 8080)]));
    let binding = binding("::", 8080);
    assert_eq!(world.state.users_of_port(&binding).count(), 1);
}

#[test]
fn the_end_of_an_earlier_run_says_nothing_of_the_present_one() {
    let mut world = World::new();
    world.run(0, "web");
    world.make(start(0, &[]));
    world.make(end(0, 1, Wanted::Removed));
    let found = |world: &World| world.state.container(container(0)).unwrap().clone();
    assert_eq!(found(&world).wanted, Wanted::Running);
    world.make(set(0, Wanted::Stopped, &[], Force::No));
    world.make(end(0, 2, Wanted::Running));
    assert_eq!(found(&world).wanted, Wanted::Stopped, "an end does not start what was stopped");
    assert!(world.refusal(end(0, 3, Wanted::Running)).contains("not started so often"));
}

#[test]
fn the_namespace_of_another_is_there_only_while_that_runs() {
    let mut world = World::new();
    world.run(0, "owner");
    let mut spec = named("joiner");
    spec.network = NetworkMode::Container(container(0));
    let create = world.create(1, spec);
    world.make(create);
    world.make(start(1, &[]));
    world.make(set(0, Wanted::Stopped, &[], Force::No));
    let late = world.refusal(start(1, &[]));
    let expected =
        "container joiner cannot start: container owner, whose network it joins, does not run";
    assert_eq!(late, expected);
    let used = world.refusal(set(0, Wanted::Removed, &[], Force::No));
    assert_eq!(used, "container owner cannot be removed: its network is used by joiner");
    let (spec, id) = (on(DEFAULT), container(1));
    let endpoint = decided(&world.state, 1, 1, &spec);
    let connect = Command::Connect { container: id, spec, endpoint };
    assert!(world.refusal(connect).contains("another container's network namespace"));
    world.make(set(0, Wanted::Removed, &[], Force::Yes));
    world.make(Command::ForgetContainer { id: container(0) });
    assert!(world.refusal(start(1, &[])).contains("is gone"));
}

#[test]
fn what_is_for_user_defined_networks_is_refused_on_the_default_bridge() {
    let mut world = World::with_network();
    let address = |net: u8| vec![IpAddr::from([10, 0, net, 9])];
    let asked = EndpointSpec { addresses: address(DEFAULT), ..on(DEFAULT) };
    let create = world.create(0, named("a").on(vec![asked]));
    assert!(world.refusal(create).contains("on user-defined networks only"));
    let asked = EndpointSpec { aliases: vec!["db".into()], ..on(DEFAULT) };
    let create = world.create(0, named("a").on(vec![asked]));
    assert!(world.refusal(create).contains("aliases are for user-defined networks only"));
    let mac = Some([2, 0, 0, 0, 0, 7]);
    let asked = EndpointSpec { addresses: address(1), aliases: vec!["db".into()], mac, ..on(1) };
    let create = world.create(0, named("a").on(vec![asked.clone()]));
    world.make(create);
    let other = vec![IpAddr::from([10, 0, 1, 10])];
    let create = world.create(1, named("b").on(vec![EndpointSpec { addresses: other, ..asked }]));
    assert!(world.refusal(create).contains("is in use on network net1"), "the MAC");
    let asked = EndpointSpec { addresses: address(1), ..on(1) };
    let create = world.create(1, named("b").on(vec![asked]));
    assert!(world.refusal(create).contains("is taken"), "the address");
    let link = Link { target: container(0), name: "a".into(), alias: "peer".into() };
    let asked = EndpointSpec { links: vec![link], ..on(DEFAULT) };
    let create = world.create(1, named("b").on(vec![asked]));
    assert!(world.refusal(create).contains("a is not on the default bridge"));
}

#[test]
fn networks_are_joined_and_left() {
    let mut world = World::with_network();
    world.run(0, "web");
    let connect = |world: &World, net: u8, nth: u8| {
        let spec = on(net);
        let endpoint = decided(&world.state, 0, nth, &spec);
        Command::Connect { container: container(0), spec, endpoint }
    };
    let again = connect(&world, DEFAULT, 2);
    assert!(world.refusal(again).contains("it is on network bridge already"));
    let second = connect(&world, 1, 2);
    world.make(second);
    let used = world.refusal(Command::RemoveNetwork { id: network(1) });
    assert_eq!(used, "network net1 is in use by container web");
    let leave = Command::Disconnect { container: container(0), network: network(1) };
    world.make(leave.clone());
    let twice = world.refusal(leave);
    let expected = "container web cannot be disconnected: it is not connected to network net1";
    assert_eq!(twice, expected);
    world.make(Command::RemoveNetwork { id: network(1) });
    let host = connect(&world, 98, 2);
    let error = world.refusal(host);
    assert_eq!(error, "a container cannot join network host: it is the host's");
}

#[test]
fn predefined_networks_stay_and_change_while_nobody_is_on_them() {
    let mut world = World::new();
    let gone = world.refusal(Command::RemoveNetwork { id: network(DEFAULT) });
    assert_eq!(gone, "network bridge cannot be removed: it is a pre-defined network");
    let other = |cidr: &str, mtu: &str| {
        let mut spec = NetworkSpec::predefined(Driver::Bridge).unwrap();
        spec.options.insert("mtu".into(), mtu.into());
        Command::SetPredefined { id: network(50), spec, subnets: vec![subnet(cidr)] }
    };
    world.make(other("10.0.5.0/28", "1500"));
    assert!(world.state.network(network(50)).is_none(), "it keeps its ID");
    world.run(0, "web");
    assert!(world.refusal(other("10.0.6.0/28", "1500")).contains("in use by container web"));
    world.make(other("10.0.5.0/28", "1400"));
    let bridge = world.state.network_named("bridge").unwrap();
    assert_eq!(bridge.spec.mtu(), Some(1400));
    assert!(bridge.subnets[0].cursor.is_some(), "what was given out is still known");
    let (spec, subnets) = (NetworkSpec::new("bridge", Driver::Bridge), vec![subnet("10.9.0.0/24")]);
    let create = Command::CreateNetwork { id: network(9), spec, vni: None, subnets };
    assert!(world.refusal(create).contains("predefined"));
}

#[test]
fn local_networks_overlap_neither_each_other_nor_a_device() {
    let mut world = World::with_network();
    let create = |name: &str, cidr: &str, device: &str| {
        let mut spec = NetworkSpec::new(name, Driver::Bridge);
        spec.options.insert("name".into(), device.into());
        let id = network(name.as_bytes()[0]);
        Command::CreateNetwork { id, spec, vni: None, subnets: vec![subnet(cidr)] }
    };
    let overlap = world.refusal(create("x", "10.0.1.0/24", "lan0"));
    assert_eq!(overlap, "subnet 10.0.1.0/24 overlaps 10.0.1.0/28 of network net1");
    world.make(create("x", "10.0.2.0/24", "lan0"));
    let device = world.refusal(create("y", "10.0.3.0/24", "lan0"));
    assert!(device.contains("is the device of network x"), "{device}");
    let spec = NetworkSpec::overlay("o");
    let subnets = vec![subnet("10.0.9.0/24")];
    let overlay = Command::CreateNetwork { id: network(9), spec, vni: Some(65_536), subnets };
    assert!(world.refusal(overlay).contains("not part of a cluster"));
}

#[test]
fn a_device_has_ipvlan_members_of_one_mode() {
    let mut world = World::new();
    let create = |name: &str, parent: &str, mode: &str| {
        let mut spec = NetworkSpec::new(name, Driver::Ipvlan);
        spec.options.insert("parent".into(), parent.into());
        spec.options.insert("mode".into(), mode.into());
        let number = name.as_bytes()[0];
        let subnets = vec![subnet(&format!("10.0.{number}.0/24"))];
        Command::CreateNetwork { id: network(number), spec, vni: None, subnets }
    };
    world.make(create("x", "eth0", "l2"));
    let refusal = world.refusal(create("y", "eth0", "l3"));
    let wanted = "invalid option parent \"eth0\": network x has it in another ipvlan mode";
    assert_eq!(refusal, wanted);
    world.make(create("y", "eth0", "l2"));
    world.make(create("z", "eth1", "l3"));
}

#[test]
fn subnets_are_chosen_clear_of_networks_and_routes() {
    let world = World::with_network();
    let pools = default_pools();
    let used = [
        ("172.17.0.0/16".parse().unwrap(), "the route of docker0".to_owned()),
        ("0.0.0.0/0".parse().unwrap(), "the default route".to_owned()),
    ];
    let around = Surroundings { pools: &pools, global_id: 1, used: &used };
    let mut spec = NetworkSpec::new("n", Driver::Macvlan);
    spec.ipv6 = true;
    let chosen = world.state.choose_local_subnets(&spec, around).unwrap();
    let text: Vec<_> =
        chosen.iter().map(|subnet| format!("{} {}", subnet.cidr, subnet.gateway)).collect();
    assert_eq!(text, ["172.18.0.0/16 172.18.0.1", "fd00:0:1::/64 fd00:0:1::1"]);
    spec.pools.push(PoolSpec::of("172.17.5.0/24".parse().unwrap()));
    let error = world.state.choose_local_subnets(&spec, around).unwrap_err().to_string();
    assert!(error.ends_with("overlaps 172.17.0.0/16 of the route of docker0"), "{error}");
}

#[test]
fn objects_are_found_by_name_id_and_unique_beginning() {
    let mut world = World::new();
    world.run(0, "web");
    world.run(0x0f, "db");
    world.run(0x10, "cache");
    let state = &world.state;
    let name = |text: &str| state.container_named(text).map(|c| c.spec.name.clone());
    assert_eq!(name("web").unwrap(), "web");
    assert_eq!(name(&container(0).to_string()).unwrap(), "web");
    assert_eq!(name("10").unwrap(), "db");
    let error = name("1").unwrap_err().to_string();
    assert!(error.contains("container \"1\" is ambiguous: it begins the IDs of "), "{error}");
    for none in ["", "/", "x"] {
        assert!(matches!(name(none), Err(Rejected::NotFound { .. })), "{none}");
    }
    assert_eq!(state.network_named("Bridge").unwrap().id, network(DEFAULT));
}

#[test]
fn containers_are_no_business_of_the_clusters() {
    let mut world = World::new();
    let auto = RunSpec { auto_remove: true, restart: Restart::Always, ..plain("a") };
    let create = world.create(0, auto);
    assert!(world.refusal(create).contains("cannot be had with --rm"));
    let asked = EndpointSpec { scope: Scope::Cluster, ..on(40) };
    let create = world.create(0, named("a").on(vec![asked]));
    world.make(create);
    let endpoint = &world.state.container(container(0)).unwrap().endpoints[0];
    assert!(endpoint.foreign() && world.state.attachment(endpoint.attachment).is_none());
}

/// What was written before there were containers.
#[test]
fn a_snapshot_and_a_spec_without_the_new_fields_are_read() {
    let without = |value: serde_json::Value, fields: &[&str]| {
        let mut old = value.as_object().unwrap().clone();
        for field in fields {
            assert!(old.remove(*field).is_some(), "{field}");
        }
        serde_json::Value::Object(old)
    };
    let state = World::new().state;
    let old = without(serde_json::to_value(&state).unwrap(), &["containers"]);
    assert_eq!(serde_json::from_value::<State>(old).unwrap(), state);
    let spec = ContainerSpec::new("rootfs:/srv", &["sh"]);
    let new = [
        "user",
        "stop_signal",
        "tty",
        "open_stdin",
        "cap_add",
        "cap_drop",
        "privileged",
        "sysctls",
        "read_only",
        "init",
        "health",
    ];
    let old = without(serde_json::to_value(&spec).unwrap(), &new);
    assert_eq!(serde_json::from_value::<ContainerSpec>(old).unwrap(), spec);
    let mount = serde_json::json!({ "Tmpfs": { "target": "/t" } });
    let wanted = Mount::Tmpfs { target: "/t".into(), size: None, mode: None };
    assert_eq!(serde_json::from_value::<Mount>(mount).unwrap(), wanted);
}

/// The invariants are looked for: a state that no command leads to is noticed.
#[test]
fn a_damaged_state_is_noticed() {
    use serde_json::{Value, json};
    let mut world = World::new();
    world.run(0, "a");
    world.run(1, "b");
    let good = serde_json::to_value(&world.state).unwrap();
    let ids = [container(0).to_string(), container(1).to_string()];
    let attachment = |number: usize| {
        good["containers"][&ids[number]]["endpoints"][0]["attachment"].as_str().unwrap().to_owned()
    };
    let port = json!({ "host_ip": "::", "host_port": 80, "port": 80, "protocol": "Tcp" });
    type Spoil<'a> = Box<dyn Fn(&mut Value) + 'a>;
    let cases: Vec<(&str, Spoil<'_>)> = vec![
        (
            "two containers are named",
            Box::new(|s| {
                s["containers"][&ids[1]]["spec"]["name"] = json!("A");
            }),
        ),
        (
            "publish at 80",
            Box::new(|s| {
                for id in &ids {
                    s["containers"][id]["ports"] = json!([port]);
                }
            }),
        ),
        (
            "without its attachment",
            Box::new(|s| {
                s["attachments"].as_object_mut().unwrap().remove(&attachment(0));
            }),
        ),
        (
            "has no holder",
            Box::new(|s| {
                s["containers"].as_object_mut().unwrap().remove(&ids[0]);
            }),
        ),
        (
            "has another's attachment",
            Box::new(|s| {
                s["containers"][&ids[0]]["endpoints"][0]["attachment"] = json!(attachment(1));
            }),
        ),
        (
            "is held by",
            Box::new(|s| {
                s["attachments"][attachment(0)]["addresses"] = json!(["10.0.0.3"]);
            }),
        ),
        (
            "has other addresses than it was promised",
            Box::new(|s| {
                let endpoint = &mut s["containers"][&ids[0]]["endpoints"][0]["spec"];
                endpoint["addresses"] = json!(["10.0.0.9"]);
            }),
        ),
        ("was never started", Box::new(|s| s["containers"][&ids[0]]["starts"] = json!(0))),
        (
            "has no namespace for them",
            Box::new(|s| {
                s["containers"][&ids[0]]["spec"]["network"] = json!("Host");
            }),
        ),
        (
            "is no overlay and has a VNI",
            Box::new(|s| {
                s["networks"][network(DEFAULT).to_string()]["vni"] = json!(65_536);
            }),
        ),
        (
            "in the wrong state",
            Box::new(|s| {
                s["networks"][network(DEFAULT).to_string()]["spec"]["scope"] = json!("Cluster");
            }),
        ),
    ];
    for (wanted, spoil) in cases {
        let mut damaged = good.clone();
        spoil(&mut damaged);
        let state: State = serde_json::from_value(damaged).unwrap();
        let found = state.check().iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        assert!(found.contains(wanted), "{wanted}: {found}");
    }
}
