//! What a large frame is cut into is what its sender would have sent in small packets.

use proptest::prelude::*;
use weft_wire::packet::{BadFrame, Ecn, Gso, GsoKind, Partial, Segments, VnetHeader, flow_hash};

use crate::model::{
    ACK, Checksum, Flow, Load, Network, Piece, Transport, bytes, cases, flow, load, plain_flow,
};
use crate::tunnel::{outer, unpacked};

/// The frames that this one becomes; everything around them was looked at.
pub fn cut(header: VnetHeader, frame: &[u8]) -> Vec<Vec<u8>> {
    let segments = Segments::new(header, frame).unwrap();
    assert_eq!(segments.hash(), flow_hash(frame));
    let mut out = vec![0; 70_000];
    let mut one = |index| {
        let length = segments.write(index, &outer(), &mut out).unwrap();
        assert_eq!(length, segments.length(index));
        assert_eq!(segments.write(index, &outer(), &mut vec![0; length - 1]), None);
        unpacked(&out[..length], segments.hash(), segments.ecn()).to_vec()
    };
    // Backwards: no packet depends on the one before.
    let mut frames: Vec<_> = (0..segments.count()).rev().map(&mut one).collect();
    frames.reverse();
    assert_eq!(segments.write(segments.count(), &outer(), &mut [0; 70_000]), None);
    frames
}

