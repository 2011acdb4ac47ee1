//! Nanoseconds that a packet costs beside its seal: `cargo bench -p weft-wire`.
//!
//! The best of many short rounds, so that what else runs does not count; TCP on a network with an MTU of
//! 1390, and some smaller things. "Copied" is what one buffer for each merged frame would cost on top of
//! places for `writev`.

#![allow(clippy::unwrap_used, reason = "a benchmark may fail")]

use std::{hint::black_box, net::Ipv4Addr, ops::Range, time::Instant};

use weft_wire::packet::{
    Coalescer, Ecn, Gso, GsoKind, Outer, Partial, Segments, VnetHeader, checksum::Sum, claims,
    leave_tunnel, receive,
};

/// Of TCP over IPv4 with timestamps: MTU 1390 less 20 and 32.
const SIZE: usize = 1_338;
const HEADERS: usize = 14 + 20 + 32;
const PACKETS: usize = 48;
const ROUNDS: usize = 100;
/// Packets of a round: some milliseconds, less than a time slice.
const ROUND: usize = 20_000;

fn main() {
    let frame = large();
    let single = frame[..HEADERS + SIZE].to_vec();
    let gso = Gso { kind: GsoKind::Tcp4, size: SIZE as u16, reduced: false };
    let partial = Some(Partial { start: 34, offset: 16 });
    let header = |gso| VnetHeader { partial, gso, verified: false, header_length: HEADERS as u16 };
    let outer = Outer::new(Ipv4Addr::new(100, 64, 0, 2), Ipv4Addr::new(100, 64, 0, 4), 4096);
    let mut out = vec![0; 2_048];

    println!("sending, {} bytes on the wire", HEADERS + SIZE + Outer::LEN);
    measure("  a packet of a large frame", PACKETS, || {
        let segments = Segments::new(header(Some(gso)), black_box(&frame)).unwrap();
        for index in 0..segments.count() {
            black_box(segments.write(index, &outer, &mut out));
        }
    });
    measure("  a single packet, checksum unfinished", 1, || {
        let segments = Segments::new(header(None), black_box(&single)).unwrap();
        black_box(segments.write(0, &outer, &mut out));
    });
    measure("  a single packet, nothing to do", 1, || {
        let segments = Segments::new(VnetHeader::default(), black_box(&single)).unwrap();
        black_box(segments.write(0, &outer, &mut out));
    });
    measure("  a single packet without data", 1, || {
        let segments = Segments::new(VnetHeader::default(), black_box(&frame[..HEADERS])).unwrap();
        black_box(segments.write(0, &outer, &mut out));
    });

    let (packets, places) = packets(header(Some(gso)), &frame, &outer);
    let frames: Vec<_> = places.iter().map(|place| place.start + Outer::LEN..place.end).collect();
    receiving(&packets, &places, &frames);
    parts(&packets, &frames);
}

fn receiving(packets: &[u8], places: &[Range<usize>], frames: &[Range<usize>]) {
    let mut buffer = packets.to_vec();
    let mut coalescer = Coalescer::default();
    println!("receiving");
    measure("  all: unpacked, marked, source found, merged", PACKETS, || {
        for place in places {
            let received = receive(&buffer[place.clone()]).unwrap();
            let frame = place.start + received.frame.start..place.start + received.frame.end;
            leave_tunnel(received.ecn, &mut buffer[frame.clone()]).unwrap();
            black_box(claims(&buffer[frame.clone()]).unwrap());
            coalescer.push(&buffer, frame);
        }
        assert_eq!(black_box(coalescer.finish(&mut buffer)).len(), 1);
        coalescer.clear();
        // Merging has changed the first packet's headers.
        buffer[..200].copy_from_slice(&packets[..200]);
    });
    measure("  merged only", PACKETS, || {
        for frame in frames {
            coalescer.push(&buffer, frame.clone());
        }
        assert_eq!(black_box(coalescer.finish(&mut buffer)).len(), 1);
        coalescer.clear();
        buffer[..200].copy_from_slice(&packets[..200]);
    });
    let mut whole = Vec::with_capacity(70_000);
    measure("  merged and copied", PACKETS, || {
        for frame in frames {
            coalescer.push(&buffer, frame.clone());
        }
        for output in coalescer.finish(&mut buffer) {
            whole.clear();
            output.parts.iter().for_each(|part| whole.extend_from_slice(&buffer[part.clone()]));
            black_box(&whole);
        }
        coalescer.clear();
        buffer[..200].copy_from_slice(&packets[..200]);
    });
}

fn parts(packets: &[u8], frames: &[Range<usize>]) {
    let mut out = vec![0; SIZE];
    println!("parts of these");
    measure("  the sum of a payload", PACKETS, || {
        for frame in frames {
            black_box(Sum::default().bytes(&packets[frame.clone()][HEADERS..]).finish());
        }
    });
    measure("  the same while it is copied", PACKETS, || {
        for frame in frames {
            black_box(Sum::default().copied(&packets[frame.clone()][HEADERS..], &mut out).finish());
        }
    });
    measure("  receive", PACKETS, || {
        for frame in frames {
            let packet = frame.start - Outer::LEN..frame.end;
            black_box(receive(&packets[packet]).unwrap());
        }
    });
    let mut buffer = packets.to_vec();
    measure("  leave_tunnel", PACKETS, || {
        for frame in frames {
            leave_tunnel(black_box(Ecn::Capable1), &mut buffer[frame.clone()]).unwrap();
        }
    });
    measure("  claims", PACKETS, || {
        for frame in frames {
            black_box(claims(&packets[frame.clone()]).unwrap());
        }
    });
}

/// Prints the best round's time for one of `count` equal things that `run` does.
fn measure(name: &str, count: usize, mut run: impl FnMut()) {
    let repeats = ROUND / count;
    let mut round = || {
        let begin = Instant::now();
        for _ in 0..repeats {
            run();
        }
        begin.elapsed().as_nanos() as f64 / (repeats * count) as f64
    };
    let best = (0..ROUNDS).map(|_| round()).fold(f64::MAX, f64::min);
    println!("{name:<48} {best:6.1} ns");
}

/// A TCP frame as a container's kernel gives it: ECT(0), timestamps, the pseudo header's sum.
fn large() -> Vec<u8> {
    let length = HEADERS + SIZE * PACKETS;
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
    frame.extend([0x45, 2]);
    frame.extend((length as u16 - 14).to_be_bytes());
    frame.extend([0, 9, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    let pseudo = Sum::default().bytes(&frame[26..34]).word(6).word(length as u16 - 34);
    frame.extend([0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 2, 0x80, 0x10, 2, 0]);
    frame.extend(pseudo.partial());
    frame.extend([0, 0, 1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
    frame.extend((HEADERS..length).map(|at| (at * 7) as u8));
    frame
}

/// What the frame becomes, one packet behind the other at a distance of 2,048 bytes.
fn packets(header: VnetHeader, frame: &[u8], outer: &Outer) -> (Vec<u8>, Vec<Range<usize>>) {
    let segments = Segments::new(header, frame).unwrap();
    let mut packets = vec![0; 2_048 * segments.count()];
    let mut place = |index| {
        let begin = index * 2_048;
        begin..begin + segments.write(index, outer, &mut packets[begin..]).unwrap()
    };
    let places = (0..segments.count()).map(&mut place).collect();
    (packets, places)
}
