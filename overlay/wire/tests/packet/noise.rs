//! Bytes that make no sense: nothing panics, and what is made of them is still whole.

use proptest::prelude::*;
use weft_wire::packet::{
    Coalescer, Ecn, Segments, VnetHeader, claims, destination, flow_hash, leave_tunnel, receive,
};

use crate::model::{bytes, cases, flow, load};
use crate::tunnel::outer;

/// How bytes are spoiled.
#[derive(Clone, Debug)]
enum Spoil {
    /// One byte near the beginning, where the headers are.
    Set(usize, u8),
    Flip(usize, u8),
    Cut(usize),
    Grow(usize),
    /// A piece is copied to another place.
    Move(usize, usize, usize),
}

impl Spoil {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match *self {
            Self::Set(at, byte) => {
                if let Some(place) = bytes.get_mut(at) {
                    *place = byte;
                }
            }
            Self::Flip(at, bit) => {
                if let Some(place) = bytes.get_mut(at) {
                    *place ^= 1 << bit;
                }
            }
            Self::Cut(length) => bytes.truncate(length),
            Self::Grow(more) => bytes.extend(vec![0; more]),
            Self::Move(from, to, length) => {
                if bytes.len() >= from.max(to) + length {
                    bytes.copy_within(from..from + length, to);
                }
            }
        }
    }
}

fn spoils() -> impl Strategy<Value = Vec<Spoil>> {
    let byte = prop_oneof![Just(0u8), Just(0xff), Just(1), any::<u8>()];
    let spoil = prop_oneof![
        4 => (0usize..130, byte).prop_map(|(at, byte)| Spoil::Set(at, byte)),
        4 => (0usize..130, 0u8..8).prop_map(|(at, bit)| Spoil::Flip(at, bit)),
        2 => (0usize..200).prop_map(Spoil::Cut),
        1 => (0usize..40).prop_map(Spoil::Grow),
        1 => (0usize..100, 0usize..100, 0usize..40)
            .prop_map(|(from, to, length)| Spoil::Move(from, to, length)),
    ];
    prop::collection::vec(spoil, 0..6)
}

/// All that reads a frame.
fn read(frame: &[u8]) -> Result<(), TestCaseError> {
    flow_hash(frame);
    let addressed = destination(frame).is_ok();
    prop_assert!(!addressed || frame.len() >= 14);
    if let Ok(claims) = claims(frame) {
        prop_assert_eq!(&claims.source[..], &frame[6..12]);
    }
    for class in 0..4 {
        let mut marked = frame.to_vec();
        if leave_tunnel(Ecn::of_class(class), &mut marked).is_err() {
            prop_assert_eq!(&marked, frame);
        }
        prop_assert_eq!(marked.len(), frame.len());
    }
    Ok(())
}

/// Cuts the frame, if it is one, and unpacks what it became.
fn cut(header: VnetHeader, frame: &[u8]) -> Result<(), TestCaseError> {
    let Ok(segments) = Segments::new(header, frame) else { return Ok(()) };
    let (count, most) = (segments.count(), segments.length(0));
    let mut out = vec![0; most];
    for index in [0, 1, 2, count / 2, count - 1, count, usize::MAX] {
        let length = segments.write(index, &outer(), &mut out);
        prop_assert_eq!(length.is_some(), index < count);
        let Some(length) = length else { continue };
        prop_assert_eq!(length, segments.length(index));
        prop_assert!(length == most || length < most && index + 1 == count);
        let received = receive(&out[..length]);
        prop_assert!(received.is_ok_and(|received| received.frame == (36..length)));
        prop_assert_eq!(segments.write(index, &outer(), &mut vec![0; length - 1]), None);
    }
    Ok(())
}

