//! Whatever several flows send, mixed: when what was merged is cut again, every flow has all its frames,
//! unchanged and in order. So no wrong checksum has become right, and nothing was invented.

use std::collections::BTreeMap;

use proptest::prelude::*;
use weft_wire::packet::Coalescer;

use crate::cut::cut;
use crate::merge::merged;
use crate::model::{
    ACK, CWR, Checksum, ECE, FIN, Flow, Network, PSH, Piece, SYN, Transport, URG, bytes, cases,
    plain_flow, plain_sum, soak,
};

/// What a flow does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The usual: a packet behind the one before.
    Data,
    Short,
    Long,
    Flags(u8),
    Acknowledgment,
    /// Some bytes were lost, or an identification.
    Gap,
    Skip,
    SameIdentification,
    Again,
    Class,
    Life,
    Window,
    Options,
    DontFragment,
    Wrong,
    /// The IP header's checksum.
    WrongHeader,
    NoChecksum,
    Padded,
    Fragment,
    Mac,
    Echo,
}

fn step() -> impl Strategy<Value = Step> {
    use Step::*;
    let flags = prop_oneof![
        Just(PSH),
        Just(FIN),
        Just(SYN),
        Just(URG),
        Just(CWR),
        Just(ECE),
        Just(CWR | PSH),
        Just(0x04),
    ];
    let odd = prop_oneof![
        Just(Short),
        Just(Long),
        flags.prop_map(Flags),
        Just(Acknowledgment),
        Just(Gap),
        Just(Skip),
        Just(SameIdentification),
        Just(Again),
        Just(Class),
        Just(Life),
        Just(Window),
        Just(Options),
        Just(DontFragment),
        Just(Wrong),
        Just(WrongHeader),
        Just(NoChecksum),
        Just(Padded),
        Just(Fragment),
        Just(Mac),
        Just(Echo),
    ];
    prop_oneof![4 => Just(Data), 1 => odd]
}

/// A flow and where it is.
struct Sender {
    flow: Flow,
    size: usize,
    identification: u16,
    sequence: u32,
    sent: u64,
    last: Vec<u8>,
}

impl Sender {
    fn new(mut flow: Flow, number: u8, size: usize) -> Self {
        // Few differences between flows, so that they are mistaken for each other easily.
        flow.source_mac = [2; 6];
        flow.destination_mac = [4; 6];
        flow.source_port = number.into();
        flow.destination_port = 80;
        match &mut flow.network {
            Network::V4 { source, destination, .. } => {
                (*source, *destination) = ([10, 0, 0, 1], [10, 0, 0, 2]);
            }
            Network::V6 { source, destination, .. } => {
                (*source, *destination) = ([0xfd; 16], [0xfe; 16]);
            }
        }
        if let Transport::Tcp { flags, .. } = &mut flow.transport {
            *flags = ACK;
        }
        let (identification, sequence) = (flow.identification(), flow.sequence());
        Self { flow, size, identification, sequence, sent: 0, last: vec![] }
    }

    fn send(&mut self, step: Step) -> Vec<u8> {
        self.change(step);
        let length = match step {
            Step::Short => self.size / 2,
            Step::Long => self.size + 1,
            Step::Acknowledgment => 0,
            _ => self.size,
        };
        if step == Step::Again && !self.last.is_empty() {
            return self.last.clone();
        }
        self.sent += 1;
        let payload = bytes(length, self.sent << 8 | u64::from(self.flow.source_port as u8));
        let flags = match step {
            Step::Flags(flags) => self.flow.flags() | flags,
            _ => self.flow.flags(),
        };
        let checksum = if step == Step::Wrong { Checksum::Wrong } else { Checksum::Right };
        let (identification, sequence) = (self.identification, self.sequence);
        let piece = Piece { identification, sequence, flags, payload: &payload, checksum };
        let mut frame = self.flow.frame(&piece);
        self.sequence = self.sequence.wrapping_add(length as u32);
        self.identification = self.identification.wrapping_add(1);
        mangle(&mut frame, step, &self.flow);
        if step != Step::Echo {
            self.last.clone_from(&frame);
        }
        frame
    }

