//! Traffic that is told wherever it passes: each task of a service sends a pattern to all the others,
//! in UDP, TCP, ICMP and to all at once, and counts whom it hears. It runs on whatever is done to the
//! network.
#![forbid(unsafe_code)]

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read as _, Write as _},
    net::{
        IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, ToSocketAddrs as _,
        UdpSocket,
    },
    os::fd::{AsRawFd as _, OwnedFd},
    process::ExitCode,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{sleep, spawn},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket,
};

const USAGE: &str = "usage: weft-lab-canary PATTERN SERVICE PORT, where PATTERN is hexadecimal";
/// Between two rounds of packets to everybody.
const STEP: Duration = Duration::from_millis(20);
/// Between two looks at who the others are, and two reports.
const PAUSE: Duration = Duration::from_millis(200);
/// How long a connection may take to be made or to take what is written.
const PATIENCE: Duration = Duration::from_millis(300);
/// Repetitions of the pattern in a packet: it is found whole in each fragment and segment.
const REPEATS: usize = 30;
/// Where the counts are written, one `WHAT COUNT` to a line.
const REPORT: &str = "/tmp/heard";

/// What was heard, in words: `udp ADDRESS`, `tcp ADDRESS`, `again`, `foreign`.
#[derive(Clone, Default)]
struct Counts(Arc<Mutex<BTreeMap<String, u64>>>);

