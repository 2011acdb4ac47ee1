//! One resource record: where its parts lie in a message (RFC 1035 section 3.2.1).

use std::ops::Range;

use super::{name, u16_at, u32_at};

/// The DO bit inside the TTL field of an OPT record (RFC 6891 section 6.1.4).
pub const DNSSEC_OK: u32 = 0x8000;
/// Bytes between the owner's name and the data: type, class, TTL, length.
const FIXED: usize = 10;
/// Offset of the TTL in those.
const TTL: usize = 4;
/// Bytes of an option's code and length (RFC 6891 section 6.1.2).
const OPTION_HEADER: usize = 4;

/// A record found in a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub rtype: u16,
    pub class: u16,
    pub ttl: u32,
    /// Where the TTL is written, to count it down in place.
    pub ttl_at: usize,
    /// Where the data lies.
    pub data: Range<usize>,
}

/// The record at this offset, if one is whole there.
pub fn at(message: &[u8], start: usize) -> Option<Record> {
    let fixed = name::end(message, start)?;
    let data = fixed + FIXED;
    let length = usize::from(u16_at(message, fixed + FIXED - 2)?);
    (data + length <= message.len()).then_some(())?;
    Some(Record {
        rtype: u16_at(message, fixed)?,
        class: u16_at(message, fixed + 2)?,
        ttl: u32_at(message, fixed + TTL)?,
        ttl_at: fixed + TTL,
        data: data..data + length,
    })
}

/// Checks that the data of an OPT record is options from end to end.
pub fn check_options(mut data: &[u8]) -> Option<()> {
    while !data.is_empty() {
        let length = usize::from(u16_at(data, 2)?);
        data = data.get(OPTION_HEADER + length..)?;
    }
    Some(())
}
