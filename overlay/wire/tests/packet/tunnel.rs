//! What goes around a frame, and what is taken from around it.

use std::net::Ipv4Addr;

use proptest::prelude::*;
use weft_wire::packet::{
    CongestionLost, Ecn, NotVxlan, Outer, Received, Segments, VnetHeader, leave_tunnel, receive,
};

use crate::model::{Checksum, Flow, Network, Piece, bytes, cases, flow, plain_sum};

const SOURCE: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 2);
const DESTINATION: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 5);
const VNI: u32 = 0xab_cdef;

/// Packs a frame that needs nothing.
fn packed(frame: &[u8]) -> Vec<u8> {
    let segments = Segments::new(VnetHeader::default(), frame).unwrap();
    let mut out = vec![0xee; segments.length(0)];
    let outer = Outer::new(SOURCE, DESTINATION, VNI);
    assert_eq!(segments.write(0, &outer, &mut out), Some(frame.len() + 36));
    out
}

/// The frame inside, after everything around it was compared byte by byte.
pub fn unpacked(packet: &[u8], hash: u32, ecn: Ecn) -> &[u8] {
    let total = (packet.len() as u16).to_be_bytes();
    assert_eq!(packet[..2], [0x45, ecn.class()]);
    assert_eq!(packet[2..4], total);
    assert_eq!(packet[4..10], [0, 0, 0x40, 0, 64, 17]);
    assert_eq!(plain_sum(&[&packet[..20]]), 0xffff);
    assert_eq!(packet[12..20], [100, 64, 0, 2, 100, 64, 0, 5]);
    let port = u16::from_be_bytes([packet[20], packet[21]]);
    assert_eq!(port, 49152 + (hash % 16384) as u16);
    assert_eq!(packet[22..24], 4789u16.to_be_bytes());
    assert_eq!(packet[24..26], (packet.len() as u16 - 20).to_be_bytes());
    assert_eq!(packet[26..36], [0, 0, 8, 0, 0, 0, 0xab, 0xcd, 0xef, 0]);
    &packet[36..]
}

pub fn outer() -> Outer {
    Outer::new(SOURCE, DESTINATION, VNI)
}

/// What `receive` says of an example after it was changed.
fn changed(change: impl FnOnce(&mut Vec<u8>)) -> Result<Received, NotVxlan> {
    let mut packet = packed(&[0x11; 60]);
    change(&mut packet);
    receive(&packet)
}

