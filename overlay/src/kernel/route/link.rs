//! Links: bridges, VXLAN devices, veths and how they behave as ports.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{Indexes, child};
use crate::kernel::KernelError;
use crate::kernel::socket::Socket;
use crate::kernel::uapi::*;
use crate::kernel::wire::{self, Message, attribute, attributes, get_ip, get_text, get_u32};
use crate::mtu;
use crate::names::{self, ALIAS_PREFIX, LINK_GROUP, Mac};
use crate::plane::{Link, LinkKind, Object, Objects, PortFlags, put};

/// Length of `struct ifinfomsg`.
const FIXED: usize = 16;
const UP: u32 = libc::IFF_UP as u32;

/// One link as dumped, ours or not.
#[derive(Clone, Debug)]
pub(crate) struct RawLink {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) mtu: u32,
    up: bool,
    loopback: bool,
    alias: String,
    mac: Option<Mac>,
    master: Option<u32>,
    /// Index of a veth's other end, in the namespace that end is in.
    peer: Option<u32>,
    kind: String,
    /// Whether Open vSwitch holds it: as a port of its kernel module, or open in its own process.
    switched: bool,
    vxlan: Option<(u32, Option<IpAddr>, u16, bool)>,
    /// The namespace that its packets travel in, where that is not its own.
    elsewhere: Option<i32>,
    /// Whether it is a TAP device as we make them.
    tap: bool,
    /// What a vlan, macvlan or ipvlan device is.
    child: Option<child::Child>,
    port: Option<PortFlags>,
    /// What it could not take in or send.
    pub(crate) losses: Losses,
}

/// Packets that a device lost (`struct rtnl_link_stats64`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Losses {
    /// Received, and wrong.
    pub(crate) wrong: u64,
    /// To be sent, and to nobody.
    pub(crate) unsendable: u64,
    /// Received, and no room for it.
    pub(crate) not_taken: u64,
    /// To be sent, and no room for it.
    pub(crate) not_sent: u64,
}

impl Losses {
    /// Numbers 4 to 7 of the structure: errors received and sent, dropped of what was received and of what
    /// was to be sent.
    fn parse(stats: &[u8]) -> Self {
        let number = |at: usize| {
            let bytes = stats.get(8 * at..8 * at + 8).and_then(|bytes| bytes.try_into().ok());
            bytes.map_or(0, u64::from_ne_bytes)
        };
        let [wrong, unsendable, not_taken, not_sent] = [4, 5, 6, 7].map(number);
        Self { wrong, unsendable, not_taken, not_sent }
    }
}

impl RawLink {
    /// Whether it is a bridge that we made.
    pub(crate) fn is_our_bridge(&self) -> bool {
        self.kind == "bridge" && self.alias.starts_with(ALIAS_PREFIX)
    }
}

pub(crate) fn dump(socket: &mut Socket) -> Result<Vec<RawLink>, KernelError> {
    let question = Message::new(RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, &[0; FIXED]);
    socket.dump("links", &question, |message, rows| {
        if message.kind == RTM_NEWLINK {
            rows.extend(parse(message.body));
        }
    })
}

/// Reads one RTM_NEWLINK body.
fn parse(body: &[u8]) -> Option<RawLink> {
    let flags = get_u32(body, 8)?;
    let mut link = RawLink {
        index: get_u32(body, 4)?,
        name: String::new(),
        mtu: 0,
        up: flags & UP != 0,
        loopback: flags & libc::IFF_LOOPBACK as u32 != 0,
        alias: String::new(),
        mac: None,
        master: None,
        peer: None,
        kind: String::new(),
        switched: flags & libc::IFF_PROMISC as u32 != 0,
        vxlan: None,
        elsewhere: None,
        tap: false,
        child: None,
        port: None,
        losses: Losses::default(),
    };
    let mut grouped = false;
    for (kind, value) in attributes(body, FIXED) {
        match kind {
            IFLA_IFNAME => link.name = get_text(value),
            IFLA_MTU => link.mtu = get_u32(value, 0)?,
            IFLA_IFALIAS => link.alias = get_text(value),
            IFLA_GROUP => grouped = get_u32(value, 0) == Some(LINK_GROUP),
            IFLA_ADDRESS => link.mac = value.try_into().ok().map(Mac),
            IFLA_LINK => link.peer = get_u32(value, 0),
            IFLA_MASTER => link.master = get_u32(value, 0),
            IFLA_LINK_NETNSID => link.elsewhere = get_u32(value, 0).map(u32::cast_signed),
            IFLA_LINKINFO => parse_info(&mut link, value),
            IFLA_STATS64 => link.losses = Losses::parse(value),
            _ => {}
        }
    }
    if grouped && !link.alias.starts_with(ALIAS_PREFIX) {
        link.alias = ALIAS_PREFIX.to_owned();
    }
    Some(link)
}

