//! Inputs of the fuzzer that are kept (`fuzz/corpus`): what it began with, and all that ever broke
//! something. They need no fuzzer here; what is done with them is in `fuzz/src/targets`.

#[path = "../fuzz/src/targets/mod.rs"]
mod targets;

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
};

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("the corpus is there");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths
}

#[test]
fn every_input_is_survived() {
    for (name, target) in targets::ALL {
        let inputs = entries(&corpus().join(name));
        assert!(!inputs.is_empty(), "{name} has no inputs");
        // Some targets make a network namespace for their thread.
        let run = move || {
            for path in inputs {
                println!("{}", path.display());
                target(&fs::read(&path).expect("an input can be read"));
            }
        };
        let ended = thread::Builder::new().name((*name).to_owned()).spawn(run);
        let ended = ended.expect("a thread").join();
        assert!(ended.is_ok(), "{name}: the last input that is named above breaks it");
    }
}

#[test]
fn every_corpus_has_its_target_and_all_are_small() {
    /// Bytes of all inputs: what the fuzzer finds besides stays where it was found.
    const ALL: u64 = 200_000;
    let mut bytes = 0;
    for directory in entries(&corpus()) {
        let name = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
        assert!(targets::find(&name).is_some(), "there is no target {name}");
        let length = |path: PathBuf| fs::metadata(path).expect("an input").len();
        bytes += entries(&directory).into_iter().map(length).sum::<u64>();
    }
    assert!(bytes <= ALL, "{bytes} bytes");
}
