//! The cluster and its tokens.

use std::{sync::Arc, time::Duration};

use super::{State, expect_version};
use crate::{
    command::{Applied, NewNode},
    object::{Cluster, ClusterSpec, ExtraToken, Secret},
    rejected::Rejected,
    spec::{Invalid, Role},
    tunnel::LANES_MAX,
};

/// The last first port: all lanes of both generations follow it.
const WIREGUARD_PORT_MAX: u16 = u16::MAX - 2 * LANES_MAX;
/// Rotations take seconds; more often than this they would never rest.
const KEY_ROTATION_MIN: Duration = Duration::from_secs(60);
/// Most tokens beside the standing ones; those that expired are dropped first.
const EXTRA_TOKENS_MAX: usize = 1_000;

impl State {
    pub(super) fn create_cluster(
        &mut self,
        cluster: &Cluster,
        node: &NewNode,
    ) -> Result<Applied, Rejected> {
        if let Some(present) = &self.cluster {
            return Err(Rejected::Exists {
                kind: "cluster".to_owned(),
                name: present.id.short(),
                id: present.id.to_string(),
            });
        }
        check_spec(&cluster.spec)?;
        self.cluster = Some(Arc::new(cluster.clone()));
        self.insert_node(node)?;
        Ok(Applied::of(cluster.id))
    }

    pub(super) fn update_cluster(
        &mut self,
        expect: Option<u64>,
        spec: &ClusterSpec,
    ) -> Result<Applied, Rejected> {
        let found = self.has_cluster()?;
        expect_version("cluster", &found.id.short(), expect, found.meta.version)?;
        check_spec(spec)?;
        if found.spec.data_path_port != spec.data_path_port && self.networks.size() > 0 {
            return Err(Rejected::Forbidden {
                what: "the data path port cannot be changed".to_owned(),
                why: "there are networks".to_owned(),
                hint: "remove the networks first".to_owned(),
            });
        }
        let encrypted = self.networks().find(|network| network.encrypted);
        if let Some(network) =
            encrypted.filter(|_| found.spec.wireguard_port != spec.wireguard_port)
        {
            return Err(Rejected::Forbidden {
                what: "the WireGuard port cannot be changed".to_owned(),
                why: format!("network {} is encrypted", network.spec.name),
                hint: "remove the encrypted networks first".to_owned(),
            });
        }
        self.change_cluster(|cluster| cluster.spec = spec.clone())
    }

    pub(super) fn rotate_token(&mut self, role: Role, secret: Secret) -> Result<Applied, Rejected> {
        self.change_cluster(|cluster| match role {
            Role::Worker => cluster.tokens.worker = secret,
            Role::Manager => cluster.tokens.manager = secret,
        })
    }

    pub(super) fn mint_token(&mut self, token: &ExtraToken) -> Result<Applied, Rejected> {
        let now = self.now;
        let extra = &self.has_cluster()?.tokens.extra;
        let valid = extra.iter().filter(|token| token.expires.is_none_or(|at| at > now)).count();
        if valid >= EXTRA_TOKENS_MAX {
            return Err(Rejected::Exhausted {
                pool: "join tokens".to_owned(),
                detail: format!("{valid} of {EXTRA_TOKENS_MAX} have not expired"),
                hint: "wait until some have expired, or use the standing token".to_owned(),
            });
        }
        self.change_cluster(|cluster| {
            cluster.tokens.extra.retain(|token| token.expires.is_none_or(|at| at > now));
            cluster.tokens.extra.push(token.clone());
        })
    }

    /// The role that a token's secret gives, or the one refusal that all wrong secrets get.
    ///
    /// # Errors
    /// [`Rejected::Token`].
    pub fn role_of_token(&self, secret: &Secret) -> Result<Role, Rejected> {
        let tokens = &self.has_cluster()?.tokens;
        // Each comparison looks at all bytes, so that the time tells nothing of how many match.
        let same = |other: &Secret| {
            other.iter().zip(secret).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
        };
        let standing = [(&tokens.worker, Role::Worker), (&tokens.manager, Role::Manager)];
        let extra = tokens.extra.iter().filter(|token| {
            token.expires.is_none_or(|at| at > self.now) && token.uses.is_none_or(|uses| uses > 0)
        });
        standing
            .into_iter()
            .chain(extra.map(|token| (&token.secret, token.role)))
            .filter(|(other, _)| same(other))
            .fold(None, |_, (_, role)| Some(role))
            .ok_or(Rejected::Token)
    }

    /// Counts a use of the token, if its uses are counted.
    pub(super) fn use_token(&mut self, secret: &Secret) -> Result<Applied, Rejected> {
        self.change_cluster(|cluster| {
            for token in cluster.tokens.extra.iter_mut().filter(|t| t.secret == *secret) {
                token.uses = token.uses.map(|uses| uses.saturating_sub(1));
            }
        })
    }

    pub(super) fn change_cluster(
        &mut self,
        change: impl FnOnce(&mut Cluster),
    ) -> Result<Applied, Rejected> {
        let mut cluster = Cluster::clone(self.has_cluster()?);
        change(&mut cluster);
        cluster.meta.touch(self.now);
        let id = cluster.id;
        self.cluster = Some(Arc::new(cluster));
        Ok(Applied::of(id))
    }
}

fn check_spec(spec: &ClusterSpec) -> Result<(), Invalid> {
    if spec.pools.is_empty() {
        return Err(Invalid::new("--default-addr-pool", "", "at least one pool is needed"));
    }
    for (index, pool) in spec.pools.iter().enumerate() {
        if pool.trunc() != *pool {
            return Err(Invalid::new("--default-addr-pool", pool, "has host bits set")
                .hint(format!("did you mean {}?", pool.trunc())));
        }
        if let Some(other) = spec.pools[..index].iter().find(|p| weft_ipam::overlaps(**p, *pool)) {
            let reason = format!("overlaps the pool {other}");
            return Err(Invalid::new("--default-addr-pool", pool, reason));
        }
        let longest = pool.max_prefix_len() - 3;
        if spec.subnet_size < pool.prefix_len() || spec.subnet_size > longest {
            let reason = format!("must be from {} to {longest} for {pool}", pool.prefix_len());
            return Err(Invalid::new("--default-addr-pool-mask-length", spec.subnet_size, reason));
        }
    }
    if !(1024..=49_151).contains(&spec.data_path_port) {
        let reason = "must be from 1024 to 49151";
        return Err(Invalid::new("--data-path-port", spec.data_path_port, reason));
    }
    if !(1024..=WIREGUARD_PORT_MAX).contains(&spec.wireguard_port) {
        let reason = format!("must be from 1024 to {WIREGUARD_PORT_MAX}");
        return Err(Invalid::new("--wireguard-port", spec.wireguard_port, reason));
    }
    if let Some(period) = spec.key_rotation.filter(|period| *period < KEY_ROTATION_MIN) {
        let value = format!("{} s", period.as_secs());
        return Err(Invalid::new("--key-rotation", value, "at least 1m, or 0 for never"));
    }
    if spec.certificate_expiry.as_secs() < 3600 {
        let value = format!("{} s", spec.certificate_expiry.as_secs());
        return Err(Invalid::new("--cert-expiry", value, "at least 1h"));
    }
    Ok(())
}
