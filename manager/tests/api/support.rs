//! Nodes in one process: real stores in temporary directories, real listeners on the loopback
//! interface and on unix sockets, and nothing of a daemon but what the gate and the services need.

use std::{
    collections::BTreeSet,
    future::Future,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwapOption;
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::mpsc, task::JoinSet, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status, Streaming, service::Routes, transport::Channel};
use weft_manager::{
    Manager, ManagerConfig, ManagerSlot,
    api::add_services,
    ca::{Authority, Subject, join_token, new_secret},
    clock::{Clock as _, SystemClock},
    gate::{Gate, Outlook, Outlooks},
    manager::new_cluster,
};
use weft_model::{
    Assignments, ClusterId, NodeId,
    command::NewNode,
    object::{ClusterSpec, NodeDescription},
    spec::{NodeSpec, Role},
};
use weft_proto::{
    convert::{
        node::description,
        session::{AssignmentsUpdate, Reports},
        status::hint_of,
    },
    tls::{
        self, AcceptLimits, HostPort, Identity, LiveIdentity, NodeKey, bind_unix, serve,
        server_config, unix_channel, unix_incoming,
    },
    v1::{
        AgentLinksRequest, AgentLogsRequest, DoctorRequest, DoctorResponse,
        IssueCertificateRequest, IssueCertificateResponse, LogRecord, LogStream, NodeLinksResponse,
        RenewCertificateRequest, SessionRequest, SessionResponse, TunnelPeer,
        agent_service_server::{AgentService, AgentServiceServer},
        dispatcher_service_client::DispatcherServiceClient,
        join_service_client::JoinServiceClient,
        session_request, session_response,
    },
};

/// Longest wait for anything: far above what it takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks at something that is waited for.
const LOOK: Duration = Duration::from_millis(10);
/// Between two heartbeats of a session: well below the silence after which a node is hidden.
const BEAT: Duration = Duration::from_millis(300);
/// Life of the certificates of these tests.
const LIFE: Duration = Duration::from_secs(3600);

/// A node with both of its listeners; maybe a manager.
pub struct Node {
    pub id: NodeId,
    pub number: u64,
    pub cluster: ClusterId,
    pub address: SocketAddr,
    pub live: LiveIdentity,
    pub slot: ManagerSlot,
    pub description: NodeDescription,
    dir: TempDir,
    _servers: JoinSet<()>,
}

/// What a worker answers about its tasks: one line that names the task, and one on its errors.
struct Agent;

#[tonic::async_trait]
impl AgentService for Agent {
    type LogsStream = tokio_stream::Iter<std::vec::IntoIter<Result<LogRecord, Status>>>;

    async fn logs(
        &self,
        request: Request<AgentLogsRequest>,
    ) -> Result<tonic::Response<Self::LogsStream>, Status> {
        let task = request.into_inner().task_id;
        let line = |stream: LogStream, text: String| {
            Ok(LogRecord { time: None, stream: stream.into(), data: text.into_bytes() })
        };
        let lines = vec![
            line(LogStream::Stdout, format!("out of {task}")),
            line(LogStream::Stderr, format!("err of {task}")),
        ];
        Ok(tonic::Response::new(tokio_stream::iter(lines)))
    }

    async fn links(
        &self,
        _: Request<AgentLinksRequest>,
    ) -> Result<tonic::Response<NodeLinksResponse>, Status> {
        let hostname = "a peer of the agent".to_owned();
        let peers = vec![TunnelPeer { hostname, ..TunnelPeer::default() }];
        Ok(tonic::Response::new(NodeLinksResponse { peers, ..NodeLinksResponse::default() }))
    }

    async fn doctor(
        &self,
        _: Request<DoctorRequest>,
    ) -> Result<tonic::Response<DoctorResponse>, Status> {
        Ok(tonic::Response::new(DoctorResponse::default()))
    }
}

/// A session as a worker has it.
pub struct Session {
    pub welcome: session_response::Welcome,
    pub assignments: Assignments,
    pub to_manager: mpsc::Sender<SessionRequest>,
    from_manager: Streaming<SessionResponse>,
    _beats: JoinSet<()>,
}

/// Looks until `look` gives something, and fails after [`PATIENCE`].
pub async fn wait_for<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut look: impl FnMut() -> F,
) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < end, "waited {PATIENCE:?} for {what}");
        tokio::time::sleep(LOOK).await;
    }
}

/// A description of a node of these tests: each has an address of its own on the loopback.
pub fn describe(name: &str, address: SocketAddr) -> NodeDescription {
    // Members may not share a VTEP, and nothing is sent to it here.
    let port = address.port().to_be_bytes();
    NodeDescription {
        hostname: name.to_owned(),
        address,
        data_path: [127, 1, port[0], port[1]].into(),
        os: "linux".to_owned(),
        architecture: "x86_64".to_owned(),
        engine_version: "0".to_owned(),
        nano_cpus: 2_000_000_000,
        memory: 1 << 30,
        used_prefixes: BTreeSet::new(),
        certificate_expires: None,
    }
}

