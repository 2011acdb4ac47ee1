//! What can be known of a node, as values.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use ipnet::IpNet;
use weft_overlay::kernel::checkup::Checkup;
use weft_proto::v1::NodeLinksResponse;

use crate::metrics::Room;

/// All of it.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The machine.
    pub host: Host,
    /// What its daemon says; none runs.
    pub daemon: Option<Daemon>,
}

/// The machine.
#[derive(Clone, Debug)]
pub struct Host {
    /// Capabilities that this process should have and has not.
    pub lacking: Vec<&'static str>,
    /// The kernel, and what of ours is in it; or why it could not be asked.
    pub kernel: Result<Checkup, String>,
    /// Why TAP devices cannot be made, if so.
    pub no_tun: Option<String>,
    /// What carries encrypted links, and why.
    pub wireguard: String,
    /// Whether the host forwards IPv4.
    pub forwards: Option<bool>,
    /// Whether we are to have tables in the host, and to make it forward.
    pub policy: Policy,
    /// Our ports that somebody else has.
    pub taken: Vec<TakenPort>,
    /// Our directories.
    pub directories: Vec<Directory>,
    /// Servers in /etc/resolv.conf that a container's names can be asked of.
    pub resolvers: usize,
}

/// What the daemon was told of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// `--nftables`.
    pub nftables: bool,
    /// `--ip-forward`.
    pub ip_forward: bool,
}

/// A port that should be ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakenPort {
    /// "tcp" or "udp".
    pub protocol: &'static str,
    /// Its number.
    pub port: u16,
    /// What we need it for.
    pub purpose: &'static str,
    /// Process ID and name of who has it.
    pub holder: String,
}

/// A directory of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    /// "state" or "run".
    pub purpose: &'static str,
    /// Where.
    pub path: PathBuf,
    /// What it is; none: it is not there.
    pub found: Option<FoundDirectory>,
    /// Room below which nothing works, bytes.
    pub needed: u64,
}

/// What a directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundDirectory {
    /// User ID of its owner.
    pub owner: u32,
    /// Permission bits.
    pub mode: u32,
    /// Room on its disk.
    pub room: Option<Room>,
}

/// What a daemon says.
#[derive(Clone, Debug, Default)]
pub struct Daemon {
    /// What the kernel refused at the last look, in words.
    pub errors: Vec<String>,
    /// Containers whose network is not as wanted, and why.
    pub troubled: Vec<(String, String)>,
    /// Tasks and containers that failed lately.
    pub failed: Vec<Failed>,
    /// The cluster; none: in none.
    pub member: Option<Member>,
}

/// A task or container that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// Its name.
    pub name: String,
    /// Why.
    pub error: String,
    /// How long ago.
    pub ago: Duration,
    /// A command that says more.
    pub look: String,
}

/// The node as a member of a cluster.
#[derive(Clone, Debug, Default)]
pub struct Member {
    /// The session with the managers.
    pub session: Session,
    /// What each manager said when it was called.
    pub managers: Vec<Called>,
    /// The node's own certificate: seconds left of it, negative if it has ended, and its whole life.
    pub certificate: Option<(i64, Duration)>,
    /// The way to each other node.
    pub paths: Vec<Path>,
    /// The encrypted links; or why they cannot be asked.
    pub links: Option<Result<NodeLinksResponse, String>>,
    /// Networks over a route of this host: network, its subnet, whose route.
    pub overlaps: Vec<(String, IpNet, String)>,
    /// What only a manager knows.
    pub quorum: Option<Quorum>,
}

/// The session with the managers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// With which one.
    pub manager: Option<SocketAddr>,
    /// Why there is none.
    pub error: String,
    /// Since when there is none.
    pub lost: Option<Duration>,
}

/// A manager that was called.
#[derive(Clone, Debug, PartialEq)]
pub struct Called {
    /// Where.
    pub address: SocketAddr,
    /// Whether it is this node.
    pub own: bool,
    /// Seconds that its clock is ahead of ours, or why it did not answer.
    pub clock: Result<f64, String>,
}

/// The way to another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// Its name, if this node knows it.
    pub hostname: Option<String>,
    /// Its data path's address.
    pub address: IpAddr,
    /// Whether the managers count it as down.
    pub down: bool,
    /// Whether it answers.
    pub answers: bool,
    /// What happened to packets of the size that the networks need, sent not to be cut.
    pub large: Option<Large>,
}

/// What happened to large packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Large {
    /// Bytes of the whole IP packet.
    pub size: u32,
    /// The largest that was answered, if that is less.
    pub passes: Option<u32>,
    /// Whether the whole size was.
    pub whole: bool,
}

/// What a manager knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quorum {
    /// Whether it knows of a leader.
    pub leader: bool,
    /// Managers with a vote: name, address, whether it answers.
    pub voters: Vec<(String, String, bool)>,
    /// Nodes that are not in touch: name, state in a word, since when, why.
    pub away: Vec<(String, String, Duration, String)>,
    /// Why this manager takes no part, if so.
    pub condemned: Option<String>,
    /// Bytes free and needed, while the store is short of room.
    pub no_room: Option<(u64, u64)>,
    /// Addresses free and all, of networks that have few left: network, free, all.
    pub full: Vec<(String, u128, u128)>,
}

/// Names of nodes by address.
pub type Names = BTreeMap<IpAddr, String>;
