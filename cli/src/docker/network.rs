//! Networks.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use weft_proto::v1;

use super::{Trunc, address, label_text, meta, object, of_family};
use crate::output::list::{Columns, Row};

/// `weft network ls`
pub const COLUMNS: Columns = Columns {
    shown: &[("ID", "NETWORK ID"), ("Name", "NAME"), ("Driver", "DRIVER"), ("Scope", "SCOPE")],
    more: &[
        ("CreatedAt", "CREATED AT"),
        ("IPv4", "IPV4"),
        ("IPv6", "IPV6"),
        ("Internal", "INTERNAL"),
        ("Labels", "LABELS"),
    ],
    id: "ID",
};

const VNI_OPTION: &str = "com.docker.network.driver.overlay.vxlanid_list";

/// The scope in words; a network that does not say has that of its driver.
pub fn scope(spec: &v1::NetworkSpec) -> &str {
    match (spec.scope.as_str(), spec.driver.as_str()) {
        ("", "overlay") => "cluster",
        ("", _) => "local",
        (scope, _) => scope,
    }
}

/// One row of the list.
pub fn row(network: &v1::Network, trunc: Trunc) -> Row {
    let spec = network.spec.clone().unwrap_or_default();
    let (_, created, _) = meta(network.meta.as_ref());
    let mut row = Row::new([
        ("CreatedAt", created),
        ("Driver", spec.driver.clone()),
        ("ID", trunc.id(&network.id)),
        ("IPv4", "true".to_owned()),
        ("IPv6", has_v6(network, &spec).to_string()),
        ("Internal", spec.internal.to_string()),
        ("Labels", label_text(&spec.labels)),
        ("Name", spec.name.clone()),
        ("Scope", scope(&spec).to_owned()),
    ]);
    row.labels = spec.labels.clone();
    row
}

fn has_v6(network: &v1::Network, spec: &v1::NetworkSpec) -> bool {
    spec.ipv6 || network.ipam.iter().any(|config| config.subnet.contains(':'))
}

/// Everything about a network. `nodes` names the nodes that hold its endpoints; `verbose` adds the
/// services.
pub fn inspect(network: &v1::Network, nodes: &[v1::Node], verbose: bool) -> Value {
    let spec = network.spec.clone().unwrap_or_default();
    let (_, created, _) = meta(network.meta.as_ref());
    let ipam = if network.ipam.is_empty() { &spec.ipam } else { &network.ipam };
    let mut value = json!({
        "Name": spec.name,
        "Id": network.id,
        "Created": created,
        "Scope": scope(&spec),
        "Driver": spec.driver,
        "EnableIPv4": true,
        "EnableIPv6": has_v6(network, &spec),
        "IPAM": {
            "Driver": "default",
            "Options": null,
            "Config": ipam.iter().map(ipam_config).collect::<Vec<_>>(),
        },
        "Internal": spec.internal,
        "Attachable": spec.attachable,
        "Ingress": spec.ingress,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": false,
        "Containers": containers(&network.endpoints),
        "Options": options(network, &spec),
        "Labels": object(&spec.labels),
    });
    if spec.driver == "overlay" {
        // What holds, by the network's own words or by the cluster's.
        value["Encrypted"] = network.encrypted.into();
        value["Peers"] = peers(&network.endpoints, nodes);
    }
    if verbose || !network.vips.is_empty() {
        value["Services"] = services(network);
    }
    value
}

fn ipam_config(config: &v1::IpamConfig) -> Value {
    let mut value = json!({"Subnet": config.subnet});
    if !config.ip_range.is_empty() {
        value["IPRange"] = config.ip_range.clone().into();
    }
    if !config.gateway.is_empty() {
        value["Gateway"] = address(&config.gateway).into();
    }
    if !config.aux_addresses.is_empty() {
        value["AuxiliaryAddresses"] = object(&config.aux_addresses);
    }
    value
}

/// Endpoints by container; one that belongs to no container stands under `ep-` and its own ID, as
/// in Docker.
fn containers(endpoints: &[v1::Endpoint]) -> Value {
    let mut map: BTreeMap<String, Value> = BTreeMap::new();
    for endpoint in endpoints {
        let key = match (endpoint.container_id.as_str(), endpoint.task_id.as_str()) {
            ("", "") => format!("ep-{}", endpoint.attachment_id),
            ("", task) => task.to_owned(),
            (container, _) => container.to_owned(),
        };
        map.insert(
            key,
            json!({
                "Name": endpoint.name,
                "EndpointID": endpoint.attachment_id,
                "MacAddress": endpoint.mac_address,
                "IPv4Address": of_family(&endpoint.addresses, false),
                "IPv6Address": of_family(&endpoint.addresses, true),
            }),
        );
    }
    Value::Object(map.into_iter().collect())
}

fn options(network: &v1::Network, spec: &v1::NetworkSpec) -> Value {
    let mut options = spec.options.clone();
    if network.vni != 0 {
        options.insert(VNI_OPTION.to_owned(), network.vni.to_string());
    }
    let options: Map<String, Value> =
        options.into_iter().map(|(key, value)| (key, Value::String(value))).collect();
    Value::Object(options)
}

/// The nodes that take part, with the addresses of the outer packets.
fn peers(endpoints: &[v1::Endpoint], nodes: &[v1::Node]) -> Value {
    let ids: std::collections::BTreeSet<&str> =
        endpoints.iter().map(|endpoint| endpoint.node_id.as_str()).collect();
    let peers = ids.into_iter().filter(|id| !id.is_empty()).map(|id| {
        let node = nodes.iter().find(|node| node.id == id);
        json!({
            "Name": node.map_or(id, |node| &node.hostname),
            "IP": node.map_or("", |node| &node.data_path_addr),
        })
    });
    peers.collect()
}

fn services(network: &v1::Network) -> Value {
    let services: BTreeMap<String, Value> = network
        .vips
        .iter()
        .map(|vip| {
            let tasks: Vec<Value> = network
                .endpoints
                .iter()
                .filter(|endpoint| endpoint.service_id == vip.service_id)
                .map(|endpoint| {
                    json!({
                        "Name": endpoint.name,
                        "EndpointID": endpoint.attachment_id,
                        "EndpointIP": address(of_family(&endpoint.addresses, false)),
                        "Info": {"NodeID": endpoint.node_id},
                    })
                })
                .collect();
            let value = json!({
                "VIP": address(of_family(&vip.addresses, false)),
                "Ports": [],
                "LocalLBIndex": 0,
                "Tasks": tasks,
            });
            (vip.service_name.clone(), value)
        })
        .collect();
    Value::Object(services.into_iter().collect())
}
