//! Networks.

use std::net::IpAddr;

use ipnet::IpNet;
use weft_model::{
    Attachment, Network, State, Subnet,
    object::Holder,
    spec::{Driver, Invalid, NetworkSpec, PoolSpec, Scope},
};

use super::value;
use crate::v1;

/// The user's words, for the wire.
pub fn spec(spec: &NetworkSpec) -> v1::NetworkSpec {
    v1::NetworkSpec {
        name: spec.name.clone(),
        driver: spec.driver.word().to_owned(),
        labels: value::map(spec.labels.clone()),
        options: value::map(spec.options.clone()),
        internal: spec.internal,
        attachable: spec.attachable,
        ipv6: spec.ipv6,
        ipam: spec.pools.iter().map(pool).collect(),
        scope: spec.scope().word().to_owned(),
        ingress: false,
    }
}

/// The user's words, from the wire.
///
/// # Errors
/// The first field that cannot be read. What the fields mean together is checked by the model.
pub fn spec_of(wire: &v1::NetworkSpec) -> Result<NetworkSpec, Invalid> {
    let driver = match wire.driver.as_str() {
        "" | "overlay" => Driver::Overlay,
        "macvlan" => Driver::Macvlan,
        "ipvlan" => Driver::Ipvlan,
        other => {
            let reason = "the cluster's networks are of driver overlay, macvlan or ipvlan";
            return Err(Invalid::new("--driver", other, reason).hint("use -d overlay"));
        }
    };
    spec_with(wire, driver, Scope::Cluster)
}

/// The same of a network of the node's own.
///
/// # Errors
/// As before.
pub fn local_spec_of(wire: &v1::NetworkSpec) -> Result<NetworkSpec, Invalid> {
    let driver = match wire.driver.as_str() {
        "" | "bridge" => Driver::Bridge,
        "host" => Driver::Host,
        "null" | "none" => Driver::Null,
        "macvlan" => Driver::Macvlan,
        "ipvlan" => Driver::Ipvlan,
        "ovs" => Driver::Ovs,
        "overlay" => {
            let reason = "the networks of one node are not overlays";
            let hint = "overlays are of scope cluster: weft cluster init, or weft cluster join";
            return Err(Invalid::new("--driver", "overlay", reason).hint(hint));
        }
        other => {
            let reason = "must be bridge, macvlan, ipvlan, ovs or overlay";
            return Err(Invalid::new("--driver", other, reason));
        }
    };
    spec_with(wire, driver, Scope::Local)
}

/// `place` is whose networks are kept where the spec has arrived.
fn spec_with(wire: &v1::NetworkSpec, driver: Driver, place: Scope) -> Result<NetworkSpec, Invalid> {
    if wire.ingress {
        return Err(Invalid::new("--ingress", "true", "not available in this version"));
    }
    let scope = match wire.scope.as_str() {
        "" => driver.scope(),
        "local" => Scope::Local,
        // Docker's word for what is the cluster's.
        "cluster" | "swarm" => Scope::Cluster,
        other => return Err(Invalid::new("--scope", other, "must be local or cluster")),
    };
    driver.check_scope(scope)?;
    if scope != place {
        let reason = format!("the networks kept here are of scope {place}");
        let hint = format!("give --scope {place}");
        return Err(Invalid::new("--scope", scope, reason).hint(hint));
    }
    Ok(NetworkSpec {
        name: wire.name.clone(),
        driver,
        labels: value::map(wire.labels.clone()),
        options: value::map(wire.options.clone()),
        internal: wire.internal,
        attachable: wire.attachable,
        ipv6: wire.ipv6,
        pools: wire.ipam.iter().map(pool_of).collect::<Result<_, _>>()?,
        scope: Some(scope).filter(|scope| *scope != driver.scope()),
    })
}

fn pool(pool: &PoolSpec) -> v1::IpamConfig {
    let text = |value: Option<String>| value.unwrap_or_default();
    v1::IpamConfig {
        subnet: text(pool.subnet.map(|subnet| subnet.to_string())),
        ip_range: text(pool.range.map(|range| range.to_string())),
        gateway: text(pool.gateway.map(|gateway| gateway.to_string())),
        aux_addresses: pool.auxiliary.iter().map(|(n, a)| (n.clone(), a.to_string())).collect(),
    }
}

