//! From `run` to the container's first instruction, and from `run --rm` to its end.

use std::time::Duration;

use weft_tests::{Output, eventually};

use crate::{
    cluster::{Cluster, PATIENCE, now},
    figure::Bench,
    local::{detached, remove, timed},
    report::{Goal, Row},
    stats::Sample,
};

/// Runs of one container, and of many at once; ours and the peer's take turns.
const RUNS: usize = 15;
const ROUNDS: usize = 5;
/// Containers that are started at once.
const MANY: usize = 20;
/// At most this much of the peer's time.
const GOAL: Goal = Goal::AtMost(0.3);

/// Milliseconds.
#[derive(Default)]
struct Times {
    end: Sample,
    first: Sample,
    many_ends: Sample,
    many_firsts: Sample,
}

pub fn run(bench: &Bench) {
    let engines = bench.engines("bench-run");
    let mut found = [Times::default(), Times::default()];
    for engine in &engines {
        // The first of all makes what the later ones find: directories, rules, pages in memory.
        ends(&**engine, 1);
        first(&**engine, 1);
    }
    for _ in 0..RUNS {
        for (engine, times) in engines.iter().zip(&mut found) {
            times.end.add(ends(&**engine, 1));
            times.first.add(first(&**engine, 1));
        }
    }
    for _ in 0..ROUNDS {
        for (engine, times) in engines.iter().zip(&mut found) {
            times.many_ends.add(ends(&**engine, MANY));
            times.many_firsts.add(first(&**engine, MANY));
        }
    }
    let [ours, peer] = &found;
    let row =
        |what: &str, of: fn(&Times) -> &Sample| Row::ratio(what, "ms", of(ours), of(peer), GOAL);
    bench.page.put(
        "run",
        &[
            row("`run --rm IMAGE true`, to its end", |times| &times.end),
            row("`run -d`, to the first instruction", |times| &times.first),
            row("20 `run --rm IMAGE true` at once, to the last end", |times| &times.many_ends),
            row("20 `run -d` at once, to the last first instruction", |times| &times.many_firsts),
        ],
        &[format!(
            "{RUNS} runs of one container and {ROUNDS} of {MANY}, in turns, on the default bridge. The clock starts \
             before the command line does. The container's first act is to write the time since 1970, which is read \
             from its log afterwards."
        )],
    );
}

/// Milliseconds until the last of so many `run --rm IMAGE true` has ended.
fn ends(engine: &dyn Cluster, count: usize) -> f64 {
    let image = engine.image();
    let commands = (0..count).map(|_| engine.client(&["run", "--rm", &image, "true"]));
    milliseconds(timed(commands.collect(), count))
}

/// Milliseconds until the last of so many containers has begun.
fn first(engine: &dyn Cluster, count: usize) -> f64 {
    let names: Vec<String> = (1..=count).map(|n| format!("first{n}")).collect();
    let commands = names.iter().map(|name| detached(engine, name, &[], &["peer", "stamp"]));
    let (commands, start) = (commands.collect(), now());
    timed(commands, count);
    let stamps = names.iter().map(|name| stamp(engine, name));
    let last = stamps.max().expect("there is at least one");
    remove(engine, &names);
    milliseconds(last.saturating_sub(start))
}

/// What the container wrote, since 1970.
fn stamp(engine: &dyn Cluster, name: &str) -> Duration {
    let args = ["logs", name];
    eventually("the container has written the time", PATIENCE, || {
        let text = Output::of(&mut engine.client(&args), &args).text()?;
        text.parse().map(Duration::from_micros).map_err(|_| text)
    })
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
