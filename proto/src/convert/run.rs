//! What `weft run` says, and what was decided of it.
//!
//! The wire names networks and containers as users do; the model has their IDs. Whoever converts
//! says how one becomes the other.

use std::net::IpAddr;

use weft_model::{
    ContainerId, NetworkId,
    object::{HealthState, PortBinding},
    spec::{
        EndpointSpec, Invalid, Link, NetworkMode, Protocol, PublishSpec, Restart, RunSpec, Scope,
    },
};

use super::{container, network::mac, value};
use crate::v1;

/// Words of the network mode that name no network.
const HOST: &str = "host";
const NONE: &str = "none";
const CONTAINER: &str = "container:";
/// What a container is on of which no network is said.
const DEFAULT_NETWORK: &str = "bridge";
/// Most ports that one range names: every one there is.
const PORT_MAX: u32 = 65_535;

/// How names of the wire become IDs. `E` is the caller's refusal of a name.
pub trait Resolve {
    /// A refusal; a field that cannot be read is one, too.
    type Error: From<Invalid>;

    /// The network of that name or ID, and whose it is.
    ///
    /// # Errors
    /// There is none.
    fn network(&self, text: &str) -> Result<(NetworkId, Scope), Self::Error>;

    /// The container of that name or ID.
    ///
    /// # Errors
    /// There is none.
    fn container(&self, text: &str) -> Result<ContainerId, Self::Error>;
}

/// How IDs become the names that the wire shows.
pub trait Names {
    /// Of a network.
    fn network(&self, id: NetworkId) -> String;

    /// Of a container.
    fn container(&self, id: ContainerId) -> String;
}

/// The user's words, from the wire.
///
/// # Errors
/// The first field that cannot be read, or name that is nobody's. What is allowed is checked by the
/// model.
pub fn spec_of<R: Resolve>(wire: &v1::RunSpec, resolve: &R) -> Result<RunSpec, R::Error> {
    let network = mode_of(&wire.network_mode, resolve)?;
    let mut publish = Vec::new();
    for port in &wire.publish {
        publish.extend(publish_of(port)?);
    }
    let restart = match wire.restart.as_str() {
        "" => Restart::No,
        text => text.parse().map_err(|error| not_a_word("--restart", text, error))?,
    };
    let container = wire.container.clone().unwrap_or_default();
    let mut expose = Vec::new();
    for text in &wire.expose {
        expose.extend(exposed_of(text)?);
    }
    Ok(RunSpec {
        name: wire.name.clone(),
        container: container::spec_of(&container)?,
        network,
        endpoints: endpoints_of(wire, network, resolve)?,
        publish,
        publish_all: wire.publish_all,
        expose,
        restart,
        auto_remove: wire.auto_remove,
    })
}

fn mode_of<R: Resolve>(text: &str, resolve: &R) -> Result<NetworkMode, R::Error> {
    match text {
        "" => Ok(NetworkMode::Networks),
        HOST => Ok(NetworkMode::Host),
        NONE => Ok(NetworkMode::None),
        _ => match text.strip_prefix(CONTAINER).filter(|name| !name.is_empty()) {
            Some(name) => resolve.container(name).map(NetworkMode::Container),
            None => {
                let reason = "must be host, none or container:NAME";
                Err(Invalid::new("--network", text, reason).into())
            }
        },
    }
}

fn endpoints_of<R: Resolve>(
    wire: &v1::RunSpec,
    mode: NetworkMode,
    resolve: &R,
) -> Result<Vec<EndpointSpec>, R::Error> {
    if mode != NetworkMode::Networks {
        let word = &wire.network_mode;
        if let Some(other) = wire.networks.first() {
            let reason = format!("cannot be had beside --network {word}");
            return Err(Invalid::new("--network", &other.network, reason).into());
        }
        if let Some(link) = wire.links.first() {
            let reason = format!("cannot be had with --network {word}");
            return Err(Invalid::new("--link", link, reason).into());
        }
        return Ok(Vec::new());
    }
    let default = [v1::EndpointSpec { network: DEFAULT_NETWORK.to_owned(), ..Default::default() }];
    let given = if wire.networks.is_empty() { &default[..] } else { &wire.networks[..] };
    let mut endpoints = Vec::new();
    for one in given {
        let mut endpoint = endpoint_of(one, resolve)?;
        endpoint.links.extend(links_of(&wire.links, resolve)?);
        endpoints.push(endpoint);
    }
    Ok(endpoints)
}

