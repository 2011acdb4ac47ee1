//! Whether others see this node where it is, or where an address translator (NAT) shows it.

use std::net::IpAddr;

/// Whether an address that this node is seen at is not its own; `None` if the kernel does not say which
/// are.
pub(super) fn is_translated(seen_from: IpAddr) -> Option<bool> {
    let list = nix::ifaddrs::getifaddrs().ok()?;
    let own = list.filter_map(|entry| {
        let address = entry.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| Some(IpAddr::V6(address.as_sockaddr_in6()?.ip())))
    });
    let mut own = own.chain(seen_from.is_loopback().then_some(seen_from));
    Some(!own.any(|address| address == seen_from))
}
