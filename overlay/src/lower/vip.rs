//! Virtual addresses as the elements of two maps.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::names::{SLOTS, stable_hash};
use crate::plane::{Element, Field, Object, Objects, Set, put};

/// A VIP without backends keeps its place in the set of VIPs, and so is refused instead of timing out.
pub(super) fn lower(inside: &mut Objects, key: &str, vips: &BTreeMap<IpAddr, Vec<IpAddr>>) {
    for (vip, backends) in vips {
        let (all, map) = match vip {
            IpAddr::V4(_) => (Set::Vips4, Set::Backends4),
            IpAddr::V6(_) => (Set::Vips6, Set::Backends6),
        };
        let address = Field::from(*vip);
        let element = Element { set: all, key: vec![address.clone()], value: vec![] };
        put(inside, Object::Element(element));
        let same: Vec<IpAddr> =
            backends.iter().copied().filter(|backend| backend.is_ipv4() == vip.is_ipv4()).collect();
        for (slot, backend) in slots(key, *vip, &same) {
            let key = vec![address.clone(), Field::Number(slot)];
            let element = Element { set: map, key, value: vec![backend.into()] };
            put(inside, Object::Element(element));
        }
    }
}

/// Fills the slots round-robin. Where there are more backends than slots, each sandbox begins elsewhere,
/// so that together they reach all.
fn slots<'a>(
    key: &str,
    vip: IpAddr,
    backends: &'a [IpAddr],
) -> impl Iterator<Item = (u32, IpAddr)> + use<'a> {
    let start = if backends.len() > SLOTS as usize {
        stable_hash(format!("{key}/{vip}").as_bytes()) as usize % backends.len()
    } else {
        0
    };
    let filled = if backends.is_empty() { 0 } else { SLOTS };
    (0..filled).map(move |slot| (slot, backends[(start + slot as usize) % backends.len()]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_shared_evenly_and_many_backends_rotate() {
        let vip: IpAddr = "10.0.0.1".parse().unwrap();
        let three: Vec<IpAddr> = (1..=3).map(|n| IpAddr::from([10, 0, 1, n])).collect();
        let mut count = BTreeMap::new();
        for (_, backend) in slots("a", vip, &three) {
            *count.entry(backend).or_insert(0) += 1;
        }
        assert_eq!(count.values().copied().collect::<Vec<_>>(), [22, 21, 21]);
        assert_eq!(slots("a", vip, &[]).count(), 0);
        let many: Vec<IpAddr> = (0..200).map(|n| IpAddr::from([10, 0, 1, n])).collect();
        let first = |key: &str| slots(key, vip, &many).next();
        assert!((0..20).map(|n| format!("s{n}")).any(|key| first(&key) != first("a")));
    }
}
