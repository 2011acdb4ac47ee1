//! The store with the state it is made for.

use std::time::Duration;

use weft_manager::store::{Store, StoreConfig};
use weft_model::spec::NetworkSpec;
use weft_model::{Command, NetworkId, Proposal, RequestId, State, Time};

use crate::support::{Link, Net, eventually};

async fn open(dir: &std::path::Path, seed: u64) -> Store {
    let mut config = StoreConfig::new(dir.to_owned(), 1, "test", seed);
    config.deadline = Duration::from_secs(10);
    let link = Link::new(1, Net::default());
    Store::open(config, link).await.expect("opens")
}

fn proposal(n: u8) -> Proposal {
    let id = NetworkId::from_bytes([n; 32]);
    let spec = NetworkSpec::overlay(&format!("net-{n}"));
    let create =
        Command::CreateNetwork { id, spec, vni: Some(5000 + u32::from(n)), subnets: vec![] };
    Proposal {
        request: RequestId::new(&format!("request-{n}")).map(Into::into),
        now: Time(u64::from(n)),
        commands: vec![create.clone(), create],
    }
}

/// What the store gives and shows is what the model alone would, also after a restart from a
/// snapshot and from the log behind it.
#[tokio::test]
async fn the_model_is_the_same_behind_the_store() {
    let home = tempfile::tempdir().expect("a directory");
    let dir = home.path().join("store");
    let mut expected = State::default();
    let store = open(&dir, 1).await;
    store.initialize("host-1").await.expect("initializes");
    eventually("it leads", || store.leadership().borrow().is_leader()).await;
    for n in 1..=20 {
        let (index, outcome) = store.propose(proposal(n)).await.expect("committed");
        assert_eq!(outcome, expected.apply(index, &proposal(n)));
        assert_eq!(*store.view(), expected, "after proposal {n}");
        if n == 12 {
            store.snapshot_now().await.expect("runs");
            eventually("a snapshot", || store.status().snapshot > 0).await;
        }
    }
    store.shutdown().await;
    let store = open(&dir, 2).await;
    eventually("it leads", || store.leadership().borrow().is_leader()).await;
    store.read_barrier().await.expect("leads");
    assert_eq!(*store.view(), expected, "after a restart");
    store.shutdown().await;
}
