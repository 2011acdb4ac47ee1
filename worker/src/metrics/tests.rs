//! What a reading becomes, line by line.

use std::time::Duration;

use weft_model::assignments::{Item, Key, PeerItem};
use weft_proto::v1::TunnelPeer;

use super::*;
use crate::plumbing::Source;

fn reading() -> Reading {
    Reading {
        contact: Contact::default(),
        assigned: (Source::None, Arc::default()),
        standing: Standing::default(),
        carrier: Choice::in_memory(),
        links: Some(NodeLinksResponse::default()),
        containers: Some(vec![]),
        local: None,
        names: Totals::default(),
        port_conflicts: 0,
        rooms: vec![],
    }
}

fn text_of(reading: &Reading) -> String {
    text(families(reading)).unwrap()
}

fn has(text: &str, line: &str) {
    assert!(text.lines().any(|found| found == line), "no {line:?} in:\n{text}");
}

#[test]
fn a_session_and_its_loss_are_told() {
    let mut reading = reading();
    has(&text_of(&reading), "weft_session_up{} 0.0");
    reading.contact.manager = "10.0.0.1:2377".parse().ok();
    has(&text_of(&reading), "weft_session_up{} 1.0");
}

#[test]
fn what_the_kernel_refused_is_told_by_kind() {
    let mut reading = reading();
    reading.standing.failures.insert("link", 2);
    reading.standing.applying.note(Duration::from_millis(3));
    let text = text_of(&reading);
    has(&text, "weft_apply_failures_total{kind=\"link\"} 2");
    has(&text, "weft_apply_seconds_bucket{le=\"0.005\"} 1");
    has(&text, "weft_apply_seconds_count{} 1");
}

#[test]
fn links_have_their_node_in_the_labels_and_drops_their_reason() {
    let mut reading = reading();
    let peer = PeerItem {
        number: 2,
        hostname: "n2".to_owned(),
        endpoint: [10, 0, 0, 2].into(),
        lanes: 1,
        keys: vec![],
    };
    let id = weft_model::NodeId::from_bytes([2; 32]);
    let items = [(Key::Peer(id), Item::Peer(peer))].into();
    reading.assigned.1 = Arc::new(Assignments { revision: 7, items });
    reading.links = Some(NodeLinksResponse {
        peers: vec![TunnelPeer {
            node_id: "ab".to_owned(),
            hostname: "n2".to_owned(),
            sent_bytes: 10,
            drops: [("forged".to_owned(), 3)].into(),
            ..TunnelPeer::default()
        }],
        drops: [("malformed".to_owned(), 1)].into(),
    });
    let text = text_of(&reading);
    has(&text, "weft_assignments_revision{} 7.0");
    has(&text, "weft_link_sent_bytes_total{node_id=\"ab\",hostname=\"n2\"} 10");
    let dropped =
        "weft_link_dropped_packets_total{node_id=\"ab\",hostname=\"n2\",reason=\"forged\"} 3";
    has(&text, dropped);
    has(&text, "weft_link_dropped_packets_unattributed_total{reason=\"malformed\"} 1");
    // There was no handshake: no age is better than a wrong one.
    assert!(!text.contains("link_handshake_age"), "{text}");
}

#[test]
fn a_part_that_did_not_come_in_time_is_named() {
    let mut reading = reading();
    reading.containers = None;
    let text = text_of(&reading);
    has(&text, "weft_scrape_part_missing{part=\"containers\"} 1.0");
    has(&text, "weft_scrape_part_missing{part=\"links\"} 0.0");
}

#[test]
fn names_and_labels_are_as_prometheus_wants_them() {
    let all = families(&reading());
    for family in &all {
        let clean = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        assert!(family.name.bytes().all(clean), "{}", family.name);
        assert!(!family.name.ends_with("_total") && !family.name.ends_with("_seconds"));
        assert!(!family.help.ends_with('.') && !family.help.is_empty(), "{}", family.name);
    }
    let names: std::collections::BTreeSet<_> = all.iter().map(|family| family.name).collect();
    assert_eq!(names.len(), all.len(), "a name has one family");
}
