//! `ClusterService`: what concerns this node is done here, what concerns the cluster by its manager.

use std::sync::{Arc, Weak};

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use tonic::{Request, Response, Status};
use weft_manager::api;
use weft_model::{assignments::Item, spec::Role};
use weft_proto::{
    convert::{self, value},
    v1::{
        ClientCertificateRequest, ClientCertificateResponse, DataPathHealth, InfoRequest,
        InfoResponse, InitRequest, InitResponse, InspectClusterRequest, InspectClusterResponse,
        JoinRequest, JoinResponse, JoinTokenRequest, JoinTokenResponse, LeaveRequest,
        LeaveResponse, ListClientCertificatesRequest, ListClientCertificatesResponse, RaftHealth,
        RevokeClientCertificateRequest, RevokeClientCertificateResponse, UpdateClusterRequest,
        UpdateClusterResponse, cluster_service_server::ClusterService,
    },
};
use weft_worker::{container::Phase, facts};

use super::{
    lifecycle,
    node::Node,
    refusal::{failed, not_a_member},
    renewal,
};

/// The service.
pub struct ClusterApi {
    node: Weak<Node>,
}

impl ClusterApi {
    /// For this node.
    pub fn new(node: Weak<Node>) -> Self {
        Self { node }
    }

    fn node(&self) -> Result<Arc<Node>, Status> {
        self.node.upgrade().ok_or_else(|| Status::unavailable("the daemon is stopping"))
    }
}

/// Runs a change of membership to its end, also if the caller goes away in the middle of it.
async fn to_its_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, Status>> + Send + 'static,
) -> Result<T, Status> {
    tokio::spawn(work).await.unwrap_or_else(|error| Err(Status::internal(error.to_string())))
}

#[tonic::async_trait]
impl ClusterService for ClusterApi {
    async fn init(&self, request: Request<InitRequest>) -> Result<Response<InitResponse>, Status> {
        let node = self.node()?;
        let request = request.into_inner();
        to_its_end(async move { lifecycle::init(&node, request).await }).await.map(Response::new)
    }

    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        let node = self.node()?;
        let request = request.into_inner();
        to_its_end(async move { lifecycle::join(&node, request).await }).await.map(Response::new)
    }

    async fn leave(
        &self,
        request: Request<LeaveRequest>,
    ) -> Result<Response<LeaveResponse>, Status> {
        let node = self.node()?;
        let force = request.into_inner().force;
        to_its_end(async move { lifecycle::leave(&node, force).await }).await?;
        Ok(Response::new(LeaveResponse {}))
    }

    async fn info(&self, _: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        info(&*self.node()?).await.map(Response::new)
    }

    async fn inspect(
        &self,
        _: Request<InspectClusterRequest>,
    ) -> Result<Response<InspectClusterResponse>, Status> {
        let manager = manager(&*self.node()?)?;
        api::cluster::inspect(&manager).await.map(Response::new)
    }

    async fn update(
        &self,
        request: Request<UpdateClusterRequest>,
    ) -> Result<Response<UpdateClusterResponse>, Status> {
        let manager = manager(&*self.node()?)?;
        api::cluster::update(&manager, request.into_inner()).await.map(Response::new)
    }

    async fn join_token(
        &self,
        request: Request<JoinTokenRequest>,
    ) -> Result<Response<JoinTokenResponse>, Status> {
        let manager = manager(&*self.node()?)?;
        api::cluster::token(&manager, request.into_inner()).await.map(Response::new)
    }

    async fn client_certificate(
        &self,
        request: Request<ClientCertificateRequest>,
    ) -> Result<Response<ClientCertificateResponse>, Status> {
        let manager = manager(&*self.node()?)?;
        api::cluster::client_certificate(&manager, request.into_inner()).await.map(Response::new)
    }

    async fn list_client_certificates(
        &self,
        _request: Request<ListClientCertificatesRequest>,
    ) -> Result<Response<ListClientCertificatesResponse>, Status> {
        let manager = manager(&*self.node()?)?;
        api::cluster::list_clients(&manager).await.map(Response::new)
    }

    async fn revoke_client_certificate(
        &self,
        request: Request<RevokeClientCertificateRequest>,
    ) -> Result<Response<RevokeClientCertificateResponse>, Status> {
        let manager = manager(&*self.node()?)?;
        api::cluster::revoke_client(&manager, request.into_inner()).await.map(Response::new)
    }
}

