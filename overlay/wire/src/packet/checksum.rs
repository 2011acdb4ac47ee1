//! The Internet checksum (RFC 1071).

/// Adds these bytes, as big-endian words of 16 bits, to a sum that is not folded yet.
pub fn add(_sum: u64, _bytes: &[u8]) -> u64 {
    unimplemented!()
}

/// The sum in 16 bits.
pub fn fold(_sum: u64) -> u16 {
    unimplemented!()
}
