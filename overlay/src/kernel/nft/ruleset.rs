//! A table as the kernel tells it: chains, sets and rules without what differs from load to load.
//!
//! One chain of the host's table is the administrator's ([`USER_CHAIN`]). Its rules, and the sets and chains
//! that he made for them, are no part of ours: they are not compared, and outlive every rewriting.

use std::collections::{BTreeMap, BTreeSet};

use super::{FIXED, NAME, family, message};
use crate::kernel::KernelError;
use crate::kernel::socket::Socket;
use crate::kernel::uapi::*;
use crate::kernel::wire::{Message, attribute, attributes, get_text};
use crate::plane::Table;

/// One message's worth: a chain, a set or a rule, as attributes.
pub(crate) type Attributes = Vec<(u16, Vec<u8>)>;

/// The administrator's chain.
pub(crate) const USER_CHAIN: &str = "weft-user";

/// What a table consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ruleset {
    flags: Vec<u8>,
    chains: BTreeMap<String, Attributes>,
    sets: BTreeMap<String, Attributes>,
    /// Names of counters; what they have counted stays as it is.
    counters: BTreeSet<String>,
    /// Rules by chain, in their order.
    rules: BTreeMap<String, Vec<Attributes>>,
}

/// What we write of a chain; handles and use counts are the kernel's.
const CHAIN: &[u16] =
    &[NFTA_CHAIN_TABLE, NFTA_CHAIN_NAME, NFTA_CHAIN_HOOK, NFTA_CHAIN_POLICY, NFTA_CHAIN_TYPE];
/// What we write of a set.
const SET: &[u16] = &[
    NFTA_SET_TABLE,
    NFTA_SET_NAME,
    NFTA_SET_FLAGS,
    NFTA_SET_KEY_TYPE,
    NFTA_SET_KEY_LEN,
    NFTA_SET_DATA_TYPE,
    NFTA_SET_DATA_LEN,
    NFTA_SET_USERDATA,
];
/// What we write of a rule.
const RULE: &[u16] = &[NFTA_RULE_TABLE, NFTA_RULE_CHAIN, NFTA_RULE_EXPRESSIONS, NFTA_RULE_USERDATA];

/// Reads our table of a family, if there is one.
pub(crate) fn dump(socket: &mut Socket, family: u8) -> Result<Option<Ruleset>, KernelError> {
    let Some(flags) = table_flags(socket, family)? else { return Ok(None) };
    let mut part = |what, get, keep: &[u16]| {
        let question = message(get, NLM_F_REQUEST | NLM_F_DUMP, family);
        socket.dump(what, &question, |message, rows| {
            let named = attribute(message.body, FIXED, NFTA_CHAIN_TABLE).map(get_text);
            if named.as_deref() == Some(NAME) && message.body.first() == Some(&family) {
                let all = attributes(message.body, FIXED).filter(|(kind, _)| keep.contains(kind));
                rows.push(all.map(|(kind, value)| (kind, value.to_vec())).collect());
            }
        })
    };
    let chains = named(part("nftables chains", NFT_MSG_GETCHAIN, CHAIN)?, NFTA_CHAIN_NAME);
    let sets = named(part("nftables sets", NFT_MSG_GETSET, SET)?, NFTA_SET_NAME);
    let mut rules: BTreeMap<String, Vec<Attributes>> = BTreeMap::new();
    for rule in part("nftables rules", NFT_MSG_GETRULE, RULE)? {
        rules.entry(text(&rule, NFTA_RULE_CHAIN)).or_default().push(rule);
    }
    let counters = counters(socket, family)?.into_keys().collect();
    Ok(Some(Ruleset { flags, chains, sets, counters, rules }))
}

/// The counters of our table of a family: packets by name.
pub(crate) fn counters(
    socket: &mut Socket,
    family: u8,
) -> Result<BTreeMap<String, u64>, KernelError> {
    let question = message(NFT_MSG_GETOBJ, NLM_F_REQUEST | NLM_F_DUMP, family);
    let found = socket.dump("nftables counters", &question, |message, rows| {
        let get = |kind| attribute(message.body, FIXED, kind);
        let ours = get(NFTA_OBJ_TABLE).map(get_text).as_deref() == Some(NAME)
            && message.body.first() == Some(&family);
        let number = |bytes: &[u8]| Some(u64::from_be_bytes(bytes.try_into().ok()?));
        let packets = get(NFTA_OBJ_DATA)
            .and_then(|data| attribute(data, 0, NFTA_COUNTER_PACKETS))
            .and_then(number);
        let name = get(NFTA_OBJ_NAME).map(get_text);
        let is_counter = get(NFTA_OBJ_TYPE) == Some(&NFT_OBJECT_COUNTER.to_be_bytes()[..]);
        rows.extend(name.zip(packets).filter(|_| ours && is_counter));
    })?;
    Ok(found.into_iter().collect())
}

