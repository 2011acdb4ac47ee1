//! What this node decides for its containers: names, addresses, ports. Pure, but for the ports that
//! other programs of the host have, which a closure tells.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use weft_ipam::port;
use weft_model::{
    AttachmentId, Container, NetworkId, Rejected, State,
    command::NewEndpoint,
    object::PortBinding,
    spec::{EndpointSpec, Protocol, RunSpec, Scope},
};
use weft_overlay::mac_for;

use super::{Defaults, plane};

/// What is decided of the networks of a new container; `names` gives each attachment its name.
pub(super) fn endpoints(
    state: &State,
    spec: &RunSpec,
    names: impl Fn(NetworkId) -> AttachmentId,
) -> Result<Vec<NewEndpoint>, Rejected> {
    let each = |(index, asked): (usize, &EndpointSpec)| {
        endpoint(state, asked, names(asked.network), format!("eth{index}"))
    };
    spec.endpoints.iter().enumerate().map(each).collect()
}

/// What is decided of one more network of a container.
pub(super) fn endpoint(
    state: &State,
    asked: &EndpointSpec,
    attachment: AttachmentId,
    ifname: String,
) -> Result<NewEndpoint, Rejected> {
    let addresses = match asked.scope {
        Scope::Local => state.choose_addresses_beside(asked.network, &asked.addresses)?,
        // The managers choose them.
        Scope::Cluster => Vec::new(),
    };
    let derived = || mac_for(addresses.iter().copied()).0;
    let mac = asked.mac.unwrap_or_else(derived);
    Ok(NewEndpoint { attachment, mac, addresses, ifname })
}

/// The first interface name that a container has not.
pub(super) fn ifname(state: &State, container: &Container) -> String {
    let free = |name: &String| !state.has_interface(container, name);
    (0..).map(|index: u32| format!("eth{index}")).find(free).unwrap_or_default()
}

/// Chooses ports of the host.
pub(super) struct Ports<'a> {
    pub state: &'a State,
    pub defaults: &'a Defaults,
    /// Whether the host speaks IPv6.
    pub v6: bool,
    /// The port that was chosen last.
    pub cursor: Option<u16>,
    /// Whether another program of the host has a port.
    pub is_taken: &'a dyn Fn(Protocol, IpAddr, u16) -> bool,
}

impl Ports<'_> {
    /// The bindings of a start.
    pub fn choose(mut self, container: &Container) -> Result<Vec<PortBinding>, Rejected> {
        let spec = &container.spec;
        let mut chosen: Vec<PortBinding> = Vec::new();
        for publish in &spec.publish {
            let addresses = self.addresses(container, publish.host_ip);
            let (first, last) = publish.host_ports.unwrap_or((port::FIRST, port::LAST));
            let wanted = (publish.port, publish.protocol);
            self.add(container, &mut chosen, &addresses, wanted, (first, last))?;
        }
        if spec.publish_all {
            let done: BTreeSet<_> = spec.publish.iter().map(|p| (p.port, p.protocol)).collect();
            for wanted in spec.expose.iter().filter(|wanted| !done.contains(wanted)) {
                let addresses = self.addresses(container, None);
                let range = (port::FIRST, port::LAST);
                self.add(container, &mut chosen, &addresses, *wanted, range)?;
            }
        }
        Ok(chosen)
    }

    fn addresses(&self, container: &Container, asked: Option<IpAddr>) -> Vec<IpAddr> {
        let by_network = || {
            let mut networks = container.endpoints.iter();
            networks
                .find_map(|endpoint| self.state.network(endpoint.spec.network)?.spec.host_binding())
        };
        if let Some(address) = asked.or_else(by_network).or(self.defaults.ip) {
            return vec![address];
        }
        let mut all = vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED)];
        all.extend(self.v6.then_some(IpAddr::V6(Ipv6Addr::UNSPECIFIED)));
        all
    }

    /// The same port at all of the addresses.
    fn add(
        &mut self,
        container: &Container,
        chosen: &mut Vec<PortBinding>,
        addresses: &[IpAddr],
        (port, protocol): (u16, Protocol),
        (first, last): (u16, u16),
    ) -> Result<(), Rejected> {
        let bindings = |host_port| {
            let at = move |host_ip: &IpAddr| PortBinding {
                host_ip: *host_ip,
                host_port,
                port,
                protocol,
            };
            addresses.iter().map(at)
        };
        let used = |host_port| {
            bindings(host_port).any(|binding| {
                let other = |user: &&std::sync::Arc<Container>| user.id != container.id;
                chosen.iter().any(|earlier| earlier.overlaps(&binding))
                    || self.state.users_of_port(&binding).any(|user| other(&user))
                    || (self.is_taken)(protocol, binding.host_ip, host_port)
            })
        };
        // A port that the user names is tried as it is: the refusal says who has it.
        let host_port = match first == last {
            true => first,
            false => port::choose_port((first, last), self.cursor, used).map_err(|full| {
                Rejected::Exhausted {
                    pool: full.pool,
                    detail: format!("{} of {} in use", full.used, full.size),
                    hint: "remove containers that publish ports, or name a port".to_owned(),
                }
            })?,
        };
        self.cursor = Some(host_port);
        chosen.extend(bindings(host_port));
        Ok(())
    }
}

/// The ports a container is said to listen at and does not publish.
pub(crate) fn unpublished(container: &Container) -> Vec<(u16, Protocol)> {
    let published = |port: u16, protocol: Protocol| {
        container.ports.iter().any(|binding| (binding.port, binding.protocol) == (port, protocol))
    };
    plane::ports(container).into_iter().filter(|(port, kind)| !published(*port, *kind)).collect()
}
