//! The small numbers by which the kernel names other namespaces in its events.

use crate::kernel::KernelError;
use crate::kernel::netns::Netns;
use crate::kernel::socket::Socket;
use crate::kernel::uapi::*;
use crate::kernel::wire::{Message, attribute, get_u32};

/// Length of `struct rtgenmsg`, aligned.
const FIXED: usize = 4;
/// Let the kernel choose; also its answer when there is none.
const ANY: u32 = u32::MAX;

/// The id of a namespace as seen from the socket's; one is given if there was none.
pub(crate) fn id(socket: &mut Socket, netns: &Netns) -> Result<Option<i32>, KernelError> {
    let mut give = Message::new(RTM_NEWNSID, NLM_F_REQUEST | NLM_F_ACK, &[0; FIXED]);
    give.u32(NETNSA_NSID, ANY).u32(NETNSA_FD, netns.fd());
    // EEXIST: it has one already.
    socket.request(vec![give]).map_err(|error| KernelError::io("namespace id", &error))?;
    let mut ask = Message::new(RTM_GETNSID, NLM_F_REQUEST | NLM_F_ACK, &[0; FIXED]);
    ask.u32(NETNSA_FD, netns.fd());
    let mut found = None;
    socket.ask("namespace id", ask, |message| {
        if message.kind == RTM_NEWNSID {
            found = attribute(message.body, FIXED, NETNSA_NSID).and_then(|value| get_u32(value, 0));
        }
    })?;
    Ok(found.filter(|id| *id != ANY).map(u32::cast_signed))
}
