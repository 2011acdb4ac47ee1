//! From a TAP device to the nodes.

use std::sync::Arc;

use super::{
    Lane, Order,
    link::{OVERHEAD, Sealed},
};
use crate::{
    Node, Reason,
    packet::{Destination, Ecn, Outer, Segments, VnetHeader, destination},
    sys::VNET_HEADER,
};

/// Most frames that are read before other devices and sockets are looked at: 0.5 MB.
const FRAMES: usize = 8;

impl Lane {
    /// Reads frames of a network and sends them to where they belong.
    pub(super) fn send_from(&mut self, vni: u32) {
        let mut frame = std::mem::take(&mut self.frame);
        for _ in 0..FRAMES {
            let Some(Ok(tap)) = self.ports.get(&vni).map(|port| &port.tap) else { break };
            match tap.read(&mut frame) {
                Ok(Some(length)) => self.send(vni, &frame[..length]),
                Ok(None) => break,
                Err(error) => {
                    self.lose(vni, &error);
                    break;
                }
            }
        }
        self.frame = frame;
    }

    /// Sends one frame, with its device's header.
    fn send(&mut self, vni: u32, bytes: &[u8]) {
        let tables = Arc::clone(&self.setup.tables);
        let Some(network) = tables.config.networks.get(&vni) else { return };
        let frame = bytes.get(VNET_HEADER..).unwrap_or_default();
        match destination(frame) {
            Ok(Destination::One(mac)) => match network.members.get(&mac) {
                Some(member) => self.send_to(member.node, vni, bytes),
                None => self.tally.dropped(None, Reason::NoDestination),
            },
            Ok(Destination::Many) => {
                for node in tables.present.get(&vni).into_iter().flatten() {
                    self.send_to(*node, vni, bytes);
                }
            }
            Err(_) => self.tally.dropped(None, Reason::Device),
        }
    }

    /// Sends one frame, with its device's header, to one node.
    pub(super) fn send_to(&mut self, number: u64, vni: u32, bytes: &[u8]) {
        let tables = Arc::clone(&self.setup.tables);
        let Some(node) = tables.config.nodes.get(&number) else {
            self.tally.dropped(None, Reason::NoDestination);
            return;
        };
        let lane = tables.lane_towards(node, self.number);
        if lane == self.number {
            self.seal(number, node, vni, bytes);
        } else if !self.hand_over(lane, number, vni, bytes) {
            self.tally.dropped(Some(number), Reason::NoSession);
        }
    }

    /// The node has fewer lanes than this one: another thread has the session.
    fn hand_over(&self, lane: usize, node: u64, vni: u32, bytes: &[u8]) -> bool {
        let order = Order::Frame { vni, node, bytes: bytes.to_vec() };
        self.setup.lanes.get(lane).is_some_and(|handle| handle.offer(order))
    }

    fn seal(&mut self, number: u64, node: &Node, vni: u32, bytes: &[u8]) {
        let Some(slot) = self.route(number, node) else {
            self.tally.dropped(Some(number), Reason::NoDestination);
            return;
        };
        let frame = bytes.get(VNET_HEADER..).unwrap_or_default();
        let segments = VnetHeader::parse(bytes).and_then(|header| Segments::new(header, frame));
        let (Ok(segments), Some(link)) = (segments, self.links.get(slot)) else {
            self.tally.dropped(Some(number), Reason::Device);
            return;
        };
        let outer = Outer::new(link.own_address, link.peer_address, vni);
        for index in 0..segments.count() {
            if let Some(length) = segments.write(index, &outer, &mut self.packet) {
                self.seal_one(slot, number, length, segments.ecn());
            }
        }
    }

    /// Seals the first bytes of the packet buffer.
    fn seal_one(&mut self, slot: usize, node: u64, length: usize, ecn: Ecn) {
        if self.outbox.must_flush(slot, length + OVERHEAD, ecn) {
            self.flush();
        }
        let Some(link) = self.links.get(slot) else { return };
        match link.seal(&self.packet[..length], self.outbox.room(length)) {
            Sealed::Data(size) => self.outbox.push(slot, size, ecn),
            Sealed::Handshake(size) => {
                let message = self.outbox.room(0)[..size].to_vec();
                self.post(slot, &message, None);
            }
            Sealed::Waits => {}
            Sealed::Full => self.tally.dropped(Some(node), Reason::NoSession),
        }
    }
}