fn parse_info(link: &mut RawLink, info: &[u8]) {
    link.kind = attribute(info, 0, IFLA_INFO_KIND).map(get_text).unwrap_or_default();
    if link.kind == "vxlan" {
        link.vxlan = attribute(info, 0, IFLA_INFO_DATA).and_then(parse_vxlan);
    }
    let data = attribute(info, 0, IFLA_INFO_DATA);
    link.tap = link.kind == "tun" && data.is_some_and(is_our_tap);
    link.child = data.and_then(|data| child::parse(&link.kind, data));
    let slave = attribute(info, 0, IFLA_INFO_SLAVE_KIND).map(get_text);
    if slave.as_deref() == Some("openvswitch") {
        // Its master is the kernel module, the same for all bridges.
        link.switched = true;
        link.master = None;
    }
    if slave.as_deref() == Some("bridge") {
        link.port = attribute(info, 0, IFLA_INFO_SLAVE_DATA).map(parse_port);
    }
}

fn parse_vxlan(data: &[u8]) -> Option<(u32, Option<IpAddr>, u16, bool)> {
    let local = attribute(data, 0, IFLA_VXLAN_LOCAL).or(attribute(data, 0, IFLA_VXLAN_LOCAL6));
    let port = attribute(data, 0, IFLA_VXLAN_PORT)?;
    let learning = attribute(data, 0, IFLA_VXLAN_LEARNING).is_some_and(|value| value == [1]);
    Some((
        get_u32(attribute(data, 0, IFLA_VXLAN_ID)?, 0)?,
        local.and_then(get_ip),
        u16::from_be_bytes(port.try_into().ok()?),
        learning,
    ))
}

/// A persistent TAP for many queues, with headers of virtio-net and none of its own.
fn is_our_tap(data: &[u8]) -> bool {
    let byte = |kind| attribute(data, 0, kind).and_then(|value| value.first().copied());
    let tap = u8::try_from(libc::IFF_TAP).ok();
    let flags = [IFLA_TUN_VNET_HDR, IFLA_TUN_PERSIST, IFLA_TUN_MULTI_QUEUE];
    byte(IFLA_TUN_TYPE) == tap
        && byte(IFLA_TUN_PI) == Some(0)
        && flags.into_iter().all(|kind| byte(kind) == Some(1))
}

fn parse_port(data: &[u8]) -> PortFlags {
    let on = |kind| attribute(data, 0, kind).is_some_and(|value| value == [1]);
    PortFlags {
        learning: on(IFLA_BRPORT_LEARNING),
        flood: on(IFLA_BRPORT_UNICAST_FLOOD),
        neigh_suppress: on(IFLA_BRPORT_NEIGH_SUPPRESS),
        isolated: on(IFLA_BRPORT_ISOLATED),
        hairpin: on(IFLA_BRPORT_MODE),
        locked: attribute(data, 0, IFLA_BRPORT_LOCKED).map(|value| value == [1]),
    }
}

/// Which links there are and which of them Open vSwitch holds: what a look at its own records depends on.
pub(crate) fn switched(dump: &[RawLink]) -> BTreeSet<(String, u32, bool)> {
    dump.iter().map(|raw| (raw.name.clone(), raw.index, raw.switched)).collect()
}

