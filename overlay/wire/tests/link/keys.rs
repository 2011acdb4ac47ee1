//! Keys are changed while packets pass, and none is lost.

use std::{
    net::UdpSocket,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::lab::{Host, World, check_stream, send_stream, wait_until};

/// Changes of a key one after the other.
const ROTATIONS: u8 = 10;

/// A flow of numbered datagrams, and how many were sent and came.
pub struct Numbered {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU32>,
    got: Arc<AtomicU32>,
    threads: Vec<JoinHandle<()>>,
}

impl Numbered {
    pub fn start(from: &Host, to: &Host, port: u16) -> Self {
        let (stop, sent, got) = Default::default();
        let flow = Self { stop, sent, got, threads: Vec::new() };
        let sender = from.guest.udp(&format!("{}:{port}", from.inner()));
        let receiver = to.guest.udp(&format!("{}:{port}", to.inner()));
        let target = format!("{}:{port}", to.inner());
        let threads = vec![flow.spawn_sender(sender, target), flow.spawn_receiver(receiver)];
        Self { threads, ..flow }
    }

    fn spawn_sender(&self, socket: UdpSocket, to: String) -> JoinHandle<()> {
        let (stop, sent) = (Arc::clone(&self.stop), Arc::clone(&self.sent));
        thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let number = sent.fetch_add(1, Ordering::Relaxed);
                let mut datagram = [0; 400];
                datagram[..4].copy_from_slice(&number.to_be_bytes());
                socket.send_to(&datagram, &to).unwrap();
                thread::sleep(Duration::from_millis(1));
            }
        })
    }

    fn spawn_receiver(&self, socket: UdpSocket) -> JoinHandle<()> {
        let (stop, sent) = (Arc::clone(&self.stop), Arc::clone(&self.sent));
        let got = Arc::clone(&self.got);
        thread::spawn(move || {
            let mut buffer = [0; 2048];
            let mut next = 0;
            loop {
                match socket.recv_from(&mut buffer) {
                    Ok(_) => {
                        let number = u32::from_be_bytes(buffer[..4].try_into().unwrap());
                        assert!(number >= next, "{number} came after {next} was expected");
                        next = number + 1;
                        got.fetch_add(1, Ordering::Relaxed);
                    }
                    // The timeout of the socket: nothing is on its way any more.
                    Err(_) if stop.load(Ordering::Relaxed) => return,
                    Err(_) => {}
                }
                if stop.load(Ordering::Relaxed) && next == sent.load(Ordering::Relaxed) {
                    return;
                }
            }
        })
    }

    /// Waits until this many more have come.
    pub fn pass(&self, count: u32) {
        let goal = self.got.load(Ordering::Relaxed) + count;
        wait_until("datagrams have come", || self.got.load(Ordering::Relaxed) >= goal);
    }

    /// How many were sent, and how many came.
    pub fn finish(self) -> (u32, u32) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
        (self.sent.load(Ordering::Relaxed), self.got.load(Ordering::Relaxed))
    }
}

/// Takes the first node through all phases of a rotation to the next key, as the manager does.
fn rotate(world: &mut World, from: u8, to: u8, flow: &Numbered) {
    for keys in [vec![from, to], vec![to, from]] {
        world.hosts[0].keys = keys;
        // Nobody changes at the same moment: here the others know first, there last.
        world.configure();
        flow.pass(50);
    }
    let port = 51_820 + u16::from(to % 2);
    wait_until("packets come from the new key", || {
        let endpoint = world.hosts[1].status().peers[&1].endpoint.unwrap();
        endpoint.port() == port
    });
    flow.pass(50);
    world.hosts[0].keys = vec![to];
    world.configure();
    flow.pass(50);
}

