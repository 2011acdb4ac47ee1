//! Refusals as gRPC statuses: a code, the sentence, and in the metadata what to do.

use tonic::{Code, Status, metadata::MetadataValue};
use weft_model::{Rejected, spec::Invalid};

/// The metadata entry with the hint, UTF-8.
pub const HINT: &str = "weft-hint-bin";
/// The metadata entry with the kind of a refusal that programs must know from others.
const REFUSED: &str = "weft-refused";
const NOT_MEMBER: &str = "not-member";

/// A status with a hint, if there is one.
pub fn hinted(code: Code, message: impl Into<String>, hint: Option<&str>) -> Status {
    let mut status = Status::new(code, message);
    if let Some(hint) = hint.filter(|hint| !hint.is_empty()) {
        status.metadata_mut().insert_bin(HINT, MetadataValue::from_bytes(hint.as_bytes()));
    }
    status
}

/// What a status says to do.
pub fn hint_of(status: &Status) -> Option<String> {
    let value = status.metadata().get_bin(HINT)?.to_bytes().ok()?;
    String::from_utf8(value.to_vec()).ok()
}

/// The caller's node is no member of the cluster: it was removed.
pub fn not_member(message: impl Into<String>) -> Status {
    let hint = "the node was removed: weft cluster leave, then join anew";
    let mut status = hinted(Code::PermissionDenied, message, Some(hint));
    status.metadata_mut().insert(REFUSED, MetadataValue::from_static(NOT_MEMBER));
    status
}

/// Whether a manager has said that the caller's node is no member.
pub fn is_not_member(status: &Status) -> bool {
    let reason = status.metadata().get(REFUSED);
    status.code() == Code::PermissionDenied && reason.is_some_and(|reason| reason == NOT_MEMBER)
}

/// A refusal of the state.
pub fn refused(rejected: &Rejected) -> Status {
    hinted(code_of(rejected), rejected.to_string(), rejected.hint().as_deref())
}

/// A field whose value is not allowed.
pub fn invalid(invalid: &Invalid) -> Status {
    hinted(Code::InvalidArgument, invalid.to_string(), invalid.hint.as_deref())
}

fn code_of(rejected: &Rejected) -> Code {
    match rejected {
        Rejected::NotFound { .. } => Code::NotFound,
        Rejected::Exists { .. } | Rejected::OtherEncryption { .. } | Rejected::NameInUse { .. } => {
            Code::AlreadyExists
        }
        Rejected::Stale { .. } => Code::Aborted,
        Rejected::InUse { .. }
        | Rejected::Overlap { .. }
        | Rejected::Address { .. }
        | Rejected::Forbidden { .. } => Code::FailedPrecondition,
        Rejected::Exhausted { .. } => Code::ResourceExhausted,
        Rejected::Invalid(_) | Rejected::OtherRequest => Code::InvalidArgument,
        Rejected::Token => Code::Unauthenticated,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hint_travels_beside_the_sentence() {
        let status = refused(&Rejected::Token);
        assert_eq!(status.code(), Code::Unauthenticated);
        assert_eq!(status.message(), "the join token is not valid for this cluster");
        assert!(hint_of(&status).unwrap().contains("weft cluster join-token"));
        let bare = hinted(Code::Internal, "x", Some(""));
        assert_eq!(hint_of(&bare), None);
    }
}
