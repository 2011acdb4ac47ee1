//! Packets of one flow that make one frame together.

use std::ops::Range;

use super::{
    bytes::{be16, be32, put16},
    checksum::Sum,
    coalesce::Merging,
    frame::{ETHERNET, Family, Layers, TCP, UDP},
    tcp,
    vnet::{Gso, GsoKind, Partial, VnetHeader},
};

/// The kernel cuts what is not shorter than `gso_max_size`, 65,536 by default, when it gives it to an
/// interface; the Ethernet header counts.
const MAX_FRAME: usize = 65_535;
/// `writev` takes 1,024 pieces (`IOV_MAX`); one is for the header before the frame.
const MAX_PACKETS: usize = 1_023;
/// `UDP_GRO_CNT_MAX`: programs that take merged datagrams count on no more.
const MAX_DATAGRAMS: usize = 64;

/// A packet that may be merged with others: TCP or UDP with payload and nothing uncommon.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet {
    pub(super) layers: Layers,
    /// Length of all headers in the frame.
    pub(super) headers: usize,
    /// Bytes after the headers; at least one.
    payload: usize,
    /// FIN and PSH, if set: nothing may be merged behind them.
    pub(super) closing: u8,
}

impl Packet {
    pub(super) fn new(merging: Merging, frame: &[u8], layers: Layers) -> Option<Self> {
        // No tags, no options, no extensions, no padding.
        let plain = layers.network == ETHERNET
            && layers.transport == ETHERNET + layers.family.fixed_length()
            && layers.end == frame.len();
        let transport = &frame[layers.transport..];
        let (header, closing) = match (layers.protocol, merging) {
            _ if !plain => return None,
            (TCP, Merging::Tcp | Merging::TcpAndUdp) => tcp_header(transport)?,
            (UDP, Merging::TcpAndUdp) => (udp_header(transport)?, 0),
            _ => return None,
        };
        let payload = transport.len() - header;
        let headers = layers.transport + header;
        (payload > 0).then_some(Self { layers, headers, payload, closing })
    }
}

/// Length of the header, and FIN and PSH of its flags.
fn tcp_header(packet: &[u8]) -> Option<(usize, u8)> {
    let header = tcp::header_length(packet).ok()?;
    let flags = packet[tcp::FLAGS];
    let usual = flags & (tcp::SYN | tcp::RST | tcp::URG | tcp::ACK) == tcp::ACK;
    usual.then_some((header, flags & (tcp::FIN | tcp::PSH)))
}

/// Length of the header. A datagram without checksum stays alone, since a merged one has one.
fn udp_header(packet: &[u8]) -> Option<usize> {
    let whole = packet.len() >= 8 && usize::from(be16(packet, 4)) == packet.len();
    (whole && be16(packet, 6) != 0).then_some(8)
}

/// How the packets of an output belong together.
#[derive(Debug)]
pub(super) struct Flow {
    /// The first packet; none of the others has more payload.
    head: Packet,
    count: usize,
    /// Bytes of the merged frame.
    length: usize,
    /// The first packet's checksums are right.
    verified: bool,
    /// By how much each packet's identification is more than the one's before, once there are two.
    step: Option<u16>,
    /// Of the last packet.
    closing: u8,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Joined {
    Not,
    /// More may follow.
    Open,
    /// Nothing may follow.
    Full,
}

impl Flow {
    pub(super) fn new(head: Packet) -> Self {
        let length = head.headers + head.payload;
        Self { head, count: 1, length, verified: false, step: None, closing: 0 }
    }

    /// Takes the packet that is the frame `next`, if it comes right behind those before; `first` is the
    /// first of these.
    pub(super) fn join(&mut self, first: &[u8], next: &[u8], packet: &Packet) -> Joined {
        if !self.has_room(packet) || !self.continues(first, next, packet) {
            return Joined::Not;
        }
        self.verified = self.verified || is_right(first, &self.head.layers);
        if !self.verified || !is_right(next, &packet.layers) {
            return Joined::Not;
        }
        if self.count == 1 && self.head.layers.family == Family::V4 {
            self.step = step(first, next);
        }
        self.count += 1;
        self.length += packet.payload;
        self.closing = packet.closing;
        match packet.closing != 0 || packet.payload < self.head.payload {
            true => Joined::Full,
            false => Joined::Open,
        }
    }

    /// Writes what is true of all packets together into the first, and says what goes before it; nothing if
    /// it is alone.
    pub(super) fn finish(&self, first: &mut [u8]) -> VnetHeader {
        if self.count == 1 {
            return VnetHeader::default();
        }
        self.write_network(first);
        self.write_transport(first);
        let layers = &self.head.layers;
        let reduced =
            layers.protocol == TCP && first[layers.transport + tcp::FLAGS] & tcp::CWR != 0;
        // Frames have at most 65,535 bytes.
        VnetHeader {
            partial: Some(Partial {
                start: layers.transport as u16,
                offset: layers.checksum_offset() as u16,
            }),
            verified: false,
            gso: Some(Gso { kind: kind(layers), size: self.head.payload as u16, reduced }),
            header_length: self.head.headers as u16,
        }
    }

    fn has_room(&self, packet: &Packet) -> bool {
        let most = if self.head.layers.protocol == TCP { MAX_PACKETS } else { MAX_DATAGRAMS };
        self.count < most
            && packet.payload <= self.head.payload
            && self.length + packet.payload <= MAX_FRAME
    }

