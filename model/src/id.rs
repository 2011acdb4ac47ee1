//! Typed identifiers: 32 random bytes, written as 64 hex digits, shown as the first 12.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Bytes of an identifier.
pub const LENGTH: usize = 32;
/// Hex digits of the short form that tables show and names use.
pub const SHORT: usize = 12;

/// Text that is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an ID: must be 64 hex digits")]
pub struct NotAnId;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; LENGTH]);

        impl $name {
            /// The identifier made of these (random) bytes.
            pub const fn from_bytes(bytes: [u8; LENGTH]) -> Self {
                Self(bytes)
            }

            /// The first 12 hex digits.
            pub fn short(&self) -> String {
                self.to_string()[..SHORT].to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hex(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hex(&self.0[..SHORT / 2], f)
            }
        }

        impl FromStr for $name {
            type Err = NotAnId;

            fn from_str(text: &str) -> Result<Self, NotAnId> {
                parse_hex(text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(D::Error::custom)
            }
        }
    };
}

id!(
    /// Names a cluster.
    ClusterId
);
id!(
    /// Names a node; its certificate carries it. Never reused.
    NodeId
);
id!(
    /// Names a network.
    NetworkId
);
id!(
    /// Names a service.
    ServiceId
);
id!(
    /// Names a task, and so its container.
    TaskId
);
id!(
    /// Names a container that `weft run` made.
    ContainerId
);
id!(
    /// Names a direct link between two containers.
    CableId
);
id!(
    /// Names one network namespace's membership in one network.
    AttachmentId
);

fn write_hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

fn parse_hex(text: &str) -> Result<[u8; LENGTH], NotAnId> {
    let digits = text.as_bytes();
    if digits.len() != LENGTH * 2 {
        return Err(NotAnId);
    }
    let digit = |byte: u8| (byte as char).to_digit(16).ok_or(NotAnId);
    let mut bytes = [0; LENGTH];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        // Two hex digits fit a byte.
        *byte = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
    }
    Ok(bytes)
}

/// What a caller names a write by, so that a retry is known for one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RequestId(String);

impl RequestId {
    /// Fewest characters: enough for 64 random bits in hex.
    pub const MIN: usize = 16;
    /// Most characters.
    pub const MAX: usize = 64;

    /// Takes the caller's text, if it is long enough to be unique and short enough to be kept.
    pub fn new(text: &str) -> Option<Self> {
        let fits = (Self::MIN..=Self::MAX).contains(&text.len());
        (fits && text.bytes().all(|byte| byte.is_ascii_graphic())).then(|| Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        let id = TaskId::from_bytes([0xab; 32]);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.short(), "abababababab");
        for bad in ["", "ab", &"g".repeat(64), &"a".repeat(65), &"é".repeat(32)] {
            assert_eq!(bad.parse::<TaskId>(), Err(NotAnId), "{bad}");
        }
    }
}
