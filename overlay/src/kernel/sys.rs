//! The few system calls that no safe wrapper offers.
#![allow(unsafe_code, reason = "system calls; each block says why it is sound")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Opens and binds a netlink socket in the calling thread's network namespace; returns it and its port.
pub(crate) fn netlink_socket(protocol: i32) -> io::Result<(OwnedFd, u32)> {
    // SAFETY: plain integers in; a non-negative result is a new descriptor nobody else owns.
    let fd =
        unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: see above.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: all-zero is a valid sockaddr_nl.
    let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
    address.nl_family = libc::AF_NETLINK as u16;
    let mut length = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
    // SAFETY: `address` is a sockaddr_nl of `length` bytes that outlives both calls.
    let result = unsafe {
        let generic = (&raw mut address).cast::<libc::sockaddr>();
        match libc::bind(fd.as_raw_fd(), generic, length) {
            0 => libc::getsockname(fd.as_raw_fd(), generic, &raw mut length),
            error => error,
        }
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok((fd, address.nl_pid)) }
}

/// Sets an integer socket option.
pub(crate) fn set_option(fd: &OwnedFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    let length = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the pointer is to `length` readable bytes.
    let result =
        unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const value).cast(), length) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Receives one datagram of any length into `buffer`, and the namespace id the kernel attached to it.
pub(crate) fn receive(
    fd: &OwnedFd,
    buffer: &mut [u8],
    flags: i32,
) -> io::Result<(usize, Option<i32>)> {
    let mut control = [0u64; 8];
    let mut vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: all-zero is a valid msghdr.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut vector;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&control);
    // SAFETY: the header points to a buffer and a control area that live until after the call.
    let length = unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut header, flags) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    let mut nsid = None;
    // SAFETY: the kernel filled the header; CMSG_FIRSTHDR checks that a whole message is there, and the
    // message of this type holds one i32.
    unsafe {
        let first = libc::CMSG_FIRSTHDR(&raw const header);
        if !first.is_null()
            && (*first).cmsg_level == super::uapi::SOL_NETLINK
            && (*first).cmsg_type == super::uapi::NETLINK_LISTEN_ALL_NSID
        {
            nsid = Some(libc::CMSG_DATA(first).cast::<i32>().read_unaligned());
        }
    }
    Ok((length, nsid))
}

/// Makes a TAP device for many queues, with headers of virtio-net, in the namespace that `fd` (/dev/net/tun)
/// was opened in; it goes with `fd` (tuntap.rst).
pub(crate) fn tap_create(fd: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_MULTI_QUEUE;
    // SAFETY: all-zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays zero.
    let room = request.ifr_name.len() - 1;
    for (to, from) in request.ifr_name[..room].iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: the request takes a pointer to an ifreq, which outlives the call.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Lets the device of `fd` outlive it.
pub(crate) fn tap_persist(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the request takes an integer.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETPERSIST as _, 1) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The kind of a namespace file as a CLONE_NEW* flag (ioctl_ns(2)).
pub(crate) fn namespace_kind(fd: BorrowedFd<'_>) -> io::Result<i32> {
    /// `_IO(0xb7, 0x3)`.
    const NS_GET_NSTYPE: libc::c_ulong = 0xb703;
    // SAFETY: the request takes no argument.
    let kind = unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_NSTYPE as _) };
    if kind < 0 { Err(io::Error::last_os_error()) } else { Ok(kind) }
}