/// All indexes of a namespace.
pub(crate) fn indexes(dump: &[RawLink]) -> Indexes {
    let mut indexes = Indexes::default();
    for link in dump {
        indexes.insert(link.name.clone(), link.index);
    }
    indexes
}

/// The links that are marked as ours, have a name of our kind, or have a wanted one; returns their indexes.
/// `tunnel` is the number of the tunnel's namespace.
pub(crate) fn host_objects(
    dump: &[RawLink],
    wanted: &BTreeSet<String>,
    tunnel: Option<i32>,
    objects: &mut Objects,
) -> Indexes {
    let all = indexes(dump);
    let mut ours = Indexes::default();
    let shown = |raw: &&RawLink| {
        raw.alias.starts_with(ALIAS_PREFIX)
            || names::is_derived(&raw.name)
            || wanted.contains(&raw.name)
    };
    for raw in dump.iter().filter(shown) {
        ours.insert(raw.name.clone(), raw.index);
        let peer = || raw.peer.and_then(|index| all.name(index)).unwrap_or_default().to_owned();
        let veth = match names::is_stub(&raw.name) {
            true => LinkKind::Stub { peer: peer() },
            false => LinkKind::Veth,
        };
        let mut link = value(raw, &all, &all, veth);
        if let (Some(kind), "vxlan") = (tunnelled(raw, tunnel), raw.kind.as_str()) {
            link.kind = kind;
        }
        put(objects, Object::Link(raw.name.clone(), link));
    }
    ours
}

/// What a VXLAN device is whose packets travel in another namespace: the tunnel's, or one that is none of
/// ours.
fn tunnelled(raw: &RawLink, tunnel: Option<i32>) -> Option<LinkKind> {
    let elsewhere = raw.elsewhere?;
    Some(match raw.vxlan {
        Some((vni, None, port, false)) if Some(elsewhere) == tunnel => {
            LinkKind::Tunnelled { vni, port }
        }
        _ => LinkKind::Foreign,
    })
}

/// The devices of the tunnel's namespace; returns their indexes, those of WireGuard also by name.
pub(crate) fn tunnel_objects(dump: &[RawLink], objects: &mut Objects) -> (Indexes, Vec<String>) {
    let all = indexes(dump);
    let (mut ours, mut devices) = (Indexes::default(), Vec::new());
    for raw in dump.iter().filter(|raw| raw.loopback || raw.alias.starts_with(ALIAS_PREFIX)) {
        let mut link = value(raw, &all, &all, LinkKind::Foreign);
        if raw.loopback {
            link = Link { kind: LinkKind::Loopback, mac: None, mtu: 0, ..link };
        } else {
            ours.insert(raw.name.clone(), raw.index);
        }
        if link.kind == LinkKind::WireGuard {
            devices.push(raw.name.clone());
        }
        put(objects, Object::Link(raw.name.clone(), link));
    }
    (ours, devices)
}

/// The loopback, marked links, and those with a wanted name.
pub(crate) fn sandbox_objects(
    dump: &[RawLink],
    wanted: &BTreeSet<String>,
    host: &Indexes,
    objects: &mut Objects,
) -> Indexes {
    let all = indexes(dump);
    let mut ours = Indexes::default();
    for raw in dump {
        let ours_if_there = raw.alias.starts_with(ALIAS_PREFIX) || wanted.contains(&raw.name);
        if raw.loopback {
            let link = Link { mac: None, mtu: 0, ..value(raw, &all, host, LinkKind::Loopback) };
            put(objects, Object::Link(raw.name.clone(), link));
        } else if ours_if_there {
            ours.insert(raw.name.clone(), raw.index);
            let outer = raw.peer.and_then(|index| host.name(index)).unwrap_or_default().to_owned();
            let veth = match names::is_cable(&raw.alias) {
                true => LinkKind::Cable,
                false => LinkKind::Inner { outer },
            };
            put(objects, Object::Link(raw.name.clone(), value(raw, &all, host, veth)));
        }
    }
    ours
}

