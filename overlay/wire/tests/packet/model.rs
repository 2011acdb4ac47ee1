//! Flows as values, and the packets they are made of, written one field after the other.

use proptest::prelude::*;
use proptest::test_runner::Config;
use weft_wire::packet::{Gso, GsoKind, Partial, VnetHeader};

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const PSH: u8 = 0x08;
pub const ACK: u8 = 0x10;
pub const URG: u8 = 0x20;
pub const ECE: u8 = 0x40;
pub const CWR: u8 = 0x80;

/// What all packets of a flow have in common, and what its first has.
#[derive(Clone, Debug)]
pub struct Flow {
    pub destination_mac: [u8; 6],
    pub source_mac: [u8; 6],
    /// VLAN tags.
    pub tags: Vec<u16>,
    pub network: Network,
    /// Traffic class.
    pub class: u8,
    /// Time to live, hop limit.
    pub life: u8,
    pub source_port: u16,
    pub destination_port: u16,
    pub transport: Transport,
}

#[derive(Clone, Debug)]
pub enum Network {
    V4 {
        source: [u8; 4],
        destination: [u8; 4],
        identification: u16,
        dont_fragment: bool,
        options: Vec<u8>,
    },
    V6 {
        source: [u8; 16],
        destination: [u8; 16],
        label: u32,
        extensions: Vec<Extension>,
    },
}

/// An extension header: its type, and what follows its first two bytes (6 bytes and a multiple of 8).
#[derive(Clone, Debug)]
pub struct Extension(pub u8, pub Vec<u8>);

#[derive(Clone, Debug)]
pub enum Transport {
    Tcp {
        sequence: u32,
        acknowledgment: u32,
        /// The four bits beside the header's length.
        reserved: u8,
        /// Of the large frame: what its packets have follows of them.
        flags: u8,
        window: u16,
        urgent: u16,
        options: Vec<u8>,
    },
    Udp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    Right,
    /// Only the sum of the pseudo header.
    Partial,
    Wrong,
}

/// What is different from packet to packet.
#[derive(Clone, Debug)]
pub struct Piece<'a> {
    pub identification: u16,
    pub sequence: u32,
    pub flags: u8,
    pub payload: &'a [u8],
    pub checksum: Checksum,
}

/// The Internet checksum's sum, as RFC 1071 writes it down.
pub fn plain_sum(parts: &[&[u8]]) -> u16 {
    let mut bytes = parts.concat();
    if bytes.len() % 2 == 1 {
        bytes.push(0);
    }
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair[1]);
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

impl Flow {
    pub fn protocol(&self) -> u8 {
        match self.transport {
            Transport::Tcp { .. } => 6,
            Transport::Udp => 17,
        }
    }

    /// Nothing in it keeps its packets from being merged.
    pub fn is_plain(&self) -> bool {
        let bare = match &self.network {
            Network::V4 { options, .. } => options.is_empty(),
            Network::V6 { extensions, .. } => extensions.is_empty(),
        };
        let usual = match &self.transport {
            Transport::Tcp { flags, .. } => flags & (SYN | URG | ACK) == ACK,
            Transport::Udp => true,
        };
        self.tags.is_empty() && bare && usual
    }

    pub fn flags(&self) -> u8 {
        match self.transport {
            Transport::Tcp { flags, .. } => flags,
            Transport::Udp => 0,
        }
    }

    /// The payload as one frame, and the device's header before it.
    pub fn large(&self, payload: &[u8], size: u16) -> (VnetHeader, Vec<u8>) {
        let piece = Piece {
            identification: self.identification(),
            sequence: self.sequence(),
            flags: self.flags(),
            payload,
            checksum: Checksum::Partial,
        };
        let frame = self.frame(&piece);
        let (kind, offset) = match (&self.transport, &self.network) {
            (Transport::Tcp { .. }, Network::V4 { .. }) => (GsoKind::Tcp4, 16),
            (Transport::Tcp { .. }, Network::V6 { .. }) => (GsoKind::Tcp6, 16),
            (Transport::Udp, _) => (GsoKind::Udp, 6),
        };
        let headers = frame.len() - payload.len();
        let header = VnetHeader {
            partial: Some(Partial { start: (headers - self.transport_length()) as u16, offset }),
            verified: false,
            gso: Some(Gso { kind, size, reduced: self.flags() & CWR != 0 }),
            header_length: headers as u16,
        };
        (header, frame)
    }

    /// The payload as packets of this size.
    pub fn packets(&self, payload: &[u8], size: u16) -> Vec<Vec<u8>> {
        let mut chunks: Vec<&[u8]> = payload.chunks(size.into()).collect();
        if chunks.is_empty() {
            chunks.push(&[]);
        }
        let last = chunks.len() - 1;
        let packet = |(index, payload): (usize, &&[u8])| {
            let not_first = if index == 0 { 0 } else { CWR };
            let not_last = if index == last { 0 } else { FIN | PSH };
            self.frame(&Piece {
                identification: self.identification().wrapping_add(index as u16),
                sequence: self.sequence().wrapping_add(index as u32 * u32::from(size)),
                flags: self.flags() & !not_first & !not_last,
                payload,
                checksum: Checksum::Right,
            })
        };
        chunks.iter().enumerate().map(packet).collect()
    }

