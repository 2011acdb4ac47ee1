//! Many changes to tables and elements, all or nothing.

use std::io;

use super::compile::Skeletons;
use super::{element, family, foreign, ruleset};
use crate::kernel::KernelError;
use crate::kernel::socket::Socket;
use crate::kernel::uapi::*;
use crate::kernel::wire::Message;
use crate::op::{Op, Verb};
use crate::plane::{Element, Object};

/// Executes nftables operations of one namespace in one transaction; if that fails, each by itself, so that
/// one bad element does not keep out the good ones.
pub(crate) fn execute(
    socket: &mut Socket,
    skeletons: &Skeletons,
    ops: &[&Op],
) -> Vec<Result<(), KernelError>> {
    let whole = commit(socket, skeletons, ops);
    if whole.is_ok() || ops.len() == 1 {
        return vec![whole; ops.len()];
    }
    ops.iter().map(|op| commit(socket, skeletons, &[op])).collect()
}

fn commit(socket: &mut Socket, skeletons: &Skeletons, ops: &[&Op]) -> Result<(), KernelError> {
    let mut messages = vec![batch(NFNL_MSG_BATCH_BEGIN)];
    let mut rest = ops;
    while let Some((first, after)) = rest.split_first() {
        rest = match &first.object {
            Object::Element(kind) => {
                let same = |op: &&&Op| match &op.object {
                    Object::Element(other) => other.set == kind.set && op.verb == first.verb,
                    _ => false,
                };
                let count = rest.iter().take_while(same).count();
                messages.extend(elements(first, &rest[..count]));
                &rest[count..]
            }
            _ => {
                messages.extend(rules(first, socket, skeletons)?);
                after
            }
        };
    }
    messages.push(batch(NFNL_MSG_BATCH_END));
    let fail = |error: io::Error| KernelError::io("nftables transaction", &error);
    let errors = socket.transact(messages).map_err(fail)?;
    match errors.first() {
        None => Ok(()),
        Some((index, errno)) => {
            Err(KernelError::errno(format!("nftables transaction, message {index}"), *errno))
        }
    }
}

fn elements(first: &Op, run: &[&Op]) -> Vec<Message> {
    let kind = match first.verb {
        Verb::Remove => NFT_MSG_DELSETELEM,
        Verb::Add | Verb::AddPair { .. } | Verb::Change => NFT_MSG_NEWSETELEM,
    };
    let list: Vec<&Element> = run
        .iter()
        .filter_map(|op| match &op.object {
            Object::Element(element) => Some(element),
            _ => None,
        })
        .collect();
    list.first().map_or_else(Vec::new, |element| element::change(kind, element.set, &list))
}

fn rules(op: &Op, socket: &mut Socket, skeletons: &Skeletons) -> Result<Vec<Message>, KernelError> {
    let senseless = || KernelError::Senseless { op: op.to_string() };
    match (&op.object, &op.verb) {
        (Object::Table(table, _), verb) => {
            let skeleton = skeletons.get(table).ok_or_else(senseless)?;
            let found = ruleset::dump(socket, family(*table))?;
            match verb {
                Verb::Remove => Ok(ruleset::remove(*table, skeleton, found.as_ref())),
                Verb::Add | Verb::Change => Ok(ruleset::install(*table, skeleton, found.as_ref())),
                Verb::AddPair { .. } => Err(senseless()),
            }
        }
        (Object::Passage(family), Verb::Remove) => {
            let tables = foreign::look(socket)?.tables[foreign::index(*family)];
            let found = foreign::find(socket, skeletons, *family, tables)?;
            Ok(found.map(|found| foreign::remove(&found, *family)).into_iter().collect())
        }
        (Object::Passage(family), Verb::Add | Verb::Change) => {
            let tables = foreign::look(socket)?.tables[foreign::index(*family)];
            Ok(vec![foreign::insert(skeletons, *family, tables).ok_or_else(senseless)?])
        }
        _ => Err(senseless()),
    }
}

/// The brackets of a transaction; they name the subsystem in network order (nfnetlink.h, `res_id`).
fn batch(kind: u16) -> Message {
    let [high, low] = NFNL_SUBSYS_NFTABLES.to_be_bytes();
    Message::new(kind, NLM_F_REQUEST, &[0, 0, high, low])
}
