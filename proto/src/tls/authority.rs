//! Makes the `:authority` of callers over a unix socket one that our HTTP/2 library takes.
//!
//! grpc-core (and so the stock clients of Python, Ruby, C# and C++) sends the socket's path with its
//! slashes escaped, `%2Frun%2Fweft%2Fweft.sock`. The library refuses a percent sign there and ends
//! the stream with PROTOCOL_ERROR. Nobody looks at the authority of such a call, so each percent sign
//! in it becomes a dash on the way in: the length stays, and with it everything else on the wire.
//!
//! Only the framing (RFC 9113 section 4.1) and the outline of header blocks (RFC 7541 section 6) are
//! followed. Nothing is decompressed: that needs no table, since what is looked for is a literal value
//! whose name is spelled out, or is the first entry of the static table.

/// What a client says first (RFC 9113 section 3.4), in bytes.
const PREFACE: usize = 24;
/// A frame's header, in bytes.
const FRAME_HEADER: usize = 9;
/// Types of the frames that carry header blocks.
const HEADERS: u8 = 0x1;
const CONTINUATION: u8 = 0x9;
/// Flags of a HEADERS frame.
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// Bytes of the priority fields.
const PRIORITY_FIELDS: usize = 5;
/// `:authority` in the static table (RFC 7541 appendix A).
const AUTHORITY: u64 = 1;
const AUTHORITY_NAME: &[u8] = b":authority";
/// Integers of more bits than this are nobody's length.
const SHIFT_MAX: u32 = 28;

/// Follows one connection's incoming bytes.
#[derive(Debug)]
pub(super) struct AuthorityFilter {
    place: Place,
    block: Block,
}

/// Where the next byte stands.
#[derive(Debug)]
enum Place {
    Preface {
        left: usize,
    },
    Header {
        bytes: [u8; FRAME_HEADER],
        have: usize,
    },
    /// The first byte of a padded frame, which says how much padding there is.
    PadLength {
        block: usize,
        flags: u8,
    },
    Skip {
        left: usize,
        then_block: usize,
        then_skip: usize,
    },
    Block {
        left: usize,
        then_skip: usize,
    },
    /// Not HTTP/2: the server will say so.
    Lost,
}

/// Where in a header block the next byte stands.
#[derive(Debug, Clone, Copy)]
enum Block {
    Start,
    /// More bytes of an integer that came in front of what follows.
    Integer {
        then: Then,
        value: u64,
        shift: u32,
    },
    /// The length of a string.
    Length(Text),
    MoreLength {
        text: Text,
        value: u64,
        shift: u32,
    },
    Text {
        left: u64,
        text: Text,
    },
}

#[derive(Debug, Clone, Copy)]
enum Then {
    /// Nothing: an indexed field, or a new size of the table.
    Field,
    /// A literal: the integer is the index of its name.
    Literal,
}

/// A string of a literal field.
#[derive(Debug, Clone, Copy)]
enum Text {
    /// So many bytes of it are those of the name that is looked for; none if it is another.
    Name(Option<usize>),
    Value,
    /// The value that is looked for.
    Authority,
    /// The same, compressed: left as it is.
    Compressed,
}

impl Default for AuthorityFilter {
    fn default() -> Self {
        Self { place: Place::Preface { left: PREFACE }, block: Block::Start }
    }
}

impl AuthorityFilter {
    /// Takes the next bytes of the connection, and changes what has to be changed.
    pub(super) fn pass(&mut self, bytes: &mut [u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let used = self.step(rest);
            rest = &mut rest[used..];
        }
    }

    /// Handles at least one byte; returns how many.
    fn step(&mut self, bytes: &mut [u8]) -> usize {
        match &mut self.place {
            Place::Lost => bytes.len(),
            Place::Preface { left } => {
                let used = bytes.len().min(*left);
                *left -= used;
                if *left == 0 {
                    self.place = next_frame();
                }
                used
            }
            Place::Header { bytes: header, have } => {
                header[*have] = bytes[0];
                *have += 1;
                if *have == FRAME_HEADER {
                    self.place = self.begin_frame();
                }
                1
            }
            Place::PadLength { block, flags } => {
                let (block, flags, padding) = (*block, *flags, usize::from(bytes[0]));
                self.place = begin_block(block.saturating_sub(padding), flags, padding.min(block));
                1
            }
            Place::Skip { left, then_block, then_skip } => {
                let used = bytes.len().min(*left);
                *left -= used;
                if *left == 0 {
                    self.place = after(*then_block, *then_skip);
                }
                used
            }
            Place::Block { left, then_skip } => {
                let used = bytes.len().min(*left);
                *left -= used;
                let (left, then_skip) = (*left, *then_skip);
                let whole = bytes[..used].iter_mut().try_for_each(|byte| self.block.take(byte));
                if whole.is_none() {
                    self.place = Place::Lost;
                } else if left == 0 {
                    self.place = after(0, then_skip);
                }
                used
            }
        }
    }

