//! Sessions of one reign: each ends with it, for the next leader must know who is there.

use std::sync::Arc;

use tokio::sync::mpsc;
use weft_model::NodeId;

use super::{Desk, FromWorker, SessionEnd, ToWorker};
use crate::{
    manager::{Core, Manager},
    store::Leadership,
};

impl Manager {
    /// Serves the session of `node`, whose identity the caller has checked, until it ends or this
    /// manager leads no more. Messages are plain values: the wire and the simulation carry them.
    pub async fn session(
        &self,
        node: NodeId,
        inbound: mpsc::Receiver<FromWorker>,
        outbound: mpsc::Sender<ToWorker>,
    ) -> SessionEnd {
        self.core.session(node, inbound, outbound).await
    }
}

impl Core {
    /// See [`Manager::session`].
    pub(super) async fn session(
        &self,
        node: NodeId,
        inbound: mpsc::Receiver<FromWorker>,
        outbound: mpsc::Sender<ToWorker>,
    ) -> SessionEnd {
        let clock = Arc::clone(&self.clock);
        let desk = Desk::new(self.store.clone(), self.sessions.clone(), clock, self.timings);
        let mut leadership = self.store.leadership();
        let reign = leadership.borrow().term;
        let over = |now: &Leadership| !now.is_leader() || now.term != reign;
        tokio::select! {
            end = desk.serve(node, inbound, outbound) => end,
            _ = leadership.wait_for(over) => SessionEnd::Deposed,
            () = self.closing.cancelled() => SessionEnd::Stopped,
        }
    }
}
