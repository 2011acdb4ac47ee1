//! Packets that nobody should take.

use std::{
    net::{Ipv4Addr, UdpSocket},
    thread::spawn,
};

use super::capture::enter;

/// VXLAN with a whole Ethernet frame: UDP from one container to another.
pub struct Forged {
    pub vni: u32,
    pub from: Ipv4Addr,
    pub to: Ipv4Addr,
    pub port: u16,
}

/// The MAC that a container with this address has.
fn mac(ip: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = ip.octets();
    [0x02, 0x42, a, b, c, d]
}

impl Forged {
    /// The payload of UDP (RFC 7348): flags, network identifier, frame.
    pub fn packet(&self, said: &[u8]) -> Vec<u8> {
        let [_, a, b, c] = self.vni.to_be_bytes();
        let mut packet = vec![0x08, 0, 0, 0, a, b, c, 0];
        packet.extend(mac(self.to));
        packet.extend(mac(self.from));
        packet.extend([0x08, 0x00]);
        packet.extend(self.ip(8 + said.len()));
        packet.extend([0x30, 0x39]);
        packet.extend(self.port.to_be_bytes());
        packet.extend(u16::try_from(8 + said.len()).expect("it is short").to_be_bytes());
        // No checksum, which IPv4 allows.
        packet.extend([0, 0]);
        packet.extend(said);
        packet
    }

    fn ip(&self, payload: usize) -> Vec<u8> {
        let length = u16::try_from(20 + payload).expect("it is short");
        let mut header = vec![0x45, 0];
        header.extend(length.to_be_bytes());
        header.extend([0, 0, 0, 0, 64, 17, 0, 0]);
        header.extend(self.from.octets());
        header.extend(self.to.octets());
        let words = header.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
        let sum: u32 = words.sum();
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).expect("it is folded");
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        header
    }
}

/// Sends packets of UDP from the network namespace of a process.
pub fn send(pid: u32, packets: Vec<((String, u16), Vec<u8>)>) {
    let sender = spawn(move || {
        enter(pid);
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a socket");
        for ((host, port), packet) in packets {
            // A refusal of an earlier packet is told with the next one.
            let _ = socket.send_to(&packet, (host.as_str(), port));
        }
    });
    sender.join().expect("the sender ends");
}
