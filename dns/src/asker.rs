//! Who asks: what a container's membership lets it know, and where its other questions go.

use std::net::SocketAddr;

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
