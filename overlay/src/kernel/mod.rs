//! The only IO of this crate: what a kernel can be asked, and the Linux one.
//!
//! **Architecture invariant:** nothing outside this folder opens a netlink socket, speaks nftables, enters
//! a namespace or writes a kernel parameter.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::dataplane::NetnsRef;
use crate::lower::Facts;
use crate::op::Op;
use crate::plane::Plane;

pub mod checkup;
pub(crate) mod conntrack;
pub mod engine;
#[doc(hidden)]
pub mod fuzzing;
pub mod linux;
pub(crate) mod netns;
pub(crate) mod nft;
pub(crate) mod ovs;
pub(crate) mod route;
pub(crate) mod socket;
pub(crate) mod sys;
pub(crate) mod sysctl;
pub(crate) mod tap;
pub(crate) mod uapi;
pub mod watch;
pub(crate) mod wire;
pub(crate) mod wireguard;

pub use wireguard::wireguard_available;

/// Something that has links, routes and tables: Linux, or the [fake](crate::fake).
pub trait Kernel {
    /// Looks. Reading changes nothing.
    fn observe(&mut self, look: &Look) -> Observation;

    /// Executes `ops` in order, going on after failures; one result for each.
    fn execute(&mut self, ops: &[Op]) -> Vec<Result<(), KernelError>>;

    /// Lets go of every sandbox that is not among these.
    fn release(&mut self, wanted: &BTreeMap<String, NetnsRef>);

    /// The sandboxes that are open.
    fn held(&self) -> Vec<String>;
}

/// Where to look, and at what.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// Whether to look at the host's own namespace.
    pub host: Option<HostLook>,
    /// The sandboxes to look into.
    pub sandboxes: BTreeMap<String, SandboxLook>,
}

/// What to look at in the host.
#[derive(Clone, Debug, Default)]
pub struct HostLook {
    /// Our tunnel endpoint, to find the MTU of its device.
    pub vtep: Option<IpAddr>,
    /// Links that would be ours if they were there, though their names do not say so.
    pub links: BTreeSet<String>,
    /// Kernel parameters to read, below /proc/sys.
    pub sysctls: BTreeSet<String>,
    /// The Open vSwitch bridges that are wanted.
    pub switches: BTreeSet<String>,
    /// Kernel parameters of the tunnel's namespace to read, if it is there.
    pub tunnel: BTreeSet<String>,
    /// Whether to ask Open vSwitch though nothing seems to have changed: asking takes a process.
    pub thorough: bool,
}

/// What to look at in a sandbox.
#[derive(Clone, Debug)]
pub struct SandboxLook {
    /// Where it is. `None`: only if it is still held from before.
    pub netns: Option<NetnsRef>,
    /// Interfaces that would be ours if they were there.
    pub links: BTreeSet<String>,
    /// Kernel parameters to read, below /proc/sys.
    pub sysctls: BTreeSet<String>,
}

/// What was seen.
#[derive(Debug, Default)]
pub struct Observation {
    /// Objects of ours. A place that could not be looked at is absent.
    pub plane: Plane,
    /// What else the wanted plane depends on; set when the host was looked at.
    pub facts: Facts,
    /// Why Open vSwitch could not be asked, where it was to be.
    pub switch_error: Option<KernelError>,
    /// Why places are absent: the host (`None`) or a sandbox.
    pub errors: BTreeMap<Option<String>, KernelError>,
}

/// Why the kernel could not be asked, or refused.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum KernelError {
    /// A system call or netlink request failed.
    #[error("{what}: {}", std::io::Error::from_raw_os_error(*errno))]
    Refused {
        /// What was asked.
        what: String,
        /// Positive error number.
        errno: i32,
    },
    /// The file is not the network namespace of a sandbox.
    #[error("{path} is {what}")]
    NotASandbox {
        /// The path given.
        path: String,
        /// What it is instead.
        what: &'static str,
    },
    /// A dump changed under our hands on every try.
    #[error("{what} kept changing while it was read ({tries} tries)")]
    Unsettled {
        /// What was read.
        what: &'static str,
        /// How often.
        tries: u32,
    },
    /// The kernel was built without something.
    #[error("this kernel has no {what} ({option})")]
    Missing {
        /// What.
        what: &'static str,
        /// The option of its configuration.
        option: &'static str,
    },
    /// A device has a user that does not share it.
    #[error("{name} is in use, and is not shared: a passthru network has one member")]
    Taken {
        /// The device.
        name: String,
    },
    /// An operation names a link that is not there.
    #[error("no link {name}")]
    NoLink {
        /// Its name.
        name: String,
    },
    /// An operation names a sandbox that is not open.
    #[error("sandbox {key} is not open")]
    NoSandbox {
        /// Its key.
        key: String,
    },
    /// The tunnel's namespace is not there.
    #[error("the tunnel's namespace is not open")]
    NoTunnel,
    /// The engine of encrypted networks could not be asked, or refused.
    #[error("{message}")]
    Engine {
        /// Why.
        message: String,
    },
    /// The nftables skeleton could not be compiled.
    #[error("nft: {message}")]
    Nft {
        /// What it printed.
        message: String,
    },
    /// Open vSwitch could not be asked, or refused.
    #[error("{message}")]
    Switch {
        /// Why.
        message: String,
    },
    /// An operation makes no sense for its object; a bug in the planner.
    #[error("not possible: {op}")]
    Senseless {
        /// The operation.
        op: String,
    },
}

impl KernelError {
    pub(crate) fn io(what: impl Into<String>, error: &std::io::Error) -> Self {
        Self::Refused { what: what.into(), errno: error.raw_os_error().unwrap_or(libc::EIO) }
    }

    pub(crate) fn engine(message: impl Into<String>) -> Self {
        Self::Engine { message: message.into() }
    }

    pub(crate) fn errno(what: impl Into<String>, errno: i32) -> Self {
        Self::Refused { what: what.into(), errno }
    }
}
