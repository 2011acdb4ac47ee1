//! nftables without a fork: tables stored as the kernel's own bytes, replayed and compared.
//!
//! Each table has one text (`skeleton/*.nft`). Once in a process `nft` loads the texts into a throwaway
//! namespace, and the kernel is asked for what it then holds. Those bytes, replayed by netlink, make the
//! table anywhere else in one transaction; compared with a later dump, they tell whether it is intact.

pub(crate) mod compile;
pub(crate) mod element;
pub(crate) mod foreign;
pub(crate) mod ruleset;
pub(crate) mod transaction;

use crate::kernel::uapi::{NFNL_SUBSYS_NFTABLES, NFPROTO_BRIDGE, NFPROTO_INET};
use crate::kernel::wire::Message;
use crate::plane::Table;

/// The name of each table of ours.
pub(crate) const NAME: &str = "weft";

/// Length of `struct nfgenmsg`.
pub(crate) const FIXED: usize = 4;

/// The address family a table belongs to.
pub(crate) fn family(table: Table) -> u8 {
    match table {
        Table::Host | Table::Sandbox | Table::Tunnel => NFPROTO_INET,
        Table::Bridge => NFPROTO_BRIDGE,
    }
}

/// A message of the nftables subsystem.
pub(crate) fn message(kind: u16, flags: u16, family: u8) -> Message {
    Message::new(NFNL_SUBSYS_NFTABLES << 8 | kind, flags, &[family, 0, 0, 0])
}
