//! The local engine: containers and networks of this node alone, which belong to no cluster.
//!
//! [`engine`] owns the node's own `State`, which [`log`] keeps on the disk. [`drivers`] runs one
//! [`driver`] for each container, whose steps are in [`make`]; [`plane`] says what the state means for
//! the kernel and for names, [`files`] what it means for a container's /etc. [`calls`] is what users
//! ask for, [`choose`] what is decided for them.
//!
//! **Architecture invariant:** no manager is asked, but for addresses on networks of the cluster.

mod backoff;
mod calls;
mod choose;
pub mod defaults;
mod driver;
mod drivers;
pub mod engine;
mod files;
mod health;
mod leases;
pub mod live;
pub mod log;
mod make;
mod name;
mod named;
mod networks;
mod pair;
pub mod plane;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicU16},
};

use weft_model::{ContainerId, State, object::Holder};

pub use calls::{Attachment, CallError, Made};
pub(crate) use choose::unpublished;
pub use defaults::Defaults;
pub use engine::{Engine, ProposeError};
pub use live::Live;
pub use log::LogError;
pub(crate) use named::of_container;
pub use weft_ipam::AddressPool;

use crate::{
    attach::Ground,
    container::Found,
    plumbing::{Own, Plumbed},
    tasks::Context,
};

/// Where the engine keeps its things, below the state directory.
const DIRECTORY: &str = "local";

/// Why the engine cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// What it keeps.
    #[error("this node's own state cannot be read")]
    Log(#[from] LogError),
    /// The predefined networks.
    #[error("the default networks cannot be made")]
    Networks(#[from] ProposeError),
    /// The machine's routes.
    #[error("the routes of this machine cannot be read")]
    Facts(#[from] crate::facts::FactError),
}

/// The engine with its state read, and nothing running yet.
pub struct Opened {
    engine: Engine,
    defaults: Arc<Defaults>,
    directory: PathBuf,
    state_dir: PathBuf,
}

/// The local engine.
pub struct Local {
    pub(crate) engine: Engine,
    pub(crate) table: live::Table,
    pub(crate) defaults: Arc<Defaults>,
    pub(crate) context: Arc<Context>,
    pub(crate) ground: Arc<dyn Ground>,
    directory: PathBuf,
    state_dir: PathBuf,
    /// The port of the host that was chosen last; 0 before the first.
    port_cursor: AtomicU16,
    leases: leases::Leases,
    names: name::Names,
}

/// The containers that an earlier run of the daemon has left in the state, each with what the runtime
/// has of it. All others are new: nothing of them can have run.
pub type Leftovers = BTreeMap<ContainerId, Option<Found>>;

impl Opened {
    /// Reads what is kept, and makes the predefined networks or gives them the daemon's settings.
    ///
    /// # Errors
    /// When that is not possible: without it containers would be taken for strangers.
    pub fn open(state_dir: &Path, defaults: Defaults) -> Result<Self, StartError> {
        let directory = state_dir.join(DIRECTORY);
        let engine = Engine::open(&directory)?;
        networks::make_predefined(&engine, &defaults)?;
        let (defaults, state_dir) = (Arc::new(defaults), state_dir.to_owned());
        Ok(Self { engine, defaults, directory, state_dir })
    }

    /// What the data plane needs of it.
    pub fn own(&self) -> Own {
        Own { state: self.engine.watch(), defaults: Arc::clone(&self.defaults) }
    }

    /// Takes out of `found` what is of `weft run`: what the state knows, and strangers.
    pub fn sort_found(&self, found: Vec<Found>) -> (Leftovers, Vec<Found>, Vec<Found>) {
        let state = self.engine.state();
        let mut own: Leftovers = state.containers().map(|known| (known.id, None)).collect();
        let (mut strangers, mut others) = (Vec::new(), Vec::new());
        for found in found {
            let id = found.id.as_str().parse().ok();
            match id.filter(|id| state.container(*id).is_some()) {
                Some(id) => {
                    own.insert(id, Some(found));
                }
                None if make::is_ours(&found) => strangers.push(found),
                None => others.push(found),
            }
        }
        (own, strangers, others)
    }

    /// The sandboxes of containers that run: the first look at the kernel must know them.
    pub fn adopted(&self, leftovers: &Leftovers) -> BTreeMap<Holder, Plumbed> {
        let state = self.engine.state();
        let plumbed = |(id, found): (&ContainerId, &Option<Found>)| {
            let found = found.as_ref()?;
            let container = state.container(*id)?;
            Some((Holder::Container(*id), make::adopted(container, found)?))
        };
        leftovers.iter().filter_map(plumbed).collect()
    }

    /// The engine over the rest of the worker; [`Local::run`] drives the containers.
    pub fn into_local(self, context: Arc<Context>, ground: Arc<dyn Ground>) -> Arc<Local> {
        Arc::new(Local {
            engine: self.engine,
            table: live::Table::default(),
            defaults: self.defaults,
            context,
            ground,
            directory: self.directory,
            state_dir: self.state_dir,
            port_cursor: AtomicU16::new(0),
            leases: leases::Leases::default(),
            names: name::Names::default(),
        })
    }
}

impl Local {
    /// The newest state.
    pub fn state(&self) -> Arc<State> {
        self.engine.state()
    }

    /// What is seen of a container.
    pub fn live(&self, id: ContainerId) -> Live {
        self.table.live(id)
    }
}
