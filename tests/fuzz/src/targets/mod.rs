//! What is done with an input: one function for each reader of foreign bytes, which panics when the
//! reader breaks a promise. Not panicking is the least of them: results are in their ranges, what was
//! read and written again is read as the same, and what is refused changes nothing.
//!
//! The fuzzer calls these (`make fuzz`), and so does the test that replays `corpus/` (`corpus` in
//! tests/tests), which needs nothing that the fuzzer needs.

mod cluster;
mod command_line;
mod dns;
mod kernel;
mod node;
pub mod state;
mod wire;

/// Takes any bytes, and comes back if all is well.
pub type Target = fn(&[u8]);

/// All targets, by the name of their corpus.
pub const ALL: &[(&str, Target)] = &[
    ("dns_query", dns::query),
    ("dns_relay", dns::relay),
    ("dns_names", dns::names),
    ("resolv_conf", dns::resolv_conf),
    ("wire_frame", wire::frame),
    ("wire_merge", wire::merge),
    ("wire_receive", wire::receive),
    ("wire_messages", wire::messages),
    ("netlink", kernel::netlink),
    ("ovs", kernel::switches),
    ("proc", kernel::proc),
    ("raft_messages", cluster::raft_messages),
    ("raft_files", cluster::raft_files),
    ("raft_pieces", cluster::raft_pieces),
    ("session", cluster::session),
    ("specs", cluster::specs),
    ("certificates", cluster::certificates),
    ("tokens", cluster::tokens),
    ("state", state::log),
    ("node_log", node::log),
    ("node_files", node::files),
    ("shim", node::shim),
    ("values", command_line::values),
    ("weft_toml", command_line::weft_toml),
    ("template", command_line::template),
];

/// The target with this name.
pub fn find(name: &str) -> Option<Target> {
    ALL.iter().find(|(known, _)| *known == name).map(|(_, target)| *target)
}

/// Two texts out of one input, as [`parts`].
fn texts<const N: usize>(bytes: &[u8]) -> Option<[&str; N]> {
    let mut all = [""; N];
    let mut parts = parts(bytes);
    for text in &mut all {
        *text = std::str::from_utf8(parts.next().unwrap_or_default()).ok()?;
    }
    Some(all)
}

/// The parts of an input that a byte of 0xff separates, which no text has.
fn parts(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(|byte| *byte == 0xff)
}
