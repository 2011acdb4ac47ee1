//! Network devices as values.

use std::net::IpAddr;

use crate::dataplane::{IpvlanMode, MacvlanMode};
use crate::names::Mac;

/// A network device of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// What it is.
    pub kind: LinkKind,
    /// `weft:<network id>`; `weft:` alone while it is being made; anything else is not ours.
    pub alias: String,
    /// Its MAC where it matters (bridges and ends inside sandboxes).
    pub mac: Option<Mac>,
    /// Bytes; 0 where it does not matter (loopback).
    pub mtu: u32,
    /// The bridge it is a port of.
    pub master: Option<String>,
    /// How it behaves as a port.
    pub port: Option<PortFlags>,
    /// Administratively up.
    pub up: bool,
}

impl Link {
    /// A device of this kind that is down and of which nothing is set.
    pub fn bare(kind: LinkKind) -> Self {
        let (alias, mac, mtu) = (String::new(), None, 0);
        Self { kind, alias, mac, mtu, master: None, port: None, up: false }
    }
}

/// What a link is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// A namespace's own loopback; never made, never removed.
    Loopback,
    /// A bridge without STP and multicast snooping.
    Bridge,
    /// A VXLAN device that never learns.
    Vxlan {
        /// VXLAN network identifier.
        vni: u32,
        /// Source address of its packets.
        local: IpAddr,
        /// Destination port.
        port: u16,
    },
    /// A VXLAN device that never learns and whose packets travel in the tunnel's namespace: it was made
    /// there, and its socket stays there whatever namespace the device is in.
    Tunnelled {
        /// VXLAN network identifier.
        vni: u32,
        /// Destination port.
        port: u16,
    },
    /// A persistent TAP device for many queues, with headers of virtio-net: what is sent to it, the engine
    /// of encrypted networks reads. Nobody else reads it, so without the engine nothing leaves.
    Tap,
    /// A WireGuard device in the tunnel's namespace, whose packets travel in the host's: it was asked for
    /// there, and its socket stays there.
    WireGuard,
    /// The host's end of a sandbox's port. What its other end is, is known when it is made.
    Veth,
    /// The end of a veth inside a sandbox.
    Inner {
        /// The host's end: an interface of the right name on the wrong wire is not the right one.
        outer: String,
    },
    /// The part of a host's device that has one 802.1Q tag.
    Vlan {
        /// The device.
        parent: String,
        /// The tag, 1 to 4094.
        tag: u16,
    },
    /// One end of a veth whose other end is beside it: a device that is up and leads nowhere.
    Stub {
        /// The other end.
        peer: String,
    },
    /// Inside a sandbox, on a device of the host: frames with a MAC of its own.
    Macvlan {
        /// The device.
        parent: String,
        /// How it sees its neighbours.
        mode: MacvlanMode,
    },
    /// Inside a sandbox, on a device of the host: packets under the device's MAC.
    Ipvlan {
        /// The device.
        parent: String,
        /// What the kernel switches by.
        mode: IpvlanMode,
    },
    /// One end of a wire between two sandboxes.
    Cable,
    /// The device of an Open vSwitch bridge; it comes and goes with the bridge.
    Internal,
    /// Something else that has one of our names.
    Foreign,
}

/// Flags of a bridge port (linux/if_link.h, IFLA_BRPORT_*).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortFlags {
    /// Learn MACs from traffic. Never wanted: a learned row hides a missing static one.
    pub learning: bool,
    /// Flood unicast with an unknown destination.
    pub flood: bool,
    /// Answer ARP and neighbour solicitations here instead of sending them out.
    pub neigh_suppress: bool,
    /// Nothing passes between this port and another that has this flag.
    pub isolated: bool,
    /// Frames may go back out where they came in.
    pub hairpin: bool,
    /// Accept only sources with a static row. `None` where the kernel does not know the flag (before 5.18);
    /// there the `bridge weft` table alone pins MACs.
    pub locked: Option<bool>,
}

/// Rank of a link among links.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LinkOrder {
    /// Loopback, bridges and what sandboxes' interfaces are made on.
    First,
    /// VXLAN, TAP and WireGuard devices, and veths.
    Second,
    /// Interfaces inside sandboxes: they come with their outer end, or are made on something outside.
    Third,
}

impl LinkKind {
    /// Rank among links.
    pub fn order(&self) -> LinkOrder {
        match self {
            LinkKind::Loopback
            | LinkKind::Bridge
            | LinkKind::Internal
            | LinkKind::Vlan { .. }
            | LinkKind::Stub { .. } => LinkOrder::First,
            LinkKind::Vxlan { .. }
            | LinkKind::Tunnelled { .. }
            | LinkKind::Tap
            | LinkKind::WireGuard
            | LinkKind::Veth
            | LinkKind::Foreign => LinkOrder::Second,
            LinkKind::Inner { .. }
            | LinkKind::Macvlan { .. }
            | LinkKind::Ipvlan { .. }
            | LinkKind::Cable => LinkOrder::Third,
        }
    }
}
