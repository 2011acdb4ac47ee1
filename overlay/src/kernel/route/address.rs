//! Addresses on links.

use ipnet::IpNet;

use crate::kernel::KernelError;
use crate::kernel::socket::Socket;
use crate::kernel::uapi::*;
use crate::kernel::wire::{Message, attribute, family_byte, get_ip, get_u32, ip_bytes};

/// Length of `struct ifaddrmsg`.
const FIXED: usize = 8;

/// All addresses of a namespace with the index of their link.
pub(crate) fn dump(socket: &mut Socket) -> Result<Vec<(u32, IpNet)>, KernelError> {
    let question = Message::new(RTM_GETADDR, NLM_F_REQUEST | NLM_F_DUMP, &[0; FIXED]);
    socket.dump("addresses", &question, |message, rows| {
        if message.kind == RTM_NEWADDR {
            rows.extend(parse(message.body));
        }
    })
}

fn parse(body: &[u8]) -> Option<(u32, IpNet)> {
    let prefix = *body.get(1)?;
    let value = attribute(body, FIXED, IFA_LOCAL).or(attribute(body, FIXED, IFA_ADDRESS))?;
    Some((get_u32(body, 4)?, IpNet::new(get_ip(value)?, prefix).ok()?))
}

/// Link-local addresses come and go with the kernel's own rules.
pub(crate) fn is_kernels_own(net: IpNet) -> bool {
    match net {
        IpNet::V4(_) => false,
        IpNet::V6(v6) => v6.addr().is_unicast_link_local(),
    }
}

/// Adds an address that is usable at once: no duplicate address detection, ours are decided elsewhere.
pub(crate) fn add(index: u32, net: IpNet) -> Message {
    message(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, index, net)
}

pub(crate) fn delete(index: u32, net: IpNet) -> Message {
    message(RTM_DELADDR, 0, index, net)
}

fn message(kind: u16, flags: u16, index: u32, net: IpNet) -> Message {
    let mut fixed = vec![family_byte(net.addr()), net.prefix_len(), IFA_F_NODAD, 0];
    fixed.extend(index.to_ne_bytes());
    let mut message = Message::new(kind, NLM_F_REQUEST | NLM_F_ACK | flags, &fixed);
    let bytes = ip_bytes(net.addr());
    message.put(IFA_LOCAL, &bytes).put(IFA_ADDRESS, &bytes);
    message
}
