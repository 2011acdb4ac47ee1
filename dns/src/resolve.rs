//! What a question means to the one who asks. Pure: zones, asker and question in, a decision out.
//!
//! The promise (D1): nothing about a network the asker is not on changes what it is told. The only
//! networks looked at are those of the asker; of all others it can meet the ranges of addresses,
//! whose reverse names do not exist for it, and labels in use elsewhere, which do not either.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::asker::{Asker, Outside};
use crate::reverse::{self, Rest, Reverse};
use crate::wire::{CLASS_IN, rtype};
use crate::zone::{Network, Synced, Zones};

/// The first label of the names that list every task of a service.
const TASKS: &str = "tasks";

/// A question, its name as [`crate::wire::name::text`] gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question<'q> {
    pub name: &'q str,
    pub rtype: u16,
    pub class: u16,
}

/// What is to be answered. The order of records is chosen when they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution<'z> {
    V4(&'z [Ipv4Addr]),
    V6(&'z [Ipv6Addr]),
    /// The name of an address, in wire form.
    Pointer(&'z [u8]),
    /// The minimal answer to ANY (RFC 8482 section 4.2).
    Minimal,
    /// The name exists, not with this type.
    NoData,
    NxDomain,
    /// Not ours: ask the asker's upstream servers.
    Forward,
    Refuse,
    /// Cannot be known now: names that would be ours have not arrived, or there is nobody to ask.
    ServFail,
}

/// Decides.
pub fn resolve<'z>(zones: &'z Zones, asker: &'z Asker, question: &Question<'_>) -> Resolution<'z> {
    let meta = (rtype::META_FIRST..=rtype::META_LAST).contains(&question.rtype);
    if question.class != CLASS_IN || meta || question.rtype == rtype::OPT {
        return Resolution::Refuse;
    }
    let view = View::new(zones, asker);
    let finding = match reverse::parse(question.name) {
        Some(reverse) => view.reverse(reverse, question.rtype),
        None => view.forward(question.name, question.rtype),
    };
    view.conclude(finding, question)
}

/// What the zones say, before it is known what may leave the host.
enum Finding<'z> {
    Addresses(Resolution<'z>),
    Exists,
    /// Would be ours, and is not there.
    Missing,
    /// Not for this asker, and not to be asked upstream.
    Hidden,
    Foreign,
}

/// The zones through the eyes of one asker.
struct View<'z> {
    zones: &'z Zones,
    asker: &'z Asker,
    synced: Synced,
}

impl<'z> View<'z> {
    /// A network whose names are not here yet makes the view incomplete for this asker alone.
    fn new(zones: &'z Zones, asker: &'z Asker) -> Self {
        let complete = asker.networks.iter().all(|key| zones.network(key).is_some());
        let synced = if complete { zones.synced() } else { Synced::NotYet };
        Self { zones, asker, synced }
    }

    /// The networks of the asker, in its order.
    fn networks(&self) -> impl Iterator<Item = &'z Network> + use<'z> {
        let zones = self.zones;
        self.asker.networks.iter().filter_map(move |key| zones.network(key))
    }

