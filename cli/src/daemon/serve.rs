//! Both listeners: the unix socket for this machine's administrators, and the cluster's port with
//! mutual TLS while the node is in a cluster. The same services stand behind both, and the same gate
//! before them.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use anyhow::Context as _;
use tokio::{
    net::{TcpListener, UnixListener},
    sync::{Mutex, oneshot},
    task::JoinHandle,
};
use tonic::service::Routes;
use weft_manager::{
    api,
    gate::{Gate, Outlook},
};
use weft_proto::{
    tls::{
        AcceptLimits, LiveIdentity, Registry, bind_unix, incoming, serve::server, server_config,
        unix_incoming,
    },
    v1::{
        FILE_DESCRIPTOR_SET, agent_service_server::AgentServiceServer,
        attachment_service_server::AttachmentServiceServer,
        cluster_service_server::ClusterServiceServer,
        container_service_server::ContainerServiceServer,
        local_network_service_server::LocalNetworkServiceServer,
    },
};
use weft_worker::api::{Agent, Attachments, Containers, Networks};

use super::{cluster_service::ClusterApi, doctor, node::Node};

/// How long open calls may take to end when a listener closes.
const CLOSING: Duration = Duration::from_millis(500);

/// The unix socket, bound.
pub struct Unix {
    listener: UnixListener,
    node: Arc<Node>,
}

/// Binds the unix socket.
///
/// # Errors
/// When it cannot be bound, or another daemon serves it.
pub fn unix(node: &Arc<Node>) -> anyhow::Result<Unix> {
    let path = node.settings().socket();
    let listener =
        bind_unix(&path).with_context(|| format!("cannot listen on {}", path.display()))?;
    Ok(Unix { listener, node: Arc::clone(node) })
}

impl Unix {
    /// Serves until it fails.
    ///
    /// # Errors
    /// The failure.
    pub async fn run(self) -> Result<(), tonic::transport::Error> {
        let (gate, routes) = services(&self.node);
        server()
            .layer(gate)
            .add_routes(routes)
            .serve_with_incoming(unix_incoming(self.listener))
            .await
    }
}

/// The cluster's port while it is open.
pub struct Listening {
    stop: Mutex<Option<oneshot::Sender<()>>>,
    running: Mutex<Option<JoinHandle<()>>>,
    registry: Registry,
}

/// Serves the cluster's port.
pub fn tcp(node: &Arc<Node>, listener: TcpListener, identity: &LiveIdentity) -> Listening {
    let incoming = incoming(listener, server_config(identity), AcceptLimits::default());
    let registry = incoming.registry();
    let (stop, stopped) = oneshot::channel();
    let (gate, routes) = services(node);
    let serving =
        server().layer(gate).add_routes(routes).serve_with_incoming_shutdown(incoming, async {
            // A dropped sender means the same.
            let _ = stopped.await;
        });
    let running = tokio::spawn(async move {
        if let Err(error) = serving.await {
            tracing::error!(%error, "the cluster's port has failed");
        }
    });
    Listening { stop: Mutex::new(Some(stop)), running: Mutex::new(Some(running)), registry }
}

impl Listening {
    /// Closes the port and every connection on it.
    pub async fn stop(&self) {
        if let Some(stop) = self.stop.lock().await.take() {
            // The other end is gone if the server has failed.
            let _ = stop.send(());
        }
        let Some(mut running) = self.running.lock().await.take() else { return };
        if tokio::time::timeout(CLOSING, &mut running).await.is_err() {
            self.registry.cut(|_| true);
            running.abort();
        }
    }
}

/// The gate and everything behind it. The services hold the node weakly: the listeners belong to it.
fn services(node: &Arc<Node>) -> (Gate, Routes) {
    let weak = Arc::downgrade(node);
    let gate = Gate::new(Arc::clone(node.slot()), Arc::new(move || outlook(&weak)));
    let weak = Arc::downgrade(node);
    let agent =
        Agent::new(node.worker()).with_doctor(Box::new(move || doctor::facts(weak.clone())));
    let mut routes = api::add_services(Routes::default(), Arc::clone(node.slot()))
        .add_service(ClusterServiceServer::new(ClusterApi::new(Arc::downgrade(node))))
        .add_service(ContainerServiceServer::new(Containers::new(node.worker())))
        .add_service(LocalNetworkServiceServer::new(Networks::new(node.worker())))
        .add_service(AttachmentServiceServer::new(Attachments::new(node.worker())))
        .add_service(AgentServiceServer::new(agent));
    let (_, health) = tonic_health::server::health_reporter();
    routes = routes.add_service(health);
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    // Python's grpcio and older clients know the version before v1 only.
    match (reflection().build_v1(), reflection().build_v1alpha()) {
        (Ok(v1), Ok(v1alpha)) => {
            routes = routes.add_service(v1).add_service(v1alpha);
        }
        (Err(error), _) | (_, Err(error)) => tracing::error!(%error, "no reflection"),
    }
    (gate, routes)
}

fn outlook(node: &Weak<Node>) -> Outlook {
    let Some(node) = node.upgrade() else { return Outlook::default() };
    Outlook {
        cluster: node.joined().map(|joined| joined.member().cluster.to_string()),
        managers: node.known_managers().iter().map(ToString::to_string).collect(),
    }
}