fn pool_of(wire: &v1::IpamConfig) -> Result<PoolSpec, Invalid> {
    let auxiliary = wire.aux_addresses.iter();
    Ok(PoolSpec {
        subnet: value::optional(&wire.subnet, |text| value::prefix("--subnet", text))?,
        gateway: value::optional(&wire.gateway, |text| value::address("--gateway", text))?,
        range: value::optional(&wire.ip_range, |text| value::prefix("--ip-range", text))?,
        auxiliary: auxiliary
            .map(|(name, text)| Ok((name.clone(), value::address("--aux-address", text)?)))
            .collect::<Result<_, _>>()?,
    })
}

/// A network for the wire, with who is on it and how full it is.
pub fn network(state: &State, network: &Network) -> v1::Network {
    let attached = state.attachments().filter(|attached| attached.network == network.id);
    let uses = network.subnets.iter().map(|subnet| pool_use(state, network, subnet));
    v1::Network {
        id: network.id.to_string(),
        meta: Some(value::meta(&network.meta)),
        spec: Some(spec(&network.spec)),
        vni: network.vni.unwrap_or_default(),
        ipam: network.subnets.iter().map(decided).collect(),
        endpoints: attached.map(|attached| endpoint(state, network, attached)).collect(),
        vips: vips(state, network),
        r#use: uses.collect(),
        encrypted: network.encrypted,
    }
}

fn decided(subnet: &Subnet) -> v1::IpamConfig {
    pool(&PoolSpec {
        subnet: Some(subnet.cidr),
        gateway: Some(subnet.gateway),
        range: Some(subnet.range).filter(|range| *range != subnet.cidr),
        auxiliary: subnet.auxiliary.clone(),
    })
}

fn endpoint(state: &State, network: &Network, attached: &Attachment) -> v1::Endpoint {
    let common = v1::Endpoint {
        attachment_id: attached.id.to_string(),
        node_id: attached.node.map(|node| node.to_string()).unwrap_or_default(),
        addresses: with_prefixes(network, &attached.addresses),
        mac_address: mac(attached.mac),
        visible: state.is_visible(attached.holder),
        ..v1::Endpoint::default()
    };
    match attached.holder {
        Holder::Task(task) => {
            let task = state.task(task);
            let usage =
                task.and_then(|task| task.networks.iter().find(|u| u.network == network.id));
            v1::Endpoint {
                name: task.map(|task| task.container_name()).unwrap_or_default(),
                task_id: task.map(|task| task.id.to_string()).unwrap_or_default(),
                container_id: task.map(|task| task.id.to_string()).unwrap_or_default(),
                service_id: task.map(|task| task.service.to_string()).unwrap_or_default(),
                aliases: usage.map(|usage| usage.aliases.clone()).unwrap_or_default(),
                ..common
            }
        }
        Holder::Foreign(id) => {
            let foreign = state.foreign(id);
            let service = foreign.and_then(|foreign| foreign.service);
            v1::Endpoint {
                name: foreign.map(|foreign| foreign.name.clone()).unwrap_or_default(),
                service_id: service.map(|service| service.to_string()).unwrap_or_default(),
                aliases: foreign.map(|foreign| foreign.aliases.clone()).unwrap_or_default(),
                ..common
            }
        }
        Holder::Container(id) => {
            let container = state.container(id);
            let on = container.and_then(|container| container.endpoint_on(network.id));
            v1::Endpoint {
                name: container.map(|c| c.spec.name.clone()).unwrap_or_default(),
                container_id: id.to_string(),
                aliases: on.map(|endpoint| endpoint.spec.aliases.clone()).unwrap_or_default(),
                ..common
            }
        }
    }
}

fn vips(state: &State, network: &Network) -> Vec<v1::ServiceVip> {
    let services = state.services();
    services
        .filter_map(|service| {
            let addresses = service.vips.get(&network.id)?;
            Some(v1::ServiceVip {
                service_id: service.id.to_string(),
                service_name: service.spec.name.clone(),
                addresses: with_prefixes(network, addresses),
            })
        })
        .collect()
}

