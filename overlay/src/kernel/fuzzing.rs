//! The readers of what kernels and Open vSwitch say, for the fuzzer and the replay of what it found.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, send, socketpair};

use super::conntrack::{self, Departed};
use super::nft::{element, foreign, ruleset};
use super::route::{self, Indexes, policy};
use super::socket::Socket;
use super::uapi::NLMSG_DONE;
use super::watch::Dirty;
use super::wire::{self, Message};
use super::{HostLook, KernelError, ovs, wireguard};
use crate::plane::{Object, Objects, Set};

/// What is asked of the kernel that answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    Host,
    Tunnel,
    Sandbox,
    Defaults,
    Elements,
    Tables,
    Chains,
    Conntrack,
    WireGuard,
    Changes,
}

impl Question {
    pub const ALL: [Self; 10] = [
        Self::Host,
        Self::Tunnel,
        Self::Sandbox,
        Self::Defaults,
        Self::Elements,
        Self::Tables,
        Self::Chains,
        Self::Conntrack,
        Self::WireGuard,
        Self::Changes,
    ];
}

/// Asks a kernel that answers each question it is asked with the next of these datagrams, and gives how
/// many objects were read.
///
/// # Errors
/// What a caller of that reader is told.
pub fn ask(question: Question, answers: &[Vec<u8>]) -> Result<usize, KernelError> {
    let mut socket = answering(answers)?;
    let socket = &mut socket;
    let names = || ["eth0", "wb000001", "wx000001"].map(str::to_owned);
    let mut known = Indexes::default();
    (1..).zip(names()).for_each(|(index, name)| known.insert(name, index));
    let wanted = BTreeSet::from(names());
    let mut objects = Objects::new();
    match question {
        Question::Host => {
            let vtep = Some(Ipv4Addr::new(192, 0, 2, 1).into());
            let look = HostLook { vtep, links: wanted, ..HostLook::default() };
            objects = route::observe_host(socket, &look, Some(0))?.objects;
        }
        Question::Tunnel => objects = route::observe_tunnel(socket)?.objects,
        Question::Sandbox => objects = route::observe_sandbox(socket, &wanted, &known)?.0,
        Question::Defaults => policy::defaults(socket, &known, &mut objects)?,
        Question::Elements => {
            for set in Set::ALL {
                element::dump(socket, *set, &mut objects)?;
            }
        }
        Question::Tables => {
            let family = super::nft::family(crate::plane::Table::Host);
            return Ok(usize::from(ruleset::dump(socket, family)?.is_some()));
        }
        Question::Chains => {
            let seen = foreign::look(socket)?;
            return Ok(seen.tables.iter().filter(|tables| tables.has_place()).count());
        }
        Question::Conntrack => {
            let own = Ipv4Addr::new(192, 0, 2, 1).into();
            let bindings = vec![(Ipv4Addr::UNSPECIFIED.into(), 53)];
            let departed = Departed { backends: vec![(own, own)], bindings, own: [own].into() };
            conntrack::forget(socket, &departed)?;
        }
        Question::WireGuard => {
            let family = wireguard::family(socket)?;
            let device = wireguard::read(socket, family, 1)?;
            let peers: Vec<_> = device.peers.iter().collect();
            let now = std::time::SystemTime::now();
            let age = wireguard::status(&peers, now).handshake_age;
            let alive = peers.iter().filter(|peer| peer.is_alive(now)).count();
            assert!(alive == 0 || age.is_some(), "a session without a handshake");
            return Ok(peers.len());
        }
        Question::Changes => {
            let mut dirty = Dirty::default();
            let told = answers.iter().flat_map(|answer| wire::messages(answer));
            return Ok(told.filter(|message| dirty.note(None, message)).count());
        }
    }
    check(&objects);
    Ok(objects.len())
}

/// Each object is under its own key, and each element of a set has the fields that the set has.
fn check(objects: &Objects) {
    for (key, object) in objects {
        assert_eq!(*key, object.key());
        if let Object::Element(element) = object {
            assert_eq!(element.key.len(), element.set.key().len());
            assert_eq!(element.value.len(), element.set.value().len());
        }
    }
}

/// A socket with these answers in it: each one's messages carry the number of the question that it is for,
/// and after it comes the end of a dump.
fn answering(answers: &[Vec<u8>]) -> Result<Socket, KernelError> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let pair = socketpair(AddressFamily::Unix, SockType::Datagram, None, flags);
    let (ours, theirs): (OwnedFd, OwnedFd) =
        pair.map_err(|errno| KernelError::errno("socketpair", errno as i32))?;
    for (number, answer) in (1..).zip(answers) {
        let end = Message::new(NLMSG_DONE, 0, &[0; 4]).finish(number);
        for datagram in [numbered(answer, number), end] {
            // What does not fit is never answered.
            let _ = send(theirs.as_raw_fd(), &datagram, MsgFlags::empty());
        }
    }
    // Nobody reads the questions; the next one after the last answer finds nobody there.
    Ok(Socket::over(ours))
}

/// The same with a question's number in the header of each message.
fn numbered(answer: &[u8], number: u32) -> Vec<u8> {
    let mut bytes = answer.to_vec();
    let lengths: Vec<_> =
        wire::messages(answer).map(|message| wire::HEADER + message.body.len()).collect();
    let mut at = 0;
    for length in lengths {
        bytes[at + 8..at + 12].copy_from_slice(&number.to_ne_bytes());
        at += length.next_multiple_of(4);
    }
    bytes
}

/// Reads what ovs-vsctl prints; gives how many objects it tells of.
pub fn switches(text: &str) -> Option<usize> {
    let wanted = BTreeSet::from(["theirs".to_owned()]);
    let links = BTreeSet::from([("wv1".to_owned(), 1, true)]);
    let objects = ovs::read(text, &wanted, &links)?;
    for object in &objects {
        assert!(matches!(object, Object::Switch { .. } | Object::SwitchPort { .. }), "{object:?}");
    }
    Some(objects.len())
}
