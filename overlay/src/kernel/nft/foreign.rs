//! Other people's forward chains: seen, and where Docker offers a place for it, asked to let ours pass.

use super::compile::Skeletons;
use super::ruleset::{self, Attributes};
use super::{FIXED, NAME, message};
use crate::kernel::KernelError;
use crate::kernel::socket::Socket;
use crate::kernel::uapi::*;
use crate::kernel::wire::{Message, attribute, get_text, get_u32};
use crate::plane::{Family, Table};

/// Where Docker promises to leave its users' rules alone.
const TABLE: &str = "filter";
const CHAIN: &str = "DOCKER-USER";
/// The chain of our own table that holds the rule to be put there.
const PATTERN: &str = "passage";

/// What others do to forwarded packets.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Foreign {
    /// Somebody hooks them.
    pub(crate) forward: bool,
    /// `DOCKER-USER` exists, for IPv4 and IPv6.
    pub(crate) docker: [bool; 2],
    /// Somebody drops them by default, for IPv4 and IPv6.
    pub(crate) drop: [bool; 2],
}

fn protocol(family: Family) -> u8 {
    match family {
        Family::V4 => NFPROTO_IPV4,
        Family::V6 => NFPROTO_IPV6,
    }
}

/// Looks at all chains of the namespace.
pub(crate) fn look(socket: &mut Socket) -> Result<Foreign, KernelError> {
    let question = message(NFT_MSG_GETCHAIN, NLM_F_REQUEST | NLM_F_DUMP, 0);
    let mut seen = Foreign::default();
    socket.dump::<()>("nftables chains", &question, |message, _| {
        let Some(family) = message.body.first().copied() else { return };
        let get = |kind| attribute(message.body, FIXED, kind);
        let table = get(NFTA_CHAIN_TABLE).map(get_text).unwrap_or_default();
        // Which of IPv4 and IPv6 it concerns; bridge and netdev tables see frames by themselves.
        let which = [
            [NFPROTO_IPV4, NFPROTO_INET].contains(&family),
            [NFPROTO_IPV6, NFPROTO_INET].contains(&family),
        ];
        let hook = get(NFTA_CHAIN_HOOK).and_then(|hook| attribute(hook, 0, NFTA_HOOK_HOOKNUM));
        let forward =
            hook.and_then(|hook| get_u32(hook, 0)).map(u32::from_be) == Some(NF_INET_FORWARD);
        let policy = get(NFTA_CHAIN_POLICY).and_then(|policy| get_u32(policy, 0)).map(u32::from_be);
        let docker = get(NFTA_CHAIN_NAME).map(get_text).as_deref() == Some(CHAIN) && table == TABLE;
        for (index, concerned) in which.into_iter().enumerate() {
            let foreign = concerned && forward && table != NAME;
            seen.forward |= foreign;
            seen.drop[index] |= foreign && policy == Some(NF_DROP);
            seen.docker[index] |= concerned && docker && family != NFPROTO_INET;
        }
    })?;
    Ok(seen)
}

/// The handle of our rule in Docker's chain.
pub(crate) fn find(
    socket: &mut Socket,
    skeletons: &Skeletons,
    family: Family,
) -> Result<Option<Vec<u8>>, KernelError> {
    let Some(pattern) = pattern(skeletons) else { return Ok(None) };
    let wanted = |kind: u16| pattern.iter().find(|(k, _)| *k == kind).map(|(_, value)| &value[..]);
    let mut question = message(NFT_MSG_GETRULE, NLM_F_REQUEST | NLM_F_DUMP, protocol(family));
    question.text(NFTA_RULE_TABLE, TABLE).text(NFTA_RULE_CHAIN, CHAIN);
    let found = socket.dump("DOCKER-USER", &question, |message, rows| {
        let get = |kind| attribute(message.body, FIXED, kind);
        let in_chain = get(NFTA_RULE_CHAIN).map(get_text).as_deref() == Some(CHAIN);
        let same =
            [NFTA_RULE_EXPRESSIONS, NFTA_RULE_USERDATA].iter().all(|k| get(*k) == wanted(*k));
        if in_chain && same {
            rows.extend(get(NFTA_RULE_HANDLE).map(<[u8]>::to_vec));
        }
    })?;
    Ok(found.into_iter().next())
}

/// Puts our rule first in Docker's chain.
pub(crate) fn insert(skeletons: &Skeletons, family: Family) -> Option<Message> {
    let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE;
    let mut insert = message(NFT_MSG_NEWRULE, flags, protocol(family));
    insert.text(NFTA_RULE_TABLE, TABLE).text(NFTA_RULE_CHAIN, CHAIN);
    for (kind, value) in pattern(skeletons)? {
        match *kind {
            NFTA_RULE_EXPRESSIONS => ruleset::write_expressions(&mut insert, value),
            NFTA_RULE_USERDATA => drop(insert.put(*kind, value)),
            _ => {}
        }
    }
    Some(insert)
}

/// Removes our rule from Docker's chain.
pub(crate) fn remove(handle: &[u8], family: Family) -> Message {
    let mut remove = message(NFT_MSG_DELRULE, NLM_F_REQUEST | NLM_F_ACK, protocol(family));
    remove.text(NFTA_RULE_TABLE, TABLE).text(NFTA_RULE_CHAIN, CHAIN).put(NFTA_RULE_HANDLE, handle);
    remove
}

fn pattern(skeletons: &Skeletons) -> Option<&Attributes> {
    skeletons.get(&Table::Host)?.rule_of(PATTERN)
}
