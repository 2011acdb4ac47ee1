//! What every figure is given.

use weft_tests::Lab;

use crate::{
    cluster::Cluster,
    ours::Ours,
    report::{Kept, Page},
    swarm::Swarm,
};

/// Where to start clusters and where to write.
pub struct Bench {
    pub page: Page,
    with_peer: bool,
}

impl Bench {
    /// With the peer, unless `PEER` is 0.
    pub fn new() -> Self {
        let without = std::env::var_os("PEER").is_some_and(|value| value == "0");
        let kept = if without { Kept::OnlyShown } else { Kept::Written };
        Self { page: Page::new(kept), with_peer: !without }
    }

    /// A cluster of ours; the first hosts are its managers.
    pub fn ours(&self, name: &str, managers: usize, workers: usize) -> Box<dyn Cluster> {
        Box::new(Ours::new(name, managers, workers))
    }

    /// The same in the hosts of a lab, which run nothing yet.
    pub fn ours_in(&self, lab: Lab, managers: usize) -> Box<dyn Cluster> {
        Box::new(Ours::joined(lab, managers))
    }

    pub fn with_peer(&self) -> bool {
        self.with_peer
    }

    /// A cluster of the peer's, of the same size, if it is wanted.
    pub fn peer(&self, name: &str, managers: usize, workers: usize) -> Option<Box<dyn Cluster>> {
        self.with_peer.then(|| Box::new(Swarm::new(name, managers, workers)) as Box<dyn Cluster>)
    }

    /// An engine of ours on one host, in no cluster, and behind it the peer's if it is wanted.
    pub fn engines(&self, name: &str) -> Vec<Box<dyn Cluster>> {
        let mut engines: Vec<Box<dyn Cluster>> = vec![Box::new(Ours::started(name, 1))];
        if self.with_peer {
            engines.push(Box::new(Swarm::started(&format!("{name}-peer"), 1)));
        }
        engines
    }
}