/// The gate lets these calls through only where there is a manager; it may have gone since.
fn manager(node: &Node) -> Result<Arc<weft_manager::manager::Manager>, Status> {
    node.manager().ok_or_else(not_a_member)
}

async fn info(node: &Node) -> Result<InfoResponse, Status> {
    let facts = facts::read().map_err(|error| failed("the machine cannot be read", &error))?;
    let found = node.worker().runtime().list().await.unwrap_or_default();
    let running = found.iter().filter(|found| found.status.phase == Phase::Running).count();
    let contact = node.worker().contact().borrow().clone();
    let carrier = node.worker().carrier();
    let mut info = InfoResponse {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        hostname: node.hostname(&facts),
        state_dir: node.settings().state_dir.display().to_string(),
        run_dir: node.settings().run_dir.display().to_string(),
        containers: count(found.len()),
        containers_running: count(running),
        kernel_version: facts.kernel,
        cgroup_version: cgroup_version().to_owned(),
        cpus: u32::try_from(facts.nano_cpus / 1_000_000_000).unwrap_or(u32::MAX),
        memory_bytes: facts.memory,
        data_path: Some(data_path(node)),
        wireguard: format!("{} ({})", carrier.engine.word(), carrier.reason),
        ..InfoResponse::default()
    };
    let Some(joined) = node.joined() else { return Ok(info) };
    let member = joined.member();
    info.cluster_active = true;
    info.node_id = member.node.to_string();
    info.cluster_id = member.cluster.to_string();
    info.is_manager = node.manager().is_some();
    info.node_addr = member.address.ip().to_string();
    info.data_path_addr = member.data_path.to_string();
    info.managers = node.known_managers().iter().map(ToString::to_string).collect();
    info.session_error = contact.error;
    info.certificate_expires_at = Some(value::timestamp(renewal::expires(&joined.identity)));
    if let Some(manager) = node.manager() {
        let state = manager.view();
        info.node_count = count(state.nodes().count());
        let managers = state.nodes().filter(|node| node.spec.role == Role::Manager).count();
        info.manager_count = count(managers);
        info.cluster = state.cluster().map(|cluster| convert::cluster::spec(&cluster.spec));
        info.raft = Some(raft(&manager));
        // A store that was wiped, rolled back or copied takes no part; its operator must know.
        let condemned = manager.store().condemned().borrow().clone();
        info.warnings
            .extend(condemned.map(|refusal| format!("this manager takes no part: {refusal}")));
        info.warnings.extend(manager.store().no_room().map(|(free, reserve)| {
            format!("this manager's disk is nearly full: {free} bytes left, {reserve} are needed")
        }));
    }
    Ok(info)
}

/// Docker's word for how control groups are mounted: "2" for one tree of all controllers, "1" for a
/// tree each, also if the second version's tree is there beside them.
fn cgroup_version() -> &'static str {
    match statfs("/sys/fs/cgroup") {
        Ok(found) if found.filesystem_type() == CGROUP2_SUPER_MAGIC => "2",
        Ok(_) => "1",
        Err(_) => "",
    }
}

fn data_path(node: &Node) -> DataPathHealth {
    let standing = node.worker().standing().borrow().clone();
    let (_, assignments) = node.worker().assigned().borrow().clone();
    let networks = assignments.items.values().filter(|item| matches!(item, Item::Network(_)));
    DataPathHealth {
        networks: count(networks.count()),
        attachments: count(standing.sandboxes.len()),
        applied_revision: standing.revision,
        errors: standing.errors.into_iter().chain(standing.troubled.into_values()).collect(),
        repairs: standing.repairs,
    }
}

fn raft(manager: &weft_manager::manager::Manager) -> RaftHealth {
    let status = manager.store().status();
    let addresses = |members: Vec<weft_manager::store::Member>| {
        members.into_iter().map(|member| member.address).collect()
    };
    RaftHealth {
        term: status.leadership.term,
        last_log: status.last_log,
        committed: status.committed,
        applied: status.applied,
        snapshot: status.snapshot,
        leader: status.leadership.leader.map(|leader| leader.address).unwrap_or_default(),
        voters: addresses(status.voters),
        learners: addresses(status.learners),
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