/// The sentence and the hint of an error, with its code checked.
#[track_caller]
pub fn refused<T: std::fmt::Debug>(result: Result<T, Status>, code: Code) -> (String, String) {
    let status = result.expect_err("should be refused");
    assert_eq!(status.code(), code, "{status:?}");
    (status.message().to_owned(), hint_of(&status).unwrap_or_default())
}

impl Node {
    /// The first manager of a new cluster.
    pub async fn first() -> Self {
        Self::first_of(ClusterSpec::default()).await
    }

    /// The first manager of a new cluster with these settings.
    pub async fn first_of(spec: ClusterSpec) -> Self {
        let (cluster, id) = (ClusterId::from_bytes(random_id()), NodeId::from_bytes(random_id()));
        let now = SystemTime::now();
        let authority = Authority::create(&cluster.to_string(), now).unwrap();
        let subject = Subject { role: tls::Role::Manager, node_id: id.to_string() };
        let identity = authority.issue_identity(&subject, LIFE, now).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let node = Self::serve(
            id,
            1,
            cluster,
            LiveIdentity::new(identity),
            describe("n1", address),
            listener,
        );
        let spec_of_node = NodeSpec { role: Role::Manager, ..NodeSpec::default() };
        let new = NewNode { id, spec: spec_of_node, description: node.description.clone() };
        let made = new_cluster(cluster, &authority, spec, SystemClock.now());
        let manager = Manager::bootstrap(node.config(), made, new).await.unwrap();
        node.slot.store(Some(Arc::new(manager)));
        node
    }

    /// A node that joins by way of this one.
    pub async fn join(&self, name: &str, role: Role) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let description = describe(name, listener.local_addr().unwrap());
        let key = NodeKey::generate().unwrap();
        let request = self.join_request(&key, role, &description);
        let answer = self.issue(request).await.unwrap();
        let live = LiveIdentity::new(self.identity_of(&answer, &key));
        let id = answer.node_id.parse().unwrap();
        let node = Self::serve(id, answer.number, self.cluster, live, description, listener);
        if role == Role::Manager {
            node.become_manager().await;
        }
        node
    }

    pub fn join_request(
        &self,
        key: &NodeKey,
        role: Role,
        node: &NodeDescription,
    ) -> IssueCertificateRequest {
        let state = self.manager().view();
        let cluster = state.cluster().unwrap();
        let secret = match role {
            Role::Worker => cluster.tokens.worker,
            Role::Manager => cluster.tokens.manager,
        };
        IssueCertificateRequest {
            token: join_token(&cluster.root_certificate, secret).to_string(),
            csr: key.csr_der().unwrap(),
            description: Some(description(node)),
            availability: 0,
            request_id: String::new(),
        }
    }

    /// Shows a token, as a node without a certificate does.
    pub async fn issue(
        &self,
        request: IssueCertificateRequest,
    ) -> Result<IssueCertificateResponse, Status> {
        let root = self.manager().view().cluster().unwrap().root_certificate.clone();
        let token = join_token(&root, new_secret());
        let channel = tls::bootstrap_channel(&token, &host_port(self.address));
        let mut client = JoinServiceClient::new(channel);
        client.issue_certificate(request).await.map(tonic::Response::into_inner)
    }

    pub fn identity_of(&self, answer: &IssueCertificateResponse, key: &NodeKey) -> Identity {
        let root = self.manager().view().cluster().unwrap().root_certificate.clone();
        Identity::from_pem(&answer.certificate, &key.pem(), &root).unwrap()
    }

    /// Opens an empty store that waits to be let in.
    pub async fn become_manager(&self) {
        let manager = Manager::open(self.config()).await.unwrap();
        self.slot.store(Some(Arc::new(manager)));
    }

    /// Renews the certificate by way of `via`, whatever role that gives.
    pub async fn renew(&self, via: &Self) -> Result<Role, Status> {
        let key = NodeKey::generate().unwrap();
        let mut client = JoinServiceClient::new(self.channel_to(via));
        let csr = key.csr_der().unwrap();
        let request = RenewCertificateRequest { csr };
        let answer = client.renew_certificate(request).await?.into_inner();
        let identity =
            Identity::from_pem(&answer.certificate, &key.pem(), &answer.root_certificate).unwrap();
        let role = match identity.subject().role {
            tls::Role::Manager => Role::Manager,
            tls::Role::Worker => Role::Worker,
            tls::Role::Client => panic!("a node got the certificate of a client"),
        };
        self.live.replace(identity).unwrap();
        Ok(role)
    }

    fn serve(
        id: NodeId,
        number: u64,
        cluster: ClusterId,
        live: LiveIdentity,
        description: NodeDescription,
        listener: TcpListener,
    ) -> Self {
        let slot: ManagerSlot = Arc::new(ArcSwapOption::empty());
        let address = description.address;
        let outlook: Outlooks = Arc::new(move || Outlook {
            cluster: Some(cluster.to_string()),
            managers: vec!["192.0.2.1:2377".to_owned()],
        });
        let gate = Gate::new(slot.clone(), outlook);
        let dir = TempDir::new().unwrap();
        let mut servers = JoinSet::new();
        let tcp = tls::incoming(listener, server_config(&live), AcceptLimits::default());
        let routes = add_services(Routes::new(AgentServiceServer::new(Agent)), slot.clone());
        let router = serve::server().layer(gate.clone()).add_routes(routes.clone());
        servers.spawn(async move { router.serve_with_incoming(tcp).await.unwrap() });
        let unix = unix_incoming(bind_unix(&dir.path().join("weft.sock")).unwrap());
        let router = serve::server().layer(gate).add_routes(routes);
        servers.spawn(async move { router.serve_with_incoming(unix).await.unwrap() });
        Self { id, number, cluster, address, live, slot, description, dir, _servers: servers }
    }

    fn config(&self) -> ManagerConfig {
        ManagerConfig::new(
            self.dir.path().join("raft"),
            self.id,
            self.number,
            self.cluster,
            self.address,
            self.live.clone(),
        )
    }

    pub fn manager(&self) -> Manager {
        Manager::clone(&self.slot.load_full().expect("a manager"))
    }

    /// Calls this node as its administrator.
    pub fn local(&self) -> Channel {
        unix_channel(&self.dir.path().join("weft.sock"))
    }

    /// Calls `other` with this node's certificate.
    pub fn channel_to(&self, other: &Self) -> Channel {
        // Like the worker's session does not care whom it calls, neither do these tests.
        tls::member_channel(&self.live, &host_port(other.address), &other.id.to_string())
    }

    /// Opens a session by way of `via`.
    pub async fn session(&self, via: &Self) -> Result<Session, Status> {
        self.session_of(via, &format!("boot of {}", self.id.short())).await
    }

    pub async fn session_of(&self, via: &Self, boot_id: &str) -> Result<Session, Status> {
        let raft_incarnation = self.slot.load().as_ref().map(|manager| manager.raft_incarnation());
        let hello = session_request::Hello {
            description: Some(description(&self.description)),
            boot_id: boot_id.to_owned(),
            raft_incarnation: raft_incarnation.unwrap_or_default(),
        };
        Session::open(self.channel_to(via), hello).await
    }
}

