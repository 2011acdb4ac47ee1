//! What users write: values of flags, the configuration file, templates of lists.

use std::time::Duration;

use weft::{
    args::values::{self, run},
    daemon::settings::check_text,
    output::template::{MAX_OUTPUT, Template},
};

/// A value of any flag.
pub fn values(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    sizes(text);
    places(text);
    let _ = (values::key_value(text), values::option(text), values::scale(text));
    let _ = (values::service_mode(text), values::preference(text), values::aux_address(text));
    let _ = (values::tail(text), values::seconds(text), values::env(text));
    if let Ok((key, value)) = values::label(text) {
        assert!(!key.is_empty() && key.len() + value.len() <= text.len());
    }
    if let Ok(spec) = values::network(text) {
        assert!(!spec.network.is_empty() && spec.aliases.iter().all(|alias| !alias.is_empty()));
    }
    if let Ok(words) = values::words(text) {
        assert!(words.0.iter().map(String::len).sum::<usize>() <= text.len());
    }
    if let Ok(name) = values::file_name(text) {
        assert!(!name.is_empty() && name.len() <= 63 && !name.contains(['/', '\0']));
    }
    if let Ok(mount) = values::mount(text) {
        assert!(mount.target.starts_with('/') && mount.tmpfs_mode <= 0o7777, "{mount:?}");
    }
    for mount in [run::volume(text), run::tmpfs(text)].into_iter().flatten() {
        assert!(mount.target.starts_with('/') && mount.tmpfs_mode <= 0o7777, "{mount:?}");
    }
    let _ = (run::link(text), run::restart(text), run::container_network(text));
    // What the command line lets pass the cluster can read.
    if let Ok(constraint) = values::constraint(text) {
        assert!(constraint.parse::<weft_model::constraint::Constraint>().is_ok(), "{constraint}");
    }
    if let Ok(restart) = run::restart(text) {
        assert!(restart.parse::<weft_model::spec::Restart>().is_ok(), "{restart}");
    }
}

fn sizes(text: &str) {
    if let Ok(span) = values::duration(text) {
        assert!(span <= Duration::from_secs(100 * 365 * 24 * 3600));
    }
    if let Ok(size) = values::bytes(text) {
        assert!(size < 1 << 63, "{size}");
    }
    if let Ok(nano) = values::nano_cpus(text) {
        assert!(nano <= 1_000_000_000_000_000);
    }
    if let Ok(replicas) = values::replicas(text) {
        assert!(replicas <= 1_000_000);
    }
    if let Ok(signal) = values::signal(text) {
        assert!((1..=64).contains(&signal));
    }
    if let Ok(mode) = run::mode(text) {
        assert!(mode <= 0o7777);
    }
    if values::since(text).is_ok() {
        assert!(!text.to_ascii_lowercase().contains("nan"), "{text} is a time");
    }
}

fn places(text: &str) {
    if let Ok(net) = values::cidr(text) {
        assert_eq!(values::cidr(&net.to_string()), Ok(net));
    }
    if let Ok(net) = values::subnet(text) {
        assert_eq!(net, net.trunc());
    }
    if let Ok(pool) = values::address_pool(text) {
        assert!((pool.base.prefix_len()..=pool.base.max_prefix_len()).contains(&pool.size));
    }
    if let Ok(line) = values::host(text) {
        let (name, address) = line.split_once(':').expect("NAME:IP");
        assert!(!name.is_empty() && address.parse::<std::net::IpAddr>().is_ok(), "{line}");
    }
    if let Ok(place) = values::host_port(text) {
        assert_eq!(values::host_port(&place).as_ref(), Ok(&place));
    }
    if let Ok(mac) = run::mac(text) {
        assert_eq!(run::mac(&mac).as_ref(), Ok(&mac));
    }
    if let Ok(port) = run::publish(text) {
        let ends = [port.container_port, port.container_port_end];
        assert!(ends.iter().all(|port| (1..=65_535).contains(port)), "{port:?}");
        assert!(port.container_port <= port.container_port_end, "{port:?}");
        assert!(port.host_port <= port.host_port_end && port.host_port_end <= 65_535, "{port:?}");
        assert!(port.host_ip.is_empty() || port.host_ip.parse::<std::net::IpAddr>().is_ok());
    }
    if let Ok(ports) = run::expose(text) {
        assert_eq!(run::expose(&ports).as_ref(), Ok(&ports));
    }
    let _ = run::add_host(text);
}

/// The configuration file of the daemon.
pub fn weft_toml(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok(network) = check_text(text) else { return };
    if let Some(bridge) = &network.bridge {
        assert!((1..=15).contains(&bridge.len()) && !bridge.contains('/'));
    }
    if let (Some(bip), Some(part)) = (network.bip, network.fixed_cidr) {
        assert!(bip.trunc().contains(&part));
    }
}

/// A template of `--format`.
pub fn template(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok(template) = Template::parse(text) else { return };
    let value = serde_json::json!({
        "ID": "0123456789ab",
        "Name": "wéb<&>",
        "Labels": {"a": "1", "b": ""},
        "Ports": [{"Port": 80, "Protocol": "tcp"}, {"Port": 443, "Protocol": "udp"}],
        "Count": -3,
        "Share": 0.25,
        "Up": true,
        "None": null,
    });
    if let Ok(out) = template.render(&value) {
        assert!(out.len() <= MAX_OUTPUT);
        assert_eq!(template.render(&value).as_ref(), Ok(&out));
    }
}
