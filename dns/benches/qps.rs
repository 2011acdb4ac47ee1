//! Queries a second of one server thread on loopback: `cargo bench -p weft-dns`.
//!
//! One client thread keeps a window of queries open against a current-thread runtime. Next to the
//! rate it prints the processor time the server thread spends on a query, which is what stays the
//! same when client and server share a busy machine.

#![allow(clippy::unwrap_used, reason = "a benchmark may fail")]

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use weft_dns::asker::Outside;
use weft_dns::{Asker, Elsewhere, NetworkNames, Server, Synced, Zones};

const NAMES: u16 = 1_000;
const RUN: Duration = Duration::from_secs(3);

fn zones() -> Zones {
    let names: BTreeMap<String, Vec<IpAddr>> = (0..NAMES)
        .map(|at| (format!("service-{at}"), (1..=3).map(|host| address(at, host)).collect()))
        .collect();
    let network = NetworkNames {
        key: "n1".into(),
        name: "front".into(),
        subnets: vec!["10.0.0.0/8".parse().unwrap()],
        names,
        reverse: BTreeMap::new(),
    };
    Zones::new([network], Elsewhere::default(), Synced::Complete)
}

fn address(at: u16, host: u8) -> IpAddr {
    let [high, low] = at.to_be_bytes();
    [10, high, low, host].into()
}

fn query(name: &str) -> Vec<u8> {
    let mut message = Message::new(1, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    let mut edns = Edns::new();
    edns.set_max_payload(1232);
    message.edns = Some(edns);
    message.to_vec().unwrap()
}

/// Processor time of the calling thread (first field of schedstat, nanoseconds).
fn cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split_whitespace().next().unwrap().parse().unwrap())
}

/// Serves until told to stop; sends the processor time it took.
fn server(udp: UdpSocket, tcp: TcpListener, stop: tokio::sync::oneshot::Receiver<()>) -> Duration {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let server = Server::new(zones(), tokio::runtime::Handle::current());
        server.add("bench", asker(), udp, tcp).unwrap();
        let before = cpu();
        let _ = stop.await;
        cpu() - before
    })
}

/// Keeps `window` queries open; how many were answered.
fn client(address: SocketAddr, window: usize) -> (u64, Duration) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let queries: Vec<_> = (0..NAMES).map(|at| query(&format!("service-{at}.front."))).collect();
    let mut next = queries.iter().cycle();
    let (start, mut answered, mut buffer) = (Instant::now(), 0, [0; 1500]);
    for query in next.by_ref().take(window) {
        socket.send(query).unwrap();
    }
    while start.elapsed() < RUN {
        if socket.recv(&mut buffer).is_ok() {
            answered += 1;
        }
        socket.send(next.next().unwrap()).unwrap();
    }
    (answered, start.elapsed())
}

/// Asks one query after the other on one sandbox while another sends noise without pause; the
/// 50th, the 99th and the worst of the times it took.
fn neighbour() -> [Duration; 3] {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(1).enable_all().build().unwrap();
    let server = Server::new(zones(), runtime.handle().clone());
    let [noisy, quiet] = ["noisy", "quiet"].map(|key| {
        let (udp, tcp) = sockets();
        let address = udp.local_addr().unwrap();
        server.add(key, asker(), udp, tcp).unwrap();
        address
    });
    let (tell, stop) = mpsc::channel::<()>();
    let noise = std::thread::spawn(move || {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        while stop.try_recv() == Err(mpsc::TryRecvError::Empty) {
            let _ = socket.send_to(&[0x55; 64], noisy);
        }
    });
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(quiet).unwrap();
    let (query, start, mut times) = (query("service-1.front."), Instant::now(), Vec::new());
    while start.elapsed() < RUN {
        let sent = Instant::now();
        socket.send(&query).unwrap();
        socket.recv(&mut [0; 1500]).unwrap();
        times.push(sent.elapsed());
        // A client that asks now and then, so that it does not crowd the processor itself.
        std::thread::sleep(Duration::from_millis(1));
    }
    drop(tell);
    noise.join().unwrap();
    times.sort();
    [times[times.len() / 2], times[times.len() * 99 / 100], times[times.len() - 1]]
}

fn asker() -> Asker {
    Asker { networks: vec!["n1".into()], outside: Outside::Closed, ..Asker::default() }
}

fn sockets() -> (UdpSocket, TcpListener) {
    (UdpSocket::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap())
}

fn main() {
    for window in [1, 64] {
        let (udp, tcp) = sockets();
        let address = udp.local_addr().unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (done, result) = mpsc::channel();
        std::thread::spawn(move || done.send(server(udp, tcp, stopped)).unwrap());
        let (answered, elapsed) = client(address, window);
        stop.send(()).unwrap();
        let each = result.recv().unwrap().as_secs_f64() * 1e6 / answered as f64;
        let rate = answered as f64 / elapsed.as_secs_f64();
        println!(
            "window {window:>2}: {rate:>7.0} queries/s, {each:.2} us of the server thread each"
        );
    }
    let [median, high, worst] = neighbour();
    println!("next to a flood: median {median:?}, 99th {high:?}, worst {worst:?}");
}
