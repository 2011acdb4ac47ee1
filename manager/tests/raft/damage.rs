//! Disks that lose, tear, flip and fail.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::Duration;

use weft_manager::store::{OpenError, ProposeError, StoreConfig, SyncFails};

use crate::support::{BookStore, Cluster, Link, Net, PATIENCE, POISON, Write, eventually};

fn files_in(dir: &Path, suffix: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir)
        .expect("a directory")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.to_string_lossy().contains(suffix))
        .collect();
    files.sort();
    files
}

async fn reopen(dir: &Path) -> Result<BookStore, OpenError> {
    let config = StoreConfig::new(dir.to_owned(), 1, "test", 99);
    BookStore::open(config, Link::new(1, Net::default())).await
}

/// A single manager that wrote some lines and was shut down.
async fn used_store(tune: fn(&mut StoreConfig), lines: usize) -> (Cluster, PathBuf) {
    let mut cluster = Cluster::on_disk(tune);
    cluster.grow(1).await;
    for n in 0..lines {
        cluster.write(&format!("line {n}")).await;
    }
    let dir = cluster.home.as_ref().expect("on disk").path().join("1");
    cluster.kill(1).await;
    (cluster, dir)
}

/// A copy of a store's directory, to be damaged.
fn copy_of(dir: &Path) -> (tempfile::TempDir, PathBuf) {
    let home = tempfile::tempdir().expect("a directory");
    let copy = home.path().join("copy");
    for sub in ["", "log", "snapshots"] {
        fs::create_dir_all(copy.join(sub)).expect("makes");
        for path in files_in(&dir.join(sub), "").iter().filter(|path| path.is_file()) {
            let name = path.file_name().expect("a name");
            fs::copy(path, copy.join(sub).join(name)).expect("copies");
        }
    }
    (home, copy)
}

#[tokio::test]
async fn a_torn_tail_is_cut_off() {
    let (cluster, dir) = used_store(|_| {}, 5).await;
    drop(cluster.nodes);
    let whole = fs::read(files_in(&dir.join("log"), ".wal").pop().expect("a log")).expect("reads");
    for torn in [1, 2, 9, 30, 60, 100] {
        let (_home, copy) = copy_of(&dir);
        let log = files_in(&copy.join("log"), ".wal").pop().expect("a log");
        fs::write(&log, &whole[..whole.len() - torn]).expect("tears");
        // Twice: what the cutting leaves behind must be good as well.
        for _ in 0..2 {
            let store = reopen(&copy).await.expect("opens without the torn record");
            let lines = ["line 0", "line 1", "line 2", "line 3", "line 4"];
            eventually("it leads again", || store.leadership().borrow().is_leader()).await;
            store.read_barrier().await.expect("leads");
            let texts = store.view().texts();
            assert!(texts.len() > 1, "{torn} torn bytes cost {} lines", 5 - texts.len());
            assert_eq!(texts, lines[..texts.len()], "nothing is made up");
            store.shutdown().await;
        }
    }
}

#[tokio::test]
async fn a_flipped_bit_in_the_log_is_not_believed() {
    let (_cluster, dir) = used_store(|_| {}, 20).await;
    let log = files_in(&dir.join("log"), ".wal").pop().expect("a log");
    let whole = fs::read(&log).expect("reads");
    let mut refused = 0;
    // The last record may be taken for a torn one, the ones before may not.
    for at in (0..whole.len() * 3 / 4).step_by(whole.len() / 23) {
        let mut bad = whole.clone();
        bad[at] ^= 0x04;
        fs::write(&log, bad).expect("writes");
        match reopen(&dir).await {
            Err(OpenError::Storage { .. }) => refused += 1,
            Err(error) => panic!("byte {at}: refused for another reason: {error:?}"),
            Ok(store) => {
                store.shutdown().await;
                panic!("byte {at}: opened on a damaged log");
            }
        }
    }
    assert!(refused > 10);
}

#[tokio::test]
async fn a_damaged_snapshot_is_named_and_not_served() {
    let (_cluster, dir) = used_store(|config| config.limits.snapshot_after = 10, 30).await;
    let snapshot = files_in(&dir.join("snapshots"), "snapshot-").pop().expect("a snapshot");
    let whole = fs::read(&snapshot).expect("reads");
    for at in (0..whole.len()).step_by(whole.len() / 17) {
        let mut bad = whole.clone();
        bad[at] ^= 0x80;
        fs::write(&snapshot, bad).expect("writes");
        let error = reopen(&dir).await.expect_err("damaged");
        let chain = format!("{error:?}");
        assert!(chain.contains("snapshot-"), "byte {at}: names the file: {chain}");
    }
    fs::write(&snapshot, whole).expect("repairs");
    reopen(&dir).await.expect("opens again").shutdown().await;
}

