//! The three files that a container reads names with, and who it is to the resolver.

use std::{
    fs, io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use weft_dns::files::{HostEntry, Ipv6, Overrides, ResolvConf, hosts};
use weft_model::{
    Container, ContainerId, NetworkId, State,
    object::Endpoint,
    spec::{Driver, NetworkMode},
};

use super::Defaults;
use crate::{desired::Sorted, plumbing::Resolving, tasks};

/// The port of name servers.
const DNS_PORT: u16 = 53;
/// The host's own names, for containers in its namespace.
const HOSTS: &str = "/etc/hosts";

/// Two of the files as they should be; the third, hostname, never changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Texts {
    pub resolv_conf: String,
    pub hosts: String,
}

/// What the texts are made from.
pub(super) struct View<'a> {
    pub state: &'a State,
    pub sorted: &'a Sorted<'a>,
    pub defaults: &'a Defaults,
    /// The files of a container that is there.
    pub etc: &'a dyn Fn(ContainerId) -> PathBuf,
}

impl View<'_> {
    /// The files of a container.
    pub fn texts(&self, container: &Container) -> Texts {
        let host = tasks::host_resolv_conf();
        let overrides = self.overrides(container);
        let plain = overrides == Overrides::default();
        match container.spec.network {
            NetworkMode::Networks => Texts {
                resolv_conf: self.resolv_conf(container, &host, &overrides),
                hosts: self.hosts(container),
            },
            NetworkMode::None => Texts {
                resolv_conf: ResolvConf::new(&host, &overrides).direct(Ipv6::Disabled),
                hosts: self.hosts(container),
            },
            NetworkMode::Host => Texts {
                resolv_conf: match plain {
                    true => host,
                    false => ResolvConf::new(&host, &overrides).direct(Ipv6::Enabled),
                },
                hosts: self.host_hosts(container),
            },
            // It shares the other's names as it shares its addresses.
            NetworkMode::Container(owner) => {
                let etc = (self.etc)(owner);
                let text = |file: &str| fs::read_to_string(etc.join(file)).unwrap_or_default();
                Texts { resolv_conf: text("resolv.conf"), hosts: text("hosts") }
            }
        }
    }

    fn resolv_conf(&self, container: &Container, host: &str, overrides: &Overrides) -> String {
        let conf = ResolvConf::new(host, overrides);
        if self.asks_us(container) {
            return conf.text();
        }
        let v6 = self.addresses(container).iter().any(IpAddr::is_ipv6);
        conf.direct(if v6 { Ipv6::Enabled } else { Ipv6::Disabled })
    }

    /// Whether our resolver answers for it: on the default bridge alone it does not, as in Docker.
    fn asks_us(&self, container: &Container) -> bool {
        container.endpoints.iter().any(|endpoint| has_names(self.state, endpoint))
    }

    fn overrides(&self, container: &Container) -> Overrides {
        let spec = &container.spec.container;
        let or = |own: &[String], default: &[String]| match own.is_empty() {
            true => default.to_vec(),
            false => own.to_vec(),
        };
        let servers = if spec.dns.is_empty() { &self.defaults.dns } else { &spec.dns };
        Overrides {
            nameservers: servers.clone(),
            search: or(&spec.dns_search, &self.defaults.dns_search),
            options: or(&spec.dns_options, &self.defaults.dns_options),
        }
    }

    /// What its resolver asks with.
    pub fn resolving(&self, container: &Container) -> Resolving {
        let host = tasks::host_resolv_conf();
        let overrides = self.overrides(container);
        let upstreams = match overrides.nameservers.is_empty() {
            true => tasks::upstreams(&host),
            false => {
                let servers = overrides.nameservers.iter();
                servers.map(|server| SocketAddr::new(*server, DNS_PORT)).collect()
            }
        };
        Resolving { upstreams, ndots: ResolvConf::new(&host, &overrides).ndots() }
    }

    fn hosts(&self, container: &Container) -> String {
        let mut more = extra(container);
        for endpoint in &container.endpoints {
            more.extend(self.links(endpoint));
        }
        let own: Vec<_> = self
            .addresses(container)
            .into_iter()
            .map(|address| HostEntry { address, names: vec![hostname(container)] })
            .collect();
        let v6 = own.iter().any(|entry| entry.address.is_ipv6());
        hosts(&more, &own, if v6 { Ipv6::Enabled } else { Ipv6::Disabled })
    }

    /// Links on the default bridge, which has no names: a line for each.
    fn links(&self, endpoint: &Endpoint) -> Vec<HostEntry> {
        if has_names(self.state, endpoint) {
            return Vec::new();
        }
        let network = endpoint.spec.network;
        let line = |link: &weft_model::spec::Link| {
            let target = self.state.container(link.target)?;
            let there = target.endpoint_on(network)?;
            let address = *self.state.attachment(there.attachment)?.addresses.first()?;
            let mut names = vec![link.alias.clone(), hostname(target), target.spec.name.clone()];
            names.dedup();
            Some(HostEntry { address, names })
        };
        endpoint.spec.links.iter().filter_map(line).collect()
    }

    fn host_hosts(&self, container: &Container) -> String {
        let mut text = fs::read_to_string(HOSTS).unwrap_or_default();
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        for HostEntry { address, names } in extra(container) {
            text.push_str(&format!("{address}\t{}\n", names.join(" ")));
        }
        text
    }

    /// Its own addresses, in the order of its networks.
    fn addresses(&self, container: &Container) -> Vec<IpAddr> {
        let of = |endpoint: &Endpoint| match endpoint.foreign() {
            true => {
                let item = self.sorted.endpoints.get(&endpoint.attachment);
                item.map(|item| item.addresses.clone()).unwrap_or_default()
            }
            false => {
                let found = self.state.attachment(endpoint.attachment);
                found.map(|found| found.addresses.clone()).unwrap_or_default()
            }
        };
        container.endpoints.iter().flat_map(of).collect()
    }
}

