//! Other people's forward chains: seen, and where there is a place for it, asked to let ours pass.

use super::compile::Skeletons;
use super::ruleset::{self, Attributes};
use super::{FIXED, NAME, message};
use crate::kernel::KernelError;
use crate::kernel::socket::Socket;
use crate::kernel::uapi::*;
use crate::kernel::wire::{Message, attribute, get_text, get_u32};
use crate::plane::{Family, Table};

/// The table that iptables has its filters in.
const TABLE: &str = "filter";
/// Where Docker promises to leave its users' rules alone. Ours is the first there.
const DOCKER: &str = "DOCKER-USER";
/// The chain of iptables itself. Where it drops what nobody has decided on, ours is the last there.
const FORWARD: &str = "FORWARD";
/// The chain of our own table that holds the rule to be put there.
const PATTERN: &str = "passage";

/// What others do to forwarded packets.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Foreign {
    /// Somebody hooks them.
    pub(crate) forward: bool,
    /// What iptables has, for IPv4 and IPv6.
    pub(crate) tables: [Iptables; 2],
    /// Somebody else drops them by default, where an accept of iptables' does not help.
    pub(crate) drop: bool,
}

/// The chains of iptables of one family.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Iptables {
    /// `DOCKER-USER` exists.
    docker: bool,
    /// `FORWARD` exists.
    forward: bool,
    /// It drops by default.
    drops: bool,
}

impl Iptables {
    /// Where our rule belongs.
    fn place(self) -> Option<&'static str> {
        match self {
            Self { docker: true, .. } => Some(DOCKER),
            Self { drops: true, .. } => Some(FORWARD),
            Self { .. } => None,
        }
    }

    /// Whether our rule has a place.
    pub(crate) fn has_place(self) -> bool {
        self.place().is_some()
    }

    /// Where our rule may be, now or from before.
    fn chains(self) -> impl Iterator<Item = &'static str> {
        [(self.docker, DOCKER), (self.forward, FORWARD)]
            .into_iter()
            .filter_map(|(there, chain)| there.then_some(chain))
    }
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
        let name = get(NFTA_CHAIN_NAME).map(get_text).unwrap_or_default();
        let iptables = table == TABLE && family != NFPROTO_INET;
        let drops = forward && policy == Some(NF_DROP);
        for (index, concerned) in which.into_iter().enumerate() {
            let foreign = concerned && forward && table != NAME;
            seen.forward |= foreign;
            let tables = &mut seen.tables[index];
            match name.as_str() {
                DOCKER if concerned && iptables => tables.docker = true,
                FORWARD if concerned && iptables && forward => {
                    (tables.forward, tables.drops) = (true, drops);
                }
                _ => seen.drop |= foreign && drops,
            }
        }
    })?;
    Ok(seen)
}

/// The forward chains of others that drop by default and do not let pass what ours has marked, as `family
/// table chain`. Those of iptables are among them: our rule makes an exception there while the daemon runs.
pub(crate) fn dropping(
    socket: &mut Socket,
    skeletons: &Skeletons,
) -> Result<Vec<String>, KernelError> {
    let question = message(NFT_MSG_GETCHAIN, NLM_F_REQUEST | NLM_F_DUMP, 0);
    let chains = socket.dump("nftables chains", &question, |message, chains| {
        let family = message.body.first().copied().unwrap_or_default();
        let get = |kind| attribute(message.body, FIXED, kind);
        let hook = get(NFTA_CHAIN_HOOK).and_then(|hook| attribute(hook, 0, NFTA_HOOK_HOOKNUM));
        let number = |value: Option<&[u8]>| value.and_then(|v| get_u32(v, 0)).map(u32::from_be);
        let text = |kind| get(kind).map(get_text).unwrap_or_default();
        let (table, chain) = (text(NFTA_CHAIN_TABLE), text(NFTA_CHAIN_NAME));
        let drops = number(hook) == Some(NF_INET_FORWARD)
            && number(get(NFTA_CHAIN_POLICY)) == Some(NF_DROP);
        if drops && table != NAME {
            chains.push((family, table, chain));
        }
    })?;
    let mut names = Vec::new();
    for (family, table, chain) in chains {
        let word = match family {
            NFPROTO_IPV4 => "ip",
            NFPROTO_IPV6 => "ip6",
            NFPROTO_INET => "inet",
            _ => continue,
        };
        if !lets_ours_pass(socket, skeletons, family, &table, &chain)? {
            names.push(format!("{word} {table} {chain}"));
        }
    }
    Ok(names)
}

