//! Anything may arrive on a socket: what is said to it, and that nothing breaks (RFC 9267).

use proptest::prelude::*;
use weft_dns::Synced;
use weft_dns::answer::{Answer, Transport};

use crate::support::{ask, asker, zones};

const FORMERR: u8 = 1;
const NOTIMP: u8 = 4;
const REFUSED: u8 = 5;

/// Header: id, flags, counts.
fn header(flags: u16, counts: [u16; 4]) -> Vec<u8> {
    let mut out = vec![0xab, 0xcd];
    out.extend(flags.to_be_bytes());
    counts.iter().for_each(|count| out.extend(count.to_be_bytes()));
    out
}

fn query(name: &[u8], tail: &[u8], additional: u16) -> Vec<u8> {
    let mut out = header(0x0100, [1, 0, 0, additional]);
    out.extend(name);
    out.extend([0, 1, 0, 1]);
    out.extend(tail);
    out
}

fn opt(version: u8, size: u16, data: &[u8]) -> Vec<u8> {
    let mut out = vec![0, 0, 41];
    out.extend(size.to_be_bytes());
    out.extend([0, version, 0, 0]);
    out.extend((data.len() as u16).to_be_bytes());
    out.extend(data);
    out
}

/// The rcode said, or none for silence.
fn rcode(message: &[u8]) -> Option<u8> {
    let (answer, out) = ask(&zones(Synced::Complete), &asker(&["n1"]), message, Transport::Udp, 1);
    match answer {
        Answer::Silence => None,
        Answer::Reply => {
            assert_eq!(out[..2], message[..2], "the id is echoed");
            assert_eq!(out[2] & 0x84, 0x80, "QR is set and AA is not");
            Some(out[3] & 0x0f)
        }
        Answer::Forward(_) => panic!("forwarded"),
    }
}

const WEB: &[u8] = b"\x03web\x00";

#[test]
fn headers() {
    assert_eq!(rcode(&[]), None);
    assert_eq!(rcode(&[0; 11]), None);
    assert_eq!(rcode(&header(0x8000, [1, 0, 0, 0])), None);
    for (opcode, expected) in [(1, NOTIMP), (2, NOTIMP), (4, REFUSED), (5, REFUSED), (15, NOTIMP)] {
        assert_eq!(rcode(&header(opcode << 11, [1, 0, 0, 0])), Some(expected), "opcode {opcode}");
    }
    for counts in [[0, 0, 0, 0], [2, 0, 0, 0], [65535, 0, 0, 0], [1, 1, 0, 0], [1, 0, 0, 65535]] {
        let mut message = header(0, counts);
        message.extend(b"\x03web\x00\x00\x01\x00\x01");
        assert_eq!(rcode(&message), Some(FORMERR), "{counts:?}");
    }
    assert_eq!(rcode(&query(WEB, &[], 0)), Some(0));
    assert_eq!(rcode(&query(WEB, b"x", 0)), Some(FORMERR), "trailing junk");
    assert_eq!(rcode(&query(WEB, &[], 1)), Some(FORMERR), "a record that is not there");
}

#[test]
fn records_in_the_wrong_section() {
    // An incremental transfer brings its SOA in the authority section: refused as what it is.
    let with_authority = |rtype: u8| {
        let mut message = header(0x0100, [1, 0, 1, 0]);
        message.extend(WEB);
        message.extend([0, rtype, 0, 1]);
        message.extend([0xc0, 12, 0, 6, 0, 1, 0, 0, 0, 0, 0, 0]);
        message
    };
    assert_eq!(rcode(&with_authority(251)), Some(REFUSED));
    assert_eq!(rcode(&with_authority(1)), Some(FORMERR));
    // An OPT record that is not at the root.
    let mut misplaced = opt(0, 1232, &[]);
    misplaced.splice(0..1, [0xc0, 12]);
    assert_eq!(rcode(&query(WEB, &misplaced, 1)), Some(FORMERR));
}

#[test]
fn names() {
    let mut long = Vec::new();
    for _ in 0..5 {
        long.push(60);
        long.extend([b'a'; 60]);
    }
    long.push(0);
    let table: &[(&str, &[u8])] = &[
        ("pointer to itself", &[0xc0, 12]),
        ("pointer into the header", &[0xc0, 0]),
        ("pointer forward", &[0xc0, 40]),
        ("pointer past the end", &[0xff, 0xff]),
        ("pointer after a label", &[1, b'a', 0xc0, 12]),
        ("label of 64", &[64, b'a', 0]),
        ("label of 191", &[191, b'a', 0]),
        ("label past the end", &[63, b'a', b'b']),
        ("name over 255", &long),
    ];
    for (what, name) in table {
        assert_eq!(rcode(&query(name, &[], 0)), Some(FORMERR), "{what}");
    }
}

