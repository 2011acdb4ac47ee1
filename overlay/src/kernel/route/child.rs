//! Devices that are made on another device: 802.1Q sub-interfaces, macvlan and ipvlan.
//!
//! One in a sandbox is asked for in the host's namespace, where its parent is, and born in the sandbox's: it
//! never exists anywhere else. It gets its name there: some kernels (6.1 is one) refuse to make a device
//! whose name one of the asker's namespace has. Whoever is killed in between leaves what is marked as ours.

use super::link::{CREATE, fixed};
use crate::dataplane::{IpvlanMode, MacvlanMode};
use crate::kernel::KernelError;
use crate::kernel::uapi::*;
use crate::kernel::wire::{Message, attribute, get_u16, get_u32};
use crate::names::LINK_GROUP;
use crate::plane::{Link, LinkKind};

/// Such a device without its parent.
#[derive(Clone, Copy, Debug)]
pub(super) enum Child {
    Vlan(u16),
    Macvlan(MacvlanMode),
    Ipvlan(IpvlanMode),
}

impl Child {
    pub(super) fn on(self, parent: String) -> LinkKind {
        match self {
            Child::Vlan(tag) => LinkKind::Vlan { parent, tag },
            Child::Macvlan(mode) => LinkKind::Macvlan { parent, mode },
            Child::Ipvlan(mode) => LinkKind::Ipvlan { parent, mode },
        }
    }
}

/// `MACVLAN_MODE_*` (linux/if_link.h).
fn macvlan_number(mode: MacvlanMode) -> u32 {
    match mode {
        MacvlanMode::Private => 1,
        MacvlanMode::Vepa => 2,
        MacvlanMode::Bridge => 4,
        MacvlanMode::Passthru => 8,
    }
}

/// `IPVLAN_MODE_*` (linux/if_link.h).
fn ipvlan_number(mode: IpvlanMode) -> u16 {
    match mode {
        IpvlanMode::L2 => 0,
        IpvlanMode::L3 => 1,
        IpvlanMode::L3s => 2,
    }
}

/// Reads the data of a device of this kind.
pub(super) fn parse(kind: &str, data: &[u8]) -> Option<Child> {
    use MacvlanMode::{Bridge, Passthru, Private, Vepa};
    match kind {
        "vlan" => get_u16(attribute(data, 0, IFLA_VLAN_ID)?, 0).map(Child::Vlan),
        "macvlan" => {
            let number = get_u32(attribute(data, 0, IFLA_MACVLAN_MODE)?, 0)?;
            let modes = [Bridge, Private, Vepa, Passthru];
            let mode = modes.into_iter().find(|mode| macvlan_number(*mode) == number);
            mode.map(Child::Macvlan)
        }
        "ipvlan" => {
            let number = get_u16(attribute(data, 0, IFLA_IPVLAN_MODE)?, 0)?;
            let modes = [IpvlanMode::L2, IpvlanMode::L3, IpvlanMode::L3s];
            modes.into_iter().find(|mode| ipvlan_number(*mode) == number).map(Child::Ipvlan)
        }
        _ => None,
    }
}

/// The device that one of these kinds is made on.
pub(crate) fn parent(kind: &LinkKind) -> Option<&str> {
    match kind {
        LinkKind::Vlan { parent, .. }
        | LinkKind::Macvlan { parent, .. }
        | LinkKind::Ipvlan { parent, .. } => Some(parent),
        LinkKind::Loopback
        | LinkKind::Bridge
        | LinkKind::Vxlan { .. }
        | LinkKind::Tunnelled { .. }
        | LinkKind::Tap
        | LinkKind::WireGuard
        | LinkKind::Veth
        | LinkKind::Inner { .. }
        | LinkKind::Stub { .. }
        | LinkKind::Cable
        | LinkKind::Internal
        | LinkKind::Foreign => None,
    }
}

/// Makes such a device on the device of index `parent`, in the namespace behind `netns`, or in the socket's.
pub(crate) fn create(name: &str, link: &Link, parent: u32, netns: Option<u32>) -> Message {
    let mut message = Message::new(RTM_NEWLINK, CREATE, &fixed(0, 0, 0));
    message.text(IFLA_IFNAME, name).u32(IFLA_GROUP, LINK_GROUP).u32(IFLA_LINK, parent);
    if let Some(netns) = netns {
        message.u32(IFLA_NET_NS_FD, netns);
    }
    if link.mtu != 0 {
        message.u32(IFLA_MTU, link.mtu);
    }
    if let Some(mac) = link.mac {
        message.put(IFLA_ADDRESS, &mac.0);
    }
    message.nest(IFLA_LINKINFO, |info| {
        info.text(IFLA_INFO_KIND, configuration(&link.kind).0);
        info.nest(IFLA_INFO_DATA, |data| match &link.kind {
            LinkKind::Vlan { tag, .. } => {
                data.put(IFLA_VLAN_ID, &tag.to_ne_bytes());
            }
            LinkKind::Macvlan { mode, .. } => {
                data.u32(IFLA_MACVLAN_MODE, macvlan_number(*mode));
            }
            LinkKind::Ipvlan { mode, .. } => {
                data.put(IFLA_IPVLAN_MODE, &ipvlan_number(*mode).to_ne_bytes());
            }
            _ => {}
        });
    });
    message
}

/// What the kernel calls a kind, and the option that it is built with.
fn configuration(kind: &LinkKind) -> (&'static str, &'static str) {
    match kind {
        LinkKind::Vlan { .. } => ("vlan", "CONFIG_VLAN_8021Q"),
        LinkKind::Ipvlan { .. } => ("ipvlan", "CONFIG_IPVLAN"),
        _ => ("macvlan", "CONFIG_MACVLAN"),
    }
}

/// What a refusal to make one means.
pub(crate) fn refusal(link: &Link, errno: i32) -> KernelError {
    let (what, option) = configuration(&link.kind);
    match (&link.kind, errno) {
        // Also the answer to a type that no module provides (rtnetlink, "Unknown device type").
        (_, libc::EOPNOTSUPP) => KernelError::Missing { what, option },
        // A passthru device wants its parent for itself, and others do not get one that has it
        // (`macvlan_common_newlink`). Another kind of child has the parent's receiver already: EBUSY.
        (LinkKind::Macvlan { parent, mode: MacvlanMode::Passthru }, libc::EINVAL)
        | (LinkKind::Macvlan { parent, .. } | LinkKind::Ipvlan { parent, .. }, libc::EBUSY) => {
            KernelError::Taken { name: parent.clone() }
        }
        _ => KernelError::errno(format!("making a {what} device"), errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_without_a_kind_says_which() {
        let kind = LinkKind::Ipvlan { parent: "eth0".into(), mode: IpvlanMode::L3 };
        let link = Link {
            kind,
            alias: String::new(),
            mac: None,
            mtu: 0,
            master: None,
            port: None,
            up: true,
        };
        let error = refusal(&link, libc::EOPNOTSUPP);
        assert_eq!(error.to_string(), "this kernel has no ipvlan (CONFIG_IPVLAN)");
        let kind = LinkKind::Vlan { parent: "eth0".into(), tag: 10 };
        let error = refusal(&Link { kind, ..link }, libc::EOPNOTSUPP);
        assert_eq!(error.to_string(), "this kernel has no vlan (CONFIG_VLAN_8021Q)");
    }
}
