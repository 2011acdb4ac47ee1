//! The three files a container's C library reads names with, as pure text.
//!
//! Whoever writes them does so in place (they are bind-mounted, a rename would not be seen), and
//! leaves a file alone once the user has edited it.

mod hosts;
mod resolv_conf;

pub use hosts::{HostEntry, hostname, hosts};
pub use resolv_conf::{
    Overrides, RESOLVER, ResolvConf, resolv_conf, upstreams_from_resolv_conf, upstreams_with_scopes,
};

/// Whether the container's namespace has IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ipv6 {
    Enabled,
    Disabled,
}

/// Whether a word can stand in these files without becoming something else: they have no quoting,
/// so a space starts the next word, a line end the next line and `#` a comment.
fn is_word(word: &str) -> bool {
    !word.is_empty()
        && !word.starts_with(['#', ';'])
        && !word.contains(|c: char| c.is_whitespace() || c.is_control() || c == '#')
}
