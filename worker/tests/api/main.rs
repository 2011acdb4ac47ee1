//! The node's container API over a unix socket, with real containers behind it. Every test has its
//! own directories, socket and IDs, and removes what it made also when it fails.

mod exec;
mod exec_refused;
mod inspect;
// The helpers of the runtime's own tests; not all are needed here.
#[allow(dead_code)]
#[path = "../container/lab.rs"]
mod lab;
mod logs;
mod place;
mod steer;
