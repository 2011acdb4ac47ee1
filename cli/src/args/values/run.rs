//! Readers of what only `run` takes: ports, links, networks with options, mounts in two notations.

use std::{net::IpAddr, ops::RangeInclusive};

use weft_proto::v1;

use super::{address, bytes};
use crate::output::escape::shown;

/// What `-p` takes, for messages.
const PUBLISH: &str = "[IP:][HOSTPORT:]PORT[/PROTOCOL], with ranges such as 8000-8005";

/// `[IP:][HOSTPORT]:PORT[/PROTOCOL]` or `PORT[/PROTOCOL]`, or the long form
/// `published=8080,target=80,protocol=tcp`.
pub fn publish(text: &str) -> Result<v1::PortSpec, String> {
    if text.contains('=') {
        return publish_long(text);
    }
    let (ports, protocol) = split_protocol(text)?;
    let (host_ip, rest) = split_address(ports)?;
    let (host, container) = match rest.split_once(':') {
        Some((host, container)) => (host, container),
        None if host_ip.is_empty() => ("", rest),
        None => return Err(format!("{:?}: expected {PUBLISH}", shown(text))),
    };
    let container = range(container)?;
    let host = if host.is_empty() { None } else { Some(range(host)?) };
    port_spec(host_ip, host, container, protocol)
}

fn publish_long(text: &str) -> Result<v1::PortSpec, String> {
    let (mut host, mut container, mut protocol) = (None, None, "tcp".to_owned());
    let mut host_ip = String::new();
    for part in text.split(',') {
        match part.split_once('=') {
            Some(("published", ports)) => host = Some(range(ports)?),
            Some(("target", ports)) => container = Some(range(ports)?),
            Some(("protocol", word)) => protocol = self::protocol(word)?,
            Some(("host_ip" | "host-ip", ip)) => host_ip = address(ip)?.to_string(),
            // Of a container on one node there is nothing else.
            Some(("mode", "host")) => {}
            Some(("mode", other)) => {
                return Err(format!("mode {:?}: a container of one node has host", shown(other)));
            }
            _ => {
                let expected = "published=PORT,target=PORT[,protocol=tcp]";
                return Err(format!("{:?}: expected {expected}", shown(part)));
            }
        }
    }
    port_spec(host_ip, host, container.ok_or("the target port is missing")?, protocol)
}

fn port_spec(
    host_ip: String,
    host: Option<RangeInclusive<u32>>,
    container: RangeInclusive<u32>,
    protocol: String,
) -> Result<v1::PortSpec, String> {
    let length = |range: &RangeInclusive<u32>| range.end() - range.start();
    if let Some(host) = &host
        && length(&container) > 0
        && length(host) != length(&container)
    {
        return Err(format!(
            "{} ports of the host cannot lead to {} of the container",
            length(host) + 1,
            length(&container) + 1
        ));
    }
    let host = host.unwrap_or(0..=0);
    Ok(v1::PortSpec {
        host_ip,
        host_port: *host.start(),
        host_port_end: *host.end(),
        container_port: *container.start(),
        container_port_end: *container.end(),
        protocol,
    })
}

/// `PORT[-PORT][/PROTOCOL]`, as it was given, with the protocol.
pub fn expose(text: &str) -> Result<String, String> {
    let (ports, protocol) = split_protocol(text)?;
    range(ports)?;
    Ok(format!("{ports}/{protocol}"))
}

fn split_protocol(text: &str) -> Result<(&str, String), String> {
    match text.rsplit_once('/') {
        Some((ports, word)) => Ok((ports, protocol(word)?)),
        None => Ok((text, "tcp".to_owned())),
    }
}

fn protocol(word: &str) -> Result<String, String> {
    let lower = word.to_ascii_lowercase();
    if matches!(lower.as_str(), "tcp" | "udp" | "sctp") {
        Ok(lower)
    } else {
        Err(format!("{:?} is no protocol: use tcp, udp or sctp", shown(word)))
    }
}

/// The address in front of the ports: an IPv6 one stands in brackets.
fn split_address(text: &str) -> Result<(String, &str), String> {
    if let Some(rest) = text.strip_prefix('[') {
        let (ip, rest) = rest.split_once("]:").ok_or("expected [IPV6]:HOSTPORT:PORT")?;
        return Ok((v6(ip)?, rest));
    }
    match text.split(':').count() {
        1 | 2 => Ok((String::new(), text)),
        3 => {
            let (ip, rest) = text.split_once(':').unwrap_or((text, ""));
            Ok((if ip.is_empty() { String::new() } else { address(ip)?.to_string() }, rest))
        }
        _ => Err("an IPv6 address stands in brackets: [::1]:8080:80".into()),
    }
}

