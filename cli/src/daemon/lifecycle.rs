//! Into a cluster and out of it. What is written to disk is ordered so that a crash between any two
//! steps leaves a member or no member, never half of one.

use std::{
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::net::TcpListener;
use tonic::{Code, Status};
use weft_manager::{
    ca::{Authority, Subject, join_token, new_secret},
    manager::Manager,
};
use weft_model::{
    Cluster, ClusterId, NodeId, Time,
    command::NewNode,
    object::{Meta, NodeDescription, Tokens},
    spec::{NodeSpec, Role},
};
use weft_proto::{
    convert::{self, status::hinted},
    tls::{self, HostPort, Identity, JoinToken, LiveIdentity, NodeKey, bootstrap_channel, store},
    v1::{
        self, InitRequest, InitResponse, IssueCertificateRequest, IssueCertificateResponse,
        JoinRequest, JoinResponse, LeaveClusterRequest, RootCertificateRequest, UpdateNodeRequest,
        dispatcher_service_client::DispatcherServiceClient, join_service_client::JoinServiceClient,
        node_service_client::NodeServiceClient,
    },
};

use super::{
    addresses,
    membership::Member,
    node::{Joined, Node},
    refusal::{already_a_member, failed, invalid, not_a_member},
};

/// How long the node's own session may take to open before the user gets the answer anyway.
const SESSION_DEADLINE: Duration = Duration::from_secs(10);
/// How long the manager that is joined may take for each step.
const JOIN_DEADLINE: Duration = Duration::from_secs(10);
/// How often a step of joining is tried again with the same request ID after a lost answer.
const JOIN_TRIES: u32 = 3;
/// How long the others may take to put a leaving manager out of Raft.
const DEMOTION_DEADLINE: Duration = Duration::from_secs(15);
/// How long telling the managers of a leave may take; a node may leave without them.
const FAREWELL_DEADLINE: Duration = Duration::from_secs(5);
/// The number of the first node.
const FIRST_NUMBER: u64 = 1;

/// Makes a cluster with this node as its first manager.
pub async fn init(node: &Arc<Node>, request: InitRequest) -> Result<InitResponse, Status> {
    let _changing = node.changing.lock().await;
    if node.joined().is_some() {
        return Err(already_a_member());
    }
    let spec = convert::cluster::spec_of_init(&request)
        .map_err(|error| convert::status::invalid(&error))?;
    let availability = convert::node::availability_of(request.availability)
        .map_err(|error| convert::status::invalid(&error))?;
    let Ready { description, listener } =
        ready(node, &request.advertise_addr, &request.data_path_addr).await?;
    let (address, data_path) = (description.address, description.data_path);

    let now = SystemTime::now();
    let cluster_id = ClusterId::from_bytes(rand::random());
    let node_id = NodeId::from_bytes(rand::random());
    let authority = Authority::create(&cluster_id.to_string(), now)
        .map_err(|error| failed("no certificate authority can be made", &error))?;
    let subject = Subject { role: tls::Role::Manager, node_id: node_id.to_string() };
    let identity = authority
        .issue_identity(&subject, spec.certificate_expiry, now)
        .map_err(|error| failed("no certificate can be made", &error))?;
    let tokens = Tokens { worker: new_secret(), manager: new_secret(), extra: Vec::new() };
    let worker_token = join_token(authority.root_pem(), tokens.worker).to_string();
    let made = Time::default() + now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let cluster = Cluster {
        id: cluster_id,
        meta: Meta::new(made),
        spec,
        tokens,
        root_certificate: authority.root_pem().to_owned(),
        root_key: authority.key_pem(),
        next_number: FIRST_NUMBER,
        last_vni: None,
    };
    let node_spec = NodeSpec {
        role: Role::Manager,
        availability: availability.unwrap_or_default(),
        ..NodeSpec::default()
    };
    let new = NewNode { id: node_id, spec: node_spec, description };
    let member = Member {
        node: node_id,
        cluster: cluster_id,
        number: FIRST_NUMBER,
        role: Role::Manager,
        address,
        data_path,
        managers: vec![address],
    };
    save_identity(&node.home().identity(), &identity)?;
    let live = LiveIdentity::new(identity);
    let config = node.manager_config(&member, &live);
    let manager = match Manager::bootstrap(config, cluster, new).await {
        Ok(manager) => manager,
        Err(error) => {
            // Nothing was promised to anybody yet.
            let _ = node.home().clear();
            return Err(refused_start(error));
        }
    };
    node.home().save(&member).map_err(disk)?;
    node.enter(member, live, listener, Some(manager))
        .await
        .map_err(|error| failed("the machine's facts cannot be read", &error))?;
    wait_for_session(node).await;
    Ok(InitResponse {
        node_id: node_id.to_string(),
        cluster_id: cluster_id.to_string(),
        worker_token,
        addr: address.to_string(),
    })
}

/// What a node needs before it asks anybody to take it in.
struct Ready {
    description: NodeDescription,
    listener: TcpListener,
}

/// Finds the node's addresses and binds the cluster's port: what can fail here fails before anything
/// is changed.
async fn ready(node: &Arc<Node>, advertised: &str, data_path: &str) -> Result<Ready, Status> {
    let address = addresses::advertised(advertised, node.settings().listen.port())?;
    let data_path = addresses::data_path(data_path, address.ip())?;
    let description = node
        .description(address, data_path, None)
        .map_err(|error| failed("the machine's facts cannot be read", &error))?;
    let listener = node.listen().await.map_err(cannot_listen)?;
    node.home().clear().map_err(disk)?;
    Ok(Ready { description, listener })
}

/// A refusal by the state keeps its own words.
fn refused_start(error: weft_manager::manager::StartError) -> Status {
    use weft_manager::manager::StartError;
    match error {
        StartError::Refused(rejected) => convert::status::refused(&rejected),
        StartError::Open(_)
        | StartError::Initialize(_)
        | StartError::Write(_)
        | StartError::Stopped => failed("the cluster cannot be made", &error),
    }
}

/// Makes this node a member of an existing cluster.
pub async fn join(node: &Arc<Node>, request: JoinRequest) -> Result<JoinResponse, Status> {
    let _changing = node.changing.lock().await;
    if node.joined().is_some() {
        return Err(already_a_member());
    }
    let token: JoinToken = request.token.parse().map_err(|error| {
        invalid(
            format!("invalid join token: {error}"),
            "on a manager: weft cluster join-token worker|manager",
        )
    })?;
    let remote: HostPort = request.remote_addr.parse().map_err(|error| {
        invalid(
            format!("invalid address {:?}: {error}", request.remote_addr),
            "give a manager's address as HOST:2377",
        )
    })?;
    let Ready { description, listener } =
        ready(node, &request.advertise_addr, &request.data_path_addr).await?;
    let (address, data_path) = (description.address, description.data_path);

    let key = NodeKey::generate().map_err(|error| failed("no key can be made", &error))?;
    let csr = key.csr_der().map_err(|error| failed("no key can be made", &error))?;
    let channel = bootstrap_channel(&token, &remote);
    let mut client = JoinServiceClient::new(channel);
    let root = timely(&remote, client.root_certificate(RootCertificateRequest {})).await?;
    let root = root.into_inner().certificate;
    if !token.pins(&root) {
        return Err(invalid(
            format!("the manager at {remote} is not of the cluster that the join token is for"),
            "check the address, or get the token anew: weft cluster join-token worker|manager",
        ));
    }
    let ask = IssueCertificateRequest {
        token: request.token,
        csr,
        description: Some(convert::node::description(&description)),
        availability: request.availability,
        request_id: format!("join-{:032x}", rand::random::<u128>()),
    };
    let issued = issue(&mut client, &remote, ask).await?;
    let identity = Identity::from_pem(&issued.certificate, &key.pem(), &root)
        .map_err(|error| failed("the certificate that was issued cannot be used", &error))?;
    let member = member_of(&issued, address, data_path, &request.remote_addr)?;
    save_identity(&node.home().identity(), &identity)?;
    let live = LiveIdentity::new(identity);
    let manager = match member.role {
        Role::Manager => Some(node.open_manager(&member, &live).await.map_err(|error| {
            Status::failed_precondition(format!("the manager cannot start: {error:#}"))
        })?),
        Role::Worker => None,
    };
    node.home().save(&member).map_err(disk)?;
    let (node_id, role) = (member.node, member.role);
    node.enter(member, live, listener, manager)
        .await
        .map_err(|error| failed("the machine's facts cannot be read", &error))?;
    wait_for_session(node).await;
    Ok(JoinResponse { node_id: node_id.to_string(), role: convert::node::role(role).into() })
}

type JoinClient = JoinServiceClient<tonic::transport::Channel>;

/// A lost answer is asked for again by the same name, so that the node joins once.
async fn issue(
    client: &mut JoinClient,
    remote: &HostPort,
    ask: IssueCertificateRequest,
) -> Result<IssueCertificateResponse, Status> {
    let mut tries = 1;
    loop {
        match timely(remote, client.issue_certificate(ask.clone())).await {
            Ok(response) => return Ok(response.into_inner()),
            Err(status) if status.code() == Code::Unavailable && tries < JOIN_TRIES => tries += 1,
            Err(status) => return Err(status),
        }
    }
}

async fn timely<T>(
    remote: &HostPort,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<tonic::Response<T>, Status> {
    let unreachable = |why: String| {
        hinted(
            Code::Unavailable,
            format!("cannot reach a manager at {remote}: {why}"),
            Some(
                "check that the daemon runs there, that it is a manager, and that its port is open",
            ),
        )
    };
    match tokio::time::timeout(JOIN_DEADLINE, call).await {
        Ok(Err(status)) if status.code() == Code::Unavailable || status.code() == Code::Unknown => {
            Err(unreachable(causes(&status)))
        }
        Ok(result) => result,
        Err(_) => Err(unreachable("no answer".to_owned())),
    }
}

/// The status in words with what lies beneath it: tonic says just "transport error" itself. Each
/// layer repeats what the next one says, so only what is new is added.
pub(super) fn causes(status: &Status) -> String {
    let mut texts = vec![status.message().to_owned()];
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        texts.push(error.to_string());
        cause = error.source();
    }
    texts.retain(|text| !text.is_empty() && text != "transport error");
    let innermost = texts.pop().unwrap_or_default();
    let said = innermost.rsplit(": ").next().unwrap_or(&innermost);
    said.to_owned()
}

fn member_of(
    issued: &IssueCertificateResponse,
    address: SocketAddr,
    data_path: std::net::IpAddr,
    remote: &str,
) -> Result<Member, Status> {
    let unreadable = |_| Status::internal("the manager's answer cannot be read");
    let role = convert::node::role_of(issued.role)
        .map_err(|error| convert::status::invalid(&error))?
        .unwrap_or_default();
    let mut managers: Vec<SocketAddr> =
        issued.managers.iter().filter_map(|peer| peer.addr.parse().ok()).collect();
    if managers.is_empty() {
        managers.extend(remote.parse::<SocketAddr>().ok());
    }
    Ok(Member {
        node: issued.node_id.parse().map_err(unreadable)?,
        cluster: issued.cluster_id.parse().map_err(unreadable)?,
        number: issued.number,
        role,
        address,
        data_path,
        managers,
    })
}

/// Takes this node out of its cluster; nothing of the cluster stays on the machine.
pub async fn leave(node: &Arc<Node>, force: bool) -> Result<(), Status> {
    let _changing = node.changing.lock().await;
    let joined = node.joined().ok_or_else(not_a_member)?;
    if let Some(manager) = node.manager() {
        let managers = manager.view();
        let count = managers.nodes().filter(|node| node.spec.role == Role::Manager).count();
        if !force {
            let (what, hint) = if count > 1 {
                (
                    "this node is a manager",
                    "weft node demote self first, or weft cluster leave --force",
                )
            } else {
                (
                    "this node is the last manager: leaving ends the cluster and its state is lost",
                    "weft cluster leave --force",
                )
            };
            return Err(hinted(Code::FailedPrecondition, what, Some(hint)));
        }
        if count > 1 {
            step_down(node, &manager, &joined.member()).await;
        }
    }
    let managers = node.known_managers();
    node.exit().await;
    node.worker().leave().await;
    farewell(&joined, managers, force).await;
    node.home().erase().map_err(disk)
}

/// Asks the others to put this manager out of Raft, and waits until they have. Without a quorum that
/// cannot be, and the user has forced it.
async fn step_down(node: &Arc<Node>, manager: &Manager, member: &Member) {
    let channel = tls::unix_channel(&node.settings().socket());
    let demote = UpdateNodeRequest {
        node: member.node.to_string(),
        role: Some(v1::Role::Worker.into()),
        request_id: format!("leave-{:032x}", rand::random::<u128>()),
        ..UpdateNodeRequest::default()
    };
    let mut watch = manager.store().watch();
    let out = async {
        if let Err(status) = NodeServiceClient::new(channel).update(demote).await {
            tracing::warn!(error = status.message(), "the others cannot let this manager go");
            return;
        }
        let number = member.number;
        while manager.store().voters().iter().any(|voter| voter.number == number) {
            if watch.changed().await.is_err() {
                return;
            }
        }
    };
    if tokio::time::timeout(DEMOTION_DEADLINE, out).await.is_err() {
        tracing::warn!("this manager leaves while it is still a voter");
    }
}

/// Tells the managers that the node has gone and nothing of the cluster is left on it, so that they
/// need not hold its addresses.
async fn farewell(joined: &Joined, managers: Vec<SocketAddr>, force: bool) {
    let own = joined.member().address;
    for manager in managers.into_iter().filter(|manager| *manager != own) {
        let Ok(address) = manager.to_string().parse::<HostPort>() else { continue };
        let mut client = DispatcherServiceClient::new(tls::channel(&joined.identity, &address));
        let told = client.leave(LeaveClusterRequest { force });
        match tokio::time::timeout(FAREWELL_DEADLINE, told).await {
            Ok(Ok(_)) => return,
            Ok(Err(status)) => tracing::warn!(%manager, error = status.message(), "not told"),
            Err(_) => tracing::warn!(%manager, "not told in time"),
        }
    }
}

/// The answer to the user waits until the node is in touch, so that the next command finds it there.
async fn wait_for_session(node: &Arc<Node>) {
    let mut contact = node.worker().contact();
    let in_touch = contact.wait_for(|contact| contact.manager.is_some());
    // A node that is not in touch by then is a member all the same.
    let _ = tokio::time::timeout(SESSION_DEADLINE, in_touch).await;
}

fn save_identity(directory: &Path, identity: &Identity) -> Result<(), Status> {
    store::save(directory, identity)
        .map_err(|error| failed("the certificate cannot be kept", &error))
}

fn cannot_listen(error: anyhow::Error) -> Status {
    hinted(
        Code::FailedPrecondition,
        format!("{error:#}"),
        Some("stop what uses the port, or start the daemon with another --listen-addr"),
    )
}

fn disk(error: impl std::fmt::Display) -> Status {
    Status::internal(format!("the state directory cannot be written: {error}"))
}
