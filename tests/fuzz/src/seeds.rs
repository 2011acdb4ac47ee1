//! Inputs to begin with that no hand would write: what real states look like on the wire and on disks.
//! They are made of the commands in `corpus/state`.

use std::{fs, io, path::Path};

use weft_model::{Assignments, Command, Proposal, State, Time};

use crate::targets::state::spelled;

/// Writes them below this directory, in a directory for each target.
pub fn write(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory.join("state"))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let text = fs::read_to_string(&path)?;
        let commands = text.lines().filter_map(|line| {
            let command = serde_json::from_str::<Command>(&spelled(line));
            if let Err(error) = &command {
                eprintln!("{name}: {error}: {line}");
            }
            command.ok()
        });
        let mut state = State::default();
        let mut proposals = Vec::new();
        for command in commands {
            let now = Time(1_000 + 1_000 * state.revision());
            let proposal = Proposal { request: None, now, commands: vec![command] };
            let outcome = state.apply(state.revision() + 1, &proposal);
            if let Err(refused) = outcome.into_result() {
                eprintln!("{name}: {refused}");
            }
            proposals.push(proposal);
        }
        of_state(directory, &name, &state, &proposals)?;
    }
    Ok(())
}

fn of_state(directory: &Path, name: &str, state: &State, proposals: &[Proposal]) -> io::Result<()> {
    let put = |target: &str, head: &[u8], body: &[u8]| {
        fs::create_dir_all(directory.join(target))?;
        fs::write(directory.join(target).join(name), [head, body].concat())
    };
    let named = |value: &dyn Fn() -> Result<Vec<u8>, rmp_serde::encode::Error>| {
        value().map_err(io::Error::other)
    };
    for node in state.nodes().take(1) {
        let assignments = state.assignments(node.id);
        let changes = Assignments::default().changes_to(&assignments);
        put("session", &[0], &named(&|| rmp_serde::to_vec_named(&changes))?)?;
    }
    if let Some(last) = proposals.last() {
        put("raft_messages", &[3], &named(&|| rmp_serde::to_vec_named(last))?)?;
    }
    let entries = std::collections::BTreeMap::from([("Entries", proposals)]);
    put("node_log", &[2, 0], &named(&|| rmp_serde::to_vec_named(&entries))?)?;
    put("node_files", &[3], &named(&|| rmp_serde::to_vec_named(state))?)
}
