//! Received frames of one network, put together again.

use std::ops::Range;

use super::vnet::VnetHeader;

/// Collects the frames of one batch, which lie anywhere in one buffer, and gives back fewer and larger
/// ones. Nothing is copied: what is given back are places in that buffer.
#[derive(Debug, Default)]
pub struct Coalescer {
    outputs: Vec<Output>,
    used: usize,
}

/// What is written to the TAP device by one `writev`: `header`, then `parts` of the buffer.
#[derive(Debug, Default)]
pub struct Output {
    /// What goes before the frame.
    pub header: VnetHeader,
    /// The places in the buffer that make the frame, in their order.
    pub parts: Vec<Range<usize>>,
}

impl Coalescer {
    /// Takes the Ethernet frame at this place of the buffer, which stays the same until [`Self::clear`].
    /// Frames of a flow keep their order.
    pub fn push(&mut self, _buffer: &[u8], _frame: Range<usize>) {
        unimplemented!()
    }

    /// What was pushed, in order. It writes lengths, flags and checksums into headers in the buffer.
    pub fn finish(&mut self, _buffer: &mut [u8]) -> &[Output] {
        &self.outputs[..self.used]
    }

    /// Forgets everything but its memory.
    pub fn clear(&mut self) {
        unimplemented!()
    }
}
