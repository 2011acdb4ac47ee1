//! The header that a TAP device puts before a frame (`struct virtio_net_hdr`, linux/virtio_net.h).

use super::frame::BadFrame;

/// What the kernel leaves to be done to a frame, or may leave undone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VnetHeader {
    /// Set: the checksum of the transport holds only its pseudo header's sum.
    pub partial: Option<Partial>,
    /// The checksum of the transport was found right by the kernel or a device.
    pub verified: bool,
    /// Set: the frame stands for several packets.
    pub gso: Option<Gso>,
    /// Length of all headers. A hint: the kernel gives it wrongly for forwarded frames, so that it is
    /// written but never believed.
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
    /// Payload of each packet in bytes; the last may have less. Nothing is cut by zero.
    pub size: u16,
    /// The first packet says that the sender has reduced its window (TCP's CWR), the others do not.
    pub reduced: bool,
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

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`
const NEEDS_CSUM: u8 = 1;
/// `VIRTIO_NET_HDR_F_DATA_VALID`
const DATA_VALID: u8 = 2;
/// `VIRTIO_NET_HDR_GSO_NONE`, `_TCPV4`, `_TCPV6`, `_UDP_L4` and `_ECN`
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

impl VnetHeader {
    /// Its length in bytes on a TAP device, unless the device was told another.
    pub const LEN: usize = 10;

    /// Reads the first ten bytes; what follows up to the frame (the count of buffers) means nothing here.
    ///
    /// Numbers are in the machine's order, which a TAP device uses until it is told another.
    pub fn parse(bytes: &[u8]) -> Result<Self, BadFrame> {
        let (&[flags, kind, numbers @ ..], _) =
            bytes.split_first_chunk::<{ Self::LEN }>().ok_or(BadFrame::Truncated)?;
        let (numbers, _) = numbers.as_chunks();
        let [header_length, size, start, offset] =
            [0, 1, 2, 3].map(|at| u16::from_ne_bytes(numbers[at]));
        let partial = (flags & NEEDS_CSUM != 0).then_some(Partial { start, offset });
        let verified = flags & DATA_VALID != 0;
        Ok(Self { partial, verified, gso: gso(kind, size)?, header_length })
    }

    /// For a device with headers of 12 bytes; the first ten are the header of 10 bytes.
    pub fn to_bytes(self) -> [u8; 12] {
        let mut bytes = [0; 12];
        let mut put =
            |at: usize, number: u16| bytes[at..at + 2].copy_from_slice(&number.to_ne_bytes());
        put(2, self.header_length);
        if let Some(gso) = self.gso {
            put(4, gso.size);
        }
        if let Some(partial) = self.partial {
            put(6, partial.start);
            put(8, partial.offset);
            bytes[0] = NEEDS_CSUM;
        }
        if self.verified {
            bytes[0] |= DATA_VALID;
        }
        bytes[1] = self.gso.map_or(GSO_NONE, Gso::code);
        bytes
    }
}

fn gso(kind: u8, size: u16) -> Result<Option<Gso>, BadFrame> {
    let known = match kind & !GSO_ECN {
        GSO_NONE => return Ok(None),
        GSO_TCPV4 => GsoKind::Tcp4,
        GSO_TCPV6 => GsoKind::Tcp6,
        GSO_UDP_L4 => GsoKind::Udp,
        _ => return Err(BadFrame::Offload),
    };
    Ok(Some(Gso { kind: known, size, reduced: kind & GSO_ECN != 0 }))
}

impl Gso {
    fn code(self) -> u8 {
        let kind = match self.kind {
            GsoKind::Tcp4 => GSO_TCPV4,
            GsoKind::Tcp6 => GSO_TCPV6,
            GsoKind::Udp => GSO_UDP_L4,
        };
        kind | if self.reduced { GSO_ECN } else { 0 }
    }
}