#[tokio::test]
async fn a_log_without_its_identity_is_not_opened() {
    let (_cluster, dir) = used_store(|_| {}, 1).await;
    fs::remove_file(dir.join("identity")).expect("removes");
    let error = reopen(&dir).await.expect_err("refused");
    assert!(format!("{error:?}").contains("Missing"), "{error:?}");
}

#[tokio::test]
async fn a_directory_is_opened_once() {
    let mut cluster = Cluster::on_disk(|_| {});
    cluster.grow(1).await;
    let dir = cluster.home.as_ref().expect("on disk").path().join("1");
    let error = reopen(&dir).await.expect_err("in use");
    assert!(matches!(error, OpenError::Storage { .. }), "{error:?}");
    cluster.write("the first one goes on").await;
    cluster.close().await;
}

#[tokio::test]
async fn a_dropped_store_lets_go_of_its_directory() {
    let (_cluster, dir) = used_store(|_| {}, 3).await;
    drop(reopen(&dir).await.expect("opens"));
    let until = tokio::time::Instant::now() + PATIENCE;
    let again = loop {
        match reopen(&dir).await {
            Ok(store) => break store,
            Err(error) => assert!(tokio::time::Instant::now() < until, "still held: {error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    again.shutdown().await;
}

#[tokio::test]
async fn nobody_else_can_read_the_store() {
    use std::os::unix::fs::PermissionsExt;
    let (_cluster, dir) = used_store(|config| config.limits.snapshot_after = 10, 30).await;
    reopen(&dir).await.expect("opens").shutdown().await;
    let mut seen = 0;
    for dir in [dir.clone(), dir.join("log"), dir.join("snapshots")] {
        let mode = fs::metadata(&dir).expect("exists").permissions().mode() & 0o777;
        assert_eq!(mode, 0o700, "{}", dir.display());
        for path in files_in(&dir, "").iter().filter(|path| path.is_file()) {
            let mode = fs::metadata(path).expect("exists").permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{}", path.display());
            seen += 1;
        }
    }
    assert!(seen >= 3, "{seen} files");
}

#[tokio::test(start_paused = true)]
async fn a_failed_sync_ends_the_store_and_loses_nothing_acknowledged() {
    let mut cluster = Cluster::in_memory(|_| {});
    cluster.grow(3).await;
    cluster.write("acknowledged").await;
    let leader = cluster.leader().await;
    let number = leader.status().number;
    cluster.memory(number).set_sync_fails(SyncFails::Yes);
    let _ = leader.propose(Write("maybe".into())).await;
    let died = tokio::time::timeout(Duration::from_secs(5), leader.fatal()).await;
    assert!(died.expect("dies soon").reason.contains("told to fail"));
    let refused = leader.propose(Write("never".into())).await;
    assert!(matches!(refused, Err(ProposeError::Fatal(_))), "{refused:?}");
    cluster.memory(number).set_sync_fails(SyncFails::No);
    cluster.kill(number).await;
    let last = cluster.write("after").await;
    cluster.start(number).await;
    cluster.settled(last).await;
    let texts = cluster.store(number).view().texts();
    assert_eq!(
        (texts.first(), texts.last()),
        (Some(&"acknowledged".into()), Some(&"after".into()))
    );
    cluster.close().await;
}

#[tokio::test]
async fn a_torn_log_file_of_zeros_is_cut_off() {
    let (_cluster, dir) = used_store(|_| {}, 5).await;
    let log = files_in(&dir.join("log"), ".wal").pop().expect("a log");
    // What ext4 can leave after a power cut: the new length without the new data.
    let file = OpenOptions::new().write(true).open(&log).expect("opens");
    let len = file.metadata().expect("exists").len();
    file.set_len(len + 300).expect("grows");
    let store = reopen(&dir).await.expect("opens");
    eventually("it leads again", || store.leadership().borrow().is_leader()).await;
    store.read_barrier().await.expect("leads");
    assert_eq!(store.view().lines.len(), 5);
    store.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_panics_ends_the_engine_and_is_named() {
    let mut cluster = Cluster::in_memory(|_| {});
    cluster.grow(1).await;
    let index = cluster.write("good").await;
    let store = cluster.store(1).clone();
    let refused = store.propose(Write(POISON.into())).await;
    assert!(
        matches!(refused, Err(ProposeError::Fatal(_) | ProposeError::Unknown { .. })),
        "{refused:?}"
    );
    let died = tokio::time::timeout(Duration::from_secs(5), store.fatal()).await.expect("dies");
    assert!(died.reason.contains(&format!("log entry {}", index + 1)), "{}", died.reason);
    assert_eq!(store.view().texts(), ["good"], "what it was before is still readable");
    cluster.close().await;
}
