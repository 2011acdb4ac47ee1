//! Scenes: a small cluster whose workers do as they are told, and what the controllers make of it.

use std::{sync::Arc, time::Duration};

use weft_model::{
    Cluster, ClusterId, Command, Desired, NetworkId, Node, NodeId, Proposal, ServiceId, State,
    Task, TaskState, Time,
    command::{Force, NewNode, TaskReport, UpdateKind},
    object::{ClusterSpec, Meta, NodeDescription, NodeState, Slot, Subnet, Tokens, UpdateState},
    spec::{
        Availability, ContainerSpec, Mode, NetworkSpec, NetworkUse, NodeSpec, RestartCondition,
        Role, ServiceSpec, UpdateOrder,
    },
};

use super::step;
use crate::ids::IdSource;

struct Counter(u64);

impl IdSource for Counter {
    fn bytes(&mut self) -> [u8; 32] {
        self.0 += 1;
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&(self.0 << 1).to_be_bytes());
        bytes
    }
}

struct World {
    state: State,
    now: Time,
    index: u64,
    ids: Counter,
    wake_at: Option<Time>,
}

const NET: NetworkId = NetworkId::from_bytes([7; 32]);
const WEB: ServiceId = ServiceId::from_bytes([9; 32]);

fn node_id(number: u8) -> NodeId {
    NodeId::from_bytes([number; 32])
}

impl World {
    /// A cluster of nodes 1..=`nodes`, all ready, with one network of this subnet.
    fn new(nodes: u8, subnet: &str) -> Self {
        let mut world = Self {
            state: State::default(),
            now: Time(1_000_000),
            index: 0,
            ids: Counter(0),
            wake_at: None,
        };
        let cluster = Cluster {
            id: ClusterId::from_bytes([1; 32]),
            meta: Meta::new(world.now),
            spec: ClusterSpec::default(),
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
        }
        let cidr: ipnet::IpNet = subnet.parse().unwrap();
        let gateway = cidr.hosts().next().unwrap();
        let subnet = Subnet {
            cidr,
            gateway,
            range: cidr,
            auxiliary: Default::default(),
            cursor: None,
            resting: Default::default(),
        };
        let spec = NetworkSpec::overlay("net");
        world.apply(Command::CreateNetwork {
            id: NET,
            spec,
            vni: Some(65_536),
            subnets: vec![subnet],
        });
        world
    }

    fn apply(&mut self, command: Command) {
        self.index += 1;
        let proposal = Proposal { request: None, now: self.now, commands: vec![command] };
        let outcome = self.state.apply(self.index, &proposal);
        outcome.into_result().unwrap();
        assert_eq!(self.state.check(), vec![]);
    }

    fn set_node(&mut self, number: u8, state: NodeState) {
        let message = String::new();
        self.apply(Command::SetNodeState { id: node_id(number), state, message });
    }

    fn web(&mut self, replicas: u32, change: impl FnOnce(&mut ServiceSpec)) {
        let mut spec = web_spec(replicas);
        change(&mut spec);
        let vips = self.state.choose_vips(&spec, &Default::default()).unwrap();
        self.apply(Command::CreateService { id: WEB, spec: Arc::new(spec), vips });
    }

    fn update(&mut self, change: impl FnOnce(&mut ServiceSpec)) {
        let service = self.state.service(WEB).unwrap().clone();
        let mut spec = ServiceSpec::clone(&service.spec);
        change(&mut spec);
        let vips = self.state.choose_vips(&spec, &service.vips).unwrap();
        let (id, kind, expect) = (WEB, UpdateKind::Update, Some(service.meta.version));
        self.apply(Command::UpdateService { id, expect, spec: Arc::new(spec), vips, kind });
    }

    /// Lets the controllers decide until they are content; what they decide must be accepted.
    fn think(&mut self) {
        for _ in 0..10 {
            let step = step(&self.state, self.now, &mut self.ids);
            self.wake_at = step.wake_at;
            if step.commands.is_empty() {
                return;
            }
            step.commands.into_iter().for_each(|command| self.apply(command));
        }
        panic!("the controllers do not come to rest");
    }

