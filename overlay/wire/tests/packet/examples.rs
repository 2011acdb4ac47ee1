//! Named examples. The bytes of the first were written by another program.

use weft_wire::packet::{Coalescer, Gso, GsoKind, Partial, VnetHeader};

use crate::cut::cut;
use crate::merge::merged;
use crate::model::{
    ACK, CWR, Checksum, ECE, FIN, Flow, Network, PSH, Piece, SYN, Transport, URG, bytes, plain_sum,
};

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

/// Cut and merged again: `large` and `packets` are the same data.
fn both_ways(header: VnetHeader, large: &str, packets: &[&str]) {
    let packets: Vec<_> = packets.iter().map(|packet| hex(packet)).collect();
    assert_eq!(cut(header, &hex(large)), packets);
    assert_eq!(merged(&mut Coalescer::default(), &packets), [(header, hex(large))]);
}

/// Eleven bytes in pieces of four; sequence number and identification wrap around; ECT(0), CWR and PSH.
#[test]
fn tcp_over_ipv4() {
    let gso = Gso { kind: GsoKind::Tcp4, size: 4, reduced: true };
    let header = VnetHeader {
        partial: Some(Partial { start: 34, offset: 16 }),
        verified: false,
        gso: Some(gso),
        header_length: 66,
    };
    both_ways(
        header,
        "020000000002 020000000001 0800 4502003f ffff4000 400626b5 0a000001 0a000002
         9c400050 fffffffe 00000007 80980200 1434 0000 0101080a0000000100000002
         6162636465666768696a6b",
        &[
            "020000000002 020000000001 0800 45020038 ffff4000 400626bc 0a000001 0a000002
             9c400050 fffffffe 00000007 80900200 fed6 0000 0101080a0000000100000002 61626364",
            "020000000002 020000000001 0800 45020038 00004000 400626bc 0a000001 0a000002
             9c400050 00000002 00000007 80100200 f74b 0000 0101080a0000000100000002 65666768",
            "020000000002 020000000001 0800 45020037 00014000 400626bc 0a000001 0a000002
             9c400050 00000006 00000007 80180200 efa4 0000 0101080a0000000100000002 696a6b",
        ],
    );
}

#[test]
fn udp_over_ipv6() {
    let header = VnetHeader {
        partial: Some(Partial { start: 54, offset: 6 }),
        verified: false,
        gso: Some(Gso { kind: GsoKind::Udp, size: 6, reduced: false }),
        header_length: 62,
    };
    both_ways(
        header,
        "020000000002 020000000001 86dd 60012345 0013 11 40
         fd000000000000000000000000000001 fd000000000000000000000000000002
         01bbc350 0013fa28 68656c6c6f20776f726c64",
        &[
            "020000000002 020000000001 86dd 60012345 000e 11 40
             fd000000000000000000000000000001 fd000000000000000000000000000002
             01bbc350 000efccf 68656c6c6f20",
            "020000000002 020000000001 86dd 60012345 000d 11 40
             fd000000000000000000000000000001 fd000000000000000000000000000002
             01bbc350 000df2e7 776f726c64",
        ],
    );
}

/// The device's header is that of the kernel, byte by byte (linux/virtio_net.h).
#[test]
fn header_of_the_device() {
    let header = VnetHeader {
        partial: Some(Partial { start: 34, offset: 16 }),
        verified: false,
        gso: Some(Gso { kind: GsoKind::Tcp4, size: 1_348, reduced: true }),
        header_length: 66,
    };
    let numbers = [66u16, 1_348, 34, 16].map(u16::to_ne_bytes).concat();
    assert_eq!(header.to_bytes(), [&[1, 0x81][..], &numbers, &[0, 0]].concat()[..]);
    assert_eq!(VnetHeader::default().to_bytes(), [0; 12]);
    for (code, kind) in [(1, GsoKind::Tcp4), (4, GsoKind::Tcp6), (5, GsoKind::Udp)] {
        let parsed = VnetHeader::parse(&[0, code, 0, 0, 1, 1, 0, 0, 0, 0]).unwrap();
        assert_eq!(parsed.gso, Some(Gso { kind, size: 257, reduced: false }));
    }
}

