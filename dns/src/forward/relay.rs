//! What an upstream server said, checked and reduced to what a client gets: header, question,
//! answers, authority. The additional section goes, with the server's own OPT record in it; no
//! compression pointer can be hurt by that, because all of them point backwards.

use std::time::Duration;

use crate::answer::Foreign;
use crate::limits::{CACHE_NEGATIVE_TTL, CACHE_TTL, REPLY_RECORDS};
use crate::wire::record::{self, Record};
use crate::wire::{HEADER, Rcode, flag, name, reply, rtype, u16_at, u32_at};

/// TTLs with the upper bit set mean zero (RFC 2181 section 8).
const TTL_MAX: u32 = i32::MAX as u32;
/// Bytes of the numbers after the two names of a SOA record; the last four are the time a "no"
/// may be kept (RFC 2308 section 4).
const SOA_NUMBERS: usize = 20;
/// Types whose data is, or begins with, a name that may be compressed (RFC 3597 section 4).
const NS: u16 = 2;
const CNAME: u16 = 5;
const MX: u16 = 15;
const DNAME: u16 = 39;

/// An answer that can be given to any client that asked this question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Relay {
    bytes: Vec<u8>,
    ttls: Vec<usize>,
    keep: Option<Duration>,
}

impl Relay {
    /// Takes the reply apart; none if it is not well formed. Its header and question have been
    /// compared with what was asked.
    pub(super) fn new(message: &[u8], question: usize) -> Option<Self> {
        let count = |at| u16_at(message, at).map(usize::from);
        let (answers, authority) = (count(6)?, count(8)?);
        if answers + authority > REPLY_RECORDS {
            return None;
        }
        let (mut at, mut records) = (HEADER + question, Vec::new());
        for _ in 0..answers + authority {
            let record = record::at(message, at)?;
            check_names(message, &record)?;
            at = record.data.end;
            records.push(record);
        }
        let keep = keep(message, &records[..answers], &records[answers..]);
        let mut bytes = message[..at].to_vec();
        bytes[HEADER - 2..HEADER].fill(0);
        for record in &records {
            let ttl = clamped(record.ttl).to_be_bytes();
            bytes[record.ttl_at..record.ttl_at + 4].copy_from_slice(&ttl);
        }
        Some(Self { bytes, ttls: records.iter().map(|record| record.ttl_at).collect(), keep })
    }

    /// How long it may be kept; none if not at all.
    pub(super) fn keep(&self) -> Option<Duration> {
        self.keep
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The reply to one client: its id, its case, our OPT record if it sent one, the TTLs less
    /// the age in seconds, and only a header and the question if the rest does not fit.
    pub(super) fn reply(&self, foreign: &Foreign, age: u32) -> Vec<u8> {
        let from_server = flag::QR | flag::AD | flag::RCODE;
        let from_client = flag::RD | flag::CD;
        let said = u16_at(&self.bytes, 2).unwrap_or_default();
        let flags = (said & from_server) | (foreign.flags & from_client) | flag::RA;
        let mut out = self.bytes.clone();
        out[..2].copy_from_slice(&foreign.id.to_be_bytes());
        out[2..4].copy_from_slice(&flags.to_be_bytes());
        let question = HEADER..HEADER + foreign.question.len();
        out[question.clone()].copy_from_slice(&foreign.question);
        for &at in &self.ttls {
            let ttl = u32_at(&out, at).unwrap_or_default().saturating_sub(age);
            out[at..at + 4].copy_from_slice(&ttl.to_be_bytes());
        }
        let opt = if foreign.edns.is_some() { reply::OPT } else { 0 };
        if out.len() + opt > foreign.limit {
            out.truncate(question.end);
            out[2] |= (flag::TC >> 8) as u8;
            out[6..HEADER].fill(0);
        }
        if let Some(edns) = foreign.edns {
            reply::push_opt(&mut out, Rcode::NoError, edns.dnssec);
            out[HEADER - 1] = 1;
        }
        out
    }
}

fn clamped(ttl: u32) -> u32 {
    if ttl > TTL_MAX { 0 } else { ttl.min(CACHE_TTL) }
}

/// Checks the names inside the data of the types that may compress them, so that no broken pointer
/// reaches a client's library (RFC 9267).
fn check_names(message: &[u8], record: &Record) -> Option<()> {
    let start = record.data.start;
    let end = match record.rtype {
        NS | CNAME | DNAME | rtype::PTR => name::end(message, start)?,
        MX => name::end(message, start + 2)?,
        rtype::SOA => name::end(message, name::end(message, start)?)? + SOA_NUMBERS,
        // An unknown type has no names that may be compressed.
        _ => record.data.end,
    };
    (end == record.data.end).then_some(())
}

/// The least TTL of the answers and of the "no" in the authority section, if there is one.
fn keep(message: &[u8], answers: &[Record], authority: &[Record]) -> Option<Duration> {
    let rcode = u16_at(message, 2)? & flag::RCODE;
    let no = authority.iter().find(|record| record.rtype == rtype::SOA).and_then(|soa| {
        let minimum = u32_at(message, soa.data.end.checked_sub(4)?)?;
        Some(clamped(soa.ttl).min(clamped(minimum)).min(CACHE_NEGATIVE_TTL))
    });
    let yes = answers.iter().map(|record| clamped(record.ttl)).min();
    let seconds = match (rcode, yes, no) {
        (code, Some(yes), None) if code == Rcode::NoError as u16 => yes,
        (code, yes, Some(no))
            if code == Rcode::NoError as u16 || code == Rcode::NxDomain as u16 =>
        {
            yes.map_or(no, |yes| yes.min(no))
        }
        // Anything else is trouble at the server's end, or cannot say how long it holds.
        _ => 0,
    };
    (seconds > 0).then(|| Duration::from_secs(seconds.into()))
}
