//! What must hold once nothing more is done to the cluster, and what must hold in its kernels always.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use weft_model::{
    State, TaskState,
    object::Holder,
    spec::{Mode, Role},
};
use weft_overlay::{Completeness, Driver, Object, Place, Scope};
use weft_worker::{
    attach::{Phase, WayOut},
    container,
    desired::{LocalSandbox, LocalSandboxes, Sorted},
    plumbing::Source,
    tasks,
    tunnel::{Choice, End, KeyBook},
};

use super::{book::Entries, daemon::host_name, host::Host};

/// Addresses of a network that more than one sandbox has.
pub(super) fn doubled(hosts: &[Host]) -> Vec<String> {
    let (mut holders, mut found) = (BTreeMap::new(), Vec::new());
    for host in hosts {
        let inner = host.site.machine.lock();
        for (place, objects) in &inner.kernel.plane.places {
            let Place::Sandbox(key) = place else { continue };
            for object in objects.values() {
                let Object::Address(name, net) = object else { continue };
                let link = objects.values().find_map(|object| match object {
                    Object::Link(other, link) if other == name => Some(link),
                    _ => None,
                });
                // The alias of a link names its network.
                let Some(network) = link.map(|link| link.alias.clone()) else { continue };
                let holder = format!("{key} on n{}", host.id());
                if let Some(other) = holders.insert((network, net.addr()), holder.clone()) {
                    found.push(format!("{} is held by {other} and {holder}", net.addr()));
                }
            }
        }
    }
    found
}

/// Tasks whose containers run on more than one machine.
pub(super) fn cloned(hosts: &[Host]) -> Vec<String> {
    let (mut places, mut found) = (BTreeMap::new(), Vec::new());
    for host in hosts {
        for (id, container) in &host.site.machine.lock().containers {
            if container.phase == container::Phase::Running
                && let Some(other) = places.insert(id.clone(), host.id())
            {
                found.push(format!("{id} runs on n{other} and on n{}", host.id()));
            }
        }
    }
    found
}

/// Nodes that are not what was asked for, as far as the book and the machines say.
pub(super) fn nodes(hosts: &[Host], state: &State, entries: &Entries) -> Vec<String> {
    let mut found = Vec::new();
    for host in hosts {
        let (name, entry) = (host_name(host.id()), entries.nodes[&host.id()]);
        let Some(node) = state.node(entry.node).filter(|node| host.site.home.is(node.id)) else {
            found.push(format!("{name} is another node than it was"));
            continue;
        };
        let (role, availability) = (node.spec.role, node.spec.availability);
        if (role, availability) != (entry.role, entry.availability) {
            found.push(format!("{name} is {role:?} and {availability:?}, not as {entry:?}"));
        }
        let manages = host.slots.manager.load().is_some();
        if manages != (role == Role::Manager) {
            found.push(format!("{name} is a {role:?}; manages: {manages}"));
        }
    }
    if state.nodes().count() != hosts.len() {
        found.push(format!("{} nodes on {} machines", state.nodes().count(), hosts.len()));
    }
    found
}

/// What was attached and is not, and what is attached and should not be.
pub(super) fn attachments(hosts: &[Host], state: &State, entries: &Entries) -> Vec<String> {
    let mut found = Vec::new();
    let mut wanted = BTreeSet::new();
    for (name, entry) in &entries.attachments {
        let host = hosts.iter().find(|host| host.id() == entry.host);
        let there =
            host.is_some_and(|host| host.site.machine.lock().namespaces.contains_key(&entry.path));
        // A namespace that has ended takes its attachment with it.
        if there {
            wanted.insert(name.clone());
        }
    }
    let present: BTreeSet<_> = state.foreigners().map(|foreign| foreign.name.clone()).collect();
    for name in wanted.symmetric_difference(&present) {
        let what = if wanted.contains(name) { "is lost" } else { "was never made or is gone" };
        found.push(format!("attachment {name} {what}"));
    }
    found
}

/// Services that are not what their users asked for.
pub(super) fn services(state: &State) -> Vec<String> {
    let mut found = Vec::new();
    for service in state.services() {
        let Mode::Replicated { replicas } = service.spec.mode else { continue };
        let name = &service.spec.name;
        let live: Vec<_> = state.tasks_of(service.id).filter(|task| task.is_live()).collect();
        let running = live.iter().filter(|task| task.status.state == TaskState::Running).count();
        let old = live.iter().filter(|task| task.spec_version != service.spec_version).count();
        if live.len() != replicas as usize || running != live.len() || old > 0 {
            let live = live.len();
            let change = service.update.as_ref();
            let change = change.map_or("no change".to_owned(), |it| format!("{it:?}"));
            found.push(format!(
                "{name}: {replicas} wanted, {live} live, {running} run, {old} old; {change}"
            ));
        }
    }
    let known: BTreeSet<_> = state.services().map(|service| service.id).collect();
    for task in state.tasks().filter(|task| !known.contains(&task.service)) {
        found.push(format!("{} has outlived its service: {}", task.name(), task.status.state));
    }
    found
}

