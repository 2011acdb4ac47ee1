//! Whole clusters in simulated time, one process for each seed.
//!
//! A run that fails names the command that repeats it. `WEFT_SOAK=1` makes many more runs, and longer
//! ones.

use std::process::{Command, Stdio};

/// Seeds in one run of the tests.
const SEEDS: u64 = 50;
/// Seeds in a soak.
const SOAK: u64 = 1_000;
/// Tests that share the seeds.
const BATCHES: u64 = 5;
/// Lines shown of a run that failed.
const LAST_LINES: usize = 60;
/// The variable that says which seed to run.
const SEED: &str = "WEFT_SEED";
/// The test that runs it.
const ONE: &str = "one_seed";

/// What must have happened in some of the runs, or nothing was tested.
const MUST_HAPPEN: [&str; 28] = [
    "dies: Killed",
    "dies: PowerCut",
    "falls asleep",
    "wakes up",
    "cut off",
    "cut from",
    "Weather",
    "syncs in",
    "will refuse",
    "by hand: ",
    "leads no more",
    ": done, tries 2",
    ": refused, ",
    "promote ",
    "demote ",
    "is a manager now",
    "is a worker now",
    "drain ",
    "activate ",
    "is wiped",
    "is a new node",
    "roll back ",
    "detach ",
    "is closed",
    "rotate the key of ",
    "a key is rotated",
    "its kernel clings",
    "at rest again",
];

/// Runs one seed in a process of its own, and gives what it printed and whether all was well.
fn run(seed: u64) -> (String, bool) {
    let own = std::env::current_exe().expect("this program has a path");
    let output = Command::new(own)
        .args([ONE, "--exact", "--ignored", "--nocapture", "--test-threads=1"])
        .env(SEED, seed.to_string())
        .stdin(Stdio::null())
        .output()
        .expect("this program can be started");
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    (text, output.status.success())
}

fn command(seed: u64) -> String {
    let length = if weft_tests::soak() { "WEFT_SOAK=1 " } else { "" };
    format!(
        "{length}{SEED}={seed} cargo test -p weft-tests --test simulation -- {ONE} --exact --ignored \
         --nocapture"
    )
}

#[test]
#[ignore = "run by the others, with a seed in WEFT_SEED"]
fn one_seed() {
    let seed = std::env::var(SEED).ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let ending = weft_tests::sim::run(seed, |line| println!("{line}"));
    println!("seed {seed}: {}", ending.figures);
    assert!(ending.violations.is_empty(), "seed {seed}: {:#?}", ending.violations);
}

/// Runs one batch of the seeds, one after the other: the batches run side by side.
fn batch(number: u64) {
    let seeds = if weft_tests::soak() { SOAK } else { SEEDS } / BATCHES;
    let mut missing = Vec::from(MUST_HAPPEN);
    let mut failures = Vec::new();
    for seed in number * seeds + 1..=(number + 1) * seeds {
        let (text, good) = run(seed);
        missing.retain(|what| !text.contains(what));
        if !good {
            let last: Vec<_> = text.lines().rev().take(LAST_LINES).collect();
            last.iter().rev().for_each(|line| println!("{line}"));
            println!("repeat it: {}", command(seed));
            failures.push(seed);
        }
    }
    assert!(failures.is_empty(), "of {seeds} seeds these failed: {failures:?}");
    assert!(missing.is_empty(), "never happened: {missing:?}");
}

#[test]
fn clusters_keep_their_promises_1() {
    batch(0);
}

#[test]
fn clusters_keep_their_promises_2() {
    batch(1);
}

#[test]
fn clusters_keep_their_promises_3() {
    batch(2);
}

#[test]
fn clusters_keep_their_promises_4() {
    batch(3);
}

#[test]
fn clusters_keep_their_promises_5() {
    batch(4);
}

#[test]
fn a_seed_repeats_itself() {
    let seed = 4;
    let ((first, _), (second, _)) = (run(seed), run(seed));
    let events = |text: &str| -> Vec<String> {
        // What the test harness itself prints tells the time that it took.
        text.lines().filter(|line| !line.starts_with("test ")).map(str::to_owned).collect()
    };
    let (first, second) = (events(&first), events(&second));
    assert!(first.len() > 100, "nothing happened: {first:#?}");
    let length = first.len().max(second.len());
    let differs = (0..length).find(|line| first.get(*line) != second.get(*line));
    if let Some(line) = differs {
        panic!("line {line}: {:?} and {:?}", first.get(line), second.get(line));
    }
}

/// The system's randomness, replaced in a process that runs a seed.
///
/// Tokio draws the order of its wake-ups from the standard library, which asks `getrandom` and prefers
/// a definition of the program's own. Elsewhere in this program the kernel is asked as always.
mod entropy {
    use std::{cell::Cell, ffi::c_void};

    thread_local! {
        /// Each thread has its own sequence, so that it does not matter which one is first.
        static STATE: Cell<Option<u64>> = const { Cell::new(None) };
    }

    fn next(state: u64) -> u64 {
        // SplitMix64 (Steele, Lea and Flood, 2014).
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// The function of libc: see getrandom(2).
    #[unsafe(no_mangle)]
    extern "C" fn getrandom(buffer: *mut c_void, length: usize, flags: u32) -> isize {
        let seed = std::env::var(super::SEED).ok().and_then(|text| text.parse::<u64>().ok());
        let Some(seed) = seed else {
            // SAFETY: the arguments are the caller's own, with the meaning that he gave them.
            let got =
                unsafe { nix::libc::syscall(nix::libc::SYS_getrandom, buffer, length, flags) };
            return isize::try_from(got).unwrap_or(-1);
        };
        // SAFETY: the caller owns `length` bytes there, by the contract of the function.
        let bytes = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length) };
        STATE.with(|state| {
            for chunk in bytes.chunks_mut(8) {
                let now = state.get().unwrap_or(seed).wrapping_add(0x9e37_79b9_7f4a_7c15);
                state.set(Some(now));
                chunk.copy_from_slice(&next(now).to_le_bytes()[..chunk.len()]);
            }
        });
        isize::try_from(length).unwrap_or(-1)
    }
}