    fn begin_frame(&mut self) -> Place {
        let Place::Header { bytes, .. } = &self.place else { return Place::Lost };
        let [a, b, c, kind, flags, ..] = *bytes;
        let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        match kind {
            HEADERS => {
                self.block = Block::Start;
                if flags & PADDED != 0 && length > 0 {
                    Place::PadLength { block: length - 1, flags }
                } else {
                    begin_block(length, flags, 0)
                }
            }
            CONTINUATION => after(length, 0),
            _ => after(0, length),
        }
    }
}

fn next_frame() -> Place {
    Place::Header { bytes: [0; FRAME_HEADER], have: 0 }
}

fn begin_block(length: usize, flags: u8, padding: usize) -> Place {
    let priority = if flags & PRIORITY != 0 { PRIORITY_FIELDS.min(length) } else { 0 };
    match priority {
        0 => after(length, padding),
        _ => Place::Skip { left: priority, then_block: length - priority, then_skip: padding },
    }
}

/// A header block of that length, then bytes of no interest, then the next frame.
fn after(block: usize, skip: usize) -> Place {
    match (block, skip) {
        (0, 0) => next_frame(),
        (0, left) => Place::Skip { left, then_block: 0, then_skip: 0 },
        (left, then_skip) => Place::Block { left, then_skip },
    }
}

impl Block {
    /// Takes one byte of the block; nothing if it cannot be one.
    fn take(&mut self, byte: &mut u8) -> Option<()> {
        *self = match *self {
            Self::Start => Self::field(*byte),
            Self::Integer { then, value, shift } => match more(*byte, value, shift)? {
                (value, None) => Self::numbered(then, value),
                (value, Some(shift)) => Self::Integer { then, value, shift },
            },
            Self::Length(text) => {
                let text = match text {
                    Text::Authority if *byte & 0x80 != 0 => Text::Compressed,
                    Text::Name(_) if *byte & 0x80 != 0 => Text::Name(None),
                    other => other,
                };
                match prefix(*byte, 7) {
                    (value, true) => Self::MoreLength { text, value, shift: 0 },
                    (length, false) => Self::text(text, length),
                }
            }
            Self::MoreLength { text, value, shift } => match more(*byte, value, shift)? {
                (length, None) => Self::text(text, length),
                (value, Some(shift)) => Self::MoreLength { text, value, shift },
            },
            Self::Text { left, text } => {
                if matches!(text, Text::Authority) && *byte == b'%' {
                    *byte = b'-';
                }
                Self::text(text.with(*byte), left - 1)
            }
        };
        Some(())
    }

    /// The first byte of a field (RFC 7541 sections 6.1 to 6.3).
    fn field(byte: u8) -> Self {
        let (then, bits) = match byte {
            0x80.. => (Then::Field, 7),
            0x40..=0x7f => (Then::Literal, 6),
            0x20..=0x3f => (Then::Field, 5),
            0x00..=0x1f => (Then::Literal, 4),
        };
        match prefix(byte, bits) {
            (value, true) => Self::Integer { then, value, shift: 0 },
            (value, false) => Self::numbered(then, value),
        }
    }

    fn numbered(then: Then, value: u64) -> Self {
        match (then, value) {
            (Then::Field, _) => Self::Start,
            (Then::Literal, 0) => Self::Length(Text::Name(Some(0))),
            (Then::Literal, AUTHORITY) => Self::Length(Text::Authority),
            (Then::Literal, _) => Self::Length(Text::Value),
        }
    }

    /// What follows when `left` bytes of a string are still to come.
    fn text(text: Text, left: u64) -> Self {
        match (left, text) {
            (0, Text::Name(Some(same))) if same == AUTHORITY_NAME.len() => {
                Self::Length(Text::Authority)
            }
            (0, Text::Name(_)) => Self::Length(Text::Value),
            (0, Text::Value | Text::Authority | Text::Compressed) => Self::Start,
            (left, text) => Self::Text { left, text },
        }
    }
}

impl Text {
    /// The same with one more byte read.
    fn with(self, byte: u8) -> Self {
        match self {
            Self::Name(Some(same)) if AUTHORITY_NAME.get(same) == Some(&byte) => {
                Self::Name(Some(same + 1))
            }
            Self::Name(_) => Self::Name(None),
            Self::Value | Self::Authority | Self::Compressed => self,
        }
    }
}