    pub fn frame(&self, piece: &Piece<'_>) -> Vec<u8> {
        let transport = self.transport_bytes(piece);
        let mut frame = self.link_bytes();
        frame.extend(self.network_bytes(transport.len(), piece.identification));
        frame.extend(transport);
        frame
    }

    pub fn identification(&self) -> u16 {
        match self.network {
            Network::V4 { identification, .. } => identification,
            Network::V6 { .. } => 0,
        }
    }

    pub fn sequence(&self) -> u32 {
        match self.transport {
            Transport::Tcp { sequence, .. } => sequence,
            Transport::Udp => 0,
        }
    }

    /// Length of the transport's header.
    pub fn transport_length(&self) -> usize {
        match &self.transport {
            Transport::Tcp { options, .. } => 20 + options.len(),
            Transport::Udp => 8,
        }
    }

    /// Length of all headers of a frame.
    pub fn headers(&self) -> usize {
        let network = self.network_bytes(0, 0).len();
        self.link_bytes().len() + network + self.transport_length()
    }

    fn link_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(self.destination_mac);
        bytes.extend(self.source_mac);
        for (at, tag) in self.tags.iter().enumerate() {
            // The outer of two is the provider's.
            let kind: u16 = if at + 1 < self.tags.len() { 0x88a8 } else { 0x8100 };
            bytes.extend(kind.to_be_bytes());
            bytes.extend(tag.to_be_bytes());
        }
        let kind: u16 = match self.network {
            Network::V4 { .. } => 0x0800,
            Network::V6 { .. } => 0x86dd,
        };
        bytes.extend(kind.to_be_bytes());
        bytes
    }

    /// The IP header before a transport of so many bytes.
    fn network_bytes(&self, length: usize, identification: u16) -> Vec<u8> {
        let mut bytes = Vec::new();
        match &self.network {
            Network::V4 { source, destination, dont_fragment, options, .. } => {
                bytes.push(0x40 | (5 + options.len() as u8 / 4));
                bytes.push(self.class);
                bytes.extend(((20 + options.len() + length) as u16).to_be_bytes());
                bytes.extend(identification.to_be_bytes());
                bytes.extend((u16::from(*dont_fragment) << 14).to_be_bytes());
                bytes.push(self.life);
                bytes.push(self.protocol());
                bytes.extend([0, 0]);
                bytes.extend(source);
                bytes.extend(destination);
                bytes.extend(options);
                let sum = !plain_sum(&[&bytes]);
                bytes[10..12].copy_from_slice(&sum.to_be_bytes());
            }
            Network::V6 { source, destination, label, extensions } => {
                let mut behind = Vec::new();
                for (at, Extension(_, body)) in extensions.iter().enumerate() {
                    behind.push(extensions.get(at + 1).map_or(self.protocol(), |next| next.0));
                    behind.push((body.len() / 8) as u8);
                    behind.extend(body);
                }
                let first = 6 << 28 | u32::from(self.class) << 20 | label & 0xf_ffff;
                bytes.extend(first.to_be_bytes());
                bytes.extend(((behind.len() + length) as u16).to_be_bytes());
                bytes.push(extensions.first().map_or(self.protocol(), |next| next.0));
                bytes.push(self.life);
                bytes.extend(source);
                bytes.extend(destination);
                bytes.extend(behind);
            }
        }
        bytes
    }

    fn transport_bytes(&self, piece: &Piece<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(self.source_port.to_be_bytes());
        bytes.extend(self.destination_port.to_be_bytes());
        let field = match &self.transport {
            Transport::Tcp { acknowledgment, reserved, window, urgent, options, .. } => {
                bytes.extend(piece.sequence.to_be_bytes());
                bytes.extend(acknowledgment.to_be_bytes());
                bytes.push((5 + options.len() as u8 / 4) << 4 | reserved & 0xf);
                bytes.push(piece.flags);
                bytes.extend(window.to_be_bytes());
                bytes.extend([0, 0]);
                bytes.extend(urgent.to_be_bytes());
                bytes.extend(options);
                16
            }
            Transport::Udp => {
                bytes.extend(((8 + piece.payload.len()) as u16).to_be_bytes());
                bytes.extend([0, 0]);
                6
            }
        };
        bytes.extend(piece.payload);
        let pseudo = self.pseudo_bytes(bytes.len());
        let whole = match (!plain_sum(&[&pseudo, &bytes]), &self.transport) {
            (0, Transport::Udp) => 0xffff,
            (sum, _) => sum,
        };
        let sum = match piece.checksum {
            Checksum::Right => whole,
            Checksum::Partial => plain_sum(&[&pseudo]),
            Checksum::Wrong => whole ^ 0x0400,
        };
        bytes[field..field + 2].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    fn pseudo_bytes(&self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        match &self.network {
            Network::V4 { source, destination, .. } => {
                bytes.extend(source);
                bytes.extend(destination);
                bytes.extend([0, self.protocol()]);
                bytes.extend((length as u16).to_be_bytes());
            }
            Network::V6 { source, destination, .. } => {
                bytes.extend(source);
                bytes.extend(destination);
                bytes.extend((length as u32).to_be_bytes());
                bytes.extend([0, 0, 0, self.protocol()]);
            }
        }
        bytes
    }
}

