//! Names below `in-addr.arpa` and `ip6.arpa` as address prefixes (RFC 1035 section 3.5, RFC 3596
//! section 2.5), so that a reverse zone is compared as a prefix and not as text.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

const V4_ZONE: &str = "in-addr.arpa";
const V6_ZONE: &str = "ip6.arpa";
const V4_LABELS: usize = 4;
const V6_LABELS: usize = 32;

/// What a reverse name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reverse {
    /// The prefix its labels spell, read from the right as far as they are well formed.
    pub prefix: IpNet,
    /// Whether labels are left over: such a name lies below the prefix and has no meaning.
    pub rest: Rest,
}

/// Whether all labels of a reverse name were understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    None,
    Some,
}

impl Reverse {
    /// The address, if the name spells a whole one.
    pub fn address(&self) -> Option<IpAddr> {
        let whole = self.prefix.prefix_len() == self.prefix.max_prefix_len();
        (whole && self.rest == Rest::None).then(|| self.prefix.addr())
    }
}

/// Reads a lower-case name; none if it is in neither zone.
pub fn parse(name: &str) -> Option<Reverse> {
    if let Some(labels) = below(name, V4_ZONE) {
        return Some(v4(labels));
    }
    below(name, V6_ZONE).map(v6)
}

/// The labels in front of the zone, nearest to the zone first.
fn below<'n>(name: &'n str, zone: &str) -> Option<impl Iterator<Item = &'n str> + use<'n>> {
    let rest = name.strip_suffix(zone)?;
    let rest = if rest.is_empty() { "" } else { rest.strip_suffix('.')? };
    Some(rest.rsplit('.').filter(|label| !label.is_empty()))
}

fn v4<'n>(labels: impl Iterator<Item = &'n str>) -> Reverse {
    let mut octets = [0u8; V4_LABELS];
    let (count, rest) = read(labels, &mut octets, |label| {
        // A leading zero is a second spelling, which no server of reverse zones knows.
        (label == "0" || !label.starts_with(['0', '+'])).then(|| label.parse().ok()).flatten()
    });
    let prefix = IpNet::new_assert(Ipv4Addr::from(octets).into(), 8 * count);
    Reverse { prefix, rest }
}

fn v6<'n>(labels: impl Iterator<Item = &'n str>) -> Reverse {
    let mut nibbles = [0u8; V6_LABELS];
    let (count, rest) = read(labels, &mut nibbles, |label| match label.as_bytes() {
        [digit] => char::from(*digit).to_digit(16).and_then(|value| u8::try_from(value).ok()),
        _ => None,
    });
    let bits = nibbles.iter().fold(0u128, |bits, &nibble| (bits << 4) | u128::from(nibble));
    let prefix = IpNet::new_assert(Ipv6Addr::from(bits).into(), 4 * count);
    Reverse { prefix, rest }
}

/// Fills `into` from the labels until one is malformed or the address is whole.
fn read<'n>(
    labels: impl Iterator<Item = &'n str>,
    into: &mut [u8],
    parse: impl Fn(&str) -> Option<u8>,
) -> (u8, Rest) {
    let mut count = 0;
    for label in labels {
        match (into.get_mut(count), parse(label)) {
            (Some(slot), Some(value)) => *slot = value,
            (Some(_), None) | (None, _) => return (count as u8, Rest::Some),
        }
        count += 1;
    }
    (count as u8, Rest::None)
}
