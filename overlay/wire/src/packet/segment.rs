//! A frame read from a TAP device, cut into the packets that go into the tunnel.

use super::{
    checksum::Sum,
    cut::Cut,
    ecn::Ecn,
    frame::{self, BadFrame, ETHERNET},
    hash::hardware_hash,
    outer::Outer,
    vnet::{Partial, VnetHeader},
};

/// The packets that one frame becomes. Each is made on its own, in any order, as often as wanted.
#[derive(Clone, Debug)]
pub struct Segments<'a> {
    frame: &'a [u8],
    hash: u32,
    ecn: Ecn,
    work: Work,
}

/// What is still to be done to the frame.
#[derive(Clone, Copy, Debug)]
enum Work {
    None,
    Checksum(Partial),
    Cut(Cut),
}

impl<'a> Segments<'a> {
    /// Checks the frame against its own headers; of the device's header only what they confirm is used.
    ///
    /// A frame that stands for several packets must have an unfinished checksum, or one that was found
    /// right: from a wrong one right ones would be made.
    pub fn new(header: VnetHeader, frame: &'a [u8]) -> Result<Self, BadFrame> {
        frame::link(frame)?;
        let layers = frame::layers(frame);
        let known = layers.ok().flatten();
        let work = match (header.gso, header.partial) {
            (Some(_), None) if !header.verified => return Err(BadFrame::Offload),
            (Some(gso), partial) => Work::Cut(Cut::new(gso, partial, frame, layers?)?),
            (None, Some(partial)) => Work::Checksum(checked(partial, frame)?),
            (None, None) => Work::None,
        };
        let hash = known.map_or_else(|| hardware_hash(frame), |known| known.hash(frame));
        let segments = Self { frame, hash, ecn: Ecn::of_frame(frame), work };
        match u16::try_from(segments.length(0)) {
            Ok(_) => Ok(segments),
            Err(_) => Err(BadFrame::TooLong),
        }
    }

    /// How many; at least one.
    pub fn count(&self) -> usize {
        match &self.work {
            Work::Cut(cut) => cut.count,
            Work::None | Work::Checksum(_) => 1,
        }
    }

    /// Bytes of one packet, with the headers around the frame; none is longer than the first, and only
    /// the last is shorter.
    pub fn length(&self, index: usize) -> usize {
        Outer::LEN
            + match &self.work {
                Work::Cut(cut) => cut.headers + cut.payload(index, self.frame).len(),
                Work::None | Work::Checksum(_) => self.frame.len(),
            }
    }

    /// Of the flow, see [`super::flow_hash`].
    pub fn hash(&self) -> u32 {
        self.hash
    }

    /// What the tunnel's header has, and the underlay's should.
    pub fn ecn(&self) -> Ecn {
        self.ecn
    }

    /// Writes one packet to the beginning of `out` and returns its length; None if `out` is too short
    /// or there is no such packet.
    pub fn write(&self, index: usize, outer: &Outer, out: &mut [u8]) -> Option<usize> {
        if index >= self.count() {
            return None;
        }
        let length = self.length(index);
        let (head, frame) = out.get_mut(..length)?.split_first_chunk_mut()?;
        outer.write(head, frame.len() as u16, self.hash, self.ecn);
        match &self.work {
            Work::None => frame.copy_from_slice(self.frame),
            Work::Checksum(partial) => finish(*partial, self.frame, frame),
            Work::Cut(cut) => cut.write(index, self.frame, frame),
        }
        Some(length)
    }
}

/// The place of an unfinished checksum, if it is in the frame.
fn checked(partial: Partial, frame: &[u8]) -> Result<Partial, BadFrame> {
    let field = usize::from(partial.start) + usize::from(partial.offset);
    match usize::from(partial.start) >= ETHERNET && field + 2 <= frame.len() {
        true => Ok(partial),
        false => Err(BadFrame::Offload),
    }
}

/// Copies the frame and finishes its checksum; the sum of the pseudo header is in its place.
fn finish(partial: Partial, frame: &[u8], out: &mut [u8]) {
    let (start, offset) = (usize::from(partial.start), usize::from(partial.offset));
    let (before, covered) = frame.split_at(start);
    let (out_before, out) = out.split_at_mut(start);
    out_before.copy_from_slice(before);
    let sum = Sum::default().copied(covered, out).finish_not_zero();
    out[offset..offset + 2].copy_from_slice(&sum);
}
