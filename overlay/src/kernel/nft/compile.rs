//! From the texts of our tables to the kernel's bytes, by way of `nft` and a throwaway namespace.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};

use nix::sched::{CloneFlags, unshare};

use super::ruleset::{self, Ruleset};
use crate::kernel::KernelError;
use crate::kernel::socket::Socket;
use crate::plane::Table;

/// The texts, by table.
const TEXTS: [(Table, &str); 4] = [
    (Table::Host, include_str!("skeleton/host.nft")),
    (Table::Bridge, include_str!("skeleton/bridge.nft")),
    (Table::Sandbox, include_str!("skeleton/sandbox.nft")),
    (Table::Tunnel, include_str!("skeleton/tunnel.nft")),
];

/// What each table of ours consists of.
pub(crate) type Skeletons = BTreeMap<Table, Ruleset>;

/// Compiles all tables. Takes a few forks of `nft`; done once when a kernel is opened.
///
/// The texts go into namespaces that vanish with the thread, so nothing of the host is touched.
pub(crate) fn compile() -> Result<Skeletons, KernelError> {
    let compiled = TEXTS.into_iter().map(|(table, text)| {
        let thread = std::thread::Builder::new().name("weft-nft".to_owned());
        let thread = thread.spawn(move || compile_here(table, text));
        let thread = thread.map_err(|error| KernelError::io("thread", &error))?;
        let result = thread.join();
        let panicked = |_| KernelError::Nft { message: "the compiling thread panicked".to_owned() };
        Ok((table, result.map_err(panicked)??))
    });
    compiled.collect()
}

fn compile_here(table: Table, text: &str) -> Result<Ruleset, KernelError> {
    unshare(CloneFlags::CLONE_NEWNET)
        .map_err(|errno| KernelError::errno("unshare", errno as i32))?;
    load(text)?;
    let mut socket = Socket::open(libc::NETLINK_NETFILTER)?;
    let ruleset = ruleset::dump(&mut socket, super::family(table))?;
    ruleset.ok_or_else(|| KernelError::Nft { message: format!("{table:?} left no table") })
}

/// Runs `nft -f -` in the calling thread's namespace.
fn load(text: &str) -> Result<(), KernelError> {
    let fail = |error: std::io::Error| KernelError::io("nft", &error);
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(fail)?;
    if let Some(mut input) = child.stdin.take() {
        // A child that ended early says why on its standard error.
        let _ = input.write_all(text.as_bytes());
    }
    let output = child.wait_with_output().map_err(fail)?;
    if output.status.success() {
        return Ok(());
    }
    Err(KernelError::Nft { message: String::from_utf8_lossy(&output.stderr).trim().to_owned() })
}
