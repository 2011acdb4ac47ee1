//! What a new cluster is made of.

use weft_model::{
    Cluster, ClusterId, Time,
    object::{ClusterSpec, Meta, Tokens},
};

use crate::ca::{Authority, new_secret};

/// The cluster that `authority` is the root of, with fresh join tokens, for
/// [`super::Manager::bootstrap`]. The authority must have been made for `id`.
pub fn new_cluster(id: ClusterId, authority: &Authority, spec: ClusterSpec, now: Time) -> Cluster {
    Cluster {
        id,
        meta: Meta::new(now),
        spec,
        tokens: Tokens { worker: new_secret(), manager: new_secret(), extra: Vec::new() },
        root_certificate: authority.root_pem().to_owned(),
        root_key: authority.key_pem(),
        next_number: 1,
        last_vni: None,
    }
}
