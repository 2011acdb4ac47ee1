//! Upstream servers that misbehave on purpose, and clients that talk to a server under test.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hickory_proto::op::Message;
use hickory_proto::rr::rdata::{A, TXT};
use hickory_proto::rr::{RData, Record};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use weft_dns::answer::Transport;
use weft_dns::{Asker, Server, Zones};

/// Longest a test waits for anything; only a failure takes this long.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A server on a loopback port, over UDP and TCP.
pub struct Fake {
    pub address: SocketAddr,
    /// All messages received.
    pub seen: Arc<Mutex<Vec<Vec<u8>>>>,
    _tasks: JoinSet<()>,
}

impl Fake {
    pub fn seen(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

/// `behave` makes the replies to a message, none or several.
pub async fn fake(
    behave: impl Fn(&Message, Transport) -> Vec<Vec<u8>> + Send + Sync + 'static,
) -> Fake {
    let (udp, tcp) = sockets();
    let address = udp.local_addr().unwrap();
    let udp = tokio::net::UdpSocket::from_std(udp).unwrap();
    let tcp = tokio::net::TcpListener::from_std(tcp).unwrap();
    let (seen, behave) = (Arc::new(Mutex::new(Vec::new())), Arc::new(behave));
    let mut tasks = JoinSet::new();
    let (log, act) = (seen.clone(), behave.clone());
    tasks.spawn(async move {
        let mut buffer = [0; 4096];
        while let Ok((length, peer)) = udp.recv_from(&mut buffer).await {
            log.lock().unwrap().push(buffer[..length].to_vec());
            for reply in act(&Message::from_vec(&buffer[..length]).unwrap(), Transport::Udp) {
                udp.send_to(&reply, peer).await.unwrap();
            }
        }
    });
    let log = seen.clone();
    tasks.spawn(async move {
        while let Ok((mut stream, _)) = tcp.accept().await {
            let Some(message) = read_tcp(&mut stream).await else { continue };
            log.lock().unwrap().push(message.clone());
            for reply in behave(&Message::from_vec(&message).unwrap(), Transport::Tcp) {
                let _ = write_tcp(&mut stream, &reply).await;
            }
        }
    });
    Fake { address, seen, _tasks: tasks }
}

/// A UDP socket and a TCP listener on the same loopback port, as in a container.
pub fn sockets() -> (UdpSocket, TcpListener) {
    loop {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        // Another test may have the same number for TCP.
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()) {
            udp.set_nonblocking(true).unwrap();
            tcp.set_nonblocking(true).unwrap();
            return (udp, tcp);
        }
    }
}

/// A reply with the addresses, to the letter of the question.
pub fn good(query: &Message, ttl: u32, addresses: &[[u8; 4]]) -> Message {
    let mut reply = Message::response(query.metadata.id, query.metadata.op_code);
    reply.metadata.recursion_desired = query.metadata.recursion_desired;
    reply.metadata.recursion_available = true;
    reply.add_query(query.queries[0].clone());
    for address in addresses {
        let name = query.queries[0].name().clone();
        reply.add_answer(Record::from_rdata(
            name,
            ttl,
            RData::A(A::from(std::net::Ipv4Addr::from(*address))),
        ));
    }
    reply
}

/// A reply of about 3,000 bytes.
pub fn large(query: &Message) -> Vec<u8> {
    let mut reply = good(query, 60, &[]);
    for at in 0..15 {
        let text = TXT::new(vec![format!("{at}").repeat(100)]);
        let name = query.queries[0].name().clone();
        reply.add_answer(Record::from_rdata(name, 60, RData::TXT(text)));
    }
    reply.to_vec().unwrap()
}

/// A server under test with one sandbox `c1`, and the address it listens on.
pub fn serve(zones: Zones, asker: Asker) -> (Server, SocketAddr) {
    let server = Server::new(zones, Handle::current());
    let address = add(&server, "c1", asker);
    (server, address)
}

pub fn add(server: &Server, key: &str, asker: Asker) -> SocketAddr {
    let (udp, tcp) = sockets();
    let address = udp.local_addr().unwrap();
    server.add(key, asker, udp, tcp).unwrap();
    address
}

pub async fn client(server: SocketAddr) -> tokio::net::UdpSocket {
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(server).await.unwrap();
    socket
}

pub async fn receive(socket: &tokio::net::UdpSocket) -> Option<Vec<u8>> {
    let mut buffer = [0; 4096];
    let length = tokio::time::timeout(PATIENCE, socket.recv(&mut buffer)).await.ok()?.ok()?;
    Some(buffer[..length].to_vec())
}

pub async fn ask_udp(server: SocketAddr, query: &Message) -> Message {
    let socket = client(server).await;
    socket.send(&query.to_vec().unwrap()).await.unwrap();
    let reply = receive(&socket).await.expect("a reply in time");
    Message::from_vec(&reply).unwrap()
}

pub async fn ask_tcp(server: SocketAddr, query: &Message) -> Message {
    let mut stream = TcpStream::connect(server).await.unwrap();
    write_tcp(&mut stream, &query.to_vec().unwrap()).await.unwrap();
    Message::from_vec(&read_tcp(&mut stream).await.expect("a reply in time")).unwrap()
}

pub async fn write_tcp(stream: &mut TcpStream, message: &[u8]) -> std::io::Result<()> {
    let mut bytes = (message.len() as u16).to_be_bytes().to_vec();
    bytes.extend_from_slice(message);
    stream.write_all(&bytes).await
}

/// One message; none if the connection ends first.
pub async fn read_tcp(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let read = async {
        let mut length = [0; 2];
        stream.read_exact(&mut length).await.ok()?;
        let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut message).await.ok()?;
        Some(message)
    };
    tokio::time::timeout(PATIENCE, read).await.expect("a message or an end in time")
}

/// Whether the other side ends the connection in time.
pub async fn is_closed(stream: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    let end = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
    end.is_ok()
}
