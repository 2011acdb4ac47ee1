//! Hearing of changes: the kernel's notifications about the host and all open sandboxes.
//!
//! Two sockets in the host's namespace are enough: with NETLINK_LISTEN_ALL_NSID they also hear the
//! namespaces that have a number here, and each message carries that number.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::watch;

use super::uapi::*;
use super::wire::{self, Received, get_u16};
use super::{KernelError, sys};

/// Enough for any notification.
const BUFFER: usize = 64 * 1024;
/// Events come in crowds: the first waits this long for the others.
const DEBOUNCE: Duration = Duration::from_millis(20);
/// Room for a crowd; what does not fit is told as "something was lost", and everything is looked at.
const RECEIVE_BUFFER: i32 = 4 << 20;

/// What may have changed since the last look.
#[derive(Debug, Default)]
pub struct Dirty {
    sandboxes: BTreeSet<String>,
    lost: bool,
    ours: BTreeSet<(Option<i32>, u32)>,
    names: BTreeMap<i32, Option<String>>,
}

impl Dirty {
    /// Takes the sandboxes that may have changed. `None` when events were lost: all may.
    pub fn take(&mut self) -> Option<BTreeSet<String>> {
        let sandboxes = std::mem::take(&mut self.sandboxes);
        if std::mem::take(&mut self.lost) { None } else { Some(sandboxes) }
    }

    /// Sets whose changes are our own (namespace id, netlink port), and what the namespace ids mean: a sandbox,
    /// or what is looked at together with the host.
    pub fn recognise(
        &mut self,
        ours: Vec<(Option<i32>, u32)>,
        names: BTreeMap<i32, Option<String>>,
    ) {
        self.ours = ours.into_iter().collect();
        self.names = names;
    }

    /// Notes one message; returns whether it matters.
    pub(crate) fn note(&mut self, nsid: Option<i32>, message: &Received<'_>) -> bool {
        if self.ours.contains(&(nsid, message.port)) || !matters(message) {
            return false;
        }
        match nsid {
            None => true,
            Some(id) => match self.names.get(&id) {
                Some(key) => {
                    self.sandboxes.extend(key.clone());
                    true
                }
                None => false,
            },
        }
    }
}

/// Neighbours come and go all the time; only what could be a lost permanent entry matters.
fn matters(message: &Received<'_>) -> bool {
    match message.kind {
        RTM_NEWNEIGH => get_u16(message.body, 8)
            .is_some_and(|state| state & (NUD_FAILED | NUD_PERMANENT | NUD_NOARP) != 0),
        NLMSG_DONE | NLMSG_ERROR => false,
        _ => true,
    }
}

/// The listening thread; ends when this is dropped.
#[derive(Debug)]
pub struct Watcher {
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Begins to listen in the calling thread's namespace. The receiver's number grows with each crowd of
    /// events that matter.
    ///
    /// # Errors
    /// When a socket or the thread cannot be made.
    pub fn start(dirty: Arc<Mutex<Dirty>>) -> Result<(Self, watch::Receiver<u64>), KernelError> {
        let fail = |error: io::Error| KernelError::io("netlink notifications", &error);
        let route = listen(
            libc::NETLINK_ROUTE,
            &[
                RTNLGRP_LINK,
                RTNLGRP_NEIGH,
                RTNLGRP_IPV4_IFADDR,
                RTNLGRP_IPV4_ROUTE,
                RTNLGRP_IPV4_RULE,
                RTNLGRP_IPV6_IFADDR,
                RTNLGRP_IPV6_ROUTE,
                RTNLGRP_IPV6_RULE,
            ],
        )
        .map_err(fail)?;
        let netfilter = listen(libc::NETLINK_NETFILTER, &[NFNLGRP_NFTABLES]).map_err(fail)?;
        let (sender, receiver) = watch::channel(0);
        // A program that somebody starts must not hold it open.
        let (stopped, stop) =
            nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(|errno| fail(errno.into()))?;
        let thread = std::thread::Builder::new().name("weft-kernel-watch".to_owned());
        let thread = thread.spawn(move || hear(&[route, netfilter], &stopped, &dirty, &sender));
        let thread = Some(thread.map_err(fail)?);
        Ok((Self { stop: Some(stop), thread }, receiver))
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // The closed end of the pipe wakes the thread.
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn listen(protocol: i32, groups: &[i32]) -> io::Result<OwnedFd> {
    let (fd, _) = sys::netlink_socket(protocol)?;
    // Without the privilege the default has to do; overruns are noticed.
    let _ = sys::set_option(&fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, RECEIVE_BUFFER);
    sys::set_option(&fd, SOL_NETLINK, NETLINK_LISTEN_ALL_NSID, 1)?;
    for group in groups {
        sys::set_option(&fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, *group)?;
    }
    Ok(fd)
}

fn hear(sockets: &[OwnedFd; 2], stop: &OwnedFd, dirty: &Mutex<Dirty>, sender: &watch::Sender<u64>) {
    let mut buffer = vec![0; BUFFER];
    loop {
        let [route, netfilter] = sockets;
        let wait = |fd: &OwnedFd, timeout| {
            let interest = |fd| PollFd::new(fd, PollFlags::POLLIN);
            let mut all =
                [interest(fd.as_fd()), interest(route.as_fd()), interest(netfilter.as_fd())];
            let result = poll(&mut all, timeout);
            (result, all[0].any().unwrap_or(false))
        };
        let (result, stopped) = wait(stop, PollTimeout::NONE);
        if stopped || result.is_err_and(|errno| errno != nix::errno::Errno::EINTR) {
            return;
        }
        let told = sockets.iter().filter(|socket| drain(socket, &mut buffer, dirty)).count();
        if told > 0 {
            // The crowd behind the first event; the pipe alone ends the wait early.
            let debounce = u16::try_from(DEBOUNCE.as_millis()).unwrap_or(u16::MAX);
            let mut only = [PollFd::new(stop.as_fd(), PollFlags::POLLIN)];
            let _ = poll(&mut only, PollTimeout::from(debounce));
            for socket in sockets {
                drain(socket, &mut buffer, dirty);
            }
            sender.send_modify(|count| *count += 1);
        }
    }
}

/// Reads all that waits in a socket; returns whether any of it matters.
fn drain(socket: &OwnedFd, buffer: &mut [u8], dirty: &Mutex<Dirty>) -> bool {
    let mut told = false;
    loop {
        match sys::receive(socket, buffer, libc::MSG_DONTWAIT) {
            Ok((length, nsid)) => {
                let mut dirty = lock(dirty);
                for message in wire::messages(&buffer[..length]) {
                    told |= dirty.note(nsid.filter(|id| *id >= 0), &message);
                }
            }
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                lock(dirty).lost = true;
                told = true;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return told,
        }
    }
}

fn lock(dirty: &Mutex<Dirty>) -> MutexGuard<'_, Dirty> {
    // The set is valid after any panic of its holder: it is only ever replaced or added to.
    dirty.lock().unwrap_or_else(PoisonError::into_inner)
}