/// A membership in a network, from the wire.
///
/// # Errors
/// As for [`spec_of`].
pub fn endpoint_of<R: Resolve>(
    wire: &v1::EndpointSpec,
    resolve: &R,
) -> Result<EndpointSpec, R::Error> {
    let (network, scope) = resolve.network(&wire.network)?;
    let addresses: Result<Vec<IpAddr>, Invalid> =
        wire.addresses.iter().map(|text| value::address("--ip", text)).collect();
    Ok(EndpointSpec {
        network,
        scope,
        aliases: wire.aliases.clone(),
        addresses: addresses?,
        mac: value::optional(&wire.mac_address, |text| mac_of("--mac-address", text))?,
        links: links_of(&wire.links, resolve)?,
    })
}

/// `NAME[:ALIAS]`
fn links_of<R: Resolve>(texts: &[String], resolve: &R) -> Result<Vec<Link>, R::Error> {
    let link = |text: &String| {
        let (name, alias) = text.split_once(':').unwrap_or((text, text));
        if name.is_empty() || alias.is_empty() {
            return Err(Invalid::new("--link", text, "must be NAME or NAME:ALIAS").into());
        }
        // Docker's names of containers have a slash before them.
        let alias = alias.trim_start_matches('/').to_owned();
        Ok(Link { target: resolve.container(name)?, name: name.to_owned(), alias })
    };
    texts.iter().map(link).collect()
}

/// Six bytes in hex with `:` or `-` between.
fn mac_of(field: &str, text: &str) -> Result<[u8; 6], Invalid> {
    let invalid = || Invalid::new(field, text, "must be like 02:42:0a:00:00:02");
    let mut bytes = [0; 6];
    let mut parts = text.split([':', '-']);
    for byte in &mut bytes {
        let digits = parts.next().filter(|part| part.len() == 2).ok_or_else(invalid)?;
        let hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        let parsed = u8::from_str_radix(digits, 16).ok().filter(|_| hex);
        *byte = parsed.ok_or_else(invalid)?;
    }
    if parts.next().is_some() { Err(invalid()) } else { Ok(bytes) }
}

/// One wish for each port of the container: two ranges are paired, and one port with a range of the
/// host's takes any of it.
fn publish_of(wire: &v1::PortSpec) -> Result<Vec<PublishSpec>, Invalid> {
    let protocol = protocol_of("--publish", &wire.protocol)?;
    let host_ip = value::optional(&wire.host_ip, |text| value::address("--publish", text))?;
    let (first, last) = range_of(wire.container_port, wire.container_port_end)?;
    let host = match wire.host_port {
        0 if wire.host_port_end == 0 => None,
        port => Some(range_of(port, wire.host_port_end)?),
    };
    let one = |port: u16, host_ports| PublishSpec { host_ip, host_ports, port, protocol };
    let Some((host_first, host_last)) = host else {
        return Ok((first..=last).map(|port| one(port, None)).collect());
    };
    if first == last {
        return Ok(vec![one(first, host)]);
    }
    if last - first != host_last - host_first {
        let value = format!("{host_first}-{host_last}:{first}-{last}");
        return Err(Invalid::new("--publish", value, "the ranges must be of equal length"));
    }
    let pairs = (first..=last).zip(host_first..=host_last);
    Ok(pairs.map(|(port, host)| one(port, Some((host, host)))).collect())
}

/// First and last of a range; an end of 0 is the same as its beginning.
fn range_of(first: u32, last: u32) -> Result<(u16, u16), Invalid> {
    let last = if last == 0 { first } else { last };
    let port = |number: u32| u16::try_from(number).ok().filter(|number| *number > 0);
    match (port(first), port(last)) {
        (Some(from), Some(to)) if from <= to => Ok((from, to)),
        (None, _) | (_, None) => {
            let bad = if port(first).is_none() { first } else { last };
            let reason = format!("a port is a number from 1 to {PORT_MAX}");
            Err(Invalid::new("--publish", bad, reason))
        }
        (Some(_), Some(_)) => {
            let value = format!("{first}-{last}");
            Err(Invalid::new("--publish", value, "the range ends before it begins"))
        }
    }
}

