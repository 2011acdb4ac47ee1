//! Messages out: the Raft library's network on top of [`Transport`].

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{Either, select};
use openraft::error::{
    NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable,
};
use openraft::network::{RPCOption, RPCTypes, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use rand::RngExt;

use super::codec;
use super::hub::Hub;
use super::runtime::SeededTokio;
use super::types::{Blob, NodeRecord, Snapshot, TypeConfig, Vote};
use super::wire::{Answer, Body, Response, SNAPSHOT_PIECE_BYTES, SnapshotPiece};
use crate::store::{Peer, Transport, TransportError};

/// Time for one piece of a snapshot; it does not hold up heartbeats, which go on their own.
const PIECE_DEADLINE: Duration = Duration::from_secs(10);
/// Time for the last piece, whose answer comes after the snapshot is installed and synced.
const INSTALL_DEADLINE: Duration = Duration::from_secs(60);

/// Makes a client for each peer.
pub(crate) struct Network<T> {
    pub(crate) transport: T,
    pub(crate) hub: Arc<Hub>,
}

impl<T: Transport> RaftNetworkFactory<TypeConfig> for Network<T> {
    type Network = Client<T>;

    async fn new_client(&mut self, target: u64, node: &NodeRecord) -> Client<T> {
        Client {
            transport: self.transport.clone(),
            hub: self.hub.clone(),
            target,
            record: node.clone(),
        }
    }
}

/// Sends to one peer.
pub(crate) struct Client<T> {
    transport: T,
    hub: Arc<Hub>,
    target: u64,
    record: NodeRecord,
}

/// Why a message got no usable answer.
#[derive(Debug, thiserror::Error)]
enum CallError {
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error("manager {peer} refused: {reason}")]
    Refused { peer: u64, reason: String },
    #[error("this store must not take part any more: {reason}")]
    Condemned { reason: String },
    #[error("manager {peer} gave an answer of another kind")]
    WrongAnswer { peer: u64 },
    #[error("{0}")]
    Codec(#[from] codec::CodecError),
}

impl<T: Transport> Client<T> {
    /// Sends one message, checks who answers, and gives the answer.
    async fn call(&self, body: Body, deadline: Duration) -> Result<Answer, CallError> {
        if let Some(refusal) = self.hub.condemned().borrow().as_ref() {
            // A store that must not take part must not ask for votes or lead either.
            return Err(CallError::Condemned { reason: refusal.to_string() });
        }
        let request = self.hub.request(self.target, self.record.incarnation, body);
        let bytes = Bytes::from(codec::encode("a message", &request)?);
        let peer = Peer { number: self.target, address: self.record.address.clone() };
        let called = self.transport.call(&peer, bytes, deadline);
        let answer = tokio::time::timeout(deadline, called)
            .await
            .map_err(|_| TransportError::Timeout { after: deadline })??;
        let response: Response = codec::decode("an answer", &answer)?;
        let refused = |reason: &dyn std::fmt::Display| CallError::Refused {
            peer: self.target,
            reason: reason.to_string(),
        };
        if response.from != self.target {
            return Err(refused(&format_args!("manager {} answered", response.from)));
        }
        self.hub.note_space(self.target, response.space);
        match response.result {
            Ok(answer) => {
                self.hub.admit(self.target, response.shown).map_err(|refusal| refused(&refusal))?;
                self.hub.accepted_by(self.target);
                Ok(answer)
            }
            Err(refusal) => {
                self.hub.refused_by(self.target, &refusal);
                Err(refused(&refusal))
            }
        }
    }

    fn rpc_error(&self, action: RPCTypes, error: &CallError) -> RPCError<TypeConfig> {
        match error {
            CallError::Transport(TransportError::Timeout { after }) => {
                let (id, target) = (self.hub.number, self.target);
                RPCError::Timeout(Timeout { action, id, target, timeout: *after })
            }
            CallError::Transport(TransportError::Interrupted { .. }) => {
                RPCError::Network(NetworkError::new(error))
            }
            CallError::Transport(TransportError::Unreachable { .. })
            | CallError::Refused { .. }
            | CallError::Condemned { .. }
            | CallError::WrongAnswer { .. }
            | CallError::Codec(_) => RPCError::Unreachable(Unreachable::new(error)),
        }
    }

    fn wrong(&self, action: RPCTypes) -> RPCError<TypeConfig> {
        self.rpc_error(action, &CallError::WrongAnswer { peer: self.target })
    }

    async fn ballot(
        &self,
        body: Body,
        option: &RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        match self.call(body, option.soft_ttl()).await {
            Ok(Answer::Vote(response)) => Ok(response),
            Ok(
                Answer::Append(_) | Answer::Transfer(_) | Answer::Piece | Answer::Snapshot { .. },
            ) => Err(self.wrong(RPCTypes::Vote)),
            Err(error) => Err(self.rpc_error(RPCTypes::Vote, &error)),
        }
    }

    /// Sends a snapshot piece by piece; the answer to the last one ends it.
    async fn send_snapshot(
        &self,
        vote: Vote,
        bytes: &Bytes,
    ) -> Result<SnapshotResponse<TypeConfig>, RPCError<TypeConfig>> {
        let action = RPCTypes::InstallSnapshot;
        let transfer = {
            use openraft::AsyncRuntime;
            SeededTokio::thread_rng().random()
        };
        let mut offset = 0;
        loop {
            let end = bytes.len().min(offset + SNAPSHOT_PIECE_BYTES);
            let last = end == bytes.len();
            let piece = SnapshotPiece {
                vote,
                transfer,
                offset: offset as u64,
                total: bytes.len() as u64,
                bytes: Blob(bytes.slice(offset..end)),
            };
            let deadline = if last { INSTALL_DEADLINE } else { PIECE_DEADLINE };
            match self.call(Body::Snapshot(piece), deadline).await {
                // A newer leader was seen there: the vote says so, before the end as well.
                Ok(Answer::Snapshot { vote }) => return Ok(SnapshotResponse { vote }),
                Ok(Answer::Piece) if !last => offset = end,
                Ok(Answer::Piece | Answer::Append(_) | Answer::Vote(_) | Answer::Transfer(_)) => {
                    return Err(self.wrong(action));
                }
                Err(error) => return Err(self.rpc_error(action, &error)),
            }
        }
    }
}

impl<T: Transport> RaftNetworkV2<TypeConfig> for Client<T> {
    type SnapshotData = Bytes;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let action = RPCTypes::AppendEntries;
        match self.call(Body::Append(rpc), option.soft_ttl()).await {
            Ok(Answer::Append(response)) => Ok(response),
            Ok(Answer::Vote(_) | Answer::Transfer(_) | Answer::Piece | Answer::Snapshot { .. }) => {
                Err(self.wrong(action))
            }
            Err(error) => Err(self.rpc_error(action, &error)),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ballot(Body::Vote(rpc), &option).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ballot(Body::PreVote(rpc), &option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let sending = std::pin::pin!(self.send_snapshot(vote, &snapshot.snapshot));
        let cancel = std::pin::pin!(cancel);
        match select(sending, cancel).await {
            Either::Left((sent, _)) => Ok(sent?),
            Either::Right((closed, _)) => Err(StreamingError::Closed(closed)),
        }
    }

    async fn transfer_leader(
        &mut self,
        rpc: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let action = RPCTypes::TransferLeader;
        match self.call(Body::Transfer(rpc), option.soft_ttl()).await {
            Ok(Answer::Transfer(response)) => Ok(response),
            Ok(Answer::Append(_) | Answer::Vote(_) | Answer::Piece | Answer::Snapshot { .. }) => {
                Err(self.wrong(action))
            }
            Err(error) => Err(self.rpc_error(action, &error)),
        }
    }
}
