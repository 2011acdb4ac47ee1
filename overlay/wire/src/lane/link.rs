//! The sessions between one key of this node and one of another, on one lane.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use boringtun::noise::{Tunn, TunnResult, errors::WireGuardError};

use crate::{Key, Reason, sys::Udp};

/// Packets that [`Tunn`] keeps while there is no session; it drops what is more.
const QUEUE: usize = 256;
/// Bytes that sealing adds to a packet.
pub const OVERHEAD: usize = 32;
/// Bytes of the longest message that is no data: a handshake's first.
pub const HANDSHAKE: usize = 148;

/// Which two keys: ours and theirs, the public halves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pair {
    pub own: Key,
    pub peer: Key,
}

/// State of WireGuard for one pair of keys.
pub struct Link {
    pub pair: Pair,
    /// Number of the other node.
    pub node: u64,
    /// Tunnel addresses, ours and theirs.
    pub own_address: Ipv4Addr,
    pub peer_address: Ipv4Addr,
    /// Where packets go.
    pub endpoint: SocketAddr,
    /// Where they went at first, until the configuration says otherwise.
    pub configured: SocketAddr,
    pub socket: Arc<Udp>,
    pub tunn: Tunn,
    /// Whether there is a session to send on.
    pub live: bool,
    /// Packets that wait for one.
    pub queued: usize,
    /// When a packet was last sent.
    pub spoke: Instant,
    /// When the last cookie was answered at once.
    pub cookie: Option<Instant>,
    /// When a handshake was last begun ahead of need.
    pub greeted: Option<Instant>,
}

/// What became of a packet that should be sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sealed {
    /// It is a packet of this many bytes.
    Data(usize),
    /// It waits; a handshake of this many bytes should be sent.
    Handshake(usize),
    /// It waits.
    Waits,
    /// Too many wait.
    Full,
}

impl Link {
    /// Seals `packet` into `out`, which has room for it, [`OVERHEAD`], and a [`HANDSHAKE`].
    pub fn seal(&mut self, packet: &[u8], out: &mut [u8]) -> Sealed {
        let full = !self.live && self.queued >= QUEUE;
        let sealed = match self.tunn.encapsulate(packet, out) {
            TunnResult::WriteToNetwork(message) if is_data(message) => {
                self.live = true;
                return Sealed::Data(message.len());
            }
            TunnResult::WriteToNetwork(message) => Sealed::Handshake(message.len()),
            // The crate has no error here; done says that a handshake is under way.
            TunnResult::Done
            | TunnResult::Err(_)
            | TunnResult::WriteToTunnelV4(..)
            | TunnResult::WriteToTunnelV6(..) => Sealed::Waits,
        };
        self.live = false;
        if full && sealed == Sealed::Waits {
            return Sealed::Full;
        }
        self.queued = (self.queued + 1).min(QUEUE);
        sealed
    }

    /// Whether a session can be sent on, as the crate sees it now.
    pub fn look(&mut self) {
        self.live = self.tunn.time_since_last_handshake().is_some();
    }
}

/// Whether a message of WireGuard carries data: all others are of a handshake.
pub fn is_data(message: &[u8]) -> bool {
    message.first() == Some(&4)
}

/// What the crate's error means to whoever looks at the counters.
pub fn reason(error: &WireGuardError) -> Reason {
    match error {
        WireGuardError::InvalidCounter
        | WireGuardError::DuplicateCounter
        | WireGuardError::WrongTai64nTimestamp => Reason::Replayed,
        WireGuardError::UnderLoad => Reason::UnderLoad,
        WireGuardError::IncorrectPacketLength | WireGuardError::WrongPacketType => {
            Reason::Malformed
        }
        // The crate finds it in what it has opened: authentic, but no IP packet.
        WireGuardError::InvalidPacket => Reason::ForeignInside,
        WireGuardError::NoCurrentSession | WireGuardError::ConnectionExpired => Reason::NoSession,
        WireGuardError::DestinationBufferTooSmall | WireGuardError::LockFailed => Reason::Device,
        WireGuardError::UnexpectedPacket
        | WireGuardError::WrongIndex
        | WireGuardError::WrongKey
        | WireGuardError::InvalidTai64nTimestamp
        | WireGuardError::InvalidMac
        | WireGuardError::InvalidAeadTag => Reason::Forged,
    }
}
