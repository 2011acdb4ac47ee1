//! A frame read from a TAP device, cut into the packets that go into the tunnel.

use super::{ecn::Ecn, inner::BadFrame, outer::Outer, vnet::VnetHeader};

/// The packets that one frame becomes. Each is made on its own, in any order, as often as wanted.
#[derive(Clone, Debug)]
pub struct Segments<'a> {
    #[expect(dead_code)]
    frame: &'a [u8],
}

impl<'a> Segments<'a> {
    /// Checks the frame against its own headers; of the device's header only what they confirm is used.
    pub fn new(_header: VnetHeader, _frame: &'a [u8]) -> Result<Self, BadFrame> {
        unimplemented!()
    }

    /// How many; at least one.
    pub fn count(&self) -> usize {
        unimplemented!()
    }

    /// Bytes of one packet, with the headers around the frame; none is longer than the first, and only
    /// the last is shorter.
    pub fn length(&self, _index: usize) -> usize {
        unimplemented!()
    }

    /// Of the flow, see [`super::flow_hash`].
    pub fn hash(&self) -> u32 {
        unimplemented!()
    }

    /// What the tunnel's header has, and the underlay's should.
    pub fn ecn(&self) -> Ecn {
        unimplemented!()
    }

    /// Writes one packet to the beginning of `out` and returns its length; None if `out` is too short
    /// or there is no such packet.
    pub fn write(&self, _index: usize, _outer: &Outer, _out: &mut [u8]) -> Option<usize> {
        unimplemented!()
    }
}