/// A raw link as a value; `parents` are the links it can be made on, `veth` is what a veth is here.
fn value(raw: &RawLink, all: &Indexes, parents: &Indexes, veth: LinkKind) -> Link {
    let parent = raw.peer.and_then(|index| parents.name(index)).unwrap_or_default();
    let kind = match (raw.kind.as_str(), raw.vxlan) {
        _ if raw.child.is_some() => {
            raw.child.map_or(LinkKind::Foreign, |child| child.on(parent.to_owned()))
        }
        _ if raw.loopback => LinkKind::Loopback,
        ("bridge", _) => LinkKind::Bridge,
        ("wireguard", _) => LinkKind::WireGuard,
        ("tun", _) if names::is_derived(&raw.name) => match raw.tap {
            true => LinkKind::Tap,
            false => LinkKind::Foreign,
        },
        // Of the kernel module, or of the daemon's own datapath.
        ("openvswitch" | "tun", _) => LinkKind::Internal,
        ("veth", _) => veth,
        ("vxlan", Some((vni, Some(local), port, false))) => LinkKind::Vxlan { vni, local, port },
        _ => LinkKind::Foreign,
    };
    let pinned = matches!(
        kind,
        LinkKind::Bridge
            | LinkKind::Internal
            | LinkKind::Inner { .. }
            | LinkKind::Macvlan { .. }
            | LinkKind::Cable
    );
    Link {
        mac: raw.mac.filter(|_| pinned),
        kind,
        alias: raw.alias.clone(),
        mtu: raw.mtu,
        master: raw.master.map(|index| all.name(index).unwrap_or_default().to_owned()),
        port: raw.port,
        up: raw.up,
    }
}

pub(super) fn fixed(index: u32, flags: u32, change: u32) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    bytes.extend(index.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(change.to_ne_bytes());
    bytes
}

pub(super) const CREATE: u16 = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;

/// Makes a bridge, VXLAN or WireGuard device, down and unmarked.
pub(crate) fn create(name: &str, link: &Link) -> Option<Message> {
    let mut message = Message::new(RTM_NEWLINK, CREATE, &fixed(0, 0, 0));
    message.text(IFLA_IFNAME, name).u32(IFLA_GROUP, LINK_GROUP);
    if link.mtu != 0 {
        message.u32(IFLA_MTU, link.mtu);
    }
    if let Some(mac) = link.mac {
        message.put(IFLA_ADDRESS, &mac.0);
    }
    match &link.kind {
        LinkKind::Bridge => {
            message.nest(IFLA_LINKINFO, |info| {
                info.text(IFLA_INFO_KIND, "bridge").nest(IFLA_INFO_DATA, |data| {
                    // Snooping would prune multicast that neighbour discovery needs.
                    data.u32(IFLA_BR_STP_STATE, 0).put(IFLA_BR_MCAST_SNOOPING, &[0]);
                });
            });
        }
        LinkKind::Vxlan { vni, local, port } => {
            message.nest(IFLA_LINKINFO, |info| {
                info.text(IFLA_INFO_KIND, "vxlan").nest(IFLA_INFO_DATA, |data| {
                    vxlan_data(data, *vni, Some(*local), *port);
                });
            });
        }
        LinkKind::Tunnelled { vni, port } => {
            message.nest(IFLA_LINKINFO, |info| {
                info.text(IFLA_INFO_KIND, "vxlan").nest(IFLA_INFO_DATA, |data| {
                    vxlan_data(data, *vni, None, *port);
                });
            });
        }
        LinkKind::WireGuard => {
            message.nest(IFLA_LINKINFO, |info| {
                info.text(IFLA_INFO_KIND, "wireguard");
            });
        }
        LinkKind::Stub { peer } => {
            message.nest(IFLA_LINKINFO, |info| {
                info.text(IFLA_INFO_KIND, "veth").nest(IFLA_INFO_DATA, |data| {
                    data.nest(VETH_INFO_PEER, |end| {
                        end.raw(&fixed(0, 0, 0)).text(IFLA_IFNAME, peer).u32(IFLA_MTU, link.mtu);
                        end.u32(IFLA_GROUP, LINK_GROUP);
                    });
                });
            });
        }
        LinkKind::Loopback
        | LinkKind::Veth
        | LinkKind::Inner { .. }
        | LinkKind::Vlan { .. }
        | LinkKind::Macvlan { .. }
        | LinkKind::Ipvlan { .. }
        | LinkKind::Cable
        | LinkKind::Tap
        | LinkKind::Internal
        | LinkKind::Foreign => return None,
    }
    Some(message)
}

