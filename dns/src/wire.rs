//! The DNS message format, as much of it as a stub resolver's server needs (RFC 1035 section 4,
//! RFC 6891). Written by hand because every query passes here: no allocation per record, and the
//! reply reuses the bytes of the question. The tests compare it with an independent parser.

pub mod name;
pub mod query;
pub mod record;
pub mod reply;

/// Bytes of the fixed header.
pub const HEADER: usize = 12;
/// The class of the Internet.
pub const CLASS_IN: u16 = 1;

/// Record types this crate knows by name (IANA "DNS Parameters").
pub mod rtype {
    pub const A: u16 = 1;
    pub const SOA: u16 = 6;
    pub const PTR: u16 = 12;
    pub const HINFO: u16 = 13;
    pub const AAAA: u16 = 28;
    pub const OPT: u16 = 41;
    /// First of the types that only exist in questions or signatures of transactions: TKEY, TSIG,
    /// IXFR, AXFR, MAILB, MAILA.
    pub const META_FIRST: u16 = 249;
    pub const META_LAST: u16 = 254;
    pub const IXFR: u16 = 251;
    pub const ANY: u16 = 255;
}

/// Response codes (RFC 1035 section 4.1.1, RFC 6891 section 9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Rcode {
    NoError = 0,
    FormErr = 1,
    ServFail = 2,
    NxDomain = 3,
    NotImp = 4,
    Refused = 5,
    /// The upper bits of this one travel in the OPT record.
    BadVers = 16,
}

/// The 16-bit number at `at`, if the message reaches that far.
pub fn u16_at(message: &[u8], at: usize) -> Option<u16> {
    let bytes = message.get(at..at.checked_add(2)?)?;
    Some(u16::from_be_bytes([bytes[0], bytes[1]]))
}

/// The 32-bit number at `at`, if the message reaches that far.
pub fn u32_at(message: &[u8], at: usize) -> Option<u32> {
    Some((u32::from(u16_at(message, at)?) << 16) | u32::from(u16_at(message, at.checked_add(2)?)?))
}

/// Bits of the second header word (RFC 1035 section 4.1.1, RFC 4035 section 3.2).
pub mod flag {
    pub const QR: u16 = 0x8000;
    pub const OPCODE: u16 = 0x7800;
    pub const OPCODE_SHIFT: u32 = 11;
    pub const AA: u16 = 0x0400;
    pub const TC: u16 = 0x0200;
    pub const RD: u16 = 0x0100;
    pub const RA: u16 = 0x0080;
    pub const AD: u16 = 0x0020;
    pub const CD: u16 = 0x0010;
    pub const RCODE: u16 = 0x000f;
}