/// `PORT[-PORT][/PROTOCOL]`.
fn exposed_of(text: &str) -> Result<impl Iterator<Item = (u16, Protocol)> + use<>, Invalid> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, ""));
    let protocol = protocol_of("--expose", protocol)?;
    let number = |port: &str| {
        let plain = port.bytes().all(|byte| byte.is_ascii_digit());
        port.parse().ok().filter(|port: &u16| plain && *port > 0)
    };
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => {
            Ok((first..=last).map(move |port| (port, protocol)))
        }
        _ => {
            let reason = "must be PORT[-PORT][/PROTOCOL], PORT from 1 to 65535";
            Err(Invalid::new("--expose", text, reason))
        }
    }
}

fn protocol_of(field: &str, text: &str) -> Result<Protocol, Invalid> {
    match text {
        "" => Ok(Protocol::Tcp),
        _ => text.parse().map_err(|error| not_a_word(field, text, error)),
    }
}

fn not_a_word(field: &str, text: &str, error: weft_model::spec::NotAWord) -> Invalid {
    Invalid::new(field, text, error.to_string())
}

/// The user's words, for the wire. Each port is one of its own.
pub fn spec(spec: &RunSpec, names: &impl Names) -> v1::RunSpec {
    v1::RunSpec {
        name: spec.name.clone(),
        container: Some(container::spec(&spec.container)),
        network_mode: match spec.network {
            NetworkMode::Networks => String::new(),
            NetworkMode::Host => HOST.to_owned(),
            NetworkMode::None => NONE.to_owned(),
            NetworkMode::Container(id) => format!("{CONTAINER}{}", names.container(id)),
        },
        networks: spec.endpoints.iter().map(|one| endpoint(one, names)).collect(),
        publish: spec.publish.iter().map(publish).collect(),
        publish_all: spec.publish_all,
        expose: spec.expose.iter().map(|(port, protocol)| format!("{port}/{protocol}")).collect(),
        restart: spec.restart.to_string(),
        auto_remove: spec.auto_remove,
        // Each endpoint shows its own.
        links: Vec::new(),
    }
}

/// A membership in a network, for the wire.
pub fn endpoint(spec: &EndpointSpec, names: &impl Names) -> v1::EndpointSpec {
    v1::EndpointSpec {
        network: names.network(spec.network),
        aliases: spec.aliases.clone(),
        addresses: spec.addresses.iter().map(ToString::to_string).collect(),
        mac_address: spec.mac.map(mac).unwrap_or_default(),
        links: spec.links.iter().map(|link| format!("{}:{}", link.name, link.alias)).collect(),
    }
}

fn publish(publish: &PublishSpec) -> v1::PortSpec {
    let (host_port, host_port_end) = publish.host_ports.unwrap_or_default();
    v1::PortSpec {
        host_ip: publish.host_ip.map(|address| address.to_string()).unwrap_or_default(),
        host_port: host_port.into(),
        host_port_end: host_port_end.into(),
        container_port: publish.port.into(),
        container_port_end: publish.port.into(),
        protocol: publish.protocol.to_string(),
    }
}

/// A published port, for the wire.
pub fn binding(binding: &PortBinding) -> v1::PortBinding {
    v1::PortBinding {
        host_ip: binding.host_ip.to_string(),
        host_port: binding.host_port.into(),
        container_port: binding.port.into(),
        protocol: binding.protocol.to_string(),
    }
}

