//! What the engine acknowledges is on the disk, a refusal changes nothing, and a retry changes
//! nothing again.

use std::{path::Path, sync::Arc};

use weft_ipam::default_pools;
use weft_model::{
    Command, NetworkId, Rejected, State,
    command::Named,
    id::RequestId,
    spec::{Driver, NetworkSpec},
    state::Surroundings,
};
use weft_worker::local::{Engine, ProposeError};

/// A network of this name, with a subnet chosen on the newest state.
fn network(name: &str) -> impl FnOnce(&State) -> Result<Vec<Command>, Rejected> + Send + 'static {
    let (id, spec) =
        (NetworkId::from_bytes(rand::random()), NetworkSpec::new(name, Driver::Bridge));
    move |state| {
        let pools = default_pools();
        let around = Surroundings { pools: &pools, global_id: 1, used: &[] };
        let subnets = state.choose_local_subnets(&spec, around)?;
        Ok(vec![Command::CreateNetwork { id, spec, vni: None, subnets }])
    }
}

fn kept(directory: &Path) -> Arc<State> {
    Engine::open(directory).expect("what was kept can be read").state()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_made_at_once_are_chosen_one_after_the_other_and_kept() {
    let directory = tempfile::tempdir().unwrap();
    let engine = Engine::open(directory.path()).unwrap();
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..30 {
        let engine = engine.clone();
        let work = async move { engine.propose(None, network(&format!("n{number}"))).await };
        calls.spawn(work);
    }
    while let Some(done) = calls.join_next().await {
        let done = done.unwrap().unwrap();
        assert!(done.state.network(done.applied.id.parse().unwrap()).is_some());
    }
    // Subnets that were chosen on an older state would overlap, and be refused.
    assert_eq!(engine.state().networks().count(), 30);
    assert_eq!(*kept(directory.path()), *engine.state());
}

#[tokio::test]
async fn a_refusal_changes_nothing_and_a_retry_gets_the_first_result() {
    let directory = tempfile::tempdir().unwrap();
    let engine = Engine::open(directory.path()).unwrap();
    let request = || RequestId::new("0123456789abcdef").map(Named::from);
    let first = engine.propose(request(), network("shop")).await.unwrap();
    let again = engine.propose(request(), network("shop")).await.unwrap();
    assert_eq!(first.applied, again.applied);
    assert_eq!(engine.state().networks().count(), 1);

    let before = engine.state();
    let refused = engine.propose(None, network("shop")).await.unwrap_err();
    assert!(matches!(refused, ProposeError::Rejected(Rejected::Exists { .. })), "{refused}");
    // Of several commands all are made, or none.
    let id = first.applied.id.parse().unwrap();
    let both = move |state: &State| {
        let mut commands = network("other")(state)?;
        commands.extend([Command::RemoveNetwork { id }, Command::RemoveNetwork { id }]);
        Ok(commands)
    };
    assert!(engine.propose(None, both).await.is_err());
    assert_eq!(*engine.state(), *before);
    drop(engine);
    let after = Engine::open(directory.path()).unwrap();
    assert_eq!(*after.state(), *before);
    // The name of the write is kept, too.
    let again = after.propose(request(), network("shop")).await.unwrap();
    assert_eq!(first.applied, again.applied);
}
