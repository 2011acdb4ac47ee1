//! The encrypted link: frames of containers, packets of other nodes, and what the daemon says.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    process::Command,
    time::Duration,
};

use arbitrary::Unstructured;
use boringtun::{
    noise::{Tunn, TunnResult},
    x25519::{PublicKey, StaticSecret},
};
use nix::sched::{CloneFlags, unshare};
use weft_wire::{
    Config, Identity, Key, Member, Network, Node, PeerIdentity, fuzzing,
    packet::{
        Coalescer, Ecn, Merging, Outer, Segments, VnetHeader, claims, destination, flow_hash,
        leave_tunnel, receive as unpack,
    },
};

const OUTER: [Ipv4Addr; 2] = [Ipv4Addr::new(100, 64, 0, 2), Ipv4Addr::new(100, 64, 0, 5)];
const VNI: u32 = 0xab_cdef;

/// A frame of a container: the device's header and its bytes.
pub fn frame(input: &[u8]) {
    let Some((header, frame)) = input.split_first_chunk::<12>() else { return };
    read(frame);
    cut(VnetHeader::default(), frame);
    if let Ok(header) = VnetHeader::parse(header) {
        assert_eq!(VnetHeader::parse(&header.to_bytes()), Ok(header));
        cut(header, frame);
    }
    if let Ok(received) = unpack(frame) {
        assert!(received.frame.end <= frame.len() && received.frame.len() >= 14);
        assert!(received.vni < 1 << 24);
        read(&frame[received.frame]);
    }
}

/// All that reads a frame.
fn read(frame: &[u8]) {
    flow_hash(frame);
    assert!(destination(frame).is_err() || frame.len() >= 14);
    if let Ok(claims) = claims(frame) {
        assert_eq!(claims.source[..], frame[6..12]);
    }
    for class in 0..4 {
        let mut marked = frame.to_vec();
        if leave_tunnel(Ecn::of_class(class), &mut marked).is_err() {
            assert_eq!(marked, frame);
        }
        assert_eq!(marked.len(), frame.len());
    }
}

/// Cuts a frame, if it is one, and unpacks what it became.
fn cut(header: VnetHeader, frame: &[u8]) {
    let Ok(segments) = Segments::new(header, frame) else { return };
    let (count, most) = (segments.count(), segments.length(0));
    assert!(count > 0 && count <= frame.len().max(1) && most <= usize::from(u16::MAX));
    let outer = Outer::new(OUTER[0], OUTER[1], VNI);
    let mut out = vec![0; most];
    for index in [0, 1, count / 2, count - 1, count, usize::MAX] {
        let length = segments.write(index, &outer, &mut out);
        assert_eq!(length.is_some(), index < count);
        let Some(length) = length else { continue };
        assert_eq!(length, segments.length(index));
        assert!(length == most || length < most && index + 1 == count);
        let received = unpack(&out[..length]).expect("what was packed can be unpacked");
        assert_eq!(received.frame, Outer::LEN..length);
    }
}

/// Frames of one batch: a length of two bytes before each. Checksums are put right where the first byte
/// says so, or nothing would ever be merged.
pub fn merge(input: &[u8]) {
    let mut buffer = Vec::new();
    let mut places = Vec::new();
    let mut rest = input;
    while let Some((&[repair, high, low], more)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes([high, low]) % 2048).min(more.len());
        let (frame, next) = more.split_at(length);
        let mut frame = frame.to_vec();
        if repair & 1 == 1 {
            put_right(&mut frame);
        }
        rest = next;
        // Frames are told apart by their ends.
        if !frame.is_empty() {
            places.push(buffer.len()..buffer.len() + frame.len());
            buffer.extend(frame);
        }
    }
    for merging in [Merging::Tcp, Merging::TcpAndUdp] {
        let mut buffer = buffer.clone();
        let mut coalescer = Coalescer::new(merging);
        places.iter().for_each(|place| coalescer.push(&buffer, place.clone()));
        let before = buffer.clone();
        let outputs = coalescer.finish(&mut buffer);
        let mut seen = Vec::new();
        for output in outputs {
            let length: usize = output.parts.iter().map(|part| part.len()).sum();
            let most = output.parts.iter().map(|part| part.len()).max().unwrap_or(0);
            assert!(length <= most.max(65_535));
            assert_eq!(output.header.gso.is_some(), output.parts.len() > 1);
            let places = output.parts.iter().map(|part| {
                places.iter().find(|place| place.end == part.end && place.start <= part.start)
            });
            let mut places = places.map(|place| place.expect("a frame of the batch").clone());
            if output.parts.len() == 1 {
                let place = places.next().expect("it has one");
                assert_eq!(buffer[place.clone()], before[place.clone()], "changed alone");
                seen.push(place);
                continue;
            }
            let frame: Vec<u8> =
                output.parts.iter().flat_map(|part| buffer[part.clone()].to_vec()).collect();
            let places: Vec<_> = places.collect();
            same_packets(output.header, &frame, &places, &before);
            seen.extend(places);
        }
        seen.sort_by_key(|place| (place.end, place.start));
        let mut wanted = places.clone();
        wanted.sort_by_key(|place| (place.end, place.start));
        assert_eq!(seen.len(), wanted.len(), "a frame is lost or doubled");
    }
}