fn v6(text: &str) -> Result<String, String> {
    match address(text)? {
        IpAddr::V6(ip) => Ok(ip.to_string()),
        IpAddr::V4(_) => Err(format!("{:?} is no IPv6 address", shown(text))),
    }
}

/// `N` or `N-M`, from 1 to 65535.
fn range(text: &str) -> Result<RangeInclusive<u32>, String> {
    let one = |text: &str| match text.parse::<u16>() {
        Ok(port) if port > 0 && !text.starts_with('+') => Ok(u32::from(port)),
        Ok(_) | Err(_) => Err(format!("port {:?}: must be from 1 to 65535", shown(text))),
    };
    match text.split_once('-') {
        None => one(text).map(|port| port..=port),
        Some((first, last)) => {
            let (first, last) = (one(first)?, one(last)?);
            if first > last {
                return Err(format!("{first}-{last}: the range ends before it begins"));
            }
            Ok(first..=last)
        }
    }
}

/// `NAME:IP`, or `NAME:host-gateway`, which the node turns into its own address on the default
/// bridge. Docker takes `=` for the colon, too.
pub fn add_host(text: &str) -> Result<String, String> {
    let (name, address) = text.split_once([':', '=']).ok_or("expected NAME:IP")?;
    match address {
        "host-gateway" if !name.is_empty() => Ok(format!("{name}:host-gateway")),
        _ => super::host(&format!("{name}:{address}")),
    }
}

/// `NAME` or `NAME:ALIAS`.
pub fn link(text: &str) -> Result<String, String> {
    let mut parts = text.split(':');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(name), alias, None) if !name.is_empty() && alias != Some("") => Ok(text.to_owned()),
        _ => Err("expected NAME or NAME:ALIAS".into()),
    }
}

/// What `--network` may say of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkArg {
    /// `host`, `none`, `container:NAME`
    Mode(String),
    /// A network, with what is asked of the membership.
    Network(v1::EndpointSpec),
}

/// `NET`, `host`, `none`, `container:NAME`, or `name=NET,alias=A,ip=IP,ip6=IP,mac-address=MAC`.
pub fn container_network(text: &str) -> Result<NetworkArg, String> {
    if text.is_empty() {
        return Err("the name of the network is missing".into());
    }
    if matches!(text, "host" | "none") {
        return Ok(NetworkArg::Mode(text.to_owned()));
    }
    if let Some(name) = text.strip_prefix("container:") {
        if name.is_empty() {
            return Err("the name of the container is missing".into());
        }
        return Ok(NetworkArg::Mode(text.to_owned()));
    }
    let mut spec = v1::EndpointSpec::default();
    for (at, part) in text.split(',').enumerate() {
        match part.split_once('=') {
            // Docker's word for its predefined bridge.
            None if at == 0 && part == "default" => spec.network = "bridge".into(),
            None if at == 0 && !part.is_empty() => spec.network = part.into(),
            Some(("name", name)) if !name.is_empty() => spec.network = name.into(),
            Some(("alias", alias)) if !alias.is_empty() => spec.aliases.push(alias.into()),
            Some(("ip" | "ip6", ip)) => spec.addresses.push(address(ip)?.to_string()),
            Some(("mac-address", mac)) => spec.mac_address = self::mac(mac)?,
            Some(("driver-opt" | "gw-priority" | "link-local-ip", _)) => {
                return Err(format!("unsupported: {}", shown(part)));
            }
            _ => {
                let expected = "NET or name=NET,alias=NAME,ip=IP,ip6=IP,mac-address=MAC";
                return Err(format!("{:?}: expected {expected}", shown(part)));
            }
        }
    }
    if spec.network.is_empty() {
        Err("the name of the network is missing".into())
    } else {
        Ok(NetworkArg::Network(spec))
    }
}

