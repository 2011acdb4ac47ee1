//! Names on the wire (RFC 1035 sections 3.1 and 4.1.4) and as the text zones are searched with.

use crate::limits::POINTER_HOPS;

/// Longest name on the wire, with all length bytes.
pub const NAME_MAX: usize = 255;
/// Longest label.
pub const LABEL_MAX: usize = 63;
/// The two upper bits of a length byte that is a compression pointer.
const POINTER: u8 = 0xc0;

/// The end of the uncompressed name at `start`, or none if there is no such name. A pointer is an
/// error: the question is the first name of a message, so nothing lies before it to point to.
pub fn plain_end(message: &[u8], start: usize) -> Option<usize> {
    let mut at = start;
    loop {
        let length = usize::from(*message.get(at)?);
        if length > LABEL_MAX {
            return None;
        }
        at += 1 + length;
        if at - start > NAME_MAX || at > message.len() {
            return None;
        }
        if length == 0 {
            return Some(at);
        }
    }
}

/// The end of the name at `start` where compression is allowed. The whole name is followed, each
/// pointer must go backwards (never into the header), and at most `POINTER_HOPS` are followed.
pub fn end(message: &[u8], start: usize) -> Option<usize> {
    let (mut at, mut total, mut hops, mut after) = (start, 0usize, 0usize, None);
    let mut segment = start;
    loop {
        let length = *message.get(at)?;
        if length & POINTER == POINTER {
            let low = *message.get(at + 1)?;
            let target = (usize::from(length & !POINTER) << 8) | usize::from(low);
            hops += 1;
            if hops > POINTER_HOPS || target >= segment || target < super::HEADER {
                return None;
            }
            after = after.or(Some(at + 2));
            (at, segment) = (target, target);
            continue;
        }
        let length = usize::from(length);
        if length > LABEL_MAX {
            return None;
        }
        at += 1 + length;
        total += 1 + length;
        if total > NAME_MAX || at > message.len() {
            return None;
        }
        if length == 0 {
            return after.or(Some(at));
        }
    }
}

/// The text of an uncompressed, checked name: lower-cased, dots between labels, none at the end.
/// A byte that could be mistaken for structure (a dot, a backslash, anything not printable)
/// becomes `\DDD` (RFC 4343 section 2.1), and so matches no name of a zone.
pub fn text(wire: &[u8]) -> String {
    let mut out = String::with_capacity(wire.len());
    let mut rest = wire;
    while let Some((&length, tail)) = rest.split_first() {
        let length = usize::from(length).min(tail.len());
        if length == 0 {
            break;
        }
        if !out.is_empty() {
            out.push('.');
        }
        tail[..length].iter().for_each(|&byte| push_escaped(&mut out, byte));
        rest = &tail[length..];
    }
    out
}

fn push_escaped(out: &mut String, byte: u8) {
    if byte.is_ascii_graphic() && byte != b'.' && byte != b'\\' {
        out.push(char::from(byte.to_ascii_lowercase()));
        return;
    }
    out.push('\\');
    for digit in [byte / 100, byte / 10 % 10, byte % 10] {
        out.push(char::from(b'0' + digit));
    }
}

/// The wire form of a dotted name, in the case given; none if a label is empty or longer than 63
/// bytes, or the whole longer than 255. One dot at the end is allowed.
pub fn encode(name: &str) -> Option<Vec<u8>> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let mut wire = Vec::with_capacity(name.len() + 2);
    for label in name.split('.') {
        if label.is_empty() || label.len() > LABEL_MAX {
            return None;
        }
        wire.push(u8::try_from(label.len()).ok()?);
        wire.extend_from_slice(label.as_bytes());
    }
    wire.push(0);
    (wire.len() <= NAME_MAX).then_some(wire)
}
