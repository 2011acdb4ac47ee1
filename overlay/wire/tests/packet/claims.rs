//! Who frames say that they come from, as a table.

use std::net::IpAddr;

use weft_wire::packet::{BadFrame, Claims, Destination, claims, destination};

const OWN: [u8; 6] = [2, 0, 0, 0, 0, 1];
const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 2];

fn ethernet(kind: u16, body: &[u8]) -> Vec<u8> {
    [&[0xff; 6], &OWN[..], &kind.to_be_bytes(), body].concat()
}

fn arp(sender: [u8; 6], address: [u8; 4]) -> Vec<u8> {
    [&[0, 1, 8, 0, 6, 4, 0, 2][..], &sender, &address, &OTHER, &[10, 0, 0, 9]].concat()
}

fn v4(source: [u8; 4]) -> Vec<u8> {
    [&[0x45, 0, 0, 20, 0, 0, 0, 0, 64, 47, 0, 0][..], &source, &[10, 0, 0, 9]].concat()
}

/// It says that there is one byte more than there is.
fn long_v4() -> Vec<u8> {
    let mut packet = v4([10, 0, 0, 2]);
    packet[3] += 1;
    packet
}

fn v6(source: &str, next: u8, body: &[u8]) -> Vec<u8> {
    let source: std::net::Ipv6Addr = source.parse().unwrap();
    let length = (body.len() as u16).to_be_bytes();
    [&[0x60, 0, 0, 0][..], &length, &[next, 255], &source.octets(), &[0xfe; 16], body].concat()
}

/// A neighbour message: its type, the rest of its fixed part, one option of a link-layer address.
fn neighbour(kind: u8, fixed: usize, option: u8, mac: [u8; 6]) -> Vec<u8> {
    let target = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
    let mut message = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    message.extend(target);
    message.resize(fixed, 0);
    message.extend([&[option, 1][..], &mac].concat());
    message
}

/// The frame's address and what it advertises.
type Wanted = Result<(Option<&'static str>, Option<&'static str>), BadFrame>;