/// Whether names are answered on the network of an endpoint: on all but the default bridge.
pub(super) fn has_names(state: &State, endpoint: &Endpoint) -> bool {
    endpoint.foreign() || network_has_names(state, endpoint.spec.network)
}

/// Whether names are answered on a network of this node.
pub(super) fn network_has_names(state: &State, network: NetworkId) -> bool {
    state.network(network).is_some_and(|network| match network.spec.driver {
        Driver::Bridge => !network.spec.is_predefined(),
        Driver::Overlay | Driver::Macvlan | Driver::Ipvlan | Driver::Ovs => true,
        Driver::Host | Driver::Null => false,
    })
}

/// What the container calls itself.
pub(super) fn hostname(container: &Container) -> String {
    match container.spec.container.hostname.as_str() {
        "" => container.id.short(),
        name => name.to_owned(),
    }
}

fn extra(container: &Container) -> Vec<HostEntry> {
    let hosts = container.spec.container.hosts.iter();
    hosts
        .map(|(name, address)| HostEntry { address: *address, names: vec![name.clone()] })
        .collect()
}

/// What was written into a container's files last: what is in them otherwise was edited inside, and
/// stays.
#[derive(Clone, Debug)]
pub(super) struct Written(PathBuf);

impl Written {
    /// Kept in this directory.
    pub fn new(directory: &Path, id: ContainerId) -> Self {
        Self(directory.join("etc").join(id.to_string()))
    }

    /// What it was; none if nothing was written.
    pub fn load(&self) -> Option<Texts> {
        serde_json::from_slice(&fs::read(&self.0).ok()?).ok()
    }

    /// Notes it. After a crash of the machine it may be older: then the files count as edited.
    pub fn save(&self, texts: &Texts) -> io::Result<()> {
        if let Some(directory) = self.0.parent() {
            fs::create_dir_all(directory)?;
        }
        fs::write(&self.0, serde_json::to_vec(texts).map_err(io::Error::other)?)
    }

    /// There is no such container any more.
    pub fn forget(&self) {
        // One that was never started has none.
        let _ = fs::remove_file(&self.0);
    }
}
