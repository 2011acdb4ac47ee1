//! Namespaces that somebody else owns, with the names that Docker gives to a container's endpoint.

use serde_json::{Value, json};
use weft_proto::v1;

use super::{address, of_family, prefix};

/// One attachment.
pub fn inspect(attachment: &v1::Attachment) -> Value {
    let network = attachment.network.clone().unwrap_or_default();
    let (v4, v6) = (of_family(&network.addresses, false), of_family(&network.addresses, true));
    json!({
        "Id": attachment.id,
        "Name": attachment.name,
        "Network": network.network_name,
        "NetworkID": network.network_id,
        "Addresses": network.addresses,
        "IPAddress": address(v4),
        "IPPrefixLen": prefix(v4),
        "Gateway": address(of_family(&network.gateways, false)),
        "GlobalIPv6Address": address(v6),
        "GlobalIPv6PrefixLen": prefix(v6),
        "IPv6Gateway": address(of_family(&network.gateways, true)),
        "MacAddress": network.mac_address,
        "Aliases": network.aliases,
        "Interface": network.interface,
        "Service": attachment.service_name,
        "NetnsPath": attachment.netns_path,
        "State": attachment.status,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_are_shown_with_their_prefixes() {
        let network = v1::ContainerNetwork {
            network_name: "blue".into(),
            addresses: vec!["fd00::5/64".into(), "10.0.0.5/24".into()],
            gateways: vec!["10.0.0.1".into(), "fd00::1".into()],
            interface: "net1".into(),
            ..v1::ContainerNetwork::default()
        };
        let attachment = v1::Attachment {
            name: "probe".into(),
            network: Some(network),
            ..v1::Attachment::default()
        };
        let shown = inspect(&attachment);
        let expected = [
            ("Name", json!("probe")),
            ("Network", json!("blue")),
            ("IPAddress", json!("10.0.0.5")),
            ("IPPrefixLen", json!(24)),
            ("Gateway", json!("10.0.0.1")),
            ("GlobalIPv6Address", json!("fd00::5")),
            ("GlobalIPv6PrefixLen", json!(64)),
            ("IPv6Gateway", json!("fd00::1")),
            ("Interface", json!("net1")),
        ];
        for (field, value) in expected {
            assert_eq!(shown[field], value, "{field}");
        }
    }
}
