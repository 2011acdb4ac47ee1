//! `State::apply` against random commands: whatever comes, in whatever order, the invariants hold,
//! a refusal changes nothing, a replay gives the same state, and a snapshot is the state.

#![allow(clippy::unwrap_used)]

use std::{net::IpAddr, sync::Arc, time::Duration};

use proptest::prelude::*;
use weft_model::{
    AttachmentId, Cluster, ClusterId, Command, Desired, Digest, Engine, Named, NetworkId, NodeId,
    Proposal, PublicKey, Rejected, RequestId, Rotation, ServiceId, State, TaskId, TaskState, Time,
    TunnelReport,
    assignments::{Item, Key, Segment},
    command::{Force, NewAttachment, NewForeign, NewNode, TaskReport, UpdateKind},
    object::{
        ClusterSpec, ExtraToken, Meta, NodeDescription, NodeState, Slot, Stuck, Subnet, Tokens,
        UpdateState, UpdateStatus,
    },
    spec::{
        Availability, ContainerSpec, Driver, EndpointMode, MacvlanMode, Mode, NetworkSpec,
        NetworkUse, NodeSpec, PoolSpec, Role, Scope, ServiceSpec,
    },
};

/// Few of each kind, so that commands meet.
const FEW: u8 = 4;

fn bytes(kind: u8, number: u8) -> [u8; 32] {
    let mut bytes = [kind; 32];
    bytes[31] = number;
    bytes
}

fn node(number: u8) -> NodeId {
    NodeId::from_bytes(bytes(1, number))
}

fn network(number: u8) -> NetworkId {
    NetworkId::from_bytes(bytes(2, number))
}

fn service(number: u8) -> ServiceId {
    ServiceId::from_bytes(bytes(3, number))
}

fn task(number: u8) -> TaskId {
    TaskId::from_bytes(bytes(4, number))
}

fn cluster() -> Cluster {
    Cluster {
        id: ClusterId::from_bytes([9; 32]),
        meta: Meta::new(Time(1)),
        spec: ClusterSpec::default(),
        tokens: Tokens { worker: [1; 16], manager: [2; 16], extra: Vec::new() },
        root_certificate: String::new(),
        root_key: String::new(),
        next_number: 1,
        last_vni: None,
    }
}

fn new_node(number: u8, host: u8, role: Role) -> NewNode {
    NewNode {
        id: node(number),
        spec: NodeSpec { role, ..NodeSpec::default() },
        description: description(number, host),
    }
}

fn description(number: u8, host: u8) -> NodeDescription {
    NodeDescription {
        hostname: format!("n{number}"),
        address: format!("10.99.0.{host}:2377").parse().unwrap(),
        data_path: format!("10.99.0.{host}").parse().unwrap(),
        os: "linux".into(),
        architecture: "x86_64".into(),
        engine_version: "0".into(),
        nano_cpus: 1,
        memory: 1,
        used_prefixes: Default::default(),
        certificate_expires: None,
    }
}

fn few() -> impl Strategy<Value = u8> {
    0..FEW
}

/// Subnets that sometimes overlap; small, so that they fill.
fn subnets() -> impl Strategy<Value = Vec<Subnet>> {
    let one = (0u8..6, any::<bool>()).prop_map(|(number, v6)| {
        let (cidr, gateway) = if v6 {
            (format!("fd00:0:0:{number}::/64"), format!("fd00:0:0:{number}::1"))
        } else {
            (format!("10.0.{number}.0/29"), format!("10.0.{number}.1"))
        };
        let cidr: ipnet::IpNet = cidr.parse().unwrap();
        Subnet {
            cidr,
            gateway: gateway.parse().unwrap(),
            range: cidr,
            auxiliary: Default::default(),
            cursor: None,
            resting: Default::default(),
        }
    });
    prop::collection::vec(one, 0..3)
}

