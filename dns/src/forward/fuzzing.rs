//! The readers of upstream servers' answers, for the fuzzer and the replay of what it found.

use super::relay::Relay;
use crate::answer::Foreign;

/// What a client gets of an upstream's message `age` seconds after it came, if it is well formed.
/// The question in it must already be as long as the client's.
pub fn relayed(message: &[u8], foreign: &Foreign, age: u32) -> Option<Vec<u8>> {
    let relay = Relay::new(message, foreign.question.len())?;
    Some(relay.reply(foreign, age))
}

/// How long such a message may be kept, in seconds.
pub fn kept_for(message: &[u8], question: usize) -> Option<u64> {
    Relay::new(message, question)?.keep().map(|keep| keep.as_secs())
}
