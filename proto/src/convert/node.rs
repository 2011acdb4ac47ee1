//! Nodes, and what they say of themselves.

use std::net::SocketAddr;

use weft_model::{
    Engine, Node, Rotation, Tunnel,
    object::{NodeDescription, NodeState},
    spec::{Availability, Invalid, NodeSpec, Role},
    tunnel::tunnel_address,
};

use super::value;
use crate::v1;

/// Longest host name (`HOST_NAME_MAX` of Linux).
const HOSTNAME_MAX: usize = 64;
/// Most prefixes that one node's routes may block.
const USED_PREFIXES_MAX: usize = 1_024;

/// A role for the wire.
pub fn role(role: Role) -> v1::Role {
    match role {
        Role::Worker => v1::Role::Worker,
        Role::Manager => v1::Role::Manager,
    }
}

/// A role from the wire; none if it is not given.
///
/// # Errors
/// A number that this version does not know.
pub fn role_of(wire: i32) -> Result<Option<Role>, Invalid> {
    match v1::Role::try_from(wire) {
        Ok(v1::Role::Unspecified) => Ok(None),
        Ok(v1::Role::Worker) => Ok(Some(Role::Worker)),
        Ok(v1::Role::Manager) => Ok(Some(Role::Manager)),
        Err(_) => Err(Invalid::new("role", wire, "must be worker or manager")),
    }
}

/// An availability for the wire.
pub fn availability(availability: Availability) -> v1::Availability {
    match availability {
        Availability::Active => v1::Availability::Active,
        Availability::Pause => v1::Availability::Pause,
        Availability::Drain => v1::Availability::Drain,
    }
}

/// An availability from the wire; none if it is not given.
///
/// # Errors
/// A number that this version does not know.
pub fn availability_of(wire: i32) -> Result<Option<Availability>, Invalid> {
    match v1::Availability::try_from(wire) {
        Ok(v1::Availability::Unspecified) => Ok(None),
        Ok(v1::Availability::Active) => Ok(Some(Availability::Active)),
        Ok(v1::Availability::Pause) => Ok(Some(Availability::Pause)),
        Ok(v1::Availability::Drain) => Ok(Some(Availability::Drain)),
        Err(_) => Err(Invalid::new("--availability", wire, "must be active, pause or drain")),
    }
}

fn state(state: NodeState) -> v1::NodeState {
    match state {
        NodeState::Unknown => v1::NodeState::Unknown,
        NodeState::Ready => v1::NodeState::Ready,
        NodeState::Silent => v1::NodeState::Silent,
        NodeState::Down => v1::NodeState::Down,
    }
}

fn spec(spec: &NodeSpec) -> v1::NodeSpec {
    v1::NodeSpec {
        role: role(spec.role).into(),
        availability: availability(spec.availability).into(),
        labels: value::map(spec.labels.clone()),
    }
}

/// A node for the wire. How it does as a manager is not in the state, but known to the leader.
pub fn node(node: &Node, manager: Option<v1::ManagerStatus>) -> v1::Node {
    let description = &node.description;
    v1::Node {
        id: node.id.to_string(),
        meta: Some(value::meta(&node.meta)),
        spec: Some(spec(&node.spec)),
        hostname: description.hostname.clone(),
        state: state(node.state).into(),
        message: node.message.clone(),
        addr: description.address.to_string(),
        data_path_addr: description.data_path.to_string(),
        os: description.os.clone(),
        architecture: description.architecture.clone(),
        engine_version: description.engine_version.clone(),
        nano_cpus: description.nano_cpus,
        memory_bytes: description.memory,
        manager,
        number: node.number,
        certificate_expires_at: description.certificate_expires.map(value::timestamp),
        tunnel: node.tunnel.as_ref().map(|own| tunnel(node.number, own)),
    }
}

/// A node's end of the encrypted links; what its rotation waits for is known to the leader alone,
/// and so is the port of the cluster.
fn tunnel(number: u64, tunnel: &Tunnel) -> v1::NodeTunnel {
    let engine = match tunnel.engine {
        Engine::Kernel => v1::TunnelEngine::Kernel,
        Engine::Userspace => v1::TunnelEngine::Userspace,
    };
    let rotation = match tunnel.rotation {
        Rotation::Idle => v1::KeyRotation::Idle,
        Rotation::Wanted => v1::KeyRotation::Wanted,
        Rotation::Distributed { .. } => v1::KeyRotation::Distributed,
        Rotation::Switched { .. } => v1::KeyRotation::Switched,
    };
    let generation = tunnel.current.generation;
    let address = tunnel_address(number, generation);
    v1::NodeTunnel {
        engine: engine.into(),
        reason: tunnel.reason.clone(),
        lanes: u32::from(tunnel.lanes),
        public_key: tunnel.current.public.0.to_vec(),
        generation,
        since: Some(value::timestamp(tunnel.since)),
        rotation: rotation.into(),
        address: address.map(|address| address.to_string()).unwrap_or_default(),
        port: 0,
        waiting_for: Vec::new(),
    }
}

