//! Sealed packets of one link that wait to be sent together.

use std::io;

use super::link::{HANDSHAKE, Link, OVERHEAD};
use crate::{packet::Ecn, sys::Sending};

/// Most segments of one call (`UDP_MAX_SEGMENTS`, linux/udp.h; newer kernels take more).
const SEGMENTS: usize = 64;
/// Most bytes of one call: what one datagram of IPv4 could carry.
const BYTES: usize = 65_507;

/// Packets of equal size, of which the last may be shorter, and with the same mark of congestion.
pub struct Outbox {
    buffer: Vec<u8>,
    length: usize,
    segment: usize,
    count: usize,
    /// Whose packets, and what the headers around them say; meaningless while there are none.
    slot: usize,
    ecn: Ecn,
    /// A shorter one is the last.
    closed: bool,
}

impl Outbox {
    pub fn new() -> Self {
        let buffer = vec![0; BYTES + OVERHEAD + HANDSHAKE];
        let ecn = Ecn::default();
        Self { buffer, length: 0, segment: 0, count: 0, slot: 0, ecn, closed: false }
    }

    /// The slot whose packets wait, if any do.
    pub fn pending(&self) -> Option<usize> {
        (self.count > 0).then_some(self.slot)
    }

    /// Whether a packet of `size` bytes of this link must wait until the others are sent.
    pub fn must_flush(&self, slot: usize, size: usize, ecn: Ecn) -> bool {
        self.count > 0
            && (self.slot != slot
                || self.ecn != ecn
                || self.closed
                || size > self.segment
                || self.count == SEGMENTS
                || self.length + size > BYTES)
    }

    /// Where the next packet, of `length` bytes before it is sealed, goes.
    pub fn room(&mut self, length: usize) -> &mut [u8] {
        let end = self.length + length + OVERHEAD + HANDSHAKE;
        if self.buffer.len() < end {
            // Only a frame that no path carries in one piece is so long.
            self.buffer.resize(end, 0);
        }
        &mut self.buffer[self.length..]
    }

    /// Takes the packet of `size` bytes at the beginning of the room.
    pub fn push(&mut self, slot: usize, size: usize, ecn: Ecn) {
        if self.count == 0 {
            (self.slot, self.ecn) = (slot, ecn);
            self.segment = size;
        }
        self.closed = size < self.segment;
        self.length += size;
        self.count += 1;
    }

    /// Sends what waits; returns bytes and packets.
    pub fn flush(&mut self, link: &Link) -> (usize, usize, io::Result<()>) {
        let bytes = &self.buffer[..self.length];
        let sending = Sending { bytes, segment: self.segment, class: self.ecn.class() };
        let sent = link.socket.send(sending, link.endpoint);
        (self.length, self.clear(), sent)
    }

    /// Forgets what waits; returns how many packets.
    pub fn clear(&mut self) -> usize {
        self.length = 0;
        self.closed = false;
        std::mem::take(&mut self.count)
    }
}
