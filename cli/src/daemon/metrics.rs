//! `--metrics-addr`: what the daemon tells a Prometheus server at `/metrics`, in the OpenMetrics format.
//!
//! Nothing is collected while nobody asks. One answer is put together at a time; who asks meanwhile waits.

mod cluster;

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Weak},
    time::Duration,
};

use anyhow::Context as _;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Mutex,
    task::JoinSet,
};
use weft_worker::metrics::{self, Family, Series};

use super::node::Node;

/// Where the metrics are.
const PATH: &str = "/metrics";
/// What is served there (OpenMetrics 1.0.0, "Text format").
const CONTENT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Most connections at once; later ones wait to be taken.
const CONNECTIONS: usize = 16;
/// How long a client may take to say what it wants.
const HEAD: Duration = Duration::from_secs(5);
/// How long a connection may last; Prometheus opens another.
const LIFE: Duration = Duration::from_secs(300);
/// Before another connection is taken, when the process has no file descriptor left for one.
const PAUSE: Duration = Duration::from_millis(100);

/// Binds the address, so that one in use refuses the daemon's start.
///
/// # Errors
/// When it cannot be bound.
pub async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot serve metrics on {address} (--metrics-addr)"))
}

/// Serves for ever; connections end with the future.
pub async fn serve(listener: TcpListener, node: Weak<Node>) {
    let scraper = Arc::new(Scraper { node, one: Mutex::new(()) });
    let mut connections = JoinSet::new();
    loop {
        while connections.len() >= CONNECTIONS {
            connections.join_next().await;
        }
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(connections.spawn(connection(stream, Arc::clone(&scraper)))),
                Err(error) => {
                    tracing::debug!(%error, "accept for metrics");
                    tokio::time::sleep(PAUSE).await;
                }
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

async fn connection(stream: TcpStream, scraper: Arc<Scraper>) {
    let answer = service_fn(move |request| {
        let scraper = Arc::clone(&scraper);
        async move { Ok::<_, Infallible>(scraper.answer(&request).await) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD);
    let serving = http.serve_connection(TokioIo::new(stream), answer);
    // A client that goes away, or speaks no HTTP, is no concern of ours.
    let _ = tokio::time::timeout(LIFE, serving).await;
}

struct Scraper {
    node: Weak<Node>,
    one: Mutex<()>,
}

impl Scraper {
    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if request.uri().path() != PATH {
            return plain(StatusCode::NOT_FOUND, "metrics are at /metrics\n");
        }
        if ![Method::GET, Method::HEAD].contains(request.method()) {
            return plain(StatusCode::METHOD_NOT_ALLOWED, "GET only\n");
        }
        let Some(node) = self.node.upgrade() else {
            return plain(StatusCode::SERVICE_UNAVAILABLE, "the daemon is stopping\n");
        };
        let _one = self.one.lock().await;
        match metrics::text(collect(&node).await) {
            Ok(text) => {
                let mut response = Response::new(Full::from(text));
                let content = header::HeaderValue::from_static(CONTENT);
                response.headers_mut().insert(header::CONTENT_TYPE, content);
                response
            }
            Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")),
        }
    }
}

fn plain(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text.to_owned()));
    *response.status_mut() = status;
    response
}

/// Everything: the program, the worker, and on a manager the cluster.
async fn collect(node: &Node) -> Vec<Family> {
    let mut all = vec![build()];
    let reading = metrics::read(node.worker(), &node.settings().run_dir).await;
    all.extend(metrics::families(&reading));
    all.extend(cluster::membership(node));
    if let Some(manager) = node.manager() {
        all.extend(cluster::families(&manager));
    }
    all
}

fn build() -> Family {
    let labels = vec![
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("os", std::env::consts::OS.to_owned()),
        ("arch", std::env::consts::ARCH.to_owned()),
    ];
    Family {
        name: "build",
        help: "The program that answers",
        unit: None,
        series: Series::Info(labels),
    }
}