/// A merged frame is cut into the packets that it was made of, but for what RFC 6864 lets differ.
fn same_packets(
    header: VnetHeader,
    frame: &[u8],
    places: &[std::ops::Range<usize>],
    before: &[u8],
) {
    let segments = Segments::new(header, frame).expect("what was merged can be cut");
    assert_eq!(segments.count(), places.len());
    let outer = Outer::new(OUTER[0], OUTER[1], VNI);
    let mut out = vec![0; segments.length(0)];
    for (index, place) in places.iter().enumerate() {
        let length = segments.write(index, &outer, &mut out).expect("there is room");
        let mut packet = out[Outer::LEN..length].to_vec();
        let mut wanted = before[place.clone()].to_vec();
        if packet.get(12..14) == Some(&[8, 0]) {
            // The identification, and the header's checksum that follows from it.
            for bytes in [&mut packet, &mut wanted] {
                bytes[18..20].fill(0);
                bytes[24..26].fill(0);
            }
        }
        assert_eq!(packet, wanted, "packet {index}");
    }
}

/// The one's complement sum of the bytes, beginning with `sum` (RFC 1071).
fn sum(bytes: &[u8], mut sum: u32) -> u16 {
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// Writes lengths and checksums into a plain frame of IP with TCP or UDP.
fn put_right(frame: &mut [u8]) {
    let (network, transport, protocol) = match frame.get(12..14) {
        Some([8, 0]) if frame.len() >= 34 => (26..34, 34, frame[23]),
        Some([0x86, 0xdd]) if frame.len() >= 54 => (22..54, 54, frame[20]),
        _ => return,
    };
    let length = (frame.len() - transport) as u16;
    if transport == 34 {
        frame[14] = 0x45;
        frame[16..18].copy_from_slice(&(length + 20).to_be_bytes());
        frame[24..26].fill(0);
        let checksum = !sum(&frame[14..34], 0);
        frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    } else {
        frame[14] = 0x60;
        frame[18..20].copy_from_slice(&length.to_be_bytes());
    }
    let at = match protocol {
        6 if length >= 20 => 16,
        17 if length >= 8 => {
            frame[transport + 4..transport + 6].copy_from_slice(&length.to_be_bytes());
            6
        }
        _ => return,
    };
    frame[transport + at..transport + at + 2].fill(0);
    let pseudo = u32::from(sum(&frame[network], u32::from(protocol) + u32::from(length)));
    let checksum = !sum(&frame[transport..], pseudo);
    let checksum = if checksum == 0 { 0xffff } else { checksum };
    frame[transport + at..transport + at + 2].copy_from_slice(&checksum.to_be_bytes());
}

/// What the daemon and the engine say to each other.
pub fn messages(input: &[u8]) {
    for read in [fuzzing::request, fuzzing::response] {
        let mut framed = u32::try_from(input.len()).expect("it is short").to_be_bytes().to_vec();
        framed.extend(input);
        if let Ok(written) = read(&framed) {
            assert_eq!(read(&written).expect("what was written can be read"), written);
        }
        // With the length that the bytes themselves begin with.
        let _ = read(input);
    }
}

const PORT: u16 = 51_900;
const THEIRS: u16 = 51_910;
const NODE: u64 = 7;

/// A node and another one that has a session with it, in a network namespace of this thread's own.
struct Ends {
    receiver: fuzzing::Receiver,
    theirs: Tunn,
    socket: UdpSocket,
    source: SocketAddr,
}

thread_local! {
    static ENDS: RefCell<Option<Ends>> = const { RefCell::new(None) };
}

impl Ends {
    fn new() -> Self {
        unshare(CloneFlags::CLONE_NEWNET).expect("a namespace of its own: be root");
        let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
        assert!(up.expect("ip can be started").success());
        let (ours, theirs) = (Key([0x41; 32]), StaticSecret::from([0x42; 32]));
        let source = SocketAddr::from(([127, 0, 0, 1], THEIRS));
        let socket = UdpSocket::bind(source).expect("nobody else is here");
        socket.set_read_timeout(Some(Duration::from_secs(1))).expect("a time limit");
        let receiver = fuzzing::Receiver::new(config(ours, &theirs)).expect("it can be");
        let mut ends = Self { receiver, theirs: tunn(&theirs, ours), socket, source };
        ends.shake_hands();
        ends
    }

    /// Whether it has counted more authentic bytes since it had this many.
    fn received(&mut self) -> u64 {
        self.receiver.status().peers.get(&NODE).map_or(0, |peer| peer.received)
    }

    fn shake_hands(&mut self) {
        let mut buffer = [0; 256];
        let TunnResult::WriteToNetwork(begun) =
            self.theirs.format_handshake_initiation(&mut buffer, true)
        else {
            panic!("no handshake is begun");
        };
        self.receiver.take(PORT, self.source, begun);
        let (mut answer, mut out) = ([0; 2048], [0; 2048]);
        // What was sent before comes first.
        while let Ok(length) = self.socket.recv(&mut answer) {
            match self.theirs.decapsulate(None, &answer[..length], &mut out) {
                TunnResult::WriteToNetwork(message) if answer[0] == 2 => {
                    return self.receiver.take(PORT, self.source, message);
                }
                TunnResult::WriteToNetwork(message) => {
                    let message = message.to_vec();
                    self.receiver.take(PORT, self.source, &message);
                }
                _ => {}
            }
        }
    }

    /// Lets the other node send a packet that is authentic, whatever is in it.
    fn seal(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        let mut out = vec![0; packet.len() + 256];
        match self.theirs.encapsulate(packet, &mut out) {
            TunnResult::WriteToNetwork(sealed) if sealed[0] == 4 => Some(sealed.to_vec()),
            _ => None,
        }
    }
}

fn tunn(secret: &StaticSecret, peer: Key) -> Tunn {
    Tunn::new(secret.clone(), PublicKey::from(peer.public().0), None, None, 1, None)
}

fn config(ours: Key, theirs: &StaticSecret) -> Config {
    let member = Member { node: NODE, addresses: vec![[10, 9, 0, 2].into()] };
    let members = BTreeMap::from([([2, 0, 0, 0, 0, 2], member)]);
    let network = Network { device: "weft-fuzz".into(), members };
    let public_key = Key(PublicKey::from(theirs).to_bytes());
    let identity = PeerIdentity { public_key, address: OUTER[1], ports: vec![THEIRS] };
    let endpoint = [127, 0, 0, 1].into();
    let node = Node { endpoint, identities: vec![identity], keepalive: None };
    let identities = vec![Identity { private_key: ours, address: OUTER[0], ports: vec![PORT] }];
    let (nodes, networks) = (BTreeMap::from([(NODE, node)]), BTreeMap::from([(VNI, network)]));
    Config { identities, nodes, networks }
}

/// What comes from the network, in steps: bytes of strangers, spoiled messages of a known node, and
/// authentic packets of a node that was taken over.
pub fn receive(input: &[u8]) {
    ENDS.with_borrow_mut(|ends| {
        let ends = ends.get_or_insert_with(Ends::new);
        let mut bytes = Unstructured::new(input);
        for _ in 0..8 {
            if bytes.is_empty() || step(ends, &mut bytes).is_err() {
                break;
            }
        }
    });
}

fn step(ends: &mut Ends, bytes: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let before = ends.received();
    let kind: u8 = bytes.arbitrary()?;
    let length = bytes.int_in_range(0..=1500_usize)?.min(bytes.len());
    let body = bytes.bytes(length)?.to_vec();
    match kind % 4 {
        0 => {
            // A stranger, with a type that is one of WireGuard's.
            let mut datagram = vec![kind >> 4, 0, 0, 0];
            datagram.extend(body);
            ends.receiver.take(PORT, ends.source, &datagram);
            assert_eq!(ends.received(), before, "a stranger's packet was taken");
        }
        1 => {
            // A packet of the node, changed on its way.
            let Some(mut sealed) = ends.seal(&body) else {
                renew(ends);
                return Ok(());
            };
            let at = bytes.choose_index(sealed.len())?;
            sealed[at] ^= bytes.arbitrary::<u8>()? | 1;
            ends.receiver.take(PORT, ends.source, &sealed);
            assert_eq!(ends.received(), before, "byte {at} of a packet was changed");
        }
        2 => {
            let Some(sealed) = ends.seal(&body) else {
                renew(ends);
                return Ok(());
            };
            ends.receiver.take(PORT, ends.source, &sealed);
        }
        _ => {
            // What a node can send at worst: a right packet around any frame.
            let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
            frame.extend(body);
            let Ok(segments) = Segments::new(VnetHeader::default(), &frame) else {
                return Ok(());
            };
            let vni = if kind & 0x10 == 0 { VNI } else { u32::from(kind) };
            let mut packet = vec![0; segments.length(0)];
            segments.write(0, &Outer::new(OUTER[1], OUTER[0], vni), &mut packet);
            let Some(sealed) = ends.seal(&packet) else {
                renew(ends);
                return Ok(());
            };
            ends.receiver.take(PORT, ends.source, &sealed);
            assert!(ends.received() > before, "an authentic packet was not taken");
            ends.receiver.take(PORT, ends.source, &sealed);
            let twice = ends.received();
            assert!(twice < before + 2 * sealed.len() as u64, "a packet was taken twice");
        }
    }
    Ok(())
}

/// A session ends by its age, or a handshake of the input's has replaced it.
fn renew(ends: &mut Ends) {
    let theirs = StaticSecret::from([0x42; 32]);
    ends.theirs = tunn(&theirs, Key([0x41; 32]));
    ends.shake_hands();
}
