//! What `weft run` says of a container, with names resolved to IDs.

use std::{fmt, net::IpAddr, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{ContainerSpec, Invalid, Scope, check_name};
use crate::{
    id::{ContainerId, NetworkId},
    object::PortBinding,
};

/// A transport protocol whose ports can be published.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum Protocol {
    /// RFC 9293.
    #[default]
    Tcp,
    /// RFC 768.
    Udp,
    /// RFC 9260.
    Sctp,
}

impl Protocol {
    /// "tcp", "udp" or "sctp".
    pub fn word(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Text that is not a word of the list; the reason names the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be {0}")]
pub struct NotAWord(pub &'static str);

impl FromStr for Protocol {
    type Err = NotAWord;

    fn from_str(text: &str) -> Result<Self, NotAWord> {
        match text.to_ascii_lowercase().as_str() {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "sctp" => Ok(Self::Sctp),
            _ => Err(NotAWord("tcp, udp or sctp")),
        }
    }
}

/// What follows the end of a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Restart {
    /// Nothing.
    #[default]
    No,
    /// A new start after an exit code other than 0.
    OnFailure {
        /// Most restarts in a row; 0 is without end.
        max: u32,
    },
    /// A new start, also when the daemon starts, even if the container was stopped by hand.
    Always,
    /// A new start, also when the daemon starts, unless the container was stopped by hand.
    UnlessStopped,
}

impl Restart {
    /// Whether a container that ended with `exit_code` is started again, after `restarts` restarts
    /// since it was last started by hand.
    pub fn follows(self, exit_code: i32, restarts: u32) -> bool {
        match self {
            Self::No => false,
            Self::OnFailure { max } => exit_code != 0 && (max == 0 || restarts < max),
            Self::Always | Self::UnlessStopped => true,
        }
    }
}

impl fmt::Display for Restart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::No => f.write_str("no"),
            Self::OnFailure { max: 0 } => f.write_str("on-failure"),
            Self::OnFailure { max } => write!(f, "on-failure:{max}"),
            Self::Always => f.write_str("always"),
            Self::UnlessStopped => f.write_str("unless-stopped"),
        }
    }
}

impl FromStr for Restart {
    type Err = NotAWord;

    /// Docker's words.
    fn from_str(text: &str) -> Result<Self, NotAWord> {
        let bad = NotAWord("no, on-failure[:MAX], always or unless-stopped");
        match text.split_once(':') {
            None => match text {
                "no" => Ok(Self::No),
                "always" => Ok(Self::Always),
                "unless-stopped" => Ok(Self::UnlessStopped),
                "on-failure" => Ok(Self::OnFailure { max: 0 }),
                _ => Err(bad),
            },
            Some(("on-failure", max)) if max.bytes().all(|byte| byte.is_ascii_digit()) => {
                max.parse().map(|max| Self::OnFailure { max }).map_err(|_| bad)
            }
            Some(_) => Err(bad),
        }
    }
}

/// Whose network namespace a container has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetworkMode {
    /// One of its own, on the networks of its endpoints.
    #[default]
    Networks,
    /// The host's.
    Host,
    /// One of its own, with nothing but loopback.
    None,
    /// That of another container.
    Container(ContainerId),
}

/// Another container that is to be found under a further name, by this one only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The other container.
    pub target: ContainerId,
    /// How the user named it.
    pub name: String,
    /// The further name.
    pub alias: String,
}

/// What is asked of a membership in a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointSpec {
    /// The network.
    pub network: NetworkId,
    /// Whose network it is: this node's, or the cluster's.
    pub scope: Scope,
    /// More names on it.
    pub aliases: Vec<String>,
    /// Addresses asked for, one of a family at most; what is missing is chosen.
    pub addresses: Vec<IpAddr>,
    /// None: derived from the addresses.
    pub mac: Option<[u8; 6]>,
    /// Containers under names of this one's choosing.
    pub links: Vec<Link>,
}

impl EndpointSpec {
    /// A membership in a network of this node of which nothing else is asked.
    pub fn local(network: NetworkId) -> Self {
        Self {
            network,
            scope: Scope::Local,
            aliases: Vec::new(),
            addresses: Vec::new(),
            mac: None,
            links: Vec::new(),
        }
    }
}

/// One port of a container that is to be reached at the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishSpec {
    /// None: the daemon's default, all addresses of both families.
    pub host_ip: Option<IpAddr>,
    /// First and last of those that may be chosen; none is any free one.
    pub host_ports: Option<(u16, u16)>,
    /// Of the container.
    pub port: u16,
    /// Of both.
    pub protocol: Protocol,
}

/// What `weft run` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunSpec {
    /// Unique on the node, without regard to case.
    pub name: String,
    /// What the container is made from.
    pub container: ContainerSpec,
    /// Whose network namespace it has.
    pub network: NetworkMode,
    /// In the order given; empty unless the mode is `Networks`.
    pub endpoints: Vec<EndpointSpec>,
    /// Ports to be reached at the host.
    pub publish: Vec<PublishSpec>,
    /// Every exposed port is published, at a free one of the host.
    pub publish_all: bool,
    /// Ports the container is said to listen at.
    pub expose: Vec<(u16, Protocol)>,
    /// What follows its end.
    pub restart: Restart,
    /// It is removed when it has ended.
    pub auto_remove: bool,
}

impl RunSpec {
    /// A container in no network, with Docker's defaults for all the rest.
    pub fn new(name: &str, container: ContainerSpec) -> Self {
        Self {
            name: name.to_owned(),
            container,
            network: NetworkMode::None,
            endpoints: Vec::new(),
            publish: Vec::new(),
            publish_all: false,
            expose: Vec::new(),
            restart: Restart::No,
            auto_remove: false,
        }
    }

    /// The same on these networks.
    #[must_use]
    pub fn on(mut self, endpoints: Vec<EndpointSpec>) -> Self {
        self.network = NetworkMode::Networks;
        self.endpoints = endpoints;
        self
    }

    /// Whether the user has asked for this binding.
    pub fn publishes(&self, binding: &PortBinding) -> bool {
        let asked = |publish: &PublishSpec| {
            let (first, last) = publish.host_ports.unwrap_or((1, u16::MAX));
            publish.port == binding.port
                && publish.protocol == binding.protocol
                && publish.host_ip.is_none_or(|address| address == binding.host_ip)
                && (first..=last).contains(&binding.host_port)
        };
        let exposed = || self.expose.contains(&(binding.port, binding.protocol));
        self.publish.iter().any(asked) || (self.publish_all && exposed())
    }
}

impl RunSpec {
    /// Checks every field that can be checked without knowing the node.
    ///
    /// # Errors
    /// The first field that is not allowed.
    pub fn check(&self) -> Result<(), Invalid> {
        check_name("container name", &self.name)?;
        self.container.check()?;
        self.endpoints.iter().try_for_each(EndpointSpec::check)
    }
}

impl EndpointSpec {
    /// Checks every field that can be checked without knowing the node.
    ///
    /// # Errors
    /// The first field that is not allowed.
    pub fn check(&self) -> Result<(), Invalid> {
        self.aliases.iter().try_for_each(|alias| check_name("--network-alias", alias))
    }
}
