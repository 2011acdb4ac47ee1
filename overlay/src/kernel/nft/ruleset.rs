//! A table as the kernel tells it: chains, sets and rules without what differs from load to load.

use super::{FIXED, NAME, family, message};
use crate::kernel::KernelError;
use crate::kernel::socket::Socket;
use crate::kernel::uapi::*;
use crate::kernel::wire::{Message, attribute, attributes, get_text};
use crate::plane::Table;

/// One message's worth: a chain, a set or a rule, as attributes.
pub(crate) type Attributes = Vec<(u16, Vec<u8>)>;

/// What a table consists of, in the order the kernel lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ruleset {
    flags: Vec<u8>,
    chains: Vec<Attributes>,
    sets: Vec<Attributes>,
    rules: Vec<Attributes>,
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
    let chains = part("nftables chains", NFT_MSG_GETCHAIN, CHAIN)?;
    let sets = part("nftables sets", NFT_MSG_GETSET, SET)?;
    let rules = part("nftables rules", NFT_MSG_GETRULE, RULE)?;
    Ok(Some(Ruleset { flags, chains, sets, rules }))
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

/// The messages that make a table anew, whatever there was: "add, delete, add" succeeds in all cases.
pub(crate) fn install(table: Table, ruleset: &Ruleset) -> Vec<Message> {
    let family = family(table);
    let mut messages =
        vec![new_table(family, ruleset), delete_table(family), new_table(family, ruleset)];
    let item = |kind: u16, attributes: &Attributes| {
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
    };
    for (set, id) in ruleset.sets.iter().zip(1u32..) {
        let mut new = item(NFT_MSG_NEWSET, set);
        // A number by which a transaction could refer to its own sets; demanded, though we use names.
        new.put(NFTA_SET_ID, &id.to_be_bytes());
        messages.push(new);
    }
    messages.extend(ruleset.chains.iter().map(|chain| item(NFT_MSG_NEWCHAIN, chain)));
    messages.extend(ruleset.rules.iter().map(|rule| item(NFT_MSG_NEWRULE, rule)));
    messages
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

/// Removes our table of a family.
pub(crate) fn delete_table(family: u8) -> Message {
    let mut delete = message(NFT_MSG_DELTABLE, NLM_F_REQUEST | NLM_F_ACK, family);
    delete.text(NFTA_TABLE_NAME, NAME);
    delete
}

impl Ruleset {
    /// The only rule of a chain.
    pub(crate) fn rule_of(&self, chain: &str) -> Option<&Attributes> {
        let named = |rule: &&Attributes| {
            rule.iter().any(|(kind, value)| *kind == NFTA_RULE_CHAIN && get_text(value) == chain)
        };
        self.rules.iter().find(named)
    }
}
