//! The server on real sockets: who is answered, how fast it changes its mind, and its limits.

use std::time::{Duration, Instant};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use nix::sys::socket::{setsockopt, sockopt::UdpGroSegment};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use weft_dns::{Elsewhere, ServeError, Server, Synced, Zones};

use crate::fake::{
    PATIENCE, add, ask_tcp, ask_udp, client, is_closed, read_tcp, receive, serve, sockets,
    write_tcp,
};
use crate::support::{asker, ip, message, network, zones};

#[tokio::test]
async fn answers_over_udp_and_tcp() {
    let (server, address) = serve(zones(Synced::Complete), asker(&["n1"]));
    let query = message("web.", RecordType::A);
    for reply in [ask_udp(address, &query).await, ask_tcp(address, &query).await] {
        assert_eq!(reply.answers[0].data.ip_addr(), Some(ip("10.0.1.10")));
    }
    let stats = server.stats("c1").unwrap();
    assert_eq!((stats.queries, stats.replies, stats.foreign), (2, 2, 0));
    assert!(stats.reply_bytes > stats.query_bytes && stats.query_bytes > 0);
}

#[tokio::test]
async fn the_socket_says_who_asks() {
    let (server, one) = serve(zones(Synced::Complete), asker(&["n1"]));
    let two = add(&server, "c2", asker(&["n2"]));
    let query = message("db.", RecordType::A);
    assert_eq!(ask_udp(one, &query).await.answers[0].data.ip_addr(), Some(ip("10.0.1.20")));
    assert_eq!(ask_udp(two, &query).await.answers[0].data.ip_addr(), Some(ip("10.0.17.20")));
    // The next query sees the new membership, and the new zones.
    server.update("c2", asker(&["n1"])).unwrap();
    assert_eq!(ask_udp(two, &query).await.answers[0].data.ip_addr(), Some(ip("10.0.1.20")));
    let names = network("n1", "front", &["10.0.1.0/24"], &[("db", &["10.0.1.99"])]);
    server.publish(Zones::new([names], Elsewhere::default(), Synced::Complete));
    assert_eq!(ask_udp(one, &query).await.answers[0].data.ip_addr(), Some(ip("10.0.1.99")));
    assert_eq!(server.sandboxes(), ["c1", "c2"]);
}

#[tokio::test]
async fn sandboxes_come_and_go() {
    let (server, _) = serve(zones(Synced::Complete), asker(&["n1"]));
    let (udp, tcp) = sockets();
    let again = server.add("c1", asker(&["n1"]), udp, tcp);
    assert!(matches!(again, Err(ServeError::Exists { key }) if key == "c1"));
    server.remove("c1").unwrap();
    assert!(matches!(server.remove("c1"), Err(ServeError::Unknown { .. })));
    assert!(matches!(server.update("c1", asker(&[])), Err(ServeError::Unknown { .. })));
    assert!(server.stats("c1").is_none());
}

/// Who is on no network would be told that its names do not exist.
#[tokio::test]
async fn queries_wait_until_it_is_known_who_asks() {
    let server = Server::new(zones(Synced::Complete), tokio::runtime::Handle::current());
    let (udp, tcp) = sockets();
    let address = udp.local_addr().unwrap();
    server.add_unknown("c1", udp, tcp).unwrap();
    let query = message("web.", RecordType::A).to_vec().unwrap();
    let socket = client(address).await;
    socket.send(&query).await.unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    write_tcp(&mut stream, &query).await.unwrap();
    let none = tokio::time::timeout(Duration::from_millis(100), socket.recv(&mut [0; 512])).await;
    assert!(none.is_err(), "answered without knowing whom");
    server.update("c1", asker(&["n1"])).unwrap();
    for reply in [receive(&socket).await.unwrap(), read_tcp(&mut stream).await.unwrap()] {
        let reply = Message::from_vec(&reply).unwrap();
        assert_eq!(reply.answers[0].data.ip_addr(), Some(ip("10.0.1.10")));
    }
}