/// Networks on devices of the nodes, and some that only look so.
fn on_segment() -> impl Strategy<Value = NetworkSpec> {
    let driver = prop::sample::select(vec![
        Driver::Macvlan,
        Driver::Macvlan,
        Driver::Ipvlan,
        Driver::Ipvlan,
        Driver::Bridge,
        Driver::Overlay,
    ]);
    (few(), driver, prop::option::weighted(0.9, Just(Scope::Cluster))).prop_map(
        |(name, driver, scope)| {
            let mut spec = NetworkSpec { scope, ..NetworkSpec::new(&format!("net{name}"), driver) };
            spec.attachable = name % 3 != 0;
            if matches!(driver, Driver::Macvlan | Driver::Ipvlan) {
                spec.options.insert("parent".into(), "eth0".into());
                spec.pools.push(PoolSpec::of("10.0.0.0/16".parse().unwrap()));
            }
            spec
        },
    )
}

fn service_spec() -> impl Strategy<Value = ServiceSpec> {
    (few(), 0u32..4, prop::collection::btree_set(few(), 0..3), any::<bool>(), any::<bool>())
        .prop_map(|(name, replicas, networks, dnsrr, global)| {
            let container = ContainerSpec::new("rootfs:/srv", &["sh"]);
            let mut spec = ServiceSpec::replicated(&format!("s{name}"), replicas, container);
            spec.networks = networks
                .into_iter()
                .map(|number| NetworkUse { network: network(number), aliases: Vec::new() })
                .collect();
            if dnsrr {
                spec.endpoint_mode = EndpointMode::Dnsrr;
            }
            if global {
                spec.mode = Mode::Global;
            }
            spec
        })
}

fn role() -> impl Strategy<Value = Role> {
    prop_oneof![Just(Role::Worker), Just(Role::Manager)]
}

/// Addresses are chosen well or badly.
#[derive(Clone, Debug)]
enum Addresses {
    FromState,
    These(Vec<IpAddr>),
}

fn addresses() -> impl Strategy<Value = Addresses> {
    let bad = (0u8..6, 0u8..8).prop_map(|(net, host)| {
        Addresses::These(vec![format!("10.0.{net}.{host}").parse().unwrap()])
    });
    prop_oneof![6 => Just(Addresses::FromState), 1 => bad]
}

/// What may be tried; turned into a command when the state is known.
#[derive(Clone, Debug)]
enum Try {
    Command(Command),
    CreateService(u8, ServiceSpec),
    UpdateService(u8, ServiceSpec, Option<u64>),
    Attach(u8, u8, Addresses),
    AttachForeign(NewForeign, Addresses),
    RotateKey(u8),
}

fn foreign_id(number: u8) -> AttachmentId {
    AttachmentId::from_bytes(bytes(0xf0, number))
}

/// Namespaces of others, whose names are sometimes those of services.
fn foreign() -> impl Strategy<Value = Try> {
    let names = (0u8..8).prop_map(|n| if n < 6 { format!("f{n}") } else { format!("s{}", n - 6) });
    (0u8..8, few(), few(), names, prop::option::of(few()), addresses()).prop_map(
        |(id, on, net, name, of, addresses)| {
            let foreign = NewForeign {
                id: foreign_id(id),
                network: network(net),
                node: node(on),
                name,
                aliases: vec![format!("alias{id}")],
                service: of.map(service),
                addresses: Vec::new(),
            };
            Try::AttachForeign(foreign, addresses)
        },
    )
}

/// What nodes say of their keys, of which there are so few that some are said by two nodes.
fn tunnels() -> impl Strategy<Value = Try> {
    let keys = prop::collection::btree_map(1u64..6, 0u8..12, 0..4);
    let report = (few(), keys, 1u16..3).prop_map(|(id, keys, lanes)| {
        let keys = keys.into_iter().map(|(at, key)| (at, PublicKey([key; 32]))).collect();
        let report = TunnelReport { engine: Engine::Kernel, reason: String::new(), lanes, keys };
        Try::Command(Command::ReportTunnel { id: node(id), report })
    });
    let stale = (few(), 1u64..4).prop_map(|(id, generation)| {
        Try::Command(Command::RotateKey { id: node(id), generation, from: Rotation::Idle })
    });
    prop_oneof![3 => report, 2 => few().prop_map(Try::RotateKey), 1 => stale]
}

