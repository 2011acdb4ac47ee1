//! Sockets bound in a container's network namespace and served from the host's.

use std::net::{TcpListener, UdpSocket};
use std::process::Command;
use std::sync::mpsc;

use hickory_proto::op::Message;
use hickory_proto::rr::RecordType;
use nix::sched::{CloneFlags, unshare};
use weft_dns::{Server, Synced};

use crate::fake::PATIENCE;
use crate::support::{asker, ip, message, zones};

/// The part that lives in the namespace, which ends with its thread and its sockets. It hands its
/// sockets to `served`, and asks once they are.
fn container(hand_over: mpsc::Sender<(UdpSocket, TcpListener)>, served: mpsc::Receiver<()>) {
    unshare(CloneFlags::CLONE_NEWNET).expect("the tests run as root");
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap();
    assert!(up.success());
    let udp = UdpSocket::bind("127.0.0.11:40053").unwrap();
    let tcp = TcpListener::bind("127.0.0.11:40053").unwrap();
    hand_over.send((udp, tcp)).unwrap();
    served.recv_timeout(PATIENCE).unwrap();

    let connect = |from: &str| {
        let socket = UdpSocket::bind(from).unwrap();
        socket.connect("127.0.0.11:40053").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    };
    let query = message("web.", RecordType::A).to_vec().unwrap();
    // A server's port, and the resolver's own number on another address.
    let servers = [connect("127.0.0.1:53"), connect("127.0.0.1:40053")];
    for socket in &servers {
        socket.send(&query).unwrap();
    }
    let client = connect("127.0.0.1:0");
    client.send(&query).unwrap();
    let mut buffer = [0; 512];
    let length = client.recv(&mut buffer).unwrap();
    let reply = Message::from_vec(&buffer[..length]).unwrap();
    assert_eq!(reply.answers[0].data.ip_addr(), Some(ip("10.0.1.10")));
    // They were asked first, so their replies would be here before.
    for socket in servers {
        socket.set_nonblocking(true).unwrap();
        assert!(socket.recv(&mut buffer).is_err(), "answered to {:?}", socket.local_addr());
    }
}

#[tokio::test]
async fn a_container_is_served_from_the_host() {
    let (hand_over, sockets) = mpsc::channel();
    let (tell, served) = mpsc::channel();
    let inside = std::thread::spawn(move || container(hand_over, served));
    let (udp, tcp) = sockets.recv_timeout(PATIENCE).unwrap();
    let handle = tokio::runtime::Handle::current();
    let server = Server::new(zones(Synced::Complete), handle);
    server.add("c1", asker(&["n1"]), udp, tcp).unwrap();
    tell.send(()).unwrap();
    let result = tokio::task::spawn_blocking(move || inside.join()).await.unwrap();
    assert!(result.is_ok(), "{result:?}");
}
