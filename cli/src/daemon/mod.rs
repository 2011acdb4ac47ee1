//! The daemon put together. Not built yet.

/// Runs the daemon of this node until it is told to stop.
pub async fn run(_args: crate::args::DaemonArgs) -> anyhow::Result<()> {
    anyhow::bail!("unsupported: the daemon is not built yet")
}
