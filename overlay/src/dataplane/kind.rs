//! What a network is made of on this node.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use weft_wire::Member;

use crate::names::Mac;

/// How the members of a network reach each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A bridge on each node, and VXLAN between them.
    Overlay(Overlay),
    /// A bridge on this node alone.
    Bridge(Bridge),
    /// Interfaces with MACs of their own on a device of the host.
    Macvlan(Macvlan),
    /// Interfaces that share the MAC of a device of the host.
    Ipvlan(Ipvlan),
    /// Ports of an Open vSwitch bridge.
    Ovs(Ovs),
}

impl Default for Kind {
    fn default() -> Self {
        Self::Overlay(Overlay::default())
    }
}

impl Kind {
    /// Those of an overlay network that are elsewhere.
    pub fn overlay(&self) -> Option<&Overlay> {
        match self {
            Kind::Overlay(overlay) => Some(overlay),
            Kind::Bridge(_) | Kind::Macvlan(_) | Kind::Ipvlan(_) | Kind::Ovs(_) => None,
        }
    }

    /// The same, to be changed.
    pub fn overlay_mut(&mut self) -> Option<&mut Overlay> {
        match self {
            Kind::Overlay(overlay) => Some(overlay),
            Kind::Bridge(_) | Kind::Macvlan(_) | Kind::Ipvlan(_) | Kind::Ovs(_) => None,
        }
    }
}

/// The part of an overlay network that is on other nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Overlay {
    /// VXLAN between the nodes' endpoints: whoever is on the way can read it.
    Plain(Plain),
    /// VXLAN inside the [`Tunnel`](super::Tunnel). The interfaces on other nodes; frames go to no other node,
    /// and without a tunnel to none.
    Encrypted(BTreeMap<Mac, Member>),
}

impl Default for Overlay {
    fn default() -> Self {
        Self::Plain(Plain::default())
    }
}

impl Overlay {
    /// Number of attachments on other nodes.
    pub fn remotes(&self) -> usize {
        match self {
            Overlay::Plain(plain) => plain.remotes.len(),
            Overlay::Encrypted(members) => members.len(),
        }
    }
}

/// Other nodes' part of an overlay network that is not encrypted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plain {
    /// Attachments there.
    pub remotes: BTreeSet<Remote>,
    /// Endpoints of the other nodes on this network: broadcast and multicast frames are copied to each.
    pub peers: BTreeSet<IpAddr>,
}

/// One attachment on another node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Remote {
    /// Its addresses, IPv4 and IPv6.
    pub addresses: Vec<IpAddr>,
    /// Its MAC, see [`mac_for`](crate::mac_for).
    pub mac: Mac,
    /// The endpoint of its node.
    pub vtep: IpAddr,
}

/// A bridge of the host with the members' veths as its ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bridge {
    /// Its name, 1 to 15 characters; [`bridge`](crate::names::bridge) derives one.
    pub device: String,
    /// Whether it is ours to make and to remove. `false`: an administrator's, who also gives it its
    /// addresses, routes and filters; we add ports to it and nothing else, and where it is missing its
    /// sandboxes are in trouble.
    pub owned: bool,
    /// Whether the members may talk to each other. With `false` they reach the host, what is outside, and
    /// each other through [`openings`](Self::openings) and published ports.
    pub icc: bool,
    /// Whether what leaves the host carries the host's address.
    pub masquerade: bool,
    /// What may pass between members where `icc` is `false`.
    pub openings: BTreeSet<Opening>,
}

/// One member may connect to a port of another. Stateless: replies are known by their port, and those of
/// TCP by the ACK flag too (RFC 9293, section 3.10.7: all segments but the first carry it).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Opening {
    /// Who connects.
    pub from: IpAddr,
    /// To whom; an address of the same family.
    pub to: IpAddr,
    /// With which protocol.
    pub protocol: Protocol,
    /// To which port.
    pub port: u16,
}

/// A transport protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// Its number in IP headers (IANA, "Assigned Internet Protocol Numbers").
    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }
}

/// Members on a device of the host, each with a MAC of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Macvlan {
    /// The device. `eth0.10` is made, as the part of `eth0` with the 802.1Q tag 10, where it is missing.
    /// `None`: one of our own that leads nowhere.
    pub parent: Option<String>,
    /// How the members see each other.
    pub mode: MacvlanMode,
}

/// Modes of a macvlan device (linux/if_link.h, `MACVLAN_MODE_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MacvlanMode {
    /// Directly.
    Bridge,
    /// Not at all.
    Private,
    /// Through a switch outside that sends frames back.
    Vepa,
    /// There is one member, and it has the device to itself.
    Passthru,
}

/// Members on a device of the host, all with its MAC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ipvlan {
    /// As of [`Macvlan::parent`].
    pub parent: Option<String>,
    /// What the kernel switches by.
    pub mode: IpvlanMode,
}

/// Modes of an ipvlan device (linux/if_link.h, `IPVLAN_MODE_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IpvlanMode {
    /// Frames: the gateway is a neighbour.
    L2,
    /// Packets: there is no neighbour, and no gateway.
    L3,
    /// Packets, with the host's connection tracking.
    L3s,
}

/// Members as ports of an Open vSwitch bridge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ovs {
    /// Its name.
    pub bridge: String,
    /// Whether it is ours to make and to remove. `false`: an administrator's, as with
    /// [`Bridge::owned`].
    pub owned: bool,
}
