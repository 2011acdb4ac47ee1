//! What this node's daemon knows that tells what is wrong: the machine, its worker, and the cluster as a
//! member or a manager sees it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::{Arc, Weak},
    time::{Duration, SystemTime},
};

use futures::future::{BoxFuture, FutureExt as _, join_all};
use tonic::Status;
use weft_manager::manager::Manager;
use weft_model::{State, Time, object::NodeState};
use weft_proto::tls::{self, HostPort, LiveIdentity};
use weft_worker::doctor::{
    Facts,
    facts::{Called, Member, Names, Policy, Quorum},
    gather::{self, Query},
};

use super::node::{Joined, Node};

/// How long a manager may take to answer.
const CALL: Duration = Duration::from_secs(2);
/// A network with so few of a hundred addresses left is nearly full.
const FEW_PERCENT: u128 = 10;

/// Reads all facts when called.
pub fn facts(node: Weak<Node>) -> BoxFuture<'static, Result<Facts, Status>> {
    async move {
        let node = node.upgrade().ok_or_else(|| Status::unavailable("the daemon is stopping"))?;
        let query = query(&node);
        let host = tokio::task::spawn_blocking(move || gather::host(&query));
        let mut daemon = gather::daemon(node.worker());
        if let Some(joined) = node.joined() {
            daemon.member = Some(member(&node, &joined).await?);
        }
        let host = host.await.map_err(|error| Status::internal(error.to_string()))?;
        Ok(Facts { host, daemon: Some(daemon) })
    }
    .boxed()
}

fn query(node: &Node) -> Query {
    let settings = node.settings();
    let (defaults, carrier) = (settings.defaults(), node.worker().carrier());
    let (_, assignments) = node.worker().assigned().borrow().clone();
    Query {
        state_dir: Some(settings.state_dir.clone()),
        run_dir: settings.run_dir.clone(),
        policy: Policy { nftables: defaults.nftables, ip_forward: defaults.ip_forward },
        wireguard: format!("{} ({})", carrier.engine.word(), carrier.reason),
        ports: gather::ports(settings.listen.port(), &assignments),
    }
}

async fn member(node: &Arc<Node>, joined: &Joined) -> Result<Member, Status> {
    let own = joined.member();
    let mut managers = node.known_managers();
    managers.sort_unstable();
    let called = join_all(managers.into_iter().map(|address| {
        let identity = joined.identity.clone();
        async move {
            let clock = clock(&identity, address).await;
            Called { address, own: address == own.address, clock }
        }
    }));
    let (mut member, called) = tokio::join!(gather::member(node.worker()), called);
    let subject = joined.identity.subject();
    let life = subject.not_after.duration_since(subject.not_before).unwrap_or_default();
    member.certificate = Some((seconds_until(subject.not_after), life));
    let (mut addresses, mut names) = gather::others(node.worker());
    let mut down = BTreeSet::new();
    if let Some(manager) = node.manager() {
        let state = manager.view();
        addresses = others(&state, &mut names, &mut down, own.data_path);
        member.quorum = Some(quorum(&manager, &state, &called));
    }
    member.managers = called;
    let size = gather::largest_packet(node.worker());
    let paths = move || gather::paths(addresses, &names, &down, size);
    let paths = tokio::task::spawn_blocking(paths).await;
    member.paths = paths.map_err(|error| Status::internal(error.to_string()))?;
    Ok(member)
}

fn seconds_until(end: SystemTime) -> i64 {
    let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    match end.duration_since(SystemTime::now()) {
        Ok(left) => seconds(left),
        Err(over) => -seconds(over.duration()) - 1,
    }
}

/// Seconds that a manager's clock is ahead of ours. It tells the time with every answer (RFC 9110, section
/// 6.6.1), in whole seconds: half of one is added.
async fn clock(identity: &LiveIdentity, address: SocketAddr) -> Result<f64, String> {
    let target: HostPort = address.to_string().parse().map_err(|error| format!("{error}"))?;
    let mut health =
        tonic_health::pb::health_client::HealthClient::new(tls::channel(identity, &target));
    let asked = health.check(tonic_health::pb::HealthCheckRequest::default());
    let answer = tokio::time::timeout(CALL, asked).await.map_err(|_| "no answer".to_owned())?;
    let answer = answer.map_err(|status| super::lifecycle::causes(&status))?;
    let now = jiff::Timestamp::now();
    let date = answer.metadata().get("date").and_then(|date| date.to_str().ok());
    let date = date.ok_or_else(|| "it does not tell the time".to_owned())?;
    let date = jiff::fmt::rfc2822::parse(date).map_err(|error| error.to_string())?.timestamp();
    Ok(date.duration_since(now).as_secs_f64() + 0.5)
}

/// The data paths of the other nodes, with their names, and which of them are not in touch.
fn others(
    state: &State,
    names: &mut Names,
    down: &mut BTreeSet<IpAddr>,
    own: IpAddr,
) -> Vec<IpAddr> {
    let mut all = Vec::new();
    for node in state.nodes().filter(|node| node.description.data_path != own) {
        let address = node.description.data_path;
        all.push(address);
        names.insert(address, node.description.hostname.clone());
        if !node.in_touch() {
            down.insert(address);
        }
    }
    all
}

fn quorum(manager: &Manager, state: &State, called: &[Called]) -> Quorum {
    let status = manager.store().status();
    let answered: BTreeMap<String, bool> =
        called.iter().map(|called| (called.address.to_string(), called.clock.is_ok())).collect();
    let voters = status.voters.iter().map(|voter| {
        let name = state.nodes().find(|node| node.number == voter.number);
        let name =
            name.map_or_else(|| voter.number.to_string(), |node| node.description.hostname.clone());
        let own = voter.number == status.number;
        (name, voter.address.clone(), own || answered.get(&voter.address) == Some(&true))
    });
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let now = Time::default() + now;
    let away = state.nodes().filter(|node| {
        // One that has just joined has not spoken yet.
        matches!(node.state, NodeState::Silent | NodeState::Down)
    });
    Quorum {
        leader: status.leadership.leader.is_some(),
        voters: voters.collect(),
        away: away
            .map(|node| {
                let name = node.description.hostname.clone();
                (name, node.state.word().to_owned(), now.since(node.since), node.message.clone())
            })
            .collect(),
        condemned: status.condemned.map(|refusal| refusal.to_string()),
        no_room: manager.store().no_room(),
        full: full(state),
    }
}

fn full(state: &State) -> Vec<(String, u128, u128)> {
    let subnets =
        state.networks().flat_map(|network| network.subnets.iter().map(move |s| (network, s)));
    let found = subnets.filter_map(|(network, subnet)| {
        let found = state.address_use(network, subnet);
        let few = found.free() * 100 < found.size * FEW_PERCENT;
        few.then(|| (network.spec.name.clone(), found.free(), found.size))
    });
    found.collect()
}
