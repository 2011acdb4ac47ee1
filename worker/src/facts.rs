//! What this node says of itself: read from the machine, never guessed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Links of the cluster's networks: their routes are the cluster's, not the machine's.
const CLUSTER_LINKS: [&str; 2] = ["wb", "wx"];
/// Links of this node's own networks: nobody outside knows their addresses.
const OWN_LINKS: [&str; 2] = ["weft", "br-"];

/// A fact that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {path}")]
pub struct FactError {
    /// The file.
    pub path: &'static str,
    /// Why not.
    #[source]
    pub source: io::Error,
}

/// The machine as the scheduler and IPAM see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Name of the machine.
    pub hostname: String,
    /// 1e9 is one CPU.
    pub nano_cpus: u64,
    /// Bytes.
    pub memory: u64,
    /// Version of the kernel.
    pub kernel: String,
    /// Prefixes of its routes and resolvers.
    pub used_prefixes: BTreeSet<IpNet>,
}

/// Reads them for the calling thread's network namespace.
///
/// # Errors
/// When the kernel's files cannot be read.
pub fn read() -> Result<Facts, FactError> {
    let names = nix::sys::utsname::uname()
        .map_err(|errno| FactError { path: "uname", source: io::Error::from(errno) })?;
    let cpus = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    Ok(Facts {
        hostname: names.nodename().to_string_lossy().into_owned(),
        nano_cpus: cpus * 1_000_000_000,
        memory: memory(&text("/proc/meminfo")?),
        kernel: names.release().to_string_lossy().into_owned(),
        used_prefixes: used_prefixes()?,
    })
}

/// Prefixes that this machine's routes and resolvers use; a network of ours over one of them would
/// cut it off.
///
/// # Errors
/// When the routes cannot be read.
pub fn used_prefixes() -> Result<BTreeSet<IpNet>, FactError> {
    Ok(used()?.into_keys().collect())
}

/// The same with what uses each, in words: `the route by eth0`, `a name server`.
///
/// # Errors
/// When the routes cannot be read.
pub fn used() -> Result<BTreeMap<IpNet, String>, FactError> {
    let mut used = routes(&text("/proc/thread-self/net/route")?);
    // Without IPv6 in the kernel the file is missing.
    used.extend(routes_v6(&text("/proc/thread-self/net/ipv6_route").unwrap_or_default()));
    let resolvers = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    for server in weft_dns::files::upstreams_from_resolv_conf(&resolvers) {
        if !server.ip().is_loopback() {
            let server = IpNet::from(server.ip());
            used.entry(server).or_insert_with(|| "a name server of this host".to_owned());
        }
    }
    Ok(used)
}

fn by_route(link: &str) -> String {
    format!("the route of this host by {link}")
}

fn text(path: &'static str) -> Result<String, FactError> {
    fs::read_to_string(path).map_err(|source| FactError { path, source })
}

pub(crate) fn memory(meminfo: &str) -> u64 {
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kilobytes = total.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

fn is_of_cluster(link: &str) -> bool {
    CLUSTER_LINKS.iter().any(|prefix| link.starts_with(prefix))
}

fn is_inside(link: &str) -> bool {
    is_of_cluster(link) || OWN_LINKS.iter().any(|prefix| link.starts_with(prefix))
}

/// `/proc/net/route`: the link, then destination and mask (third last of the numbers) as hex of the
/// bytes in memory.
pub(crate) fn routes(table: &str) -> BTreeMap<IpNet, String> {
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            let (link, destination, mask) = (fields.first()?, fields.get(1)?, fields.get(7)?);
            let address = |hex: &str| {
                u32::from_str_radix(hex, 16).ok().map(|bits| Ipv4Addr::from(bits.to_ne_bytes()))
            };
            let net = Ipv4Net::with_netmask(address(destination)?, address(mask)?).ok()?;
            let counts = net.prefix_len() > 0 && !is_of_cluster(link);
            counts.then(|| (IpNet::V4(net.trunc()), by_route(link)))
        })
        .collect()
}

/// `/proc/net/ipv6_route`: destination and prefix length as hex first, the link last.
pub(crate) fn routes_v6(table: &str) -> BTreeMap<IpNet, String> {
    table
        .lines()
        .filter_map(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            let (destination, length, link) = (fields.first()?, fields.get(1)?, fields.last()?);
            let address = Ipv6Addr::from(u128::from_str_radix(destination, 16).ok()?);
            let length = u8::from_str_radix(length, 16).ok()?;
            let net = Ipv6Net::new(address, length).ok()?.trunc();
            let special = length == 0
                || address.is_loopback()
                || address.is_multicast()
                || address.is_unicast_link_local();
            (!special && !is_of_cluster(link)).then(|| (IpNet::V6(net), by_route(link)))
        })
        .collect()
}

/// The addresses of this machine that others can reach it at, by link.
///
/// # Errors
/// When the kernel does not list them.
pub fn addresses() -> Result<Vec<(String, IpAddr)>, FactError> {
    let list = nix::ifaddrs::getifaddrs().map_err(|errno| FactError {
        path: "the list of addresses",
        source: io::Error::from(errno),
    })?;
    let found = list.filter_map(|entry| {
        let address = entry.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        let v6 = address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip()));
        let address = v4.or(v6)?;
        let local = match address {
            IpAddr::V4(address) => address.is_loopback() || address.is_link_local(),
            IpAddr::V6(address) => address.is_loopback() || address.is_unicast_link_local(),
        };
        (!local && !is_inside(&entry.interface_name)).then_some((entry.interface_name, address))
    });
    Ok(found.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_read_and_ours_are_left_out() {
        let v4 = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                  eth0\t00000000\tFE00630A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                  eth0\t0000630A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
                  wb010000\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        let by = |prefix: &str| BTreeMap::from([(prefix.parse().unwrap(), by_route("eth0"))]);
        assert_eq!(routes(v4), by("10.99.0.0/24"));
        let v6 = "fd000000000000010000000000000000 40 00000000000000000000000000000000 00 \
                  00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0\n\
                  fe800000000000000000000000000000 40 00000000000000000000000000000000 00 \
                  00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0\n";
        assert_eq!(routes_v6(v6), by("fd00:0:0:1::/64"));
        assert_eq!(memory("MemTotal:       1024 kB\nMemFree: 1 kB"), 1024 * 1024);
    }

    #[test]
    fn this_machine_can_be_read() {
        let facts = read().unwrap();
        assert!(!facts.hostname.is_empty() && facts.memory > 0 && facts.nano_cpus > 0);
    }
}