/// A container's health, for the wire, without the probes.
pub fn health(state: HealthState, failing_streak: u32) -> v1::HealthStatus {
    v1::HealthStatus { status: state.word().to_owned(), failing_streak, log: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::{super::container::tests::any_spec, *};
    use proptest::prelude::*;

    /// Names are the first two digits of IDs, and all networks the node's.
    struct Digits;

    impl Resolve for Digits {
        type Error = Invalid;

        fn network(&self, text: &str) -> Result<(NetworkId, Scope), Invalid> {
            let id = text.repeat(32).parse();
            id.map(|id| (id, Scope::Local)).map_err(|_| Invalid::new("--network", text, "none"))
        }

        fn container(&self, text: &str) -> Result<ContainerId, Invalid> {
            text.repeat(32).parse().map_err(|_| Invalid::new("container", text, "none"))
        }
    }

    impl Names for Digits {
        fn network(&self, id: NetworkId) -> String {
            id.to_string()[..2].to_owned()
        }

        fn container(&self, id: ContainerId) -> String {
            id.to_string()[..2].to_owned()
        }
    }

    fn any_protocol() -> impl Strategy<Value = Protocol> {
        prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp), Just(Protocol::Sctp)]
    }

    fn any_endpoint() -> impl Strategy<Value = EndpointSpec> {
        let address = any::<[u8; 16]>().prop_map(IpAddr::from);
        let link = (any::<u8>(), "[a-z]{1,8}").prop_map(|(target, alias)| {
            let target = ContainerId::from_bytes([target; 32]);
            Link { target, name: target.to_string()[..2].to_owned(), alias }
        });
        (
            any::<u8>(),
            prop::collection::vec("[a-z]{1,8}", 0..3),
            prop::collection::vec(address, 0..3),
            prop::option::of(any::<[u8; 6]>()),
            prop::collection::vec(link, 0..3),
        )
            .prop_map(|(network, aliases, addresses, mac, links)| EndpointSpec {
                aliases,
                addresses,
                mac,
                links,
                ..EndpointSpec::local(NetworkId::from_bytes([network; 32]))
            })
    }

    fn any_mode() -> impl Strategy<Value = (NetworkMode, Vec<EndpointSpec>)> {
        let endpoints = prop::collection::vec(any_endpoint(), 1..4);
        let joined = any::<u8>().prop_map(|id| ContainerId::from_bytes([id; 32]));
        prop_oneof![
            endpoints.prop_map(|endpoints| (NetworkMode::Networks, endpoints)),
            Just((NetworkMode::Host, Vec::new())),
            Just((NetworkMode::None, Vec::new())),
            joined.prop_map(|id| (NetworkMode::Container(id), Vec::new())),
        ]
    }

    fn any_publish() -> impl Strategy<Value = PublishSpec> {
        let address = any::<[u8; 4]>().prop_map(IpAddr::from);
        let range = (1..=u16::MAX, 1..=u16::MAX).prop_map(|(a, b)| (a.min(b), a.max(b)));
        (prop::option::of(address), prop::option::of(range), 1..=u16::MAX, any_protocol()).prop_map(
            |(host_ip, host_ports, port, protocol)| PublishSpec {
                host_ip,
                host_ports,
                port,
                protocol,
            },
        )
    }

    fn any_restart() -> impl Strategy<Value = Restart> {
        prop_oneof![
            Just(Restart::No),
            Just(Restart::Always),
            Just(Restart::UnlessStopped),
            any::<u32>().prop_map(|max| Restart::OnFailure { max }),
        ]
    }

    proptest! {
        #[test]
        fn a_spec_comes_back(
            container in any_spec(),
            (network, endpoints) in any_mode(),
            publish in prop::collection::vec(any_publish(), 0..4),
            expose in prop::collection::vec((1..=u16::MAX, any_protocol()), 0..4),
            restart in any_restart(),
            [publish_all, auto_remove] in any::<[bool; 2]>(),
        ) {
            let name = "web".to_owned();
            let given = RunSpec {
                name, container, network, endpoints, publish, publish_all, expose, restart,
                auto_remove,
            };
            prop_assert_eq!(spec_of(&spec(&given, &Digits), &Digits), Ok(given));
        }
    }

    fn port(host: (u32, u32), container: (u32, u32)) -> v1::PortSpec {
        v1::PortSpec {
            host_port: host.0,
            host_port_end: host.1,
            container_port: container.0,
            container_port_end: container.1,
            ..Default::default()
        }
    }

    #[test]
    fn ranges_are_paired() {
        let wishes = |host, container| {
            let found = publish_of(&port(host, container));
            found.map(|all| all.into_iter().map(|p| (p.host_ports, p.port)).collect::<Vec<_>>())
        };
        assert_eq!(wishes((0, 0), (80, 0)), Ok(vec![(None, 80)]));
        assert_eq!(wishes((0, 0), (80, 81)), Ok(vec![(None, 80), (None, 81)]));
        assert_eq!(wishes((8080, 0), (80, 80)), Ok(vec![(Some((8080, 8080)), 80)]));
        assert_eq!(wishes((8000, 8010), (80, 0)), Ok(vec![(Some((8000, 8010)), 80)]));
        let pairs = vec![(Some((8000, 8000)), 80), (Some((8001, 8001)), 81)];
        assert_eq!(wishes((8000, 8001), (80, 81)), Ok(pairs));
        for (host, container) in [
            ((8000, 8002), (80, 81)),
            ((8000, 0), (80, 81)),
            ((0, 0), (0, 0)),
            ((65_536, 0), (80, 0)),
            ((0, 5), (80, 0)),
            ((8001, 8000), (80, 0)),
            ((0, 0), (81, 80)),
        ] {
            assert!(wishes(host, container).is_err(), "{host:?}:{container:?}");
        }
    }

    #[test]
    fn without_a_network_it_is_the_default_bridge_and_links_go_to_all() {
        let names = |text: &str| match text {
            "bridge" => "bb".to_owned(),
            other => other.to_owned(),
        };
        struct WithBridge<F>(F);
        impl<F: Fn(&str) -> String> Resolve for WithBridge<F> {
            type Error = Invalid;
            fn network(&self, text: &str) -> Result<(NetworkId, Scope), Invalid> {
                Resolve::network(&Digits, &(self.0)(text))
            }
            fn container(&self, text: &str) -> Result<ContainerId, Invalid> {
                Resolve::container(&Digits, text)
            }
        }
        let wire = v1::RunSpec { links: vec!["aa:db".into(), "ab".into()], ..Default::default() };
        let spec = spec_of(&wire, &WithBridge(names)).unwrap();
        assert_eq!(spec.endpoints[0].network, NetworkId::from_bytes([0xbb; 32]));
        let aliases: Vec<_> = spec.endpoints[0].links.iter().map(|link| &link.alias[..]).collect();
        assert_eq!(aliases, ["db", "ab"]);
    }

    #[test]
    fn what_cannot_be_read_names_its_field() {
        let endpoint = |spoil: fn(&mut v1::EndpointSpec)| {
            let mut endpoint = v1::EndpointSpec { network: "aa".into(), ..Default::default() };
            spoil(&mut endpoint);
            vec![endpoint]
        };
        let cases: [(&str, v1::RunSpec); 12] = [
            ("--network", v1::RunSpec { network_mode: "bridge".into(), ..Default::default() }),
            ("--network", v1::RunSpec { network_mode: "container:".into(), ..Default::default() }),
            (
                "--network",
                v1::RunSpec {
                    network_mode: "host".into(),
                    networks: endpoint(|_| {}),
                    ..Default::default()
                },
            ),
            (
                "--link",
                v1::RunSpec {
                    network_mode: "none".into(),
                    links: vec!["aa".into()],
                    ..Default::default()
                },
            ),
            (
                "--ip",
                v1::RunSpec {
                    networks: endpoint(|e| e.addresses = vec!["x".into()]),
                    ..Default::default()
                },
            ),
            (
                "--mac-address",
                v1::RunSpec {
                    networks: endpoint(|e| e.mac_address = "02:42:0a:00:00".into()),
                    ..Default::default()
                },
            ),
            (
                "--mac-address",
                v1::RunSpec {
                    networks: endpoint(|e| e.mac_address = "02:42:0a:00:00:+2".into()),
                    ..Default::default()
                },
            ),
            (
                "--link",
                v1::RunSpec {
                    networks: endpoint(|e| e.links = vec!["aa:".into()]),
                    ..Default::default()
                },
            ),
            ("--expose", v1::RunSpec { expose: vec!["0/tcp".into()], ..Default::default() }),
            ("--expose", v1::RunSpec { expose: vec!["80/icmp".into()], ..Default::default() }),
            ("--restart", v1::RunSpec { restart: "on-failure:-1".into(), ..Default::default() }),
            (
                "--publish",
                v1::RunSpec { publish: vec![port((0, 0), (0, 0))], ..Default::default() },
            ),
        ];
        for (field, mut wire) in cases {
            if wire.network_mode.is_empty() && wire.networks.is_empty() {
                wire.networks = endpoint(|_| {});
            }
            assert_eq!(spec_of(&wire, &Digits).unwrap_err().field, field, "{wire:?}");
        }
    }
}
