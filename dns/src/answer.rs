//! From the bytes of a query to the bytes of a reply, with no socket in sight. The server calls
//! this for every message; what it cannot answer comes back as a [`Foreign`] question.

use std::net::IpAddr;

use rand::{Rng, RngExt};

use crate::asker::Asker;
use crate::limits::{LOCAL_TTL, TCP_MAX, UDP_MIN};
use crate::resolve::{Question, Resolution, resolve};
use crate::wire::query::{self, Edns, Query};
use crate::wire::reply::{self, Reply};
use crate::wire::{Rcode, rtype};
use crate::zone::Zones;

/// Data of the HINFO record that answers ANY: two strings, the second empty (RFC 8482).
const MINIMAL: &[u8] = b"\x07RFC8482\x00";

/// How the query came, which bounds the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
}

impl Transport {
    /// The most bytes a reply to this client may have.
    pub fn limit(self, edns: Option<Edns>) -> usize {
        match self {
            Self::Udp => edns.map_or(UDP_MIN, |edns| edns.size),
            Self::Tcp => TCP_MAX,
        }
    }
}

/// What to do with a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The reply is in the buffer.
    Reply,
    /// Send nothing.
    Silence,
    /// Ask an upstream server.
    Forward(Foreign),
}

/// A question for an upstream server, and what is needed to reply to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    pub id: u16,
    pub flags: u16,
    /// Name, type and class in the client's case.
    pub question: Vec<u8>,
    pub edns: Option<Edns>,
    /// The most bytes the client takes.
    pub limit: usize,
}

impl Foreign {
    fn new(query: &Query<'_>, limit: usize) -> Self {
        let question = query.question.to_vec();
        Self { id: query.id, flags: query.flags, question, edns: query.edns, limit }
    }

    /// A reply without records: refused, or nobody answered.
    pub fn reply(&self, rcode: Rcode) -> Vec<u8> {
        let mut out = Vec::new();
        let query = Query {
            id: self.id,
            flags: self.flags,
            question: &self.question,
            name: String::new(),
            rtype: 0,
            class: 0,
            edns: self.edns,
        };
        Reply::new(&query, rcode, self.limit, &mut out).finish();
        out
    }
}

/// Answers one message into `out`, which is overwritten.
pub fn answer(
    zones: &Zones,
    asker: &Asker,
    message: &[u8],
    transport: Transport,
    rng: &mut impl Rng,
    out: &mut Vec<u8>,
) -> Answer {
    let query = match query::parse(message) {
        Ok(query) => query,
        Err(error) => {
            return if reply::reject(error, out) { Answer::Reply } else { Answer::Silence };
        }
    };
    let limit = transport.limit(query.edns);
    let question = Question { name: &query.name, rtype: query.rtype, class: query.class };
    let resolution = resolve(zones, asker, &question);
    if resolution == Resolution::Forward {
        return Answer::Forward(Foreign::new(&query, limit));
    }
    let mut reply = Reply::new(&query, rcode(&resolution), limit, out);
    match resolution {
        Resolution::V4(all) => addresses(&mut reply, all, rng),
        Resolution::V6(all) => addresses(&mut reply, all, rng),
        Resolution::Pointer(name) => reply.record(rtype::PTR, LOCAL_TTL, name),
        Resolution::Minimal => reply.record(rtype::HINFO, LOCAL_TTL, MINIMAL),
        Resolution::NoData
        | Resolution::NxDomain
        | Resolution::Forward
        | Resolution::Refuse
        | Resolution::ServFail => {}
    }
    reply.finish();
    Answer::Reply
}

fn rcode(resolution: &Resolution<'_>) -> Rcode {
    match resolution {
        Resolution::NxDomain => Rcode::NxDomain,
        Resolution::Refuse => Rcode::Refused,
        Resolution::ServFail | Resolution::Forward => Rcode::ServFail,
        Resolution::V4(_)
        | Resolution::V6(_)
        | Resolution::Pointer(_)
        | Resolution::Minimal
        | Resolution::NoData => Rcode::NoError,
    }
}

/// Writes the addresses in random order; if not all fit, a random choice of them, so that load
/// is spread over all also among clients that never ask again over TCP.
fn addresses<A: Copy + Into<IpAddr>>(reply: &mut Reply<'_>, all: &[A], rng: &mut impl Rng) {
    let size = match all.first().map(|&first| first.into()) {
        Some(IpAddr::V4(_)) => 4,
        Some(IpAddr::V6(_)) => 16,
        None => return,
    };
    let fits = reply.room(size).min(all.len());
    if fits < all.len() {
        reply.truncated();
    }
    let mut order = all.to_vec();
    // The first `fits` steps of a Fisher-Yates shuffle: a random subset in random order.
    for at in 0..fits {
        let other = rng.random_range(at..order.len());
        order.swap(at, other);
        match order[at].into() {
            IpAddr::V4(v4) => reply.record(rtype::A, LOCAL_TTL, &v4.octets()),
            IpAddr::V6(v6) => reply.record(rtype::AAAA, LOCAL_TTL, &v6.octets()),
        }
    }
}
