//! The daemon put together: worker, manager and the services on both sockets.
//!
//! Reading order: [`settings`] is what it was told, [`lock`] keeps it the only one, [`membership`] is
//! what it remembers of its cluster, [`node`] is the running whole, [`lifecycle`] takes it into a
//! cluster and out, [`roles`] makes it a manager and a worker again, [`removed`] clears it, if it is put
//! out, [`serve`] listens,
//! [`cluster_service`] takes the user's words, [`metrics`] shows how it does, and [`doctor`]
//! what is wrong.

mod addresses;
mod cluster_service;
mod doctor;
mod lifecycle;
mod lock;
mod membership;
mod metrics;
mod node;
mod refusal;
mod removed;
mod renewal;
mod roles;
mod serve;
#[doc(hidden)]
pub mod settings;

use std::{ffi::CString, sync::Arc};

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

pub use settings::Settings;

use tokio_util::task::AbortOnDropHandle;
use weft_worker::worker::StartError;

use crate::args::DaemonArgs;
use node::Node;

/// Runs the daemon of this node until it is told to stop. Stopping changes nothing in the kernel and
/// no container.
///
/// # Errors
/// When it cannot start, with the reason.
pub async fn run(args: DaemonArgs) -> anyhow::Result<()> {
    let settings = Settings::new(args)?;
    settings.start_log()?;
    let _only = lock::take(&settings).await?;
    let metrics = match settings.metrics {
        Some(address) => Some(metrics::bind(address).await?),
        None => None,
    };
    let node = Node::start(settings).await?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let unix = serve::unix(&node)?;
    let shown = metrics.map(|listener| metrics::serve(listener, Arc::downgrade(&node)));
    let shown = shown.map(|shown| AbortOnDropHandle::new(tokio::spawn(shown)));
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "the daemon is ready");
    let reason = tokio::select! {
        _ = terminate.recv() => Ended::Told,
        _ = interrupt.recv() => Ended::Told,
        ended = unix.run() => Ended::Failed(ended.err().map(|error| error.to_string())),
        fatal = node.fatal() => Ended::Fatal(fatal),
    };
    drop(shown);
    node.shutdown().await;
    match reason {
        Ended::Told => Ok(()),
        Ended::Failed(why) => {
            anyhow::bail!("the API's socket has failed: {}", why.unwrap_or_default())
        }
        Ended::Fatal(why) => {
            tracing::error!(why, "the replicated store has died; the daemon starts anew");
            restart(&node)
        }
    }
}

/// What to do about an error of the daemon, if that is known.
pub fn hint(error: &anyhow::Error) -> Option<&'static str> {
    match error.downcast_ref::<StartError>()? {
        StartError::Wireguard(_) => Some(
            "start it with --wireguard userspace, or load the kernel's module: modprobe wireguard",
        ),
        StartError::Runtime(_)
        | StartError::Book(_)
        | StartError::Names(_)
        | StartError::Local(_)
        | StartError::Keys(_)
        | StartError::DataPlane(_) => None,
    }
}

/// Why the daemon ends.
enum Ended {
    Told,
    Failed(Option<String>),
    Fatal(String),
}

/// Becomes a fresh process of the same program with the same arguments: the Raft engine never
/// recovers in place, and nothing but this process has to end for it.
fn restart(node: &Arc<Node>) -> anyhow::Result<()> {
    let program = CString::new("/proc/self/exe").context("a path without NUL")?;
    let arguments = node.settings().arguments();
    let arguments: Vec<CString> = arguments
        .into_iter()
        .map(|argument| CString::new(argument).context("an argument with NUL"))
        .collect::<Result<_, _>>()?;
    nix::unistd::execv(&program, &arguments).context("cannot start anew")?;
    Ok(())
}
