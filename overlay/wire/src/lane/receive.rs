//! From a node to the TAP devices.

use std::{
    collections::BTreeSet,
    io::IoSlice,
    net::{IpAddr, SocketAddr},
    ops::Range,
    sync::Arc,
};

use boringtun::noise::TunnResult;

use super::{Lane, link::reason};
use crate::{
    Mac, Member, Reason,
    packet::{self, Claims, Ecn, claims, leave_tunnel},
    sys::{Received, VNET_HEADER},
    verifier::{Initiation, Origin},
};

/// Most calls that receive before the frames are delivered: each brings up to 64 KB.
const BATCHES: usize = 4;
/// Most times that a port is received from before it is closed: 16 MB, what a socket can hold.
const DRAINS: usize = 64;
/// Bytes of the most that one call receives.
const BATCH: usize = 65_536;
/// Bytes of a data message that is opened to nothing: header and tag.
const EMPTY: usize = 32;

/// Room for what is received, and for what was opened until it is delivered.
pub struct Arena {
    input: Vec<u8>,
    output: Vec<u8>,
    used: usize,
    /// Networks with frames in the output.
    touched: BTreeSet<u32>,
}

impl Arena {
    pub fn new() -> Self {
        let (input, output) = (vec![0; BATCH], vec![0; BATCHES * BATCH]);
        Self { input, output, used: 0, touched: BTreeSet::new() }
    }
}

/// A datagram, and which of this node's ports it came to.
struct Arrival<'a> {
    datagram: &'a [u8],
    source: SocketAddr,
    port: u16,
    /// What the underlay has made of the mark of congestion.
    ecn: Ecn,
}

impl Lane {
    /// Takes what came to a port; returns whether there may be more.
    pub(super) fn receive(&mut self, port: u16) -> bool {
        let Some(socket) = self.setup.sockets.get(&port).map(Arc::clone) else { return false };
        let mut more = true;
        let mut input = std::mem::take(&mut self.arena.input);
        for _ in 0..BATCHES {
            // An error belongs to nobody's packet: the next call brings what is there.
            let Ok(Some(received)) = socket.receive(&mut input) else {
                more = false;
                break;
            };
            let Received { length, segment, source, class } = received;
            let ecn = Ecn::of_class(class);
            for datagram in input[..length].chunks(segment) {
                self.take(&Arrival { datagram, source, port, ecn });
            }
        }
        self.arena.input = input;
        self.deliver();
        more
    }

    /// Takes all that waits at a port of former keys: its senders have moved on, and what comes by the
    /// next ones is younger.
    pub(super) fn drain(&mut self, port: u16) {
        // Not for ever: somebody may send faster than this receives.
        let _ = (0..DRAINS).find(|_| !self.receive(port));
    }

    /// Takes one datagram as if it had come to a port.
    pub fn take_one(&mut self, port: u16, source: SocketAddr, datagram: &[u8]) {
        self.take(&Arrival { datagram, source, port, ecn: Ecn::default() });
        self.deliver();
    }

    fn take(&mut self, arrival: &Arrival<'_>) {
        let datagram = arrival.datagram;
        let kind = datagram.first_chunk().copied().map(u32::from_le_bytes);
        match (kind, datagram.len()) {
            (Some(4), EMPTY..) => self.take_data(arrival),
            (Some(1), Initiation::LEN) => self.take_initiation(arrival),
            (Some(2), 92) => self.take_response(datagram, arrival.source, 8),
            (Some(3), 64) => self.take_response(datagram, arrival.source, 4),
            _ => self.tally.dropped(None, Reason::Malformed),
        }
    }

    /// Handshakes cost as much as hundreds of packets, so another thread sifts them.
    fn take_initiation(&mut self, arrival: &Arrival<'_>) {
        let own = self.setup.tables.own.iter().find(|own| own.ports.contains(&arrival.port));
        let (Some(own), Ok(packet)) = (own, arrival.datagram.try_into()) else { return };
        let Some(socket) = self.setup.sockets.get(&arrival.port) else { return };
        let initiation = Initiation {
            own: own.public,
            lane: self.number,
            source: arrival.source,
            packet,
            socket: Arc::clone(socket),
        };
        let known = self.setup.tables.places.contains_key(&arrival.source.ip());
        let origin = if known { Origin::Node } else { Origin::Elsewhere };
        if !self.shared.queue.offer(initiation, origin) {
            self.tally.dropped(None, Reason::UnderLoad);
        }
    }

