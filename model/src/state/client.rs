//! Certificates of clients of the API, as long as they could be shown.

use std::sync::Arc;

use super::{State, not_found};
use crate::{
    command::Applied,
    object::{ClientCertificate, SERIALS_BETWEEN},
    rejected::Rejected,
};

/// Most that are remembered; those that expired are dropped first.
const CLIENTS_MAX: usize = 10_000;

impl State {
    pub(super) fn note_client(&mut self, noted: &ClientCertificate) -> Result<Applied, Rejected> {
        self.has_cluster()?;
        let expired = self.clients.values().filter(|other| other.expires <= self.now);
        let expired: Vec<_> = expired.map(|other| other.serial.clone()).collect();
        for serial in expired {
            self.clients.remove_mut(&serial);
        }
        let count = self.clients.size();
        if count >= CLIENTS_MAX {
            return Err(Rejected::Exhausted {
                pool: "client certificates".to_owned(),
                detail: format!("{count} of {CLIENTS_MAX} have not expired"),
                hint: "wait until some have expired, or give them shorter lives: --ttl".to_owned(),
            });
        }
        if self.clients.contains_key(&noted.serial) {
            return Err(Rejected::Exists {
                kind: "client certificate".to_owned(),
                name: noted.name.clone(),
                id: noted.serial.clone(),
            });
        }
        self.clients.insert_mut(noted.serial.clone(), Arc::new(noted.clone()));
        Ok(Applied::of(&noted.serial))
    }

    pub(super) fn revoke_client(&mut self, serials: &[String]) -> Result<Applied, Rejected> {
        for serial in serials {
            let found = self.client(serial);
            let found = found.ok_or_else(|| not_found("client certificate", serial))?;
            let mut next = ClientCertificate::clone(found);
            next.revoked.get_or_insert(self.now);
            self.clients.insert_mut(serial.clone(), Arc::new(next));
        }
        Ok(Applied { id: serials.join(SERIALS_BETWEEN) })
    }
}
