//! What the store cannot do, as gRPC statuses.

use tonic::{Code, Status};
use weft_proto::convert::status::hinted;

use crate::store::{ProposeError, ReadError, Status as StoreStatus};

/// What a caller can do when nothing is known to have changed.
const RETRY: &str = "retry with the same request id";
/// The same when the disks are full.
const MAKE_ROOM: &str = "make room where the managers' state directories are, and retry";

/// A write that was not added, or of which it is not known.
pub(crate) fn write_failed(error: &ProposeError) -> Status {
    let code = match error {
        ProposeError::NotLeader { .. }
        | ProposeError::NoQuorum
        | ProposeError::Unknown { .. }
        | ProposeError::Fatal(_)
        | ProposeError::Closed => Code::Unavailable,
        ProposeError::Overloaded { .. }
        | ProposeError::NoRoom { .. }
        | ProposeError::NoRoomElsewhere { .. } => Code::ResourceExhausted,
        ProposeError::TooBig { .. } => Code::InvalidArgument,
        ProposeError::Encode { .. } => Code::Internal,
    };
    let no_room =
        matches!(error, ProposeError::NoRoom { .. } | ProposeError::NoRoomElsewhere { .. });
    let hint = if no_room { Some(MAKE_ROOM) } else { (code == Code::Unavailable).then_some(RETRY) };
    hinted(code, error.to_string(), hint)
}

/// A read that is not known to be current.
pub(crate) fn read_failed(error: &ReadError) -> Status {
    match error {
        ReadError::NotLeader { .. }
        | ReadError::NoQuorum
        | ReadError::Timeout { .. }
        | ReadError::Fatal(_)
        | ReadError::Closed => hinted(Code::Unavailable, error.to_string(), Some(RETRY)),
    }
}

/// No manager leads: how many would be needed.
pub(crate) fn no_leader(status: &StoreStatus) -> Status {
    let voters = status.voters.len();
    let message = if voters == 0 {
        "no leader: this manager has not yet been let in by the others".to_owned()
    } else {
        let needed = voters / 2 + 1;
        let names: Vec<_> = status.voters.iter().map(|voter| voter.address.as_str()).collect();
        format!("no leader: {needed} of {voters} managers ({}) must be reachable", names.join(", "))
    };
    hinted(Code::Unavailable, message, Some(RETRY))
}
