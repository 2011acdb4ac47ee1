//! Refusals of the daemon's own, with the next command for the user.

use tonic::{Code, Status};
use weft_proto::convert::status::hinted;

/// The node is in no cluster.
pub fn not_a_member() -> Status {
    hinted(
        Code::FailedPrecondition,
        "this node is not part of a cluster",
        Some("weft cluster init, or weft cluster join --token TOKEN HOST:2377"),
    )
}

/// The node is in a cluster already.
pub fn already_a_member() -> Status {
    hinted(
        Code::FailedPrecondition,
        "this node is already part of a cluster",
        Some("weft cluster leave, to make or join another one"),
    )
}

/// A value that cannot be used.
pub fn invalid(message: impl Into<String>, hint: &str) -> Status {
    hinted(Code::InvalidArgument, message, Some(hint))
}

/// Something on this machine is in the way.
pub fn failed(what: &str, error: &dyn std::error::Error) -> Status {
    let mut text = format!("{what}: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    Status::failed_precondition(text)
}
