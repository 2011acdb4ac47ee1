//! A node's end of the encrypted links, and the links themselves.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use weft_model::tunnel::LANES_MAX;
use weft_proto::v1;

use crate::{
    output::{
        escape::one_line,
        size, table,
        time::{ago, human, rfc3339},
    },
    wire::nanos,
};

/// The engine in one word.
pub fn engine(engine: v1::TunnelEngine) -> &'static str {
    match engine {
        v1::TunnelEngine::Unspecified => "unknown",
        v1::TunnelEngine::Kernel => "kernel",
        v1::TunnelEngine::Userspace => "userspace",
    }
}

/// How far the change to another key has come, in one word.
fn rotation(rotation: v1::KeyRotation) -> &'static str {
    match rotation {
        v1::KeyRotation::Unspecified => "unknown",
        v1::KeyRotation::Idle => "idle",
        v1::KeyRotation::Wanted => "wanted",
        v1::KeyRotation::Distributed => "distributed",
        v1::KeyRotation::Switched => "switched",
    }
}

/// The UDP ports of the present key, one for each lane; none while the first is not known.
fn ports(tunnel: &v1::NodeTunnel) -> Vec<u16> {
    let lanes = u16::try_from(tunnel.lanes).unwrap_or(u16::MAX);
    match u16::try_from(tunnel.port) {
        Ok(0) | Err(_) => Vec::new(),
        // Those between are of the next key.
        Ok(first) => (0..lanes.min(LANES_MAX)).map(|lane| first.saturating_add(2 * lane)).collect(),
    }
}

/// The part `Tunnel` of a node. The key is written as `wg` writes it. Without `links` the node was not
/// asked, or did not answer.
pub fn inspect(tunnel: &v1::NodeTunnel, links: Option<&v1::NodeLinksResponse>) -> Value {
    let mut value = json!({
        "Engine": engine(tunnel.engine()),
        "Reason": tunnel.reason,
        "PublicKey": STANDARD.encode(&tunnel.public_key),
        "Generation": tunnel.generation,
        "Since": rfc3339(tunnel.since.as_ref()),
        "Rotation": rotation(tunnel.rotation()),
        "WaitingFor": tunnel.waiting_for,
        "Address": tunnel.address,
        "Port": tunnel.port,
        "Lanes": tunnel.lanes,
        "Ports": ports(tunnel),
    });
    if let Some(links) = links {
        value["Links"] = links.peers.iter().map(link).collect();
        // What was dropped before it was known whose it was.
        value["Drops"] = counts(links.drops.iter());
    }
    value
}

/// One link; its age in nanoseconds as all spans of Docker's, or null if there was no handshake.
fn link(peer: &v1::TunnelPeer) -> Value {
    let age = peer.handshake_age.as_ref().map(|age| nanos(Some(age)));
    json!({
        "NodeID": peer.node_id,
        "Hostname": peer.hostname,
        "Endpoint": peer.endpoint,
        "HandshakeAge": age.map(|age| i64::try_from(age).unwrap_or(i64::MAX)),
        "SentBytes": peer.sent_bytes,
        "ReceivedBytes": peer.received_bytes,
        "Drops": counts(peer.drops.iter()),
    })
}

fn counts<'a>(drops: impl Iterator<Item = (&'a String, &'a u64)>) -> Value {
    Value::Object(drops.map(|(reason, count)| (reason.clone(), (*count).into())).collect())
}

/// The same for people: lines, and a table of the links.
pub fn pretty(
    tunnel: &v1::NodeTunnel,
    links: Option<&v1::NodeLinksResponse>,
    now: jiff::Timestamp,
) -> Vec<String> {
    let mut lines = vec!["WireGuard:".to_owned()];
    let reason =
        if tunnel.reason.is_empty() { String::new() } else { format!(" ({})", tunnel.reason) };
    lines.push(format!(" Engine:\t\t{}{}", engine(tunnel.engine()), one_line(&reason)));
    lines.push(format!(" Public Key:\t\t{}", STANDARD.encode(&tunnel.public_key)));
    lines.push(format!(
        " Generation:\t\t{} ({})",
        tunnel.generation,
        ago(tunnel.since.as_ref(), now)
    ));
    lines.push(format!(" Rotation:\t\t{}", rotation_text(tunnel)));
    lines.push(format!(" Tunnel Address:\t{}", tunnel.address));
    let ports: Vec<String> = ports(tunnel).iter().map(|port| format!("{port}/udp")).collect();
    if !ports.is_empty() {
        lines.push(format!(" Ports:\t\t\t{}", ports.join(" ")));
    }
    if let Some(links) = links {
        lines.extend(table_of(links));
    }
    lines
}

fn rotation_text(tunnel: &v1::NodeTunnel) -> String {
    let word = rotation(tunnel.rotation());
    if tunnel.waiting_for.is_empty() {
        return word.to_owned();
    }
    let names: Vec<String> = tunnel.waiting_for.iter().map(|name| one_line(name)).collect();
    format!("{word}, waiting for {}", names.join(", "))
}

fn table_of(links: &v1::NodeLinksResponse) -> Vec<String> {
    let mut lines = Vec::new();
    if links.peers.is_empty() {
        lines.push("Links:\t\t\tnone".to_owned());
    } else {
        let head =
            ["NODE", "ENDPOINT", "HANDSHAKE", "SENT", "RECEIVED", "DROPPED"].map(str::to_owned);
        let rows = links.peers.iter().map(row);
        let rows: Vec<Vec<String>> = std::iter::once(head.to_vec()).chain(rows).collect();
        lines.push("Links:".to_owned());
        lines.extend(table::align(&rows).lines().map(|line| format!(" {line}")));
    }
    if !links.drops.is_empty() {
        lines.push(format!("Dropped From Nobody:\t{}", dropped(links.drops.iter())));
    }
    lines
}

fn row(peer: &v1::TunnelPeer) -> Vec<String> {
    let handshake = match &peer.handshake_age {
        Some(age) => format!("{} ago", human(age.seconds)),
        None => "never".to_owned(),
    };
    vec![
        one_line(&peer.hostname),
        one_line(&peer.endpoint),
        handshake,
        size::human(peer.sent_bytes),
        size::human(peer.received_bytes),
        dropped(peer.drops.iter()),
    ]
}

/// `3 forged, 1 replayed`; a dash for none.
fn dropped<'a>(drops: impl Iterator<Item = (&'a String, &'a u64)>) -> String {
    let words: Vec<String> = drops
        .filter(|(_, count)| **count > 0)
        .map(|(reason, count)| format!("{count} {}", one_line(reason)))
        .collect();
    if words.is_empty() { "-".to_owned() } else { words.join(", ") }
}
