//! How a large frame is cut.

use super::{
    bytes::{be16, be32, put16},
    checksum::Sum,
    frame::{BadFrame, Family, Layers, TCP, UDP},
    tcp,
    vnet::{Gso, GsoKind, Partial},
};

/// How a frame of TCP or UDP is cut, with all sums that are the same in every packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    layers: Layers,
    /// Length of all headers in the frame.
    pub(super) headers: usize,
    /// Payload of every packet but the last.
    size: usize,
    pub(super) count: usize,
    /// Of the IPv4 header without length, identification and checksum.
    network_sum: Sum,
    /// Of the pseudo header and the transport's without length and checksum, for TCP also without
    /// sequence number and flags.
    transport_sum: Sum,
}

impl Cut {
    pub(super) fn new(
        gso: Gso,
        partial: Option<Partial>,
        frame: &[u8],
        layers: Option<Layers>,
    ) -> Result<Self, BadFrame> {
        let layers = layers.filter(|layers| fits(gso.kind, layers)).ok_or(BadFrame::Offload)?;
        if gso.size == 0 {
            return Err(BadFrame::Offload);
        }
        if layers.fragment || layers.end != frame.len() {
            return Err(BadFrame::Network);
        }
        let transport = layers.transport;
        let headers = transport + transport_header(&frame[transport..], layers.protocol)?;
        let transport_sum =
            transport_sum(&frame[..headers], &layers, partial, frame.len() - transport)?;
        let size = usize::from(gso.size);
        Ok(Self {
            layers,
            headers,
            size,
            count: (frame.len() - headers).div_ceil(size).max(1),
            network_sum: network_sum(frame, &layers),
            transport_sum,
        })
    }

    pub(super) fn payload<'a>(&self, index: usize, frame: &'a [u8]) -> &'a [u8] {
        let payload = &frame[self.headers..];
        let start = index.saturating_mul(self.size).min(payload.len());
        &payload[start..payload.len().min(start + self.size)]
    }

    pub(super) fn write(&self, index: usize, frame: &[u8], out: &mut [u8]) {
        let payload = self.payload(index, frame);
        let (head, out_payload) = out.split_at_mut(self.headers);
        head.copy_from_slice(&frame[..self.headers]);
        let sum = self.transport_sum.copied(payload, out_payload);
        let (network, transport) =
            head[self.layers.network..].split_at_mut(self.layers.transport - self.layers.network);
        let length = transport.len() + payload.len();
        self.write_network(network, length, index);
        match self.layers.protocol {
            TCP => self.write_tcp(transport, length, index, sum),
            _ => write_udp(transport, length, sum),
        }
    }

    /// `length` is of the transport, with its header.
    fn write_network(&self, header: &mut [u8], length: usize, index: usize) {
        match self.layers.family {
            Family::V4 => {
                let total = (header.len() + length) as u16;
                let identification = be16(header, 4).wrapping_add(index as u16);
                put16(header, 2, total);
                put16(header, 4, identification);
                let sum = self.network_sum.word(total).word(identification).finish();
                header[10..12].copy_from_slice(&sum);
            }
            Family::V6 => {
                put16(header, 4, (header.len() - Family::V6.fixed_length() + length) as u16)
            }
        }
    }

    /// The first packet keeps "congestion window reduced" (RFC 3168, section 6.1.2), the last FIN and PSH.
    fn write_tcp(&self, header: &mut [u8], length: usize, index: usize, sum: Sum) {
        let sequence = be32(header, tcp::SEQUENCE).wrapping_add((index * self.size) as u32);
        header[tcp::SEQUENCE..tcp::SEQUENCE + 4].copy_from_slice(&sequence.to_be_bytes());
        if index != 0 {
            header[tcp::FLAGS] &= !tcp::CWR;
        }
        if index + 1 != self.count {
            header[tcp::FLAGS] &= !(tcp::FIN | tcp::PSH);
        }
        let sum = sum
            .word((sequence >> 16) as u16)
            .word(sequence as u16)
            .word(be16(header, tcp::FLAGS - 1))
            .word(length as u16);
        header[tcp::CHECKSUM..tcp::CHECKSUM + 2].copy_from_slice(&sum.finish());
    }
}

fn write_udp(header: &mut [u8], length: usize, sum: Sum) {
    put16(header, 4, length as u16);
    // In the header and in the pseudo header.
    let sum = sum.word(length as u16).word(length as u16);
    header[6..8].copy_from_slice(&sum.finish_not_zero());
}

fn fits(kind: GsoKind, layers: &Layers) -> bool {
    match kind {
        GsoKind::Tcp4 => (layers.family, layers.protocol) == (Family::V4, TCP),
        GsoKind::Tcp6 => (layers.family, layers.protocol) == (Family::V6, TCP),
        GsoKind::Udp => layers.protocol == UDP,
    }
}

/// Length of the header of TCP, or else of UDP.
fn transport_header(packet: &[u8], protocol: u8) -> Result<usize, BadFrame> {
    if protocol == TCP {
        return tcp::header_length(packet);
    }
    match packet.len() >= 8 && usize::from(be16(packet, 4)) == packet.len() {
        true => Ok(8),
        false => Err(BadFrame::Transport),
    }
}

fn network_sum(frame: &[u8], layers: &Layers) -> Sum {
    match layers.family {
        Family::V4 => {
            let header = &frame[layers.network..layers.transport];
            let sum = Sum::default().bytes(header);
            sum.less(be16(header, 2)).less(be16(header, 4)).less(be16(header, 10))
        }
        Family::V6 => Sum::default(),
    }
}

/// The sum of what is the same in all packets, besides their length. `length` is what the sum of the
/// pseudo header in the checksum's place was made with.
fn transport_sum(
    headers: &[u8],
    layers: &Layers,
    partial: Option<Partial>,
    length: usize,
) -> Result<Sum, BadFrame> {
    let header = &headers[layers.transport..];
    let field = layers.checksum_offset();
    let sum = Sum::default().bytes(header);
    let sum = match partial {
        // This is used as it is, since only its maker knows the last destination of a routing header.
        Some(partial) if places(partial) == (layers.transport, field) => sum.less(length as u16),
        None if layers.transport == layers.network + layers.family.fixed_length() => {
            sum.less(be16(header, field)).and(layers.pseudo_header(headers, 0))
        }
        Some(_) | None => return Err(BadFrame::Offload),
    };
    Ok(match layers.protocol {
        TCP => sum
            .less((be32(header, tcp::SEQUENCE) >> 16) as u16)
            .less(be32(header, tcp::SEQUENCE) as u16)
            .less(be16(header, tcp::FLAGS - 1)),
        _ => sum.less(be16(header, 4)),
    })
}

fn places(partial: Partial) -> (usize, usize) {
    (partial.start.into(), partial.offset.into())
}