/// Makes a device from a socket in another namespace than the one behind `netns`, which it is born in: its own
/// socket stays in the asker's.
pub(crate) fn create_in(name: &str, link: &Link, netns: u32) -> Option<Message> {
    let mut message = create(name, link)?;
    message.u32(IFLA_NET_NS_FD, netns);
    Some(message)
}

/// Marks a link as ours.
pub(crate) fn mark(index: u32, alias: &str) -> Message {
    let mut message = Message::new(RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK, &fixed(index, 0, 0));
    message.u32(IFLA_GROUP, LINK_GROUP).text(IFLA_IFALIAS, alias);
    message
}

/// Without a source address the route to the destination gives one.
fn vxlan_data(data: &mut Message, vni: u32, local: Option<IpAddr>, port: u16) {
    data.u32(IFLA_VXLAN_ID, vni)
        .put(IFLA_VXLAN_PORT, &port.to_be_bytes())
        .put(IFLA_VXLAN_LEARNING, &[0]);
    match local {
        // The inner packet has its own checksum, and some hardware gets the outer one wrong.
        Some(IpAddr::V4(v4)) => {
            data.put(IFLA_VXLAN_LOCAL, &v4.octets()).put(IFLA_VXLAN_UDP_CSUM, &[0])
        }
        // Over IPv6 the checksum is mandatory (RFC 8200) unless both ends agree.
        Some(IpAddr::V6(v6)) => data.put(IFLA_VXLAN_LOCAL6, &v6.octets()),
        None => data.put(IFLA_VXLAN_UDP_CSUM, &[0]),
    };
}

/// Makes a veth whose other end is born inside the namespace behind `netns`, with its name, MAC and MTU, and
/// itself in that behind `own`, or in the socket's.
pub(crate) fn create_pair(
    name: &str,
    link: &Link,
    inner_name: &str,
    inner: &Link,
    netns: u32,
    own: Option<u32>,
) -> Message {
    let mut message = Message::new(RTM_NEWLINK, CREATE, &fixed(0, 0, 0));
    message.text(IFLA_IFNAME, name).u32(IFLA_MTU, link.mtu).u32(IFLA_GROUP, LINK_GROUP);
    if let Some(mac) = link.mac {
        message.put(IFLA_ADDRESS, &mac.0);
    }
    if let Some(own) = own {
        message.u32(IFLA_NET_NS_FD, own);
    }
    message.nest(IFLA_LINKINFO, |info| {
        info.text(IFLA_INFO_KIND, "veth").nest(IFLA_INFO_DATA, |data| {
            data.nest(VETH_INFO_PEER, |peer| {
                peer.raw(&fixed(0, 0, 0)).text(IFLA_IFNAME, inner_name).u32(IFLA_MTU, inner.mtu);
                peer.u32(IFLA_GROUP, LINK_GROUP);
                if let Some(mac) = inner.mac {
                    peer.put(IFLA_ADDRESS, &mac.0);
                }
                peer.u32(IFLA_NET_NS_FD, netns);
            });
        });
    });
    message
}