/// One packet of this flow, with all or half of its checksum.
fn one(flow: &Flow, payload: &[u8], checksum: Checksum) -> Vec<u8> {
    flow.frame(&Piece {
        identification: flow.identification(),
        sequence: flow.sequence(),
        flags: flow.flags(),
        payload,
        checksum,
    })
}

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn cut_is_as_sent(flow in flow(), load in load()) {
        let payload = load.payload(&flow);
        let (header, frame) = flow.large(&payload, load.size);
        let wanted = flow.packets(&payload, load.size);
        let got = cut(header, &frame);
        prop_assert_eq!(got.len(), wanted.len());
        for (index, (got, wanted)) in got.iter().zip(&wanted).enumerate() {
            prop_assert_eq!(got, wanted, "packet {}", index);
        }
    }

    /// A checksum that was found right is as good as none, if it is known what it covers.
    #[test]
    fn verified_is_as_good(flow in flow(), load in load()) {
        let payload = load.payload(&flow);
        let (header, _) = flow.large(&payload, load.size);
        let frame = one(&flow, &payload, Checksum::Right);
        let verified = VnetHeader { partial: None, verified: true, ..header };
        let bare = match &flow.network {
            Network::V6 { extensions, .. } => extensions.is_empty(),
            Network::V4 { options, .. } => options.is_empty(),
        };
        if bare {
            prop_assert_eq!(cut(verified, &frame), flow.packets(&payload, load.size));
        } else {
            prop_assert_eq!(Segments::new(verified, &frame).err(), Some(BadFrame::Offload));
        }
    }

    /// The tunnel's header has the mark of the frame, whatever is around its IP header.
    #[test]
    fn mark_goes_outside(flow in flow(), load in load()) {
        let (header, frame) = flow.large(&load.payload(&flow), load.size);
        prop_assert_eq!(Segments::new(header, &frame).unwrap().ecn(), Ecn::of_class(flow.class));
    }

    #[test]
    fn checksums_are_finished(flow in flow(), length in 0usize..3_000, seed: u64) {
        let payload = bytes(length, seed);
        let (header, _) = flow.large(&payload, 1);
        let header = VnetHeader { gso: None, ..header };
        let wanted = one(&flow, &payload, Checksum::Right);
        let mut got = cut(header, &one(&flow, &payload, Checksum::Partial)).remove(0);
        // A checksum of zero is written as its complement also for TCP, as the kernel does.
        let field = usize::from(header.partial.unwrap().start + header.partial.unwrap().offset);
        if wanted[field..field + 2] == [0, 0] && got[field..field + 2] == [0xff, 0xff] {
            got[field..field + 2].fill(0);
        }
        prop_assert_eq!(got, wanted);
    }

    /// Frames that need nothing go as they are, right or not.
    #[test]
    fn nothing_is_changed(flow in flow(), length in 0usize..3_000, seed: u64) {
        for checksum in [Checksum::Right, Checksum::Wrong] {
            let frame = one(&flow, &bytes(length, seed), checksum);
            prop_assert_eq!(cut(VnetHeader::default(), &frame), vec![frame]);
        }
    }

    /// All packets of a flow have one hash, so that they keep their order.
    #[test]
    fn hash_is_of_the_flow(flow in flow(), load in load()) {
        let payload = load.payload(&flow);
        let (_, frame) = flow.large(&payload, load.size);
        for packet in flow.packets(&payload, load.size) {
            prop_assert_eq!(flow_hash(&packet), flow_hash(&frame));
        }
    }

    /// The hint of the device changes nothing.
    #[test]
    fn header_length_is_not_believed(flow in flow(), load in load(), lie: u16) {
        let (header, frame) = flow.large(&load.payload(&flow), load.size);
        prop_assert_eq!(cut(VnetHeader { header_length: lie, ..header }, &frame), cut(header, &frame));
    }

    /// What the device says must be what the frame says.
    #[test]
    fn lies_are_refused(flow in plain_flow(), load in load(), start: u16, offset: u16) {
        let (header, frame) = flow.large(&load.payload(&flow), load.size);
        let (gso, partial) = (header.gso.unwrap(), header.partial.unwrap());
        let lie = |gso, partial| {
            Segments::new(VnetHeader { gso: Some(gso), partial, ..header }, &frame).map(|_| ())
        };
        let offload = Err(BadFrame::Offload);
        for kind in [GsoKind::Tcp4, GsoKind::Tcp6, GsoKind::Udp] {
            let wanted = if kind == gso.kind { Ok(()) } else { offload };
            prop_assert_eq!(lie(Gso { kind, ..gso }, Some(partial)), wanted);
        }
        prop_assert_eq!(lie(gso, None), offload);
        prop_assert_eq!(lie(Gso { size: 0, ..gso }, Some(partial)), offload);
        if start != partial.start {
            prop_assert_eq!(lie(gso, Some(Partial { start, ..partial })), offload);
        }
        if offset != partial.offset {
            prop_assert_eq!(lie(gso, Some(Partial { offset, ..partial })), offload);
        }
        for short in 0..frame.len().min(200) {
            prop_assert!(Segments::new(header, &frame[..short]).is_err(), "{} bytes", short);
        }
        let longer = [&frame[..], &[0]].concat();
        prop_assert_eq!(Segments::new(header, &longer).err(), Some(BadFrame::Network));
    }
}

/// A header of the transport that does not fit its packet.
#[test]
fn lies_of_the_transport_are_refused() {
    for (transport, at, bytes) in [
        // Lengths of UDP, one too few and one too many, then of TCP's header: too short, and past the end.
        (Transport::Udp, 38, [0, 107]),
        (Transport::Udp, 38, [0, 109]),
        (tcp(vec![]), 46, [0x4f, ACK]),
        (tcp(vec![1; 40]), 46, [0xf0, ACK]),
    ] {
        let flow = v4_flow(transport);
        let length = if flow.protocol() == 17 { 100 } else { 0 };
        let (header, mut frame) = flow.large(&vec![7; length], 10);
        assert!(Segments::new(header, &frame).is_ok());
        frame[at..at + 2].copy_from_slice(&bytes);
        if bytes[0] == 0xf0 {
            // Cut to the length that IP says, which is shorter than TCP's header.
            frame.truncate(34 + 40);
            frame[16..18].copy_from_slice(&[0, 60]);
        }
        assert_eq!(Segments::new(header, &frame).err(), Some(BadFrame::Transport), "{bytes:?}");
    }
}