    /// Whether the packet comes right behind the others.
    fn continues(&self, first: &[u8], next: &[u8], packet: &Packet) -> bool {
        self.head.headers == packet.headers
            && self.head.layers.transport == packet.layers.transport
            && self.head.layers.protocol == packet.layers.protocol
            && same_network(&self.head.layers, first, next)
            && self.identified(first, next)
            && match self.head.layers.protocol {
                TCP => self.continues_tcp(first, next),
                _ => {
                    first[self.head.layers.transport..][..4] == next[packet.layers.transport..][..4]
                }
            }
    }

    fn identified(&self, first: &[u8], next: &[u8]) -> bool {
        match (self.head.layers.family, self.step) {
            (Family::V6, _) => true,
            (Family::V4, None) => step(first, next).is_some(),
            (Family::V4, Some(step)) => {
                identification(next) == identification(first).wrapping_add(step * self.count as u16)
            }
        }
    }

    /// Ports, acknowledgment, window, options and flags are the same, but for FIN and PSH, and for
    /// "congestion window reduced", which only the first of many may have.
    fn continues_tcp(&self, first: &[u8], next: &[u8]) -> bool {
        const ANY: u8 = tcp::FIN | tcp::PSH | tcp::CWR;
        let begin = self.head.layers.transport;
        let (first, next) = (&first[begin..self.head.headers], &next[begin..self.head.headers]);
        let sent = (self.length - self.head.headers) as u32;
        be32(next, tcp::SEQUENCE) == be32(first, tcp::SEQUENCE).wrapping_add(sent)
            && first[..tcp::SEQUENCE] == next[..tcp::SEQUENCE]
            && first[tcp::ACKNOWLEDGMENT..tcp::FLAGS] == next[tcp::ACKNOWLEDGMENT..tcp::FLAGS]
            && (first[tcp::FLAGS] ^ next[tcp::FLAGS]) & !ANY == 0
            && next[tcp::FLAGS] & tcp::CWR == 0
            && first[tcp::FLAGS + 1..tcp::CHECKSUM] == next[tcp::FLAGS + 1..tcp::CHECKSUM]
            && first[tcp::CHECKSUM + 2..] == next[tcp::CHECKSUM + 2..]
    }

    fn write_network(&self, frame: &mut [u8]) {
        let length = self.length - ETHERNET;
        let header = &mut frame[ETHERNET..self.head.layers.transport];
        match self.head.layers.family {
            Family::V4 => {
                put16(header, 2, length as u16);
                put16(header, 10, 0);
                let sum = Sum::default().bytes(header).finish();
                header[10..12].copy_from_slice(&sum);
            }
            Family::V6 => put16(header, 4, (length - Family::V6.fixed_length()) as u16),
        }
    }

    fn write_transport(&self, frame: &mut [u8]) {
        let layers = &self.head.layers;
        let length = (self.length - layers.transport) as u16;
        let sum = layers.pseudo_header(frame, length).partial();
        let header = &mut frame[layers.transport..self.head.headers];
        match layers.protocol {
            TCP => header[tcp::FLAGS] |= self.closing,
            _ => put16(header, 4, length),
        }
        let field = layers.checksum_offset();
        header[field..field + 2].copy_from_slice(&sum);
    }
}

/// Whether two IP headers are the same but for length, identification and checksum; the addresses of
/// Ethernet too.
fn same_network(layers: &Layers, first: &[u8], next: &[u8]) -> bool {
    let same = |range: Range<usize>| first[range.clone()] == next[range];
    match layers.family {
        Family::V4 => {
            same(0..ETHERNET + 2)
                && same(ETHERNET + 6..ETHERNET + 10)
                && same(ETHERNET + 12..ETHERNET + 20)
        }
        Family::V6 => same(0..ETHERNET + 4) && same(ETHERNET + 6..ETHERNET + 40),
    }
}

/// By how much the identifications of two packets differ, if that may go on: cutting counts up; a sender
/// of packets that must not be fragmented may also use one for all.
fn step(first: &[u8], next: &[u8]) -> Option<u16> {
    const DONT_FRAGMENT: u8 = 0x40;
    match identification(next).wrapping_sub(identification(first)) {
        0 if first[ETHERNET + 6] & DONT_FRAGMENT != 0 => Some(0),
        1 => Some(1),
        _ => None,
    }
}

/// Of an IPv4 packet.
fn identification(frame: &[u8]) -> u16 {
    be16(frame, ETHERNET + 4)
}

/// Whether the checksums of the packet are right.
fn is_right(frame: &[u8], layers: &Layers) -> bool {
    let (network, transport) = frame[layers.network..].split_at(layers.transport - layers.network);
    let sound = match layers.family {
        Family::V4 => Sum::default().bytes(network).is_right(),
        Family::V6 => true,
    };
    sound && layers.pseudo_header(frame, transport.len() as u16).bytes(transport).is_right()
}

fn kind(layers: &Layers) -> GsoKind {
    match (layers.protocol, layers.family) {
        (TCP, Family::V4) => GsoKind::Tcp4,
        (TCP, Family::V6) => GsoKind::Tcp6,
        _ => GsoKind::Udp,
    }
}
