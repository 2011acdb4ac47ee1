//! A node's data plane: bridges, VXLAN devices, veths, routes and nftables, kept as they are wanted.
//!
//! Observe, plan, apply. [`Dataplane`] is what the caller wants, in the words of networks and sandboxes.
//! [`lower`](lower::lower) turns it into a [`Plane`], the kernel objects that make it true; the kernel is
//! read back as a [`Plane`] too; [`plan`](plan::plan) compares the two and yields ordered [`Op`]s;
//! a [`Kernel`] executes them and decides nothing. [`Reconciler`] puts the three together.
//!
//! **Architecture invariant:** only `kernel/` opens a netlink socket, speaks nftables or writes a sysctl.
//! Everything else is a pure function over ordered maps.

#![deny(unsafe_code)]

pub mod dataplane;
pub mod fake;
pub mod kernel;
pub mod lower;
pub mod mtu;
pub mod names;
pub mod op;
pub mod plan;
pub mod plane;
pub mod reconcile;

pub use dataplane::{
    Bridge, Cable, CableEnd, Dataplane, Engine, HostPolicy, Ipvlan, IpvlanMode, Kind, Macvlan,
    MacvlanMode, NetnsRef, Network, NetworkKey, Opening, Overlay, Ovs, Plain, Port, Protocol,
    Publish, Remote, Sandbox, Subnet, Tunnel, Underlay,
};
pub use kernel::{Kernel, linux::LinuxKernel};
pub use names::{Mac, mac_for};
pub use op::{Op, Verb};
pub use plane::{Object, Place, Plane};
pub use reconcile::{
    Changes, Completeness, Driver, FOREIGN_DROP_HINT, Failure, Reconciler, ReconcilerError, Report,
    Scope,
};
pub use weft_wire as wire;
