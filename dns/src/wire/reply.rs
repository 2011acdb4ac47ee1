//! Writing a reply into a reused buffer: header, the question as it was asked, records that point
//! back to its name, and our OPT record if the client sent one.

use super::query::{Edns, NotAQuery, Query};
use super::{CLASS_IN, HEADER, Rcode, flag, rtype};
use crate::limits::UDP_MAX;

/// A pointer to the name of the question, which always starts after the header.
const QUESTION_NAME: u16 = 0xc000 | HEADER as u16;
/// Owner pointer, type, class, TTL and length of a record in an answer.
const RECORD_HEAD: usize = 12;
/// An OPT record without options.
pub const OPT: usize = 11;
/// Offsets of header fields that are patched when the rest is known.
const ANSWERS_AT: usize = 6;
const ADDITIONAL_AT: usize = 10;

/// A reply being written.
pub struct Reply<'b> {
    out: &'b mut Vec<u8>,
    edns: Option<Edns>,
    limit: usize,
    answers: u16,
}

impl<'b> Reply<'b> {
    /// Starts a reply of at most `limit` bytes. AA stays unset: we are not the authority, and a
    /// client has no use for the bit.
    pub fn new(query: &Query<'_>, rcode: Rcode, limit: usize, out: &'b mut Vec<u8>) -> Self {
        out.clear();
        let keep = query.flags & (flag::RD | flag::CD);
        let code = rcode as u16 & flag::RCODE;
        header(out, query.id, flag::QR | flag::RA | keep | code, 1);
        out.extend_from_slice(query.question);
        Self { out, edns: query.edns, limit, answers: 0 }
    }

    /// How many records with data of this size still fit.
    pub fn room(&self, data: usize) -> usize {
        let opt = if self.edns.is_some() { OPT } else { 0 };
        self.limit.saturating_sub(self.out.len() + opt) / (RECORD_HEAD + data)
    }

    /// Adds a record about the name of the question. The caller has asked [`Self::room`].
    pub fn record(&mut self, rtype: u16, ttl: u32, data: &[u8]) {
        let length = data.len() as u16;
        self.out.extend_from_slice(&QUESTION_NAME.to_be_bytes());
        self.out.extend_from_slice(&rtype.to_be_bytes());
        self.out.extend_from_slice(&CLASS_IN.to_be_bytes());
        self.out.extend_from_slice(&ttl.to_be_bytes());
        self.out.extend_from_slice(&length.to_be_bytes());
        self.out.extend_from_slice(data);
        self.answers += 1;
    }

    /// Says that there is more than fits.
    pub fn truncated(&mut self) {
        self.out[2] |= (flag::TC >> 8) as u8;
    }

    /// Writes the counts and the OPT record.
    pub fn finish(self) {
        self.out[ANSWERS_AT..ANSWERS_AT + 2].copy_from_slice(&self.answers.to_be_bytes());
        if let Some(edns) = self.edns {
            push_opt(self.out, Rcode::NoError, edns.dnssec);
            self.out[ADDITIONAL_AT + 1] = 1;
        }
    }
}

/// The reply to a message that is not a query we take: a header and nothing that was sent, except
/// that BADVERS needs an OPT record for its upper bits. False if there is to be no reply.
pub fn reject(error: NotAQuery, out: &mut Vec<u8>) -> bool {
    out.clear();
    let (id, flags, rcode) = match error {
        NotAQuery::Drop => return false,
        NotAQuery::Reject { id, flags, rcode } => (id, flags, rcode),
    };
    let keep = flags & (flag::OPCODE | flag::RD | flag::CD);
    header(out, id, flag::QR | flag::RA | keep | (rcode as u16 & flag::RCODE), 0);
    if rcode == Rcode::BadVers {
        push_opt(out, rcode, false);
        out[ADDITIONAL_AT + 1] = 1;
    }
    true
}

/// Appends an OPT record that offers our UDP size (RFC 6891 section 6.1.3).
pub fn push_opt(out: &mut Vec<u8>, rcode: Rcode, dnssec: bool) {
    let extended = (rcode as u16 >> 4) as u8;
    let flags: u16 = if dnssec { super::record::DNSSEC_OK as u16 } else { 0 };
    out.push(0);
    out.extend_from_slice(&rtype::OPT.to_be_bytes());
    out.extend_from_slice(&(UDP_MAX as u16).to_be_bytes());
    out.extend_from_slice(&[extended, 0]);
    out.extend_from_slice(&flags.to_be_bytes());
    out.extend_from_slice(&[0, 0]);
}

/// Appends a header with this many questions and nothing else.
pub fn header(out: &mut Vec<u8>, id: u16, flags: u16, questions: u16) {
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(&flags.to_be_bytes());
    out.extend_from_slice(&questions.to_be_bytes());
    out.extend_from_slice(&[0; 6]);
}
