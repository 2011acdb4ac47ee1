//! What strangers send, and what they hold open.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::*;
use crate::tls::budget::Shares;
use crate::tls::config::client_config;
use crate::tls::connect::{KEEPALIVE_INTERVAL, anonymous_channel, bootstrap_channel, channel};
use crate::tls::testing::{Stopped, TestCa};

/// Short for a test, long for a handshake on a busy machine.
const SOON: Duration = Duration::from_millis(300);

struct Lab {
    ca: TestCa,
    worker: LiveIdentity,
    server: TestServer,
}

impl Lab {
    async fn new(limits: AcceptLimits) -> Self {
        let ca = TestCa::new("c1");
        let worker = LiveIdentity::new(ca.worker("w1"));
        let server = TestServer::start(&LiveIdentity::new(ca.manager("m1")), limits).await;
        Self { ca, worker, server }
    }

    async fn tcp(&self) -> TcpStream {
        TcpStream::connect(self.server.address).await.unwrap()
    }

    fn channel(&self) -> Channel {
        channel(&self.worker, &self.server.host_port())
    }
}

/// Reads until the other side ends the connection, in whatever way.
async fn wait_for_end(mut stream: impl AsyncRead + Unpin) {
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "the connection stayed open");
}

#[tokio::test]
async fn garbage_hurts_nobody() {
    let lab = Lab::new(AcceptLimits::default()).await;
    let hello_that_lies_about_its_length = [0x16, 3, 1, 0xff, 0xff, 1, 0xff, 0xff, 0xff];
    let cases: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &[0xff; 4096],
        &hello_that_lies_about_its_length,
        &[0x15, 3, 3, 0, 2, 2, 40],
    ];
    let open = lab.channel();
    call(&open).await.unwrap();
    for bytes in cases {
        let mut stream = lab.tcp().await;
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        wait_for_end(stream).await;
        call(&open).await.unwrap();
        call(&lab.channel()).await.unwrap();
    }
}

#[tokio::test]
async fn a_stalled_handshake_is_ended_and_holds_up_nobody() {
    let limits = AcceptLimits { handshake: SOON, ..AcceptLimits::default() };
    let lab = Lab::new(limits).await;
    let silent = lab.tcp().await;
    let mut half = lab.tcp().await;
    half.write_all(&[0x16, 3, 1, 2, 0]).await.unwrap();
    call(&lab.channel()).await.unwrap();
    wait_for_end(silent).await;
    wait_for_end(half).await;
}

#[tokio::test]
async fn more_handshakes_than_allowed_wait_for_their_turn() {
    let limits = AcceptLimits { handshakes: 1, handshake: SOON, ..AcceptLimits::default() };
    let lab = Lab::new(limits).await;
    let start = Instant::now();
    let stalled = lab.tcp().await;
    call(&lab.channel()).await.unwrap();
    assert!(start.elapsed() >= SOON, "the second handshake did not wait for the first");
    wait_for_end(stalled).await;
}