fn tries() -> impl Strategy<Value = Try> {
    let states = prop_oneof![
        Just(NodeState::Ready),
        Just(NodeState::Silent),
        Just(NodeState::Down),
        Just(NodeState::Unknown)
    ];
    let task_states = prop_oneof![
        Just(TaskState::Preparing),
        Just(TaskState::Running),
        Just(TaskState::Failed),
        Just(TaskState::Shutdown),
        Just(TaskState::New),
    ];
    let availability = prop_oneof![
        Just(Availability::Active),
        Just(Availability::Pause),
        Just(Availability::Drain)
    ];
    let nodes = prop_oneof![
        (few(), 1u8..6, role()).prop_map(|(number, host, role)| {
            let secret = if role == Role::Manager { [2; 16] } else { [1; 16] };
            Command::AddNode { node: new_node(number, host, role), secret }
        }),
        (few(), role(), availability).prop_map(|(number, role, availability)| {
            let spec = NodeSpec { role, availability, labels: Default::default() };
            Command::UpdateNode { id: node(number), expect: None, spec }
        }),
        (few(), 1u8..6).prop_map(|(number, host)| Command::DescribeNode {
            id: node(number),
            description: description(number, host),
            raft_incarnation: None,
        }),
        (few(), states).prop_map(|(number, state)| Command::SetNodeState {
            id: node(number),
            state,
            message: String::new(),
        }),
        (few(), any::<bool>()).prop_map(|(number, force)| Command::RemoveNode {
            id: node(number),
            force: if force { Force::Yes } else { Force::No },
        }),
        few().prop_map(|number| Command::NodeCleared { id: node(number) }),
        (role(), any::<u8>())
            .prop_map(|(role, secret)| Command::RotateToken { role, secret: [secret; 16] }),
        (any::<u8>(), role()).prop_map(|(secret, role)| Command::MintToken {
            token: ExtraToken { secret: [secret; 16], role, expires: None, uses: Some(1) },
        }),
    ];
    let networks = prop_oneof![
        3 => (few(), few(), 65_536u32..65_540, subnets()).prop_map(|(id, name, vni, subnets)| {
            let mut spec = NetworkSpec::overlay(&format!("net{name}"));
            spec.attachable = name % 3 != 0;
            if vni % 2 == 0 {
                spec.options.insert("encrypted".into(), String::new());
            }
            Command::CreateNetwork { id: network(id), spec, vni: Some(vni), subnets }
        }),
        2 => (few(), on_segment(), prop::option::weighted(0.2, 65_536u32..65_540), subnets())
            .prop_map(|(id, spec, vni, subnets)| {
                Command::CreateNetwork { id: network(id), spec, vni, subnets }
            }),
        1 => few().prop_map(|id| Command::RemoveNetwork { id: network(id) }),
    ];
    let tasks = prop_oneof![
        (0u8..12, few(), 1u32..4).prop_map(|(id, of, slot)| Command::CreateTask {
            id: task(id),
            service: service(of),
            slot: Slot::Replica(slot),
            attempt: 0,
            start_at: Time(0),
        }),
        (0u8..12, few()).prop_map(|(id, on)| Command::Assign { task: task(id), node: node(on) }),
        (0u8..12, any::<bool>()).prop_map(|(id, remove)| Command::Stop {
            task: task(id),
            desired: if remove { Desired::Remove } else { Desired::Shutdown },
        }),
        (few(), 0u8..12, task_states, any::<[bool; 2]>()).prop_map(|(on, id, state, flags)| {
            let [released, unhealthy] = flags;
            let report = TaskReport {
                task: task(id),
                state,
                message: "m".into(),
                error: String::new(),
                exit_code: None,
                pid: 1,
                released,
                unhealthy,
            };
            Command::Report { node: node(on), reports: vec![report] }
        }),
        (0u8..12).prop_map(|id| Command::Forget { task: task(id) }),
        (0u8..12).prop_map(|id| Command::Explain {
            task: task(id),
            stuck: Some(Stuck { reason: "r".into(), hint: String::new(), since: Time(1) }),
        }),
    ];
    let foreigners = prop_oneof![
        (0u8..8, few())
            .prop_map(|(id, on)| Command::ForeignReady { node: node(on), id: foreign_id(id) }),
        (0u8..8, few())
            .prop_map(|(id, on)| Command::DetachForeign { node: node(on), id: foreign_id(id) }),
    ];
    prop_oneof![
        2 => tunnels(),
        3 => foreign(),
        2 => foreigners.prop_map(Try::Command),
        2 => nodes.prop_map(Try::Command),
        2 => networks.prop_map(Try::Command),
        4 => tasks.prop_map(Try::Command),
        2 => (few(), service_spec()).prop_map(|(id, spec)| Try::CreateService(id, spec)),
        1 => (few(), service_spec(), prop::option::of(0u64..4))
            .prop_map(|(id, spec, expect)| Try::UpdateService(id, spec, expect)),
        1 => few().prop_map(|id| Try::Command(Command::RemoveService { id: service(id) })),
        4 => (0u8..12, any::<u8>(), addresses())
            .prop_map(|(id, seed, addresses)| Try::Attach(id, seed, addresses)),
    ]
}