/// Two packets of a flow, and what is wrong with them.
struct Pair {
    flows: [Flow; 2],
    identifications: [u16; 2],
    sequences: [u32; 2],
    flags: [u8; 2],
    lengths: [usize; 2],
    checksums: [Checksum; 2],
    /// Changed in the finished packets.
    mangle: fn(&mut [Vec<u8>; 2]),
}

impl Pair {
    fn new(network: Network, transport: Transport) -> Self {
        let flow = Flow {
            destination_mac: [2, 0, 0, 0, 0, 2],
            source_mac: [2, 0, 0, 0, 0, 1],
            tags: vec![],
            network,
            class: 2,
            life: 64,
            source_port: 40_000,
            destination_port: 80,
            transport,
        };
        Self {
            flows: [flow.clone(), flow],
            identifications: [7, 8],
            sequences: [1_000, 1_100],
            flags: [ACK; 2],
            lengths: [100; 2],
            checksums: [Checksum::Right; 2],
            mangle: |_| {},
        }
    }

    fn tcp() -> Self {
        let options = hex("0101080a0000000100000002");
        let transport = Transport::Tcp {
            sequence: 0,
            acknowledgment: 5,
            reserved: 0,
            flags: 0,
            window: 500,
            urgent: 0,
            options,
        };
        Self::new(v4(true), transport)
    }

    fn udp(network: Network) -> Self {
        Self::new(network, Transport::Udp)
    }

    fn frames(&self) -> [Vec<u8>; 2] {
        let frame = |at: usize| {
            let payload = bytes(self.lengths[at], at as u64 + 1);
            self.flows[at].frame(&Piece {
                identification: self.identifications[at],
                sequence: self.sequences[at],
                flags: self.flags[at],
                payload: &payload,
                checksum: self.checksums[at],
            })
        };
        let mut frames = [frame(0), frame(1)];
        (self.mangle)(&mut frames);
        frames
    }
}

fn v4(dont_fragment: bool) -> Network {
    Network::V4 {
        source: [10, 0, 0, 1],
        destination: [10, 0, 0, 2],
        identification: 0,
        dont_fragment,
        options: vec![],
    }
}

fn v6(label: u32) -> Network {
    Network::V6 { source: [0xfd; 16], destination: [0xfe; 16], label, extensions: vec![] }
}

/// How many frames come of two.
fn written(pair: &Pair) -> usize {
    let frames = pair.frames();
    let written = merged(&mut Coalescer::default(), &frames);
    if written.len() == 2 {
        let alone = frames.map(|frame| (VnetHeader::default(), frame));
        assert_eq!(written, alone, "what is not merged is not changed");
    }
    written.len()
}

type Change = fn(&mut Pair);

#[test]
fn what_is_merged() {
    let tcp: [(&str, Change); 9] = [
        ("the next", |_| {}),
        ("the last, shorter", |pair| pair.lengths[1] = 99),
        ("the last, pushed", |pair| pair.flags[1] |= PSH),
        ("the end of the flow", |pair| pair.flags[1] |= FIN | PSH),
        ("the first says that the window is reduced", |pair| pair.flags[0] |= CWR),
        ("both echo congestion", |pair| pair.flags = [ACK | ECE; 2]),
        ("both met congestion", |pair| pair.flows.iter_mut().for_each(|flow| flow.class = 3)),
        ("one identification for all", |pair| pair.identifications = [0; 2]),
        ("the numbers wrap around", |pair| {
            (pair.identifications, pair.sequences) = ([u16::MAX, 0], [u32::MAX - 49, 50]);
        }),
    ];
    for (name, change) in tcp {
        let mut pair = Pair::tcp();
        change(&mut pair);
        assert_eq!(written(&pair), 1, "{name}");
    }
    assert_eq!(written(&Pair::udp(v4(false))), 1, "UDP");
    assert_eq!(written(&Pair::udp(v6(3))), 1, "UDP over IPv6");
}