/// While no server runs, queries wait in sockets that somebody else holds too.
#[tokio::test]
async fn the_next_server_answers_what_waited() {
    let (udp, tcp) = sockets();
    let (held_udp, held_tcp) = (udp.try_clone().unwrap(), tcp.try_clone().unwrap());
    let address = udp.local_addr().unwrap();
    let handle = tokio::runtime::Handle::current();
    let first = Server::new(zones(Synced::Complete), handle.clone());
    first.add("c1", asker(&["n1"]), udp, tcp).unwrap();
    let query = message("web.", RecordType::A);
    ask_udp(address, &query).await;
    first.shutdown().await;

    let socket = client(address).await;
    socket.send(&query.to_vec().unwrap()).await.unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    write_tcp(&mut stream, &query.to_vec().unwrap()).await.unwrap();
    let none = tokio::time::timeout(Duration::from_millis(100), socket.recv(&mut [0; 512])).await;
    assert!(none.is_err(), "nobody is there to answer");

    let second = Server::new(zones(Synced::Complete), handle);
    second.add("c1", asker(&["n1"]), held_udp, held_tcp).unwrap();
    assert!(receive(&socket).await.is_some());
    assert!(read_tcp(&mut stream).await.is_some());
}

/// What waited is answered in batches: to each client its own, in order, each once. One that says it
/// takes datagrams as they travel gets all of one length in one piece (`UDP_GRO`, udp(7)).
#[tokio::test]
async fn replies_to_one_client_travel_together() {
    let (udp, tcp) = sockets();
    let address = udp.local_addr().unwrap();
    let [whole, each] = [client(address).await, client(address).await];
    setsockopt(&whole, UdpGroSegment, &true).unwrap();
    let ids: Vec<u16> = (0..10).collect();
    for &id in &ids {
        for (socket, name) in [(&whole, "web."), (&each, "web."), (&each, "db.front.")] {
            let mut query = message(name, RecordType::A).to_vec().unwrap();
            query[..2].copy_from_slice(&id.to_be_bytes());
            socket.send(&query).await.unwrap();
        }
    }
    let server = Server::start(zones(Synced::Complete)).unwrap();
    server.add("c1", asker(&["n1"]), udp, tcp).unwrap();

    let read = |reply: &[u8]| {
        let reply = Message::from_vec(reply).unwrap();
        (reply.metadata.id, reply.answers[0].data.ip_addr().unwrap())
    };
    let together = receive(&whole).await.unwrap();
    let replies: Vec<_> = together.chunks(together.len() / ids.len()).map(read).collect();
    assert_eq!(replies, ids.iter().map(|&id| (id, ip("10.0.1.10"))).collect::<Vec<_>>());
    let mut replies = Vec::new();
    for _ in 0..2 * ids.len() {
        replies.push(read(&receive(&each).await.unwrap()));
    }
    for address in ["10.0.1.10", "10.0.1.20"].map(ip) {
        let of = replies.iter().filter(|(_, found)| *found == address).map(|(id, _)| *id);
        assert_eq!(of.collect::<Vec<_>>(), ids, "{address}");
    }
}

#[tokio::test]
async fn many_queries_on_one_connection() {
    let (_server, address) = serve(zones(Synced::Complete), asker(&["n1"]));
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    let mut query = message("web.", RecordType::A).to_vec().unwrap();
    let writer = tokio::spawn(async move {
        for id in 0..10_000u16 {
            query[..2].copy_from_slice(&id.to_be_bytes());
            write.write_all(&(query.len() as u16).to_be_bytes()).await.unwrap();
            write.write_all(&query).await.unwrap();
        }
        write
    });
    let mut bytes = Vec::new();
    for id in 0..10_000u16 {
        let mut length = [0; 2];
        tokio::io::AsyncReadExt::read_exact(&mut read, &mut length).await.unwrap();
        bytes.resize(usize::from(u16::from_be_bytes(length)), 0);
        tokio::io::AsyncReadExt::read_exact(&mut read, &mut bytes).await.unwrap();
        assert_eq!(bytes[..2], id.to_be_bytes());
    }
    writer.await.unwrap();
}

