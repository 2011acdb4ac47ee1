//! Objects in the shape that Docker's users know: the field names of `inspect` and of
//! `--format json` are Docker's. Pure functions from the wire's types to JSON.

pub mod attachment;
pub mod cluster;
pub mod container;
pub mod network;
pub mod node;
pub mod service;
pub mod task;
pub mod tunnel;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use weft_proto::v1;

use crate::output::time::rfc3339;

/// Digits of an ID that lists show.
pub const SHORT_ID: usize = 12;

/// Whether lists show whole IDs and texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trunc {
    Yes,
    No,
}

impl Trunc {
    /// From the flag `--no-trunc`.
    pub fn unless(no_trunc: bool) -> Self {
        if no_trunc { Self::No } else { Self::Yes }
    }

    /// The ID as this list shows it.
    pub fn id(self, id: &str) -> String {
        match self {
            Self::Yes => id.chars().take(SHORT_ID).collect(),
            Self::No => id.to_owned(),
        }
    }
}

/// A map of strings as JSON, in the order of its keys.
pub fn object(map: &BTreeMap<String, String>) -> Value {
    let map: Map<String, Value> =
        map.iter().map(|(key, value)| (key.clone(), Value::String(value.clone()))).collect();
    Value::Object(map)
}

/// `a=b,c=d`
pub fn label_text(map: &BTreeMap<String, String>) -> String {
    let labels: Vec<String> = map.iter().map(|(key, value)| format!("{key}={value}")).collect();
    labels.join(",")
}

/// The address of a CIDR, without the prefix length.
pub fn address(cidr: &str) -> &str {
    cidr.split('/').next().unwrap_or(cidr)
}

/// The prefix length of a CIDR; 0 if there is none.
pub fn prefix(cidr: &str) -> u8 {
    cidr.split_once('/').and_then(|(_, bits)| bits.parse().ok()).unwrap_or(0)
}

/// The first address of the family: IPv6 ones have a colon.
pub fn of_family(cidrs: &[String], v6: bool) -> &str {
    cidrs.iter().find(|cidr| cidr.contains(':') == v6).map_or("", String::as_str)
}

/// `Version`, `CreatedAt` and `UpdatedAt`, which every object of a cluster has.
pub(crate) fn meta(meta: Option<&v1::Meta>) -> (Value, String, String) {
    let version = json!({"Index": meta.map_or(0, |meta| meta.version)});
    let created = rfc3339(meta.and_then(|meta| meta.created_at.as_ref()));
    let updated = rfc3339(meta.and_then(|meta| meta.updated_at.as_ref()));
    (version, created, updated)
}
