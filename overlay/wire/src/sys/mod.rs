//! What the engine asks of the kernel: TAP queues, UDP sockets, readiness.

mod poller;
mod sockopt;
mod tap;
mod udp;

pub use poller::{Poller, Wake};
pub use tap::{Tap, VNET_HEADER};
pub use udp::{Received, Sending, Udp};
