//! Ports of the host that lead to a container. Every test is in a network namespace of its own.

use std::net::SocketAddr;
use std::process::Command;

use nix::sched::{CloneFlags, unshare};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use weft_worker::container::{ContainerId, Error, HostPort, NetNamespace, Protocol, Runtime};

use crate::lab::{Lab, block_on};

/// Takes the calling thread, and all that it starts, off the machine's network.
fn alone() {
    unshare(CloneFlags::CLONE_NEWNET).expect("unshare");
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status().expect("ip");
    assert!(up.success());
}

fn port(protocol: Protocol, listen: &str, target: u16) -> HostPort {
    let listen: SocketAddr = listen.parse().expect("an address");
    let target = if listen.is_ipv4() {
        SocketAddr::from(([127, 0, 0, 1], target))
    } else {
        SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, target))
    };
    HostPort { protocol, listen, target }
}

fn tcp(listen: &str, target: u16) -> HostPort {
    port(Protocol::Tcp, listen, target)
}

/// A container that sleeps, and a thread in its network namespace that runs `inside`.
async fn with_inside<F: Future<Output = ()> + 'static>(
    lab: &Lab,
    inside: impl FnOnce() -> F + Send + 'static,
) -> (ContainerId, i32) {
    let (id, pid) = lab.started(lab.config("a", &["sleep", "1000"])).await;
    let netns = std::fs::File::open(format!("/proc/{pid}/ns/net")).expect("netns");
    let (told, ready) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        nix::sched::setns(netns, CloneFlags::CLONE_NEWNET).expect("setns");
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(async {
            let work = inside();
            told.send(()).expect("somebody waits");
            work.await;
        });
    });
    ready.await.expect("it runs");
    (id, pid)
}

/// Sends everything back, and says `bye` at the end.
async fn echo(listener: TcpListener) {
    loop {
        let (mut stream, _) = listener.accept().await.expect("accept");
        tokio::spawn(async move {
            let mut buffer = vec![0; 64 << 10];
            while let Ok(n @ 1..) = stream.read(&mut buffer).await {
                if stream.write_all(&buffer[..n]).await.is_err() {
                    return;
                }
            }
            let _ = stream.write_all(b"bye").await;
        });
    }
}

fn listener(address: &str) -> TcpListener {
    let listener = std::net::TcpListener::bind(address).expect("bind");
    listener.set_nonblocking(true).expect("nonblocking");
    TcpListener::from_std(listener).expect("listener")
}

async fn talk(to: &str, text: &[u8]) -> Vec<u8> {
    let (mut read, mut write) = TcpStream::connect(to).await.expect("connect").into_split();
    let said = async {
        write.write_all(text).await.expect("write");
        write.shutdown().await.expect("half-close");
    };
    let mut back = Vec::new();
    let (_, read) = tokio::join!(said, read.read_to_end(&mut back));
    read.expect("read");
    back
}

#[test]
fn tcp_goes_both_ways_on_both_families_with_half_close() {
    alone();
    let lab = Lab::new("tcp");
    block_on(async {
        let (id, _) = with_inside(&lab, || async {
            let (four, six) = (listener("127.0.0.1:80"), listener("[::1]:80"));
            tokio::join!(echo(four), echo(six));
        })
        .await;
        let ports = [tcp("0.0.0.0:8080", 80), tcp("[::]:8080", 80), tcp("127.0.0.1:8081", 81)];
        lab.embedded.publish(&id, &ports).await.expect("publish");
        // More than all buffers on the way.
        let text: Vec<u8> = (0..8_000_000u32).map(|n| (n % 251) as u8).collect();
        for to in ["127.0.0.1:8080", "[::1]:8080"] {
            let back = talk(to, &text).await;
            assert!(back[..text.len()] == text && back.ends_with(b"bye"), "{to}: {}", back.len());
        }
        let many = (0..200).map(|_| talk("127.0.0.1:8080", b"hello"));
        for back in futures::future::join_all(many).await {
            assert_eq!(back, b"hellobye");
        }
        // Where nobody listens the connection ends.
        let mut nobody = TcpStream::connect("127.0.0.1:8081").await.expect("the shim accepts");
        assert!(matches!(nobody.read(&mut [0; 1]).await, Ok(0) | Err(_)));
        let shim = lab.embedded.status(&id).await.expect("status").shim_pid;
        let fds = || std::fs::read_dir(format!("/proc/{shim}/fd")).expect("fd").count();
        crate::lab::eventually("all connections are closed", || fds() < 32).await;
    });
}

#[test]
fn a_datagram_comes_back_to_its_sender() {
    alone();
    let lab = Lab::new("udp");
    block_on(async {
        let (id, _) = with_inside(&lab, || {
            let socket = std::net::UdpSocket::bind("127.0.0.1:53").expect("bind");
            socket.set_nonblocking(true).expect("nonblocking");
            let socket = UdpSocket::from_std(socket).expect("socket");
            async move {
                let mut buffer = [0; 2048];
                loop {
                    let (n, from) = socket.recv_from(&mut buffer).await.expect("recv");
                    socket.send_to(&buffer[..n], from).await.expect("send");
                }
            }
        })
        .await;
        let ports = [port(Protocol::Udp, "0.0.0.0:5353", 53)];
        lab.embedded.publish(&id, &ports).await.expect("publish");
        for n in 0..1100u32 {
            // More senders than are remembered.
            let socket = UdpSocket::bind("127.0.0.1:0").await.expect("bind");
            socket.connect("127.0.0.1:5353").await.expect("connect");
            for text in [n.to_string(), String::new()] {
                socket.send(text.as_bytes()).await.expect("send");
                let mut buffer = [0; 64];
                let got = socket.recv(&mut buffer).await.expect("recv");
                assert_eq!(&buffer[..got], text.as_bytes());
            }
        }
    });
}

