//! The header of TCP (RFC 9293, section 3.1).

use super::frame::BadFrame;

/// Offsets in the header.
pub(super) const SEQUENCE: usize = 4;
pub(super) const ACKNOWLEDGMENT: usize = 8;
/// The byte of the lower eight flags; the one before has the header's length and the other flags.
pub(super) const FLAGS: usize = 13;
pub(super) const CHECKSUM: usize = 16;

pub(super) const FIN: u8 = 0x01;
pub(super) const SYN: u8 = 0x02;
pub(super) const RST: u8 = 0x04;
pub(super) const PSH: u8 = 0x08;
pub(super) const ACK: u8 = 0x10;
pub(super) const URG: u8 = 0x20;
/// "Congestion window reduced" (RFC 3168).
pub(super) const CWR: u8 = 0x80;

/// Without options.
pub(super) const FIXED: usize = 20;

/// With options; they are in the packet.
pub(super) fn header_length(packet: &[u8]) -> Result<usize, BadFrame> {
    let words = packet.get(FLAGS - 1).map_or(0, |byte| usize::from(byte >> 4));
    match words * 4 {
        length if (FIXED..=packet.len()).contains(&length) => Ok(length),
        _ => Err(BadFrame::Transport),
    }
}