/// The command that a try is in this state.
fn command(state: &State, what: Try) -> Command {
    match what {
        Try::Command(command) => command,
        Try::RotateKey(number) => {
            let id = node(number);
            let tunnel = state.node(id).and_then(|node| node.tunnel.clone());
            let now = tunnel.map(|tunnel| (tunnel.current.generation, tunnel.rotation));
            let (generation, from) = now.unwrap_or((1, Rotation::Idle));
            Command::RotateKey { id, generation, from }
        }
        Try::CreateService(id, spec) => {
            let vips = state.choose_vips(&spec, &Default::default()).unwrap_or_default();
            Command::CreateService { id: service(id), spec: Arc::new(spec), vips }
        }
        Try::UpdateService(id, mut spec, expect) => {
            let present = state.service(service(id));
            if let Some(present) = present {
                spec.name.clone_from(&present.spec.name);
            }
            let held = present.map(|service| service.vips.clone()).unwrap_or_default();
            let vips = state.choose_vips(&spec, &held).unwrap_or_default();
            let (id, kind) = (service(id), UpdateKind::Update);
            Command::UpdateService { id, expect, spec: Arc::new(spec), vips, kind }
        }
        Try::AttachForeign(mut foreign, addresses) => {
            foreign.addresses = match addresses {
                Addresses::FromState => state.choose_addresses(foreign.network).unwrap_or_default(),
                Addresses::These(these) => these,
            };
            Command::AttachForeign { foreign }
        }
        Try::Attach(id, seed, addresses) => {
            let networks =
                state.task(task(id)).map(|task| task.networks.to_vec()).unwrap_or_default();
            let attachments = networks.iter().enumerate().map(|(index, usage)| NewAttachment {
                id: AttachmentId::from_bytes(bytes(seed, index as u8)),
                network: usage.network,
                addresses: match &addresses {
                    Addresses::FromState => {
                        state.choose_addresses(usage.network).unwrap_or_default()
                    }
                    Addresses::These(these) => these.clone(),
                },
            });
            Command::Attach { task: task(id), attachments: attachments.collect() }
        }
    }
}

fn started() -> State {
    let mut state = State::default();
    let command = Command::CreateCluster {
        cluster: Box::new(cluster()),
        node: new_node(0, 1, Role::Manager),
    };
    let proposal = Proposal { request: None, now: Time(1), commands: vec![command] };
    state.apply(1, &proposal).into_result().unwrap();
    state
}

fn without_clock(state: &State, index: u64, now: Time) -> State {
    // A refused proposal still moves the revision and the clock: the log entry is there.
    let mut same = state.clone();
    let empty = Proposal { request: None, now, commands: Vec::new() };
    same.apply(index, &empty);
    same
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn whatever_comes_the_invariants_hold(
        tries in prop::collection::vec((tries(), 0u64..40_000), 1..120),
    ) {
        let mut state = started();
        let mut log = Vec::new();
        let mut now = Time(1);
        for (index, (what, passed)) in tries.into_iter().enumerate() {
            let index = index as u64 + 2;
            now = now + Duration::from_millis(passed);
            let command = command(&state, what);
            let proposal = Proposal { request: None, now, commands: vec![command] };
            let before = without_clock(&state, index, now);
            let outcome = state.apply(index, &proposal);
            if outcome.results.iter().all(Result::is_err) {
                prop_assert_eq!(&state, &before, "a refusal changed something");
            }
            prop_assert_eq!(state.check(), vec![], "after {:?}", proposal);
            log.push((index, proposal));
        }
        let mut replayed = started();
        for (index, proposal) in &log {
            replayed.apply(*index, proposal);
        }
        prop_assert_eq!(&replayed, &state, "a replay differs");
        let bytes = rmp_serde::to_vec_named(&state).unwrap();
        let restored: State = rmp_serde::from_slice(&bytes).unwrap();
        prop_assert_eq!(&restored, &state, "a snapshot differs");
    }

    #[test]
    fn a_worker_that_takes_in_changes_has_what_one_that_gets_all_has(
        tries in prop::collection::vec(tries(), 1..80),
    ) {
        let mut state = started();
        let mut held = state.assignments(node(0));
        for (index, what) in tries.into_iter().enumerate() {
            let command = command(&state, what);
            let proposal = Proposal { request: None, now: Time(1), commands: vec![command] };
            state.apply(index as u64 + 2, &proposal);
            let next = state.assignments(node(0));
            let changes = held.changes_to(&next);
            held.take(changes, next.revision);
            prop_assert_eq!(&held, &next);
        }
    }
}