    /// The workers of nodes in touch do as they are told.
    fn work(&mut self) {
        let tasks: Vec<_> = self.state.tasks().cloned().collect();
        for task in tasks {
            let Some(node) = task.node.filter(|node| {
                self.state.node(*node).is_some_and(|node| node.state == NodeState::Ready)
            }) else {
                continue;
            };
            let next = match task.desired {
                Desired::Running if task.status.state < TaskState::Running => TaskState::Running,
                Desired::Running => continue,
                Desired::Shutdown | Desired::Remove if !task.released => TaskState::Shutdown,
                Desired::Shutdown | Desired::Remove => continue,
            };
            self.report(node, &task, next);
        }
    }

    fn report(&mut self, node: NodeId, task: &Task, state: TaskState) {
        let report = TaskReport {
            task: task.id,
            state,
            message: String::new(),
            error: String::new(),
            exit_code: state.is_final().then_some(i32::from(state == TaskState::Failed)),
            pid: 0,
            released: state.is_final(),
            unhealthy: false,
        };
        self.apply(Command::Report { node, reports: vec![report] });
    }

    /// Thinks and works until nothing changes.
    fn settle(&mut self) {
        for _ in 0..50 {
            let before = self.state.clone();
            self.think();
            self.work();
            self.now = self.now + Duration::from_millis(10);
            if before.tasks().eq(self.state.tasks()) && before.services().eq(self.state.services())
            {
                return;
            }
        }
        panic!("the cluster does not settle");
    }

    fn live(&self) -> Vec<Arc<Task>> {
        let mut live: Vec<_> = self.state.tasks().filter(|task| task.is_live()).cloned().collect();
        live.sort_by_key(|task| (task.slot, task.id));
        live
    }

    fn running_on(&self, number: u8) -> usize {
        self.live().iter().filter(|task| task.node == Some(node_id(number))).count()
    }
}

