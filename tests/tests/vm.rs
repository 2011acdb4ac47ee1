//! The VM lab (`deploy/lab/vm`), and scripts that run in it: `tests/vm/NAME.sh`, one test each. There
//! every host has a kernel of its own, a distribution's, with modules that the machine of the tests may
//! not have.
#![cfg(target_arch = "x86_64")]
#![forbid(unsafe_code)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use weft_tests::{Output, eventually, weft_binary};

/// How long a VM may take, in seconds: one that is emulated on a busy machine is slow.
const LIMIT: &str = "400";
/// MiB of a VM with files to send: a manager keeps 64 MiB of its disk, which is memory, in reserve.
const ROOM: &str = "768";
/// How long processes may take to start, and killed ones to be gone.
const PATIENCE: Duration = Duration::from_secs(20);

fn tests_dir() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// `vm run OPTIONS SCRIPT` with the binary that was built for these tests.
fn command(options: &[&str], script: &Path) -> Command {
    let mut command = Command::new(tests_dir().join("../deploy/lab/vm"));
    command.env("WEFT", weft_binary()).stdin(Stdio::null());
    command.arg("run").args(["--timeout", LIMIT]).args(options).arg(script);
    command
}

/// Runs `tests/vm/NAME.sh` in VMs to its end.
fn run(name: &str, options: &[&str]) -> Output {
    let mut command = command(options, &script(name));
    Output::of(&mut command, &[&["vm", "run"], options, &[name]].concat())
}

fn script(name: &str) -> PathBuf {
    tests_dir().join(format!("vm/{name}.sh"))
}

/// A line of the output, as a VM has said it.
#[track_caller]
fn says(output: &Output, line: &str) {
    assert!(output.stdout.lines().any(|said| said == line), "{line:?} is not in: {output}");
}

/// The children of a process, with theirs.
fn below(pid: u32) -> Vec<u32> {
    let parent_of = |entry: &Path| -> Option<u32> {
        let stat = fs::read_to_string(entry.join("stat")).ok()?;
        // PID (NAME) STATE PARENT ...; the name may have spaces.
        stat.rsplit(") ").next()?.split(' ').nth(1)?.parse().ok()
    };
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    let all = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    all.filter(|child| parent_of(Path::new(&format!("/proc/{child}"))) == Some(pid)).collect()
}

#[test]
fn a_script_that_fails_in_one_vm_fails_and_what_was_said_comes_back() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), "from outside\n").expect("writable");
    let add = format!("{}:/etc/added", file.path().display());
    let output = run("harness", &["--vms", "2", "--add", &add]);
    assert_eq!(output.code, 7, "{output}");
    for line in ["heard of vm1 among 2", "from outside", "vm1 answers", "no end of line"] {
        says(&output, &format!("vm2| {line}"));
    }
}

#[test]
fn what_cannot_work_is_refused_with_a_hint_and_starts_nothing() {
    let good = script("harness");
    let refused = |command: &mut Command, words: &[&str]| {
        Output::of(command, &["vm", "run"]).refused(125, words);
    };
    refused(&mut command(&[], Path::new("/nonexistent.sh")), &["no script /nonexistent.sh"]);
    refused(&mut command(&["--memory", "99999999"], &good), &["do not fit", "hint: ", "--memory"]);
    refused(&mut command(&["--vms", "0"], &good), &["--vms 0", "1 to 32"]);
    refused(&mut command(&["--add", "/nonexistent"], &good), &["/nonexistent: No such file"]);
    refused(
        command(&[], &good).env("WEFT", "/nonexistent"),
        &["/nonexistent is missing", "hint: "],
    );
    refused(command(&[], &good).env("ACCEL", "magic"), &["ACCEL=magic", "hint: ", "ACCEL=tcg"]);
    // A machine without qemu.
    let empty = tempfile::tempdir().expect("a directory");
    let path = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output();
    let python = String::from_utf8(path.expect("python3").stdout).expect("a path");
    let mut alone = Command::new(python.trim());
    alone.arg(tests_dir().join("../deploy/lab/vm")).arg("run").arg(&good);
    alone.env("PATH", empty.path()).env("WEFT", weft_binary());
    refused(&mut alone, &["qemu-system-x86_64 is missing", "hint: deploy/setup.sh lab"]);
}

