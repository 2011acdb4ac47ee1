//! Tokio as the Raft library wants it, with randomness that comes from a seed.
//!
//! The library draws election timeouts from its runtime. Here every task has its own generator,
//! derived from the generator of the task that spawned it, so that a simulation on one thread
//! with paused time repeats itself exactly for a given seed.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::time::Duration;

use openraft::{AsyncRuntime, OptionalSend, TokioInstant, TokioRuntime};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

tokio::task_local! {
    static SEED: Cell<u64>;
}

/// The runtime; see the module.
#[derive(Debug)]
pub(crate) struct SeededTokio(TokioRuntime);

/// Runs `future`, and every task the Raft library spawns inside it, on randomness from `seed`.
pub(crate) async fn seeded<F: Future>(seed: u64, future: F) -> F::Output {
    SEED.scope(Cell::new(seed), future).await
}

/// Takes the next seed of this task. Outside a seeded task it falls back on the system's
/// randomness: the library's handles are called from tasks that are not ours to seed.
fn next_seed() -> u64 {
    let next = SEED.try_with(|cell| {
        let mut rng = StdRng::seed_from_u64(cell.get());
        cell.set(rng.random());
        rng.random()
    });
    next.unwrap_or_else(|_| rand::rng().random())
}

impl AsyncRuntime for SeededTokio {
    type JoinError = <TokioRuntime as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <TokioRuntime as AsyncRuntime>::Sleep;
    type Instant = TokioInstant;
    type TimeoutError = <TokioRuntime as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> =
        <TokioRuntime as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = StdRng;
    type Mpsc = <TokioRuntime as AsyncRuntime>::Mpsc;
    type Watch = <TokioRuntime as AsyncRuntime>::Watch;
    type Oneshot = <TokioRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        TokioRuntime::spawn(SEED.scope(Cell::new(next_seed()), future))
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        TokioRuntime::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        TokioRuntime::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: Self::Instant,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout_at(deadline, future)
    }

    fn is_panic(error: &Self::JoinError) -> bool {
        TokioRuntime::is_panic(error)
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        StdRng::seed_from_u64(next_seed())
    }

    fn new(threads: usize) -> Self {
        SeededTokio(TokioRuntime::new(threads))
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(future)
    }

    fn spawn_blocking<F, T>(work: F) -> impl Future<Output = Result<T, io::Error>> + Send
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        TokioRuntime::spawn_blocking(work)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn draws(seed: u64) -> Vec<u64> {
        seeded(seed, async {
            let child = SeededTokio::spawn(async { SeededTokio::thread_rng().random::<u64>() });
            let mut all = vec![SeededTokio::thread_rng().random(), child.await.expect("no panic")];
            all.push(SeededTokio::thread_rng().random());
            all
        })
        .await
    }

    #[tokio::test]
    async fn a_seed_repeats_itself_and_no_two_draws_agree() {
        let first = draws(7).await;
        assert_eq!(first, draws(7).await);
        assert_ne!(first, draws(8).await);
        assert!(first[0] != first[1] && first[1] != first[2] && first[0] != first[2]);
    }

    #[test]
    fn the_library_accepts_the_runtime() {
        let mut runtime = SeededTokio::new(1);
        assert_eq!(runtime.block_on(async { SeededTokio::spawn(async { 5 }).await.ok() }), Some(5));
    }
}
