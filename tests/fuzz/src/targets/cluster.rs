//! What nodes say to each other: managers among themselves, sessions, calls, certificates, tokens.

use std::{collections::BTreeMap, path::PathBuf};

use arbitrary::Unstructured;
use prost::Message;
use weft_manager::{
    ca::csr::proven_key,
    fuzzing::{self, Read},
};
use weft_model::{
    Assignments, AttachmentId, ContainerId, NetworkId, NodeId, RequestId, TaskId,
    constraint::Constraint,
    spec::{Invalid, Protocol, Restart, Scope},
};
use weft_overlay::lower::{Facts, lower};
use weft_proto::{
    convert::{
        container, network, node,
        run::{self, Names, Resolve},
        service,
        session::{AssignmentsUpdate, Reports, tunnel_from_wire, tunnel_to_wire},
    },
    tls::{HostPort, JoinToken, Peer, issued_by, peer, pem},
    v1,
};
use weft_worker::desired::{LocalSandbox, Sorted, holder_of, key_of};

use super::texts;

/// What was read is written so that it is read as the same.
fn comes_back(reader: fn(&[u8]) -> Read, bytes: &[u8]) {
    if let Ok(written) = reader(bytes) {
        assert_eq!(reader(&written).as_ref(), Ok(&written), "{written:02x?}");
    }
}

/// Messages between managers.
pub fn raft_messages(input: &[u8]) {
    let Some((which, bytes)) = input.split_first() else { return };
    let readers = [fuzzing::request, fuzzing::response, fuzzing::entry, fuzzing::command];
    comes_back(readers[usize::from(*which) % readers.len()], bytes);
}

/// Files of a manager.
pub fn raft_files(input: &[u8]) {
    let Some((which, bytes)) = input.split_first() else { return };
    let readers =
        [fuzzing::snapshot, fuzzing::image, fuzzing::identity, fuzzing::peers, fuzzing::record];
    let reader = readers[usize::from(*which) % readers.len()];
    if let Ok(written) = reader(bytes) {
        // A snapshot is written with its seal.
        let again = match usize::from(*which) % readers.len() {
            0 | 1 => fuzzing::snapshot(&written),
            4 => fuzzing::record(&[&bytes[..1], &written].concat()),
            _ => reader(&written),
        };
        assert_eq!(again, Ok(written));
    }
}

/// Pieces of snapshots in any order: only what one sender sent as one whole comes out.
pub fn raft_pieces(input: &[u8]) {
    let mut bytes = Unstructured::new(input);
    let mut pieces = Vec::new();
    while pieces.len() < 32 && !bytes.is_empty() {
        let piece = (|| -> arbitrary::Result<_> {
            let number = |bytes: &mut Unstructured<'_>| match bytes.ratio(1, 8)? {
                true => bytes.arbitrary::<u64>(),
                false => bytes.int_in_range(0..=12u64),
            };
            let (from, transfer) = (bytes.int_in_range(1..=2)?, bytes.int_in_range(1..=2)?);
            let (offset, total) = (number(&mut bytes)?, number(&mut bytes)?);
            let length = bytes.int_in_range(0..=12usize)?.min(bytes.len());
            Ok((from, transfer, offset, total, bytes.bytes(length)?.to_vec()))
        })();
        let Ok(piece) = piece else { break };
        pieces.push(piece);
    }
    for whole in fuzzing::pieces(&pieces) {
        assert!(pieces.iter().any(|(_, _, _, total, _)| *total == whole.len() as u64));
        let parts: Vec<_> = pieces.iter().filter(|piece| !piece.4.is_empty()).collect();
        assert!(whole.is_empty() || parts.iter().any(|piece| whole.ends_with(&piece.4)));
    }
}

/// What a worker is told, and what it says.
pub fn session(input: &[u8]) {
    let Some((which, bytes)) = input.split_first() else { return };
    match which % 4 {
        0 => {
            let wire = v1::session_response::Assignments {
                complete: true,
                applies_to: 0,
                results_in: 1,
                changes: bytes.to_vec(),
            };
            let Ok(update) = AssignmentsUpdate::from_wire(&wire) else { return };
            assert_eq!(AssignmentsUpdate::from_wire(&update.to_wire()).ok(), Some(update.clone()));
            let mut assignments = Assignments::default();
            assignments.take(update.changes, 1);
            obeyed(&assignments);
        }
        1 => {
            if let Ok(assignments) = rmp_serde::from_slice::<Assignments>(bytes) {
                obeyed(&assignments);
            }
        }
        2 => {
            if let Ok(reports) = Reports::from_wire(bytes) {
                assert_eq!(Reports::from_wire(&reports.to_wire()).ok(), Some(reports));
            }
        }
        _ => {
            if let Ok(report) = tunnel_from_wire(bytes) {
                assert_eq!(tunnel_from_wire(&tunnel_to_wire(&report)).ok(), Some(report));
            }
        }
    }
}

/// What a node makes of its assignments, whatever they say: the manager may be of another version.
fn obeyed(assignments: &Assignments) {
    let changes = Assignments::default().changes_to(assignments);
    let mut again = Assignments::default();
    again.take(changes, assignments.revision);
    assert_eq!(again, *assignments);
    let sorted = Sorted::new(assignments);
    sorted.zones(Vec::new(), Default::default());
    let mut sandboxes = BTreeMap::new();
    let attachments: Vec<AttachmentId> = sorted
        .foreigners
        .keys()
        .copied()
        .chain((0..3).map(|n| AttachmentId::from_bytes([n; 32])))
        .collect();
    for task in sorted.tasks.values() {
        let holder = weft_model::object::Holder::Task(task.id);
        assert_eq!(holder_of(&key_of(holder)), Some(holder));
        let local = LocalSandbox {
            netns: PathBuf::from("/proc/1/ns/net"),
            dns_port: Some(40_000),
            attachments: attachments.clone(),
            ifname: None,
            default_gateway: true,
        };
        sandboxes.insert(holder, local);
    }
    let dataplane = sorted.dataplane(&sandboxes);
    let (first, second) =
        (lower(&dataplane, Facts::default()), lower(&dataplane, Facts::default()));
    assert_eq!(first, second);
    sorted.membership(&attachments);
    sorted.members();
}

