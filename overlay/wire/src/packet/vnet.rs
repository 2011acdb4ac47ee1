//! The header that a TAP device puts before a frame (`struct virtio_net_hdr`, linux/virtio_net.h).

/// What the kernel leaves to be done to a frame, or may leave undone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VnetHeader {
    /// Set: the checksum of the transport holds only its pseudo header's sum.
    pub partial: Option<Partial>,
    /// Set: the frame stands for several packets.
    pub gso: Option<Gso>,
    /// Length of all headers; a hint for the kernel, never read.
    pub header_length: u16,
}

/// A checksum to be finished: over everything from `start` on, stored at `start + offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partial {
    /// From the beginning of the frame.
    pub start: u16,
    /// From `start`.
    pub offset: u16,
}

/// How a frame is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gso {
    /// What is cut.
    pub kind: GsoKind,
    /// Payload of each packet in bytes; the last may have less. Never zero.
    pub size: u16,
}

/// What a frame that stands for several packets carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GsoKind {
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP datagrams of equal size.
    Udp,
}

impl VnetHeader {
    /// Its length in bytes on a TAP device, unless the device was told another.
    pub const LEN: usize = 10;

    /// Reads the first ten bytes; what follows up to the frame (the count of buffers) means nothing here.
    pub fn parse(_bytes: &[u8]) -> Option<Self> {
        unimplemented!()
    }

    /// For a device with headers of 12 bytes; the first ten are the header of 10 bytes.
    pub fn to_bytes(self) -> [u8; 12] {
        unimplemented!()
    }
}