#[test]
fn rotation_under_load_loses_nothing() {
    let mut world = World::new(2, 2);
    let [a, b] = &world.hosts[..] else { unreachable!() };
    wait_until("they have met", || a.guest.pings(&b.inner()) && b.guest.pings(&a.inner()));
    let listener = b.guest.listen("10.0.0.2:5001");
    let stream = a.guest.connect("10.0.0.2:5001");
    let (accepted, _) = listener.accept().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&stop);
    let sender = thread::spawn(move || {
        send_stream(stream, 1, |_| {
            // Load, but not so much that a queue runs full: what is measured is the change of keys.
            thread::sleep(Duration::from_millis(2));
            !told.load(Ordering::Relaxed)
        });
    });
    let receiver = thread::spawn(move || check_stream(accepted, 1));
    let there = Numbered::start(a, b, 6001);
    let back = Numbered::start(b, a, 6002);
    there.pass(50);
    back.pass(50);
    for (from, to) in [(0, 1), (1, 2)] {
        rotate(&mut world, from, to, &there);
        back.pass(50);
    }
    let (there, back) = (there.finish(), back.finish());
    stop.store(true, Ordering::Relaxed);
    sender.join().unwrap();
    assert!(receiver.join().unwrap() > 0);
    assert_eq!(there.0, there.1, "datagrams sent and received by the node that keeps its key");
    assert_eq!(back.0, back.1, "datagrams sent and received by the node that changes its key");
}

/// Puts all phases of a rotation of the first node's key one after the other, with no time between them.
fn rotate_at_once(world: &mut World, from: u8, to: u8) {
    for keys in [vec![from, to], vec![to, from], vec![to]] {
        world.hosts[0].keys = keys;
        world.configure();
    }
}

#[test]
fn the_phases_of_a_rotation_may_follow_each_other_at_once() {
    let mut world = World::new(2, 1);
    let [a, b] = &world.hosts[..] else { unreachable!() };
    wait_until("they have met", || a.guest.pings(&b.inner()) && b.guest.pings(&a.inner()));
    let there = Numbered::start(a, b, 6004);
    let back = Numbered::start(b, a, 6005);
    for from in 0..ROTATIONS {
        there.pass(20);
        back.pass(20);
        rotate_at_once(&mut world, from, from + 1);
    }
    let (there, back) = (there.finish(), back.finish());
    assert_eq!(there.0, there.1, "datagrams sent and received by the node that keeps its key");
    assert_eq!(back.0, back.1, "datagrams sent and received by the node that changes its key");
}

#[test]
fn a_greeting_that_is_lost_is_repeated_before_former_keys_are_forgotten() {
    let mut world = World::new(2, 1);
    let [a, b] = &world.hosts[..] else { unreachable!() };
    wait_until("they have met", || a.guest.pings(&b.inner()) && b.guest.pings(&a.inner()));
    let there = Numbered::start(a, b, 6006);
    let back = Numbered::start(b, a, 6007);
    there.pass(20);
    back.pass(20);
    // Handshakes begin with 148 bytes, and 8 are UDP's.
    world.switch.sh("nft add table bridge lossy
         nft 'add chain bridge lossy f { type filter hook forward priority 0; }'
         nft add rule bridge lossy f udp length 156 counter drop");
    world.hosts[0].keys = vec![0, 1];
    world.configure();
    wait_until("a greeting of each is lost", || {
        let text = world.switch.sh("nft list table bridge lossy");
        let lost = text.split_once("packets ").and_then(|(_, rest)| rest.split(' ').next());
        lost.unwrap().parse::<u32>().unwrap() >= 2
    });
    world.switch.sh("nft delete table bridge lossy");
    for keys in [vec![1, 0], vec![1]] {
        world.hosts[0].keys = keys;
        world.configure();
    }
    there.pass(20);
    back.pass(20);
    let (there, back) = (there.finish(), back.finish());
    assert_eq!(there.0, there.1, "datagrams sent and received by the node that keeps its key");
    assert_eq!(back.0, back.1, "datagrams sent and received by the node that changes its key");
}

#[test]
fn another_peer_disturbs_nobody() {
    let mut world = World::new(3, 1);
    let [a, b, _] = &world.hosts[..] else { unreachable!() };
    wait_until("they have met", || a.guest.pings(&b.inner()) && b.guest.pings(&a.inner()));
    let flow = Numbered::start(a, b, 6003);
    flow.pass(50);
    let third = world.hosts.pop().unwrap();
    world.configure();
    flow.pass(50);
    world.hosts.push(third);
    world.configure();
    flow.pass(50);
    let (sent, got) = flow.finish();
    assert_eq!(sent, got);
    let [a, _, c] = &world.hosts[..] else { unreachable!() };
    wait_until("the third is reached", || a.guest.pings(&c.inner()));
}