/// Digits are IDs; every network is of the node's own.
struct Digits;

fn id(text: &str) -> Result<[u8; 32], Invalid> {
    let number = text.parse().map_err(|_| Invalid::new("name", text, "there is none"))?;
    Ok([number; 32])
}

impl Resolve for Digits {
    type Error = Invalid;

    fn network(&self, text: &str) -> Result<(NetworkId, Scope), Invalid> {
        let bytes = if text == "bridge" { [0; 32] } else { id(text)? };
        Ok((NetworkId::from_bytes(bytes), Scope::Local))
    }

    fn container(&self, text: &str) -> Result<ContainerId, Invalid> {
        Ok(ContainerId::from_bytes(id(text)?))
    }
}

impl Names for Digits {
    fn network(&self, id: NetworkId) -> String {
        u8::from_str_radix(&id.to_string()[..2], 16).expect("hex").to_string()
    }

    fn container(&self, id: ContainerId) -> String {
        u8::from_str_radix(&id.to_string()[..2], 16).expect("hex").to_string()
    }
}

/// Specs of users and descriptions of nodes, as prost bytes: what passes the checks comes back.
pub fn specs(input: &[u8]) {
    let Some((which, bytes)) = input.split_first() else { return };
    match which % 6 {
        0 | 1 => {
            let Ok(wire) = v1::NetworkSpec::decode(bytes) else { return };
            let read = if which % 6 == 0 { network::spec_of } else { network::local_spec_of };
            let Ok(spec) = read(&wire) else { return };
            if spec.check().is_ok() {
                assert_eq!(read(&network::spec(&spec)), Ok(spec));
            }
        }
        2 => {
            let Ok(wire) = v1::ServiceSpec::decode(bytes) else { return };
            let resolve = |text: &str| id(text).map(NetworkId::from_bytes);
            let Ok(spec) = service::spec_of(&wire, resolve) else { return };
            if spec.check().is_ok() {
                let resolve = |text: &str| {
                    text.parse().map_err(|_| Invalid::new("network", text, "is no ID"))
                };
                assert_eq!(service::spec_of(&service::spec(&spec), resolve), Ok(spec));
            }
        }
        3 => {
            let Ok(wire) = v1::RunSpec::decode(bytes) else { return };
            let Ok(spec) = run::spec_of(&wire, &Digits) else { return };
            if spec.check().is_ok() {
                assert_eq!(run::spec_of(&run::spec(&spec, &Digits), &Digits), Ok(spec));
            }
        }
        4 => {
            let Ok(wire) = v1::NodeDescription::decode(bytes) else { return };
            let Ok(description) = node::description_of(&wire) else { return };
            assert_eq!(node::description_of(&node::description(&description)), Ok(description));
        }
        _ => {
            let Ok(wire) = v1::ContainerSpec::decode(bytes) else { return };
            let Ok(spec) = container::spec_of(&wire) else { return };
            if spec.check().is_ok() {
                assert_eq!(container::spec_of(&container::spec(&spec)), Ok(spec));
            }
        }
    }
}

/// Certificates, requests for them, and texts with some.
pub fn certificates(input: &[u8]) {
    let Some((which, bytes)) = input.split_first() else { return };
    match which % 3 {
        0 => {
            if let Ok(peer) = Peer::from_der(bytes) {
                assert!(peer::is_id(&peer.node_id) && peer::is_id(&peer.cluster_id));
                assert!(peer.serial.bytes().all(|b| b.is_ascii_hexdigit()), "{}", peer.serial);
            }
            let _ = peer::cluster_of_root(bytes);
        }
        1 => drop(proven_key(bytes)),
        _ => {
            let Some([roots, leaf]) = texts(bytes) else { return };
            let Ok(certificates) = pem::certificates(roots) else { return };
            let written = pem::certificates_pem(&certificates);
            assert_eq!(pem::certificates(&written).ok().as_ref(), Some(&certificates));
            for leaf in pem::certificates(leaf).unwrap_or_default() {
                let _ = issued_by(roots, &leaf);
            }
        }
    }
}

/// Words that users give: tokens, addresses of managers, IDs, constraints.
pub fn tokens(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(token) = text.parse::<JoinToken>() {
        assert_eq!(token.to_string(), text);
        assert!(!token.pins(text));
    }
    if let Ok(place) = text.parse::<HostPort>() {
        assert!(place.port() > 0 && !place.host().is_empty());
        assert_eq!(place.to_string().parse(), Ok(place));
    }
    if let Ok(id) = text.parse::<NodeId>() {
        assert_eq!(id.to_string(), text.to_ascii_lowercase());
    }
    if let Ok(id) = text.parse::<TaskId>() {
        assert_eq!(id.to_string().parse(), Ok(id));
    }
    if let Ok(constraint) = text.parse::<Constraint>() {
        assert_eq!(constraint.to_string().parse(), Ok(constraint));
    }
    if let Ok(restart) = text.parse::<Restart>() {
        assert_eq!(restart.to_string().parse(), Ok(restart));
    }
    if let Ok(protocol) = text.parse::<Protocol>() {
        assert_eq!(protocol.to_string().parse(), Ok(protocol));
    }
    assert!(RequestId::new(text).is_none() || text.len() <= RequestId::MAX);
}
