//! Upstream servers, good and bad, and what their answers become.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::opt::EdnsOption;
use hickory_proto::rr::rdata::{A, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use weft_dns::answer::Transport;
use weft_dns::asker::Outside;
use weft_dns::limits::{FORWARD_IN_FLIGHT, UPSTREAM_TOTAL};
use weft_dns::{Asker, Synced};

use crate::fake::{
    Fake, PATIENCE, add, ask_tcp, ask_udp, client, fake, good, large, receive, serve, sockets,
};
use crate::support::{asker, ip, message, with_edns, zones};

fn with(servers: &[SocketAddr]) -> Asker {
    Asker { upstreams: servers.to_vec(), ..asker(&["n1"]) }
}

async fn working(ttl: u32) -> Fake {
    fake(move |query, _| vec![good(query, ttl, &[[192, 0, 2, 7]]).to_vec().unwrap()]).await
}

fn code(message: &Message) -> ResponseCode {
    message.metadata.response_code
}

#[tokio::test]
async fn only_the_question_goes_up_and_only_the_answer_comes_back() {
    let upstream = fake(|query, _| {
        let mut reply = good(query, 60, &[[192, 0, 2, 7]]);
        reply.metadata.authoritative = true;
        let extra = Name::from_ascii("additional.example.").unwrap();
        reply.add_additional(Record::from_rdata(extra, 5, RData::A(A::new(6, 6, 6, 6))));
        vec![reply.to_vec().unwrap()]
    })
    .await;
    let (_server, address) = serve(zones(Synced::Complete), with(&[upstream.address]));
    let mut query = with_edns(message("A-Long-Name-With-Letters.Example.COM.", RecordType::A), 900);
    query.edns.as_mut().unwrap().options_mut().insert(EdnsOption::Unknown(10, vec![7; 8]));
    let reply = ask_udp(address, &query).await;
    assert_eq!(reply.metadata.id, query.metadata.id);
    assert_eq!(reply.queries[0].name().to_ascii(), "A-Long-Name-With-Letters.Example.COM.");
    assert_eq!(reply.answers[0].data.ip_addr(), Some(ip("192.0.2.7")));
    assert!(!reply.metadata.authoritative && reply.metadata.recursion_available);
    assert!(reply.additionals.is_empty());
    assert_eq!(reply.edns.as_ref().unwrap().max_payload(), 1232);

    let sent = upstream.seen.lock().unwrap()[0].clone();
    let read = Message::from_vec(&sent).unwrap();
    assert!(read.edns.unwrap().options().as_ref().is_empty(), "no cookie of the client");
    assert_ne!(read.queries[0].name().to_ascii(), "A-Long-Name-With-Letters.Example.COM.");
    assert!(read.queries[0].name().eq_ignore_root(query.queries[0].name()));
}

#[tokio::test]
async fn the_next_server_is_asked_when_one_is_bad() {
    type Behaviour = fn(&Message, Transport) -> Vec<Vec<u8>>;
    let servfail: Behaviour = |query, _| {
        let mut reply = good(query, 60, &[]);
        reply.metadata.response_code = ResponseCode::ServFail;
        vec![reply.to_vec().unwrap()]
    };
    let refused: Behaviour = |query, _| {
        let mut reply = good(query, 60, &[]);
        reply.metadata.response_code = ResponseCode::Refused;
        vec![reply.to_vec().unwrap()]
    };
    let mute: Behaviour = |_, _| vec![];
    let wrong_id: Behaviour = |query, _| {
        let mut bytes = good(query, 60, &[[6, 6, 6, 6]]).to_vec().unwrap();
        bytes[0] ^= 1;
        vec![bytes; 20]
    };
    let wrong_question: Behaviour = |query, _| {
        let mut bytes = good(query, 60, &[[6, 6, 6, 6]]).to_vec().unwrap();
        bytes[13] ^= 1;
        vec![bytes; 20]
    };
    let a_query: Behaviour = |query, _| vec![query.to_vec().unwrap(); 20];
    let noise: Behaviour = |_, _| vec![vec![0xff; 40]; 20];
    let cut_short: Behaviour = |query, _| {
        let mut bytes = good(query, 60, &[[6, 6, 6, 6]]).to_vec().unwrap();
        bytes.pop();
        vec![bytes]
    };
    let bad_cname: Behaviour = |query, _| {
        let mut bytes = good(query, 60, &[[6, 6, 6, 6]]).to_vec().unwrap();
        let answer = bytes.len() - 16;
        // A CNAME whose name points past the end.
        bytes[answer + 2..answer + 4].copy_from_slice(&[0, 5]);
        bytes[answer + 12..].copy_from_slice(&[0xff, 0xff, 0, 0]);
        vec![bytes]
    };
    let cut_everywhere: Behaviour = |query, _| {
        let mut reply = good(query, 60, &[]);
        reply.metadata.truncation = true;
        let mut bytes = reply.to_vec().unwrap();
        bytes.truncate(20);
        vec![bytes]
    };
    let table = [
        ("servfail", servfail),
        ("refused", refused),
        ("mute", mute),
        ("wrong id", wrong_id),
        ("wrong question", wrong_question),
        ("a query", a_query),
        ("noise", noise),
        ("cut short", cut_short),
        ("bad cname", bad_cname),
        ("cut everywhere", cut_everywhere),
    ];
    for (what, behaviour) in table {
        let (bad, fine) = (fake(behaviour).await, working(60).await);
        let (_server, address) = serve(zones(Synced::Complete), with(&[bad.address, fine.address]));
        let reply = ask_udp(address, &message("example.com.", RecordType::A)).await;
        assert_eq!(reply.answers.len(), 1, "{what}");
        assert_eq!(reply.answers[0].data.ip_addr(), Some(ip("192.0.2.7")), "{what}");
        assert!(bad.seen() > 0, "{what}: the bad one is asked first");
    }
}

#[tokio::test]
async fn nobody_answers() {
    let (closed, _) = sockets();
    let nobody = closed.local_addr().unwrap();
    drop(closed);
    let mute = fake(|_, _| vec![]).await;
    let (_server, address) =
        serve(zones(Synced::Complete), with(&[nobody, mute.address, mute.address]));
    let start = Instant::now();
    let reply = ask_udp(address, &message("example.com.", RecordType::A)).await;
    assert_eq!(code(&reply), ResponseCode::ServFail);
    assert!(start.elapsed() < UPSTREAM_TOTAL + Duration::from_secs(2));
    assert_eq!(mute.seen(), 2, "a second chance, as listed");
    // Trouble is not kept.
    let (_server, address) = serve(zones(Synced::Complete), with(&[nobody]));
    for _ in 0..2 {
        let reply = ask_udp(address, &message("example.com.", RecordType::A)).await;
        assert_eq!(code(&reply), ResponseCode::ServFail);
    }
}

#[tokio::test]
async fn a_cut_answer_is_fetched_over_tcp() {
    let upstream = fake(|query, transport| match transport {
        Transport::Udp => {
            let mut reply = good(query, 60, &[]);
            reply.metadata.truncation = true;
            vec![reply.to_vec().unwrap()]
        }
        Transport::Tcp => vec![large(query)],
    })
    .await;
    let (_server, address) = serve(zones(Synced::Complete), with(&[upstream.address]));
    let query = message("big.example.com.", RecordType::TXT);
    let small = ask_udp(address, &query).await;
    assert!(small.metadata.truncation && small.answers.is_empty());
    let full = ask_tcp(address, &query).await;
    assert!(!full.metadata.truncation);
    assert_eq!(full.answers.len(), 15);
    assert_eq!(upstream.seen(), 2, "the second time it was kept");
}

#[tokio::test]
async fn a_server_that_loses_the_case_is_asked_over_tcp() {
    let upstream = fake(|query, _| {
        let mut lowered = query.clone();
        let name = query.queries[0].name().to_lowercase();
        lowered.queries[0].set_name(name);
        vec![good(&lowered, 60, &[[192, 0, 2, 7]]).to_vec().unwrap()]
    })
    .await;
    let (_server, address) = serve(zones(Synced::Complete), with(&[upstream.address]));
    let name = "a-name-of-many-letters-so-that-the-case-is-never-right.example.";
    let reply = ask_udp(address, &message(name, RecordType::A)).await;
    assert_eq!(reply.answers[0].data.ip_addr(), Some(ip("192.0.2.7")));
    assert_eq!(upstream.seen(), 2);
}

#[tokio::test]
async fn answers_are_kept_for_those_with_the_same_servers() {
    let (one, two) = (working(60).await, working(60).await);
    let (server, first) = serve(zones(Synced::Complete), with(&[one.address]));
    let same = add(&server, "same", with(&[one.address]));
    let other = add(&server, "other", with(&[two.address]));
    let ask = |address, name| async move { ask_udp(address, &message(name, RecordType::A)).await };
    ask(first, "example.com.").await;
    let again = ask(same, "EXAMPLE.com.").await;
    assert_eq!(again.queries[0].name().to_ascii(), "EXAMPLE.com.");
    assert!(again.answers[0].ttl <= 60);
    assert_eq!((one.seen(), two.seen()), (1, 0));
    ask(other, "example.com.").await;
    assert_eq!((one.seen(), two.seen()), (1, 1));
    ask_udp(first, &message("example.com.", RecordType::AAAA)).await;
    assert_eq!(one.seen(), 2, "another type is another question");
    let stats = server.stats("same").unwrap();
    assert_eq!((stats.foreign, stats.cached), (1, 1));
}

#[tokio::test]
async fn what_may_not_be_kept_is_asked_again() {
    let zero = working(0).await;
    let huge = working(1 << 31).await;
    let bare_no = fake(|query, _| {
        let mut reply = good(query, 60, &[]);
        reply.metadata.response_code = ResponseCode::NXDomain;
        vec![reply.to_vec().unwrap()]
    })
    .await;
    for upstream in [&zero, &huge, &bare_no] {
        let (_server, address) = serve(zones(Synced::Complete), with(&[upstream.address]));
        for _ in 0..2 {
            ask_udp(address, &message("example.com.", RecordType::A)).await;
        }
        assert_eq!(upstream.seen(), 2);
    }
}

#[tokio::test]
async fn a_no_is_kept_as_its_soa_says() {
    let upstream = fake(|query, _| {
        let mut reply = good(query, 60, &[]);
        reply.metadata.response_code = ResponseCode::NXDomain;
        let name = Name::from_ascii("com.").unwrap();
        let soa = SOA::new(name.clone(), name.clone(), 1, 2, 3, 4, 900);
        reply.add_authority(Record::from_rdata(name, 1_000_000, RData::SOA(soa)));
        vec![reply.to_vec().unwrap()]
    })
    .await;
    let (_server, address) = serve(zones(Synced::Complete), with(&[upstream.address]));
    for _ in 0..2 {
        let reply = ask_udp(address, &message("nope.com.", RecordType::A)).await;
        assert_eq!(code(&reply), ResponseCode::NXDomain);
        assert!(reply.authorities[0].ttl <= 300, "no promise beyond what we keep");
    }
    assert_eq!(upstream.seen(), 1);
}

#[tokio::test]
async fn too_many_in_flight_are_refused_and_others_do_not_notice() {
    let (mute, fine) = (fake(|_, _| vec![]).await, working(60).await);
    let (server, address) = serve(zones(Synced::Complete), with(&[mute.address]));
    let other = add(&server, "other", with(&[fine.address]));
    let socket = client(address).await;
    for at in 0..FORWARD_IN_FLIGHT + 1 {
        let query = message(&format!("n{at}.example.com."), RecordType::A);
        socket.send(&query.to_vec().unwrap()).await.unwrap();
    }
    let first = Message::from_vec(&receive(&socket).await.unwrap()).unwrap();
    assert_eq!(code(&first), ResponseCode::Refused);
    assert_eq!(server.stats("c1").unwrap().refused, 1);
    let reply = ask_udp(other, &message("example.com.", RecordType::A)).await;
    assert_eq!(reply.answers.len(), 1);
    // Names of ours need nobody.
    let reply = ask_udp(address, &message("web.", RecordType::A)).await;
    assert_eq!(reply.answers.len(), 1);
}

#[tokio::test]
async fn a_flood_of_names_is_slowed_at_the_upstream() {
    let upstream = working(0).await;
    let (server, address) = serve(zones(Synced::Complete), with(&[upstream.address]));
    let (start, mut refused) = (Instant::now(), 0);
    let socket = client(address).await;
    for at in 0..1_000 {
        let query = message(&format!("n{at}.example.com."), RecordType::A);
        socket.send(&query.to_vec().unwrap()).await.unwrap();
        let reply = Message::from_vec(&receive(&socket).await.unwrap()).unwrap();
        refused += u64::from(code(&reply) == ResponseCode::Refused);
    }
    // A burst of 400 and 200 a second after it.
    let allowed = 400 + 200 * (start.elapsed().as_secs() + 1);
    assert!(upstream.seen() as u64 <= allowed, "{} of {allowed}", upstream.seen());
    assert_eq!(server.stats("c1").unwrap().refused, refused);
    assert_eq!(upstream.seen() as u64 + refused, 1_000);
}

/// A pool of workers that starts asks one name at once, before it can be kept.
#[tokio::test]
async fn the_same_question_goes_up_once() {
    let (mute, fine) = (fake(|_, _| vec![]).await, working(60).await);
    let servers = [mute.address, fine.address];
    let (server, address) = serve(zones(Synced::Complete), with(&servers));
    let neighbour = add(&server, "neighbour", with(&servers));
    let (socket, other) = (client(address).await, client(neighbour).await);
    // More than may be in flight, and all before the second server is asked.
    let count = 2 * FORWARD_IN_FLIGHT;
    let mut query = message("example.com.", RecordType::A);
    for id in 0..count {
        query.metadata.id = id as u16;
        socket.send(&query.to_vec().unwrap()).await.unwrap();
    }
    other.send(&query.to_vec().unwrap()).await.unwrap();
    let mut ids = std::collections::BTreeSet::new();
    for _ in 0..count {
        let reply = Message::from_vec(&receive(&socket).await.unwrap()).unwrap();
        assert_eq!(reply.answers.len(), 1, "{reply}");
        ids.insert(reply.metadata.id);
    }
    assert_eq!(ids.len(), count);
    assert!(receive(&other).await.is_some());
    assert_eq!((mute.seen(), fine.seen()), (1, 1));
    assert_eq!(server.stats("c1").unwrap().refused, 0);
}

/// Who asked first goes away; who waits for the same answer gets it.
#[tokio::test]
async fn a_question_outlives_the_sandbox_that_asked_it() {
    let (mute, fine) = (fake(|_, _| vec![]).await, working(60).await);
    let servers = [mute.address, fine.address];
    let (server, address) = serve(zones(Synced::Complete), with(&servers));
    let neighbour = add(&server, "neighbour", with(&servers));
    let (first, second) = (client(address).await, client(neighbour).await);
    let query = message("example.com.", RecordType::A).to_vec().unwrap();
    let arrived = |key: &'static str| server.stats(key).unwrap().foreign == 1;
    for (socket, key) in [(&first, "c1"), (&second, "neighbour")] {
        socket.send(&query).await.unwrap();
        let start = Instant::now();
        while !arrived(key) {
            assert!(start.elapsed() < PATIENCE, "{key} was not heard");
            tokio::task::yield_now().await;
        }
    }
    server.remove("c1").unwrap();
    let reply = Message::from_vec(&receive(&second).await.unwrap()).unwrap();
    assert_eq!(reply.answers.len(), 1);
    assert_eq!((mute.seen(), fine.seen()), (1, 1));
}

/// KF-13: a sandbox that is only on internal networks asks nobody, whoever it names.
#[tokio::test]
async fn a_sandbox_without_a_way_out_reaches_no_server() {
    let upstream = working(60).await;
    let closed = Asker { outside: Outside::Closed, ..with(&[upstream.address]) };
    let (_server, address) = serve(zones(Synced::Complete), closed);
    for name in ["example.com.", "printer.", "8.8.8.8.in-addr.arpa."] {
        for rtype in [RecordType::A, RecordType::PTR, RecordType::TXT] {
            let query = message(name, rtype);
            assert_eq!(code(&ask_udp(address, &query).await), ResponseCode::NXDomain);
            assert_eq!(code(&ask_tcp(address, &query).await), ResponseCode::NXDomain);
        }
    }
    assert_eq!(upstream.seen(), 0);
}
