//! One connection to each other node, shared by everything that calls it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use tonic::transport::Channel;
use weft_model::NodeId;
use weft_proto::tls::{HostPort, LiveIdentity, address::HostPortError, channel, member_channel};

/// Most connections kept; beyond it all are dropped and dialled again when used.
const CHANNELS_MAX: usize = 256;

/// Connections by address. Clones share them.
#[derive(Clone)]
pub(crate) struct Channels(Arc<Inner>);

struct Inner {
    identity: LiveIdentity,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    /// Serial number of the certificate that the connections were opened with.
    serial: String,
    by_address: BTreeMap<String, Channel>,
}

impl Channels {
    pub(crate) fn new(identity: LiveIdentity) -> Self {
        Self(Arc::new(Inner { identity, open: Mutex::default() }))
    }

    /// The connection to the manager at `address`; it dials when it is used. A renewed certificate
    /// makes new connections, so that a new role counts at once.
    pub(crate) fn manager(&self, address: &str) -> Result<Channel, HostPortError> {
        self.get(address.to_owned(), address, channel)
    }

    /// The connection to whatever node listens at `address`, if it is `node`.
    pub(crate) fn node(&self, address: &str, node: NodeId) -> Result<Channel, HostPortError> {
        let key = format!("{node}@{address}");
        self.get(key, address, |identity, to| member_channel(identity, to, &node.to_string()))
    }

    fn get(
        &self,
        key: String,
        address: &str,
        dial: impl FnOnce(&LiveIdentity, &HostPort) -> Channel,
    ) -> Result<Channel, HostPortError> {
        let host_port: HostPort = address.parse()?;
        let serial = self.0.identity.subject().serial;
        let mut open = self.0.open.lock().expect("no holder panics");
        if open.serial != serial || open.by_address.len() >= CHANNELS_MAX {
            *open = Open { serial, by_address: BTreeMap::new() };
        }
        let dial = || dial(&self.0.identity, &host_port);
        Ok(open.by_address.entry(key).or_insert_with(dial).clone())
    }
}
