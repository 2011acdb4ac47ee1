//! A daemon that is not one: it answers as the test tells it, over a real unix socket.

// Each test binary uses its own part; and all of it is a test, whose failures are panics.
#![allow(dead_code, clippy::unwrap_used)]

use std::{
    collections::VecDeque,
    io::Write,
    path::PathBuf,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::{net::UnixListener, sync::mpsc, task::JoinHandle};
use tokio_stream::{
    Stream, StreamExt,
    wrappers::{ReceiverStream, UnboundedReceiverStream, UnixListenerStream},
};
use tonic::{Request, Response, Status, Streaming, transport::Server};
use weft::{
    client::Client,
    commands::{Context, Terminal},
    error::CliError,
    run::{Refusal, read},
};
use weft_proto::v1::{
    cluster_service_server::{ClusterService, ClusterServiceServer},
    container_service_server::{ContainerService, ContainerServiceServer},
    local_network_service_server::{LocalNetworkService, LocalNetworkServiceServer},
    network_service_server::{NetworkService, NetworkServiceServer},
    node_service_server::{NodeService, NodeServiceServer},
    service_service_server::{ServiceService, ServiceServiceServer},
    task_service_server::{TaskService, TaskServiceServer},
    watch_service_server::{WatchService, WatchServiceServer},
    *,
};

type Answer<T> = Result<Response<T>, Status>;
type Changes = mpsc::UnboundedReceiver<Result<WatchResponse, Status>>;
type BoxStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What the daemon answers, and what it was asked.
#[derive(Default)]
pub struct State {
    pub nodes: Vec<Node>,
    pub networks: Vec<Network>,
    pub services: Vec<Service>,
    pub tasks: Vec<Task>,
    pub containers: Vec<Container>,
    pub info: InfoResponse,
    pub token: JoinTokenResponse,
    /// Errors for the next writes, before they succeed.
    pub refuse: VecDeque<Status>,
    /// The streams that the next calls of Watch get.
    pub watches: VecDeque<Changes>,
    /// From which revisions Watch was called.
    pub resumed: Vec<u64>,
    pub logs: Vec<ServiceLogsResponse>,
    /// What exec answers, after the start.
    pub exec: Vec<ExecResponse>,
    pub request_ids: Vec<String>,
    pub created: Vec<ServiceSpec>,
    pub updated: Vec<UpdateServiceRequest>,
    pub created_networks: Vec<NetworkSpec>,
    pub node_updates: Vec<UpdateNodeRequest>,
    /// Nodes whose keys were to be rotated.
    pub rotated: Vec<String>,
    /// What nodes tell of their links; those that are not here are away.
    pub links: Vec<(String, NodeLinksResponse)>,
    pub inits: Vec<InitRequest>,
    pub cluster_updates: Vec<UpdateClusterRequest>,
    pub execs: Vec<ExecRequest>,
    pub killed: Vec<KillContainerRequest>,
    /// Networks of the node itself.
    pub local: Vec<Network>,
    pub created_local: Vec<NetworkSpec>,
    pub connected: Vec<ConnectNetworkRequest>,
    pub disconnected: Vec<DisconnectNetworkRequest>,
    /// What `run` and `create` asked for.
    pub runs: Vec<RunSpec>,
    /// What was done to containers, in order: "start web".
    pub deeds: Vec<String>,
    /// What attach answers once the container was started.
    pub attached: Vec<AttachContainerResponse>,
    /// Errors for the next starts.
    pub refuse_start: VecDeque<Status>,
}

#[derive(Clone, Default)]
pub struct Fake(Arc<Mutex<State>>);

impl Fake {
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// A write: remembers the id, and refuses as often as the test wants.
    fn write(&self, request_id: &str) -> Result<MutexGuard<'_, State>, Status> {
        let mut state = self.state();
        state.request_ids.push(request_id.to_owned());
        match state.refuse.pop_front() {
            Some(status) => Err(status),
            None => Ok(state),
        }
    }

    /// The next Watch is driven by the sender.
    pub fn watch(&self) -> mpsc::UnboundedSender<Result<WatchResponse, Status>> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.state().watches.push_back(receiver);
        sender
    }
}

