//! The nftables tables of ours, their sets, and the elements in them.
//!
//! Rules never change: each table has one fixed skeleton (`kernel/nft/skeleton/*.nft`), and everything that
//! differs from node to node and from hour to hour is an element of one of its sets.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::names::Mac;

/// One of our tables. All are called `weft`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// `inet weft` in the host: guard, isolation, masquerade.
    Host,
    /// `bridge weft` in the host: what a port may send.
    Bridge,
    /// `inet weft` in a sandbox: VIPs and the resolver.
    Sandbox,
    /// `inet weft` in the tunnel: who may send what.
    Tunnel,
}

/// What one component of an element is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Interface name, 16 bytes.
    Name,
    /// IPv4 address.
    V4,
    /// IPv6 address.
    V6,
    /// Ethernet address.
    Mac,
    /// Port, network order.
    Port,
    /// Protocol number of an IP header.
    Protocol,
    /// Number, host order.
    Number,
    /// VXLAN network identifier, 3 bytes in network order, as it is in the packet.
    Vni,
}

/// One component of an element.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Field {
    /// Interface name.
    Name(String),
    /// IPv4 address.
    V4(Ipv4Addr),
    /// IPv6 address.
    V6(Ipv6Addr),
    /// Ethernet address.
    Mac(Mac),
    /// Port.
    Port(u16),
    /// Protocol number of an IP header.
    Protocol(u8),
    /// Number.
    Number(u32),
    /// VXLAN network identifier, 24 bits.
    Vni(u32),
}

impl From<IpAddr> for Field {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Field::V4(v4),
            IpAddr::V6(v6) => Field::V6(v6),
        }
    }
}

/// An element: its key, and in a map its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    /// The set it is in.
    pub set: Set,
    /// Its key.
    pub key: Vec<Field>,
    /// Its value; empty in a plain set.
    pub value: Vec<Field>,
}

macro_rules! sets {
    ($($(#[$doc:meta])* $variant:ident = $table:ident $name:literal [$($key:ident)*] => [$($value:ident)*];)*) => {
        /// A set or map of one of our tables.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Set { $($(#[$doc])* $variant,)* }

        impl Set {
            /// All of them.
            pub const ALL: &[Set] = &[$(Set::$variant),*];

            /// The table it belongs to.
            pub fn table(self) -> Table {
                match self { $(Set::$variant => Table::$table),* }
            }

            /// Its name.
            pub fn name(self) -> &'static str {
                match self { $(Set::$variant => $name),* }
            }

            /// The kinds of its keys' components.
            pub fn key(self) -> &'static [Kind] {
                match self { $(Set::$variant => &[$(Kind::$key),*]),* }
            }

            /// The kinds of its values' components; none for a plain set.
            pub fn value(self) -> &'static [Kind] {
                match self { $(Set::$variant => &[$(Kind::$value),*]),* }
            }
        }
    };
}