/// Makes a counter, at zero.
fn new_counter(family: u8, name: &str) -> Message {
    let mut new = message(NFT_MSG_NEWOBJ, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE, family);
    new.text(NFTA_OBJ_TABLE, NAME)
        .text(NFTA_OBJ_NAME, name)
        .put(NFTA_OBJ_TYPE, &NFT_OBJECT_COUNTER.to_be_bytes())
        .nest(NFTA_OBJ_DATA, |data| {
            data.put(NFTA_COUNTER_BYTES, &[0; 8]).put(NFTA_COUNTER_PACKETS, &[0; 8]);
        });
    new
}

fn named(parts: Vec<Attributes>, name: u16) -> BTreeMap<String, Attributes> {
    parts.into_iter().map(|part| (text(&part, name), part)).collect()
}

fn text(attributes: &Attributes, wanted: u16) -> String {
    let found = attributes.iter().find(|(kind, _)| *kind == wanted);
    found.map(|(_, value)| get_text(value)).unwrap_or_default()
}

fn table_flags(socket: &mut Socket, family: u8) -> Result<Option<Vec<u8>>, KernelError> {
    let question = message(NFT_MSG_GETTABLE, NLM_F_REQUEST | NLM_F_DUMP, family);
    let found = socket.dump("nftables tables", &question, |message, rows| {
        let name = attribute(message.body, FIXED, NFTA_TABLE_NAME).map(get_text);
        if name.as_deref() == Some(NAME) && message.body.first() == Some(&family) {
            rows.push(attribute(message.body, FIXED, NFTA_TABLE_FLAGS).unwrap_or(&[]).to_vec());
        }
    })?;
    Ok(found.into_iter().next())
}

/// The messages that make a table what `ruleset` says, without elements, whatever there was.
pub(crate) fn install(table: Table, ruleset: &Ruleset, found: Option<&Ruleset>) -> Vec<Message> {
    let family = family(table);
    let mut messages = vec![new_table(family, ruleset)];
    let (mut chains, mut sets) = (ruleset.chains.clone(), ruleset.sets.clone());
    if let Some(found) = found {
        messages.extend(clear(family, ruleset, found));
        chains.retain(|name, chain| !kept(found.chains.get(name), name, chain));
        sets.retain(|name, set| found.sets.get(name) != Some(set));
    }
    for (set, id) in sets.values().zip(1u32..) {
        let mut new = item(family, NFT_MSG_NEWSET, set);
        // A number by which a transaction could refer to its own sets; demanded, though we use names.
        new.put(NFTA_SET_ID, &id.to_be_bytes());
        messages.push(new);
    }
    let there = found.map(|found| &found.counters);
    let missing = ruleset.counters.iter().filter(|name| !there.is_some_and(|t| t.contains(*name)));
    messages.extend(missing.map(|name| new_counter(family, name)));
    messages.extend(chains.values().map(|chain| item(family, NFT_MSG_NEWCHAIN, chain)));
    let rules = ruleset.rules.values().flatten();
    messages.extend(rules.map(|rule| item(family, NFT_MSG_NEWRULE, rule)));
    messages
}

/// Whether a chain that is there can stay, without its rules.
fn kept(found: Option<&Attributes>, name: &str, wanted: &Attributes) -> bool {
    found.is_some_and(|found| name == USER_CHAIN || found == wanted)
}

/// The messages that empty what is ours in a table, and remove what could not be kept.
fn clear(family: u8, ruleset: &Ruleset, found: &Ruleset) -> Vec<Message> {
    let ours = |name: &String, chain: &Attributes| {
        name != USER_CHAIN && (ruleset.chains.contains_key(name) || is_base(chain))
    };
    let chains = || found.chains.iter().filter(|(name, chain)| ours(name, chain));
    let mut messages: Vec<Message> = chains()
        .map(|(name, _)| {
            named_message(family, NFT_MSG_DELRULE, NFTA_RULE_TABLE, NFTA_RULE_CHAIN, name)
        })
        .collect();
    let wrong = |name: &String, chain: &Attributes| ruleset.chains.get(name) != Some(chain);
    messages.extend(chains().filter(|(name, chain)| wrong(name, chain)).map(|(name, _)| {
        named_message(family, NFT_MSG_DELCHAIN, NFTA_CHAIN_TABLE, NFTA_CHAIN_NAME, name)
    }));
    for (name, set) in found.sets.iter().filter(|(name, _)| ruleset.sets.contains_key(*name)) {
        // Without a list of elements all of them go.
        let kind = match ruleset.sets.get(name) == Some(set) {
            true => NFT_MSG_DELSETELEM,
            false => NFT_MSG_DELSET,
        };
        messages.push(named_message(family, kind, NFTA_SET_TABLE, NFTA_SET_NAME, name));
    }
    messages
}