/// What is not as wanted on one host.
pub(super) fn worker(host: &Host, state: &State) -> Vec<String> {
    let name = host_name(host.id());
    let mut found = differences(host, state);
    found.iter_mut().for_each(|what| *what = format!("{name}: {what}"));
    found
}

/// A machine's end of the encrypted links, with the keys that are on its disk.
fn end(host: &Host, state: &State) -> Option<Arc<End>> {
    let tunnel = state.node(host.site.home.member()?.node)?.tunnel.clone()?;
    let (engine, reason, lanes) = (tunnel.engine, tunnel.reason, tunnel.lanes);
    let keys = KeyBook::open(host.site.dir.path(), Choice { engine, reason, lanes }).ok()?;
    Some(keys.end().borrow().clone())
}

fn differences(host: &Host, state: &State) -> Vec<String> {
    let Some(worker) = host.slots.worker.load_full() else {
        return vec!["no worker".to_owned()];
    };
    let Some(node) = host.site.home.member().map(|member| member.node) else {
        return vec!["not a member".to_owned()];
    };
    if !state.node(node).is_some_and(|node| node.in_touch()) {
        return vec!["not in touch".to_owned()];
    }
    let wanted = state.assignments(node);
    let (source, assigned) = worker.assigned().borrow().clone();
    if source != Source::Managers || assigned.items != wanted.items {
        return vec!["other assignments than the state's".to_owned()];
    }
    let mut found = Vec::new();
    let sorted = Sorted::new(&wanted);
    if format!("{:?}", worker.names().zones())
        != format!("{:?}", sorted.zones(Vec::new(), Default::default()))
    {
        found.push("other names than the state's".to_owned());
    }
    let containers = host.site.machine.lock().found();
    let running: BTreeMap<_, _> = containers
        .iter()
        .filter(|container| container.status.phase == container::Phase::Running)
        .map(|container| (container.id.to_string(), container))
        .collect();
    let live: BTreeSet<_> = sorted
        .tasks
        .values()
        .filter(|task| task.is_live())
        .map(|task| task.id.to_string())
        .collect();
    for id in running.keys().filter(|id| !live.contains(*id)) {
        found.push(format!("container {id} runs and is not wanted"));
    }
    for id in live.iter().filter(|id| !running.contains_key(*id)) {
        found.push(format!("task {id} has no container that runs"));
    }
    for container in
        containers.iter().filter(|c| !sorted.tasks.keys().any(|t| t.to_string() == c.id.as_str()))
    {
        found.push(format!("container {} is left over", container.id));
    }
    let (leftovers, _) = tasks::sort_found(containers);
    let attached = worker.keeper().intents();
    let intents: BTreeSet<_> = attached.iter().map(|intent| intent.id).collect();
    let assigned: BTreeSet<_> = sorted.foreigners.keys().copied().collect();
    if intents != assigned || attached.iter().any(|intent| intent.phase != Phase::Attached) {
        found.push(format!("attached are {attached:?}, the state has {assigned:?}"));
    }
    for foreign in sorted.foreigners.values().filter(|foreign| !foreign.ready) {
        found.push(format!("attachment {} is not ready", foreign.name));
    }
    let attached = attached.into_iter().map(|intent| {
        let local = LocalSandbox {
            netns: intent.netns,
            dns_port: None,
            attachments: vec![intent.id],
            ifname: Some(intent.ifname),
            default_gateway: intent.way_out == WayOut::Ours,
        };
        (Holder::Foreign(intent.id), local)
    });
    let local: LocalSandboxes = tasks::adopted(&leftovers)
        .into_iter()
        .map(|(task, plumbed)| (task, plumbed.local))
        .chain(attached)
        .collect();
    let kernel = host.site.machine.lock().kernel.clone();
    let mut driver = Driver::new(kernel);
    let mut wanted = sorted.dataplane(&local);
    wanted.tunnel = end(host, state).and_then(|end| sorted.tunnel(&end));
    let report = driver.reconcile(&wanted, Completeness::Complete, &Scope::Full);
    found.extend(report.executed.iter().map(|op| format!("its kernel lacks: {op}")));
    found
}