/// Whether a chain has a rule that does what ours does.
fn lets_ours_pass(
    socket: &mut Socket,
    skeletons: &Skeletons,
    family: u8,
    table: &str,
    chain: &str,
) -> Result<bool, KernelError> {
    let mut question = message(NFT_MSG_GETRULE, NLM_F_REQUEST | NLM_F_DUMP, family);
    question.text(NFTA_RULE_TABLE, table).text(NFTA_RULE_CHAIN, chain);
    let pattern = pattern(skeletons).into_iter().flatten();
    let wanted = pattern.into_iter().find(|(kind, _)| *kind == NFTA_RULE_EXPRESSIONS);
    let found = socket.dump("rules of others", &question, |message, rows| {
        let get = |kind| attribute(message.body, FIXED, kind);
        let in_chain = get(NFTA_RULE_CHAIN).map(get_text).as_deref() == Some(chain);
        let same = get(NFTA_RULE_EXPRESSIONS) == wanted.map(|(_, value)| &value[..]);
        rows.extend((in_chain && same && wanted.is_some()).then_some(()));
    })?;
    Ok(!found.is_empty())
}

/// Where one of our rules is in the tables of others.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    chain: &'static str,
    handle: Vec<u8>,
}

/// Our rule in the chains of iptables.
pub(crate) fn find(
    socket: &mut Socket,
    skeletons: &Skeletons,
    family: Family,
    tables: Iptables,
) -> Result<Option<Found>, KernelError> {
    for chain in tables.chains() {
        if let Some(handle) = find_in(socket, skeletons, family, chain)? {
            return Ok(Some(Found { chain, handle }));
        }
    }
    Ok(None)
}

fn find_in(
    socket: &mut Socket,
    skeletons: &Skeletons,
    family: Family,
    chain: &str,
) -> Result<Option<Vec<u8>>, KernelError> {
    let Some(pattern) = pattern(skeletons) else { return Ok(None) };
    let wanted = |kind: u16| pattern.iter().find(|(k, _)| *k == kind).map(|(_, value)| &value[..]);
    let mut question = message(NFT_MSG_GETRULE, NLM_F_REQUEST | NLM_F_DUMP, protocol(family));
    question.text(NFTA_RULE_TABLE, TABLE).text(NFTA_RULE_CHAIN, chain);
    let found = socket.dump("rules of iptables", &question, |message, rows| {
        let get = |kind| attribute(message.body, FIXED, kind);
        let in_chain = get(NFTA_RULE_CHAIN).map(get_text).as_deref() == Some(chain);
        let same =
            [NFTA_RULE_EXPRESSIONS, NFTA_RULE_USERDATA].iter().all(|k| get(*k) == wanted(*k));
        if in_chain && same {
            rows.extend(get(NFTA_RULE_HANDLE).map(<[u8]>::to_vec));
        }
    })?;
    Ok(found.into_iter().next())
}

/// Puts our rule where it belongs: before Docker's own in its users' chain; behind everybody's in
/// `FORWARD`, so that what others refuse there stays refused.
pub(crate) fn insert(skeletons: &Skeletons, family: Family, tables: Iptables) -> Option<Message> {
    let chain = tables.place()?;
    let last = if chain == FORWARD { NLM_F_APPEND } else { 0 };
    let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | last;
    let mut insert = message(NFT_MSG_NEWRULE, flags, protocol(family));
    insert.text(NFTA_RULE_TABLE, TABLE).text(NFTA_RULE_CHAIN, chain);
    for (kind, value) in pattern(skeletons)? {
        match *kind {
            NFTA_RULE_EXPRESSIONS => ruleset::write_expressions(&mut insert, value),
            NFTA_RULE_USERDATA => drop(insert.put(*kind, value)),
            _ => {}
        }
    }
    Some(insert)
}

/// Removes our rule.
pub(crate) fn remove(found: &Found, family: Family) -> Message {
    let mut remove = message(NFT_MSG_DELRULE, NLM_F_REQUEST | NLM_F_ACK, protocol(family));
    remove.text(NFTA_RULE_TABLE, TABLE).text(NFTA_RULE_CHAIN, found.chain);
    remove.put(NFTA_RULE_HANDLE, &found.handle);
    remove
}

fn pattern(skeletons: &Skeletons) -> Option<&Attributes> {
    skeletons.get(&Table::Host)?.rule_of(PATTERN)
}

/// The place of a family among those of [`Foreign::tables`].
pub(crate) fn index(family: Family) -> usize {
    match family {
        Family::V4 => 0,
        Family::V6 => 1,
    }
}
