//! What a node finds on its own disk, and hears from its shims.

use weft_model::{Proposal, State};
use weft_worker::{attach::Intent, fuzzing, local::log};

use super::parts;

/// How the durable log begins, with a snapshot first and without.
const MAGICS: [&[u8; 8]; 2] = [b"weftlog1", b"weftsnp1"];

/// The node's durable log: how it begins, whether its records have their checksums, and they.
pub fn log(input: &[u8]) {
    let Some(([how, cut], rest)) = input.split_first_chunk() else { return };
    let mut bytes = MAGICS[usize::from(how & 1)].to_vec();
    if how & 2 == 0 {
        bytes.extend(rest);
    } else {
        parts(rest).for_each(|body| bytes.extend(record(body)));
        bytes.truncate(bytes.len() - usize::from(*cut).min(bytes.len()));
    }
    let Ok((state, length)) = log::state_of(&bytes) else { return };
    assert!(length <= bytes.len() as u64);
    // What was whole stays whole when the torn end is cut off.
    let whole = &bytes[..usize::try_from(length).expect("it is in memory")];
    let (again, same) = log::state_of(whole).expect("what was read can be read");
    assert!(again == state && same == length);
    // The log may hold the commands of a damaged or foreign daemon; the state keeps its invariants. One
    // that a snapshot brings was checked when it was made.
    if how & 1 == 0 && only_entries(rest) {
        assert_eq!(state.check(), []);
    }
}

fn only_entries(rest: &[u8]) -> bool {
    parts(rest).all(|body| body.windows(7).any(|window| window == b"Entries"))
}

/// With its length and both checksums.
fn record(body: &[u8]) -> Vec<u8> {
    let mut out = u32::try_from(body.len()).expect("it is short").to_be_bytes().to_vec();
    out.extend(crc32fast::hash(body).to_be_bytes());
    out.extend(crc32fast::hash(&out).to_be_bytes());
    out.extend(body);
    out
}

/// Other files: intents, containers' configurations, keys, states.
pub fn files(input: &[u8]) {
    let Some((which, bytes)) = input.split_first() else { return };
    match which % 4 {
        0 => {
            if let Ok(intents) = serde_json::from_slice::<Vec<Intent>>(bytes) {
                let text = serde_json::to_vec(&intents).expect("it can be written");
                let again: Vec<Intent> = serde_json::from_slice(&text).expect("and read");
                assert_eq!(again, intents);
            }
        }
        1 => {
            if let Some(written) = fuzzing::kept(bytes) {
                assert_eq!(fuzzing::kept(&written), Some(written));
            }
        }
        2 => {
            assert!(fuzzing::key(bytes).is_none() || bytes.len() == 8 + 4 + 32);
        }
        _ => {
            let _ = rmp_serde::from_slice::<State>(bytes);
            let _ = rmp_serde::from_slice::<Vec<Proposal>>(bytes);
        }
    }
}

/// What comes from a shim: frames, its status, ports, output and logs.
pub fn shim(input: &[u8]) {
    let Some(([which, cut], bytes)) = input.split_first_chunk() else { return };
    match which % 5 {
        0 => {
            // However the bytes are cut, the frames are the same.
            let cut = usize::from(*cut).min(bytes.len());
            let (whole, pieces) = (
                fuzzing::frames([bytes]).ok(),
                fuzzing::frames([&bytes[..cut], &bytes[cut..]]).ok(),
            );
            assert_eq!(whole, pieces);
            for fields in whole.unwrap_or_default() {
                let fields: Vec<&[u8]> = fields.iter().map(Vec::as_slice).collect();
                let again = fuzzing::frames([&fuzzing::frame(&fields)[..]]).expect("a frame");
                assert_eq!(again, [fields]);
            }
        }
        1 => {
            let Ok(text) = std::str::from_utf8(bytes) else { return };
            let Some(status) = fuzzing::status(text) else { return };
            assert!(status.pid.is_none_or(|pid| pid > 0));
            assert!(status.dns_port.is_none_or(|port| port > 0));
        }
        2 => {
            let Ok(text) = std::str::from_utf8(bytes) else { return };
            if let Some((.., words)) = fuzzing::published(text) {
                let (.., again) = fuzzing::published(&words).expect("its own words");
                assert_eq!(words, again);
            }
            let _ = fuzzing::is_interface_name(text);
        }
        3 => drop(fuzzing::attach_record(bytes)),
        _ => {
            let cut = usize::from(*cut).min(bytes.len());
            let mut whole = bytes.to_vec();
            let all = fuzzing::log(&mut whole);
            let mut pending = bytes[..cut].to_vec();
            let Ok(mut records) = fuzzing::log(&mut pending) else { return };
            pending.extend(&bytes[cut..]);
            let Ok(more) = fuzzing::log(&mut pending) else { return };
            records.extend(more);
            fuzzing::check_records(&records, bytes.len());
            assert_eq!(all.ok(), Some(records));
        }
    }
}