#[tokio::test]
async fn a_source_over_its_limit_is_turned_away_until_it_lets_go() {
    let shares = Shares { per_source: 2, ..AcceptLimits::default().shares };
    let limits = AcceptLimits { shares, ..AcceptLimits::default() };
    let lab = Lab::new(limits).await;
    let proven = lab.channel();
    call(&proven).await.unwrap();
    let held = [lab.tcp().await, lab.tcp().await];
    wait_for_end(lab.tcp().await).await;
    call(&proven).await.unwrap();
    drop(held);
    let waiting = async {
        while call(&lab.channel()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, waiting).await.unwrap();
}

#[tokio::test]
async fn a_client_that_never_speaks_http2_is_ended() {
    let limits = AcceptLimits { prologue: SOON, ..AcceptLimits::default() };
    let lab = Lab::new(limits).await;
    let name = rustls::pki_types::ServerName::try_from("weft-manager").unwrap();
    let connector = TlsConnector::from(client_config(&lab.worker));
    let mut stream = connector.connect(name, lab.tcp().await).await.unwrap();
    stream.write_all(b"PRI * HTTP").await.unwrap();
    wait_for_end(stream).await;
    // Whoever speaks it may be silent afterwards for longer than that.
    let open = lab.channel();
    call(&open).await.unwrap();
    tokio::time::sleep(SOON * 2).await;
    let connections = lab.server.registry.open();
    assert_eq!(connections.len(), 1);
    call(&open).await.unwrap();
    assert_eq!(lab.server.registry.open(), connections, "it is still the same connection");
}

#[tokio::test]
async fn a_connection_without_a_certificate_lives_only_briefly() {
    let limits = AcceptLimits { anonymous: SOON, ..AcceptLimits::default() };
    let mut lab = Lab::new(limits).await;
    let (known, unknown) = (lab.channel(), anonymous_channel(&lab.worker, &lab.server.host_port()));
    call(&known).await.unwrap();
    assert_eq!(lab.server.next_peer().await, Some(lab.worker.subject()));
    call(&unknown).await.unwrap();
    assert_eq!(lab.server.next_peer().await, None);
    let registry = lab.server.registry.clone();
    eventually("the anonymous one is ended", || registry.open().len() == 1).await;
    assert!(registry.open()[0].peer.is_some());
}

#[tokio::test]
async fn a_connection_ends_with_the_certificate_it_was_made_with() {
    let ca = TestCa::new("c1");
    let worker = LiveIdentity::new(ca.worker("w1"));
    // The server's clock stands one second before the end.
    let almost = Stopped(worker.subject().not_after - Duration::from_secs(1));
    let manager = LiveIdentity::with_clock(ca.manager("m1"), Arc::new(almost));
    let mut server = TestServer::start(&manager, AcceptLimits::default()).await;
    let open = channel(&worker, &server.host_port());
    call(&open).await.unwrap();
    assert_eq!(server.next_peer().await, Some(worker.subject()));
    assert_eq!(server.registry.open().len(), 1);
    let registry = server.registry.clone();
    eventually("the connection is over", || registry.open().is_empty()).await;
}

#[tokio::test]
async fn the_connections_of_a_removed_node_are_cut_at_once() {
    let lab = Lab::new(AcceptLimits::default()).await;
    let other = LiveIdentity::new(lab.ca.worker("w2"));
    let other = channel(&other, &lab.server.host_port());
    call(&other).await.unwrap();
    let request = HealthCheckRequest { service: String::new() };
    let mut stream = HealthClient::new(lab.channel()).watch(request).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().is_some());
    assert_eq!(lab.server.registry.cut_node("w1"), 1);
    // Sooner than keep-alive would find out by itself.
    let end = tokio::time::timeout(KEEPALIVE_INTERVAL / 2, stream.message()).await.unwrap();
    assert!(!matches!(end, Ok(Some(_))), "the stream goes on");
    let registry = lab.server.registry.clone();
    eventually("it has left the table", || registry.open().len() == 1).await;
    call(&other).await.unwrap();
}

/// A listener of a process that has run out of file descriptors for a while.
struct Exhausted {
    failures: u32,
    inner: TcpListener,
}

impl Listener for Exhausted {
    type Io = TcpStream;

    async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        if self.failures > 0 {
            self.failures -= 1;
            // EMFILE, accept(2).
            return Err(io::Error::from_raw_os_error(24));
        }
        Listener::accept(&mut self.inner).await
    }
}

#[tokio::test]
async fn running_out_of_file_descriptors_passes() {
    let ca = TestCa::new("c1");
    let manager = LiveIdentity::new(ca.manager("m1"));
    let exhausted = |inner| Exhausted { failures: 4, inner };
    let server = TestServer::start_on(&manager, AcceptLimits::default(), exhausted).await;
    let worker = LiveIdentity::new(ca.worker("w1"));
    call(&channel(&worker, &server.host_port())).await.unwrap();
}

#[tokio::test]
async fn dropping_the_stream_closes_the_door() {
    let mut lab = Lab::new(AcceptLimits::default()).await;
    let silent = lab.tcp().await;
    lab.server.serving.shutdown().await;
    wait_for_end(silent).await;
    let address = lab.server.address;
    let waiting = async { while TcpStream::connect(address).await.is_ok() {} };
    tokio::time::timeout(DEADLINE, waiting).await.unwrap();
    let error = call(&lab.channel()).await.unwrap_err();
    assert!(whole(&error).contains("cannot connect to 127.0.0.1:"), "{}", whole(&error));
}

#[tokio::test]
async fn the_caller_learns_what_was_reached() {
    let ca = TestCa::new("c1");
    let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: HostPort = plain.local_addr().unwrap().to_string().parse().unwrap();
    let _answering = answer_as_a_web_server(plain);
    let worker = LiveIdentity::new(ca.worker("w1"));
    let error = call(&channel(&worker, &address)).await.unwrap_err();
    let text = whole(&error);
    assert!(text.contains("not a manager of this cluster"), "{text}");
    let lab = Lab::new(AcceptLimits::default()).await;
    let token = TestCa::new("c1").token();
    let error = call(&bootstrap_channel(&token, &lab.server.host_port())).await.unwrap_err();
    let text = whole(&error);
    assert!(text.contains("did not present the root certificate that the join token"), "{text}");
}

/// Answers every connection as a web server would.
fn answer_as_a_web_server(listener: TcpListener) -> JoinSet<()> {
    let mut answering = JoinSet::new();
    answering.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
            // The caller may have gone already; it has its answer or its error.
            drop(answer);
        }
    });
    answering
}