/// Merges frames, some of them twice, and accounts for every byte that is written.
fn merge(frames: &[Vec<u8>]) -> Result<(), TestCaseError> {
    let mut coalescer = Coalescer::default();
    let mut buffer = frames.concat();
    let mut end = 0;
    let mut places = Vec::new();
    for frame in frames {
        places.push(end..end + frame.len());
        end += frame.len();
    }
    for place in &places {
        coalescer.push(&buffer, place.clone());
    }
    let outputs = coalescer.finish(&mut buffer);
    let mut parts: Vec<_> = outputs.iter().flat_map(|output| output.parts.clone()).collect();
    for output in outputs {
        let length: usize = output.parts.iter().map(|part| part.len()).sum();
        let most = output.parts.iter().map(|part| part.len()).max().unwrap_or(0);
        prop_assert!(length <= most.max(65_535));
        prop_assert_eq!(output.header.gso.is_some(), output.parts.len() > 1);
        prop_assert_eq!(VnetHeader::parse(&output.header.to_bytes()), Ok(output.header));
    }
    // Every frame is there once, whole or without its headers.
    parts.sort_by_key(|part| part.end);
    prop_assert_eq!(parts.len(), places.len());
    for (part, place) in parts.iter().zip(&places) {
        prop_assert!(part.end == place.end && part.start >= place.start);
    }
    Ok(())
}

proptest! {
    #![proptest_config(cases(20_000))]

    #[test]
    fn random_bytes(header: [u8; 12], length in 0usize..200, seed: u64) {
        let frame = bytes(length, seed);
        read(&frame)?;
        prop_assert!(receive(&frame).is_err());
        if let Ok(header) = VnetHeader::parse(&header) {
            cut(header, &frame)?;
        }
        cut(VnetHeader::default(), &frame)?;
        merge(&[frame.clone(), frame])?;
    }

    #[test]
    fn spoiled_headers_of_the_device(bytes in prop::collection::vec(any::<u8>(), 0..14)) {
        match VnetHeader::parse(&bytes) {
            Ok(header) => prop_assert_eq!(VnetHeader::parse(&header.to_bytes()), Ok(header)),
            Err(_) => prop_assert!(bytes.len() < 10 || ![0, 1, 4, 5].contains(&(bytes[1] & 0x7f))),
        }
    }
}

proptest! {
    #![proptest_config(cases(1_000))]

    #[test]
    fn spoiled_frames(flow in flow(), load in load(), spoils in spoils(), device in spoils()) {
        let payload = load.payload(&flow);
        let (header, mut frame) = flow.large(&payload, load.size);
        let mut device_bytes = header.to_bytes().to_vec();
        // Spoiled where it is read.
        for spoil in &device {
            if let Spoil::Set(at, byte) = spoil {
                device_bytes[at % 12] = *byte;
            }
        }
        for spoil in &spoils {
            spoil.apply(&mut frame);
        }
        read(&frame)?;
        cut(header, &frame)?;
        cut(VnetHeader { gso: None, ..header }, &frame)?;
        if let Ok(header) = VnetHeader::parse(&device_bytes) {
            cut(header, &frame)?;
        }
    }

    #[test]
    fn spoiled_streams(
        flow in flow(),
        load in load(),
        spoils in prop::collection::vec((any::<prop::sample::Index>(), spoils()), 0..20),
    ) {
        let mut frames = flow.packets(&load.payload(&flow), load.size);
        frames.truncate(100);
        for (index, spoils) in spoils {
            let place = index.index(frames.len());
            let mut frame = frames[place].clone();
            for spoil in &spoils {
                spoil.apply(&mut frame);
            }
            frames.insert(place, frame);
        }
        merge(&frames)?;
    }

    #[test]
    fn spoiled_packets(flow in flow(), length in 0usize..300, spoils in spoils()) {
        let (_, frame) = flow.large(&bytes(length, 1), u16::MAX);
        let segments = Segments::new(VnetHeader::default(), &frame).unwrap();
        let mut packet = vec![0; segments.length(0)];
        segments.write(0, &outer(), &mut packet).unwrap();
        for spoil in &spoils {
            spoil.apply(&mut packet);
        }
        if let Ok(received) = receive(&packet) {
            prop_assert!(received.frame.end <= packet.len() && received.frame.len() >= 14);
            prop_assert!(received.vni < 1 << 24);
            read(&packet[received.frame])?;
        }
    }
}