/// A fake that listens; it ends with the test.
pub struct Daemon {
    pub fake: Fake,
    pub uri: String,
    server: JoinHandle<()>,
    _dir: tempfile::TempDir,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Daemon {
    pub fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path: PathBuf = dir.path().join("weft.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let fake = Fake::default();
        let router = Server::builder()
            .add_service(ClusterServiceServer::new(fake.clone()))
            .add_service(NodeServiceServer::new(fake.clone()))
            .add_service(NetworkServiceServer::new(fake.clone()))
            .add_service(LocalNetworkServiceServer::new(fake.clone()))
            .add_service(ServiceServiceServer::new(fake.clone()))
            .add_service(TaskServiceServer::new(fake.clone()))
            .add_service(ContainerServiceServer::new(fake.clone()))
            .add_service(WatchServiceServer::new(fake.clone()));
        let server = tokio::spawn(async move {
            router.serve_with_incoming(UnixListenerStream::new(listener)).await.unwrap();
        });
        Self { fake, uri: format!("unix://{}", path.display()), server, _dir: dir }
    }

    /// Runs a command line as the binary does.
    pub async fn run(&self, words: &[&str]) -> Outcome {
        let argv =
            ["weft", "-H", &self.uri].iter().chain(words).map(Into::into).collect::<Vec<_>>();
        let cli = match read(&argv) {
            Ok(cli) => cli,
            Err(Refusal::Ours(error)) => return Outcome::of(Err(error), vec![], vec![]),
            Err(Refusal::Clap(_, error)) => panic!("{error}"),
        };
        let client = Client::connect(&cli.connection).await.unwrap();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut context = Context {
            out: &mut out,
            err: &mut err,
            terminal: Terminal::default(),
            now: || jiff::Timestamp::from_second(NOW).unwrap(),
        };
        let result = weft::commands::run(&client, cli.command, &mut context).await;
        Outcome::of(result, out, err)
    }
}

/// The time of all tests, in seconds since 1970.
pub const NOW: i64 = 1_800_000_000;

#[derive(Debug)]
pub struct Outcome {
    pub code: u8,
    pub out: String,
    pub err: String,
}

impl Outcome {
    fn of(result: Result<(), CliError>, out: Vec<u8>, mut err: Vec<u8>) -> Self {
        let code = match &result {
            Ok(()) => 0,
            Err(error) => {
                error.report(&mut err as &mut dyn Write);
                error.exit_code()
            }
        };
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code, out: text(out), err: text(err) }
    }
}

fn found<T>(item: Option<T>, kind: &str, name: &str) -> Result<T, Status> {
    item.ok_or_else(|| Status::not_found(format!("no {kind} {name:?}")))
}

fn not_here<T>() -> Answer<T> {
    Err(Status::unimplemented("the fake does not know this"))
}

#[tonic::async_trait]
impl ClusterService for Fake {
    async fn init(&self, request: Request<InitRequest>) -> Answer<InitResponse> {
        self.state().inits.push(request.into_inner());
        Ok(Response::new(InitResponse {
            node_id: "n1".into(),
            cluster_id: "c1".into(),
            worker_token: "WFTKN-1-aaa-bbb".into(),
            addr: "10.0.0.1:2377".into(),
        }))
    }
    async fn join(&self, request: Request<JoinRequest>) -> Answer<JoinResponse> {
        let role =
            if request.into_inner().token.ends_with('m') { Role::Manager } else { Role::Worker };
        Ok(Response::new(JoinResponse { node_id: "n2".into(), role: role.into() }))
    }
    async fn leave(&self, _: Request<LeaveRequest>) -> Answer<LeaveResponse> {
        Ok(Response::new(LeaveResponse {}))
    }
    async fn info(&self, _: Request<InfoRequest>) -> Answer<InfoResponse> {
        Ok(Response::new(self.state().info.clone()))
    }
    async fn inspect(&self, _: Request<InspectClusterRequest>) -> Answer<InspectClusterResponse> {
        not_here()
    }
    async fn update(
        &self,
        request: Request<UpdateClusterRequest>,
    ) -> Answer<UpdateClusterResponse> {
        let request = request.into_inner();
        let mut state = self.write(&request.request_id)?;
        state.cluster_updates.push(request);
        Ok(Response::new(UpdateClusterResponse::default()))
    }
    async fn join_token(&self, request: Request<JoinTokenRequest>) -> Answer<JoinTokenResponse> {
        let state = self.write(&request.into_inner().request_id)?;
        Ok(Response::new(state.token.clone()))
    }
    async fn client_certificate(
        &self,
        request: Request<ClientCertificateRequest>,
    ) -> Answer<ClientCertificateResponse> {
        assert!(!request.into_inner().csr.is_empty());
        Ok(Response::new(ClientCertificateResponse {
            certificate: "CERT\n".into(),
            root_certificate: "ROOT\n".into(),
            expires_at: None,
        }))
    }
    async fn list_client_certificates(
        &self,
        _request: Request<ListClientCertificatesRequest>,
    ) -> Answer<ListClientCertificatesResponse> {
        Ok(Response::new(ListClientCertificatesResponse::default()))
    }
    async fn revoke_client_certificate(
        &self,
        request: Request<RevokeClientCertificateRequest>,
    ) -> Answer<RevokeClientCertificateResponse> {
        let serials = vec![request.into_inner().certificate];
        Ok(Response::new(RevokeClientCertificateResponse { serials }))
    }
}