fn table() -> Vec<(&'static str, Vec<u8>, Wanted)> {
    let advertisement = |mac| neighbour(136, 24, 2, mac);
    let hop_by_hop = |next: u8, body: Vec<u8>| [&[next, 0, 0, 0, 0, 0, 0, 0][..], &body].concat();
    let fragment =
        |offset: u8, body: Vec<u8>| [&[58, 0, 0, offset, 0, 0, 0, 1][..], &body].concat();
    let many = |count: usize| {
        let mut body = advertisement(OWN);
        for at in 0..count {
            body = hop_by_hop(if at == 0 { 58 } else { 60 }, body);
        }
        body
    };
    let tagged = |body: &[u8]| ethernet(0x8100, &[&[0, 7][..], body].concat());
    let twice = |body: &[u8]| ethernet(0x88a8, &[&[0, 7, 0x81, 0, 0, 8][..], body].concat());
    vec![
        ("nothing", vec![], Err(BadFrame::Truncated)),
        ("half a header", vec![0; 13], Err(BadFrame::Truncated)),
        ("half a tag", ethernet(0x8100, &[0, 7]), Err(BadFrame::Truncated)),
        ("unknown type", ethernet(0x88cc, b"hello"), Ok((None, None))),
        ("a length (802.3)", ethernet(38, &[0x42; 38]), Ok((None, None))),
        ("three tags", twice(&[0x81, 0, 0, 1, 8, 0]), Ok((None, None))),
        ("ARP", ethernet(0x0806, &arp(OWN, [10, 0, 0, 2])), Ok((Some("10.0.0.2"), None))),
        ("ARP probe", ethernet(0x0806, &arp(OWN, [0; 4])), Ok((None, None))),
        ("ARP of another", ethernet(0x0806, &arp(OTHER, [10, 0, 0, 2])), Err(BadFrame::Neighbor)),
        ("short ARP", ethernet(0x0806, &arp(OWN, [10, 0, 0, 2])[..27]), Err(BadFrame::Truncated)),
        (
            "ARP of Infiniband",
            ethernet(0x0806, &[&[0, 32], &arp(OWN, [10, 0, 0, 2])[2..]].concat()),
            Err(BadFrame::Neighbor),
        ),
        (
            "tagged ARP of another",
            tagged(&[&[8, 6][..], &arp(OTHER, [10, 0, 0, 2])].concat()),
            Err(BadFrame::Neighbor),
        ),
        ("IPv4", ethernet(0x0800, &v4([10, 0, 0, 2])), Ok((Some("10.0.0.2"), None))),
        ("IPv4 without address", ethernet(0x0800, &v4([0; 4])), Ok((None, None))),
        ("short IPv4", ethernet(0x0800, &v4([10, 0, 0, 2])[..19]), Err(BadFrame::Truncated)),
        ("cut IPv4", ethernet(0x0800, &long_v4()), Err(BadFrame::Truncated)),
        ("IPv6 as IPv4", ethernet(0x0800, &v6("fd00::2", 59, &[])), Err(BadFrame::Network)),
        (
            "tagged IPv4",
            tagged(&[&[8, 0][..], &v4([10, 0, 0, 2])].concat()),
            Ok((Some("10.0.0.2"), None)),
        ),
        (
            "IPv4 under two tags",
            twice(&[&[8, 0][..], &v4([10, 0, 0, 2])].concat()),
            Ok((Some("10.0.0.2"), None)),
        ),
        ("IPv6", ethernet(0x86dd, &v6("fd00::2", 59, &[])), Ok((Some("fd00::2"), None))),
        ("IPv6 without address", ethernet(0x86dd, &v6("::", 59, &[])), Ok((None, None))),
        (
            "IPv4 as IPv6",
            ethernet(0x86dd, &[v4([10; 4]), v4([10; 4])].concat()),
            Err(BadFrame::Network),
        ),
        ("short IPv6", ethernet(0x86dd, &v6("fd00::2", 59, &[])[..39]), Err(BadFrame::Truncated)),
        (
            "advertisement",
            ethernet(0x86dd, &v6("fd00::2", 58, &advertisement(OWN))),
            Ok((Some("fd00::2"), Some("fd00::7"))),
        ),
        (
            "advertisement without option",
            ethernet(0x86dd, &v6("fd00::2", 58, &advertisement(OWN)[..24])),
            Ok((Some("fd00::2"), Some("fd00::7"))),
        ),
        (
            "short advertisement",
            ethernet(0x86dd, &v6("fd00::2", 58, &advertisement(OWN)[..23])),
            Err(BadFrame::Truncated),
        ),
        (
            "advertisement of another",
            ethernet(0x86dd, &v6("fd00::2", 58, &advertisement(OTHER))),
            Err(BadFrame::Neighbor),
        ),
        (
            "its second option lies",
            ethernet(
                0x86dd,
                &v6("fd00::2", 58, &[advertisement(OWN), [&[2, 1][..], &OTHER].concat()].concat()),
            ),
            Err(BadFrame::Neighbor),
        ),
        (
            "an option without length",
            ethernet(0x86dd, &v6("fd00::2", 58, &[advertisement(OWN), vec![14, 0]].concat())),
            Err(BadFrame::Transport),
        ),
        (
            "behind options of hops",
            ethernet(0x86dd, &v6("fd00::2", 0, &hop_by_hop(58, advertisement(OTHER)))),
            Err(BadFrame::Neighbor),
        ),
        (
            "behind eight headers",
            ethernet(0x86dd, &v6("fd00::2", 60, &many(8))),
            Ok((Some("fd00::2"), Some("fd00::7"))),
        ),
        ("behind too many", ethernet(0x86dd, &v6("fd00::2", 60, &many(9))), Err(BadFrame::Network)),
        (
            "behind half a header",
            ethernet(0x86dd, &v6("fd00::2", 60, &[58, 1, 0, 0, 0, 0, 0, 0])),
            Err(BadFrame::Network),
        ),
        (
            "in a fragment that is all",
            ethernet(0x86dd, &v6("fd00::2", 44, &fragment(0, advertisement(OTHER)))),
            Err(BadFrame::Neighbor),
        ),
        (
            // Hosts ignore neighbour messages in fragments (RFC 6980).
            "in a fragment",
            ethernet(0x86dd, &v6("fd00::2", 44, &fragment(1, advertisement(OTHER)))),
            Ok((Some("fd00::2"), None)),
        ),
        (
            // What looks like the length of another header is data.
            "in a later fragment",
            ethernet(0x86dd, &v6("fd00::2", 44, &[60, 0, 0, 8, 0, 0, 0, 1, 58, 200])),
            Ok((Some("fd00::2"), None)),
        ),
        (
            "router solicitation of another",
            ethernet(0x86dd, &v6("fe80::2", 58, &neighbour(133, 8, 1, OTHER))),
            Err(BadFrame::Neighbor),
        ),
        (
            "router advertisement of another",
            ethernet(0x86dd, &v6("fe80::2", 58, &[&[134; 16][..], &[1, 1], &OTHER].concat())),
            Err(BadFrame::Neighbor),
        ),
        (
            "solicitation",
            ethernet(0x86dd, &v6("fd00::2", 58, &neighbour(135, 24, 1, OWN))),
            Ok((Some("fd00::2"), None)),
        ),
        (
            "solicitation of another",
            ethernet(0x86dd, &v6("fd00::2", 58, &neighbour(135, 24, 1, OTHER))),
            Err(BadFrame::Neighbor),
        ),
        (
            "search for a double (RFC 4862)",
            ethernet(0x86dd, &v6("::", 58, &neighbour(135, 24, 14, OTHER))),
            Ok((None, None)),
        ),
        (
            "redirect to another",
            ethernet(0x86dd, &v6("fe80::2", 58, &neighbour(137, 40, 2, OTHER))),
            Err(BadFrame::Neighbor),
        ),
        (
            "echo",
            ethernet(0x86dd, &v6("fd00::2", 58, &neighbour(128, 24, 2, OTHER))),
            Ok((Some("fd00::2"), None)),
        ),
    ]
}

#[test]
fn who_it_says() {
    for (name, frame, wanted) in table() {
        let address = |text: Option<&str>| text.map(|text| text.parse::<IpAddr>().unwrap());
        let wanted = wanted.map(|(own, advertised)| Claims {
            source: OWN,
            address: address(own),
            advertised: address(advertised),
        });
        assert_eq!(claims(&frame), wanted, "{name}");
    }
}

#[test]
fn where_it_goes() {
    let to = |mac: [u8; 6]| destination(&[&mac, &OWN[..], &[8, 0]].concat());
    assert_eq!(to(OTHER), Ok(Destination::One(OTHER)));
    assert_eq!(to([0xff; 6]), Ok(Destination::Many));
    assert_eq!(to([0x33, 0x33, 0, 0, 0, 1]), Ok(Destination::Many));
    assert_eq!(to([1, 0, 0x5e, 0, 0, 1]), Ok(Destination::Many));
    assert_eq!(destination(&OTHER), Err(BadFrame::Truncated));
}
