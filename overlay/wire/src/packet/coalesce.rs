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
    bytes::{be16, be32, put16},
    checksum::Sum,
    inner::{ETHERNET, Family, Layers, TCP, UDP, layers},
    segment::checksum_offset,
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

/// A packet that may be merged with others: TCP or UDP with payload and nothing uncommon.
#[derive(Clone, Copy, Debug)]
struct Packet {
    layers: Layers,
    /// Length of all headers in the frame.
    headers: usize,
    /// Bytes after the headers; at least one.
    payload: usize,
    /// FIN and PSH, if set: nothing may be merged behind them.
    closing: u8,
}

impl Packet {
    fn new(merging: Merging, frame: &[u8], layers: Layers) -> Option<Self> {
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
struct Flow {
    /// The first packet; none of the others has more payload.
    head: Packet,
    /// Bytes of the merged frame.
    length: usize,
    /// The first packet's checksums are right.
    verified: bool,
    /// By how much each packet's identification is more than the one's before, once there are two.
    step: Option<u16>,
    /// Of the last packet.
    closing: u8,
}

enum Joined {
    Not,
    /// More may follow.
    Open,
    Full,
}

impl Output {
    fn begin(&mut self, place: Range<usize>, packet: Option<Packet>) {
        self.header = VnetHeader::default();
        self.parts.clear();
        self.flow = packet.map(|head| {
            let length = head.headers + head.payload;
            Flow { head, length, verified: false, step: None, closing: 0 }
        });
        self.parts.push(place);
    }

    fn join(&mut self, buffer: &[u8], place: Range<usize>, packet: &Packet) -> Joined {
        let Some(flow) = &mut self.flow else { return Joined::Not };
        let (first, next) = (&buffer[self.parts[0].clone()], &buffer[place.clone()]);
        let count = self.parts.len();
        if !flow.has_room(count, packet) || !flow.continues(count, first, next, packet) {
            return Joined::Not;
        }
        flow.verified = flow.verified || is_right(first, &flow.head.layers);
        if !flow.verified || !is_right(next, &packet.layers) {
            return Joined::Not;
        }
        flow.length += packet.payload;
        self.parts.push(place.start + packet.headers..place.end);
        if flow.step.is_none() && packet.layers.family == Family::V4 {
            flow.step = step(first, next);
        }
        flow.closing = packet.closing;
        match packet.closing != 0 || packet.payload < flow.head.payload {
            true => Joined::Full,
            false => Joined::Open,
        }
    }

    /// Makes one frame of the parts.
    fn finish(&mut self, buffer: &mut [u8]) {
        let Some(flow) = self.flow.take().filter(|_| self.parts.len() > 1) else { return };
        let head = flow.head;
        let frame = &mut buffer[self.parts[0].clone()];
        flow.write_network(frame);
        flow.write_transport(frame);
        let reduced = head.layers.protocol == TCP
            && frame[head.layers.transport + tcp::FLAGS] & tcp::CWR != 0;
        // Frames have at most 65,535 bytes.
        self.header = VnetHeader {
            partial: Some(Partial {
                start: head.layers.transport as u16,
                offset: checksum_offset(head.layers.protocol) as u16,
            }),
            gso: Some(Gso { kind: kind(&head.layers), size: head.payload as u16, reduced }),
            header_length: head.headers as u16,
        };
    }
}

impl Flow {
    /// Whether the packet still fits behind `count` others.
    fn has_room(&self, count: usize, packet: &Packet) -> bool {
        let most = if self.head.layers.protocol == TCP { MAX_PACKETS } else { MAX_DATAGRAMS };
        count < most
            && packet.payload <= self.head.payload
            && self.length + packet.payload <= MAX_FRAME
    }

    /// Whether the packet comes right behind the `count` others of which `first` is the first.
    fn continues(&self, count: usize, first: &[u8], next: &[u8], packet: &Packet) -> bool {
        self.head.headers == packet.headers
            && self.head.layers.transport == packet.layers.transport
            && self.head.layers.protocol == packet.layers.protocol
            && same_network(&self.head.layers, first, next)
            && self.identified(count, first, next)
            && match self.head.layers.protocol {
                TCP => self.continues_tcp(first, next),
                _ => {
                    first[self.head.layers.transport..][..4] == next[packet.layers.transport..][..4]
                }
            }
    }

    fn identified(&self, count: usize, first: &[u8], next: &[u8]) -> bool {
        match (self.head.layers.family, self.step) {
            (Family::V6, _) => true,
            (Family::V4, None) => step(first, next).is_some(),
            (Family::V4, Some(step)) => {
                identification(next) == identification(first).wrapping_add(step * count as u16)
            }
        }
    }

    /// Ports, acknowledgment, window, options and flags are the same, but for FIN and PSH, and for "congestion
    /// window reduced", which only the first of many may have.
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
        let sum = pseudo_header(frame, layers, length).partial();
        let header = &mut frame[layers.transport..self.head.headers];
        match layers.protocol {
            TCP => header[tcp::FLAGS] |= self.closing,
            _ => put16(header, 4, length),
        }
        let field = checksum_offset(layers.protocol);
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
    sound && pseudo_header(frame, layers, transport.len() as u16).bytes(transport).is_right()
}

/// What the checksum of a transport covers besides itself (RFC 9293, section 3.1; RFC 8200, section 8.1).
fn pseudo_header(frame: &[u8], layers: &Layers, length: u16) -> Sum {
    let addresses = match layers.family {
        Family::V4 => layers.network + 12..layers.network + 20,
        Family::V6 => layers.network + 8..layers.network + 40,
    };
    Sum::default().bytes(&frame[addresses]).word(u16::from(layers.protocol)).word(length)
}

fn kind(layers: &Layers) -> GsoKind {
    match (layers.protocol, layers.family) {
        (TCP, Family::V4) => GsoKind::Tcp4,
        (TCP, Family::V6) => GsoKind::Tcp6,
        _ => GsoKind::Udp,
    }
}