/// Any flow; most of them plain.
pub fn flow() -> impl Strategy<Value = Flow> {
    let tags = prop_oneof![4 => Just(vec![]), 1 => prop::collection::vec(any::<u16>(), 1..3)];
    let macs = (any::<[u8; 6]>(), any::<[u8; 6]>());
    let life = (any::<u8>(), any::<u8>());
    let ports = (any::<u16>(), any::<u16>());
    (macs, tags, network(), life, ports, transport()).prop_map(
        |((destination_mac, source_mac), tags, network, (class, life), ports, transport)| Flow {
            destination_mac,
            source_mac,
            tags,
            network,
            class,
            life,
            source_port: ports.0,
            destination_port: ports.1,
            transport,
        },
    )
}

/// A flow whose packets are merged.
pub fn plain_flow() -> impl Strategy<Value = Flow> {
    flow().prop_map(|mut flow| {
        flow.tags.clear();
        match &mut flow.network {
            Network::V4 { options, .. } => options.clear(),
            Network::V6 { extensions, .. } => extensions.clear(),
        }
        if let Transport::Tcp { flags, .. } = &mut flow.transport {
            *flags = *flags & (FIN | PSH | ECE | CWR) | ACK;
        }
        flow
    })
}

fn network() -> impl Strategy<Value = Network> {
    let words = |most: usize| {
        let some = (1..=most).prop_flat_map(|words| prop::collection::vec(any::<u8>(), words * 4));
        prop_oneof![4 => Just(vec![]), 1 => some]
    };
    let v4 = (any::<[u8; 4]>(), any::<[u8; 4]>(), any::<u16>(), any::<bool>(), words(10)).prop_map(
        |(source, destination, identification, dont_fragment, options)| Network::V4 {
            source,
            destination,
            identification,
            dont_fragment,
            options,
        },
    );
    let kind = prop_oneof![Just(0u8), Just(43), Just(60)];
    let extension = (kind, 0usize..4).prop_flat_map(|(kind, units)| {
        prop::collection::vec(any::<u8>(), 6 + units * 8)
            .prop_map(move |body| Extension(kind, body))
    });
    let extensions = prop_oneof![4 => Just(vec![]), 1 => prop::collection::vec(extension, 1..4)];
    let v6 = (any::<[u8; 16]>(), any::<[u8; 16]>(), any::<u32>(), extensions).prop_map(
        |(source, destination, label, extensions)| Network::V6 {
            source,
            destination,
            label,
            extensions,
        },
    );
    prop_oneof![v4, v6]
}

fn transport() -> impl Strategy<Value = Transport> {
    let options =
        (0usize..=10).prop_flat_map(|words| prop::collection::vec(any::<u8>(), words * 4));
    let tcp = (any::<(u32, u32)>(), 0u8..16, any::<u8>(), any::<(u16, u16)>(), options).prop_map(
        |((sequence, acknowledgment), reserved, flags, (window, urgent), options)| Transport::Tcp {
            sequence,
            acknowledgment,
            reserved,
            flags,
            window,
            urgent,
            options,
        },
    );
    prop_oneof![2 => tcp, 1 => Just(Transport::Udp)]
}

/// What a large frame carries: its payload and how it is cut.
#[derive(Clone, Debug)]
pub struct Load {
    pub length: usize,
    pub size: u16,
    pub seed: u64,
}

/// Payloads of all lengths that fit behind the longest headers, in pieces of all sizes; not more than some
/// hundred pieces, for the time's sake.
pub fn load() -> impl Strategy<Value = Load> {
    let length = prop_oneof![1 => 0usize..20, 4 => 0usize..9_000, 1 => 0usize..65_000];
    let size = prop_oneof![1u16..20, 500u16..1_500, 1u16..u16::MAX];
    (length, size, any::<u64>()).prop_map(|(length, size, seed)| {
        let size = size.max(length.div_ceil(400) as u16);
        Load { length, size, seed }
    })
}

impl Load {
    /// The payload for this flow: as long as fits in a frame with its headers.
    pub fn payload(&self, flow: &Flow) -> Vec<u8> {
        bytes(self.length.min(65_535 - flow.headers() - 36), self.seed)
    }
}

/// So many bytes that follow of the seed (xorshift).
pub fn bytes(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// So many cases, or a hundred times as many if `WEFT_SOAK=1`.
pub fn cases(usual: u32) -> Config {
    let cases = if soak() { usual * 100 } else { usual };
    Config { cases, ..Config::default() }
}

pub fn soak() -> bool {
    std::env::var_os("WEFT_SOAK").is_some_and(|value| value == "1")
}
