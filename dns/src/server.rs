//! Serving many sandboxes from one runtime. Each brings its own sockets, bound in its namespace by
//! somebody else, and the socket is what tells who asks (D5): nothing in a query does.
//!
//! The sockets may be held by another process as well. When this server goes, they are dropped
//! here and live on there; queries wait in them until the next server takes over.

mod sandbox;
mod tcp;
mod thread;
mod totals;
mod udp;

use std::collections::BTreeMap;
use std::io;
use std::net::{TcpListener, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use sandbox::Sandbox;
pub use sandbox::Stats;
use thread::Thread;
pub use totals::{Origin, Outcome, Totals, WAITS};

use crate::asker::Asker;
use crate::forward::Forwarder;
use crate::zone::Zones;

/// What all sandboxes share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) zones: ArcSwap<Zones>,
    pub(crate) forwarder: Arc<Forwarder>,
    pub(crate) counts: totals::Counts,
}

/// The resolver of a node. Dropping it stops everything it started.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    runtime: Handle,
    running: Mutex<BTreeMap<String, Running>>,
    /// What the runtime runs on, if it is the server's own. After the tasks, which end first.
    _thread: Option<Thread>,
}

/// One sandbox and its tasks, which end with this value.
#[derive(Debug)]
struct Running {
    sandbox: Arc<Sandbox>,
    tasks: JoinSet<()>,
}

/// Why a sandbox is not served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("sandbox {key} is already served")]
    Exists { key: String },
    #[error("sandbox {key} is not served")]
    Unknown { key: String },
    #[error("cannot use the sockets of sandbox {key}")]
    Socket { key: String, source: io::Error },
}

impl Server {
    /// A server without sandboxes, whose tasks run on this runtime.
    pub fn new(zones: Zones, runtime: Handle) -> Self {
        let forwarder = Arc::default();
        let (zones, counts) = (ArcSwap::from_pointee(zones), totals::Counts::default());
        let shared = Arc::new(Shared { zones, forwarder, counts });
        Self { shared, runtime, running: Mutex::default(), _thread: None }
    }

    /// A server without sandboxes and with a thread of its own: what else the process does delays no
    /// answer, and no answer wanders between threads.
    pub fn start(zones: Zones) -> io::Result<Self> {
        let thread = Thread::start()?;
        let server = Self::new(zones, thread.runtime());
        Ok(Self { _thread: Some(thread), ..server })
    }

    /// Replaces all zones at once; the next query of every sandbox sees them.
    pub fn publish(&self, zones: Zones) {
        self.shared.zones.store(Arc::new(zones));
    }

    /// What is answered from now.
    pub fn zones(&self) -> Arc<Zones> {
        self.shared.zones.load_full()
    }

    /// Serves a sandbox on its sockets.
    pub fn add(
        &self,
        key: &str,
        asker: Asker,
        udp: UdpSocket,
        tcp: TcpListener,
    ) -> Result<(), ServeError> {
        self.register(key, Some(asker), udp, tcp)
    }

    /// Serves a sandbox as soon as [`Self::update`] has said who it is. Until then its queries
    /// wait in the sockets: one that is on no network yet would be told that its names do not
    /// exist.
    pub fn add_unknown(
        &self,
        key: &str,
        udp: UdpSocket,
        tcp: TcpListener,
    ) -> Result<(), ServeError> {
        self.register(key, None, udp, tcp)
    }

    fn register(
        &self,
        key: &str,
        asker: Option<Asker>,
        udp: UdpSocket,
        tcp: TcpListener,
    ) -> Result<(), ServeError> {
        let mut running = self.lock();
        if running.contains_key(key) {
            return Err(ServeError::Exists { key: key.into() });
        }
        // Registering a socket needs the runtime to be current.
        let _entered = self.runtime.enter();
        let socket = |source| ServeError::Socket { key: key.into(), source };
        let (udp, tcp) = adopt(udp, tcp).map_err(socket)?;
        let port = udp.local_addr().map_err(socket)?.port();
        let sandbox = Arc::new(Sandbox::new(self.shared.clone(), asker));
        let mut tasks = JoinSet::new();
        tasks.spawn_on(udp::serve(sandbox.clone(), Arc::new(udp), port), &self.runtime);
        tasks.spawn_on(tcp::serve(sandbox.clone(), tcp), &self.runtime);
        running.insert(key.into(), Running { sandbox, tasks });
        Ok(())
    }

    /// Changes who a sandbox is: its networks, its servers. The next query sees it.
    pub fn update(&self, key: &str, asker: Asker) -> Result<(), ServeError> {
        let running = self.lock();
        let unknown = || ServeError::Unknown { key: key.into() };
        running.get(key).ok_or_else(unknown)?.sandbox.update(asker);
        Ok(())
    }

    /// Stops serving a sandbox and lets go of its sockets.
    pub fn remove(&self, key: &str) -> Result<(), ServeError> {
        let unknown = || ServeError::Unknown { key: key.into() };
        self.lock().remove(key).map(drop).ok_or_else(unknown)
    }

    /// The sandboxes served, in order.
    pub fn sandboxes(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    /// What a sandbox has asked and been told.
    pub fn stats(&self, key: &str) -> Option<Stats> {
        self.lock().get(key).map(|running| running.sandbox.counters.read())
    }

    /// What all sandboxes together have asked and been told since the server's start.
    pub fn totals(&self) -> Totals {
        self.shared.counts.read()
    }

    /// Stops everything and waits until all sockets are let go, so that the next server is the
    /// only one that reads them.
    pub async fn shutdown(self) {
        let all = std::mem::take(&mut *self.lock());
        for mut running in all.into_values() {
            running.tasks.shutdown().await;
        }
    }

    /// The map is whole also if a holder of the lock panicked: each change is one call.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn adopt(
    udp: UdpSocket,
    tcp: TcpListener,
) -> io::Result<(tokio::net::UdpSocket, tokio::net::TcpListener)> {
    udp.set_nonblocking(true)?;
    tcp.set_nonblocking(true)?;
    Ok((tokio::net::UdpSocket::from_std(udp)?, tokio::net::TcpListener::from_std(tcp)?))
}