/// Six pairs of hex digits with colons or dashes; not multicast and not zero.
pub fn mac(text: &str) -> Result<String, String> {
    let wrong = || format!("{:?} is no MAC address such as 02:42:ac:11:00:02", shown(text));
    let parts: Vec<&str> = text.split([':', '-']).collect();
    let pair = |part: &&str| {
        (part.len() == 2 && part.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .then(|| u8::from_str_radix(part, 16).ok())
            .flatten()
    };
    let bytes: Vec<u8> = parts.iter().filter_map(pair).collect();
    if parts.len() != 6 || bytes.len() != 6 {
        return Err(wrong());
    }
    if bytes.iter().all(|byte| *byte == 0) || bytes[0] & 1 == 1 {
        return Err(format!("{:?} is not the address of one interface", shown(text)));
    }
    let pairs: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(pairs.join(":"))
}

/// `-v SOURCE:TARGET[:ro]`; a source that is missing is made.
pub fn volume(text: &str) -> Result<v1::Mount, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts[..] {
        [source, target] => (source, target, ""),
        [source, target, options] => (source, target, options),
        [_] => return Err("unsupported: anonymous volumes".into()),
        _ => return Err("expected SOURCE:TARGET[:ro]".into()),
    };
    if !source.starts_with('/') {
        return Err(format!("unsupported: volume {:?} (a path is absolute)", shown(source)));
    }
    if !target.starts_with('/') {
        return Err("the target must be an absolute path".into());
    }
    let mut read_only = false;
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => read_only = true,
            // Without SELinux, and with the usual propagation, these say nothing.
            "rw" | "z" | "Z" | "rprivate" => {}
            other => return Err(format!("unsupported: {}", shown(other))),
        }
    }
    Ok(v1::Mount {
        r#type: "bind".into(),
        source: source.into(),
        target: target.into(),
        read_only,
        make_source: true,
        ..Default::default()
    })
}

/// `--tmpfs TARGET[:size=64m,mode=1777]`
pub fn tmpfs(text: &str) -> Result<v1::Mount, String> {
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    if !target.starts_with('/') {
        return Err("the target must be an absolute path".into());
    }
    let mut mount =
        v1::Mount { r#type: "tmpfs".into(), target: target.into(), ..Default::default() };
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some(("size", size)) => mount.tmpfs_size = bytes(size)?,
            Some(("mode", mode)) => mount.tmpfs_mode = self::mode(mode)?,
            None if option == "ro" => mount.read_only = true,
            // What a tmpfs of ours is anyway.
            None if matches!(option, "rw" | "noexec" | "nosuid" | "nodev") => {}
            _ => return Err(format!("unsupported: {}", shown(option))),
        }
    }
    Ok(mount)
}

/// Mode bits in octal.
pub fn mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o7777 => Ok(mode),
        Ok(_) | Err(_) => Err(format!("{:?} is no mode such as 1777", shown(text))),
    }
}