#[test]
fn time_runs_out_and_a_lab_that_is_killed_takes_its_vms_along() {
    let mut late = Command::new(tests_dir().join("../deploy/lab/vm"));
    late.args(["run", "--timeout", "1"]).arg(script("harness")).env("WEFT", weft_binary());
    let output = Output::of(&mut late, &["vm", "run", "--timeout", "1"]);
    assert_eq!(output.code, 124, "{output}");
    assert!(output.stderr.contains("error: not within 1 s: vm1"), "{output}");

    let mut lab: Child =
        command(&["--vms", "2"], &script("harness")).stdout(Stdio::null()).spawn().expect("starts");
    let qemus = eventually("two VMs run", PATIENCE, || {
        let found = below(lab.id());
        let qemu = |pid: &u32| {
            fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| line.starts_with(b"/usr/bin/qemu-system"))
        };
        if found.len() == 2 && found.iter().all(qemu) {
            Ok(found)
        } else {
            Err(format!("{found:?}"))
        }
    });
    lab.kill().expect("it can be killed");
    lab.wait().expect("it is our child");
    eventually("no VM is left", PATIENCE, || {
        let left = qemus.iter().filter(|pid| Path::new(&format!("/proc/{pid}")).exists());
        let left: Vec<_> = left.collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
}

#[test]
fn the_kernel_has_what_the_other_scripts_need() {
    let output = run("facts", &["--ovs"]);
    assert_eq!(output.code, 0, "{output}");
    for fact in ["802.1Q", "macvlan", "ipvlan", "wireguard", "netem", "nat", "openvswitch"] {
        says(&output, &format!("vm1| {fact}"));
    }
}

#[test]
fn one_daemon_has_a_service_with_names() {
    let output = run("daemon", &[]);
    assert_eq!(output.code, 0, "{output}");
    says(&output, "vm1| both tasks have names and answer");
}

#[test]
fn two_vms_are_a_cluster_and_their_tasks_ping_each_other_by_name() {
    let output = run("pair", &["--vms", "2"]);
    assert_eq!(output.code, 0, "{output}");
    says(&output, "vm1| task1 pings task2");
    says(&output, "vm2| task2 pings task1");
}

#[test]
fn macvlan_members_on_vlans_of_two_vms_reach_each_other_and_not_other_vlans() {
    let output = run("macvlan-trunk", &["--vms", "2"]);
    assert_eq!(output.code, 0, "{output}");
    for fact in [
        "a VLAN reaches over two machines",
        "two VLANs are apart",
        "the last user takes its sub-interface along",
        "the administrator's sub-interface stays",
        "private members are apart",
        "passthru has one member",
    ] {
        says(&output, &format!("vm1| {fact}"));
        says(&output, &format!("vm2| {fact}"));
    }
}

#[test]
fn ipvlan_members_share_a_mac_and_reach_another_vm() {
    let output = run("ipvlan", &["--vms", "2"]);
    assert_eq!(output.code, 0, "{output}");
    says(&output, "vm1| l2 members share a MAC and reach each other and the other machine");
    says(&output, "vm2| l3 members reach what the routes lead to");
}

#[test]
fn a_published_port_answers_another_vm_while_its_container_runs() {
    let output = run("published", &["--vms", "2"]);
    assert_eq!(output.code, 0, "{output}");
    says(&output, "vm1| the client's own address arrives");
    says(&output, "vm2| and without the daemon");
    says(&output, "vm2| and not without the container");
}

/// Runs a script with encrypted networks in two VMs, with what such scripts share.
fn run_encrypted(name: &str) -> Output {
    let shared = format!("{}:/lab/wireguard.sh", script("wireguard").display());
    run(name, &["--vms", "2", "--memory", ROOM, "--add", &shared])
}

#[test]
fn two_kernels_carry_an_encrypted_network() {
    let output = run_encrypted("wireguard-kernel");
    assert_eq!(output.code, 0, "{output}");
    for vm in ["vm1", "vm2"] {
        for fact in [
            "names and files over the kernel's WireGuard",
            "another key while a file is on its way",
            "a daemon that starts again changes nothing, and nothing is in the clear",
        ] {
            says(&output, &format!("{vm}| {fact}"));
        }
    }
}

#[test]
fn a_kernel_and_an_engine_in_user_space_carry_one_network_on_a_bad_wire_too() {
    let output = run_encrypted("wireguard-mixed");
    assert_eq!(output.code, 0, "{output}");
    for vm in ["vm1", "vm2"] {
        for fact in [
            "the two engines speak with each other",
            "no flow breaks on a bad wire, and nothing is in the clear",
        ] {
            says(&output, &format!("{vm}| {fact}"));
        }
    }
}

#[test]
fn open_vswitch_has_a_port_for_each_container() {
    let output = run("ovs", &["--ovs"]);
    assert_eq!(output.code, 0, "{output}");
    for fact in [
        "a switch that is not there has its name",
        "containers reach each other over an administrator's bridge",
        "a daemon that starts again knows its ports and changes nothing",
        "a port that a hand has taken away comes back",
        "the administrator's bridge stays",
        "a bridge of ours comes and goes with its network",
    ] {
        says(&output, &format!("vm1| {fact}"));
    }
}
