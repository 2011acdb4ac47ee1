//! The readers of what shims, containers' files and the kernel's tables say, for the fuzzer and the
//! replay of what it found.

use std::net::IpAddr;

use crate::attach::WayOut;
use crate::container::LogRecord;

pub use crate::container::fuzzing::*;

/// The kernel's tables of routes for IPv4 and IPv6, and its count of memory: prefixes in use, whose the
/// way out is, bytes.
pub fn kernel_tables(four: &str, six: &str, memory: &str) -> (usize, WayOut, u64) {
    let used = crate::facts::routes(four).into_iter().chain(crate::facts::routes_v6(six));
    let mut count = 0;
    for (net, by) in used {
        assert_eq!(net, net.trunc(), "{by}");
        assert!(net.prefix_len() > 0, "the whole Internet is in use: {by}");
        count += 1;
    }
    (count, crate::attach::way_out(four, six), crate::facts::memory(memory))
}

/// Whether this may be the name of an interface that is made in somebody else's namespace.
pub fn is_interface_name(name: &str) -> bool {
    crate::attach::check_ifname(name).is_ok()
}

/// The file of a key.
pub fn key(bytes: &[u8]) -> Option<[u8; 32]> {
    crate::tunnel::parse_key(bytes).map(|key| key.0)
}

/// Checks that no record of a log is longer than what it was read from.
pub fn check_records(records: &[LogRecord], bytes: usize) {
    let total: usize = records.iter().map(|record| record.data.len()).sum();
    assert!(total <= bytes, "{total} bytes out of {bytes}");
}

/// A port of the host as the shim tells it: protocol, where it listens, where it leads, and the same in
/// words again.
pub fn published(words: &str) -> Option<(String, IpAddr, IpAddr, String)> {
    let (port, again) = host_port(words)?;
    Some((port.protocol.to_string(), port.listen.ip(), port.target.ip(), again))
}
