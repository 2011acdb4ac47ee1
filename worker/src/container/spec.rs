//! The OCI bundle of a container: what Docker mounts, masks and makes read-only, without a network
//! namespace, since the container inherits its shim's.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::cgroup::Applied;
use super::layout::Layout;
use super::{Access, ContainerConfig, Error, Ulimit, capabilities};

mod devices;

/// Never to be read by a container (moby `oci/defaults.go`).
const MASKED: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const CGROUPS: &str = "/sys/fs/cgroup";
/// Readable only.
const READ_ONLY: [&str; 6] =
    [CGROUPS, "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The text of `config.json`. `hidden` are paths of the image that hold our own keys and state.
pub(crate) fn spec(
    config: &ContainerConfig,
    layout: &Layout,
    applied: &Applied,
    hidden: &[PathBuf],
) -> Result<Value, Error> {
    let set = capabilities::of(config, applied.guard())?;
    // Those of the network are set in the shim's namespace, which the library takes for the host's.
    let sysctls: BTreeMap<_, _> =
        config.sysctls.iter().filter(|(name, _)| !name.starts_with("net.")).collect();
    let hidden = hidden.iter().map(|p| p.display().to_string());
    let (masked, read_only): (&[&str], &[&str]) =
        if config.privileged { (&[], &[]) } else { (&MASKED, &READ_ONLY) };
    let masked: Vec<String> = masked.iter().map(|p| (*p).to_owned()).chain(hidden).collect();
    let devices = if config.privileged { devices::all() } else { Vec::new() };
    Ok(json!({
        "ociVersion": "1.0.2",
        "hostname": config.effective_hostname(),
        "root": { "path": layout.root(), "readonly": config.read_only },
        "process": {
            "terminal": false,
            "user": { "uid": 0, "gid": 0 },
            "cwd": config.cwd,
            "args": config.args,
            "env": config.effective_env(),
            "noNewPrivileges": !config.privileged,
            "rlimits": config.ulimits.iter().map(rlimit).collect::<Vec<_>>(),
            // The shim's own score must not be inherited.
            "oomScoreAdj": 0,
            "capabilities": {
                "bounding": set, "effective": set, "permitted": set, "inheritable": [], "ambient": [],
            },
        },
        "mounts": mounts(config, layout, applied),
        "linux": {
            "namespaces": [
                { "type": "pid" }, { "type": "mount" }, { "type": "ipc" }, { "type": "uts" },
                { "type": "cgroup" },
            ],
            "sysctl": sysctls,
            "maskedPaths": masked,
            "readonlyPaths": read_only,
            "devices": devices,
        },
    }))
}

fn rlimit(ulimit: &Ulimit) -> Value {
    let name = format!("RLIMIT_{}", ulimit.name.to_ascii_uppercase());
    json!({ "type": name, "soft": ulimit.soft, "hard": ulimit.hard })
}

fn mounts(config: &ContainerConfig, layout: &Layout, applied: &Applied) -> Vec<Value> {
    let fs = |typ: &str, target: &Path, options: &[&str]| json!({ "destination": target, "type": typ, "source": typ, "options": options });
    let bind = |source: &Path, target: &Path, options: &[&str]| json!({ "destination": target, "type": "bind", "source": source, "options": options });
    let at = Path::new;
    let access = if config.privileged { "rw" } else { "ro" };
    let mut out = vec![
        fs("proc", at("/proc"), &["nosuid", "noexec", "nodev"]),
        fs("tmpfs", at("/dev"), &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        fs(
            "devpts",
            at("/dev/pts"),
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        fs("sysfs", at("/sys"), &["nosuid", "noexec", "nodev", access]),
        fs("mqueue", at("/dev/mqueue"), &["nosuid", "noexec", "nodev"]),
        fs("tmpfs", at("/dev/shm"), &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
    ];
    if applied.v2.is_some() && applied.v1.is_empty() {
        out.push(fs("cgroup2", at(CGROUPS), &["nosuid", "noexec", "nodev", access]));
    }
    if !applied.v1.is_empty() {
        let options = ["nosuid", "noexec", "nodev", "mode=755", "size=4k"];
        out.push(fs("tmpfs", at(CGROUPS), &options));
    }
    for controller in applied.v1.keys() {
        let target = at(CGROUPS).join(controller.name());
        let options = ["bind", access, "nosuid", "noexec", "nodev"];
        out.push(bind(&layout.cgroup(controller.name()), &target, &options));
    }
    for file in ["resolv.conf", "hosts", "hostname"] {
        out.push(bind(&layout.etc(file), &at("/etc").join(file), &["bind", "nosuid", "nodev"]));
    }
    for tmpfs in &config.tmpfs {
        let defaults = ["nosuid", "noexec", "nodev", "mode=1777"];
        let own = tmpfs.options.iter().map(String::as_str).filter(|option| *option != "defaults");
        out.push(fs("tmpfs", &tmpfs.target, &defaults.into_iter().chain(own).collect::<Vec<_>>()));
    }
    for mount in &config.mounts {
        let access = match mount.access {
            Access::ReadOnly => "rro",
            Access::ReadWrite => "rw",
        };
        out.push(bind(&mount.source, &mount.target, &["rbind", "rprivate", access]));
    }
    out
}
