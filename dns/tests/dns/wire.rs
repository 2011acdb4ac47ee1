//! Replies as an independent parser reads them: flags, case, order, size, TTL.

use std::collections::BTreeSet;
use std::net::IpAddr;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use proptest::prelude::*;
use weft_dns::answer::{Answer, Transport};
use weft_dns::wire::query;
use weft_dns::{Asker, Elsewhere, NetworkNames, Synced, Zones};

use crate::support::{ask, asker, message, network, with_edns, zones};

fn reply(
    zones: &Zones,
    asker: &Asker,
    query: &Message,
    transport: Transport,
    seed: u64,
) -> Message {
    let (answer, out) = ask(zones, asker, &query.to_vec().unwrap(), transport, seed);
    assert_eq!(answer, Answer::Reply);
    Message::from_vec(&out).unwrap()
}

fn addresses(message: &Message) -> Vec<IpAddr> {
    message.answers.iter().map(|record| record.data.ip_addr().unwrap()).collect()
}

#[test]
fn flags_case_and_ttl() {
    let query = message("WeB.fRONT.", RecordType::A);
    let reply = reply(&zones(Synced::Complete), &asker(&["n1"]), &query, Transport::Udp, 1);
    let head = &reply.metadata;
    assert_eq!(
        (head.id, head.message_type, head.op_code),
        (0x1234, MessageType::Response, OpCode::Query)
    );
    assert!(head.recursion_desired && head.recursion_available);
    assert!(!head.authoritative && !head.truncation && !head.authentic_data);
    assert_eq!(reply.queries[0].name().to_ascii(), "WeB.fRONT.");
    assert_eq!(reply.answers[0].name.to_ascii(), "WeB.fRONT.");
    assert!(reply.answers[0].ttl <= 5);
    assert!(reply.edns.is_none(), "no OPT unless asked with one");
}

#[test]
fn pointer_any_and_no_data() {
    let zones = zones(Synced::Complete);
    let ask =
        |name, rtype| reply(&zones, &asker(&["n1"]), &message(name, rtype), Transport::Udp, 1);
    let pointer = ask("10.1.0.10.in-addr.arpa.", RecordType::PTR);
    assert_eq!(pointer.answers[0].data.to_string(), "Web.Front.");
    let any = ask("web.", RecordType::ANY);
    let RData::HINFO(hinfo) = &any.answers[0].data else { panic!("{any}") };
    assert_eq!((&*hinfo.cpu, &*hinfo.os), (&b"RFC8482"[..], &b""[..]));
    let none = ask("db.", RecordType::MX);
    assert_eq!((none.metadata.response_code, none.answers.len()), (ResponseCode::NoError, 0));
    let missing = ask("nope.front.", RecordType::A);
    assert_eq!(missing.metadata.response_code, ResponseCode::NXDomain);
    let transfer = ask("front.", RecordType::AXFR);
    assert_eq!(transfer.metadata.response_code, ResponseCode::Refused);
}

/// A service with `count` tasks, v4 and v6.
fn crowd(count: u16) -> Zones {
    let mut names = network("n1", "front", &["10.0.0.0/8"], &[]);
    let v4 = (0..count).map(|at| IpAddr::from([10, 0, (at >> 8) as u8, at as u8]));
    let v6 = (0..count).map(|at| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, at]));
    names.names.insert("crowd".into(), v4.chain(v6).collect());
    Zones::new([names], Elsewhere::default(), Synced::Complete)
}