/// What a node says of itself, for the wire.
pub fn description(description: &NodeDescription) -> v1::NodeDescription {
    v1::NodeDescription {
        hostname: description.hostname.clone(),
        addr: description.address.to_string(),
        data_path_addr: description.data_path.to_string(),
        os: description.os.clone(),
        architecture: description.architecture.clone(),
        engine_version: description.engine_version.clone(),
        nano_cpus: description.nano_cpus,
        memory_bytes: description.memory,
        used_prefixes: description.used_prefixes.iter().map(ToString::to_string).collect(),
        certificate_expires_at: description.certificate_expires.map(value::timestamp),
    }
}

/// What a node says of itself, from the wire.
///
/// # Errors
/// The first field that cannot be read, or is longer than any honest one.
pub fn description_of(wire: &v1::NodeDescription) -> Result<NodeDescription, Invalid> {
    let hostname = &wire.hostname;
    let clean = hostname.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    if hostname.is_empty() || hostname.len() > HOSTNAME_MAX || !clean {
        let reason = format!("must be a host name of 1 to {HOSTNAME_MAX} characters");
        return Err(Invalid::new("node name", hostname, reason));
    }
    if wire.used_prefixes.len() > USED_PREFIXES_MAX {
        let reason = format!("at most {USED_PREFIXES_MAX}");
        return Err(Invalid::new("used prefixes", wire.used_prefixes.len(), reason));
    }
    let prefixes = wire.used_prefixes.iter();
    let address: SocketAddr = value::parse("--advertise-addr", &wire.addr, "ADDRESS:PORT")?;
    if address.port() == 0 {
        return Err(Invalid::new("--advertise-addr", address, "the port may not be 0"));
    }
    Ok(NodeDescription {
        hostname: hostname.clone(),
        address,
        data_path: value::address("--data-path-addr", &wire.data_path_addr)?,
        os: word("os", &wire.os)?,
        architecture: word("architecture", &wire.architecture)?,
        engine_version: word("engine version", &wire.engine_version)?,
        nano_cpus: wire.nano_cpus,
        memory: wire.memory_bytes,
        used_prefixes: prefixes
            .map(|text| value::prefix("used prefix", text))
            .collect::<Result<_, _>>()?,
        certificate_expires: wire.certificate_expires_at.as_ref().map(value::time),
    })
}

/// A short text that ends up in tables.
fn word(field: &str, text: &str) -> Result<String, Invalid> {
    let clean = text.len() <= HOSTNAME_MAX && text.chars().all(|c| !c.is_control());
    if clean {
        return Ok(text.to_owned());
    }
    let reason = format!("must be at most {HOSTNAME_MAX} bytes without control characters");
    Err(Invalid::new(field, text, reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn honest() -> NodeDescription {
        NodeDescription {
            hostname: "n1".into(),
            address: "[2001:db8::1]:2377".parse().unwrap(),
            data_path: "10.0.0.1".parse().unwrap(),
            os: "linux".into(),
            architecture: "x86_64".into(),
            engine_version: "0.1".into(),
            nano_cpus: 2_000_000_000,
            memory: 1 << 30,
            used_prefixes: ["10.0.0.0/24".parse().unwrap()].into(),
            certificate_expires: Some(weft_model::Time(1_900_000_000_000)),
        }
    }

    #[test]
    fn a_description_comes_back_and_a_bad_one_names_its_field() {
        assert_eq!(description_of(&description(&honest())), Ok(honest()));
        let cases: [(&str, fn(&mut v1::NodeDescription)); 6] = [
            ("node name", |d| d.hostname = "a b".into()),
            ("node name", |d| d.hostname = String::new()),
            ("--advertise-addr", |d| d.addr = "10.0.0.1".into()),
            ("--advertise-addr", |d| d.addr = "10.0.0.1:0".into()),
            ("--data-path-addr", |d| d.data_path_addr = "eth0".into()),
            ("used prefixes", |d| d.used_prefixes = vec!["10.0.0.0/8".into(); 1_025]),
        ];
        for (field, spoil) in cases {
            let mut wire = description(&honest());
            spoil(&mut wire);
            assert_eq!(description_of(&wire).unwrap_err().field, field);
        }
    }

    #[test]
    fn roles_and_availabilities_come_back() {
        for it in [Role::Worker, Role::Manager] {
            assert_eq!(role_of(role(it).into()), Ok(Some(it)));
        }
        for it in [Availability::Active, Availability::Pause, Availability::Drain] {
            assert_eq!(availability_of(availability(it).into()), Ok(Some(it)));
        }
        assert_eq!((role_of(0), availability_of(0)), (Ok(None), Ok(None)));
        assert!(role_of(9).is_err() && availability_of(9).is_err());
    }
}
