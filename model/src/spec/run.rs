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
            Some(("on-failure", max))
                if !max.is_empty() && max.bytes().all(|byte| byte.is_ascii_digit()) =>
            {
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

/// Most networks of a container, and most aliases and links on one.
const ENDPOINTS_MAX: usize = 64;
const NAMES_MAX: usize = 64;
/// The bit of a hardware address's first byte that says it is a group's (IEEE 802).
const GROUP: u8 = 1;

/// Names a field as `weft run` does where `weft service create` has another flag for it.
fn in_words_of_run(mut invalid: Invalid) -> Invalid {
    let flags = [("--limit-memory", "--memory"), ("--stop-grace-period", "--stop-timeout")];
    if let Some((_, own)) = flags.iter().find(|(flag, _)| invalid.field == *flag) {
        (*own).clone_into(&mut invalid.field);
    }
    invalid
}

/// Checking.
impl RunSpec {
    /// Checks every field that can be checked without knowing the node.
    ///
    /// # Errors
    /// The first field that is not allowed.
    pub fn check(&self) -> Result<(), Invalid> {
        check_name("container name", &self.name)?;
        self.container.check().map_err(in_words_of_run)?;
        if self.auto_remove && self.restart != Restart::No {
            return Err(Invalid::new("--restart", self.restart, "cannot be had with --rm"));
        }
        self.check_mode()?;
        self.check_publish()?;
        if let Some((port, protocol)) = self.expose.iter().find(|(port, _)| *port == 0) {
            let value = format!("{port}/{protocol}");
            return Err(Invalid::new("--expose", value, "a port is a number from 1 to 65535"));
        }
        self.check_endpoints()
    }

    /// What belongs to a network namespace is the business of whoever has it.
    fn check_mode(&self) -> Result<(), Invalid> {
        match self.network {
            NetworkMode::Networks | NetworkMode::None => Ok(()),
            NetworkMode::Host => {
                let mut sysctls = self.container.sysctls.keys();
                match sysctls.find(|name| name.starts_with(super::security::NET)) {
                    Some(name) => {
                        let reason = "cannot be had with --network host: it would be the host's";
                        Err(Invalid::new("--sysctl", name, reason))
                    }
                    None => Ok(()),
                }
            }
            NetworkMode::Container(_) => self.check_joiner(),
        }
    }

    fn check_joiner(&self) -> Result<(), Invalid> {
        let container = &self.container;
        let theirs = [
            ("--publish", !self.publish.is_empty() || self.publish_all),
            ("--expose", !self.expose.is_empty()),
            ("--hostname", !container.hostname.is_empty()),
            ("--add-host", !container.hosts.is_empty()),
            ("--dns", !container.dns.is_empty()),
            ("--dns-search", !container.dns_search.is_empty()),
            ("--dns-opt", !container.dns_options.is_empty()),
        ];
        match theirs.into_iter().find(|(_, given)| *given) {
            Some((field, _)) => {
                let reason = "cannot be had with --network container:NAME: it is the other's";
                Err(Invalid::new(field, "", reason))
            }
            None => Ok(()),
        }
    }

    fn check_publish(&self) -> Result<(), Invalid> {
        for (index, publish) in self.publish.iter().enumerate() {
            let (first, last) = publish.host_ports.unwrap_or((1, u16::MAX));
            let value = || format!("{first}-{last}:{}/{}", publish.port, publish.protocol);
            if publish.port == 0 || first == 0 || first > last {
                let reason = "a port is a number from 1 to 65535, a range goes up";
                return Err(Invalid::new("--publish", value(), reason));
            }
            if publish.host_ip.is_some_and(|address| address.is_multicast()) {
                return Err(Invalid::new("--publish", value(), "the address is multicast"));
            }
            if self.publish[..index].iter().any(|earlier| earlier.excludes(publish)) {
                let reason = "the port of the host is given twice";
                return Err(Invalid::new("--publish", value(), reason));
            }
        }
        Ok(())
    }

    fn check_endpoints(&self) -> Result<(), Invalid> {
        if self.endpoints.is_empty() == (self.network == NetworkMode::Networks) {
            let reason = "must be networks, or one of host, none and container:NAME";
            return Err(Invalid::new("--network", "", reason));
        }
        if self.endpoints.len() > ENDPOINTS_MAX {
            let reason = format!("at most {ENDPOINTS_MAX} networks");
            return Err(Invalid::new("--network", self.endpoints.len(), reason));
        }
        for (index, endpoint) in self.endpoints.iter().enumerate() {
            endpoint.check()?;
            if self.endpoints[..index].iter().any(|other| other.network == endpoint.network) {
                let id = endpoint.network.short();
                return Err(Invalid::new("--network", id, "is given twice"));
            }
        }
        Ok(())
    }
}

impl PublishSpec {
    /// Whether both ask for the one and same port of the host.
    fn excludes(&self, other: &Self) -> bool {
        let fixed = |publish: &Self| {
            publish.host_ports.filter(|(first, last)| first == last).map(|(first, _)| first)
        };
        let address = match (self.host_ip, other.host_ip) {
            (Some(a), Some(b)) => {
                a.is_ipv4() == b.is_ipv4() && (a == b || a.is_unspecified() || b.is_unspecified())
            }
            // The daemon's default is known to the daemon alone.
            (None, Some(_)) | (Some(_), None) => false,
            (None, None) => true,
        };
        let port = fixed(self).is_some() && fixed(self) == fixed(other);
        self.protocol == other.protocol && port && address
    }
}

impl EndpointSpec {
    /// Checks every field that can be checked without knowing the node.
    ///
    /// # Errors
    /// The first field that is not allowed.
    pub fn check(&self) -> Result<(), Invalid> {
        for (field, count) in
            [("--network-alias", self.aliases.len()), ("--link", self.links.len())]
        {
            if count > NAMES_MAX {
                return Err(Invalid::new(field, count, format!("at most {NAMES_MAX}")));
            }
        }
        self.aliases.iter().try_for_each(|alias| check_name("--network-alias", alias))?;
        self.links.iter().try_for_each(|link| check_name("--link alias", &link.alias))?;
        self.check_addresses()?;
        match self.mac.filter(|mac| *mac == [0; 6] || mac[0] & GROUP != 0) {
            Some(mac) => {
                let text = mac.map(|byte| format!("{byte:02x}")).join(":");
                Err(Invalid::new("--mac-address", text, "must be the address of one interface"))
            }
            None => Ok(()),
        }
    }

    fn check_addresses(&self) -> Result<(), Invalid> {
        for (index, address) in self.addresses.iter().enumerate() {
            let field = if address.is_ipv4() { "--ip" } else { "--ip6" };
            if address.is_unspecified() || address.is_multicast() || address.is_loopback() {
                return Err(Invalid::new(field, address, "must be the address of one host"));
            }
            let same = |other: &IpAddr| other.is_ipv4() == address.is_ipv4();
            if self.addresses[..index].iter().any(same) {
                return Err(Invalid::new(field, address, "one address of a family is enough"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OTHER: ContainerId = ContainerId::from_bytes([2; 32]);

    fn good() -> RunSpec {
        let network = NetworkId::from_bytes([1; 32]);
        RunSpec::new("web", ContainerSpec::new("rootfs:/srv", &["sh"]))
            .on(vec![EndpointSpec::local(network)])
    }

    fn publish(host: Option<(u16, u16)>, port: u16) -> PublishSpec {
        PublishSpec { host_ip: None, host_ports: host, port, protocol: Protocol::Tcp }
    }

    #[test]
    fn bad_values_are_named() {
        assert_eq!(good().check(), Ok(()));
        type Spoil = fn(&mut RunSpec);
        let cases: &[(&str, Spoil)] = &[
            ("container name", |s| s.name = "-x".into()),
            ("container name", |s| s.name = String::new()),
            ("command", |s| s.container.args.clear()),
            ("--restart", |s| (s.auto_remove, s.restart) = (true, Restart::Always)),
            ("--sysctl", |s| {
                (s.network, s.endpoints) = (NetworkMode::Host, Vec::new());
                s.container.sysctls.insert("net.ipv4.ip_forward".into(), "1".into());
            }),
            ("--publish", |s| {
                (s.network, s.endpoints) = (NetworkMode::Container(OTHER), Vec::new());
                s.publish_all = true;
            }),
            ("--dns", |s| {
                (s.network, s.endpoints) = (NetworkMode::Container(OTHER), Vec::new());
                s.container.dns.push("1.1.1.1".parse().unwrap());
            }),
            ("--publish", |s| s.publish.push(publish(None, 0))),
            ("--publish", |s| s.publish.push(publish(Some((0, 1)), 80))),
            ("--publish", |s| s.publish.push(publish(Some((9, 8)), 80))),
            ("--publish", |s| {
                s.publish = vec![publish(Some((80, 80)), 80), publish(Some((80, 80)), 81)];
            }),
            ("--expose", |s| s.expose.push((0, Protocol::Udp))),
            ("--network", |s| s.endpoints.clear()),
            ("--network", |s| s.network = NetworkMode::None),
            ("--network", |s| s.endpoints.push(s.endpoints[0].clone())),
            ("--network-alias", |s| s.endpoints[0].aliases.push("a b".into())),
            ("--link alias", |s| {
                let link = Link { target: OTHER, name: "db".into(), alias: "/".into() };
                s.endpoints[0].links = vec![link];
            }),
            ("--ip", |s| s.endpoints[0].addresses = vec!["224.0.0.1".parse().unwrap()]),
            ("--ip6", |s| s.endpoints[0].addresses = vec!["::".parse().unwrap()]),
            ("--ip", |s| {
                let two = ["10.0.0.2", "10.0.0.3"].map(|text| text.parse().unwrap());
                s.endpoints[0].addresses = two.to_vec();
            }),
            ("--mac-address", |s| s.endpoints[0].mac = Some([0; 6])),
            ("--mac-address", |s| s.endpoints[0].mac = Some([1, 0, 0, 0, 0, 1])),
        ];
        for (index, (field, spoil)) in cases.iter().enumerate() {
            let mut spec = good();
            spoil(&mut spec);
            assert_eq!(spec.check().unwrap_err().field, *field, "case {index}");
        }
    }

    #[test]
    fn restart_policies_are_read_and_followed() {
        for text in ["no", "always", "unless-stopped", "on-failure", "on-failure:3"] {
            assert_eq!(text.parse::<Restart>().unwrap().to_string(), text);
        }
        for bad in ["", "never", "on-failure:", "on-failure:x", "on-failure:+1", "always:3", "No"] {
            assert!(bad.parse::<Restart>().is_err(), "{bad}");
        }
        let limited = Restart::OnFailure { max: 2 };
        assert!(limited.follows(1, 1) && !limited.follows(1, 2) && !limited.follows(0, 0));
        assert!(Restart::Always.follows(0, 9) && !Restart::No.follows(1, 0));
    }
}