#[test]
fn a_thousand_tasks() {
    let zones = crowd(1000);
    let asker = asker(&["n1"]);
    for (rtype, record) in [(RecordType::A, 16), (RecordType::AAAA, 28)] {
        let plain = message("crowd.", rtype);
        for (query, limit) in [
            (plain.clone(), 512),
            (with_edns(plain.clone(), 0), 512),
            (with_edns(plain.clone(), 900), 900),
            (with_edns(plain.clone(), 65535), 1232),
        ] {
            let (_, bytes) = ask(&zones, &asker, &query.to_vec().unwrap(), Transport::Udp, 3);
            assert!(
                bytes.len() <= limit && bytes.len() + record > limit,
                "{} of {limit}",
                bytes.len()
            );
            assert!(Message::from_vec(&bytes).unwrap().metadata.truncation);
        }
        let one: BTreeSet<_> =
            addresses(&reply(&zones, &asker, &plain, Transport::Udp, 1)).into_iter().collect();
        let two: BTreeSet<_> =
            addresses(&reply(&zones, &asker, &plain, Transport::Udp, 2)).into_iter().collect();
        assert_ne!(one, two, "another choice each time");
        let full = reply(&zones, &asker, &plain, Transport::Tcp, 1);
        assert!(!full.metadata.truncation);
        assert_eq!(addresses(&full).into_iter().collect::<BTreeSet<_>>().len(), 1000);
    }
}

#[test]
fn more_tasks_than_a_message_holds() {
    let full =
        reply(&crowd(5000), &asker(&["n1"]), &message("crowd.", RecordType::A), Transport::Tcp, 1);
    assert!(full.metadata.truncation && full.answers.len() > 4000);
}

#[test]
fn every_address_comes_first_in_turn() {
    let (zones, asker) = (crowd(3), asker(&["n1"]));
    let mut first = std::collections::BTreeMap::new();
    for seed in 0..3000 {
        let reply = reply(&zones, &asker, &message("crowd.", RecordType::A), Transport::Udp, seed);
        *first.entry(addresses(&reply)[0]).or_insert(0) += 1;
    }
    assert_eq!(first.len(), 3);
    // 1,000 each are expected, with a standard deviation of 26.
    assert!(first.values().all(|count| (850..1150).contains(count)), "{first:?}");
}

#[test]
fn names_that_cannot_be_on_the_wire_are_left_out() {
    let mut names = NetworkNames { key: "n1".into(), name: "front".into(), ..Default::default() };
    names.subnets.push("10.0.0.0/8".parse().unwrap());
    names.reverse.insert("10.0.0.1".parse().unwrap(), format!("{}.front", "x".repeat(64)));
    let zones = Zones::new([names], Elsewhere::default(), Synced::Complete);
    let query = message("1.0.0.10.in-addr.arpa.", RecordType::PTR);
    let reply = reply(&zones, &asker(&["n1"]), &query, Transport::Udp, 1);
    assert_eq!(reply.metadata.response_code, ResponseCode::NXDomain);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5_000))]

    /// What another library writes as a query, we read the same.
    #[test]
    fn queries_are_read_as_they_were_written(
        labels in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 0..8),
        id in any::<u16>(), rtype in 1u16..40, size in prop::option::of(any::<u16>()),
    ) {
        let name = Name::from_labels(labels.iter().map(Vec::as_slice)).unwrap();
        let mut sent = Message::new(id, MessageType::Query, OpCode::Query);
        sent.add_query(Query::query(name, RecordType::from(rtype)));
        if let Some(size) = size {
            sent = with_edns(sent, size);
        }
        let bytes = sent.to_vec().unwrap();
        let read = query::parse(&bytes).unwrap();
        prop_assert_eq!((read.id, read.rtype, read.class), (id, rtype, 1));
        prop_assert_eq!(read.edns.map(|edns| edns.size), size.map(|size| usize::from(size).clamp(512, 1232)));
        let expected: Vec<String> = labels.iter().map(|label| escaped(label)).collect();
        prop_assert_eq!(read.name, expected.join("."));
    }

    /// Whatever we take as a query, the other library takes too, with the same question.
    #[test]
    fn what_we_accept_is_a_message(bytes in prop::collection::vec(any::<u8>(), 5..60)) {
        let mut message = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        message.extend(bytes);
        if let Ok(read) = query::parse(&message) {
            let other = Message::from_vec(&message).unwrap();
            prop_assert_eq!(u16::from(other.queries[0].query_type()), read.rtype);
        }
    }
}

fn escaped(label: &[u8]) -> String {
    let byte = |&byte: &u8| match byte {
        b'.' | b'\\' => format!("\\{byte:03}"),
        b'!'..=b'~' => char::from(byte).to_lowercase().to_string(),
        _ => format!("\\{byte:03}"),
    };
    label.iter().map(byte).collect()
}
