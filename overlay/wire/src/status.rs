//! What the engine has seen.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use serde::{Deserialize, Serialize};

/// Why a packet was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// No key of ours or of a peer opens it, or it was changed on the way.
    Forged,
    /// Its counter was seen before, or is too old.
    Replayed,
    /// It is no packet of WireGuard at all.
    Malformed,
    /// What it carries is not VXLAN between the two tunnel addresses.
    ForeignInside,
    /// Its VXLAN network identifier is none that the two nodes share.
    ForeignNetwork,
    /// Its inner MAC or IP address is not one of that node's interfaces.
    SpoofedSource,
    /// Too many handshakes at once.
    UnderLoad,
    /// No node has the MAC address that the frame is for.
    NoDestination,
    /// The session is not established and the queue for it is full.
    NoSession,
    /// The kernel did not take it.
    Device,
    /// A router on the way was congested, and its flow cannot be told in another way (RFC 6040).
    Congested,
}

/// How the engine is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the program.
    pub version: String,
    /// Process ID.
    pub pid: u32,
    /// By number of the node.
    pub peers: BTreeMap<u64, PeerStatus>,
    /// Packets that were dropped before it was known whose they were.
    pub drops: BTreeMap<Reason, u64>,
    /// Networks whose TAP device is not open, and why; by VXLAN network identifier.
    pub devices: BTreeMap<u32, String>,
}

/// How the link to one node is doing; sums over its keys and lanes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Where its last authentic packet came from, or where it is looked for.
    pub endpoint: Option<SocketAddr>,
    /// Since the last handshake that ended well.
    pub handshake_age: Option<Duration>,
    /// Bytes sent, with all headers of WireGuard.
    pub sent: u64,
    /// Bytes received and found authentic.
    pub received: u64,
    /// Packets of it, or for it, that were dropped.
    pub drops: BTreeMap<Reason, u64>,
}