#[test]
fn a_retry_gets_the_first_result_and_changes_nothing_again() {
    let mut state = started();
    let request = RequestId::new("0123456789abcdef").map(Named::from);
    let command = Command::RotateToken { role: Role::Worker, secret: [7; 16] };
    let proposal = Proposal { request, now: Time(2), commands: vec![command] };
    let first = state.apply(2, &proposal);
    let version = state.cluster().unwrap().meta.version;
    let again = state.apply(3, &proposal);
    assert_eq!(first, again);
    assert_eq!(state.cluster().unwrap().meta.version, version);
    assert_eq!(state.recorded(&proposal.request.as_ref().unwrap().id), Some(&first));
}

#[test]
fn the_name_of_a_write_is_good_for_that_write_only() {
    let mut state = started();
    let id = RequestId::new("0123456789abcdef").unwrap();
    let named = |digest| Some(Named { id: id.clone(), digest });
    let rotate = |request, n: u8| Proposal {
        request,
        now: Time(2),
        commands: vec![Command::RotateToken { role: Role::Worker, secret: [n; 16] }],
    };
    let first = state.apply(2, &rotate(named(Some(Digest(1))), 1));
    let again = state.apply(3, &rotate(named(Some(Digest(1))), 1));
    assert_eq!(first, again);
    let other = state.apply(4, &rotate(named(Some(Digest(2))), 2));
    assert_eq!(other.results, [Err(Rejected::OtherRequest)]);
    assert_eq!(state.cluster().unwrap().tokens.worker, [1; 16]);
    // Entries and snapshots of before there were digests.
    assert_eq!(state.apply(5, &rotate(named(None), 3)), first);
    let old: Named = rmp_serde::from_slice(&rmp_serde::to_vec_named(&id).unwrap()).unwrap();
    assert_eq!(old, Named::from(id.clone()));
    let new = named(Some(Digest(u64::MAX))).unwrap();
    let read: Named = rmp_serde::from_slice(&rmp_serde::to_vec_named(&new).unwrap()).unwrap();
    assert_eq!(read, new);
}

#[test]
fn how_far_a_former_change_came_says_nothing_of_the_next() {
    let mut state = started();
    let id = service(0);
    let spec = |words: &str| {
        let container = ContainerSpec::new("rootfs:/srv", &["sh", words]);
        Arc::new(ServiceSpec::replicated("web", 1, container))
    };
    let mut apply = |index, command| {
        let commands = vec![command];
        let proposal = Proposal { request: None, now: Time(index), commands };
        let result = state.apply(index, &proposal).into_result();
        (result, state.service(id).cloned().unwrap())
    };
    let update = |words| Command::UpdateService {
        id,
        expect: None,
        spec: spec(words),
        vips: Default::default(),
        kind: UpdateKind::Update,
    };
    apply(2, Command::CreateService { id, spec: spec("1"), vips: Default::default() }).0.unwrap();
    let first = apply(3, update("2")).1;
    // The leader sees the first change completed, and its word comes after the second.
    let second = apply(4, update("3")).1;
    let status = UpdateStatus {
        state: UpdateState::Completed,
        completed: Some(Time(4)),
        ..first.update.clone().unwrap()
    };
    let expect = Some(first.spec_version);
    let (late, now) = apply(5, Command::SetUpdateStatus { id, expect, status: status.clone() });
    assert!(matches!(late, Err(Rejected::Stale { .. })), "{late:?}");
    assert_eq!(now.update, second.update);
    let expect = Some(second.spec_version);
    let (timely, now) = apply(6, Command::SetUpdateStatus { id, expect, status: status.clone() });
    timely.unwrap();
    assert_eq!(now.update, Some(status));
}

