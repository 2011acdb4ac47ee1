//! A crash at each step of saving, and files that are not ours.

use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::*;
use crate::tls::testing::TestCa;

const STEPS: [Step; 7] = [
    Step::MakeDirectory,
    Step::RemoveLeftover,
    Step::Create,
    Step::Write,
    Step::SyncFile,
    Step::Rename,
    Step::SyncDirectory,
];

/// Saves until `crash`, which does not happen.
fn save_until(directory: &Path, identity: &Identity, crash: Step) {
    let stopped = save_stepwise(directory, identity, &mut |step| {
        if step == crash { Err(io::Error::other("crash")) } else { Ok(()) }
    });
    assert!(stopped.is_err());
}

fn loaded_serial(directory: &Path) -> Option<String> {
    load(directory).unwrap().map(|identity| identity.subject().serial.clone())
}

#[test]
fn the_steps_come_in_the_order_that_survives_a_loss_of_power() {
    let directory = tempfile::tempdir().unwrap();
    let mut seen = Vec::new();
    save_stepwise(directory.path(), &TestCa::new("c1").manager("m1"), &mut |step| {
        seen.push(step);
        Ok(())
    })
    .unwrap();
    assert_eq!(seen, STEPS);
}

#[test]
fn a_crash_at_any_step_leaves_the_old_or_the_new_identity() {
    let ca = TestCa::new("c1");
    let (old, new) = (ca.manager("m1"), ca.manager("m1"));
    for crash in STEPS {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");
        save(&state, &old).unwrap();
        save_until(&state, &new, crash);
        let expected = if crash == Step::SyncDirectory { &new } else { &old };
        assert_eq!(loaded_serial(&state), Some(expected.subject().serial.clone()), "{crash:?}");
        save(&state, &new).unwrap();
        assert_eq!(loaded_serial(&state), Some(new.subject().serial.clone()), "after {crash:?}");
        assert_eq!(fs::read_dir(&state).unwrap().count(), 1, "{crash:?} left something behind");
    }
}

#[test]
fn a_crash_of_the_first_save_leaves_none_or_the_whole() {
    let identity = TestCa::new("c1").manager("m1");
    for crash in STEPS {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");
        save_until(&state, &identity, crash);
        assert_eq!(loaded_serial(&state).is_some(), crash == Step::SyncDirectory, "{crash:?}");
    }
}

#[test]
fn what_was_saved_comes_back_whole_and_private() {
    let identity = TestCa::new("c1").manager("m1");
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("a/b");
    save(&state, &identity).unwrap();
    let loaded = load(&state).unwrap().unwrap();
    assert_eq!(loaded.key_pem(), identity.key_pem());
    assert_eq!(loaded.chain_pem(), identity.chain_pem());
    assert_eq!(loaded.roots_pem(), identity.roots_pem());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(&state), mode(&state.join(FILE))), (0o700, 0o600));
    erase(&state).unwrap();
    assert!(load(&state).unwrap().is_none());
    erase(&state).unwrap();
    erase(&directory.path().join("never made")).unwrap();
}

#[test]
fn files_that_others_can_read_or_that_are_damaged_are_refused() {
    let identity = TestCa::new("c1").manager("m1");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(FILE);
    let saved = || {
        save(directory.path(), &identity).unwrap();
        fs::read_to_string(&path).unwrap()
    };
    saved();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(load(directory.path()), Err(StoreError::Exposed { mode: 0o640, .. })));
    let text = saved();
    let half = &text[..text.len() / 2];
    let other_key =
        TestCa::new("c1").manager("m1").key_pem() + &text[text.find("-----BEGIN C").unwrap()..];
    let foreign_root = text.split(ROOTS_MARK).next().unwrap().to_owned()
        + ROOTS_MARK
        + &TestCa::new("c1").manager("m1").roots_pem();
    for bad in ["", half, &other_key, &foreign_root, &"x".repeat(300 * 1024)] {
        fs::write(&path, bad).unwrap();
        assert!(load(directory.path()).is_err(), "{} bytes", bad.len());
    }
    fs::write(&path, [0xff, 0xfe]).unwrap();
    assert!(load(directory.path()).is_err());
}

#[test]
fn a_planted_link_does_not_lead_the_key_elsewhere() {
    let directory = tempfile::tempdir().unwrap();
    let victim = directory.path().join("victim");
    fs::write(&victim, "untouched").unwrap();
    let state = directory.path().join("state");
    make_directory(&state).unwrap();
    symlink(&victim, state.join(NEXT)).unwrap();
    symlink(&victim, state.join(FILE)).unwrap();
    save(&state, &TestCa::new("c1").manager("m1")).unwrap();
    assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
    assert!(load(&state).unwrap().is_some());
}
