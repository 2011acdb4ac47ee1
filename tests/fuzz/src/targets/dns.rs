//! Names: queries, what servers answer, and the files that say which servers there are.

use std::{collections::BTreeMap, net::IpAddr};

use rand::{SeedableRng as _, rngs::StdRng};
use weft_dns::{
    Asker, Elsewhere, NetworkNames, Synced, Zones,
    answer::{Answer, Foreign, Transport, answer},
    asker::Outside,
    elsewhere_hash,
    files::{Ipv6, Overrides, ResolvConf, upstreams_from_resolv_conf},
    forward::fuzzing,
    limits::{CACHE_TTL, QUERY_RECORDS, TCP_MAX, UDP_MAX, UDP_MIN, UPSTREAMS},
    reverse,
    wire::{HEADER, flag, name, query, query::Edns, record, u16_at},
};

const KEY: [u8; 16] = *b"sixteen bytes !!";
const QUESTION: &[u8] = b"\x03www\x07example\x03com\x00\x00\x01\x00\x01";

fn zones(synced: Synced) -> Zones {
    let ip = |text: &str| -> IpAddr { text.parse().expect("an address") };
    let many = (1..=200).map(|last| IpAddr::from([10, 0, 1, last])).collect();
    let names = BTreeMap::from([
        ("web".to_owned(), vec![ip("10.0.1.10"), ip("fd00:1::10")]),
        ("tasks.web".to_owned(), many),
        ("only6".to_owned(), vec![ip("fd00:1::6")]),
    ]);
    let reverse = BTreeMap::from([(ip("10.0.1.10"), "web.front".to_owned())]);
    let subnets = ["10.0.1.0/24", "fd00:1::/64"].map(|net| net.parse().expect("a subnet")).into();
    let front = NetworkNames { key: "n1".into(), name: "front".into(), subnets, names, reverse };
    let elsewhere = Elsewhere::new(KEY, [elsewhere_hash(&KEY, "hidden")].into());
    Zones::new([front], elsewhere, synced)
}

fn asker() -> Asker {
    Asker {
        networks: vec!["n1".into()],
        upstreams: vec![([192, 0, 2, 1], 53).into()],
        outside: Outside::Open,
        ..Asker::default()
    }
}

/// A message of a container: how it came, and its bytes.
pub fn query(input: &[u8]) {
    let Some((how, message)) = input.split_first() else { return };
    let transport = if how & 1 == 0 { Transport::Udp } else { Transport::Tcp };
    let synced = if how & 2 == 0 { Synced::Complete } else { Synced::NotYet };
    let mut random = StdRng::seed_from_u64((*how).into());
    let mut out = Vec::new();
    let said = answer(&zones(synced), &asker(), message, transport, &mut random, &mut out);
    let read = query::parse(message);
    if let Ok(read) = &read {
        assert!(read.question.len() <= name::NAME_MAX + 4);
        assert_eq!(&message[HEADER..HEADER + read.question.len()], read.question);
        if let Some(edns) = read.edns {
            assert!((UDP_MIN..=UDP_MAX).contains(&edns.size));
        }
        if !read.name.contains('\\') && !read.name.is_empty() {
            let wire = name::encode(&read.name).expect("a name that was read can be written");
            assert!(wire.eq_ignore_ascii_case(&read.question[..read.question.len() - 4]));
        }
    }
    match said {
        Answer::Silence => assert!(read.is_err()),
        Answer::Forward(foreign) => {
            let read = read.expect("what is forwarded was read");
            assert_eq!((foreign.id, &foreign.question[..]), (read.id, read.question));
            assert!((UDP_MIN..=TCP_MAX).contains(&foreign.limit));
        }
        Answer::Reply => {
            let edns = read.as_ref().ok().and_then(|read| read.edns);
            assert!(out.len() <= transport.limit(edns), "{} bytes", out.len());
            assert_eq!(out[..2], message[..2]);
            assert_eq!(out[2] & 0x80, 0x80, "no answer");
            whole(&out);
        }
    }
}

/// Every record that the header of a reply counts is there, and nothing else.
fn whole(reply: &[u8]) {
    let count = |at| usize::from(u16_at(reply, at).expect("a header"));
    let mut at = HEADER;
    for _ in 0..count(4) {
        at = name::plain_end(reply, at).expect("a name") + 4;
    }
    for _ in 0..count(6) + count(8) + count(10) {
        at = record::at(reply, at).expect("a record").data.end;
    }
    assert_eq!(at, reply.len());
}