fn new_node(number: u8, role: Role) -> NewNode {
    NewNode {
        id: node_id(number),
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

fn web_spec(replicas: u32) -> ServiceSpec {
    let mut spec =
        ServiceSpec::replicated("web", replicas, ContainerSpec::new("rootfs:/x", &["sh"]));
    spec.networks.push(NetworkUse { network: NET, aliases: Vec::new() });
    spec
}

#[test]
fn replicas_are_made_in_one_step_and_spread() {
    let mut world = World::new(3, "10.0.0.0/24");
    world.web(30, |_| {});
    let step = step(&world.state, world.now, &mut world.ids);
    let assigned = step.commands.iter().filter(|c| matches!(c, Command::Assign { .. })).count();
    assert_eq!(assigned, 30, "one entry of the log holds all that 30 tasks need");
    world.settle();
    assert_eq!([1, 2, 3].map(|number| world.running_on(number)), [10, 10, 10]);
    assert!(world.live().iter().all(|task| task.status.state == TaskState::Running));
}

#[test]
fn a_slash_29_carries_four_tasks_and_a_vip_and_the_fifth_says_why_not() {
    let mut world = World::new(2, "10.0.0.0/29");
    world.web(5, |_| {});
    world.settle();
    let live = world.live();
    let running = live.iter().filter(|task| task.status.state == TaskState::Running).count();
    assert_eq!(running, 4);
    let stuck = live.iter().find_map(|task| task.stuck.clone()).unwrap();
    assert_eq!(
        stuck.reason,
        "network net is exhausted: 10.0.0.0/29 has 5 addresses: 4 held by tasks, 1 by VIPs"
    );
    assert!(stuck.hint.contains("dnsrr"));
    world.update(|spec| spec.mode = Mode::Replicated { replicas: 4 });
    world.settle();
    assert_eq!(world.live().len(), 4);
    assert!(world.live().iter().all(|task| task.stuck.is_none()));
}

#[test]
fn scaling_down_removes_the_highest_slots() {
    let mut world = World::new(2, "10.0.0.0/24");
    world.web(5, |_| {});
    world.settle();
    world.update(|spec| spec.mode = Mode::Replicated { replicas: 2 });
    world.settle();
    let slots: Vec<_> = world.live().iter().map(|task| task.slot).collect();
    assert_eq!(slots, [Slot::Replica(1), Slot::Replica(2)]);
    assert_eq!(world.state.tasks().count(), 2, "what was removed is forgotten");
}

#[test]
fn a_task_that_ends_is_restarted_with_back_off() {
    let mut world = World::new(1, "10.0.0.0/24");
    world.web(1, |spec| spec.restart.delay = Duration::from_secs(1));
    world.settle();
    for (attempt, delay) in [(1, 1), (2, 2), (3, 4)] {
        let task = world.live().remove(0);
        world.report(node_id(1), &task, TaskState::Failed);
        let failed_at = world.now;
        world.think();
        let next = world.live().remove(0);
        assert_eq!((next.attempt, next.node), (attempt, None));
        assert_eq!(world.wake_at, Some(failed_at + Duration::from_secs(delay)));
        world.now = failed_at + Duration::from_secs(delay);
        world.settle();
        assert_eq!(world.live()[0].status.state, TaskState::Running);
    }
    assert!(world.state.tasks_of(WEB).count() <= 5, "the history is bounded");
}

/// A health check may take minutes to give a task up: that is no life of minutes.
#[test]
fn only_a_task_that_ran_for_long_begins_its_count_of_failures_anew() {
    let mut world = World::new(1, "10.0.0.0/24");
    world.web(1, |_| {});
    let minutes = Duration::from_secs(120);
    for failures in 1..=3 {
        world.think();
        let task = world.live().remove(0);
        world.report(node_id(1), &task, TaskState::Starting);
        world.now = world.now + minutes;
        world.report(node_id(1), &task, TaskState::Failed);
        world.think();
        let next = world.live().remove(0);
        assert_eq!(next.attempt, failures);
        world.now = next.start_at;
    }
    world.settle();
    world.now = world.now + minutes;
    let task = world.live().remove(0);
    world.report(node_id(1), &task, TaskState::Failed);
    world.think();
    assert_eq!(world.live().remove(0).attempt, 1);
}

#[test]
fn a_policy_without_restarts_leaves_the_slot_as_it_ended() {
    let mut world = World::new(1, "10.0.0.0/24");
    world.web(1, |spec| spec.restart.condition = RestartCondition::OnFailure);
    world.settle();
    let task = world.live().remove(0);
    world.report(node_id(1), &task, TaskState::Complete);
    world.settle();
    assert_eq!((world.live().len(), world.state.tasks_of(WEB).count()), (0, 1));
}

#[test]
fn attempts_are_counted_to_the_limit() {
    let mut world = World::new(1, "10.0.0.0/24");
    world.web(1, |spec| {
        spec.restart.delay = Duration::ZERO;
        spec.restart.max_attempts = 2;
    });
    world.settle();
    for _ in 0..3 {
        let task = world.live().remove(0);
        world.report(node_id(1), &task, TaskState::Failed);
        world.settle();
    }
    assert_eq!(world.live().len(), 0, "two restarts after the first failure, and no more");
}

#[test]
fn an_unhealthy_task_is_not_found_and_is_replaced_only_when_it_has_ended() {
    let mut world = World::new(1, "10.0.0.0/24");
    world.web(1, |spec| spec.restart.delay = Duration::ZERO);
    world.settle();
    let task = world.live().remove(0);
    let visible = |world: &World| world.state.is_visible(weft_model::object::Holder::Task(task.id));
    assert!(visible(&world));
    let report = TaskReport {
        task: task.id,
        state: TaskState::Running,
        message: String::new(),
        error: String::new(),
        exit_code: None,
        pid: 1,
        released: false,
        unhealthy: true,
    };
    world.apply(Command::Report { node: node_id(1), reports: vec![report] });
    world.settle();
    assert!(!visible(&world), "nobody finds it");
    assert_eq!(world.live(), [world.state.task(task.id).unwrap().clone()], "it still runs");
    world.report(node_id(1), &task, TaskState::Failed);
    world.settle();
    let live = world.live();
    assert!(live.len() == 1 && live[0].id != task.id, "{live:?}");
}

#[test]
fn a_node_that_returns_keeps_its_tasks_and_addresses() {
    let mut world = World::new(3, "10.0.0.0/24");
    world.web(3, |_| {});
    world.settle();
    let before = world.live();
    world.set_node(2, NodeState::Silent);
    world.settle();
    assert_eq!(world.live().len(), 3, "a silent node's tasks are hidden, not replaced");
    assert!(before.iter().any(|task| {
        task.node == Some(node_id(2))
            && !world.state.is_visible(weft_model::object::Holder::Task(task.id))
    }));
    world.set_node(2, NodeState::Down);
    world.settle();
    assert_eq!(world.live().len(), 4, "the replacement runs, the original is not given up");
    world.set_node(2, NodeState::Ready);
    world.settle();
    let ids = |tasks: &[Arc<Task>]| tasks.iter().map(|task| task.id).collect::<Vec<_>>();
    assert_eq!(ids(&world.live()), ids(&before));
}

#[test]
fn a_node_that_returns_after_the_spec_changed_gives_its_tasks_up() {
    let mut world = World::new(2, "10.0.0.0/24");
    world.web(2, |_| {});
    world.settle();
    world.set_node(2, NodeState::Down);
    world.settle();
    world.update(|spec| spec.container.env.push("A=1".into()));
    world.settle();
    world.set_node(2, NodeState::Ready);
    world.settle();
    let live = world.live();
    assert_eq!(live.len(), 2);
    assert!(live.iter().all(|task| task.container.env == ["A=1"]));
}

#[test]
fn a_replacement_waits_for_addresses_that_a_silent_node_holds() {
    let mut world = World::new(2, "10.0.0.0/29");
    world.web(4, |_| {});
    world.settle();
    world.set_node(2, NodeState::Down);
    world.settle();
    let stuck: Vec<_> = world.live().iter().filter_map(|task| task.stuck.clone()).collect();
    assert_eq!(stuck.len(), 2);
    assert!(stuck[0].reason.contains("2 of nodes that are out of touch"), "{}", stuck[0].reason);
    world.apply(Command::RemoveNode { id: node_id(2), force: Force::Yes });
    world.settle();
    assert_eq!(world.running_on(1), 4, "removal by force frees them");
}

#[test]
fn a_drained_node_empties_and_a_full_cluster_says_why() {
    let mut world = World::new(2, "10.0.0.0/24");
    world.web(4, |_| {});
    world.settle();
    for number in [2, 1] {
        let node: &Node = world.state.node(node_id(number)).unwrap();
        let spec = NodeSpec { availability: Availability::Drain, ..node.spec.clone() };
        world.apply(Command::UpdateNode { id: node_id(number), expect: None, spec });
        world.settle();
        assert_eq!(world.running_on(number), 0);
    }
    let stuck = world.live()[0].stuck.clone().unwrap();
    assert_eq!(stuck.reason, "no suitable node (2 nodes drained)");
    assert_eq!(stuck.hint, "weft node update --availability active NODE");
}

#[test]
fn constraints_are_honoured_and_explained() {
    let mut world = World::new(2, "10.0.0.0/24");
    let role = "node.role==worker".parse().unwrap();
    world.web(2, |spec| spec.placement.constraints = vec![role]);
    world.settle();
    assert_eq!(world.running_on(2), 2);
    let label = "node.labels.disk==ssd".parse().unwrap();
    world.update(|spec| spec.placement.constraints = vec![label]);
    world.settle();
    let stuck = world.live().iter().find_map(|task| task.stuck.clone()).unwrap();
    let reason =
        "no suitable node (scheduling constraint node.labels.disk==ssd not satisfied on 2 nodes)";
    assert_eq!(stuck.reason, reason);
}

#[test]
fn a_global_service_has_one_task_on_each_node() {
    let mut world = World::new(3, "10.0.0.0/24");
    world.web(0, |spec| spec.mode = Mode::Global);
    world.settle();
    assert_eq!([1, 2, 3].map(|number| world.running_on(number)), [1, 1, 1]);
    let node: &Node = world.state.node(node_id(3)).unwrap();
    let spec = NodeSpec { availability: Availability::Drain, ..node.spec.clone() };
    world.apply(Command::UpdateNode { id: node_id(3), expect: None, spec });
    world.settle();
    assert_eq!([1, 2, 3].map(|number| world.running_on(number)), [1, 1, 0]);
}

#[test]
fn an_update_replaces_one_task_after_the_other() {
    for order in [UpdateOrder::StopFirst, UpdateOrder::StartFirst] {
        let mut world = World::new(2, "10.0.0.0/24");
        world.web(3, |spec| spec.update.order = order);
        world.settle();
        let mut least = 3;
        // The second update finds the tasks of two former specs.
        for value in ["A=1", "A=2"] {
            world.update(|spec| spec.container.env = vec![value.into()]);
            for _ in 0..30 {
                world.think();
                let running =
                    world.live().iter().filter(|t| t.status.state == TaskState::Running).count();
                least = least.min(running);
                world.work();
                world.now = world.now + Duration::from_millis(10);
            }
            let status = world.state.service(WEB).unwrap().update.clone().unwrap();
            assert_eq!(status.state, UpdateState::Completed, "{order:?} {value}");
            assert!(world.live().iter().all(|task| task.container.env == [value]));
            assert_eq!(world.live().len(), 3);
        }
        let allowed = match order {
            UpdateOrder::StopFirst => 2,
            UpdateOrder::StartFirst => 3,
        };
        assert_eq!(least, allowed, "{order:?}");
    }
}

/// A node returns with a task that was replaced, when the next one waits already for one of the network's
/// five addresses.
#[test]
fn an_update_that_starts_first_finds_room_beside_a_slot_with_two_tasks() {
    let mut world = World::new(4, "10.0.0.0/29");
    world.web(3, |spec| spec.update.order = UpdateOrder::StartFirst);
    world.settle();
    let away = world.live()[0].node.unwrap();
    let set = |world: &mut World, state| {
        world.apply(Command::SetNodeState { id: away, state, message: String::new() });
    };
    set(&mut world, NodeState::Down);
    world.settle();
    world.update(|spec| spec.container.env = vec!["A=1".into()]);
    world.think();
    set(&mut world, NodeState::Ready);
    for _ in 0..30 {
        world.think();
        world.work();
        world.now = world.now + Duration::from_millis(10);
    }
    let update = world.state.service(WEB).unwrap().update.clone().unwrap();
    assert_eq!(update.state, UpdateState::Completed);
    assert_eq!(world.live().len(), 3);
}

#[test]
fn an_update_whose_task_fails_is_paused() {
    let mut world = World::new(1, "10.0.0.0/24");
    world.web(3, |_| {});
    world.settle();
    world.update(|spec| spec.container.args = vec!["false".into()]);
    for _ in 0..5 {
        world.think();
        let starting: Vec<_> = world.live().into_iter().filter(|t| t.spec_version > 1).collect();
        for task in starting.iter().filter(|t| t.status.state == TaskState::Assigned) {
            world.report(node_id(1), task, TaskState::Failed);
        }
        world.work();
        world.now = world.now + Duration::from_millis(10);
    }
    let status = world.state.service(WEB).unwrap().update.clone().unwrap();
    assert_eq!(status.state, UpdateState::Paused);
    let old = world.live().iter().filter(|task| task.spec_version == 1).count();
    assert_eq!(old, 2, "the others are left alone");
}

#[test]
fn a_removed_service_leaves_nothing() {
    let mut world = World::new(2, "10.0.0.0/24");
    world.web(4, |_| {});
    world.settle();
    world.apply(Command::RemoveService { id: WEB });
    assert!(world.state.network_users(NET).len() == 4, "until the tasks have ended");
    world.settle();
    assert_eq!((world.state.tasks().count(), world.state.attachments().count()), (0, 0));
    world.apply(Command::RemoveNetwork { id: NET });
}
