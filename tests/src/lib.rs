//! The namespace lab: hosts made of network namespaces on one switch, each with a daemon of its own,
//! and the faults that are done to them. The scenario tests in `tests/tests/` are written with it.
//!
//! A test says what it wants in the words of the command line and looks at what a user would look at;
//! nothing here knows the inside of the product.
#![forbid(unsafe_code)]

mod lab;
pub mod sim;

pub use lab::{
    Lab,
    cgroup::Cgroups,
    command::{Output, weft_binary},
    container::Container,
    host::Host,
    snapshot::Snapshot,
    teardown,
    wait::{eventually, stays},
};

/// Whether the long tests run too (`make soak`).
pub fn soak() -> bool {
    std::env::var_os("WEFT_SOAK").is_some_and(|value| value == "1")
}
