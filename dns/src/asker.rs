//! Who asks: what a container's membership lets it know, and where its other questions go.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// One sandbox (network namespace) as the resolver sees it. The socket a query arrives on says
/// which asker it is; nothing in the query does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asker {
    /// Keys of the networks it is on, in the order in which they are searched.
    pub networks: Vec<String>,
    /// Servers for names that are not ours, asked from the host's namespace, in order.
    pub upstreams: Vec<SocketAddr>,
    /// Whether names that are not ours may leave the host at all.
    pub outside: Outside,
    /// The `ndots` the user set; none if the file has the one we write.
    pub ndots: Option<u8>,
    /// Names that it alone knows, lower-cased; they go before those of its networks.
    pub links: BTreeMap<String, Linked>,
}

/// Where a name leads that one asker alone knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Linked {
    pub v4: Vec<Ipv4Addr>,
    pub v6: Vec<Ipv6Addr>,
}

impl Extend<IpAddr> for Linked {
    fn extend<I: IntoIterator<Item = IpAddr>>(&mut self, addresses: I) {
        for address in addresses {
            match address {
                IpAddr::V4(v4) => self.v4.push(v4),
                IpAddr::V6(v6) => self.v6.push(v6),
            }
        }
    }
}

/// Whether a sandbox has a way out. One that is only on internal networks has none, and its
/// questions must not leave in its place (CVE-2024-29018).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Outside {
    /// Names that are not ours do not exist for it.
    #[default]
    Closed,
    /// Names that are not ours are forwarded.
    Open,
}
