//! What carries this node's encrypted links.

use std::path::Path;

use weft_model::{Engine, tunnel::LANES_MAX};
use weft_overlay::{
    kernel::{KernelError, wireguard_available},
    wire::Client,
};

/// Up to this many processors there is one lane: the daemon and the containers need the other.
const CORES_OF_ONE_LANE: usize = 2;
/// Most lanes that are chosen; one carries several gigabits a second.
const LANES: usize = 8;

/// What carries them, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The kernel, or a process of ours.
    pub engine: Engine,
    /// Why that one, in words.
    pub reason: String,
    /// Parallel links to each other node.
    pub lanes: u16,
}

/// The kernel was to do it, and cannot.
#[derive(Debug, thiserror::Error)]
#[error("--wireguard kernel is not possible")]
pub struct NoWireguard(#[source] KernelError);

/// What the daemon was told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// What is to carry them; what is there, if nothing was said.
    pub engine: Option<Engine>,
    /// Parallel links; as the processors are, if nothing was said.
    pub lanes: Option<u16>,
}

impl Choice {
    /// Looks at the kernel, which may load its module, and decides. Blocks for some milliseconds.
    ///
    /// # Errors
    /// When the kernel is to do it, and has no WireGuard.
    pub fn new(wish: Wish) -> Result<Self, NoWireguard> {
        let (engine, reason) = match wish.engine {
            Some(Engine::Kernel) => {
                wireguard_available().map_err(NoWireguard)?;
                (Engine::Kernel, "--wireguard kernel".to_owned())
            }
            Some(Engine::Userspace) => (Engine::Userspace, "--wireguard userspace".to_owned()),
            None => match wireguard_available() {
                Ok(()) => (Engine::Kernel, "this kernel has WireGuard".to_owned()),
                Err(error) => (Engine::Userspace, error.to_string()),
            },
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self { engine, reason, lanes: lanes(engine, cores, wish.lanes) })
    }

    /// The same with as many lanes as an engine that runs already: what the others send on a lane that is
    /// gone is lost until they have been told. Blocks for some milliseconds.
    #[must_use]
    pub fn keeping_lanes(self, run_dir: &Path) -> Self {
        let running = (self.engine == Engine::Userspace).then(|| lanes_of(run_dir)).flatten();
        let lanes = running.unwrap_or(self.lanes);
        if lanes != self.lanes {
            tracing::warn!(
                lanes,
                wanted = self.lanes,
                "the engine of encrypted networks keeps its lanes until it is started anew"
            );
        }
        Self { lanes, ..self }
    }

    /// A process with one lane, for machines in memory.
    pub(crate) fn in_memory() -> Self {
        Self { engine: Engine::Userspace, reason: "a machine in memory".to_owned(), lanes: 1 }
    }
}

/// Those of the engine of a run directory, if one runs and has been told.
fn lanes_of(run_dir: &Path) -> Option<u16> {
    let config = Client::connect(run_dir).ok()?.get().ok()?;
    let lanes = u16::try_from(config.identities.first()?.ports.len()).ok()?;
    (1..=LANES_MAX).contains(&lanes).then_some(lanes)
}

fn lanes(engine: Engine, cores: usize, wish: Option<u16>) -> u16 {
    match (engine, wish) {
        (Engine::Kernel, _) => 1,
        (Engine::Userspace, Some(wish)) => wish.clamp(1, LANES_MAX),
        (Engine::Userspace, None) if cores <= CORES_OF_ONE_LANE => 1,
        (Engine::Userspace, None) => u16::try_from((cores - 1).min(LANES)).unwrap_or(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_leave_a_core_for_others() {
        let table = [(1, 1), (2, 1), (3, 2), (4, 3), (9, 8), (64, 8)];
        for (cores, wanted) in table {
            assert_eq!(lanes(Engine::Userspace, cores, None), wanted, "{cores} cores");
            assert_eq!(lanes(Engine::Kernel, cores, Some(3)), 1);
        }
        assert_eq!(lanes(Engine::Userspace, 1, Some(4)), 4);
        assert_eq!(lanes(Engine::Userspace, 1, Some(99)), LANES_MAX);
    }

    #[test]
    fn what_is_chosen_says_why() {
        let wish = |engine| Wish { engine, lanes: None };
        let forced = Choice::new(wish(Some(Engine::Userspace))).unwrap();
        assert_eq!(
            (forced.engine, forced.reason.as_str()),
            (Engine::Userspace, "--wireguard userspace")
        );
        let own = Choice::new(wish(None)).unwrap();
        match Choice::new(wish(Some(Engine::Kernel))) {
            Ok(_) => assert_eq!(own.engine, Engine::Kernel),
            Err(error) => {
                assert_eq!(own.engine, Engine::Userspace);
                assert_eq!(own.reason, error.0.to_string());
            }
        }
    }
}