/// Gives a link, named by its index, the values of `link`; `master` is the bridge's index, 0 for none.
///
/// Two messages: port flags can only be set on a port, and must be set before it is up.
pub(crate) fn configure(index: u32, link: &Link, master: u32) -> Vec<Message> {
    let ack = NLM_F_REQUEST | NLM_F_ACK;
    let mut first = Message::new(RTM_NEWLINK, ack, &fixed(index, 0, 0));
    if link.kind != LinkKind::Loopback {
        first.text(IFLA_IFALIAS, &link.alias);
        if link.mtu != 0 {
            first.u32(IFLA_MTU, link.mtu);
        }
        // Below IPv6's smallest MTU, or without IPv6 in the kernel, a link has no IPv6 settings.
        if link.mtu >= mtu::MINIMUM && crate::kernel::sysctl::has_ipv6() {
            // No link-local address: the gateway's MAC is shared, and must not speak for itself.
            first.nest(IFLA_AF_SPEC, |spec| {
                spec.nest(libc::AF_INET6 as u16, |six| {
                    six.put(IFLA_INET6_ADDR_GEN_MODE, &[IN6_ADDR_GEN_MODE_NONE]);
                });
            });
        }
    }
    if let Some(mac) = link.mac {
        first.put(IFLA_ADDRESS, &mac.0);
    }
    if link.port.is_some() {
        first.u32(IFLA_MASTER, master);
    }
    let up = if link.up { UP } else { 0 };
    let mut second = Message::new(RTM_NEWLINK, ack, &fixed(index, up, UP));
    if let Some(port) = link.port {
        second.nest(IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_SLAVE_KIND, "bridge").nest(IFLA_INFO_SLAVE_DATA, |data| {
                data.put(IFLA_BRPORT_LEARNING, &[port.learning.into()])
                    .put(IFLA_BRPORT_UNICAST_FLOOD, &[port.flood.into()])
                    .put(IFLA_BRPORT_NEIGH_SUPPRESS, &[port.neigh_suppress.into()])
                    .put(IFLA_BRPORT_ISOLATED, &[port.isolated.into()])
                    .put(IFLA_BRPORT_MODE, &[port.hairpin.into()]);
                if let Some(locked) = port.locked {
                    data.put(IFLA_BRPORT_LOCKED, &[locked.into()]);
                }
            });
        });
    }
    vec![first, second]
}

/// Gives a link that is down another name.
pub(crate) fn rename(index: u32, name: &str) -> Message {
    let mut message = Message::new(RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK, &fixed(index, 0, 0));
    message.text(IFLA_IFNAME, name);
    message
}

/// Removes a link by its name.
pub(crate) fn delete(name: &str) -> Message {
    let mut message = Message::new(RTM_DELLINK, NLM_F_REQUEST | NLM_F_ACK, &fixed(0, 0, 0));
    message.text(IFLA_IFNAME, name);
    message
}

/// Whether a link carries packets. Asking for one link makes the kernel finish a change of its carrier that
/// it would otherwise finish later (since Linux 6.8; `linkwatch_sync_dev`).
pub(crate) fn carries(socket: &mut Socket, index: u32) -> Result<bool, KernelError> {
    let question = Message::new(RTM_GETLINK, NLM_F_REQUEST | NLM_F_ACK, &fixed(index, 0, 0));
    let mut state = None;
    socket.ask("state of a link", question, |message| {
        if message.kind == RTM_NEWLINK {
            state = attribute(message.body, FIXED, IFLA_OPERSTATE).and_then(|v| v.first().copied());
        }
    })?;
    Ok(matches!(state, Some(IF_OPER_UP | IF_OPER_UNKNOWN)))
}

/// The index of one link.
pub(crate) fn find(socket: &mut Socket, name: &str) -> Result<u32, KernelError> {
    let mut question = Message::new(RTM_GETLINK, NLM_F_REQUEST | NLM_F_ACK, &fixed(0, 0, 0));
    question.text(IFLA_IFNAME, name);
    let missing = || KernelError::NoLink { name: name.to_owned() };
    let mut index = None;
    let asked = socket.ask("link by name", question, |message| {
        if message.kind == RTM_NEWLINK {
            index = wire::get_u32(message.body, 4);
        }
    });
    asked.map_err(|error| match error {
        KernelError::Refused { errno: libc::ENODEV, .. } => missing(),
        other => other,
    })?;
    index.ok_or_else(missing)
}