#[test]
fn a_port_that_cannot_be_had_is_named_and_the_others_stay() {
    alone();
    let lab = Lab::new("taken");
    block_on(async {
        let config = lab.config("a", &["sleep", "1000"]);
        let id = config.id.clone();
        lab.embedded.create(config).await.expect("create");
        let good = tcp("127.0.0.1:7000", 80);
        lab.embedded.publish(&id, &[good]).await.expect("before the start");
        let _taken = listener("127.0.0.1:7001");
        for bad in [tcp("127.0.0.1:7001", 80), tcp("192.0.2.1:7002", 80)] {
            let error =
                lab.embedded.publish(&id, &[bad, tcp("127.0.0.1:7003", 1)]).await.expect_err("no");
            let named = matches!(error, Error::PortInUse { listen, protocol: Protocol::Tcp, .. }
                if listen == bad.listen);
            assert!(named, "{error}");
        }
        // What was there is, and what came with the bad one is not.
        let again = std::net::TcpListener::bind("127.0.0.1:7000").expect_err("taken by the shim");
        assert_eq!(again.kind(), std::io::ErrorKind::AddrInUse);
        drop(listener("127.0.0.1:7003"));
        let mut host = lab.config("host", &["true"]);
        host.network = NetNamespace::Host;
        lab.embedded.create(host).await.expect("create");
        let refused = lab.embedded.publish(&lab.id("host"), &[good]).await;
        assert!(matches!(refused, Err(Error::PortsNotOwn { .. })), "{refused:?}");
    });
}

#[test]
fn a_second_set_takes_the_place_of_the_first_and_none_closes_all() {
    alone();
    let lab = Lab::new("replace");
    block_on(async {
        let (id, _) = with_inside(&lab, || async { echo(listener("127.0.0.1:80")).await }).await;
        let publish = async |ports: &[HostPort]| {
            lab.embedded.publish(&id, ports).await.expect("publish");
        };
        let free = |address: &str| std::net::TcpListener::bind(address).is_ok();
        publish(&[tcp("127.0.0.1:1", 80), tcp("127.0.0.1:2", 81)]).await;
        publish(&[tcp("127.0.0.1:2", 80), tcp("127.0.0.1:3", 80)]).await;
        assert!(free("127.0.0.1:1") && !free("127.0.0.1:2") && !free("127.0.0.1:3"));
        assert_eq!(talk("127.0.0.1:2", b"").await, b"bye", "it leads to the new target");
        // A narrower one in the place of a wide one.
        publish(&[tcp("0.0.0.0:4", 80)]).await;
        publish(&[tcp("127.0.0.1:4", 80)]).await;
        assert_eq!(talk("127.0.0.1:4", b"").await, b"bye");
        publish(&[]).await;
        assert!(free("127.0.0.1:2") && free("127.0.0.1:3") && free("127.0.0.1:4"));
        publish(&[tcp("127.0.0.1:5", 80)]).await;
        lab.embedded.release(&id).await.expect("release");
        assert!(free("127.0.0.1:5"), "closed with the shim");
    });
}

#[test]
fn thousands_of_ports_are_taken_and_the_shim_stays_small() {
    const PORTS: u16 = 3000;
    /// Bytes for a shim without ports that does nothing.
    const IDLE_LIMIT: u64 = 300 << 10;
    /// Its program is shared with all other shims of the machine.
    const OWN: &str = "Anonymous:";
    alone();
    let lab = Lab::new("manyports");
    block_on(async {
        let (id, _) = with_inside(&lab, || async { echo(listener("127.0.0.1:80")).await }).await;
        let shim = lab.embedded.status(&id).await.expect("status").shim_pid;
        let idle = crate::speed::rollup(shim, OWN);
        let ports: Vec<HostPort> =
            (0..PORTS).map(|n| tcp(&format!("127.0.0.1:{}", 10_000 + n), 80)).collect();
        lab.embedded.publish(&id, &ports).await.expect("publish");
        lab.embedded.publish(&id, &ports).await.expect("nothing to do");
        for n in [0, PORTS / 2, PORTS - 1] {
            assert_eq!(talk(&format!("127.0.0.1:{}", 10_000 + n), b"x").await, b"xbye");
        }
        println!(
            "own memory of an idle shim {idle} B, with {PORTS} ports {} B",
            crate::speed::rollup(shim, OWN)
        );
        assert!(idle <= IDLE_LIMIT, "{idle}");
        lab.embedded.publish(&id, &[]).await.expect("none");
    });
}

#[test]
fn ports_work_with_no_daemon() {
    alone();
    let lab = Lab::new("alone");
    block_on(async {
        let mut child = Command::new(crate::lab::helper())
            .args([lab.run_dir(), lab.state_dir(), lab.rootfs()])
            .args([lab.id("a").as_str(), "publish", "sh", "-c"])
            .arg("while :; do echo hello | nc -l -p 80; done")
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("spawn");
        let mut line = String::new();
        let out = child.stdout.take().expect("piped");
        std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).expect("read");
        assert_eq!(line, "done\n");
        child.kill().expect("kill");
        child.wait().expect("wait");
        let hello = async {
            loop {
                let mut stream = TcpStream::connect("127.0.0.1:8080").await.expect("connect");
                let mut text = String::new();
                // Until the program inside listens, connections end at once.
                if stream.read_to_string(&mut text).await.is_ok() && !text.is_empty() {
                    return text;
                }
            }
        };
        assert_eq!(hello.await, "hello\n");
    });
}