#[test]
fn many_named_writes_are_kept_in_bounded_memory() {
    let mut state = started();
    for number in 0..10_000u64 {
        let proposal = Proposal {
            request: RequestId::new(&format!("request-{number:08}")).map(Named::from),
            now: Time(number * 1_000),
            commands: vec![Command::RotateToken { role: Role::Worker, secret: [1; 16] }],
        };
        state.apply(number + 2, &proposal);
    }
    let bytes = rmp_serde::to_vec_named(&state).unwrap();
    assert!(bytes.len() < 1_000_000, "{} bytes", bytes.len());
    let newest = RequestId::new("request-00009999").unwrap();
    let oldest = RequestId::new("request-00000000").unwrap();
    assert!(state.recorded(&newest).is_some());
    assert!(state.recorded(&oldest).is_none());
}

#[test]
fn a_released_address_rests_for_a_minute_and_comes_last() {
    let mut state = started();
    let mut index = 1;
    let mut apply = |state: &mut State, now: u64, command: Command| {
        index += 1;
        let proposal = Proposal { request: None, now: Time(now), commands: vec![command] };
        state.apply(index, &proposal).into_result().unwrap();
    };
    let cidr: ipnet::IpNet = "10.0.0.0/29".parse().unwrap();
    let subnet = Subnet {
        cidr,
        gateway: "10.0.0.1".parse().unwrap(),
        range: cidr,
        auxiliary: Default::default(),
        cursor: None,
        resting: Default::default(),
    };
    let spec = NetworkSpec::overlay("net");
    let made =
        Command::CreateNetwork { id: network(1), spec, vni: Some(65_536), subnets: vec![subnet] };
    apply(&mut state, 1_000, made);
    let spec = |name: &str| {
        let container = ContainerSpec::new("rootfs:/srv", &["sh"]);
        let mut spec = ServiceSpec::replicated(name, 0, container);
        spec.networks = vec![NetworkUse { network: network(1), aliases: Vec::new() }];
        spec
    };
    let mut given = Vec::new();
    for (number, name) in ["a", "b", "c"].into_iter().enumerate() {
        let spec = spec(name);
        let vips = state.choose_vips(&spec, &Default::default()).unwrap();
        given.push(vips[&network(1)][0].to_string());
        let id = service(number as u8);
        apply(&mut state, 2_000, Command::CreateService { id, spec: Arc::new(spec), vips });
    }
    assert_eq!(given, ["10.0.0.2", "10.0.0.3", "10.0.0.4"]);
    apply(&mut state, 3_000, Command::RemoveService { id: service(0) });
    let next = |state: &State| state.choose_addresses(network(1)).unwrap()[0].to_string();
    assert_eq!(next(&state), "10.0.0.5", "10.0.0.2 rests");
    apply(&mut state, 63_001, Command::RotateToken { role: Role::Worker, secret: [3; 16] });
    assert_eq!(next(&state), "10.0.0.5", "and comes after the fresh ones when it has rested");
}

#[test]
fn a_demotion_leaves_managers_that_can_agree() {
    let mut state = started();
    let mut index = 1;
    let mut apply = |command| {
        index += 1;
        let proposal = Proposal { request: None, now: Time(index), commands: vec![command] };
        state.apply(index, &proposal).into_result()
    };
    for number in [1, 2] {
        let host = number + 1;
        let command =
            Command::AddNode { node: new_node(number, host, Role::Manager), secret: [2; 16] };
        apply(command).unwrap();
    }
    let mut set = |number, state| {
        let message = String::new();
        apply(Command::SetNodeState { id: node(number), state, message }).map(drop)
    };
    set(0, NodeState::Ready).unwrap();
    set(1, NodeState::Ready).unwrap();
    set(2, NodeState::Down).unwrap();
    let demote = |number| Command::UpdateNode {
        id: node(number),
        expect: None,
        spec: NodeSpec { role: Role::Worker, ..NodeSpec::default() },
    };
    let refused = apply(demote(1)).unwrap_err().to_string();
    assert!(refused.contains("n2 is not") && refused.contains("only 1"), "{refused}");
    apply(demote(2)).unwrap();
    apply(demote(1)).unwrap();
}

