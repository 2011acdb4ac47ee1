//! Received frames of one network, put together again, so that the kernel handles one large frame
//! instead of dozens of small ones.
//!
//! **A wrong checksum never becomes right.** The checksum of a merged frame is left to the kernel, which
//! believes us. Seals prove that the sending *node* sent these bytes, not that its container's checksum
//! was right when they were sealed: a bit that flips in a device or in memory before the seal would be
//! delivered as good. So a packet is verified before it is merged, as the kernel's own GRO does; that is
//! about 40 ns for 1,400 bytes, beside some 700 for opening the seal. What is passed on alone is left
//! for the kernel to verify.
//!
//! What is merged is what can be cut again into the same packets; only the identification of IPv4
//! packets that must not be fragmented may differ then, which nobody reads (RFC 6864).

use std::ops::Range;

use super::{
    flow::{Flow, Joined, Packet},
    frame::layers,
    vnet::VnetHeader,
};

/// Flows that can be open at once; two that meet in a slot only merge less. A power of two.
const SLOTS: usize = 64;
const NONE: u32 = u32::MAX;

/// Collects the frames of one batch, which lie anywhere in one buffer, and gives back fewer and larger
/// ones. Nothing is copied: what is given back are places in that buffer.
#[derive(Debug)]
pub struct Coalescer {
    merging: Merging,
    outputs: Vec<Output>,
    /// How many of the outputs belong to this batch; the others are kept for their memory.
    used: usize,
    /// The output that a flow's next packet may join, by the flow's hash.
    open: [u32; SLOTS],
}

/// What the device takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merging {
    Tcp,
    /// Kernels take merged datagrams since 6.2.
    TcpAndUdp,
}

/// What is written to the TAP device by one `writev`: `header`, then `parts` of the buffer.
#[derive(Debug, Default)]
pub struct Output {
    /// What goes before the frame.
    pub header: VnetHeader,
    /// The places in the buffer that make the frame, in their order.
    pub parts: Vec<Range<usize>>,
    /// Set: more may be or was merged.
    flow: Option<Flow>,
}

/// For kernels that take all that this makes.
impl Default for Coalescer {
    fn default() -> Self {
        Self::new(Merging::TcpAndUdp)
    }
}

impl Coalescer {
    pub fn new(merging: Merging) -> Self {
        Self { merging, outputs: Vec::new(), used: 0, open: [NONE; SLOTS] }
    }

    /// Takes the Ethernet frame at this place of the buffer, which stays the same until [`Self::clear`].
    /// Frames of a flow keep their order.
    pub fn push(&mut self, buffer: &[u8], place: Range<usize>) {
        let frame = &buffer[place.clone()];
        let Ok(Some(layers)) = layers(frame) else { return self.add(place, None) };
        if layers.fragment {
            // It belongs to a flow that is not known, which nothing may overtake.
            self.open = [NONE; SLOTS];
            return self.add(place, None);
        }
        let slot = layers.hash(frame) as usize % SLOTS;
        let Some(packet) = Packet::new(self.merging, frame, layers) else {
            self.open[slot] = NONE;
            return self.add(place, None);
        };
        let open = self.outputs[..self.used].get_mut(self.open[slot] as usize);
        match open.map_or(Joined::Not, |output| output.join(buffer, place.clone(), &packet)) {
            Joined::Open => {}
            Joined::Full => self.open[slot] = NONE,
            Joined::Not => {
                self.open[slot] = if packet.closing != 0 { NONE } else { self.used as u32 };
                self.add(place, Some(packet));
            }
        }
    }

    fn add(&mut self, place: Range<usize>, packet: Option<Packet>) {
        if self.used == self.outputs.len() {
            self.outputs.push(Output::default());
        }
        self.outputs[self.used].begin(place, packet);
        self.used += 1;
    }

    /// What was pushed, in order. It writes lengths, flags and checksums into headers in the buffer.
    pub fn finish(&mut self, buffer: &mut [u8]) -> &[Output] {
        self.open = [NONE; SLOTS];
        for output in &mut self.outputs[..self.used] {
            output.finish(buffer);
        }
        &self.outputs[..self.used]
    }

    /// Forgets everything but its memory.
    pub fn clear(&mut self) {
        self.open = [NONE; SLOTS];
        self.used = 0;
    }
}

impl Output {
    fn begin(&mut self, place: Range<usize>, packet: Option<Packet>) {
        self.header = VnetHeader::default();
        self.flow = packet.map(Flow::new);
        self.parts.clear();
        self.parts.push(place);
    }

    fn join(&mut self, buffer: &[u8], place: Range<usize>, packet: &Packet) -> Joined {
        let (Some(flow), Some(first)) = (&mut self.flow, self.parts.first()) else {
            return Joined::Not;
        };
        let joined = flow.join(&buffer[first.clone()], &buffer[place.clone()], packet);
        if joined != Joined::Not {
            self.parts.push(place.start + packet.headers..place.end);
        }
        joined
    }

    fn finish(&mut self, buffer: &mut [u8]) {
        if let (Some(flow), Some(first)) = (self.flow.take(), self.parts.first()) {
            self.header = flow.finish(&mut buffer[first.clone()]);
        }
    }
}