#[test]
fn what_is_not_merged() {
    fn with_tcp(pair: &mut Pair, change: fn(&mut u32, &mut u16, &mut u16, &mut Vec<u8>, &mut u8)) {
        if let Transport::Tcp { acknowledgment, window, urgent, options, reserved, .. } =
            &mut pair.flows[1].transport
        {
            change(acknowledgment, window, urgent, options, reserved);
        }
    }
    let tcp: [(&str, Change); 34] = [
        ("a gap", |pair| pair.sequences[1] += 1),
        ("an overlap", |pair| pair.sequences[1] -= 1),
        ("the same again", |pair| pair.sequences[1] = pair.sequences[0]),
        ("a longer one", |pair| pair.lengths[1] = 101),
        ("no data", |pair| pair.lengths[1] = 0),
        ("behind no data", |pair| (pair.lengths[0], pair.sequences[1]) = (0, 1_000)),
        ("behind a push", |pair| pair.flags[0] |= PSH),
        ("behind the end", |pair| pair.flags[0] |= FIN),
        ("a reduced window", |pair| pair.flags[1] |= CWR),
        ("two reduced windows", |pair| pair.flags = [ACK | CWR; 2]),
        ("congestion echoed by one", |pair| pair.flags[1] |= ECE),
        ("congestion met by one", |pair| pair.flows[1].class = 3),
        ("the beginning of a flow", |pair| pair.flags[1] |= SYN),
        ("both begin a flow", |pair| pair.flags = [ACK | SYN; 2]),
        ("reset", |pair| pair.flags[1] |= 4),
        ("both reset", |pair| pair.flags = [ACK | 4; 2]),
        ("urgent", |pair| pair.flags = [ACK | URG; 2]),
        ("no acknowledgment", |pair| pair.flags = [0; 2]),
        ("another acknowledgment", |pair| with_tcp(pair, |number, _, _, _, _| *number += 1)),
        ("another window", |pair| with_tcp(pair, |_, window, _, _, _| *window += 1)),
        ("another urgent pointer", |pair| with_tcp(pair, |_, _, urgent, _, _| *urgent += 1)),
        ("another time", |pair| with_tcp(pair, |_, _, _, options, _| options[7] += 1)),
        ("more options", |pair| with_tcp(pair, |_, _, _, options, _| options.extend([1; 4]))),
        ("another reserved bit", |pair| with_tcp(pair, |_, _, _, _, bits| *bits = 1)),
        ("another time to live", |pair| pair.flows[1].life = 63),
        ("another port", |pair| pair.flows[1].source_port += 1),
        ("another MAC", |pair| pair.flows[1].source_mac[5] += 1),
        ("an identification left out", |pair| pair.identifications[1] = 9),
        ("one of them may be fragmented", |pair| pair.flows[1].network = v4(false)),
        ("one identification, fragmentation allowed", |pair| {
            pair.identifications = [7; 2];
            pair.flows.iter_mut().for_each(|flow| flow.network = v4(false));
        }),
        ("the first is wrong", |pair| pair.checksums[0] = Checksum::Wrong),
        ("the second is wrong", |pair| pair.checksums[1] = Checksum::Wrong),
        ("padding", |pair| pair.mangle = |frames| frames[1].push(0)),
        ("padding that makes up for its length in the checksum", |pair| {
            pair.lengths[1] = 50;
            pair.mangle = |frames| frames[1].extend([0xff, 0xfd]);
        }),
    ];
    for (name, change) in tcp {
        let mut pair = Pair::tcp();
        change(&mut pair);
        assert_eq!(written(&pair), 2, "{name}");
    }
    let udp: [(&str, Change); 8] = [
        ("a longer one", |pair| pair.lengths[1] = 101),
        ("no data", |pair| pair.lengths[1] = 0),
        ("no checksums", |pair| {
            pair.mangle = |frames| frames.iter_mut().for_each(|frame| frame[40..42].fill(0));
        }),
        ("the first is wrong", |pair| pair.checksums[0] = Checksum::Wrong),
        ("the second is wrong", |pair| pair.checksums[1] = Checksum::Wrong),
        ("the first IP header is wrong", |pair| pair.mangle = |frames| frames[0][24] ^= 1),
        ("the second IP header is wrong", |pair| pair.mangle = |frames| frames[1][24] ^= 1),
        ("IPv6", |pair| pair.flows[1].network = v6(0)),
    ];
    for (name, change) in udp {
        let mut pair = Pair::udp(v4(true));
        change(&mut pair);
        assert_eq!(written(&pair), 2, "UDP: {name}");
    }
    let mut labels = Pair::udp(v6(1));
    labels.flows[1].network = v6(2);
    assert_eq!(written(&labels), 2, "another flow label");
}