#[test]
fn a_machine_that_left_may_join_again() {
    let mut state = started();
    let mut apply = |index: u64, command: Command| {
        let proposal = Proposal { request: None, now: Time(index), commands: vec![command] };
        let result = state.apply(index, &proposal).into_result();
        (result, state.nodes().map(|node| node.id).collect::<Vec<_>>(), state.check())
    };
    let join =
        |number| Command::AddNode { node: new_node(number, 2, Role::Worker), secret: [1; 16] };
    assert!(apply(2, join(1)).0.is_ok());
    let (refused, _, _) = apply(3, join(2));
    assert!(refused.unwrap_err().to_string().contains("has it"), "the address is in use");
    let (id, message) = (node(1), String::new());
    assert!(apply(4, Command::SetNodeState { id, state: NodeState::Down, message }).0.is_ok());
    let (joined, nodes, violations) = apply(5, join(2));
    assert!(joined.is_ok());
    assert_eq!(nodes, [node(0), node(2)], "its former self is out");
    assert_eq!(violations, vec![]);
}

#[test]
fn a_network_on_a_segment_has_no_vni_and_tells_nodes_its_device() {
    let mut state = started();
    let mut index = 1;
    let mut apply = |state: &mut State, command: Command| {
        index += 1;
        let proposal = Proposal { request: None, now: Time(index), commands: vec![command] };
        state.apply(index, &proposal).into_result().map(drop)
    };
    let cidr: ipnet::IpNet = "10.99.0.0/24".parse().unwrap();
    let subnet = Subnet {
        cidr,
        gateway: "10.99.0.254".parse().unwrap(),
        range: "10.99.0.128/26".parse().unwrap(),
        auxiliary: Default::default(),
        cursor: None,
        resting: Default::default(),
    };
    let mut spec = NetworkSpec::new("lan", Driver::Macvlan);
    (spec.scope, spec.attachable) = (Some(Scope::Cluster), true);
    spec.options.insert("parent".into(), "eth0".into());
    spec.options.insert("macvlan_mode".into(), "private".into());
    spec.pools.push(PoolSpec::of(cidr));
    let create = |spec: &NetworkSpec, vni| {
        let (spec, subnets) = (spec.clone(), vec![subnet.clone()]);
        Command::CreateNetwork { id: network(1), spec, vni, subnets }
    };
    let refused = apply(&mut state, create(&spec, Some(65_536))).unwrap_err().to_string();
    assert!(refused.contains("is no overlay"), "{refused}");
    let bridge = NetworkSpec { scope: None, ..NetworkSpec::new("lan", Driver::Bridge) };
    let refused = apply(&mut state, create(&bridge, None)).unwrap_err().to_string();
    assert!(refused.contains("driver bridge is of scope local"), "{refused}");
    apply(&mut state, create(&spec, None)).unwrap();
    let foreign = NewForeign {
        id: foreign_id(1),
        network: network(1),
        node: node(0),
        name: "a".into(),
        aliases: vec![],
        service: None,
        addresses: state.choose_addresses(network(1)).unwrap(),
    };
    assert_eq!(foreign.addresses, ["10.99.0.128".parse::<IpAddr>().unwrap()]);
    apply(&mut state, Command::AttachForeign { foreign }).unwrap();
    let items = state.assignments(node(0)).items;
    let Item::Network(item) = &items[&Key::Network(network(1))] else { panic!("{items:?}") };
    let segment = Segment::Macvlan { parent: "eth0".into(), mode: MacvlanMode::Private };
    assert_eq!((item.vni, &item.segment), (None, &Some(segment)));
    assert_eq!(state.check(), vec![]);
}

#[test]
fn a_network_of_before_scopes_could_be_given_has_that_of_its_driver() {
    for (driver, scope) in [(Driver::Overlay, Scope::Cluster), (Driver::Macvlan, Scope::Local)] {
        let mut old = serde_json::to_value(NetworkSpec::new("n", driver)).unwrap();
        assert!(old.as_object_mut().unwrap().remove("scope").is_some());
        let read: NetworkSpec = serde_json::from_value(old).unwrap();
        assert_eq!(read.scope(), scope);
    }
}
