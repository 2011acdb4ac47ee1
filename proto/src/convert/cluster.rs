//! The cluster and its settings.

use std::time::Duration;

use weft_model::{Cluster, object::ClusterSpec, spec::Invalid};

use super::value;
use crate::v1;

/// The cluster for the wire, without its secrets.
pub fn cluster(cluster: &Cluster) -> v1::Cluster {
    v1::Cluster {
        id: cluster.id.to_string(),
        meta: Some(value::meta(&cluster.meta)),
        spec: Some(spec(&cluster.spec)),
        root_certificate: cluster.root_certificate.clone(),
    }
}

/// The settings for the wire.
pub fn spec(spec: &ClusterSpec) -> v1::ClusterSpec {
    v1::ClusterSpec {
        default_address_pools: spec.pools.iter().map(ToString::to_string).collect(),
        subnet_size: u32::from(spec.subnet_size),
        data_path_port: u32::from(spec.data_path_port),
        node_certificate_expiry: Some(value::duration(spec.certificate_expiry)),
        task_history_limit: spec.task_history_limit,
        encrypt_overlays: spec.encrypt_overlays,
        wireguard_port: u32::from(spec.wireguard_port),
        key_rotation: spec.key_rotation.map(value::duration),
    }
}

/// The settings that a new cluster is asked for; what is left out gets its default.
///
/// # Errors
/// The first field that cannot be read. Ranges are checked by the state.
pub fn spec_of_init(request: &v1::InitRequest) -> Result<ClusterSpec, Invalid> {
    let mut spec =
        ClusterSpec { encrypt_overlays: request.encrypt_overlays, ..ClusterSpec::default() };
    if request.wireguard_port != 0 {
        spec.wireguard_port = wireguard_port(request.wireguard_port)?;
    }
    if let Some(period) = value::span("--key-rotation", request.key_rotation.as_ref())? {
        spec.key_rotation = key_rotation(period);
    }
    if !request.default_addr_pools.is_empty() {
        let pools = request.default_addr_pools.iter();
        spec.pools = pools
            .map(|text| value::prefix("--default-addr-pool", text))
            .collect::<Result<_, _>>()?;
    }
    if request.default_addr_pool_mask_length != 0 {
        let length = request.default_addr_pool_mask_length;
        spec.subnet_size = u8::try_from(length).map_err(|_| {
            Invalid::new("--default-addr-pool-mask-length", length, "must be a prefix length")
        })?;
    }
    if request.data_path_port != 0 {
        let port = request.data_path_port;
        spec.data_path_port = u16::try_from(port)
            .map_err(|_| Invalid::new("--data-path-port", port, "must be from 1024 to 49151"))?;
    }
    if let Some(expiry) = value::span("--cert-expiry", request.cert_expiry.as_ref())? {
        spec.certificate_expiry = expiry;
    }
    if let Some(limit) = request.task_history_limit {
        spec.task_history_limit = limit;
    }
    Ok(spec)
}

/// The settings with what an administrator changes.
///
/// # Errors
/// The first field that cannot be read. Ranges are checked by the state.
pub fn spec_of_update(
    present: &ClusterSpec,
    request: &v1::UpdateClusterRequest,
) -> Result<ClusterSpec, Invalid> {
    let mut next = present.clone();
    next.task_history_limit = request.task_history_limit.unwrap_or(next.task_history_limit);
    if let Some(expiry) = value::span("--cert-expiry", request.cert_expiry.as_ref())? {
        next.certificate_expiry = expiry;
    }
    next.encrypt_overlays = request.encrypt_overlays.unwrap_or(next.encrypt_overlays);
    if let Some(port) = request.wireguard_port {
        next.wireguard_port = wireguard_port(port)?;
    }
    if let Some(period) = value::span("--key-rotation", request.key_rotation.as_ref())? {
        next.key_rotation = key_rotation(period);
    }
    Ok(next)
}

fn wireguard_port(port: u32) -> Result<u16, Invalid> {
    u16::try_from(port)
        .map_err(|_| Invalid::new("--wireguard-port", port, "must be from 1024 to 65503"))
}

/// 0 is never.
fn key_rotation(period: Duration) -> Option<Duration> {
    (period > Duration::ZERO).then_some(period)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_changes_what_it_names() {
        let present = ClusterSpec { task_history_limit: 7, ..ClusterSpec::default() };
        let same = spec_of_update(&present, &v1::UpdateClusterRequest::default());
        assert_eq!(same, Ok(present.clone()));
        let request = v1::UpdateClusterRequest {
            encrypt_overlays: Some(true),
            wireguard_port: Some(4500),
            key_rotation: Some(value::duration(Duration::ZERO)),
            ..Default::default()
        };
        let next = spec_of_update(&present, &request).unwrap();
        assert_eq!((next.encrypt_overlays, next.wireguard_port), (true, 4500));
        assert_eq!((next.key_rotation, next.task_history_limit), (None, 7));
        let request = v1::UpdateClusterRequest { wireguard_port: Some(70_000), ..request };
        let wrong = spec_of_update(&present, &request).unwrap_err();
        assert!(wrong.to_string().contains("--wireguard-port"), "{wrong}");
    }

    #[test]
    fn what_is_left_out_gets_its_default_and_the_rest_is_taken() {
        assert_eq!(spec_of_init(&v1::InitRequest::default()), Ok(ClusterSpec::default()));
        let request = v1::InitRequest {
            default_addr_pools: vec!["10.8.0.0/16".into()],
            default_addr_pool_mask_length: 26,
            data_path_port: 5000,
            task_history_limit: Some(0),
            ..Default::default()
        };
        let given = spec(&spec_of_init(&request).unwrap());
        assert_eq!(given.default_address_pools, ["10.8.0.0/16"]);
        assert_eq!((given.subnet_size, given.data_path_port), (26, 5000));
        assert_eq!(given.task_history_limit, 0);
        let bad = v1::InitRequest { data_path_port: 70_000, ..Default::default() };
        assert_eq!(spec_of_init(&bad).unwrap_err().field, "--data-path-port");
    }
}
