//! Waiting for conditions, never for time.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

/// How often a condition is looked at.
const STEP: Duration = Duration::from_millis(40);

/// Waits until `look` succeeds and gives what it found and how long it took.
///
/// # Panics
/// After `patience`, with what `look` said last.
#[track_caller]
pub fn eventually<T>(
    what: &str,
    patience: Duration,
    mut look: impl FnMut() -> Result<T, String>,
) -> T {
    let start = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(said) if start.elapsed() > patience => {
                panic!("not within {patience:?}: {what}\nlast: {said}")
            }
            Err(_) => sleep(STEP),
        }
    }
}

/// Looks again and again for the whole of `time`; `look` must succeed every time.
///
/// # Panics
/// As soon as it does not.
#[track_caller]
pub fn stays(what: &str, time: Duration, mut look: impl FnMut() -> Result<(), String>) {
    let start = Instant::now();
    while start.elapsed() < time {
        if let Err(said) = look() {
            panic!("after {:?} it is no longer so: {what}\n{said}", start.elapsed());
        }
        sleep(STEP);
    }
}
