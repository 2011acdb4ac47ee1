//! The packets of one flow become the large frame that they were cut from.

use std::ops::Range;

use proptest::prelude::*;
use weft_wire::packet::{Coalescer, Merging, VnetHeader};

use crate::model::{Transport, cases, flow, load, plain_flow};

/// Merges these frames; what is written to the device.
pub fn merged(coalescer: &mut Coalescer, frames: &[Vec<u8>]) -> Vec<(VnetHeader, Vec<u8>)> {
    let mut buffer = vec![0xcc; 5];
    let place = |frame: &Vec<u8>| {
        let begin = buffer.len();
        buffer.extend(frame);
        let place = begin..buffer.len();
        buffer.extend([0xcc; 3]);
        place
    };
    let places: Vec<Range<usize>> = frames.iter().map(place).collect();
    for place in places {
        coalescer.push(&buffer, place);
    }
    let outputs = coalescer.finish(&mut buffer);
    let mut written = Vec::new();
    for output in outputs {
        let frame = output.parts.iter().flat_map(|part| &buffer[part.clone()]).copied().collect();
        written.push((output.header, frame));
    }
    coalescer.clear();
    written
}

/// How many packets one frame may stand for.
fn most(transport: &Transport) -> usize {
    match transport {
        Transport::Tcp { .. } => 1_023,
        Transport::Udp => 64,
    }
}

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn merging_undoes_cutting(flow in plain_flow(), load in load()) {
        let mut coalescer = Coalescer::default();
        let payload = load.payload(&flow);
        // More than it may stand for is another test's.
        let size = load.size.max(payload.len().div_ceil(most(&flow.transport)) as u16);
        let packets = flow.packets(&payload, size);
        let wanted = match &packets[..] {
            [single] => (VnetHeader::default(), single.clone()),
            _ => flow.large(&payload, size),
        };
        prop_assert_eq!(merged(&mut coalescer, &packets), vec![wanted.clone()]);
        // Its memory remembers nothing.
        prop_assert_eq!(merged(&mut coalescer, &packets), vec![wanted]);
    }

    /// Tags, options, extensions and uncommon flags keep packets apart.
    #[test]
    fn others_pass(flow in flow().prop_filter("plain", |flow| !flow.is_plain()), load in load()) {
        let packets = flow.packets(&load.payload(&flow), load.size);
        let wanted: Vec<_> =
            packets.iter().map(|packet| (VnetHeader::default(), packet.clone())).collect();
        prop_assert_eq!(merged(&mut Coalescer::default(), &packets), wanted);
    }

    #[test]
    fn datagrams_only_where_they_are_taken(flow in plain_flow(), load in load()) {
        let packets = flow.packets(&load.payload(&flow), load.size);
        let written = merged(&mut Coalescer::new(Merging::Tcp), &packets);
        match flow.transport {
            Transport::Tcp { .. } => {
                prop_assert_eq!(written, merged(&mut Coalescer::default(), &packets));
            }
            Transport::Udp => prop_assert_eq!(written.len(), packets.len()),
        }
    }
}
