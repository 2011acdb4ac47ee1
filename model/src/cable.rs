//! Direct links between two containers of this node, made by `weft p2p`.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::id::{CableId, ContainerId};

/// A wire between two containers, on no network. It is there while both run, and goes with the
/// removal of either.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cable {
    /// Its name for ever.
    pub id: CableId,
    /// In the order in which they were asked for.
    pub ends: [CableEnd; 2],
}

/// One end of a wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CableEnd {
    /// The container.
    pub container: ContainerId,
    /// Name of the interface in it.
    pub ifname: String,
    /// With the prefix length of the subnet, which is both ends'.
    pub address: IpNet,
}

impl Cable {
    /// The subnet of both ends.
    pub fn subnet(&self) -> IpNet {
        self.ends[0].address.trunc()
    }

    /// The end in this container.
    pub fn end_in(&self, container: ContainerId) -> Option<&CableEnd> {
        self.ends.iter().find(|end| end.container == container)
    }
}

/// Whether two subnets have an address in common.
pub fn overlap(one: &IpNet, other: &IpNet) -> bool {
    one.contains(other) || other.contains(one)
}