    /// The asker's own names first, then the whole name on every network, then each way to read it
    /// as `name.network`.
    fn forward(&self, name: &str, rtype: u16) -> Finding<'z> {
        if let Some(linked) = self.asker.links.get(name) {
            return match rtype {
                rtype::A if !linked.v4.is_empty() => Finding::Addresses(Resolution::V4(&linked.v4)),
                rtype::AAAA if !linked.v6.is_empty() => {
                    Finding::Addresses(Resolution::V6(&linked.v6))
                }
                _ => Finding::Exists,
            };
        }
        let whole = self.networks().map(|network| (network, name));
        let parts = splits(name).flat_map(|(name, suffix)| {
            self.networks()
                .filter(move |network| network.name == suffix)
                .map(move |network| (network, name))
        });
        let mut exists = false;
        for (network, name) in whole.chain(parts) {
            let Some(addresses) = network.addresses(name) else { continue };
            exists = true;
            match rtype {
                rtype::A if !addresses.v4.is_empty() => {
                    return Finding::Addresses(Resolution::V4(&addresses.v4));
                }
                rtype::AAAA if !addresses.v6.is_empty() => {
                    return Finding::Addresses(Resolution::V6(&addresses.v6));
                }
                _ => {}
            }
        }
        if exists { Finding::Exists } else { self.unknown(name) }
    }

    /// A name no network of the asker has.
    fn unknown(&self, name: &str) -> Finding<'z> {
        let is_network = |suffix: &str| self.networks().any(|network| network.name == suffix);
        if is_network(name) || self.is_about_known(name) {
            return Finding::Exists;
        }
        if splits(name).any(|(_, suffix)| is_network(suffix)) || is_tasks(name) {
            return Finding::Missing;
        }
        if is_label(name) && self.zones.elsewhere().contains(name) {
            return Finding::Hidden;
        }
        Finding::Foreign
    }

    /// Whether this is `_port._protocol.name` (RFC 2782) of a name of ours: it has no such
    /// records, and the name in it is nothing to tell an upstream server.
    fn is_about_known(&self, name: &str) -> bool {
        let mut rest = name;
        while let Some((_, parent)) = rest.split_once('.').filter(|_| rest.starts_with('_')) {
            rest = parent;
        }
        rest.len() < name.len() && self.networks().any(|network| network.addresses(rest).is_some())
    }

    fn reverse(&self, reverse: Reverse, rtype: u16) -> Finding<'z> {
        let prefix = reverse.prefix;
        if let Some(address) = reverse.address() {
            match self.networks().find_map(|network| network.pointer(address)) {
                Some(name) if matches!(rtype, rtype::PTR | rtype::ANY) => {
                    return Finding::Addresses(Resolution::Pointer(name));
                }
                Some(_) => return Finding::Exists,
                None => {}
            }
        }
        let within = |network: &Network| network.subnets.iter().any(|own| own.contains(&prefix));
        let empty = prefix.prefix_len() < prefix.max_prefix_len() && reverse.rest == Rest::None;
        match self.networks().any(within) {
            true if empty => Finding::Exists,
            true => Finding::Missing,
            false if self.zones.covers(prefix) => Finding::Hidden,
            false => Finding::Foreign,
        }
    }

    /// Turns a finding into an answer. Hidden and foreign names part ways only at the very end,
    /// after everything that would tell them apart without an upstream server.
    fn conclude(&self, finding: Finding<'z>, question: &Question<'_>) -> Resolution<'z> {
        let any = question.rtype == rtype::ANY;
        let label = is_label(question.name);
        match finding {
            Finding::Addresses(_) | Finding::Exists if any => Resolution::Minimal,
            Finding::Addresses(found) => found,
            Finding::Exists => Resolution::NoData,
            Finding::Missing if self.synced == Synced::NotYet => Resolution::ServFail,
            Finding::Missing => Resolution::NxDomain,
            Finding::Hidden | Finding::Foreign if label && self.synced == Synced::NotYet => {
                Resolution::ServFail
            }
            Finding::Hidden | Finding::Foreign if self.asker.outside == Outside::Closed => {
                Resolution::NxDomain
            }
            // The client will come back with its search list; until then nothing leaves.
            Finding::Hidden | Finding::Foreign
                if label && self.asker.ndots.is_some_and(|ndots| ndots > 0) =>
            {
                Resolution::NoData
            }
            Finding::Hidden | Finding::Foreign if self.asker.upstreams.is_empty() => {
                Resolution::ServFail
            }
            Finding::Hidden | Finding::Foreign if any => Resolution::Minimal,
            Finding::Hidden => Resolution::NxDomain,
            Finding::Foreign => Resolution::Forward,
        }
    }
}

/// Each way to cut a name in two at a dot, the shortest first part first.
fn splits(name: &str) -> impl Iterator<Item = (&str, &str)> {
    name.match_indices('.').map(|(at, _)| (&name[..at], &name[at + 1..]))
}

fn is_label(name: &str) -> bool {
    !name.is_empty() && !name.contains('.')
}

/// Whether this is `tasks.<service>`. A longer name is somebody's real host (`tasks.google.com`).
fn is_tasks(name: &str) -> bool {
    name.split_once('.').is_some_and(|(first, service)| first == TASKS && is_label(service))
}
