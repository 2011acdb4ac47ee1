//! How the encrypted links of this node do, for who asks.

use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::watch;
use tonic::Status;
use weft_model::NodeId;
use weft_overlay::{
    Reconciler,
    wire::{self, PeerStatus, Reason},
};
use weft_proto::v1::{NodeLinksResponse, TunnelPeer};

use super::End;
use crate::{desired::Sorted, plumbing::Assigned};

/// Where the state of the links is found.
#[derive(Clone)]
pub struct Links {
    /// Asks the engine, or the kernel.
    pub kernel: Arc<Reconciler>,
    /// This node's end.
    pub end: watch::Receiver<Arc<End>>,
    /// Who is at the other ends.
    pub assigned: watch::Receiver<Assigned>,
}

impl Links {
    /// All links and what was dropped; none on a node without encrypted networks.
    ///
    /// # Errors
    /// When what carries the links does not answer.
    pub async fn look(&self) -> Result<NodeLinksResponse, Status> {
        let (_, assignments) = self.assigned.borrow().clone();
        let sorted = Sorted::new(&assignments);
        let tunnel = sorted.tunnel(&self.end.borrow());
        let Some(tunnel) = tunnel else { return Ok(NodeLinksResponse::default()) };
        let looked = self.kernel.tunnel_status(tunnel).await;
        let looked = looked.map_err(|error| Status::unavailable(error.to_string()))?;
        let status = looked.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(to_wire(&sorted, &status))
    }
}

fn to_wire(sorted: &Sorted<'_>, status: &wire::Status) -> NodeLinksResponse {
    let peers = sorted.peers.iter().map(|(id, item)| {
        let seen = status.peers.get(&item.number).cloned().unwrap_or_default();
        peer(*id, &item.hostname, &seen)
    });
    NodeLinksResponse { peers: peers.collect(), drops: drops(&status.drops) }
}

fn peer(id: NodeId, hostname: &str, seen: &PeerStatus) -> TunnelPeer {
    TunnelPeer {
        node_id: id.to_string(),
        hostname: hostname.to_owned(),
        endpoint: seen.endpoint.map(|endpoint| endpoint.to_string()).unwrap_or_default(),
        handshake_age: seen.handshake_age.map(|age| weft_proto::well_known::Duration {
            seconds: i64::try_from(age.as_secs()).unwrap_or(i64::MAX),
            nanos: age.subsec_nanos().cast_signed(),
        }),
        sent_bytes: seen.sent,
        received_bytes: seen.received,
        drops: drops(&seen.drops),
    }
}

fn drops(by_reason: &BTreeMap<Reason, u64>) -> BTreeMap<String, u64> {
    by_reason.iter().map(|(reason, count)| (word(*reason).to_owned(), *count)).collect()
}

fn word(reason: Reason) -> &'static str {
    match reason {
        Reason::Forged => "forged",
        Reason::Replayed => "replayed",
        Reason::Malformed => "malformed",
        Reason::ForeignInside => "foreign-inside",
        Reason::ForeignNetwork => "foreign-network",
        Reason::SpoofedSource => "spoofed-source",
        Reason::UnderLoad => "under-load",
        Reason::NoDestination => "no-destination",
        Reason::NoSession => "no-session",
        Reason::Device => "device",
        Reason::Congested => "congested",
    }
}
