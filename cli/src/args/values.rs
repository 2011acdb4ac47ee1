//! Readers of single values. Each says what is wrong with the value, not only that it is.

mod quantity;
pub mod run;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use ipnet::IpNet;
use jiff::Timestamp;
use weft_proto::v1;

use super::{
    container::{Since, Tail},
    daemon::AddressPool,
};
use crate::output::escape::shown;
pub use quantity::{bytes, duration, nano_cpus};

/// Most tasks that one service may ask for on the command line.
const MAX_REPLICAS: u32 = 1_000_000;
/// Longest key of a label, in bytes.
const MAX_KEY: usize = 4_096;
/// Longest value of a label, in bytes.
const MAX_VALUE: usize = 65_536;

/// `k=v`; the key must not be empty.
pub fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some(("", _)) => Err("the key before `=` is empty".into()),
        Some((key, value)) => Ok((key.into(), value.into())),
        None => Err("expected K=V".into()),
    }
}

/// A label: `k=v`, or `k` for an empty value.
pub fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    let key = key.trim();
    if key.is_empty() {
        return Err("the key of a label is empty".into());
    }
    if key.len() > MAX_KEY {
        return Err(format!("the key of a label is longer than {MAX_KEY} bytes"));
    }
    if value.len() > MAX_VALUE {
        return Err(format!("the value of a label is longer than {MAX_VALUE} bytes"));
    }
    Ok((key.into(), value.into()))
}

/// An option of a driver: `k=v`, or `k` alone for one whose presence counts.
pub fn option(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    if key.trim().is_empty() {
        return Err("the name of an option is empty".into());
    }
    Ok((key.trim().into(), value.into()))
}

/// `K=V`, or `K` for the value that the variable has here (nothing, if it is not set).
pub fn env(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some(("", _)) => Err("the name before `=` is empty".into()),
        Some(_) => Ok(text.into()),
        None if text.is_empty() => Err("the name of a variable is empty".into()),
        None => Ok(std::env::var(text).map_or_else(|_| text.into(), |v| format!("{text}={v}"))),
    }
}

/// The number of tasks of a service.
pub fn replicas(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(number) if number <= MAX_REPLICAS => Ok(number),
        _ => Err(format!("expected a number from 0 to {MAX_REPLICAS}")),
    }
}

/// `SERVICE=N`
pub fn scale(text: &str) -> Result<(String, u32), String> {
    match text.rsplit_once('=') {
        Some(("", _)) => Err("the name of the service is empty".into()),
        Some((name, number)) => Ok((name.into(), replicas(number)?)),
        None => Err("expected SERVICE=N, such as web=5".into()),
    }
}

/// What `--mode` may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModeArg {
    Replicated,
    Global,
    ReplicatedJob,
    GlobalJob,
}

/// The mode of a service.
pub fn service_mode(text: &str) -> Result<ModeArg, String> {
    Ok(match text {
        "replicated" => ModeArg::Replicated,
        "global" => ModeArg::Global,
        "replicated-job" => ModeArg::ReplicatedJob,
        "global-job" => ModeArg::GlobalJob,
        _ => return Err("expected replicated or global".into()),
    })
}

/// `NET`, `NET,alias=A,alias=B` or `name=NET,alias=A`.
pub fn network(text: &str) -> Result<v1::NetworkAttachmentSpec, String> {
    let mut spec = v1::NetworkAttachmentSpec::default();
    for (at, part) in text.split(',').enumerate() {
        match part.split_once('=') {
            None if at == 0 && !part.is_empty() => spec.network = part.into(),
            Some(("name", name)) if !name.is_empty() && spec.network.is_empty() => {
                spec.network = name.into();
            }
            Some(("alias", alias)) if !alias.is_empty() => spec.aliases.push(alias.into()),
            Some(("driver-opt", _)) => return Err("unsupported: driver-opt".into()),
            _ => {
                return Err(format!(
                    "{:?}: expected NET,alias=NAME or name=NET,alias=NAME",
                    shown(part)
                ));
            }
        }
    }
    if spec.network.is_empty() {
        Err("the name of the network is missing".into())
    } else {
        Ok(spec)
    }
}