sets! {
    /// Our bridges.
    Bridges = Host "bridges" [Name] => [];
    /// Bridges of networks that have a way out.
    Outward = Host "outward" [Name] => [];
    /// Bridges whose packets leave with the host's address.
    Masqueraded = Host "masqueraded" [Name] => [];
    /// Each bridge with itself: traffic that stays inside.
    Inside = Host "inside" [Name Name] => [];
    /// The gateway addresses each bridge answers for.
    Gateways4 = Host "gateways4" [Name V4] => [];
    /// The same, IPv6.
    Gateways6 = Host "gateways6" [Name V6] => [];
    /// UDP ports VXLAN frames arrive on.
    Vxlan = Host "vxlan" [Port] => [];
    /// Endpoints of the members.
    Members4 = Host "members4" [V4] => [];
    /// The same, IPv6.
    Members6 = Host "members6" [V6] => [];
    /// A host's address, protocol and port to the sandbox's address and port it leads to.
    Published4 = Host "published4" [V4 Protocol Port] => [V4 Port];
    /// The same, IPv6.
    Published6 = Host "published6" [V6 Protocol Port] => [V6 Port];
    /// The same for all of the host's IPv4 addresses.
    Everywhere4 = Host "everywhere4" [Protocol Port] => [V4 Port];
    /// The same, IPv6.
    Everywhere6 = Host "everywhere6" [Protocol Port] => [V6 Port];
    /// What a proxy of ours serves at an address of the host.
    Served4 = Host "served4" [V4 Protocol Port] => [];
    /// The same, IPv6.
    Served6 = Host "served6" [V6 Protocol Port] => [];
    /// The same at all of the host's IPv4 addresses.
    ServedEverywhere4 = Host "served_everywhere4" [Protocol Port] => [];
    /// The same, IPv6.
    ServedEverywhere6 = Host "served_everywhere6" [Protocol Port] => [];
    /// Ports that lead to sandboxes.
    Ports = Bridge "ports" [Name] => [];
    /// MACs a port may send from.
    Macs = Bridge "macs" [Name Mac] => [];
    /// Addresses a port may send from.
    Addresses4 = Bridge "addresses4" [Name V4] => [];
    /// The same, IPv6.
    Addresses6 = Bridge "addresses6" [Name V6] => [];
    /// Addresses a port may advertise as its own.
    Targets6 = Bridge "targets6" [Name V6] => [];
    /// Ports between which nothing passes but what is opened.
    Closed = Bridge "closed" [Name] => [];
    /// Who may connect to whom, with which protocol, at which port.
    Openings4 = Bridge "openings4" [V4 V4 Protocol Port] => [];
    /// The same, IPv6.
    Openings6 = Bridge "openings6" [V6 V6 Protocol Port] => [];
    /// Virtual addresses.
    Vips4 = Sandbox "vips4" [V4] => [];
    /// The same, IPv6.
    Vips6 = Sandbox "vips6" [V6] => [];
    /// Virtual address and slot to backend.
    Backends4 = Sandbox "backends4" [V4 Number] => [V4];
    /// The same, IPv6.
    Backends6 = Sandbox "backends6" [V6 Number] => [V6];
    /// The port names are asked at, and the one the resolver listens on.
    Asked = Sandbox "asked" [Port] => [Port];
    /// The way back of its answers.
    Answered = Sandbox "answered" [Port] => [Port];
    /// Tunnel address of a node, network, and the MAC of an interface of that node on it.
    Senders = Tunnel "senders" [V4 Vni Mac] => [];
    /// Tunnel address of a node, and a network that it shares with this one.
    Sharers = Tunnel "sharers" [V4 Vni] => [];
    /// Tunnel addresses of the other nodes.
    Receivers = Tunnel "receivers" [V4] => [];
}

impl Table {
    /// As `nft` writes it.
    pub fn spelled(self) -> &'static str {
        match self {
            Table::Host | Table::Sandbox | Table::Tunnel => "inet weft",
            Table::Bridge => "bridge weft",
        }
    }

    /// Its sets.
    pub fn sets(self) -> impl Iterator<Item = Set> {
        Set::ALL.iter().copied().filter(move |set| set.table() == self)
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Field::Name(name) => write!(f, "\"{name}\""),
            Field::V4(address) => write!(f, "{address}"),
            Field::V6(address) => write!(f, "{address}"),
            Field::Mac(mac) => write!(f, "{mac}"),
            Field::Port(port) => write!(f, "{port}"),
            Field::Protocol(number) => write!(f, "{number}"),
            Field::Number(number) => write!(f, "{number}"),
            Field::Vni(vni) => write!(f, "{vni:#08x}"),
        }
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let join =
            |fields: &[Field]| fields.iter().map(Field::to_string).collect::<Vec<_>>().join(" . ");
        write!(f, "{} {} {{ {}", self.set.table().spelled(), self.set.name(), join(&self.key))?;
        if !self.value.is_empty() {
            write!(f, " : {}", join(&self.value))?;
        }
        write!(f, " }}")
    }
}
