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

#[cfg(test)]
mod tests {
    use hickory_proto::op::Message;
    use proptest::prelude::*;

    use super::*;
    use crate::wire::query::Edns;

    const QUESTION: &[u8] = b"\x03www\x07example\x03com\x00\x00\x01\x00\x01";

    fn foreign(limit: usize) -> Foreign {
        let edns = Some(Edns { size: limit, dnssec: true });
        Foreign { id: 7, flags: flag::RD, question: QUESTION.to_vec(), edns, limit }
    }

    fn message(counts: [u8; 3], records: &[u8]) -> Vec<u8> {
        let [answers, authority, additional] = counts;
        let mut out = vec![0, 1, 0x81, 0x80, 0, 1, 0, answers, 0, authority, 0, additional];
        out.extend(QUESTION);
        out.extend(records);
        out
    }

    /// A record at the question's name with this TTL and data.
    fn record(rtype: u8, ttl: u32, data: &[u8]) -> Vec<u8> {
        let mut out = vec![0xc0, 12, 0, rtype, 0, 1];
        out.extend(ttl.to_be_bytes());
        out.extend((data.len() as u16).to_be_bytes());
        out.extend(data);
        out
    }

    fn seconds(counts: [u8; 3], records: &[Vec<u8>]) -> u64 {
        let relay = Relay::new(&message(counts, &records.concat()), QUESTION.len()).unwrap();
        relay.keep().map_or(0, |keep| keep.as_secs())
    }

    #[test]
    fn how_long_an_answer_is_kept() {
        let a = |ttl| record(1, ttl, &[1, 2, 3, 4]);
        let soa = |ttl: u32, minimum: u32| {
            let mut data = vec![0xc0, 12, 0xc0, 12];
            data.extend([0; 16]);
            data.extend(minimum.to_be_bytes());
            record(6, ttl, &data)
        };
        assert_eq!(seconds([1, 0, 0], &[a(30)]), 30);
        assert_eq!(seconds([2, 0, 0], &[a(30), a(20)]), 20);
        assert_eq!(seconds([1, 0, 0], &[a(1_000_000)]), 300);
        assert_eq!(seconds([1, 0, 0], &[a(0)]), 0);
        assert_eq!(seconds([1, 0, 0], &[a(1 << 31)]), 0);
        assert_eq!(seconds([0, 0, 0], &[]), 0);
        assert_eq!(seconds([0, 1, 0], &[soa(40, 50)]), 40);
        assert_eq!(seconds([0, 1, 0], &[soa(50, 40)]), 40);
        assert_eq!(seconds([0, 1, 0], &[soa(900, 900)]), 60);
        assert_eq!(seconds([1, 1, 0], &[record(5, 10, &[0xc0, 12]), soa(50, 40)]), 10);
    }

    #[test]
    fn names_in_data_are_checked() {
        let new = |rtype, data: &[u8]| {
            Relay::new(&message([1, 0, 0], &record(rtype, 60, data)), QUESTION.len())
        };
        for (rtype, data) in [(5, &[0xc0, 12][..]), (15, &[0, 1, 0xc0, 12]), (2, &[0])] {
            assert!(new(rtype, data).is_some(), "{rtype} {data:?}");
        }
        let bad =
            [(5, &[0xc0, 200][..]), (5, &[0xc0, 12, 0]), (12, &[9]), (15, &[0]), (6, &[0, 0])];
        for (rtype, data) in bad {
            assert!(new(rtype, data).is_none(), "{rtype} {data:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        /// Whatever a server sends, what is passed on is a whole message that fits.
        #[test]
        fn any_reply_is_survived(
            counts in any::<[u8; 3]>().prop_map(|counts| counts.map(|count| count % 4)),
            types in prop::collection::vec((0u8..20, any::<u32>(), prop::collection::vec(any::<u8>(), 0..30)), 0..6),
            damage in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
            limit in 512usize..700,
            age in any::<u32>(),
        ) {
            let records: Vec<u8> =
                types.iter().flat_map(|(rtype, ttl, data)| record(*rtype, *ttl, data)).collect();
            let mut bytes = message(counts, &records);
            if let Some((at, value)) = damage {
                let at = QUESTION.len() + 12 + at.index(bytes.len());
                if let Some(byte) = bytes.get_mut(at) { *byte = value }
            }
            if let Some(relay) = Relay::new(&bytes, QUESTION.len()) {
                let reply = relay.reply(&foreign(limit), age);
                prop_assert!(reply.len() <= limit);
                prop_assert_eq!(&reply[12..12 + QUESTION.len()], QUESTION);
                // Data of a type may be nonsense to the other parser; then only the frame counts.
                if let Ok(read) = Message::from_vec(&reply) {
                    prop_assert_eq!(read.metadata.id, 7);
                    prop_assert!(read.edns.is_some() && read.additionals.is_empty());
                    prop_assert!(read.answers.iter().all(|record| record.ttl <= CACHE_TTL));
                }
            }
        }
    }
}