/// The part of an integer in its first byte, and whether more bytes follow (RFC 7541 section 5.1).
fn prefix(byte: u8, bits: u32) -> (u64, bool) {
    let mask = (1u64 << bits) - 1;
    let value = u64::from(byte) & mask;
    (value, value == mask)
}

/// An integer with one more byte, and where the next one goes if there is one.
fn more(byte: u8, value: u64, shift: u32) -> Option<(u64, Option<u32>)> {
    let value = value + (u64::from(byte & 0x7f) << shift);
    let last = byte & 0x80 == 0;
    (shift <= SHIFT_MAX).then_some((value, (!last).then_some(shift + 7)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags, 0, 0, 0, 1];
        frame.extend(payload);
        frame
    }

    fn literal(first: u8, value: &[u8]) -> Vec<u8> {
        let mut field = vec![first];
        match u8::try_from(value.len()) {
            Ok(length @ 0..=126) => field.push(length),
            Ok(_) | Err(_) => field.extend([127, u8::try_from(value.len() - 127).unwrap()]),
        }
        field.extend(value);
        field
    }

    /// A header block with this authority: once with its name spelled out, as grpc-core does it,
    /// and once by the name's place in the table.
    fn block(authority: &[u8]) -> Vec<u8> {
        let mut block = vec![0x86, 0x83];
        block.extend(literal(0x44, b"/weft.v1.NodeService/List"));
        block.extend(literal(0x40, b":authority"));
        block.extend(literal(0x40, authority)[1..].to_vec());
        block.extend(literal(0x40, b":authorize"));
        block.extend(literal(0x40, b"%%")[1..].to_vec());
        block.extend(literal(0x41, authority));
        block.extend(literal(0x40, b"user-agent"));
        block.extend(literal(0x00, b"x%2F")[1..].to_vec());
        block
    }

    fn connection(frames: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend(frame(0x4, 0, &[0, 3, 0, 0, 0, 1]));
        frames.iter().for_each(|frame| bytes.extend(frame));
        bytes
    }

    fn passed(bytes: &[u8], pieces: usize) -> Vec<u8> {
        let mut filter = AuthorityFilter::default();
        let mut all = bytes.to_vec();
        all.chunks_mut(pieces).for_each(|piece| filter.pass(piece));
        all
    }

    #[test]
    fn the_authority_is_mended_however_the_bytes_are_cut() {
        let long = format!("%2Ftmp%2F{}%2Fweft.sock", "x".repeat(120));
        for authority in ["%2Frun%2Fweft%2Fweft.sock", long.as_str()] {
            let mended = authority.replace('%', "-");
            for flags in [0, PADDED, PRIORITY, PADDED | PRIORITY] {
                let wrap = |text: &str| {
                    let mut payload = Vec::new();
                    if flags & PADDED != 0 {
                        payload.push(3);
                    }
                    if flags & PRIORITY != 0 {
                        payload.extend([0x41, 3, b'%', b'2', b'F']);
                    }
                    payload.extend(block(text.as_bytes()));
                    if flags & PADDED != 0 {
                        payload.extend(b"%%%");
                    }
                    connection(&[frame(HEADERS, flags, &payload), frame(0, 0, b"\x41\x03%2F")])
                };
                for pieces in [1, 2, 7, 4096] {
                    assert_eq!(passed(&wrap(authority), pieces), wrap(&mended), "{flags} {pieces}");
                }
            }
        }
    }

    #[test]
    fn a_block_may_go_on_in_a_second_frame() {
        let cut = |text: &str, at: usize| {
            let block = block(text.as_bytes());
            let (first, second) = block.split_at(at);
            connection(&[frame(HEADERS, 0, first), frame(CONTINUATION, 4, second)])
        };
        for at in 1..block(b"%2Fa").len() {
            assert_eq!(passed(&cut("%2Fa", at), 5), cut("-2Fa", at));
        }
    }

    #[test]
    fn other_authorities_are_left_alone() {
        let plain = connection(&[frame(HEADERS, 0, &block(b"localhost"))]);
        assert_eq!(passed(&plain, 3), plain);
        let mut compressed = vec![0x41, 0x83];
        compressed.extend(b"%2F");
        let compressed = connection(&[frame(HEADERS, 0, &compressed)]);
        assert_eq!(passed(&compressed, 3), compressed);
    }

    proptest! {
        #[test]
        fn any_bytes_pass(bytes in prop::collection::vec(any::<u8>(), 0..300), pieces in 1usize..40) {
            let after = passed(&connection(std::slice::from_ref(&bytes)), pieces);
            prop_assert_eq!(after.len(), connection(&[bytes]).len());
        }
    }
}
