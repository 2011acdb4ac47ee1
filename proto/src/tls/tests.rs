//! Both sides together: who gets in, who does not, and what strangers cannot do.

mod acceptor;
mod handshake;
mod swap;
mod unix;

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::service::InterceptorLayer;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower::Layer as _;

use super::accept::{AcceptLimits, Listener, incoming};
use super::address::HostPort;
use super::config::server_config;
use super::connection::peer_of;
use super::live::LiveIdentity;
use super::peer::Peer;
use super::registry::Registry;
use super::serve;

/// Longest wait for anything that must happen.
const DEADLINE: Duration = Duration::from_secs(10);

/// A manager with a health service, that tells who called.
struct TestServer {
    address: SocketAddr,
    seen: mpsc::UnboundedReceiver<Option<Peer>>,
    registry: Registry,
    serving: JoinSet<()>,
}

impl TestServer {
    async fn start(live: &LiveIdentity, limits: AcceptLimits) -> Self {
        Self::start_on(live, limits, |listener| listener).await
    }

    async fn start_on<L: Listener>(
        live: &LiveIdentity,
        limits: AcceptLimits,
        wrap: impl FnOnce(TcpListener) -> L,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let incoming = incoming(wrap(listener), server_config(live), limits);
        let registry = incoming.registry();
        let (sender, seen) = mpsc::unbounded_channel();
        let (_, health) = tonic_health::server::health_reporter();
        let health = InterceptorLayer::new(move |request: tonic::Request<()>| {
            sender.send(peer_of(&request).cloned()).unwrap();
            Ok(request)
        })
        .layer(health);
        let mut serving = JoinSet::new();
        serving.spawn(async {
            serve::server().add_service(health).serve_with_incoming(incoming).await.unwrap();
        });
        Self { address, seen, registry, serving }
    }

    fn host_port(&self) -> HostPort {
        self.address.to_string().parse().unwrap()
    }

    /// The caller of the next request.
    async fn next_peer(&mut self) -> Option<Peer> {
        tokio::time::timeout(DEADLINE, self.seen.recv()).await.unwrap().unwrap()
    }
}

async fn call(channel: &Channel) -> Result<(), tonic::Status> {
    let request = HealthCheckRequest { service: String::new() };
    let call = HealthClient::new(channel.clone());
    tokio::time::timeout(DEADLINE, async { { call }.check(request).await }).await.unwrap()?;
    Ok(())
}

/// Everything an error says, down to its first cause.
fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

/// Looks again until `condition` holds.
async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, waiting).await.is_ok(), "never: {what}");
}
