//! The runtime's errors as statuses.

use tonic::{Code, Status};
use weft_proto::convert::status::hinted;

use crate::container::{Error, chain};

/// The whole chain, so that the reader of a status sees what the kernel said.
pub(super) fn status(error: Error) -> Status {
    hinted(code(&error), chain(&error), hint(&error))
}

fn hint(error: &Error) -> Option<&'static str> {
    let image = matches!(error, Error::Rootfs { .. } | Error::RootfsNotDirectory { .. });
    image.then_some("rootfs:DIR takes a directory of this node that holds a root file system")
}

fn code(error: &Error) -> Code {
    match error {
        Error::BadId { .. }
        | Error::NoCommand { .. }
        | Error::BadTmpfs { .. }
        | Error::BadUlimit { .. }
        | Error::BindSourceMissing { .. }
        | Error::PrivilegedExec { .. }
        | Error::CwdNotAbsolute { .. }
        | Error::NulInText { .. }
        | Error::BadEnv { .. }
        | Error::BadSysctl { .. }
        | Error::BadCapability { .. }
        | Error::MemoryTooSmall { .. }
        | Error::Rootfs { .. }
        | Error::RootfsNotDirectory { .. }
        | Error::RootfsIsOurs { .. } => Code::InvalidArgument,
        Error::NotFound { .. } => Code::NotFound,
        Error::Exists { .. } => Code::AlreadyExists,
        Error::NotRunning { .. }
        | Error::AlreadyStarted { .. }
        | Error::NoDns { .. }
        | Error::PortInUse { .. }
        | Error::PortsNotOwn { .. }
        | Error::ShimGone { .. } => Code::FailedPrecondition,
        Error::NotStarted { .. }
        | Error::NotExecuted { .. }
        | Error::ShimNotStarted { .. }
        | Error::ShimRefused { .. }
        | Error::CgroupBusy { .. }
        | Error::Io { .. }
        | Error::Os { .. } => Code::Internal,
    }
}