/// A shorter packet ends a merged frame, also for one of the first's size.
#[test]
fn nothing_comes_behind_a_short_one() {
    let mut pair = Pair::tcp();
    pair.lengths[1] = 50;
    let mut frames = pair.frames().to_vec();
    pair.sequences[1] = 1_150;
    pair.identifications[1] = 9;
    frames.push(pair.frames()[1].clone());
    assert_eq!(merged(&mut Coalescer::default(), &frames).len(), 2);
}

/// A datagram without checksum stays as it is, also where its checksum would have been zero.
#[test]
fn no_checksum_is_none() {
    let mut pair = Pair::udp(v4(true));
    pair.lengths = [2; 2];
    pair.mangle = |frames| {
        for frame in frames {
            let sum = u16::from_be_bytes([frame[40], frame[41]]);
            let data = u16::from_be_bytes([frame[42], frame[43]]);
            // What was missing to a sum of all ones goes to the data.
            let data = plain_sum(&[&sum.to_be_bytes(), &data.to_be_bytes()]);
            frame[42..44].copy_from_slice(&data.to_be_bytes());
            frame[40..42].fill(0);
        }
    };
    assert_eq!(written(&pair), 2);
}

/// A fragment may belong to any flow, so that nothing is merged past it.
#[test]
fn nothing_overtakes_a_fragment() {
    let mut pair = Pair::udp(v4(true));
    pair.identifications = [7; 2];
    let [first, second] = pair.frames();
    let mut fragment = first.clone();
    fragment[20] = 0x20;
    assert_eq!(merged(&mut Coalescer::default(), &[first.clone(), second.clone()]).len(), 1);
    let frames = [first, fragment, second];
    let alone = frames.clone().map(|frame| (VnetHeader::default(), frame));
    assert_eq!(merged(&mut Coalescer::default(), &frames), alone);
}

/// How many packets each frame stands for, of so many packets with this payload.
fn counts(flow: &Flow, packets: usize, size: usize) -> Vec<usize> {
    let frames = flow.packets(&bytes(packets * size, 1), size as u16);
    let payload = |frame: &[u8]| (frame.len() - flow.headers()) / size;
    let written = merged(&mut Coalescer::default(), &frames);
    written.iter().map(|(_, frame)| payload(frame)).collect()
}

#[test]
fn frames_have_limits() {
    let mut flow = Pair::tcp().flows[0].clone();
    if let Transport::Tcp { flags, .. } = &mut flow.transport {
        *flags = ACK;
    }
    // 14 + 20 + 32 bytes of headers: 65,469 are left.
    assert_eq!(counts(&flow, 48, 1_395), [46, 2]);
    assert_eq!(counts(&flow, 94, 1_393), [46, 46, 2]);
    assert_eq!(counts(&flow, 7, 10_911), [6, 1]);
    assert_eq!(counts(&flow, 7, 10_912), [5, 2]);
    assert_eq!(counts(&flow, 1_100, 1), [1_023, 77], "pieces of one write");
    assert_eq!(counts(&Pair::udp(v4(true)).flows[0], 100, 10), [64, 36], "datagrams");
}
