//! What runs in the containers of both: the root directory of the lab's image, with the tools that
//! measure.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use weft_tests::Lab;

/// The tools of the distribution that are put in; `deploy/bench.sh` installs them.
const TOOLS: [&str; 2] = ["iperf3", "dnsperf"];
/// Our own, beside the built tests.
pub const WATCH: &str = "weft-bench-watch";

/// The root directory of a lab's image, with the tools in it.
pub fn make(lab: &Lab) -> PathBuf {
    let image = lab.image();
    let root =
        PathBuf::from(image.strip_prefix("rootfs:").expect("the lab's image is a directory"));
    for tool in TOOLS {
        add(&root, &find(tool), tool);
    }
    add(&root, &built().join(WATCH), WATCH);
    root
}

/// The program that is measured. This one measures only, so it is built like the tests.
pub fn release() -> PathBuf {
    let path = built().with_file_name("release").join("weft");
    assert!(path.exists(), "{} is missing: use `make bench`", path.display());
    path
}

/// Where this program and the other programs of the tests are built: target/debug, as it is
/// target/debug/deps/figures-HASH itself.
pub fn built() -> PathBuf {
    let own = std::env::current_exe().expect("the path of this program");
    own.ancestors().nth(2).expect("it lies in target/debug/deps").to_owned()
}

fn find(tool: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&path).map(|dir| dir.join(tool));
    places.find(|at| at.exists()).unwrap_or_else(|| panic!("{tool} is missing: use `make bench`"))
}

fn add(root: &Path, program: &Path, name: &str) {
    copy(program, &root.join("bin").join(name));
    let said = Command::new("ldd").arg(program).output().expect("ldd runs");
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    for library in text.split_whitespace().filter(|word| word.starts_with('/')) {
        copy(Path::new(library), &root.join(library.trim_start_matches('/')));
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().expect("it lies in a directory")).expect("writable");
    fs::copy(from, to).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
}
