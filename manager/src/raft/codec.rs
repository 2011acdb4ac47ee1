//! Values to bytes and back.
//!
//! Two layers: MessagePack with field *names*, so that a later version can add fields and an
//! earlier one skip them; and around what lies on a disk a seal, a header and a CRC-32 over
//! everything, so that a flipped bit or a short file is noticed before anything is believed.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes that are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CodecError {
    #[error("cannot encode {what}: {reason}")]
    Encode { what: &'static str, reason: String },
    #[error("cannot decode {what}: {reason}")]
    Decode { what: &'static str, reason: String },
    #[error("{what} is {got} bytes long, shorter than its frame of {need} bytes")]
    Short { what: &'static str, got: usize, need: usize },
    #[error("{what} does not begin with the mark of its kind")]
    WrongKind { what: &'static str },
    #[error("{what} has format {got}, this program reads {known}")]
    WrongFormat { what: &'static str, got: u32, known: u32 },
    #[error("{what} is damaged: checksum {stored:08x} stored, {computed:08x} computed")]
    Damaged { what: &'static str, stored: u32, computed: u32 },
}

/// A kind of sealed file: its name in messages, its first bytes, its format number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    pub(crate) what: &'static str,
    pub(crate) magic: [u8; 8],
    pub(crate) format: u32,
}

/// Length of magic and format number.
const HEADER: usize = 8 + 4;
/// Length of the trailing CRC-32.
const TRAILER: usize = 4;

/// Encodes `value` with named fields.
///
/// # Errors
/// [`CodecError::Encode`] when its `Serialize` refuses.
pub(crate) fn encode<T: Serialize>(what: &'static str, value: &T) -> Result<Vec<u8>, CodecError> {
    rmp_serde::to_vec_named(value)
        .map_err(|error| CodecError::Encode { what, reason: error.to_string() })
}

/// Decodes what [`encode`] wrote.
///
/// # Errors
/// [`CodecError::Decode`] when the bytes are not such a value.
pub(crate) fn decode<T: DeserializeOwned>(
    what: &'static str,
    bytes: &[u8],
) -> Result<T, CodecError> {
    rmp_serde::from_slice(bytes)
        .map_err(|error| CodecError::Decode { what, reason: error.to_string() })
}

/// Puts header and checksum around `body`.
pub(crate) fn seal(kind: Kind, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER + body.len() + TRAILER);
    out.extend_from_slice(&kind.magic);
    out.extend_from_slice(&kind.format.to_be_bytes());
    out.extend_from_slice(body);
    let sum = crc32fast::hash(&out);
    out.extend_from_slice(&sum.to_be_bytes());
    out
}

/// Checks a sealed file and gives its body.
///
/// # Errors
/// Every way in which the bytes can be something else; nothing of a damaged body is returned.
pub(crate) fn unseal(kind: Kind, sealed: &[u8]) -> Result<&[u8], CodecError> {
    let what = kind.what;
    let need = HEADER + TRAILER;
    if sealed.len() < need {
        return Err(CodecError::Short { what, got: sealed.len(), need });
    }
    let (covered, trailer) = sealed.split_at(sealed.len() - TRAILER);
    let stored = be_u32(trailer);
    let computed = crc32fast::hash(covered);
    if covered[..8] != kind.magic {
        return Err(CodecError::WrongKind { what });
    }
    if stored != computed {
        return Err(CodecError::Damaged { what, stored, computed });
    }
    let got = be_u32(&covered[8..HEADER]);
    if got != kind.format {
        return Err(CodecError::WrongFormat { what, got, known: kind.format });
    }
    Ok(&covered[HEADER..])
}

fn be_u32(bytes: &[u8]) -> u32 {
    bytes.iter().take(4).fold(0, |sum, byte| (sum << 8) | u32::from(*byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;
    use crate::raft::types::{Blob, Entry, Payload, log_id};

    const KIND: Kind = Kind { what: "a test file", magic: *b"WEFTTEST", format: 3 };

    proptest! {
        #[test]
        fn what_is_sealed_comes_back(body: Vec<u8>) {
            let sealed = seal(KIND, &body);
            prop_assert_eq!(unseal(KIND, &sealed), Ok(body.as_slice()));
        }

        #[test]
        fn every_flipped_bit_is_noticed(body: Vec<u8>, at: prop::sample::Index, bit in 0_u8..8) {
            let mut sealed = seal(KIND, &body);
            let at = at.index(sealed.len());
            sealed[at] ^= 1 << bit;
            prop_assert!(unseal(KIND, &sealed).is_err());
        }

        #[test]
        fn every_cut_is_noticed(body: Vec<u8>, at: prop::sample::Index) {
            let sealed = seal(KIND, &body);
            prop_assert!(unseal(KIND, &sealed[..at.index(sealed.len())]).is_err());
        }

        #[test]
        fn an_entry_survives(term in 0_u64..9, index: u64, body: Vec<u8>) {
            let entry = Entry { log_id: log_id(term, index), payload: Payload::Normal(Blob(body.into())) };
            let bytes = encode("an entry", &entry).expect("encodes");
            prop_assert_eq!(decode::<Entry>("an entry", &bytes), Ok(entry));
        }

        #[test]
        fn random_bytes_do_not_panic(bytes: Vec<u8>) {
            let _ = decode::<Entry>("an entry", &bytes);
            prop_assert!(unseal(KIND, &bytes).is_err());
        }
    }

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Old {
        name: String,
    }

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct New {
        #[serde(default)]
        extra: u32,
        name: String,
    }

    #[test]
    fn a_field_can_be_added() {
        let new = encode("new", &New { extra: 4, name: "n".into() }).expect("encodes");
        assert_eq!(decode::<Old>("old", &new), Ok(Old { name: "n".into() }));
        let old = encode("old", &Old { name: "o".into() }).expect("encodes");
        assert_eq!(decode::<New>("new", &old), Ok(New { extra: 0, name: "o".into() }));
    }
}
