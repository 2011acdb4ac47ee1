//! Reading a query. Anything may arrive here: what cannot be a query is dropped, what is a broken
//! one is answered with the header only, and nothing is believed before it is checked.

use super::{HEADER, Rcode, flag, name, record, rtype, u16_at};
use crate::limits::{QUERY_RECORDS, UDP_MAX, UDP_MIN};

/// Opcodes that are refused rather than not implemented: they exist, and are not for clients here.
const OPCODE_NOTIFY: u16 = 4;
const OPCODE_UPDATE: u16 = 5;
/// Bytes of type and class after the name of a question.
const QUESTION_TAIL: usize = 4;

/// A query that is well formed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query<'m> {
    pub id: u16,
    /// The flags as sent.
    pub flags: u16,
    /// Name, type and class as sent, to be echoed in the same case.
    pub question: &'m [u8],
    /// The name as text, lower-cased, without the last dot; empty for the root.
    pub name: String,
    pub rtype: u16,
    pub class: u16,
    pub edns: Option<Edns>,
}

/// What the client's OPT record says (RFC 6891 section 6.1). Options are checked and ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edns {
    /// Largest UDP answer, between `UDP_MIN` and `UDP_MAX`.
    pub size: usize,
    /// The DO bit: the client wants signatures.
    pub dnssec: bool,
}

/// A message that is not a query we take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAQuery {
    /// Too short for a header, or itself an answer: replying could start a loop.
    #[error("shorter than a header, or a response")]
    Drop,
    /// To be answered with a code and without its question, which may be unreadable.
    #[error("not a well-formed query: {rcode:?}")]
    Reject { id: u16, flags: u16, rcode: Rcode },
}

/// Reads one message.
pub fn parse(message: &[u8]) -> Result<Query<'_>, NotAQuery> {
    if message.len() < HEADER {
        return Err(NotAQuery::Drop);
    }
    let id = u16::from_be_bytes([message[0], message[1]]);
    let flags = u16::from_be_bytes([message[2], message[3]]);
    if flags & flag::QR != 0 {
        return Err(NotAQuery::Drop);
    }
    let reject = |rcode| NotAQuery::Reject { id, flags, rcode };
    match (flags & flag::OPCODE) >> flag::OPCODE_SHIFT {
        0 => {}
        OPCODE_NOTIFY | OPCODE_UPDATE => return Err(reject(Rcode::Refused)),
        _ => return Err(reject(Rcode::NotImp)),
    }
    body(message, id, flags).map_err(reject)
}

fn body(message: &[u8], id: u16, flags: u16) -> Result<Query<'_>, Rcode> {
    let count = |at| u16_at(message, at).map(usize::from).ok_or(Rcode::FormErr);
    let (questions, answers, authority, additional) = (count(4)?, count(6)?, count(8)?, count(10)?);
    if questions != 1 || answers != 0 || authority + additional > QUERY_RECORDS {
        return Err(Rcode::FormErr);
    }
    let name_end = name::plain_end(message, HEADER).ok_or(Rcode::FormErr)?;
    let end = name_end + QUESTION_TAIL;
    let question = message.get(HEADER..end).ok_or(Rcode::FormErr)?;
    let rtype = u16_at(message, name_end).ok_or(Rcode::FormErr)?;
    let class = u16_at(message, name_end + 2).ok_or(Rcode::FormErr)?;
    let edns = records(message, end, authority, additional, rtype)?;
    let name = name::text(&message[HEADER..name_end]);
    Ok(Query { id, flags, question, name, rtype, class, edns })
}

/// Walks what follows the question: it must be records, and end where the message ends.
fn records(
    message: &[u8],
    mut at: usize,
    authority: usize,
    additional: usize,
    rtype: u16,
) -> Result<Option<Edns>, Rcode> {
    let (mut edns, mut version) = (None, 0);
    for index in 0..authority + additional {
        let found = record::at(message, at).ok_or(Rcode::FormErr)?;
        // An incremental transfer carries its serial in the authority section; nothing else does.
        if index < authority && rtype != rtype::IXFR {
            return Err(Rcode::FormErr);
        }
        if found.rtype == rtype::OPT {
            if index < authority || edns.is_some() || message[at] != 0 {
                return Err(Rcode::FormErr);
            }
            record::check_options(&message[found.data.clone()]).ok_or(Rcode::FormErr)?;
            version = (found.ttl >> 16) & 0xff;
            edns = Some(Edns {
                size: usize::from(found.class).clamp(UDP_MIN, UDP_MAX),
                dnssec: found.ttl & record::DNSSEC_OK != 0,
            });
        }
        at = found.data.end;
    }
    match (at == message.len(), version) {
        (false, _) => Err(Rcode::FormErr),
        (true, 0) => Ok(edns),
        (true, _) => Err(Rcode::BadVers),
    }
}
