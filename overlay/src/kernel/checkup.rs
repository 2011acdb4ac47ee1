//! What a host's kernel has, and what of ours is in it, for who looks for faults. Nothing is changed: what
//! must be tried is tried in a namespace that goes with its thread.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use nix::sched::{CloneFlags, unshare};

use super::nft::{compile, family, foreign, ruleset};
use super::route::link;
use super::socket::Socket;
use super::{KernelError, wireguard};
use crate::mtu;
use crate::names::{ALIAS_PREFIX, VXLAN_PORT};
use crate::plane::{Integrity, Link, LinkKind, Table};

/// Something that we need of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Feature {
    /// Bridges.
    Bridge,
    /// Pairs of devices between namespaces.
    Veth,
    /// VXLAN devices.
    Vxlan,
    /// nftables with connection tracking, and the program `nft`.
    Nftables,
}

impl Feature {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Veth => "veth",
            Self::Vxlan => "vxlan",
            Self::Nftables => "nftables",
        }
    }
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkup {
    /// Why a feature is not there; those that are there are absent.
    pub missing: BTreeMap<Feature, KernelError>,
    /// Our tables of the host: whether each is as it should be. `None`: it is not there.
    pub tables: BTreeMap<Table, Option<Integrity>>,
    /// Bridges of ours.
    pub bridges: Vec<String>,
    /// Forward chains of others that drop what nobody accepts, and have no exception for us: family, table and
    /// chain.
    pub dropping: Vec<String>,
}

/// Looks at the calling thread's network namespace. Blocks for some hundred milliseconds.
///
/// # Errors
/// Without the right to open netlink sockets.
pub fn checkup() -> Result<Checkup, KernelError> {
    let mut found = Checkup::default();
    let tries =
        [(Feature::Bridge, LinkKind::Bridge), (Feature::Veth, stub()), (Feature::Vxlan, vxlan())];
    for (feature, kind) in tries {
        if let Err(error) = elsewhere(move || make(kind, feature)) {
            found.missing.insert(feature, error);
        }
    }
    let mut route = Socket::open(libc::NETLINK_ROUTE)?;
    let links = link::dump(&mut route)?;
    found.bridges =
        links.iter().filter(|link| link.is_our_bridge()).map(|l| l.name.clone()).collect();
    let mut netfilter = Socket::open(libc::NETLINK_NETFILTER)?;
    match compile::compile() {
        Ok(skeletons) => {
            for table in [Table::Host, Table::Bridge] {
                let there = ruleset::dump(&mut netfilter, family(table))?;
                let there = there.filter(|there| !there.is_remains());
                let intact = |there: &_| skeletons.get(&table).is_some_and(|own| own.is_in(there));
                let state = there.map(|there| match intact(&there) {
                    true => Integrity::Intact,
                    false => Integrity::Damaged,
                });
                found.tables.insert(table, state);
            }
            found.dropping = foreign::dropping(&mut netfilter, &skeletons)?;
        }
        Err(error) => {
            found.missing.insert(Feature::Nftables, error);
        }
    }
    Ok(found)
}

fn stub() -> LinkKind {
    LinkKind::Stub { peer: "peer".to_owned() }
}

fn vxlan() -> LinkKind {
    LinkKind::Vxlan { vni: 1, local: IpAddr::V4(Ipv4Addr::LOCALHOST), port: VXLAN_PORT }
}

/// Runs in a namespace that nobody else sees.
fn elsewhere(
    work: impl FnOnce() -> Result<(), KernelError> + Send + 'static,
) -> Result<(), KernelError> {
    let thread = std::thread::Builder::new().name("weft-checkup".to_owned());
    let thread = thread.spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET)
            .map_err(|errno| KernelError::errno("unshare", errno as i32))?;
        work()
    });
    let thread = thread.map_err(|error| KernelError::io("thread", &error))?;
    thread.join().map_err(|_| KernelError::errno("trying a device", libc::EIO))?
}

fn make(kind: LinkKind, feature: Feature) -> Result<(), KernelError> {
    let link = Link {
        kind,
        alias: ALIAS_PREFIX.to_owned(),
        mac: None,
        mtu: mtu::ETHERNET,
        master: None,
        port: None,
        up: false,
    };
    let create = link::create("try", &link).ok_or_else(|| wireguard::refusal(libc::EINVAL))?;
    let answers = Socket::open(libc::NETLINK_ROUTE)?.request(vec![create]);
    let answers = answers.map_err(|error| KernelError::io("rtnetlink", &error))?;
    let refused = |errno| match (errno, feature) {
        (libc::EOPNOTSUPP, Feature::Bridge) => missing("bridges", "CONFIG_BRIDGE"),
        (libc::EOPNOTSUPP, Feature::Veth) => missing("veth devices", "CONFIG_VETH"),
        (libc::EOPNOTSUPP, Feature::Vxlan) => missing("VXLAN", "CONFIG_VXLAN"),
        _ => KernelError::errno(format!("making a device ({})", feature.word()), errno),
    };
    answers.into_iter().find(Result::is_err).unwrap_or(Ok(())).map_err(refused)
}

fn missing(what: &'static str, option: &'static str) -> KernelError {
    KernelError::Missing { what, option }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `nft` in the calling thread's namespace.
    fn nft(rules: &str) {
        let done = std::process::Command::new("nft").arg(rules).status().unwrap();
        assert!(done.success(), "{rules}");
    }

    #[test]
    fn a_chain_of_others_that_drops_is_told_until_it_lets_ours_pass() {
        let looked = elsewhere(|| {
            nft(
                "add table inet other; add chain inet other f { type filter hook forward priority 0; \
                 policy drop; }",
            );
            assert_eq!(checkup()?.dropping, ["inet other f"]);
            nft("insert rule inet other f meta mark & 0x1000 == 0x1000 accept");
            assert_eq!(checkup()?.dropping, [""; 0]);
            Ok(())
        });
        assert_eq!(looked, Ok(()));
    }

    #[test]
    fn this_kernel_has_what_the_other_tests_need() {
        let found = checkup().expect("the right to open netlink sockets");
        assert_eq!(found.missing, BTreeMap::new());
        assert_eq!(found.tables.len(), 2);
    }
}