/// An upstream's answer: what the client is like, the age, and all behind the question.
pub fn relay(input: &[u8]) {
    let Some((head, records)) = input.split_first_chunk::<12>() else { return };
    let [edns, size, size2, age, code, an, ns, ar, more @ ..] = *head;
    let limit = 512 + usize::from(u16::from_be_bytes([size, size2])) % 4096;
    let edns = (edns & 1 == 1).then_some(Edns { size: limit, dnssec: edns & 2 == 2 });
    let question = QUESTION.to_vec();
    let foreign = Foreign { id: 7, flags: flag::RD, question, edns, limit };
    let mut message = vec![0, 1, 0x81, 0x80 | (code & 0xf), 0, 1, 0, an, 0, ns, 0, ar];
    message.extend(QUESTION);
    message.extend(records);
    let age = u32::from_be_bytes(more) >> (age % 32);
    let keep = fuzzing::kept_for(&message, QUESTION.len());
    assert!(keep.is_none_or(|seconds| (1..=u64::from(CACHE_TTL)).contains(&seconds)));
    let Some(reply) = fuzzing::relayed(&message, &foreign, age) else { return };
    assert!(reply.len() <= limit && reply.len() <= message.len() + 11);
    assert_eq!(reply[..2], [0, 7]);
    assert_eq!(&reply[HEADER..HEADER + QUESTION.len()], QUESTION);
    whole(&reply);
    let again = fuzzing::relayed(&reply, &foreign, 0).map(|reply| reply.len());
    assert!(again.is_some() || reply.len() > limit, "what was passed on is not well formed");
}

/// Names: reverse ones, and any text.
pub fn names(input: &[u8]) {
    let end = name::end(input, HEADER.min(input.len()));
    assert!(end.is_none_or(|end| end <= input.len()));
    if let Some(end) = name::plain_end(input, 0) {
        assert!(end <= name::NAME_MAX && end <= input.len());
        assert!(name::text(&input[..end]).len() <= 4 * name::NAME_MAX);
    }
    if let Some(record) = record::at(input, 0) {
        assert!(record.ttl_at + 4 <= record.data.start && record.data.end <= input.len());
        let _ = record::check_options(&input[record.data]);
    }
    const { assert!(QUERY_RECORDS < 256) };
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Some(wire) = name::encode(text) {
        assert_eq!(name::plain_end(&wire, 0), Some(wire.len()));
    }
    if let Some(found) = reverse::parse(text) {
        assert_eq!(found.prefix, found.prefix.trunc());
        if let Some(address) = found.address() {
            let spelled = match address {
                IpAddr::V4(v4) => {
                    let [a, b, c, d] = v4.octets();
                    format!("{d}.{c}.{b}.{a}.in-addr.arpa")
                }
                IpAddr::V6(v6) => {
                    let nibbles =
                        v6.octets().map(|byte| format!("{:x}.{:x}", byte & 15, byte >> 4));
                    let nibbles: Vec<_> = nibbles.into_iter().rev().collect();
                    format!("{}.ip6.arpa", nibbles.join("."))
                }
            };
            assert_eq!(reverse::parse(&spelled), Some(found));
        }
    }
}

/// The host's resolv.conf.
pub fn resolv_conf(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let servers = upstreams_from_resolv_conf(text);
    assert!(servers.len() <= UPSTREAMS);
    assert!(servers.iter().all(|server| server.port() == 53 && !server.ip().is_unspecified()));
    let conf = ResolvConf::new(text, &Overrides::default());
    let ours = upstreams_from_resolv_conf(&conf.text());
    assert_eq!(ours, [([127, 0, 0, 11], 53).into()], "{}", conf.text());
    for ipv6 in [Ipv6::Enabled, Ipv6::Disabled] {
        // A container that asks by itself asks somebody.
        let direct = conf.direct(ipv6);
        assert!(direct.lines().any(|line| line.starts_with("nameserver ")), "{direct}");
        let again = ResolvConf::new(&direct, &Overrides::default());
        assert_eq!(again.direct(ipv6), direct);
        assert_eq!(again.ndots(), conf.ndots());
    }
}
