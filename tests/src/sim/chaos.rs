//! What is done to the cluster, as the seed says.

use std::time::Duration;

use rand::{RngExt as _, rngs::StdRng};

use super::{
    HOSTS, MANAGERS,
    host::Death,
    net::{HostId, Weather},
};

/// One thing that is done.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    Kill(HostId, Death),
    Start(HostId),
    /// The power goes, and the machine that comes back has nothing of what was there.
    Wipe(HostId),
    Pause(HostId),
    Resume(HostId),
    /// These hosts are cut off from all others, both ways.
    Split(Vec<HostId>),
    /// The leader of the moment and one more host are cut off.
    SplitLeader,
    /// Messages go one way only.
    OneWay {
        from: HostId,
        to: HostId,
    },
    Heal,
    Weather(Weather),
    /// How long a disk takes to sync.
    SlowDisk(HostId, Duration),
    /// The next operations of a kernel fail here and there.
    Refusals(HostId),
    /// Somebody removes something of ours in a kernel by hand.
    Drift(HostId),
    /// A node is cut off, and the key of one that it has an encrypted network with is rotated.
    Apart,
    /// All containers end at once, and the kernel of one machine lets go of nothing for a while.
    Clinging,
    /// All containers end at once.
    Ends,
}

/// Longest time between two faults.
const PAUSE: u64 = 1_500;
/// Longest time a host is dead or asleep.
const AWAY: u64 = 6_000;

/// How often in a run a key is rotated while one who must know is away.
const ROTATIONS: u64 = 4;
/// How often addresses are needed while some are clung to.
const CLINGINGS: u64 = 2;
/// So often containers end then, all at once, and so many milliseconds apart: a network has five addresses.
const ENDS: (u64, u64) = (3, 600);

/// What random faults meet too seldom: moments at which keys and addresses change hands. Each comes in a
/// part of the `span` of its own, in milliseconds; the first ones when there are networks.
pub(super) fn pointed(random: &mut StdRng, span: u64) -> Vec<(u64, Fault)> {
    let mut faults = Vec::new();
    let mut spread = |count: u64| -> Vec<u64> {
        let begin = |part: u64| span / 5 + part * (span - span / 5) / count;
        (0..count).map(|part| random.random_range(begin(part)..begin(part + 1))).collect()
    };
    faults.extend(spread(ROTATIONS).into_iter().map(|at| (at, Fault::Apart)));
    for at in spread(CLINGINGS) {
        faults.push((at, Fault::Clinging));
        faults.extend((1..=ENDS.0).map(|turn| (at + turn * ENDS.1, Fault::Ends)));
    }
    faults
}

/// The next faults, each with the milliseconds until then.
pub(super) fn next(random: &mut StdRng) -> Vec<(u64, Fault)> {
    let at = random.random_range(50..PAUSE);
    let host = random.random_range(1..=HOSTS);
    let manager = random.random_range(1..=MANAGERS);
    let away = at + random.random_range(100..AWAY);
    match random.random_range(0..28) {
        0..=2 => crash(random, manager, at, away),
        3 | 4 => crash(random, host, at, away),
        5 => (1..=MANAGERS)
            .flat_map(|manager| {
                let back = at + random.random_range(100..AWAY);
                crash(random, manager, at, back)
            })
            .collect(),
        6 | 7 => vec![(at, Fault::Pause(manager)), (away, Fault::Resume(manager))],
        8 => vec![(at, Fault::Pause(host)), (away, Fault::Resume(host))],
        9 | 10 => vec![(at, Fault::Split(vec![host]))],
        11 => {
            let other = random.random_range(1..=HOSTS);
            vec![(at, Fault::Split(vec![host, other]))]
        }
        12 => vec![(at, Fault::SplitLeader)],
        13..=15 => {
            let to = random.random_range(1..=HOSTS);
            vec![(at, Fault::OneWay { from: host, to })]
        }
        16 => vec![(at, Fault::Weather(weather(random)))],
        17 => vec![(at, Fault::Weather(Weather::FAIR))],
        18..=20 => {
            let takes = Duration::from_millis(random.random_range(0..20));
            vec![(at, Fault::SlowDisk(manager, takes))]
        }
        21 | 22 => vec![(at, Fault::Refusals(host))],
        23 | 24 => vec![(at, Fault::Drift(host))],
        _ => vec![(at, Fault::Heal)],
    }
}

fn crash(random: &mut StdRng, host: HostId, at: u64, back: u64) -> Vec<(u64, Fault)> {
    let death = if random.random() { Death::Killed } else { Death::PowerCut };
    vec![(at, Fault::Kill(host, death)), (back, Fault::Start(host))]
}

fn weather(random: &mut StdRng) -> Weather {
    Weather {
        loss: random.random_range(3..100),
        doubled: random.random_range(3..100),
        jitter: Duration::from_millis(random.random_range(0..200)),
    }
}
