//! Socket options that nix lacks.
#![allow(unsafe_code, reason = "setsockopt; the block says why it is sound")]

use std::os::fd::{AsRawFd, OwnedFd};

use nix::{errno::Errno, sys::socket::AddressFamily};

/// Sends without "don't fragment" and fragments what is too large for the path.
pub fn let_routers_fragment(fd: &OwnedFd, family: AddressFamily) -> nix::Result<()> {
    set(fd, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DONT)?;
    if family == AddressFamily::Inet6 {
        set(fd, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DONT)?;
    }
    Ok(())
}

fn set(fd: &OwnedFd, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> nix::Result<()> {
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the value is an int that lives until the call returns.
    let result =
        unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const value).cast(), length) };
    Errno::result(result).map(drop)
}