#[tonic::async_trait]
impl NodeService for Fake {
    async fn list(&self, _: Request<ListNodesRequest>) -> Answer<ListNodesResponse> {
        Ok(Response::new(ListNodesResponse { nodes: self.state().nodes.clone() }))
    }
    async fn get(&self, request: Request<GetNodeRequest>) -> Answer<GetNodeResponse> {
        let name = request.into_inner().node;
        let state = self.state();
        let node = state.nodes.iter().find(|node| node.hostname == name || node.id == name);
        Ok(Response::new(GetNodeResponse { node: Some(found(node, "node", &name)?.clone()) }))
    }
    async fn update(&self, request: Request<UpdateNodeRequest>) -> Answer<UpdateNodeResponse> {
        let request = request.into_inner();
        let mut state = self.write(&request.request_id)?;
        state.node_updates.push(request);
        Ok(Response::new(UpdateNodeResponse::default()))
    }
    async fn remove(&self, request: Request<RemoveNodeRequest>) -> Answer<RemoveNodeResponse> {
        drop(self.write(&request.into_inner().request_id)?);
        Ok(Response::new(RemoveNodeResponse::default()))
    }
    async fn rotate_key(&self, request: Request<RotateKeyRequest>) -> Answer<RotateKeyResponse> {
        let request = request.into_inner();
        let mut state = self.write(&request.request_id)?;
        found(
            state.nodes.iter().find(|node| node.hostname == request.node),
            "node",
            &request.node,
        )?;
        state.rotated.push(request.node);
        Ok(Response::new(RotateKeyResponse::default()))
    }
    async fn links(&self, request: Request<NodeLinksRequest>) -> Answer<NodeLinksResponse> {
        let asked = request.into_inner().node;
        let state = self.state();
        let links = state.links.iter().find(|(node, _)| *node == asked);
        let (_, links) = links.ok_or_else(|| Status::unavailable("it does not answer"))?;
        Ok(Response::new(links.clone()))
    }
}

#[tonic::async_trait]
impl NetworkService for Fake {
    async fn create(
        &self,
        request: Request<CreateNetworkRequest>,
    ) -> Answer<CreateNetworkResponse> {
        let request = request.into_inner();
        let mut state = self.write(&request.request_id)?;
        state.created_networks.extend(request.spec);
        let network = Network { id: "ab".repeat(32), ..Default::default() };
        Ok(Response::new(CreateNetworkResponse { network: Some(network) }))
    }
    async fn list(&self, _: Request<ListNetworksRequest>) -> Answer<ListNetworksResponse> {
        Ok(Response::new(ListNetworksResponse { networks: self.state().networks.clone() }))
    }
    async fn get(&self, request: Request<GetNetworkRequest>) -> Answer<GetNetworkResponse> {
        let name = request.into_inner().network;
        let state = self.state();
        let network = state.networks.iter().find(|n| n.spec.as_ref().unwrap().name == name);
        let network = found(network, "network", &name)?.clone();
        Ok(Response::new(GetNetworkResponse { network: Some(network) }))
    }
    async fn remove(
        &self,
        request: Request<RemoveNetworkRequest>,
    ) -> Answer<RemoveNetworkResponse> {
        drop(self.write(&request.into_inner().request_id)?);
        Ok(Response::new(RemoveNetworkResponse::default()))
    }
    async fn prune(&self, request: Request<PruneNetworksRequest>) -> Answer<PruneNetworksResponse> {
        drop(self.write(&request.into_inner().request_id)?);
        Ok(Response::new(PruneNetworksResponse { removed: vec!["blue".into()] }))
    }
}

