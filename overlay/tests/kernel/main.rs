//! The data plane on the real kernel, in throwaway network namespaces. Needs root.
#![allow(clippy::unwrap_used, reason = "what cannot be built or asked is a failed test")]

mod bridge;
mod cost;
mod egress;
mod encrypted;
mod lab;
mod life;
mod ovs;
mod parent;
mod publish;
mod reach;
mod vip;
