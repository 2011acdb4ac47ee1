//! From networks and sandboxes to the kernel objects that make them true. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::dataplane::{Cable, Dataplane, Kind, Network, NetworkKey, Overlay, Sandbox, Subnet};
use crate::mtu;
use crate::plane::{Object, Objects, Place, Plane, put};

mod cable;
mod host;
mod network;
mod parent;
mod publish;
mod sandbox;
mod tunnel;
mod vip;

/// What the kernel objects depend on besides the caller's wish.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// MTU of the device that holds our tunnel endpoint, bytes. `None` if no device does.
    pub underlay_mtu: Option<u32>,
    /// Whether somebody else's firewall hooks forwarded packets, so that bridged frames must go on passing
    /// through it if they did (Docker and Kubernetes need that).
    pub foreign_forward: bool,
    /// Whether the kernel knows no IPv6.
    pub no_ipv6: bool,
    /// Whether iptables has a place for a rule that lets ours pass, and may need it, for IPv4.
    pub passage4: bool,
    /// The same for IPv6.
    pub passage6: bool,
    /// Whether somebody else drops forwarded packets by default where we have no way to make an exception.
    pub foreign_drop: bool,
}

/// The wanted plane, and which veth leads where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// All objects.
    pub plane: Plane,
    /// The other end of each veth of the host.
    pub pairs: BTreeMap<String, InnerEnd>,
    /// The two ends of each cable whose sandboxes are known, the one that is made first.
    pub cables: Vec<(InnerEnd, InnerEnd)>,
    /// Links of the host that are ours only where nobody else has made them.
    pub if_missing: BTreeSet<String>,
    /// Sandboxes that cannot be attached as is wanted, and why.
    pub refused: BTreeMap<String, String>,
    /// Links of the host that are somebody else's and that ours rest on.
    pub borrowed: BTreeSet<String>,
    /// The sandboxes that rest on each link of the host, and on the encrypted link ([`TUNNEL_USERS`]).
    pub users: BTreeMap<String, BTreeSet<String>>,
}

/// What the sandboxes on encrypted networks rest on, among [`Wanted::users`]; no link has such a name.
pub const TUNNEL_USERS: &str = "the tunnel";

/// The end of a veth inside a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InnerEnd {
    /// The sandbox's key.
    pub sandbox: String,
    /// The interface's name inside.
    pub ifname: String,
}

/// Computes the objects that make `dataplane` true on this node.
///
/// An attachment to a network the dataplane does not contain is left out: its network is not known yet.
pub fn lower(dataplane: &Dataplane, facts: Facts) -> Wanted {
    let mut wanted = outside(dataplane, facts);
    for key in dataplane.sandboxes.keys() {
        inside(&mut wanted, dataplane, key, facts);
    }
    wanted
}

/// The part of [`lower`] that is in the host's namespace.
pub(crate) fn outside(dataplane: &Dataplane, facts: Facts) -> Wanted {
    let mut wanted = Wanted::default();
    let mut host = Objects::new();
    if !dataplane.networks.is_empty() {
        host::lower(&mut host, dataplane, facts);
    }
    for (key, network) in &dataplane.networks {
        network::lower(&mut host, *key, network, dataplane, facts);
        wanted.borrowed.extend(network::borrowed(network));
        parent::lower(&mut host, &mut wanted, *key, network, dataplane);
    }
    let published = publish::targets(dataplane);
    let surroundings = sandbox::Surroundings { dataplane, facts, published };
    for (key, sandbox) in &dataplane.sandboxes {
        sandbox::outside(&mut host, &mut wanted, key, sandbox, &surroundings);
    }
    publish::lower(&mut host, dataplane, facts);
    let tunnel = tunnel::lower(&mut host, dataplane, facts);
    wanted.plane.places.extend(tunnel.map(|objects| (Place::Tunnel, objects)));
    wanted.cables = cable::pairs(dataplane);
    if !dataplane.host.nftables {
        host.retain(|_, object| !is_filter(object));
    }
    wanted.plane.places.insert(Place::Host, host);
    wanted
}

/// The part of [`lower`] that is inside one sandbox.
pub(crate) fn inside(wanted: &mut Wanted, dataplane: &Dataplane, key: &str, facts: Facts) {
    if let Some(sandbox) = dataplane.sandboxes.get(key) {
        let mut objects = sandbox::inside(key, sandbox, dataplane, facts);
        cable::lower(&mut objects, key, dataplane);
        wanted.plane.places.insert(Place::Sandbox(key.to_owned()), objects);
    }
}

/// Whether an object is in a table.
fn is_filter(object: &Object) -> bool {
    matches!(object, Object::Table(..) | Object::Element(_) | Object::Passage(_))
}