#[test]
fn pointers_in_records_go_backwards_and_end() {
    // An OPT must be at the root, so the record is a TXT of no use with the name under test.
    let record = |name: &[u8]| [name, &[0, 16, 0, 1, 0, 0, 0, 0, 0, 0]].concat();
    let at = 12 + WEB.len() as u8 + 4;
    let table: &[(&str, &[u8], u8)] = &[
        ("to the question", &[0xc0, 12], 0),
        ("into the question's name", &[0xc0, 16], 0),
        ("to itself", &[0xc0, at], FORMERR),
        ("to a label that leads back to it", &[1, b'a', 0xc0, at], FORMERR),
        ("forward", &[0xc0, at + 4], FORMERR),
        ("into the header", &[0xc0, 2], FORMERR),
    ];
    for (what, name, expected) in table {
        assert_eq!(rcode(&query(WEB, &record(name), 1)), Some(*expected), "{what}");
    }
    // A record whose length says more than there is.
    let lies = [&[0xc0, 12][..], &[0, 16, 0, 1, 0, 0, 0, 0, 0, 200]].concat();
    assert_eq!(rcode(&query(WEB, &lies, 1)), Some(FORMERR));
    // More records than any client sends.
    assert_eq!(rcode(&query(WEB, &record(&[0]).repeat(9), 9)), Some(FORMERR));
}

#[test]
fn a_chain_of_pointers_has_a_limit() {
    // Records whose names each point to the one before: the last is the end of the chain.
    let chain = |links: usize| {
        let (mut tail, mut target) = (Vec::new(), 12usize);
        for _ in 0..links {
            let at = 12 + WEB.len() + 4 + tail.len();
            tail.extend([0xc0, target as u8, 0, 16, 0, 1, 0, 0, 0, 0, 0, 0]);
            target = at;
        }
        query(WEB, &tail, links as u16)
    };
    assert_eq!(rcode(&chain(8)), Some(0));
    // Within one name of data the same walk is used: ten hops are followed, not eleven.
    let hops = |count: usize| {
        let mut message = vec![0u8; 13];
        for link in 0..count {
            let target = if link == 0 { 12 } else { 13 + 2 * (link - 1) };
            message.extend([0xc0, target as u8]);
        }
        let last = 13 + 2 * (count - 1);
        weft_dns::wire::name::end(&message, last)
    };
    assert!(hops(10).is_some());
    assert!(hops(11).is_none());
}

#[test]
fn edns() {
    assert_eq!(rcode(&query(WEB, &opt(0, 1232, &[]), 1)), Some(0));
    let two = [opt(0, 1232, &[]), opt(0, 1232, &[])].concat();
    assert_eq!(rcode(&query(WEB, &two, 2)), Some(FORMERR));
    assert_eq!(rcode(&query(WEB, &opt(0, 1232, &[0, 10, 0, 9, 1]), 1)), Some(FORMERR));
    // A huge cookie and a client subnet are ignored.
    let mut options = vec![0, 10, 1, 0];
    options.extend([7; 256]);
    options.extend([0, 8, 0, 4, 0, 1, 0, 0]);
    assert_eq!(rcode(&query(WEB, &opt(0, 0, &options), 1)), Some(0));
    // BADVERS is 16: nothing in the header, one in the upper bits of the OPT record.
    let message = query(WEB, &opt(1, 1232, &[]), 1);
    let (_, out) = ask(&zones(Synced::Complete), &asker(&["n1"]), &message, Transport::Udp, 1);
    let reply = hickory_proto::op::Message::from_vec(&out).unwrap();
    // TSIG calls the same number BADSIG.
    assert_eq!(u16::from(reply.metadata.response_code), 16);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8_000))]

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let zones = zones(Synced::Complete);
        let (answer, out) = ask(&zones, &asker(&["n1"]), &bytes, Transport::Udp, 1);
        if answer == Answer::Reply {
            prop_assert!(out.len() <= 512 && out[..2] == bytes[..2]);
        }
    }

    /// Nearly right messages reach deeper than noise does.
    #[test]
    fn damaged_queries_are_survived(
        at in 0usize..60, value in any::<u8>(), cut in 0usize..60, data in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let mut message = query(b"\x03web\x05front\x00", &opt(0, 1232, &data), 1);
        let at = at % message.len();
        message[at] = value;
        message.truncate(message.len().saturating_sub(cut / 4));
        let zones = zones(Synced::Complete);
        let (answer, out) = ask(&zones, &asker(&["n1"]), &message, Transport::Udp, 1);
        if answer == Answer::Reply {
            prop_assert!(out.len() <= 1232);
            prop_assert!(hickory_proto::op::Message::from_vec(&out).is_ok());
        }
    }
}
