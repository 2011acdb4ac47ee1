//! Netlink messages, written and read.
//!
//! A message is a header, a fixed part, and attributes that may nest; all aligned to four bytes (RFC 3549).
//! Written by hand instead of through typed crates, because tables are stored and replayed as the bytes the
//! kernel itself gave us, and because dozens of requests go out in one system call.

use std::fmt;

use super::uapi::{NLA_F_NESTED, NLA_TYPE_MASK};

/// Length of `struct nlmsghdr`.
pub(crate) const HEADER: usize = 16;

fn align(length: usize) -> usize {
    length.next_multiple_of(4)
}

/// One message being written.
#[derive(Clone)]
pub(crate) struct Message {
    bytes: Vec<u8>,
}

/// Some messages carry private keys.
impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message").field("length", &self.bytes.len()).finish_non_exhaustive()
    }
}

impl Message {
    /// A message of this type and flags with its fixed part. Sequence number and length come later.
    pub(crate) fn new(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        bytes.extend(fixed);
        bytes.resize(align(bytes.len()), 0);
        Self { bytes }
    }

    /// Adds an attribute.
    pub(crate) fn put(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        // Everything we write is short: names, addresses, and lists that are cut before 64 KiB.
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value);
        self.bytes.resize(align(self.bytes.len()), 0);
        self
    }

    /// Adds a string attribute, ended by a zero.
    pub(crate) fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.put(kind, &bytes)
    }

    /// Adds a number in host order.
    pub(crate) fn u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.put(kind, &value.to_ne_bytes())
    }

    /// Adds attributes inside an attribute.
    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.bytes.len();
        self.put(kind | NLA_F_NESTED, &[]);
        fill(self);
        let length = u16::try_from(self.bytes.len() - start).unwrap_or(u16::MAX);
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self
    }

    /// Adds raw bytes, such as a fixed part inside an attribute.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend(bytes);
        self.bytes.resize(align(self.bytes.len()), 0);
        self
    }

    /// The finished message.
    pub(crate) fn finish(mut self, sequence: u32) -> Vec<u8> {
        let length = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        self.bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.bytes
    }
}

/// One message received.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Received<'a> {
    /// `nlmsg_type`.
    pub(crate) kind: u16,
    /// `nlmsg_flags`.
    pub(crate) flags: u16,
    /// `nlmsg_seq`.
    pub(crate) sequence: u32,
    /// `nlmsg_pid`: the port of the requester, also in notifications of its changes.
    pub(crate) port: u32,
    /// What follows the header.
    pub(crate) body: &'a [u8],
}

/// The messages in a buffer.
pub(crate) fn messages(buffer: &[u8]) -> impl Iterator<Item = Received<'_>> {
    let mut rest = buffer;
    std::iter::from_fn(move || {
        let length = get_u32(rest, 0)? as usize;
        let body = rest.get(HEADER..length)?;
        let (kind, flags) = (get_u16(rest, 4)?, get_u16(rest, 6)?);
        let (sequence, port) = (get_u32(rest, 8)?, get_u32(rest, 12)?);
        rest = rest.get(align(length)..).unwrap_or(&[]);
        Some(Received { kind, flags, sequence, port, body })
    })
}

/// The attributes in a body from `offset` on: type without flags, and value.
pub(crate) fn attributes(body: &[u8], offset: usize) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = body.get(align(offset)..).unwrap_or(&[]);
    std::iter::from_fn(move || {
        let length = usize::from(get_u16(rest, 0)?);
        let kind = get_u16(rest, 2)? & NLA_TYPE_MASK;
        let value = rest.get(4..length)?;
        rest = rest.get(align(length)..).unwrap_or(&[]);
        Some((kind, value))
    })
}

/// The value of one attribute.
pub(crate) fn attribute(body: &[u8], offset: usize, kind: u16) -> Option<&[u8]> {
    attributes(body, offset).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// A number in host order at an offset.
pub(crate) fn get_u32(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(offset..offset + 4)?.try_into().ok()?))
}

/// A number in host order at an offset.
pub(crate) fn get_u16(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(offset..offset + 2)?.try_into().ok()?))
}

/// A string that may end in a zero.
pub(crate) fn get_text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// An address of 4 or 16 bytes.
pub(crate) fn get_ip(bytes: &[u8]) -> Option<std::net::IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(v4.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(Into::into)
}

/// The bytes of an address.
pub(crate) fn ip_bytes(address: std::net::IpAddr) -> Vec<u8> {
    match address {
        std::net::IpAddr::V4(v4) => v4.octets().to_vec(),
        std::net::IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// AF_INET or AF_INET6 as the byte in fixed parts.
pub(crate) fn family_byte(address: std::net::IpAddr) -> u8 {
    if address.is_ipv4() { libc::AF_INET as u8 } else { libc::AF_INET6 as u8 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        let mut message = Message::new(16, 5, &[1, 2, 3, 4]);
        message.text(3, "eth0").nest(18, |m| {
            m.u32(1, 7).put(2, &[9]);
        });
        let bytes = message.finish(42);
        let all: Vec<_> = messages(&bytes).collect();
        assert_eq!((all.len(), all[0].kind, all[0].flags, all[0].sequence), (1, 16, 5, 42));
        assert_eq!(get_text(attribute(all[0].body, 4, 3).unwrap()), "eth0");
        let inner = attribute(all[0].body, 4, 18).unwrap();
        assert_eq!(get_u32(attribute(inner, 0, 1).unwrap(), 0), Some(7));
        assert_eq!(attribute(inner, 0, 2), Some(&[9u8][..]));
    }

    #[test]
    fn cut_messages_end_the_iteration() {
        let bytes = Message::new(1, 0, &[]).finish(1);
        assert_eq!(messages(&bytes[..bytes.len() - 1]).count(), 0);
        assert_eq!(attributes(&[8, 0, 1, 0, 5], 0).count(), 0);
    }
}