/// `KEY==VALUE` or `KEY!=VALUE`, where the key is one that nodes have.
pub fn constraint(text: &str) -> Result<String, String> {
    const KEYS: &str = "node.id, node.hostname, node.ip, node.role, node.platform.os, \
                        node.platform.arch, node.labels.NAME";
    let split = text.find("==").or_else(|| text.find("!="));
    let Some(at) = split else {
        return Err("expected KEY==VALUE or KEY!=VALUE, such as node.role==worker".into());
    };
    let (key, value) = (text[..at].trim(), text[at + 2..].trim());
    if value.is_empty() {
        return Err("nothing stands behind the comparison".into());
    }
    if value.starts_with('=') || key.ends_with('=') {
        return Err("the comparison is == or !=".into());
    }
    let lower = key.to_ascii_lowercase();
    let plain = matches!(
        lower.as_str(),
        "node.id"
            | "node.hostname"
            | "node.ip"
            | "node.role"
            | "node.platform.os"
            | "node.platform.arch"
    );
    let labelled = ["node.labels.", "engine.labels."]
        .iter()
        .any(|prefix| lower.strip_prefix(prefix).is_some_and(|name| !name.is_empty()));
    if plain || labelled {
        Ok(text.to_owned())
    } else {
        Err(format!("no node has {:?}: the keys are {KEYS}", shown(key)))
    }
}

/// `spread=node.labels.NAME`
pub fn preference(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some(("spread", key)) if !key.is_empty() => Ok(text.to_owned()),
        _ => Err("expected spread=node.labels.NAME".into()),
    }
}

/// `NAME:IP`; the address may be an IPv6 one.
pub fn host(text: &str) -> Result<String, String> {
    let (name, ip) = text.split_once(':').ok_or("expected NAME:IP")?;
    if name.is_empty() {
        return Err("the name is empty".into());
    }
    address(ip.trim_matches(['[', ']'])).map(|ip| format!("{name}:{ip}"))
}

/// An IP address, without a prefix length.
pub fn address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("{:?} is no IP address", shown(text)))
}

/// An IPv4 address.
pub fn address4(text: &str) -> Result<IpAddr, String> {
    let address = text.parse().map(IpAddr::V4);
    address.map_err(|_| format!("{:?} is no IPv4 address", shown(text)))
}

/// An IPv6 address.
pub fn address6(text: &str) -> Result<IpAddr, String> {
    let address = text.parse().map(IpAddr::V6);
    address.map_err(|_| format!("{:?} is no IPv6 address", shown(text)))
}

/// An address with a prefix length. Stricter than `IpNet`'s own reader, which takes `010.0.0.0/8`.
pub fn cidr(text: &str) -> Result<IpNet, String> {
    let parsed = text.split_once('/').and_then(|(ip, bits)| {
        let digits = bits.bytes().all(|b| b.is_ascii_digit());
        let bits = bits.parse().ok().filter(|_| digits)?;
        IpNet::new(ip.parse().ok()?, bits).ok()
    });
    parsed.ok_or_else(|| format!("{:?} is no subnet such as 10.0.9.0/24", shown(text)))
}

/// A subnet; bits behind the prefix are refused, with the subnet that was probably meant.
pub fn subnet(text: &str) -> Result<IpNet, String> {
    let net = cidr(text)?;
    if net.trunc() == net {
        Ok(net)
    } else {
        Err(format!("{net} has bits behind the prefix: did you mean {}?", net.trunc()))
    }
}

/// `NAME=IP`
pub fn aux_address(text: &str) -> Result<(String, IpAddr), String> {
    let (name, ip) = key_value(text).map_err(|_| "expected NAME=IP".to_owned())?;
    Ok((name, address(&ip)?))
}

/// `base=CIDR,size=N`
pub fn address_pool(text: &str) -> Result<AddressPool, String> {
    let (mut base, mut size) = (None, None);
    for part in text.split(',') {
        match part.split_once('=') {
            Some(("base", cidr)) => base = Some(subnet(cidr)?),
            Some(("size", bits)) => {
                size = Some(bits.parse::<u8>().map_err(|_| "size is no prefix length".to_owned())?);
            }
            _ => return Err("expected base=CIDR,size=N".into()),
        }
    }
    let (Some(base), Some(size)) = (base, size) else {
        return Err("expected base=CIDR,size=N".into());
    };
    if size < base.prefix_len() || size > base.max_prefix_len() {
        return Err(format!(
            "size {size} must be from {} to {}",
            base.prefix_len(),
            base.max_prefix_len()
        ));
    }
    Ok(AddressPool { base, size })
}

/// `HOST:PORT`; without a port it is 2377.
pub fn host_port(text: &str) -> Result<String, String> {
    const DEFAULT_PORT: u16 = 2377;
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return Ok(std::net::SocketAddr::new(ip, DEFAULT_PORT).to_string());
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => {
            let digits = port.bytes().all(|byte| byte.is_ascii_digit());
            let port = port.parse::<u16>().ok().filter(|&port| digits && port != 0);
            (host, port.ok_or("the port must be from 1 to 65535")?)
        }
        None => (text, DEFAULT_PORT),
    };
    if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c == '/') {
        return Err("expected HOST:PORT".into());
    }
    let inside = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    if host.contains([':', '[', ']']) && inside.is_none_or(|ip| address6(ip).is_err()) {
        return Err("an IPv6 address stands in brackets: [ADDRESS]:PORT".into());
    }
    Ok(format!("{host}:{port}"))
}