fn tcp(options: Vec<u8>) -> Transport {
    Transport::Tcp {
        sequence: 1,
        acknowledgment: 2,
        reserved: 0,
        flags: ACK,
        window: 3,
        urgent: 0,
        options,
    }
}

fn v4_flow(transport: Transport) -> Flow {
    Flow {
        destination_mac: [2; 6],
        source_mac: [4; 6],
        tags: vec![],
        network: Network::V4 {
            source: [10, 0, 0, 2],
            destination: [10, 0, 0, 3],
            identification: 0,
            dont_fragment: true,
            options: vec![],
        },
        class: 0,
        life: 64,
        source_port: 40_000,
        destination_port: 80,
        transport,
    }
}

#[test]
fn flows_are_spread() {
    let mut ports = std::collections::BTreeSet::new();
    for port in 0..1_000 {
        let flow = Flow { source_port: 32_768 + port, ..v4_flow(Transport::Udp) };
        ports.insert(flow_hash(&one(&flow, b"data", Checksum::Right)) % 16_384);
    }
    // A thousand balls in 16,384 bins: about thirty meet another.
    assert!(ports.len() > 900, "{} ports for 1,000 flows", ports.len());
}

/// The fragments of a packet go where its address pair goes, wherever its ports are.
#[test]
fn fragments_have_one_hash() {
    let mut first = vec![0; 60];
    first[12..14].copy_from_slice(&[8, 0]);
    first[14..34]
        .copy_from_slice(&[0x45, 0, 0, 46, 0, 1, 0x20, 0, 64, 17, 0, 0, 10, 0, 0, 2, 10, 0, 0, 3]);
    let mut second = first.clone();
    second[20..22].copy_from_slice(&[0, 4]);
    second[34..].fill(0x77);
    assert_eq!(flow_hash(&first), flow_hash(&second));
    // In IPv6 only the first fragment says what it is a part of (RFC 8200, section 4.5).
    let fragment = |next: u8, offset: u8| {
        let header = [[0x60, 0, 0, 0, 0, 16, 44, 64].to_vec(), vec![0xfd; 32]].concat();
        [&[2; 12][..], &[0x86, 0xdd], &header, &[next, 0, 0, offset | 1, 0, 0, 0, 9], &[next; 8]]
            .concat()
    };
    assert_eq!(flow_hash(&fragment(17, 0)), flow_hash(&fragment(59, 8)));
}

#[test]
fn frames_longer_than_packets_are_refused() {
    let frame = vec![0; 65_535 - 36];
    assert_eq!(cut(VnetHeader::default(), &frame), std::slice::from_ref(&frame));
    let longer = [&frame[..], &[0]].concat();
    let refused = Segments::new(VnetHeader::default(), &longer);
    assert_eq!(refused.err(), Some(BadFrame::TooLong));
    let short = Segments::new(VnetHeader::default(), &[0; 13]);
    assert_eq!(short.err(), Some(BadFrame::Truncated));
}

/// One byte each: the most packets that a frame can become.
#[test]
fn smallest_pieces() {
    let flow = Flow {
        destination_mac: [2; 6],
        source_mac: [4; 6],
        tags: vec![7],
        network: Network::V6 {
            source: [0xfd; 16],
            destination: [0xfe; 16],
            label: 5,
            extensions: vec![],
        },
        class: 1,
        life: 1,
        source_port: 1,
        destination_port: 2,
        transport: Transport::Tcp {
            sequence: u32::MAX - 100,
            acknowledgment: 3,
            reserved: 0,
            flags: ACK | 0x8f,
            window: 9,
            urgent: 0,
            options: vec![1; 40],
        },
    };
    let load = Load { length: 65_000, size: 1, seed: 3 };
    let payload = load.payload(&flow);
    let (header, frame) = flow.large(&payload, 1);
    assert_eq!(cut(header, &frame), flow.packets(&payload, 1));
}
