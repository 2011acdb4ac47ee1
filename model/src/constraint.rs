//! Placement constraints, as in Docker: `node.labels.zone==a`, `node.role!=manager`.

use std::{fmt, net::IpAddr, str::FromStr};

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::{object::Node, spec::Invalid};

/// One condition on the node of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Constraint {
    key: Key,
    equal: Comparison,
    value: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Key {
    Id,
    Hostname,
    Ip,
    Role,
    Os,
    Arch,
    Label(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
}

impl Constraint {
    /// Whether the node satisfies the condition. Values compare without regard to case, as Docker's.
    pub fn allows(&self, node: &Node) -> bool {
        let matches = match &self.key {
            Key::Id => self.value.eq_ignore_ascii_case(&node.id.to_string()),
            Key::Hostname => self.value.eq_ignore_ascii_case(&node.description.hostname),
            Key::Ip => self.matches_ip(node.description.address.ip()),
            Key::Role => self.value.eq_ignore_ascii_case(node.spec.role.word()),
            Key::Os => self.value.eq_ignore_ascii_case(&node.description.os),
            Key::Arch => self.value.eq_ignore_ascii_case(&node.description.architecture),
            Key::Label(label) => node
                .spec
                .labels
                .get(label)
                .is_some_and(|value| self.value.eq_ignore_ascii_case(value)),
        };
        match self.equal {
            Comparison::Equal => matches,
            Comparison::NotEqual => !matches,
        }
    }

    fn matches_ip(&self, address: IpAddr) -> bool {
        let as_net = self.value.parse::<IpNet>().is_ok_and(|net| net.contains(&address));
        as_net || self.value.parse::<IpAddr>().is_ok_and(|ip| ip == address)
    }
}

impl FromStr for Constraint {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let invalid = |reason: &str| {
            Invalid::new("constraint", text, reason)
                .hint("write it as node.labels.KEY==VALUE or node.role!=manager")
        };
        let (key, equal, value) = match (text.split_once("=="), text.split_once("!=")) {
            (Some((key, value)), _) => (key, Comparison::Equal, value),
            (None, Some((key, value))) => (key, Comparison::NotEqual, value),
            (None, None) => return Err(invalid("has neither == nor !=")),
        };
        let (key, value) = (key.trim(), value.trim());
        if value.is_empty() {
            return Err(invalid("has no value"));
        }
        // Written without blanks it would be another one.
        if key.ends_with('=') {
            return Err(invalid("the comparison is == or !="));
        }
        let lower = key.to_ascii_lowercase();
        let key = match lower.as_str() {
            "node.id" => Key::Id,
            "node.hostname" => Key::Hostname,
            "node.ip" => Key::Ip,
            "node.role" => Key::Role,
            "node.platform.os" => Key::Os,
            "node.platform.arch" => Key::Arch,
            _ => match lower.strip_prefix("node.labels.") {
                // The label's own case counts; only the words before it do not.
                Some(label) if !label.is_empty() => {
                    Key::Label(key[key.len() - label.len()..].to_owned())
                }
                Some(_) | None => {
                    return Err(invalid(
                        "unknown key: must be node.id, node.hostname, node.ip, node.role, \
                         node.platform.os, node.platform.arch or node.labels.KEY",
                    ));
                }
            },
        };
        Ok(Self { key, equal, value: value.to_owned() })
    }
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.key {
            Key::Id => f.write_str("node.id"),
            Key::Hostname => f.write_str("node.hostname"),
            Key::Ip => f.write_str("node.ip"),
            Key::Role => f.write_str("node.role"),
            Key::Os => f.write_str("node.platform.os"),
            Key::Arch => f.write_str("node.platform.arch"),
            Key::Label(label) => write!(f, "node.labels.{label}"),
        }?;
        f.write_str(match self.equal {
            Comparison::Equal => "==",
            Comparison::NotEqual => "!=",
        })?;
        f.write_str(&self.value)
    }
}

impl Serialize for Constraint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Constraint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_and_prints() {
        for text in ["node.labels.Zone==a", "node.role!=manager", "node.ip==10.0.0.0/8"] {
            assert_eq!(text.parse::<Constraint>().unwrap().to_string(), text);
        }
        assert_eq!(
            "Node.Hostname == n1".parse::<Constraint>().unwrap().to_string(),
            "node.hostname==n1"
        );
        for bad in ["", "node.role", "node.labels.==x", "role==x", "node.id=="] {
            assert!(bad.parse::<Constraint>().is_err(), "{bad}");
        }
    }
}