fn pool_use(state: &State, network: &Network, subnet: &Subnet) -> v1::PoolUse {
    let usage = state.address_use(network, subnet);
    // A /64 has more addresses than 64 bits count; the wire shows the most it can.
    let cut = |count: u128| u64::try_from(count).unwrap_or(u64::MAX);
    v1::PoolUse {
        subnet: subnet.cidr.to_string(),
        size: cut(usage.size),
        // A container is what a task is on a network of the cluster.
        tasks: (usage.tasks + usage.containers) as u64,
        vips: usage.vips as u64,
        attachments: usage.foreign as u64,
        resting: usage.resting as u64,
        free: cut(usage.free()),
    }
}

/// Addresses with the prefix lengths of the subnets that they are in.
pub(super) fn with_prefixes(network: &Network, addresses: &[IpAddr]) -> Vec<String> {
    addresses.iter().map(|address| with_prefix(network, *address)).collect()
}

fn with_prefix(network: &Network, address: IpAddr) -> String {
    let subnet = network.subnets.iter().find(|subnet| subnet.cidr.contains(&address));
    let host = IpNet::from(address);
    let length = subnet.map_or(host.prefix_len(), |subnet| subnet.cidr.prefix_len());
    format!("{address}/{length}")
}

/// A hardware address as everybody writes it.
pub(super) fn mac(bytes: [u8; 6]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_pool() -> impl Strategy<Value = PoolSpec> {
        let subnet = (0_u8..=255, 8_u8..=29).prop_map(|(b, length)| {
            IpNet::new(IpAddr::from([10, b, 0, 0]), length).unwrap().trunc()
        });
        let address = any::<[u8; 16]>().prop_map(IpAddr::from);
        (
            prop::option::of(subnet.clone()),
            prop::option::of(address.clone()),
            prop::option::of(subnet),
            prop::collection::btree_map("[a-z]{1,8}", address, 0..3),
        )
            .prop_map(|(subnet, gateway, range, auxiliary)| PoolSpec {
                subnet,
                gateway,
                range,
                auxiliary,
            })
    }

    proptest! {
        #[test]
        fn a_spec_comes_back(
            name in "[a-z]{1,20}",
            labels in prop::collection::btree_map("[a-z]{1,8}", ".{0,8}", 0..4),
            options in prop::collection::btree_map("[a-z]{1,8}", ".{0,8}", 0..4),
            flags in any::<[bool; 3]>(),
            shared in any::<bool>(),
            driver in prop::sample::select(vec![Driver::Macvlan, Driver::Ipvlan, Driver::Overlay]),
            pools in prop::collection::vec(any_pool(), 0..3),
        ) {
            let [internal, attachable, ipv6] = flags;
            let overlay = driver == Driver::Overlay;
            let scope = (shared && !overlay).then_some(Scope::Cluster);
            let given = NetworkSpec {
                name, driver, labels, options, internal, attachable, ipv6, pools, scope,
            };
            let (here, other) = match given.scope() {
                Scope::Cluster => (spec_of(&spec(&given)), local_spec_of(&spec(&given))),
                Scope::Local => (local_spec_of(&spec(&given)), spec_of(&spec(&given))),
            };
            prop_assert_eq!(here, Ok(given));
            let field = if overlay { "--driver" } else { "--scope" };
            prop_assert_eq!(other.unwrap_err().field, field);
        }
    }

    #[test]
    fn what_cannot_be_read_names_its_field() {
        let cases: [(&str, fn(&mut v1::NetworkSpec)); 6] = [
            ("--driver", |s| s.driver = "bridge".into()),
            ("--scope", |s| s.scope = "local".into()),
            ("--ingress", |s| s.ingress = true),
            ("--subnet", |s| s.ipam[0].subnet = "10.0.0.0/33".into()),
            ("--gateway", |s| s.ipam[0].gateway = "x".into()),
            ("--ip-range", |s| s.ipam[0].ip_range = "010.0.0.0/8".into()),
        ];
        for (field, spoil) in cases {
            let mut wire = spec(&NetworkSpec::overlay("n"));
            wire.ipam.push(v1::IpamConfig::default());
            spoil(&mut wire);
            assert_eq!(spec_of(&wire).unwrap_err().field, field);
        }
    }
}
