//! What an administrator asks of the daemon of a machine: the calls of its socket, without the wire.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use weft_worker::{
    Worker,
    attach::{AttachError, Keeper, Wish},
};

use super::{
    caller::CLIENTS,
    net::{Answer, HostId, Net, Parcel},
    request::is_open,
};

/// A call.
#[derive(Clone, Debug)]
pub(super) enum Local {
    Attach(Wish),
    /// By name.
    Detach(String),
}

/// What came of it.
#[derive(Clone, Debug)]
pub(super) enum Verdict {
    Done,
    /// It is not known, or may be otherwise a little later.
    Again,
    /// It was not done, and will not be.
    Never(String),
}

/// Takes a call at the daemon of a host.
pub(super) async fn take(
    (net, own): (Net, HostId),
    worker: Arc<ArcSwapOption<Worker>>,
    (call, body): (u64, Local),
) {
    let verdict = match worker.load_full() {
        Some(worker) => perform(&worker.keeper(), body).await,
        None => Verdict::Again,
    };
    net.send(own, CLIENTS, Parcel::Answer { call, answer: Answer::Local(verdict) });
}

async fn perform(keeper: &Keeper, call: Local) -> Verdict {
    let done = match call {
        Local::Attach(wish) => keeper.attach(wish).await,
        Local::Detach(name) => keeper.detach(&name).await,
    };
    match done {
        // What is not there any more has ended by itself.
        Ok(_) | Err(AttachError::Unknown { .. }) => Verdict::Done,
        Err(AttachError::Managers(status)) if is_open(status.code()) => Verdict::Again,
        Err(
            AttachError::Going { .. } | AttachError::NotReady { .. } | AttachError::NotGone { .. },
        ) => Verdict::Again,
        Err(
            error @ (AttachError::Netns(_)
            | AttachError::Twice { .. }
            | AttachError::Full
            | AttachError::Ambiguous { .. }
            | AttachError::Book(_)
            | AttachError::Managers(_)),
        ) => Verdict::Never(error.to_string()),
    }
}