/// As `changed`, with the right checksum of the IPv4 header again.
fn resealed(change: impl FnOnce(&mut Vec<u8>)) -> Result<Received, NotVxlan> {
    changed(|packet| {
        change(packet);
        let header = usize::from(packet[0] & 0xf) * 4;
        packet[10..12].fill(0);
        let sum = !plain_sum(&[&packet[..header]]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    })
}

#[test]
fn what_is_taken() {
    let whole = Received {
        vni: VNI,
        source: SOURCE,
        destination: DESTINATION,
        ecn: Ecn::NotCapable,
        frame: 36..96,
    };
    assert_eq!(changed(|_| {}), Ok(whole.clone()));
    assert_eq!(changed(|packet| packet.extend([0; 15])), Ok(whole.clone()), "padding");
    assert_eq!(resealed(|packet| packet[26..28].fill(7)), Ok(whole.clone()), "a UDP checksum");
    assert_eq!(resealed(|packet| packet[28] = 0xff), Ok(whole.clone()), "reserved flags");
    assert_eq!(resealed(|packet| packet[35] = 0xff), Ok(whole.clone()), "reserved byte");
    assert_eq!(resealed(|packet| packet[20] = 0), Ok(whole.clone()), "any source port");
    let shorter = Received { frame: 36..95, ..whole.clone() };
    assert_eq!(resealed(|packet| packet[25] -= 1), Ok(shorter), "a shorter datagram");
    let congested = Received { ecn: Ecn::Congested, ..whole.clone() };
    assert_eq!(resealed(|packet| packet[1] = 0xff), Ok(congested));
    let optional = resealed(|packet| {
        packet[0] = 0x46;
        packet[3] += 4;
        packet.splice(20..20, [1, 1, 1, 0]);
    });
    assert_eq!(optional, Ok(Received { frame: 40..100, ..whole }), "options");
}

#[test]
fn what_is_not_taken() {
    use NotVxlan::*;
    let table: [(&str, NotVxlan, fn(&mut Vec<u8>)); 15] = [
        ("nothing", Truncated, |packet| packet.clear()),
        ("half a header", Truncated, |packet| packet.truncate(19)),
        ("cut", Truncated, |packet| packet.truncate(95)),
        ("IPv6", Version, |packet| packet[0] = 0x65),
        ("short header", Length, |packet| packet[0] = 0x44),
        ("less than its header", Length, |packet| packet[2..4].fill(0)),
        ("more than there is", Truncated, |packet| packet[2] = 0xff),
        ("first fragment", Fragment, |packet| packet[6] = 0x20),
        ("later fragment", Fragment, |packet| packet[7] = 1),
        ("TCP", Protocol, |packet| packet[9] = 6),
        ("another port", Protocol, |packet| packet[23] += 1),
        ("no VXLAN header", Truncated, |packet| packet[3] = 35),
        ("more than the packet", Length, |packet| packet[25] += 1),
        ("no Ethernet header", Length, |packet| packet[25] = 29),
        ("no identifier", Unidentified, |packet| packet[28] = 0xf7),
    ];
    for (name, reason, change) in table {
        let header_there = !matches!(name, "nothing" | "half a header" | "short header");
        let result = if header_there { resealed(change) } else { changed(change) };
        assert_eq!(result, Err(reason), "{name}");
    }
    assert_eq!(changed(|packet| packet[8] -= 1), Err(Checksum), "a changed header");
}

/// RFC 6040, figure 4: rows are the inner header, columns the outer.
#[test]
fn congestion_leaves_the_tunnel() {
    use Ecn::{Capable0 as E0, Capable1 as E1, Congested as Ce, NotCapable as No};
    let lost = Err(CongestionLost);
    let figure = [
        (No, [(No, Ok(No)), (E0, Ok(No)), (E1, Ok(No)), (Ce, lost)]),
        (E0, [(No, Ok(E0)), (E0, Ok(E0)), (E1, Ok(E1)), (Ce, Ok(Ce))]),
        (E1, [(No, Ok(E1)), (E0, Ok(E1)), (E1, Ok(E1)), (Ce, Ok(Ce))]),
        (Ce, [(No, Ok(Ce)), (E0, Ok(Ce)), (E1, Ok(Ce)), (Ce, Ok(Ce))]),
    ];
    for (inner, row) in figure {
        for (outer, wanted) in row {
            assert_eq!(inner.after(outer), wanted, "{inner:?} in {outer:?}");
        }
    }
    // The bits, as RFC 3168 gives them.
    assert_eq!([No, E1, E0, Ce].map(Ecn::class), [0, 1, 2, 3]);
}

#[test]
fn frames_without_ip_leave_any_tunnel() {
    let mut arp = [0xff; 42];
    arp[12..14].copy_from_slice(&[8, 6]);
    let same = arp;
    assert_eq!(leave_tunnel(Ecn::Congested, &mut arp), Ok(()));
    assert_eq!(arp, same);
}

proptest! {
    #![proptest_config(cases(500))]

    /// Whatever is packed comes out again, with any padding behind it.
    #[test]
    fn pack_and_receive(length in 14usize..2_000, seed: u64, padding in 0usize..16) {
        let frame = bytes(length, seed);
        let mut packet = packed(&frame);
        packet.extend(vec![0xaa; padding]);
        let received = receive(&packet).unwrap();
        prop_assert_eq!(received.vni, VNI);
        prop_assert_eq!(received.source, SOURCE);
        prop_assert_eq!(received.destination, DESTINATION);
        prop_assert_eq!(&packet[received.frame], &frame[..]);
    }

    /// The merged mark is what the same packet would have had from the beginning, checksum included.
    #[test]
    fn marks_are_written(flow in flow(), outer in 0u8..4, seed: u64) {
        let payload = bytes(100, seed);
        let piece = |flow: &Flow| flow.frame(&Piece {
            identification: flow.identification(),
            sequence: flow.sequence(),
            flags: 0x10,
            payload: &payload,
            checksum: Checksum::Right,
        });
        let (outer, inner) = (Ecn::of_class(outer), Ecn::of_class(flow.class));
        let mut frame = piece(&flow);
        match inner.after(outer) {
            Ok(merged) => {
                prop_assert_eq!(leave_tunnel(outer, &mut frame), Ok(()));
                let wanted = piece(&Flow { class: flow.class & !3 | merged.class(), ..flow.clone() });
                if let Network::V4 { options, .. } = &flow.network {
                    let begin = 14 + 4 * flow.tags.len();
                    let header = &frame[begin..begin + 20 + options.len()];
                    prop_assert_eq!(plain_sum(&[header]), 0xffff);
                }
                prop_assert_eq!(frame, wanted);
            }
            Err(lost) => {
                prop_assert_eq!(leave_tunnel(outer, &mut frame), Err(lost));
                prop_assert_eq!(frame, piece(&flow));
            }
        }
    }
}