/// `no`, `always`, `unless-stopped`, `on-failure[:N]`.
pub fn restart(text: &str) -> Result<String, String> {
    let known = match text.split_once(':') {
        None => matches!(text, "no" | "always" | "unless-stopped" | "on-failure"),
        Some(("on-failure", times)) => times.parse::<u32>().is_ok(),
        Some(_) => false,
    };
    if known {
        Ok(text.to_owned())
    } else {
        Err("expected no, always, unless-stopped, on-failure or on-failure:N".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `(host_ip, host_port, host_port_end, container_port, container_port_end, protocol)`
    fn parts(text: &str) -> (String, u32, u32, u32, u32, String) {
        let spec = publish(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        (
            spec.host_ip,
            spec.host_port,
            spec.host_port_end,
            spec.container_port,
            spec.container_port_end,
            spec.protocol,
        )
    }

    #[test]
    fn ports_are_read_in_every_form() {
        let cases = [
            ("80", ("", 0, 0, 80, 80, "tcp")),
            ("8080:80", ("", 8080, 8080, 80, 80, "tcp")),
            ("8080:80/udp", ("", 8080, 8080, 80, 80, "udp")),
            ("127.0.0.1:8080:80", ("127.0.0.1", 8080, 8080, 80, 80, "tcp")),
            ("127.0.0.1::80/TCP", ("127.0.0.1", 0, 0, 80, 80, "tcp")),
            ("[::1]:8080:80", ("::1", 8080, 8080, 80, 80, "tcp")),
            ("[::]::80", ("::", 0, 0, 80, 80, "tcp")),
            ("8000-8005:80", ("", 8000, 8005, 80, 80, "tcp")),
            ("8000-8002:90-92/sctp", ("", 8000, 8002, 90, 92, "sctp")),
            ("90-92", ("", 0, 0, 90, 92, "tcp")),
            (":80", ("", 0, 0, 80, 80, "tcp")),
            ("published=8080,target=80,protocol=udp", ("", 8080, 8080, 80, 80, "udp")),
            ("target=80,mode=host", ("", 0, 0, 80, 80, "tcp")),
        ];
        for (text, (ip, h1, h2, c1, c2, protocol)) in cases {
            let wanted = (ip.to_owned(), h1, h2, c1, c2, protocol.to_owned());
            assert_eq!(parts(text), wanted, "{text}");
        }
    }

    #[test]
    fn bad_ports_are_told_what_is_wrong() {
        let cases = [
            ("", "must be from 1 to 65535"),
            ("0", "must be from 1 to 65535"),
            ("65536", "must be from 1 to 65535"),
            ("-1", "must be from 1 to 65535"),
            ("80-79", "ends before it begins"),
            ("8000-8001:80-82", "2 ports of the host cannot lead to 3"),
            ("80/icmp", "no protocol"),
            ("300.0.0.1:80:80", "no IP address"),
            ("::1:80:80", "stands in brackets"),
            ("[127.0.0.1]:80:80", "no IPv6 address"),
            ("[::1]:80", "expected"),
            ("published=80", "the target port is missing"),
            ("target=80,mode=ingress", "one node has host"),
        ];
        for (text, wanted) in cases {
            let error = publish(text).expect_err(text);
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }

    #[test]
    fn networks_of_a_container() {
        let mode = |text: &str| NetworkArg::Mode(text.to_owned());
        assert_eq!(container_network("host"), Ok(mode("host")));
        assert_eq!(container_network("container:web"), Ok(mode("container:web")));
        let text = "name=shop,alias=a,alias=b,ip=10.0.0.5,mac-address=02-42-AC-11-00-02";
        let Ok(NetworkArg::Network(spec)) = container_network(text) else { panic!("{text}") };
        assert_eq!(spec.network, "shop");
        assert_eq!(spec.aliases, ["a", "b"]);
        assert_eq!(spec.addresses, ["10.0.0.5"]);
        assert_eq!(spec.mac_address, "02:42:ac:11:00:02");
        for bad in ["", "container:", "alias=a", "shop,ip=x", "shop,color=red"] {
            assert!(container_network(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn mac_addresses_of_interfaces_only() {
        for bad in ["", "02:42", "zz:42:ac:11:00:02", "00:00:00:00:00:00", "01:00:5e:00:00:01"] {
            assert!(mac(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn mounts_in_short_notation() {
        let mount = volume("/srv:/data:ro").unwrap();
        assert!(mount.read_only && mount.make_source && mount.source == "/srv");
        for bad in ["/srv", "data:/data", "/srv:data", "/a:/b:exec", "/a:/b:ro:x"] {
            assert!(volume(bad).is_err(), "{bad}");
        }
        let mount = tmpfs("/run:size=64m,mode=1770").unwrap();
        assert_eq!((mount.tmpfs_size, mount.tmpfs_mode), (64 << 20, 0o1770));
        for bad in ["run", "/run:size=x", "/run:mode=9", "/run:uid=1"] {
            assert!(tmpfs(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn restart_policies() {
        for good in ["no", "always", "unless-stopped", "on-failure", "on-failure:3"] {
            assert!(restart(good).is_ok(), "{good}");
        }
        for bad in ["", "never", "always:3", "on-failure:x", "on-failure:-1"] {
            assert!(restart(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn lines_of_the_hosts_file() {
        assert_eq!(add_host("a:10.0.0.1"), Ok("a:10.0.0.1".to_owned()));
        assert_eq!(add_host("a=[fd00::1]"), Ok("a:fd00::1".to_owned()));
        assert_eq!(add_host("a:host-gateway"), Ok("a:host-gateway".to_owned()));
        for bad in ["", "a", ":host-gateway", ":10.0.0.1", "a:b", "a:gateway"] {
            assert!(add_host(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn links_and_exposed_ports() {
        for bad in ["", ":a", "a:", "a:b:c"] {
            assert!(link(bad).is_err(), "{bad}");
        }
        assert_eq!(expose("80"), Ok("80/tcp".to_owned()));
        assert_eq!(expose("5000-5002/udp"), Ok("5000-5002/udp".to_owned()));
        assert!(expose("0").is_err());
    }
}