impl Counts {
    fn locked(&self) -> MutexGuard<'_, BTreeMap<String, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, what: String) {
        *self.locked().entry(what).or_default() += 1;
    }

    /// Replaces the report as a whole.
    fn report(&self) -> std::io::Result<()> {
        let lines: Vec<String> =
            self.locked().iter().map(|(what, count)| format!("{what} {count}\n")).collect();
        std::fs::write("/tmp/heard.new", lines.concat())?;
        std::fs::rename("/tmp/heard.new", REPORT)
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let result = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [pattern, service, port] => match (decoded(pattern), port.parse()) {
            (Some(pattern), Ok(port)) => run(&pattern, service, port),
            _ => Err(std::io::Error::other(USAGE)),
        },
        _ => Err(std::io::Error::other(USAGE)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn decoded(hex: &str) -> Option<Vec<u8>> {
    let pairs = hex.as_bytes().chunks(2).map(std::str::from_utf8);
    pairs.map(|pair| u8::from_str_radix(pair.ok()?, 16).ok()).collect()
}

fn run(pattern: &[u8], service: &str, port: u16) -> std::io::Result<()> {
    let (counts, others) = (Counts::default(), Arc::new(Mutex::new(BTreeSet::new())));
    let packets = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?;
    packets.set_broadcast(true)?;
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
    let (hearing, heard, wanted) = (packets.try_clone()?, counts.clone(), pattern.to_vec());
    spawn(move || hear_packets(&hearing, &wanted, &heard));
    let heard = counts.clone();
    spawn(move || hear_streams(&listener, &heard));
    let (known, name) = (Arc::clone(&others), format!("tasks.{service}"));
    spawn(move || {
        loop {
            // A name server that is away leaves the addresses as they were.
            if let Ok(found) = (name.as_str(), port).to_socket_addrs() {
                let found = found.filter_map(|address| ipv4(address.ip()));
                *known.lock().unwrap_or_else(PoisonError::into_inner) =
                    found.filter(|ip| !is_own(*ip)).collect();
            }
            // A file system that is full is seen by who reads the report.
            let _ = counts.report();
            sleep(PAUSE);
        }
    });
    send(&packets, &pattern.repeat(REPEATS), port, &others)
}

fn ipv4(ip: IpAddr) -> Option<Ipv4Addr> {
    match ip.to_canonical() {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    }
}

/// Whether packets to it would come from it.
fn is_own(ip: Ipv4Addr) -> bool {
    let found = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|socket| {
        socket.connect((ip, 9))?;
        socket.local_addr()
    });
    found.is_ok_and(|own| own.ip() == ip)
}

fn hear_packets(packets: &UdpSocket, pattern: &[u8], counts: &Counts) {
    let mut buffer = [0; 2000];
    let mut seen = BTreeSet::new();
    while let Ok((length, from)) = packets.recv_from(&mut buffer) {
        let Some(ip) = ipv4(from.ip()).filter(|ip| !is_own(*ip)) else { continue };
        let packet = &buffer[..length];
        let Some(number) = packet.get(..8).filter(|_| contains(packet, pattern)) else {
            counts.add("foreign".to_owned());
            continue;
        };
        let first = seen.insert((ip, number.to_vec()));
        counts.add(if first { format!("udp {ip}") } else { "again".to_owned() });
    }
}

fn contains(packet: &[u8], pattern: &[u8]) -> bool {
    packet.windows(pattern.len()).any(|window| window == pattern)
}

fn hear_streams(listener: &TcpListener, counts: &Counts) {
    for stream in listener.incoming() {
        let (Ok(mut stream), counts) = (stream, counts.clone()) else { continue };
        let Some(ip) = stream.peer_addr().ok().and_then(|from| ipv4(from.ip())) else { continue };
        spawn(move || {
            let mut buffer = [0; 4096];
            while stream.read(&mut buffer).is_ok_and(|length| length > 0) {
                counts.add(format!("tcp {ip}"));
            }
        });
    }
}

/// Sends to everybody, round after round, whatever becomes of it.
fn send(
    packets: &UdpSocket,
    payload: &[u8],
    port: u16,
    others: &Mutex<BTreeSet<Ipv4Addr>>,
) -> std::io::Result<()> {
    let raw = socket(AddressFamily::Inet, SockType::Raw, SockFlag::empty(), SockProtocol::Icmp)?;
    let mut streams: BTreeMap<Ipv4Addr, TcpStream> = BTreeMap::new();
    // Numbers do not come again after a start.
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_err(std::io::Error::other)?;
    let mut number = u64::try_from(since.as_nanos()).map_err(std::io::Error::other)?;
    loop {
        let targets = others.lock().unwrap_or_else(PoisonError::into_inner).clone();
        streams.retain(|ip, _| targets.contains(ip));
        for ip in targets.iter().copied().chain([Ipv4Addr::BROADCAST]) {
            number += 1;
            let packet = [&number.to_be_bytes()[..], payload].concat();
            let _ = packets.send_to(&packet, (ip, port));
        }
        for ip in targets {
            let _ = ping(&raw, ip, payload);
            if write(&mut streams, ip, port, payload).is_err() {
                streams.remove(&ip);
            }
        }
        sleep(STEP);
    }
}

fn write(
    streams: &mut BTreeMap<Ipv4Addr, TcpStream>,
    ip: Ipv4Addr,
    port: u16,
    payload: &[u8],
) -> std::io::Result<()> {
    if let std::collections::btree_map::Entry::Vacant(place) = streams.entry(ip) {
        let target = SocketAddr::V4(SocketAddrV4::new(ip, port));
        let stream = TcpStream::connect_timeout(&target, PATIENCE)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        place.insert(stream);
    }
    streams.get_mut(&ip).map_or(Ok(()), |stream| stream.write_all(payload))
}

/// One echo request (RFC 792): type, code, checksum, identifier, number.
fn ping(raw: &OwnedFd, ip: Ipv4Addr, payload: &[u8]) -> nix::Result<usize> {
    let mut packet = [&[8, 0, 0, 0, 0x77, 0x77, 0, 1][..], payload].concat();
    let sum = checksum(&packet);
    packet[2..4].copy_from_slice(&sum.to_be_bytes());
    let target = SockaddrIn::from(SocketAddrV4::new(ip, 0));
    sendto(raw.as_raw_fd(), &packet, &target, MsgFlags::MSG_DONTWAIT)
}

/// RFC 1071.
fn checksum(packet: &[u8]) -> u16 {
    let words = packet
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}
