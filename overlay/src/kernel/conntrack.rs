//! Connections the kernel remembers, and how to make it forget some.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::KernelError;
use super::socket::Socket;
use super::uapi::*;
use super::wire::{Message, attribute, family_byte, get_ip, get_u32};
use crate::dataplane::Protocol;

/// Length of `struct nfgenmsg`.
const FIXED: usize = 4;

/// Which connections are to be forgotten.
#[derive(Debug, Default)]
pub(crate) struct Departed {
    /// Those made to a VIP and answered by this backend, whatever their protocol.
    pub(crate) backends: Vec<(IpAddr, IpAddr)>,
    /// UDP to this port of the host at this address, or, if it is the unspecified one, at any of `own`.
    pub(crate) bindings: Vec<(IpAddr, u16)>,
    /// The host's addresses. What passes through to the same port of somebody else is not ours to forget.
    pub(crate) own: BTreeSet<IpAddr>,
}

impl Departed {
    fn contains(&self, destination: IpAddr, answers: IpAddr, original: &[u8]) -> bool {
        let bound = |(host, port): &(IpAddr, u16)| {
            let address = *host == destination
                || host.is_unspecified() && host.is_ipv4() == destination.is_ipv4();
            address && self.own.contains(&destination) && udp_port(original) == Some(*port)
        };
        self.backends.contains(&(destination, answers)) || self.bindings.iter().any(bound)
    }
}

/// The destination port of a UDP tuple.
fn udp_port(tuple: &[u8]) -> Option<u16> {
    let protocol = attribute(tuple, 0, CTA_TUPLE_PROTO)?;
    let number = attribute(protocol, 0, CTA_PROTO_NUM)?;
    let port = attribute(protocol, 0, CTA_PROTO_DST_PORT)?;
    (number == [Protocol::Udp.number()]).then(|| port.try_into().ok().map(u16::from_be_bytes))?
}

/// Forgets connections: the next packet of each chooses again. One that is already gone is no error.
///
/// One dump serves all: the kernel walks the whole machine's table for each (about 10 ms for 256 Ki
/// buckets), so it is not even asked in a namespace without connections.
pub(crate) fn forget(socket: &mut Socket, departed: &Departed) -> Result<(), KernelError> {
    if count(socket)? == Some(0) {
        return Ok(());
    }
    let question = Message::new(kind(IPCTNL_MSG_CT_GET), NLM_F_REQUEST | NLM_F_DUMP, &[0; FIXED]);
    let found = socket.dump("conntrack", &question, |message, rows| {
        let tuple = |which| attribute(message.body, FIXED, which);
        let vip = tuple(CTA_TUPLE_ORIG).and_then(|tuple| end(tuple, End::Destination));
        let backend = tuple(CTA_TUPLE_REPLY).and_then(|tuple| end(tuple, End::Source));
        if let (Some(vip), Some(backend), Some(tuple)) = (vip, backend, tuple(CTA_TUPLE_ORIG))
            && departed.contains(vip, backend, tuple)
        {
            rows.push((family_byte(vip), tuple.to_vec(), tuple_id(message.body)));
        }
    })?;
    let deletions = found.into_iter().map(|(family, tuple, id)| {
        let flags = NLM_F_REQUEST | NLM_F_ACK;
        let mut message = Message::new(kind(IPCTNL_MSG_CT_DELETE), flags, &[family, 0, 0, 0]);
        message.put(CTA_TUPLE_ORIG | NLA_F_NESTED, &tuple);
        if let Some(id) = id {
            message.put(CTA_ID, &id);
        }
        message
    });
    let answers = socket.request(deletions.collect());
    let answers = answers.map_err(|error| KernelError::io("conntrack deletion", &error))?;
    let failed = answers.into_iter().filter_map(Result::err).find(|errno| *errno != libc::ENOENT);
    failed.map_or(Ok(()), |errno| Err(KernelError::errno("conntrack deletion", errno)))
}

fn kind(message: u16) -> u16 {
    NFNL_SUBSYS_CTNETLINK << 8 | message
}

/// How many connections the namespace has, where the kernel says.
fn count(socket: &mut Socket) -> Result<Option<u32>, KernelError> {
    let flags = NLM_F_REQUEST | NLM_F_ACK;
    let question = Message::new(kind(IPCTNL_MSG_CT_GET_STATS), flags, &[0; FIXED]);
    let mut entries = None;
    socket.ask("conntrack count", question, |message| {
        let value = attribute(message.body, FIXED, CTA_STATS_GLOBAL_ENTRIES);
        entries = value.and_then(|value| get_u32(value, 0)).map(u32::from_be);
    })?;
    Ok(entries)
}

/// The entry's id: a new connection with the same ports is not the one that was seen.
fn tuple_id(body: &[u8]) -> Option<Vec<u8>> {
    attribute(body, FIXED, CTA_ID).map(<[u8]>::to_vec)
}

enum End {
    Source,
    Destination,
}

fn end(tuple: &[u8], end: End) -> Option<IpAddr> {
    let ip = attribute(tuple, 0, CTA_TUPLE_IP)?;
    let (v4, v6) = match end {
        End::Source => (CTA_IP_V4_SRC, CTA_IP_V6_SRC),
        End::Destination => (CTA_IP_V4_DST, CTA_IP_V6_DST),
    };
    attribute(ip, 0, v4).or(attribute(ip, 0, v6)).and_then(get_ip)
}