#[tonic::async_trait]
impl ServiceService for Fake {
    type LogsStream = BoxStream<ServiceLogsResponse>;

    async fn create(
        &self,
        request: Request<CreateServiceRequest>,
    ) -> Answer<CreateServiceResponse> {
        let request = request.into_inner();
        let mut state = self.write(&request.request_id)?;
        state.created.extend(request.spec);
        Ok(Response::new(CreateServiceResponse { service: state.services.first().cloned() }))
    }
    async fn list(&self, _: Request<ListServicesRequest>) -> Answer<ListServicesResponse> {
        Ok(Response::new(ListServicesResponse { services: self.state().services.clone() }))
    }
    async fn get(&self, request: Request<GetServiceRequest>) -> Answer<GetServiceResponse> {
        let name = request.into_inner().service;
        let state = self.state();
        let service = state
            .services
            .iter()
            .find(|service| service.id == name || service.spec.as_ref().unwrap().name == name);
        let service = found(service, "service", &name)?.clone();
        Ok(Response::new(GetServiceResponse { service: Some(service) }))
    }
    async fn update(
        &self,
        request: Request<UpdateServiceRequest>,
    ) -> Answer<UpdateServiceResponse> {
        let request = request.into_inner();
        let mut state = self.write(&request.request_id)?;
        let mut service = state.services.first().cloned().unwrap();
        service.spec.clone_from(&request.spec);
        state.updated.push(request);
        Ok(Response::new(UpdateServiceResponse { service: Some(service) }))
    }
    async fn rollback(
        &self,
        request: Request<RollbackServiceRequest>,
    ) -> Answer<RollbackServiceResponse> {
        let state = self.write(&request.into_inner().request_id)?;
        Ok(Response::new(RollbackServiceResponse { service: state.services.first().cloned() }))
    }
    async fn remove(
        &self,
        request: Request<RemoveServiceRequest>,
    ) -> Answer<RemoveServiceResponse> {
        drop(self.write(&request.into_inner().request_id)?);
        Ok(Response::new(RemoveServiceResponse::default()))
    }
    async fn logs(&self, _: Request<ServiceLogsRequest>) -> Answer<Self::LogsStream> {
        let logs: Vec<_> = self.state().logs.iter().cloned().map(Ok).collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(logs))))
    }
}

#[tonic::async_trait]
impl TaskService for Fake {
    async fn list(&self, _: Request<ListTasksRequest>) -> Answer<ListTasksResponse> {
        Ok(Response::new(ListTasksResponse { tasks: self.state().tasks.clone() }))
    }
    async fn get(&self, request: Request<GetTaskRequest>) -> Answer<GetTaskResponse> {
        let name = request.into_inner().task;
        let state = self.state();
        let task = found(state.tasks.iter().find(|task| task.name == name), "task", &name)?;
        Ok(Response::new(GetTaskResponse { task: Some(task.clone()) }))
    }
}

#[tonic::async_trait]
impl WatchService for Fake {
    type WatchStream = BoxStream<WatchResponse>;

    async fn watch(&self, request: Request<WatchRequest>) -> Answer<Self::WatchStream> {
        let mut state = self.state();
        state.resumed.push(request.into_inner().from_revision);
        match state.watches.pop_front() {
            Some(changes) => Ok(Response::new(Box::pin(UnboundedReceiverStream::new(changes)))),
            None => Err(Status::failed_precondition("no watch was expected")),
        }
    }
}

