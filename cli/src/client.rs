//! The connection to a daemon: finding it, and asking again while the cluster has no leader.

use std::{future::Future, path::Path, time::Duration};

use tokio::{net::TcpStream, net::UnixStream, time::Instant};
use tonic::{Code, Status, transport::Channel};
use weft_proto::{
    tls::{self, HostPort, Identity, LiveIdentity},
    v1::{
        agent_service_client::AgentServiceClient,
        attachment_service_client::AttachmentServiceClient,
        cluster_service_client::ClusterServiceClient,
        container_service_client::ContainerServiceClient,
        local_network_service_client::LocalNetworkServiceClient,
        network_service_client::NetworkServiceClient, node_service_client::NodeServiceClient,
        service_service_client::ServiceServiceClient, task_service_client::TaskServiceClient,
        watch_service_client::WatchServiceClient,
    },
};

use crate::{
    args::Connection,
    error::{CliError, refusal},
};

/// How long a write is repeated, with the same request id, while nobody can take it. An election
/// takes a second or two.
pub const RETRY_FOR: Duration = Duration::from_secs(10);
/// The first pause between two tries; each next one is twice as long, up to [`MAX_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_secs(1);
/// Longest wait for a TCP connection to a daemon elsewhere.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest answer that is taken: a list of all tasks of a large cluster fits.
const MAX_ANSWER: usize = 256 * 1024 * 1024;

/// A daemon that answered when it was called.
#[derive(Debug, Clone)]
pub struct Client {
    channel: Channel,
    uri: String,
    retry_for: Duration,
}

macro_rules! stubs {
    ($($(#[$doc:meta])* $name:ident -> $stub:ident;)*) => {
        impl Client {
            $($(#[$doc])*
            pub fn $name(&self) -> $stub<Channel> {
                $stub::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER)
            })*
        }
    };
}

stubs! {
    /// The cluster as such.
    cluster -> ClusterServiceClient;
    /// Nodes.
    nodes -> NodeServiceClient;
    /// Networks.
    networks -> NetworkServiceClient;
    /// Networks of the node asked.
    local_networks -> LocalNetworkServiceClient;
    /// Services.
    services -> ServiceServiceClient;
    /// Tasks.
    tasks -> TaskServiceClient;
    /// Changes of objects.
    watch -> WatchServiceClient;
    /// Containers of the node asked.
    containers -> ContainerServiceClient;
    /// Namespaces of others on the node asked.
    attachments -> AttachmentServiceClient;
    /// What the node asked knows of itself.
    agent -> AgentServiceClient;
}

impl Client {
    /// Calls the daemon once, so that an absent one is told from one that refuses.
    pub async fn connect(connection: &Connection) -> Result<Self, CliError> {
        let uri = connection.host.clone();
        let channel = match uri.split_once("://") {
            Some(("unix", path)) => unix(&uri, path).await?,
            Some(("tcp", address)) => tcp(&uri, address, connection).await?,
            _ => {
                let why = format!("{uri:?}: expected unix:///PATH or tcp://HOST:PORT");
                return Err(CliError::usage("--host", why));
            }
        };
        Ok(Self { channel, uri, retry_for: RETRY_FOR })
    }

    /// The same connection with another patience.
    #[must_use]
    pub fn retrying_for(mut self, span: Duration) -> Self {
        self.retry_for = span;
        self
    }

    /// Calls until the answer is other than "nobody can take it now", for at most the patience of
    /// this client. `call` must send the same request id each time.
    pub async fn ask<T, F>(&self, what: &str, call: impl FnMut() -> F) -> Result<T, CliError>
    where
        F: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        match self.try_ask(call).await {
            Ok(answer) => Ok(answer),
            Err(status) => Err(self.refused(what, &status)),
        }
    }

    /// As [`Client::ask`], with the bare status of a refusal.
    pub async fn try_ask<T, F>(&self, mut call: impl FnMut() -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        let give_up = Instant::now() + self.retry_for;
        let mut pause = FIRST_PAUSE;
        loop {
            match call().await {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(status)
                    if status.code() == Code::Unavailable && Instant::now() + pause < give_up =>
                {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(MAX_PAUSE);
                }
                Err(status) => return Err(status),
            }
        }
    }

    /// The error for a refusal, or for a daemon that went away.
    pub fn refused(&self, what: &str, status: &Status) -> CliError {
        match transport_reason(status) {
            Some(why) => CliError::Unreachable { uri: self.uri.clone(), why },
            None => refusal(what, status),
        }
    }
}

/// The innermost reason, if the connection failed and no answer came.
fn transport_reason(status: &Status) -> Option<String> {
    let mut source = std::error::Error::source(status)?;
    source.downcast_ref::<tonic::transport::Error>()?;
    while let Some(deeper) = source.source() {
        source = deeper;
    }
    Some(source.to_string())
}

async fn unix(uri: &str, path: &str) -> Result<Channel, CliError> {
    let unreachable = |error: std::io::Error| CliError::Unreachable {
        uri: uri.to_owned(),
        why: error_words(&error),
    };
    UnixStream::connect(path).await.map_err(unreachable)?;
    Ok(tls::unix_channel(Path::new(path)))
}

async fn tcp(uri: &str, address: &str, connection: &Connection) -> Result<Channel, CliError> {
    let address: HostPort =
        address.parse().map_err(|error| CliError::usage(format!("--host {uri}"), error))?;
    let identity = identity(connection)?;
    let unreachable = |why: String| CliError::Unreachable { uri: uri.to_owned(), why };
    let dial = TcpStream::connect((address.host(), address.port()));
    match tokio::time::timeout(CONNECT_TIMEOUT, dial).await {
        Ok(Ok(_)) => Ok(tls::channel(&LiveIdentity::new(identity), &address)),
        Ok(Err(error)) => Err(unreachable(error_words(&error))),
        Err(_) => Err(unreachable(format!("no answer within {CONNECT_TIMEOUT:?}"))),
    }
}

fn identity(connection: &Connection) -> Result<Identity, CliError> {
    let read = |flag: &str, file: &Option<std::path::PathBuf>| match file {
        None => Err(CliError::usage(flag, "needed with tcp://")),
        Some(path) => std::fs::read_to_string(path)
            .map_err(|source| CliError::Io { what: format!("{flag} {}", path.display()), source }),
    };
    let roots = read("--tls-ca", &connection.tls_ca)?;
    let chain = read("--tls-cert", &connection.tls_cert)?;
    let key = read("--tls-key", &connection.tls_key)?;
    Identity::from_pem(&chain, &key, &roots)
        .map_err(|error| CliError::usage("--tls-ca, --tls-cert, --tls-key", chain_words(&error)))
}

fn chain_words(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(deeper) = next {
        text = format!("{text}: {deeper}");
        next = deeper.source();
    }
    text
}

/// The system's words without "(os error N)".
fn error_words(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}

/// A request id: 32 random hex digits.
pub fn request_id() -> String {
    format!("{:032x}", rand::random::<u128>())
}
