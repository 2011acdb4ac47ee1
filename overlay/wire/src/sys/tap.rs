//! One queue of a TAP device.
#![allow(unsafe_code, reason = "ioctl on a TAP device; each block says why it is sound")]

use std::{
    fs::{File, OpenOptions},
    io::{self, IoSlice, Read, Write},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        unix::fs::OpenOptionsExt,
    },
};

/// Length of the header before each frame: `struct virtio_net_hdr` without `num_buffers`.
pub const VNET_HEADER: usize = 10;

// From linux/if_tun.h, where libc has none.
const TUNSETVNETHDRSZ: libc::Ioctl = 0x4004_54d8;
/// Segmentation that user space does: checksums, TCP over IPv4 and IPv6, with ECN.
const OFFLOADS_TCP: libc::c_ulong = 0x01 | 0x02 | 0x04 | 0x08;
/// The same for UDP; Linux 6.2.
const OFFLOADS_UDP: libc::c_ulong = 0x20 | 0x40;

/// An open queue. The device belongs to the daemon, and outlives it.
#[derive(Debug)]
pub struct Tap {
    file: File,
    segments_udp: bool,
}

impl Tap {
    /// Opens a queue of the existing TAP device `name`, which has multiple queues, and takes over
    /// segmentation from the kernel.
    ///
    /// # Errors
    /// No such device, it is no TAP device of multiple queues, or it has no queue left.
    pub fn open(name: &str) -> io::Result<Self> {
        // Without this look the ioctl below would make a device of that name.
        nix::net::if_::if_nametoindex(name)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open("/dev/net/tun")?;
        let mut tap = Self { file, segments_udp: false };
        tap.attach(name)?;
        tap.set_header_length()?;
        tap.segments_udp = tap.set_offloads()?;
        Ok(tap)
    }

    /// Whether the device takes several datagrams as one frame.
    pub fn segments_udp(&self) -> bool {
        self.segments_udp
    }

    fn attach(&self, name: &str) -> io::Result<()> {
        if name.len() >= libc::IFNAMSIZ {
            return Err(io::Error::from_raw_os_error(libc::ENODEV));
        }
        // SAFETY: all fields of ifreq are integers, for which zero is a value.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from.cast_signed();
        }
        let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_MULTI_QUEUE;
        request.ifr_ifru.ifru_flags = flags as libc::c_short;
        // SAFETY: the request is an ifreq that lives until the call returns.
        let result =
            unsafe { libc::ioctl(self.file.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) };
        check(result)
    }

    fn set_header_length(&self) -> io::Result<()> {
        let length = VNET_HEADER as libc::c_int;
        // SAFETY: the argument points to an int that lives until the call returns.
        check(unsafe { libc::ioctl(self.file.as_raw_fd(), TUNSETVNETHDRSZ, &raw const length) })
    }

    /// Whether UDP is among what the device takes.
    fn set_offloads(&self) -> io::Result<bool> {
        // SAFETY: the argument is a number.
        let set = |offloads: libc::c_ulong| unsafe {
            libc::ioctl(self.file.as_raw_fd(), libc::TUNSETOFFLOAD as _, offloads)
        };
        if check(set(OFFLOADS_TCP | OFFLOADS_UDP)).is_ok() {
            return Ok(true);
        }
        check(set(OFFLOADS_TCP)).map(|()| false)
    }

    /// Reads one frame with its header; `None` when there is none.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match (&self.file).read(buffer) {
            Ok(length) => Ok(Some(length)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes one frame with its header, from several pieces.
    pub fn write(&self, pieces: &[IoSlice<'_>]) -> io::Result<()> {
        (&self.file).write_vectored(pieces).map(drop)
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