#[tokio::test]
async fn connections_that_are_not_worth_it_are_closed() {
    let (server, address) = serve(zones(Synced::Complete), asker(&["n1"]));
    let connect = || async { TcpStream::connect(address).await.unwrap() };
    let (mut empty, mut idle, mut partial) = (connect().await, connect().await, connect().await);
    empty.write_all(&[0, 0]).await.unwrap();
    assert!(is_closed(&mut empty).await);
    // A byte now and then does not extend the time for a message.
    let start = Instant::now();
    partial.write_all(&[0xff, 0xff, 1]).await.unwrap();
    let (reading, mut writing) = partial.into_split();
    let drip = tokio::spawn(async move {
        while writing.write_all(&[1]).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    assert!(is_closed(&mut idle).await);
    tokio::time::timeout(PATIENCE, drip).await.expect("closed in time").unwrap();
    assert!((Duration::from_millis(1_900)..Duration::from_secs(6)).contains(&start.elapsed()));
    drop(reading);
    assert!(server.stats("c1").unwrap().closed >= 2);
}

#[tokio::test]
async fn a_client_that_never_reads_is_cut_off() {
    let mut names = network("n1", "front", &["10.0.0.0/8"], &[]);
    names.names.insert(
        "crowd".into(),
        (0..4000u16)
            .map(|at| {
                let [high, low] = at.to_be_bytes();
                std::net::IpAddr::from([10, 0, high, low])
            })
            .collect(),
    );
    let (server, address) =
        serve(Zones::new([names], Elsewhere::default(), Synced::Complete), asker(&["n1"]));
    let mut stream = TcpStream::connect(address).await.unwrap();
    let query = message("crowd.", RecordType::A).to_vec().unwrap();
    let start = Instant::now();
    // Ends when the server has stopped reading for long enough to close.
    while write_tcp(&mut stream, &query).await.is_ok() {
        assert!(start.elapsed() < PATIENCE, "never closed");
    }
    assert_eq!(server.stats("c1").unwrap().closed, 1);
    assert_eq!(ask_udp(address, &message("crowd.", RecordType::AAAA)).await.answers.len(), 0);
}

#[tokio::test]
async fn one_connection_too_many_is_closed_at_once() {
    let (server, address) = serve(zones(Synced::Complete), asker(&["n1"]));
    let query = message("web.", RecordType::A).to_vec().unwrap();
    let mut open = Vec::new();
    for _ in 0..weft_dns::limits::TCP_CONNECTIONS {
        let mut stream = TcpStream::connect(address).await.unwrap();
        write_tcp(&mut stream, &query).await.unwrap();
        assert!(read_tcp(&mut stream).await.is_some());
        open.push(stream);
    }
    let mut more = TcpStream::connect(address).await.unwrap();
    assert!(read_tcp(&mut more).await.is_none());
    assert!(server.stats("c1").unwrap().closed >= 1);
    // Another sandbox does not notice.
    let other = add(&server, "c2", asker(&["n1"]));
    let reply = ask_tcp(other, &message("web.", RecordType::A)).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::NoError);
}

/// One sandbox sends noise as fast as it can; another is answered every time.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn noise_does_not_silence_the_neighbours() {
    let (server, noisy) = serve(zones(Synced::Complete), asker(&["n1"]));
    let quiet = add(&server, "quiet", asker(&["n1"]));
    let (tell, stop) = std::sync::mpsc::channel::<()>();
    let noise = std::thread::spawn(move || {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        while stop.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
            // The reply buffer of the noisy one fills up, which must not hold the server either.
            let _ = socket.send_to(&[0x55; 64], noisy);
        }
    });
    for _ in 0..500 {
        let reply = ask_udp(quiet, &message("web.", RecordType::A)).await;
        assert_eq!(reply.metadata.response_code, ResponseCode::NoError);
    }
    drop(tell);
    noise.join().unwrap();
    let heard = server.stats("c1").unwrap().queries;
    assert!(heard > 500, "the noise was there: {heard}");
}