    fn take_data(&mut self, arrival: &Arrival<'_>) {
        let Arrival { datagram, source, ecn, .. } = *arrival;
        let Some(slot) = session(datagram, 4).and_then(|it| self.links.by_session(it)) else {
            self.tally.dropped(None, Reason::Forged);
            self.hint(source);
            return;
        };
        if self.arena.output.len() - self.arena.used < datagram.len() {
            self.deliver();
        }
        let Some(link) = self.links.get(slot) else { return };
        let (node, start) = (link.node, self.arena.used);
        let room = &mut self.arena.output[start..start + datagram.len()];
        let opened = match link.tunn.decapsulate(Some(source.ip()), datagram, room) {
            TunnResult::WriteToTunnelV4(packet, _) => Ok(packet.len()),
            // A keepalive.
            TunnResult::Done => Ok(0),
            TunnResult::WriteToTunnelV6(..) | TunnResult::WriteToNetwork(_) => {
                Err(Reason::ForeignInside)
            }
            TunnResult::Err(error) => Err(reason(&error)),
        };
        match opened {
            Ok(length) => {
                let waits = link.queued > 0;
                link.endpoint = source;
                link.live = true;
                self.tally.peer(node).received += datagram.len() as u64;
                if waits {
                    self.send_queued(slot);
                }
                if length > 0 {
                    self.take_packet(slot, start..start + length, ecn);
                }
            }
            Err(reason) => self.tally.dropped(Some(node), reason),
        }
    }

    /// Takes an authentic packet, which lies in the arena.
    fn take_packet(&mut self, slot: usize, place: Range<usize>, underlay: Ecn) {
        let Some(link) = self.links.get(slot) else { return };
        let (node, ours, theirs) = (link.node, link.own_address, link.peer_address);
        let packet = &self.arena.output[place.clone()];
        let received = match packet::receive(packet) {
            Ok(received) if received.source == theirs && received.destination == ours => received,
            Ok(_) | Err(_) => return self.tally.dropped(Some(node), Reason::ForeignInside),
        };
        let frame = place.start + received.frame.start..place.start + received.frame.end;
        if let Err(reason) = self.allowed(node, received.vni, &self.arena.output[frame.clone()]) {
            return self.tally.dropped(Some(node), reason);
        }
        let inside = &mut self.arena.output[frame.clone()];
        let marked = received.ecn.after(underlay).and_then(|outer| leave_tunnel(outer, inside));
        if marked.is_err() {
            return self.tally.dropped(Some(node), Reason::Congested);
        }
        let Some(port) = self.ports.get_mut(&received.vni).filter(|port| port.tap.is_ok()) else {
            return self.tally.dropped(Some(node), Reason::Device);
        };
        self.arena.used = place.end;
        port.coalescer.push(&self.arena.output, frame);
        self.arena.touched.insert(received.vni);
    }

    /// Whether a node may send this frame into this network.
    fn allowed(&self, node: u64, vni: u32, frame: &[u8]) -> Result<(), Reason> {
        let tables = &self.setup.tables;
        let network = tables.config.networks.get(&vni).ok_or(Reason::ForeignNetwork)?;
        if !tables.present.get(&vni).is_some_and(|nodes| nodes.contains(&node)) {
            return Err(Reason::ForeignNetwork);
        }
        let claims = claims(frame).map_err(|_| Reason::SpoofedSource)?;
        let member = network.members.get(&claims.source).ok_or(Reason::SpoofedSource)?;
        if member.node == node && owns(member, &claims) {
            Ok(())
        } else {
            Err(Reason::SpoofedSource)
        }
    }

    /// Takes a response to a handshake, or a cookie, which name our session at byte `at`.
    fn take_response(&mut self, datagram: &[u8], source: SocketAddr, at: usize) {
        let Some(slot) = session(datagram, at).and_then(|it| self.links.by_session(it)) else {
            return self.tally.dropped(None, Reason::Forged);
        };
        self.handshake_message(slot, datagram, source);
    }

    /// Writes all frames in the arena to their devices.
    pub(super) fn deliver(&mut self) {
        let mut lost = Vec::new();
        for vni in std::mem::take(&mut self.arena.touched) {
            let Some(port) = self.ports.get_mut(&vni) else { continue };
            let outputs = port.coalescer.finish(&mut self.arena.output);
            for output in outputs {
                let Ok(tap) = &port.tap else { break };
                let header = output.header.to_bytes();
                let mut pieces = Vec::with_capacity(output.parts.len() + 1);
                pieces.push(IoSlice::new(&header[..VNET_HEADER]));
                let parts = output.parts.iter().map(|part| &self.arena.output[part.clone()]);
                pieces.extend(parts.map(IoSlice::new));
                if let Err(error) = tap.write(&pieces) {
                    self.tally.dropped(None, Reason::Device);
                    if error.raw_os_error() == Some(libc::EBADFD) {
                        lost.push((vni, error));
                        break;
                    }
                }
            }
            port.coalescer.clear();
        }
        self.arena.used = 0;
        for (vni, error) in lost {
            self.lose(vni, &error);
        }
    }
}

/// The session of ours that a message names at byte `at`.
fn session(datagram: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(datagram.get(at..at + 4)?.try_into().ok()?))
}

fn owns(member: &Member, claims: &Claims) -> bool {
    [claims.address, claims.advertised].into_iter().flatten().all(|address| {
        member.addresses.contains(&address) || is_link_local_of(claims.source, address)
    })
}

/// The address that an interface gives itself (RFC 4291, appendix A).
fn is_link_local_of(mac: Mac, address: IpAddr) -> bool {
    let [a, b, c, d, e, f] = mac;
    let derived = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f];
    address == IpAddr::from(derived)
}