/// The messages that remove a table, but for what the administrator has put into it.
pub(crate) fn remove(table: Table, ruleset: &Ruleset, found: Option<&Ruleset>) -> Vec<Message> {
    let family = family(table);
    match found.filter(|found| found.rules.contains_key(USER_CHAIN)) {
        None => vec![delete_table(family)],
        Some(found) => {
            // Chains without a hook see no packet, and his rules may name our sets.
            let mut bare = ruleset.clone();
            bare.chains.retain(|_, chain| !is_base(chain));
            clear(family, &bare, found)
        }
    }
}

fn is_base(chain: &Attributes) -> bool {
    chain.iter().any(|(kind, _)| *kind == NFTA_CHAIN_HOOK)
}

fn named_message(family: u8, kind: u16, table: u16, attribute: u16, name: &str) -> Message {
    let mut message = message(kind, NLM_F_REQUEST | NLM_F_ACK, family);
    message.text(table, NAME).text(attribute, name);
    message
}

fn item(family: u8, kind: u16, attributes: &Attributes) -> Message {
    let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE;
    // A rule goes to the end of its chain only with APPEND.
    let flags = if kind == NFT_MSG_NEWRULE { flags | NLM_F_APPEND } else { flags };
    let mut message = message(kind, flags, family);
    for (attribute, value) in attributes {
        if kind == NFT_MSG_NEWRULE && *attribute == NFTA_RULE_EXPRESSIONS {
            write_expressions(&mut message, value);
        } else {
            message.put(*attribute, value);
        }
    }
    message
}

/// Writes a rule's expressions as they were listed, but for one attribute: of an expression that writes a
/// header option the kernel lists flags, and refuses to be given them (`nft_exthdr_tcp_set_init`).
pub(crate) fn write_expressions(message: &mut Message, listed: &[u8]) {
    message.nest(NFTA_RULE_EXPRESSIONS, |list| {
        for (_, expression) in attributes(listed, 0) {
            let name = attribute(expression, 0, NFTA_EXPR_NAME).map(get_text).unwrap_or_default();
            let data = attribute(expression, 0, NFTA_EXPR_DATA).unwrap_or(&[]);
            let writes = name == "exthdr" && attribute(data, 0, NFTA_EXTHDR_SREG).is_some();
            list.nest(NFTA_LIST_ELEM, |item| {
                item.text(NFTA_EXPR_NAME, &name).nest(NFTA_EXPR_DATA, |inner| {
                    for (kind, value) in attributes(data, 0) {
                        if !(writes && kind == NFTA_EXTHDR_FLAGS) {
                            inner.put(kind, value);
                        }
                    }
                });
            });
        }
    });
}

fn new_table(family: u8, ruleset: &Ruleset) -> Message {
    let mut new = message(NFT_MSG_NEWTABLE, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE, family);
    new.text(NFTA_TABLE_NAME, NAME);
    if !ruleset.flags.is_empty() {
        new.put(NFTA_TABLE_FLAGS, &ruleset.flags);
    }
    new
}

fn delete_table(family: u8) -> Message {
    let mut delete = message(NFT_MSG_DELTABLE, NLM_F_REQUEST | NLM_F_ACK, family);
    delete.text(NFTA_TABLE_NAME, NAME);
    delete
}

impl Ruleset {
    /// The only rule of a chain.
    pub(crate) fn rule_of(&self, chain: &str) -> Option<&Attributes> {
        self.rules.get(chain)?.first()
    }

    /// Whether `found` is this, and whatever the administrator made for himself.
    pub(crate) fn is_in(&self, found: &Ruleset) -> bool {
        let chains = self.chains.iter();
        let mut strange = found.chains.iter().filter(|(name, _)| !self.chains.contains_key(*name));
        let rules = self.chains.keys().filter(|name| *name != USER_CHAIN);
        self.flags == found.flags
            && !strange.any(|(_, chain)| is_base(chain))
            && chains.clone().all(|(name, chain)| kept(found.chains.get(name), name, chain))
            && self.sets.iter().all(|(name, set)| found.sets.get(name) == Some(set))
            && self.counters.is_subset(&found.counters)
            && rules.clone().all(|name| self.rules.get(name) == found.rules.get(name))
    }

    /// Whether nothing but the administrator's part is left: no packet passes here.
    pub(crate) fn is_remains(&self) -> bool {
        !self.chains.values().any(is_base)
    }
}