/// What the inside of a sandbox follows from. Equal values mean equal objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cause {
    sandbox: Sandbox,
    networks: Vec<Option<(String, Vec<Subnet>, bool, u32, Option<Kind>)>>,
    cables: Vec<(String, Cable)>,
}

/// See [`Cause`].
pub(crate) fn cause(dataplane: &Dataplane, key: &str, facts: Facts) -> Option<Cause> {
    let sandbox = dataplane.sandboxes.get(key)?;
    let cables = cable::of(key, dataplane).map(|(name, cable)| (name.clone(), cable.clone()));
    let network = |key: &NetworkKey| {
        let network = dataplane.networks.get(key)?;
        let mtu = network_mtu(dataplane, *key, facts);
        let kind = inner_kind(network);
        Some((network.id.clone(), network.subnets.clone(), network.internal, mtu, kind))
    };
    Some(Cause {
        sandbox: sandbox.clone(),
        networks: sandbox.attachments.keys().map(network).collect(),
        cables: cables.collect(),
    })
}

/// What a network is made of, where sandboxes see it.
fn inner_kind(network: &Network) -> Option<Kind> {
    match &network.kind {
        Kind::Overlay(_) | Kind::Bridge(_) | Kind::Ovs(_) => None,
        kind @ (Kind::Macvlan(_) | Kind::Ipvlan(_)) => Some(kind.clone()),
    }
}

/// The links of the host that may be wanted and whose names are not derived.
pub(crate) fn host_links(dataplane: &Dataplane) -> BTreeSet<String> {
    let networks = dataplane.networks.iter();
    networks
        .flat_map(|(key, network)| {
            network::bridge(*key, network).into_iter().chain(parent::made(network))
        })
        .collect()
}

/// The sandboxes that a sandbox has a cable to.
pub(crate) fn wired_to<'a>(
    key: &'a str,
    dataplane: &'a Dataplane,
) -> impl Iterator<Item = &'a String> {
    let ends = cable::of(key, dataplane).flat_map(|(_, cable)| &cable.ends);
    ends.map(|end| &end.sandbox).filter(move |other| *other != key)
}

/// The Open vSwitch bridges that are wanted.
pub(crate) fn switches(dataplane: &Dataplane) -> BTreeSet<String> {
    let networks = dataplane.networks.values();
    networks.filter_map(|network| network::switch(network).map(|ovs| ovs.bridge.clone())).collect()
}

/// Open vSwitch could not be asked: what it has is left as it is, and its networks' sandboxes are told.
pub(crate) fn without_switches(wanted: &mut Wanted, dataplane: &Dataplane, why: &str) {
    for (key, sandbox) in &dataplane.sandboxes {
        let networks = sandbox.attachments.keys().filter_map(|on| dataplane.networks.get(on));
        if networks.filter_map(network::switch).next().is_some() {
            wanted.refused.insert(key.clone(), why.to_owned());
        }
    }
    if let Some(host) = wanted.plane.places.get_mut(&Place::Host) {
        host.retain(|_, object| {
            !matches!(object, Object::Switch { .. } | Object::SwitchPort { .. })
        });
    }
}

/// The kernel parameters of the host that may be wanted, whatever the facts.
pub(crate) fn host_parameters(dataplane: &Dataplane) -> BTreeSet<String> {
    let mut host = Objects::new();
    if !dataplane.networks.is_empty() {
        host::lower(&mut host, dataplane, Facts::default());
    }
    crate::plane::parameters(&host)
}

/// The kernel parameters of the tunnel's namespace that may be wanted.
pub(crate) fn tunnel_parameters(dataplane: &Dataplane) -> BTreeSet<String> {
    let inside = tunnel::lower(&mut Objects::new(), dataplane, Facts::default());
    inside.map(|objects| crate::plane::parameters(&objects)).unwrap_or_default()
}

/// The MTU inside one network.
fn network_mtu(dataplane: &Dataplane, key: NetworkKey, facts: Facts) -> u32 {
    let Some(network) = dataplane.networks.get(&key) else { return mtu::ETHERNET };
    let vtep = dataplane.underlay.as_ref().map(|underlay| underlay.vtep);
    match &network.kind {
        Kind::Overlay(Overlay::Plain(_)) => mtu::inner(facts.underlay_mtu, vtep, network.mtu),
        Kind::Overlay(Overlay::Encrypted(_)) => {
            mtu::encrypted(facts.underlay_mtu, vtep, network.mtu)
        }
        Kind::Bridge(_) | Kind::Ovs(_) => network.mtu.unwrap_or(mtu::ETHERNET),
        Kind::Macvlan(_) | Kind::Ipvlan(_) => network.mtu.unwrap_or(mtu::OF_THE_PARENT),
    }
}

/// Puts many objects under their keys.
fn put_all(objects: &mut Objects, new: impl IntoIterator<Item = Object>) {
    for object in new {
        put(objects, object);
    }
}
