//! Watches what a name means in a container: `weft-bench-watch SERVER NAME MILLISECONDS`. Asks for its
//! A records again and again, with this pause, and prints a line whenever the answer has changed: the
//! time in microseconds since 1970, the number of addresses, and the addresses.
//!
//! Written for the benches: a program started for every look would cost more than what is measured.
#![forbid(unsafe_code)]

use std::{
    collections::BTreeSet,
    io::{self, Write as _},
    net::{Ipv4Addr, UdpSocket},
    thread::sleep,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Bytes of a header (RFC 1035, section 4.1.1).
const HEADER: usize = 12;
/// A name that is a pointer (RFC 1035, section 4.1.4).
const POINTER: u8 = 0xc0;
/// What is announced by EDNS (RFC 6891), so that many addresses fit into one answer.
const LARGEST: u16 = 4096;
/// An answer that is later than this is asked for again.
const PATIENCE: Duration = Duration::from_millis(100);
const TYPE_A: u16 = 1;

fn main() -> io::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let [_, server, name, pause] = args.as_slice() else {
        return Err(io::Error::other("usage: weft-bench-watch SERVER NAME MILLISECONDS"));
    };
    let pause = Duration::from_millis(pause.parse().map_err(io::Error::other)?);
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect((server.as_str(), 53))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut buffer = [0; LARGEST as usize];
    // Told at the start, so that whoever reads knows that it runs.
    let mut last = BTreeSet::new();
    println!("{}", line(&last)?);
    io::stdout().flush()?;
    let mut number = 0_u16;
    loop {
        socket.send(&query(number, name))?;
        if let Ok(length) = socket.recv(&mut buffer)
            && let Some(found) = addresses(&buffer[..length], number)
            && last != found
        {
            println!("{}", line(&found)?);
            io::stdout().flush()?;
            last = found;
        }
        number = number.wrapping_add(1);
        sleep(pause);
    }
}

fn line(found: &BTreeSet<Ipv4Addr>) -> io::Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(io::Error::other)?;
    let list: Vec<String> = found.iter().map(Ipv4Addr::to_string).collect();
    Ok(format!("{} {} {}", now.as_micros(), found.len(), list.join(",")))
}

fn query(number: u16, name: &str) -> Vec<u8> {
    let mut packet = number.to_be_bytes().to_vec();
    // Recursion desired, one question, one additional record.
    packet.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 1]);
    for label in name.trim_end_matches('.').split('.') {
        // A label has 63 bytes at most.
        packet.push(label.len().min(63) as u8);
        packet.extend(label.bytes().take(63));
    }
    packet.extend([0, 0, 1, 0, 1]);
    // The OPT record: the root, type 41, the size, no flags, no data.
    packet.extend([0, 0, 41]);
    packet.extend(LARGEST.to_be_bytes());
    packet.extend([0; 6]);
    packet
}

/// The A records of an answer; none if it is the answer to something else or cut short.
fn addresses(packet: &[u8], number: u16) -> Option<BTreeSet<Ipv4Addr>> {
    let word = |at: usize| Some(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]));
    let truncated = packet.get(2)? & 2 != 0;
    if word(0)? != number || truncated {
        return None;
    }
    let mut at = HEADER;
    for _ in 0..word(4)? {
        at = skip_name(packet, at)? + 4;
    }
    let mut found = BTreeSet::new();
    for _ in 0..word(6)? {
        at = skip_name(packet, at)?;
        let (kind, length) = (word(at)?, usize::from(word(at + 8)?));
        let data = packet.get(at + 10..at + 10 + length)?;
        if kind == TYPE_A
            && let Ok(bytes) = <[u8; 4]>::try_from(data)
        {
            found.insert(Ipv4Addr::from(bytes));
        }
        at += 10 + length;
    }
    Some(found)
}

fn skip_name(packet: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *packet.get(at)? {
            0 => return Some(at + 1),
            length if length & POINTER == POINTER => return Some(at + 2),
            length => at += 1 + usize::from(length),
        }
    }
}
