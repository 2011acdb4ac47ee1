//! A name server that knows every name: `weft-lab-names LISTEN ADDRESS LOG`. What it was asked is
//! written to LOG, a name on each line, so that a test sees what has left the cluster.
#![forbid(unsafe_code)]

use std::{
    fs::OpenOptions,
    io::Write as _,
    net::{Ipv4Addr, UdpSocket},
};

/// Bytes of a header (RFC 1035, section 4.1.1).
const HEADER: usize = 12;
const TYPE_A: [u8; 2] = [0, 1];

fn main() -> std::io::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let [_, listen, address, log] = args.as_slice() else {
        return Err(std::io::Error::other("usage: weft-lab-names LISTEN ADDRESS LOG"));
    };
    let address: Ipv4Addr = address.parse().map_err(std::io::Error::other)?;
    let mut log = OpenOptions::new().create(true).append(true).open(log)?;
    let socket = UdpSocket::bind(listen)?;
    let mut buffer = [0; 1500];
    loop {
        let (length, peer) = socket.recv_from(&mut buffer)?;
        if let Some((name, end)) = question(&buffer[..length]) {
            // A forwarder mixes the case of its questions, to know its answers by it.
            writeln!(log, "{}", name.to_lowercase())?;
            socket.send_to(&answer(&buffer[..end], address), peer)?;
        }
    }
}

/// The name that is asked for and where its question ends.
fn question(packet: &[u8]) -> Option<(String, usize)> {
    let (mut at, mut labels) = (HEADER, Vec::new());
    loop {
        let length = usize::from(*packet.get(at)?);
        at += 1;
        if length == 0 {
            // Type and class follow.
            return packet.get(at..at + 4).map(|_| (labels.join("."), at + 4));
        }
        labels.push(String::from_utf8_lossy(packet.get(at..at + length)?).into_owned());
        at += length;
    }
}

/// The question with one A record, or with none for every other type.
fn answer(question: &[u8], address: Ipv4Addr) -> Vec<u8> {
    let known = question[question.len() - 4..question.len() - 2] == TYPE_A;
    let mut packet = question.to_vec();
    // An answer with recursion, no error, one question.
    packet[2..HEADER].copy_from_slice(&[0x81, 0x80, 0, 1, 0, u8::from(known), 0, 0, 0, 0]);
    if known {
        // A pointer to the name at the first question, A, IN, 60 seconds, four bytes.
        packet.extend([0xc0, HEADER as u8, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        packet.extend(address.octets());
    }
    packet
}
