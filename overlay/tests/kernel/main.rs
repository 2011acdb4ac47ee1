//! The data plane on the real kernel, in throwaway network namespaces. Needs root.

mod egress;
mod lab;
mod life;
mod reach;
mod vip;
