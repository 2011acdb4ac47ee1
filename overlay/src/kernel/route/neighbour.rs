//! Rows of forwarding databases, and permanent neighbours.

use super::Indexes;
use crate::kernel::KernelError;
use crate::kernel::socket::Socket;
use crate::kernel::uapi::*;
use crate::kernel::wire::{
    Message, Received, attribute, family_byte, get_ip, get_u16, get_u32, ip_bytes,
};
use crate::names::Mac;
use crate::plane::{Fdb, Object, Objects, put};
use std::net::IpAddr;

/// Length of `struct ndmsg`.
const FIXED: usize = 12;
const BRIDGE: u8 = libc::AF_BRIDGE as u8;

struct Row<'a> {
    link: &'a str,
    state: u16,
    flags: u8,
    mac: Option<Mac>,
    dst: Option<IpAddr>,
    master: Option<u32>,
}

fn parse<'a>(message: &Received<'_>, ours: &'a Indexes) -> Option<Row<'a>> {
    let body = message.body;
    let mac = attribute(body, FIXED, NDA_LLADDR).and_then(|value| value.try_into().ok());
    Some(Row {
        link: ours.name(get_u32(body, 4)?)?,
        state: get_u16(body, 8)?,
        flags: *body.get(10)?,
        mac: mac.map(Mac),
        dst: attribute(body, FIXED, NDA_DST).and_then(get_ip),
        master: attribute(body, FIXED, NDA_MASTER).and_then(|value| get_u32(value, 0)),
    })
}

fn question(family: u8) -> Message {
    let mut fixed = [0; FIXED];
    fixed[0] = family;
    Message::new(RTM_GETNEIGH, NLM_F_REQUEST | NLM_F_DUMP, &fixed)
}

/// The forwarding rows on our links.
pub(crate) fn forwarding(
    socket: &mut Socket,
    ours: &Indexes,
    objects: &mut Objects,
) -> Result<(), KernelError> {
    let rows = socket.dump("forwarding rows", &question(BRIDGE), |message, rows| {
        if message.kind == RTM_NEWNEIGH
            && let Some(row) = parse(message, ours)
        {
            rows.extend(forwarding_row(&row, ours));
        }
    })?;
    rows.into_iter().for_each(|row| put(objects, Object::Fdb(row)));
    Ok(())
}

fn forwarding_row(row: &Row<'_>, ours: &Indexes) -> Option<Fdb> {
    let (mac, link) = (row.mac?, row.link.to_owned());
    if row.flags & NTF_SELF != 0 {
        // Every device lists its own multicast addresses here; only a VXLAN row has an endpoint.
        let dst = row.dst?;
        return Some(if mac == Mac::default() {
            Fdb::Copy { link, dst }
        } else {
            Fdb::Tunnel { link, mac, dst }
        });
    }
    // Permanent rows are the bridge's and ports' own addresses, made by the kernel.
    if row.state & NUD_PERMANENT != 0 {
        return None;
    }
    let bridge = ours.name(row.master?)?.to_owned();
    Some(Fdb::Behind { bridge, port: link, mac, learned: row.state & NUD_NOARP == 0 })
}

/// The permanent neighbours on our links.
pub(crate) fn neighbours(
    socket: &mut Socket,
    ours: &Indexes,
    objects: &mut Objects,
) -> Result<(), KernelError> {
    let rows = socket.dump("neighbours", &question(0), |message, rows| {
        if message.kind == RTM_NEWNEIGH
            && message.body.first() != Some(&BRIDGE)
            && let Some(row) = parse(message, ours)
            && row.state & NUD_PERMANENT != 0
            && let (Some(mac), Some(address)) = (row.mac, row.dst)
        {
            rows.push(Object::Neighbour { link: row.link.to_owned(), address, mac });
        }
    })?;
    rows.into_iter().for_each(|row| put(objects, row));
    Ok(())
}

/// How a row is written: copies are appended, everything else takes the place of what had its key.
pub(crate) fn write_row(row: &Fdb, indexes: &Indexes) -> Result<Message, KernelError> {
    let mode = match row {
        Fdb::Copy { .. } => NLM_F_CREATE | NLM_F_APPEND,
        Fdb::Tunnel { .. } | Fdb::Behind { .. } => NLM_F_CREATE | NLM_F_REPLACE,
    };
    row_message(RTM_NEWNEIGH, mode, row, indexes)
}

pub(crate) fn delete_row(row: &Fdb, indexes: &Indexes) -> Result<Message, KernelError> {
    row_message(RTM_DELNEIGH, 0, row, indexes)
}

fn row_message(kind: u16, mode: u16, row: &Fdb, indexes: &Indexes) -> Result<Message, KernelError> {
    let (link, mac, dst) = match row {
        Fdb::Tunnel { link, mac, dst } => (link, *mac, Some(*dst)),
        Fdb::Copy { link, dst } => (link, Mac::default(), Some(*dst)),
        Fdb::Behind { port, mac, .. } => (port, *mac, None),
    };
    let (state, flags) = match dst {
        Some(_) => (NUD_PERMANENT, NTF_SELF),
        None => (NUD_NOARP, NTF_MASTER),
    };
    let fixed = fixed(BRIDGE, indexes.need(link)?, state, flags);
    let mut message = Message::new(kind, NLM_F_REQUEST | NLM_F_ACK | mode, &fixed);
    message.put(NDA_LLADDR, &mac.0);
    if let Some(dst) = dst {
        message.put(NDA_DST, &ip_bytes(dst));
    }
    Ok(message)
}

fn fixed(family: u8, index: u32, state: u16, flags: u8) -> Vec<u8> {
    let mut fixed = vec![family, 0, 0, 0];
    fixed.extend(index.to_ne_bytes());
    fixed.extend(state.to_ne_bytes());
    fixed.extend([flags, 0]);
    fixed
}

pub(crate) fn add(index: u32, address: IpAddr, mac: Mac) -> Message {
    let fixed = fixed(family_byte(address), index, NUD_PERMANENT, 0);
    let mode = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
    let mut message = Message::new(RTM_NEWNEIGH, mode, &fixed);
    message.put(NDA_DST, &ip_bytes(address)).put(NDA_LLADDR, &mac.0);
    message
}

pub(crate) fn delete(index: u32, address: IpAddr) -> Message {
    let fixed = fixed(family_byte(address), index, 0, 0);
    let mut message = Message::new(RTM_DELNEIGH, NLM_F_REQUEST | NLM_F_ACK, &fixed);
    message.put(NDA_DST, &ip_bytes(address));
    message
}