#[tonic::async_trait]
impl ContainerService for Fake {
    type LogsStream = BoxStream<LogRecord>;
    type ExecStream = BoxStream<ExecResponse>;
    type AttachStream = BoxStream<AttachContainerResponse>;

    async fn list(
        &self,
        request: Request<ListContainersRequest>,
    ) -> Answer<ListContainersResponse> {
        let all = request.into_inner().all;
        let containers = self.state().containers.clone();
        let containers = containers.into_iter().filter(|c| all || c.status == "running").collect();
        Ok(Response::new(ListContainersResponse { containers }))
    }
    async fn get(&self, request: Request<GetContainerRequest>) -> Answer<GetContainerResponse> {
        let name = request.into_inner().container;
        let state = self.state();
        let container = state.containers.iter().find(|container| container.name == name);
        let container = found(container, "container", &name)?.clone();
        Ok(Response::new(GetContainerResponse { container: Some(container) }))
    }
    async fn logs(&self, _: Request<ContainerLogsRequest>) -> Answer<Self::LogsStream> {
        let logs: Vec<_> =
            self.state().logs.iter().filter_map(|l| l.record.clone()).map(Ok).collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(logs))))
    }
    async fn stop(&self, _: Request<StopContainerRequest>) -> Answer<StopContainerResponse> {
        Ok(Response::new(StopContainerResponse::default()))
    }
    async fn kill(&self, request: Request<KillContainerRequest>) -> Answer<KillContainerResponse> {
        self.state().killed.push(request.into_inner());
        Ok(Response::new(KillContainerResponse::default()))
    }
    async fn exec(&self, request: Request<Streaming<ExecRequest>>) -> Answer<Self::ExecStream> {
        let mut requests = request.into_inner();
        let first = requests.next().await.unwrap()?;
        self.state().execs.push(first);
        let answers = self.state().exec.clone();
        if answers.is_empty() {
            return Err(Status::not_found("no such container"));
        }
        let (sender, receiver) = mpsc::channel(16);
        tokio::spawn(async move {
            for answer in answers {
                if sender.send(Ok(answer)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
    async fn create(
        &self,
        request: Request<CreateContainerRequest>,
    ) -> Answer<CreateContainerResponse> {
        let request = request.into_inner();
        let mut state = self.write(&request.request_id)?;
        let spec = request.spec.unwrap();
        let name = spec.name.clone();
        state.deeds.push(format!("create {name}"));
        state.runs.push(spec);
        let warnings = vec!["no memory limit: no cgroup controller".to_owned()];
        let container_id = "c".repeat(64);
        Ok(Response::new(CreateContainerResponse { container_id, name, warnings }))
    }
    async fn start(
        &self,
        request: Request<StartContainerRequest>,
    ) -> Answer<StartContainerResponse> {
        let request = request.into_inner();
        let mut state = self.write(&request.request_id)?;
        if let Some(status) = state.refuse_start.pop_front() {
            return Err(status);
        }
        state.deeds.push(format!("start {}", request.container));
        Ok(Response::new(StartContainerResponse { container_id: request.container }))
    }
    async fn restart(
        &self,
        request: Request<RestartContainerRequest>,
    ) -> Answer<RestartContainerResponse> {
        let request = request.into_inner();
        self.write(&request.request_id)?.deeds.push(format!("restart {}", request.container));
        Ok(Response::new(RestartContainerResponse { container_id: request.container }))
    }
    async fn remove(
        &self,
        request: Request<RemoveContainerRequest>,
    ) -> Answer<RemoveContainerResponse> {
        let request = request.into_inner();
        let forced = if request.force { " by force" } else { "" };
        let deed = format!("rm {}{forced}", request.container);
        self.write(&request.request_id)?.deeds.push(deed);
        Ok(Response::new(RemoveContainerResponse { container_id: request.container }))
    }
    async fn wait(&self, request: Request<WaitContainerRequest>) -> Answer<WaitContainerResponse> {
        let deed = format!("wait {}", request.into_inner().container);
        self.state().deeds.push(deed);
        Ok(Response::new(WaitContainerResponse { exit_code: 7, error: String::new() }))
    }
    async fn attach(
        &self,
        request: Request<Streaming<AttachContainerRequest>>,
    ) -> Answer<Self::AttachStream> {
        let first = request.into_inner().next().await.unwrap()?;
        let Some(attach_container_request::Request::Start(start)) = first.request else {
            return Err(Status::invalid_argument("the first message is the start"));
        };
        self.state().deeds.push(format!("attach {} stdin={}", start.container, start.stdin));
        let mut answers = vec![AttachContainerResponse {
            response: Some(attach_container_response::Response::Attached(true)),
        }];
        answers.extend(self.state().attached.clone());
        Ok(Response::new(Box::pin(tokio_stream::iter(answers.into_iter().map(Ok)))))
    }
    async fn prune(
        &self,
        request: Request<PruneContainersRequest>,
    ) -> Answer<PruneContainersResponse> {
        drop(self.write(&request.into_inner().request_id)?);
        Ok(Response::new(PruneContainersResponse { removed: vec!["old".into()] }))
    }
    async fn connect_pair(
        &self,
        request: Request<ConnectPairRequest>,
    ) -> Answer<ConnectPairResponse> {
        let request = request.into_inner();
        drop(self.write(&request.request_id)?);
        let ends = request.containers.iter().zip(["10.1.1.1/30", "10.1.1.2/30"]);
        let ends = ends.map(|(name, address)| PairEnd {
            container_id: "c".repeat(64),
            container_name: name.clone(),
            interface: "eth1".into(),
            address: address.into(),
        });
        Ok(Response::new(ConnectPairResponse { ends: ends.collect() }))
    }
}

#[tonic::async_trait]
impl LocalNetworkService for Fake {
    async fn create(
        &self,
        request: Request<CreateNetworkRequest>,
    ) -> Answer<CreateNetworkResponse> {
        let request = request.into_inner();
        let mut state = self.write(&request.request_id)?;
        state.created_local.push(request.spec.clone().unwrap());
        let network = Network { id: "e".repeat(64), spec: request.spec, ..Default::default() };
        Ok(Response::new(CreateNetworkResponse { network: Some(network) }))
    }
    async fn list(&self, _: Request<ListNetworksRequest>) -> Answer<ListNetworksResponse> {
        Ok(Response::new(ListNetworksResponse { networks: self.state().local.clone() }))
    }
    async fn get(&self, request: Request<GetNetworkRequest>) -> Answer<GetNetworkResponse> {
        let name = request.into_inner().network;
        let state = self.state();
        let network = state.local.iter().find(|network| {
            network.id.starts_with(&name) || network.spec.as_ref().unwrap().name == name
        });
        let network = found(network, "network", &name)?.clone();
        Ok(Response::new(GetNetworkResponse { network: Some(network) }))
    }
    async fn remove(
        &self,
        request: Request<RemoveNetworkRequest>,
    ) -> Answer<RemoveNetworkResponse> {
        let request = request.into_inner();
        let deed = format!("network rm {}", request.network);
        self.write(&request.request_id)?.deeds.push(deed);
        Ok(Response::new(RemoveNetworkResponse { network_id: request.network }))
    }
    async fn prune(&self, request: Request<PruneNetworksRequest>) -> Answer<PruneNetworksResponse> {
        let state = self.write(&request.into_inner().request_id)?;
        let names = state.local.iter().map(|network| network.spec.clone().unwrap().name);
        Ok(Response::new(PruneNetworksResponse { removed: names.collect() }))
    }
    async fn connect_container(
        &self,
        request: Request<ConnectNetworkRequest>,
    ) -> Answer<ConnectNetworkResponse> {
        let request = request.into_inner();
        self.write(&request.request_id)?.connected.push(request.clone());
        Ok(Response::new(ConnectNetworkResponse { network: None }))
    }
    async fn disconnect_container(
        &self,
        request: Request<DisconnectNetworkRequest>,
    ) -> Answer<DisconnectNetworkResponse> {
        let request = request.into_inner();
        self.write(&request.request_id)?.disconnected.push(request.clone());
        Ok(Response::new(DisconnectNetworkResponse {}))
    }
}
