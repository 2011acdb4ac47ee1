//! The state, whatever the log holds.

use std::time::Duration;

use weft_model::{Command, Proposal, State, Time};

/// Most commands of one input: to check all of a state takes longer than to change it.
const COMMANDS: usize = 24;

/// Commands as JSON, one a line, beginning with an empty state. `@` and a hex digit stand for an ID of 64
/// of that digit.
pub fn log(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let mut state = State::default();
    let mut now = Time(1_000);
    for line in text.lines().take(COMMANDS) {
        let Ok(command) = serde_json::from_str::<Command>(&spelled(line)) else { continue };
        now = now + Duration::from_secs(1);
        let before = state.clone();
        let proposal = Proposal { request: None, now, commands: vec![command] };
        let outcome = state.apply(state.revision() + 1, &proposal);
        assert_eq!(state.check(), [], "{line}");
        if outcome.into_result().is_err() {
            // Only the time has gone on.
            let nothing = Proposal { commands: Vec::new(), ..proposal };
            let mut untouched = before;
            untouched.apply(untouched.revision() + 1, &nothing);
            assert!(state == untouched, "a refused command has changed something: {line}");
        }
    }
    looked_at(&state);
}

/// What is made of a state can be made of any.
fn looked_at(state: &State) {
    let bytes = rmp_serde::to_vec_named(state).expect("a state can be written");
    let again: State = rmp_serde::from_slice(&bytes).expect("and read");
    assert!(again == *state, "a snapshot is another state");
    for node in state.nodes() {
        let assignments = state.assignments(node.id);
        let bytes = rmp_serde::to_vec_named(&assignments).expect("assignments can be written");
        let again = rmp_serde::from_slice(&bytes).expect("and read");
        assert_eq!(assignments, again);
    }
}

/// A line with its IDs spelled out.
pub fn spelled(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match chars.peek() {
            Some(digit) if c == '@' && digit.is_ascii_hexdigit() => {
                out.extend(std::iter::repeat_n(*digit, 64));
                chars.next();
            }
            _ => out.push(c),
        }
    }
    out
}