fn random_id() -> [u8; 32] {
    let (a, b) = (new_secret(), new_secret());
    let mut id = [0; 32];
    id[..16].copy_from_slice(&a);
    id[16..].copy_from_slice(&b);
    id
}

pub fn host_port(address: SocketAddr) -> HostPort {
    address.to_string().parse().unwrap()
}

fn says(request: session_request::Request) -> SessionRequest {
    SessionRequest { request: Some(request) }
}

impl Session {
    async fn open(channel: Channel, hello: session_request::Hello) -> Result<Self, Status> {
        let (to_manager, requests) = mpsc::channel(16);
        to_manager.send(says(session_request::Request::Hello(hello))).await.unwrap();
        let mut client = DispatcherServiceClient::new(channel);
        let opened = client.session(Request::new(ReceiverStream::new(requests))).await?;
        let mut beats = JoinSet::new();
        let sender = to_manager.clone();
        beats.spawn(async move {
            let beat = session_request::Request::Heartbeat(session_request::Heartbeat {});
            let mut every = tokio::time::interval(BEAT);
            while sender.send(says(beat.clone())).await.is_ok() {
                every.tick().await;
            }
        });
        let mut session = Self {
            welcome: session_response::Welcome::default(),
            assignments: Assignments::default(),
            to_manager,
            from_manager: opened.into_inner(),
            _beats: beats,
        };
        match session.message().await? {
            Some(session_response::Response::Welcome(welcome)) => session.welcome = welcome,
            other => panic!("a session begins with a welcome, not {other:?}"),
        }
        session.next().await?;
        Ok(session)
    }

    async fn message(&mut self) -> Result<Option<session_response::Response>, Status> {
        let message = tokio::time::timeout(PATIENCE, self.from_manager.message());
        let message = message.await.expect("the manager says nothing")?;
        Ok(message.and_then(|message| message.response))
    }

    /// Takes in the next assignments, and says that they are applied. Gives the number of reports
    /// that are taken, if that comes instead.
    pub async fn next(&mut self) -> Result<Option<u64>, Status> {
        match self.message().await? {
            Some(session_response::Response::Assignments(wire)) => {
                let update = AssignmentsUpdate::from_wire(&wire).unwrap();
                if update.complete {
                    self.assignments = Assignments::default();
                } else {
                    assert_eq!(update.applies_to, self.assignments.revision, "a gap");
                }
                self.assignments.take(update.changes, update.results_in);
                let applied = session_request::Applied { revision: update.results_in };
                let applied = session_request::Request::Applied(applied);
                let _ = self.to_manager.send(says(applied)).await;
                Ok(None)
            }
            Some(session_response::Response::ReportsTaken(number)) => Ok(Some(number)),
            other => panic!("unexpected in a session: {other:?}"),
        }
    }

    pub async fn report(&self, reports: &Reports) {
        let reports = session_request::Request::Reports(reports.to_wire());
        self.to_manager.send(says(reports)).await.unwrap();
    }

    /// The error that the session ends with.
    pub async fn end(mut self) -> Status {
        loop {
            if let Err(status) = self.next().await {
                return status;
            }
        }
    }
}
