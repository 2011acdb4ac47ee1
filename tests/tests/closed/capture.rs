//! Everything that passes a network namespace, looked at for a pattern.

use std::{
    collections::BTreeMap,
    fs::File,
    io::IoSliceMut,
    os::fd::AsRawFd as _,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{JoinHandle, spawn},
};

use nix::{
    cmsg_space,
    errno::Errno,
    sched::{CloneFlags, setns},
    sys::{
        socket::{
            AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockProtocol, SockType,
            recvmsg, setsockopt, socket,
            sockopt::{RcvBufForce, ReceiveTimeout, RxqOvfl},
        },
        time::{TimeVal, TimeValLike as _},
    },
};

/// What the kernel keeps for a capture that is slow, in bytes.
const QUEUE: usize = 256 << 20;
/// The largest frame: one that the card would cut.
const FRAME: usize = 128 << 10;
/// How often a capture looks whether it is to end, in milliseconds.
const LOOK: i64 = 100;
/// Frames of WireGuard that are kept, to be sent again.
const KEPT: usize = 2_000;
/// Frames with the pattern that a failure shows.
const SHOWN: usize = 3;

/// Bytes before the payload of UDP over IPv4, and where the inner protocol is if that is VXLAN.
const UDP_PAYLOAD: usize = 14 + 20 + 8;
const INNER_PROTOCOL: usize = UDP_PAYLOAD + 8 + 14 + 9;

/// What has passed.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    pub frames: u64,
    /// Frames with the pattern.
    pub canaries: u64,
    /// The same by what would be the inner IP protocol in VXLAN.
    pub protocols: BTreeMap<u8, u64>,
    /// The first of them, in words.
    pub samples: Vec<String>,
    /// Frames that came faster than they were looked at.
    pub lost: u32,
    /// Payloads of UDP that have the shape of WireGuard's data, with their ports.
    pub sealed: Vec<(u16, Vec<u8>)>,
}

/// Looks until it is dropped.
pub struct Capture {
    seen: Arc<Mutex<Seen>>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Capture {
    /// In the network namespace of a process, on all its interfaces.
    pub fn start(pid: u32, pattern: Vec<u8>) -> Self {
        let (seen, ended) = (Arc::<Mutex<Seen>>::default(), Arc::<AtomicBool>::default());
        let ready = Arc::<AtomicBool>::default();
        let thread = {
            let (seen, ended, ready) = (Arc::clone(&seen), Arc::clone(&ended), Arc::clone(&ready));
            spawn(move || look(pid, &pattern, &seen, &ended, &ready))
        };
        weft_tests::eventually("the capture looks", std::time::Duration::from_secs(10), || {
            if ready.load(Ordering::Acquire) { Ok(()) } else { Err("not yet".to_owned()) }
        });
        Self { seen, ended, thread: Some(thread) }
    }

    pub fn seen(&self) -> Seen {
        self.seen.lock().expect("the capture goes on").clone()
    }

    /// Nothing may have passed with the pattern.
    #[track_caller]
    pub fn saw_none(&self, when: &str) {
        let seen = self.seen();
        assert_eq!(seen.canaries, 0, "{when}: in the clear: {:#?}", seen.samples);
        assert_eq!(seen.lost, 0, "{when}: the capture was too slow to say");
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Brings this thread into the network namespace of a process.
pub fn enter(pid: u32) {
    let namespace = File::open(format!("/proc/{pid}/ns/net")).expect("the process runs");
    setns(namespace, CloneFlags::CLONE_NEWNET).expect("this is root");
}

fn look(pid: u32, pattern: &[u8], seen: &Mutex<Seen>, ended: &AtomicBool, ready: &AtomicBool) {
    enter(pid);
    let socket =
        socket(AddressFamily::Packet, SockType::Raw, SockFlag::empty(), SockProtocol::EthAll)
            .expect("a packet socket");
    setsockopt(&socket, RcvBufForce, &QUEUE).expect("this is root");
    setsockopt(&socket, RxqOvfl, &1).expect("the kernel counts what is lost");
    setsockopt(&socket, ReceiveTimeout, &TimeVal::milliseconds(LOOK)).expect("a time limit");
    ready.store(true, Ordering::Release);
    let (mut frame, mut control) = (vec![0; FRAME], cmsg_space!(u32));
    while !ended.load(Ordering::Acquire) {
        let mut parts = [IoSliceMut::new(&mut frame)];
        let got =
            recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty());
        let (length, lost) = match got {
            Ok(got) => (got.bytes, lost(got.cmsgs().ok().into_iter().flatten())),
            Err(Errno::EAGAIN | Errno::EINTR) => continue,
            Err(error) => panic!("the capture failed: {error}"),
        };
        let mut seen = seen.lock().expect("nobody panics with it");
        seen.lost = lost.unwrap_or(seen.lost);
        note(&mut seen, &frame[..length], pattern);
    }
}

fn lost(mut messages: impl Iterator<Item = ControlMessageOwned>) -> Option<u32> {
    messages.find_map(|message| match message {
        ControlMessageOwned::RxqOvfl(lost) => Some(lost),
        _ => None,
    })
}

fn note(seen: &mut Seen, frame: &[u8], pattern: &[u8]) {
    seen.frames += 1;
    if frame.windows(pattern.len()).any(|window| window == pattern) {
        seen.canaries += 1;
        *seen.protocols.entry(frame.get(INNER_PROTOCOL).copied().unwrap_or(0)).or_default() += 1;
        if seen.samples.len() < SHOWN {
            let head: Vec<String> = frame.iter().take(96).map(|b| format!("{b:02x}")).collect();
            seen.samples.push(format!("{} bytes: {}", frame.len(), head.join(" ")));
        }
    }
    if let Some(sealed) = sealed(frame)
        && seen.sealed.len() < KEPT
    {
        seen.sealed.push(sealed);
    }
}

/// Data of WireGuard (message type 4) in UDP over IPv4, and its destination port.
fn sealed(frame: &[u8]) -> Option<(u16, Vec<u8>)> {
    let udp = frame.get(12..15) == Some(&[0x08, 0x00, 0x45]) && frame.get(23) == Some(&17);
    let port = u16::from_be_bytes([*frame.get(36)?, *frame.get(37)?]);
    let payload = frame.get(UDP_PAYLOAD..)?;
    (udp && payload.get(..4) == Some(&[4, 0, 0, 0])).then(|| (port, payload.to_vec()))
}
