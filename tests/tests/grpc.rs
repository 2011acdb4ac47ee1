//! The public interface, met by a stock Python client from PyPI by reflection alone: over the unix
//! socket, and with mutual TLS on 2377.
#![forbid(unsafe_code)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use weft_tests::Lab;

/// What is fetched from PyPI; the versions are fixed so that a run can be repeated.
const PACKAGES: [&str; 2] = ["grpcio==1.80.*", "grpcio-reflection==1.80.*"];

/// A Python with grpcio in the build directory, made once; nothing if PyPI cannot be reached.
fn python() -> Option<PathBuf> {
    let own = std::env::current_exe().expect("own path");
    let target = own.ancestors().nth(3).expect("target/PROFILE/deps/TEST");
    let (venv, lock) = (target.join("grpc-venv"), target.join("grpc-venv.lock"));
    // Two tests at once make one environment.
    let lock = fs::File::create(lock).expect("the build directory can be written");
    lock.lock().expect("a lock on a file of ours");
    let python = venv.join("bin/python");
    let works = || {
        let said = Command::new(&python).args(["-c", "import grpc, grpc_reflection"]).output();
        said.is_ok_and(|said| said.status.success())
    };
    if !works() {
        let _ = fs::remove_dir_all(&venv);
        run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
        run(Command::new(&python)
            .args(["-m", "pip", "install", "-q", "--disable-pip-version-check"])
            .args(PACKAGES))?;
    }
    works().then_some(python)
}

fn run(command: &mut Command) -> Option<()> {
    let said = command.output().ok()?;
    if !said.status.success() {
        eprintln!("{command:?}: {}", String::from_utf8_lossy(&said.stderr));
    }
    said.status.success().then_some(())
}

#[test]
fn a_python_client_by_reflection_alone() {
    let Some(python) = python() else {
        eprintln!("SKIPPED: grpcio could not be installed from PyPI; the interface was not tried");
        return;
    };
    let lab = Lab::cluster("grpc", 1, 1);
    let host = lab.host(1);
    let python = python.display().to_string();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/grpc/client.py");
    let script = script.display().to_string();
    let image = lab.image();
    let unix = format!("unix:{}", host.run_dir().join("weft.sock").display());
    let client = |more: &[&str]| {
        let mut argv = vec![python.as_str(), script.as_str()];
        argv.extend(more);
        host.run(&argv).ok()
    };
    let said = client(&[&unix, &image]);
    assert!(said.ends_with("done"), "{said}");
    host.eventually("its tasks are gone", 20, |host| host.weft(&["network", "rm", "py"]).text());

    let dir = lab.dir().join("certs");
    fs::create_dir(&dir).expect("writable");
    let dir = dir.display().to_string();
    host.weft(&["cluster", "client-cert", "robot", "--dir", &dir]).ok();
    let files = ["ca.crt", "robot.crt", "robot.key"].map(|name| format!("{dir}/{name}"));
    let said = client(&["10.99.0.1:2377", &image, &files[0], &files[1], &files[2]]);
    assert!(said.ends_with("done"), "{said}");
}