/// A name that can be that of a file here: no separators, nothing hidden.
pub fn file_name(text: &str) -> Result<String, String> {
    const MOST: usize = 63;
    let fine = text.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
    let starts = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    if fine && starts && text.len() <= MOST {
        Ok(text.into())
    } else {
        Err(format!("expected up to {MOST} letters, digits, `_`, `.` and `-`"))
    }
}

/// Lines from the end, or `all`.
pub fn tail(text: &str) -> Result<Tail, String> {
    match text {
        "all" | "-1" => Ok(Tail::All),
        number => number.parse().map(Tail::Lines).map_err(|_| "expected a number or all".into()),
    }
}

/// RFC 3339, a date, UNIX seconds, or a span back from now.
pub fn since(text: &str) -> Result<Since, String> {
    // `nan` and `inf` are numbers to the parser.
    if let Some(seconds) = text.parse::<f64>().ok().filter(|seconds| seconds.is_finite()) {
        let time = Timestamp::from_nanosecond((seconds * 1e9) as i128);
        return time.map(Since::At).map_err(|_| "not a time since 1970".into());
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(Since::At(time));
    }
    if let Ok(time) = text.parse::<jiff::civil::DateTime>() {
        let zoned = time.to_zoned(jiff::tz::TimeZone::UTC);
        return zoned.map(|z| Since::At(z.timestamp())).map_err(|_| "not a time".into());
    }
    duration(text)
        .map(Since::Ago)
        .map_err(|_| "expected a time such as 2026-01-02T15:04:05Z or a span such as 10m".into())
}

/// A whole number of seconds.
pub fn seconds(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("{:?}: expected a whole number of seconds", shown(text)))
}

/// A signal by number (1 to 64) or name, with or without SIG.
pub fn signal(text: &str) -> Result<u32, String> {
    if let Ok(number) = text.parse::<u32>() {
        return if (1..=64).contains(&number) {
            Ok(number)
        } else {
            Err("signals are numbered from 1 to 64".into())
        };
    }
    let upper = text.to_ascii_uppercase();
    let name = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    name.parse::<nix::sys::signal::Signal>()
        .map(|signal| signal as u32)
        .map_err(|_| format!("{:?} is no signal", shown(text)))
}

/// `type=bind,source=DIR,target=DIR[,readonly]` or `type=tmpfs,target=DIR`.
pub fn mount(text: &str) -> Result<v1::Mount, String> {
    let mut mount = v1::Mount { r#type: "volume".into(), ..Default::default() };
    for part in text.split(',') {
        let (key, value) = part.split_once('=').unwrap_or((part, "true"));
        match key {
            "type" => mount.r#type = value.into(),
            "source" | "src" => mount.source = value.into(),
            "target" | "dst" | "destination" => mount.target = value.into(),
            "readonly" | "ro" => mount.read_only = matches!(value, "true" | "1"),
            "tmpfs-size" => mount.tmpfs_size = bytes(value)?,
            "tmpfs-mode" => mount.tmpfs_mode = run::mode(value)?,
            other => return Err(format!("unsupported: {}", shown(other))),
        }
    }
    match mount.r#type.as_str() {
        "bind" if !mount.source.starts_with('/') => {
            Err("the source of a bind mount must be an absolute path".into())
        }
        "tmpfs" if !mount.source.is_empty() => Err("a tmpfs has no source".into()),
        "bind" | "tmpfs" if !mount.target.starts_with('/') => {
            Err("the target must be an absolute path".into())
        }
        "bind" | "tmpfs" => Ok(mount),
        other => Err(format!("unsupported: type={} (bind and tmpfs are)", shown(other))),
    }
}

/// A command line in one value.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Words(pub Vec<String>);

/// Splits as a shell does, with quotes and backslashes, but expands nothing.
pub fn words(text: &str) -> Result<Words, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\'' | '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        None => return Err("a quote is not closed".into()),
                        Some(end) if end == c => break,
                        Some('\\') if c == '"' => word.extend(chars.next()),
                        Some(other) => word.push(other),
                    }
                }
            }
            '\\' => word.get_or_insert_default().extend(chars.next()),
            c if c.is_whitespace() => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(Words(words))
}