    fn change(&mut self, step: Step) {
        match step {
            Step::Gap => self.sequence = self.sequence.wrapping_add(7),
            Step::Skip => self.identification = self.identification.wrapping_add(1),
            Step::SameIdentification => {
                self.identification = self.identification.wrapping_sub(1);
            }
            Step::Class => self.flow.class ^= 3,
            Step::Life => self.flow.life ^= 1,
            Step::Mac => self.flow.source_mac[5] ^= 1,
            Step::DontFragment => {
                if let Network::V4 { dont_fragment, .. } = &mut self.flow.network {
                    *dont_fragment ^= true;
                }
            }
            Step::Window | Step::Options => {
                if let Transport::Tcp { window, options, .. } = &mut self.flow.transport {
                    match options.last_mut().filter(|_| step == Step::Options) {
                        Some(last) => *last ^= 1,
                        None => *window ^= 1,
                    }
                }
            }
            _ => {}
        }
    }
}

fn mangle(frame: &mut Vec<u8>, step: Step, flow: &Flow) {
    let v4 = matches!(flow.network, Network::V4 { .. });
    match step {
        Step::WrongHeader if v4 => frame[24] ^= 1,
        Step::NoChecksum if flow.protocol() == 17 => {
            let field = flow.headers() - 2;
            frame[field..field + 2].fill(0);
        }
        Step::Padded => frame.extend([0; 6]),
        Step::Fragment if v4 => frame[21] |= 4,
        Step::Echo => {
            // Another protocol between the same addresses.
            let at = if v4 { 23 } else { 20 };
            frame[at] = if v4 { 1 } else { 58 };
        }
        _ => {}
    }
}

/// What must be the same after merging and cutting. The identification of packets that must not be
/// fragmented has no meaning; but nothing may change in a header whose checksum is wrong.
fn essence(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let v4 = frame[12..14] == [8, 0];
    if v4 && frame[20] & 0x40 != 0 && plain_sum(&[&frame[14..34]]) == 0xffff {
        frame[18..20].fill(0);
        frame[24..26].fill(0);
    }
    frame
}

fn check(sent: &[(usize, Vec<u8>)]) -> Result<(usize, usize), TestCaseError> {
    let frames: Vec<_> = sent.iter().map(|(_, frame)| frame.clone()).collect();
    let written = merged(&mut Coalescer::default(), &frames);
    let mut places: BTreeMap<Vec<u8>, Vec<(usize, usize)>> = BTreeMap::new();
    for (at, (flow, frame)) in sent.iter().enumerate().rev() {
        places.entry(essence(frame)).or_default().push((*flow, at));
    }
    let mut latest = BTreeMap::new();
    let mut count = 0;
    for (header, frame) in &written {
        prop_assert!(frame.len() <= 65_535);
        for frame in cut(*header, frame) {
            let place = places.get_mut(&essence(&frame)).and_then(Vec::pop);
            prop_assert!(place.is_some(), "nobody sent {:02x?}", &frame[..frame.len().min(80)]);
            let (flow, at) = place.unwrap();
            let before = latest.insert(flow, at);
            prop_assert!(before < Some(at), "flow {} is out of order at {}", flow, at);
            count += 1;
        }
    }
    prop_assert_eq!(count, sent.len());
    Ok((sent.len(), written.len()))
}

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn every_flow_keeps_its_frames(
        flows in prop::collection::vec((plain_flow(), 1usize..1_400), 1..6),
        steps in prop::collection::vec((any::<prop::sample::Index>(), step()), 1..120),
    ) {
        let make = |(number, (flow, size)): (usize, &(Flow, usize))| {
            Sender::new(flow.clone(), number as u8, *size)
        };
        let mut senders: Vec<_> = flows.iter().enumerate().map(make).collect();
        let mut sent = Vec::new();
        for (index, step) in steps {
            let number = index.index(senders.len());
            // An echo is a flow of its own.
            let flow = if step == Step::Echo { senders.len() + number } else { number };
            sent.push((flow, senders[number].send(step)));
        }
        check(&sent)?;
    }
}

/// The property would hold if nothing were ever merged.
#[test]
fn much_is_merged() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let (mut all, mut left) = (0, 0);
    for _ in 0..if soak() { 2_000 } else { 100 } {
        let flow = plain_flow().new_tree(&mut runner).unwrap().current();
        let mut sender = Sender::new(flow, 1, 1_000);
        let sent: Vec<_> = (0..40).map(|_| (0, sender.send(Step::Data))).collect();
        let (before, after) = check(&sent).unwrap();
        (all, left) = (all + before, left + after);
    }
    assert_eq!((all, left), (all, all / 40));
}
