//! Messages in: checked by the hub, then given to the Raft library.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use openraft::EntryPayload;
use openraft::raft::AppendEntriesRequest;

use super::assembly::Assembly;
use super::codec;
use super::fence::Refusal;
use super::hub::Hub;
use super::room::Space;
use super::snapshot;
use super::types::{Raft, Snapshot, TypeConfig};
use super::wire::{Answer, Body, Request, Response, SnapshotPiece};
use crate::store::Machine;

/// The receiving side of one store.
pub(crate) struct Inbox<M: Machine> {
    raft: Raft<M>,
    hub: Arc<Hub>,
    arriving: Mutex<Assembly>,
}

impl<M: Machine> Inbox<M> {
    pub(crate) fn new(raft: Raft<M>, hub: Arc<Hub>) -> Self {
        Inbox { raft, hub, arriving: Mutex::default() }
    }

    /// Takes one message from manager `proved` and gives the bytes to answer with.
    pub(crate) async fn handle(&self, proved: u64, bytes: &[u8]) -> Bytes {
        let result = self.try_handle(proved, bytes).await;
        if let Err(refusal) = &result {
            tracing::debug!(peer = proved, refusal = %refusal, "refused a message");
        }
        let (from, shown, space) = (self.hub.number, self.hub.shown(), self.hub.room.space());
        let response = Response { from, shown, result, space };
        match codec::encode("an answer", &response) {
            Ok(bytes) => Bytes::from(bytes),
            Err(error) => {
                // The sender finds no answer in an empty message and tries again later.
                tracing::error!(%error, "cannot answer");
                Bytes::new()
            }
        }
    }

    async fn try_handle(&self, proved: u64, bytes: &[u8]) -> Result<Answer, Refusal> {
        let request: Request = codec::decode("a message", bytes)
            .map_err(|error| Refusal::Unreadable { reason: error.to_string() })?;
        self.hub.check_request(proved, &request)?;
        let raft = &self.raft;
        match request.body {
            Body::Append(rpc) => {
                check_commands::<M>(&rpc)?;
                if !rpc.entries.is_empty() {
                    self.check_room(0)?;
                }
                raft.append_entries(rpc).await.map(Answer::Append).map_err(stopped)
            }
            Body::Vote(rpc) => raft.vote(rpc).await.map(Answer::Vote).map_err(stopped),
            Body::PreVote(rpc) => raft.pre_vote(rpc).await.map(Answer::Vote).map_err(stopped),
            Body::Transfer(rpc) => {
                raft.handle_transfer_leader(rpc).await.map(Answer::Transfer).map_err(stopped)
            }
            Body::Snapshot(piece) => self.take_piece(request.from, piece).await,
        }
    }

    /// Refuses what the disk could not hold: more than `bytes` and the last of the reserve. The leader
    /// tries again until there is room.
    fn check_room(&self, bytes: u64) -> Result<(), Refusal> {
        let (room, number) = (&self.hub.room, self.hub.number);
        let free = room.free();
        if room.space() == Space::Out || free < bytes {
            return Err(Refusal::NoRoom { number, free });
        }
        Ok(())
    }

    async fn take_piece(&self, from: u64, piece: SnapshotPiece) -> Result<Answer, Refusal> {
        self.check_room(piece.total)?;
        let vote = piece.vote;
        let added = {
            let mut arriving = self.arriving.lock().unwrap_or_else(PoisonError::into_inner);
            arriving.add(from, &piece)?
        };
        let Some(sealed) = added else { return Ok(Answer::Piece) };
        let (meta, _) = snapshot::unpack(&sealed)
            .map_err(|error| Refusal::Unreadable { reason: error.to_string() })?;
        let snapshot = Snapshot { meta, snapshot: sealed };
        let installed = self.raft.install_full_snapshot(vote, snapshot).await.map_err(stopped)?;
        Ok(Answer::Snapshot { vote: installed.vote })
    }
}

/// Refuses commands this version cannot decode. Once in the log they would be acknowledged, and
/// then stop this manager when they are applied; refused, they wait for its upgrade.
fn check_commands<M: Machine>(rpc: &AppendEntriesRequest<TypeConfig>) -> Result<(), Refusal> {
    for entry in &rpc.entries {
        if let EntryPayload::Normal(command) = &entry.payload {
            codec::decode::<M::Proposal>("a command", &command.0)
                .map_err(|error| Refusal::UnknownCommand { reason: error.to_string() })?;
        }
    }
    Ok(())
}

fn stopped(error: impl std::fmt::Display) -> Refusal {
    Refusal::Stopped { reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::raft::types::{Blob, Entry, Vote, log_id};

    /// Knows one command.
    #[derive(Clone, Debug, Default, Serialize, Deserialize)]
    struct Old;

    #[derive(Clone, Debug, Serialize, Deserialize)]
    enum OldCommand {
        Known,
    }

    impl Machine for Old {
        type Proposal = OldCommand;
        type Outcome = ();

        fn apply(&mut self, _index: u64, OldCommand::Known: &OldCommand) {}
    }

    #[derive(Serialize)]
    enum NewCommand {
        Known,
        Added { by: u8 },
    }

    fn append(command: &NewCommand) -> AppendEntriesRequest<TypeConfig> {
        let bytes = codec::encode("a command", command).expect("encodes");
        let entry =
            Entry { log_id: log_id(1, 1), payload: EntryPayload::Normal(Blob(bytes.into())) };
        AppendEntriesRequest {
            vote: Vote::new_committed(1, 1),
            prev_log_id: None,
            entries: vec![entry],
            leader_commit: None,
        }
    }

    #[test]
    fn a_command_of_a_later_version_is_not_acknowledged() {
        assert_eq!(check_commands::<Old>(&append(&NewCommand::Known)), Ok(()));
        let refused = check_commands::<Old>(&append(&NewCommand::Added { by: 2 }));
        assert!(matches!(refused, Err(Refusal::UnknownCommand { .. })), "{refused:?}");
    }
}
