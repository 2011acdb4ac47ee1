//! Namespaces that somebody else owns: what a path leads to, and whether it still leads there.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use nix::sched::{CloneFlags, setns};
use serde::{Deserialize, Serialize};

/// Most bytes of an interface's name (IFNAMSIZ less the final NUL).
const IFNAME_MAX: usize = 15;
/// Names the kernel's life: inodes and process numbers mean nothing after a restart of the machine.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A namespace, told from every other one of this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    device: u64,
    inode: u64,
    boot: String,
}

/// Why a path is not taken.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// Relative to whom?
    #[error("{path} is not an absolute path")]
    Relative { path: PathBuf },
    /// It cannot be opened.
    #[error("cannot open {path}: {source}")]
    Open { path: PathBuf, source: io::Error },
    /// It is something else.
    #[error("{path} is not a network namespace")]
    Other { path: PathBuf },
    /// It is where the daemon is.
    #[error("{path} is the host's own network namespace")]
    Host { path: PathBuf },
    /// The interface's name cannot be one.
    #[error(
        "invalid --ifname {name:?}: must have 1 to {IFNAME_MAX} printable characters, no / and no :"
    )]
    BadName { name: String },
    /// There is such an interface.
    #[error("{path} has an interface {name} already")]
    Interface { path: PathBuf, name: String },
    /// The machine refuses.
    #[error("cannot look into {path}: {source}")]
    Look { path: PathBuf, source: io::Error },
}

/// Whose default routes a namespace has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WayOut {
    /// None of its own: it gets ours.
    Ours,
    /// One of its own, which stays.
    Theirs,
}

/// Looks at the namespace at `path`, where an interface `ifname` is to come. Blocks.
///
/// # Errors
/// When it is not an absolute path of a network namespace other than the daemon's, or has such an
/// interface.
pub fn inspect(path: &Path, ifname: &str) -> Result<(Identity, WayOut), NetnsError> {
    let own = || path.to_owned();
    check_ifname(ifname)?;
    if !path.is_absolute() {
        return Err(NetnsError::Relative { path: own() });
    }
    let open = |source| NetnsError::Open { path: own(), source };
    // Without blocking: a pipe has nobody at its other end.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .map_err(open)?;
    let identity = identity_of(&file.metadata().map_err(open)?);
    let host = fs::metadata("/proc/self/ns/net").map_err(open)?;
    if identity == identity_of(&host) {
        return Err(NetnsError::Host { path: own() });
    }
    let look = |source| NetnsError::Look { path: own(), source };
    // The thread ends in the namespace that it enters, and nobody else runs on it.
    let there = std::thread::scope(|scope| {
        let inside = std::thread::Builder::new().spawn_scoped(scope, || look_inside(&file));
        inside.map(|thread| thread.join())
    });
    let there = there.map_err(look)?.map_err(|_| look(io::ErrorKind::Other.into()))?;
    let (there, way_out) = there.map_err(|source| match source.raw_os_error() {
        Some(libc::EINVAL) => NetnsError::Other { path: own() },
        _ => NetnsError::Look { path: own(), source },
    })?;
    if there.iter().any(|name| name == ifname) {
        return Err(NetnsError::Interface { path: own(), name: ifname.to_owned() });
    }
    Ok((identity, way_out))
}

/// Whether `path` still leads to the namespace.
pub fn is_there(path: &Path, identity: &Identity) -> bool {
    fs::metadata(path).is_ok_and(|found| identity_of(&found) == *identity)
}

fn identity_of(found: &fs::Metadata) -> Identity {
    let boot = fs::read_to_string(BOOT_ID).unwrap_or_default().trim().to_owned();
    Identity { device: found.dev(), inode: found.ino(), boot }
}

/// The interfaces of a namespace, which the calling thread enters for good, and its way out.
fn look_inside(netns: &File) -> io::Result<(Vec<String>, WayOut)> {
    setns(netns, CloneFlags::CLONE_NEWNET)?;
    let text = fs::read_to_string("/proc/thread-self/net/dev")?;
    let names = text.lines().filter_map(|line| line.split_once(':'));
    let names = names.map(|(name, _)| name.trim().to_owned()).collect();
    let four = fs::read_to_string("/proc/thread-self/net/route")?;
    // Without IPv6 there is no such file.
    let six = fs::read_to_string("/proc/thread-self/net/ipv6_route").unwrap_or_default();
    Ok((names, way_out(&four, &six)))
}

/// From the kernel's tables of routes, as `fib_route_seq_show` and `ipv6_route_native_seq_show` write
/// them: of IPv4 the destination is the second field and the mask the eighth; of IPv6 the prefix is the
/// first and its length the second, and the last is the interface, lo for "unreachable".
pub(crate) fn way_out(four: &str, six: &str) -> WayOut {
    const NONE: &str = "00000000";
    let fields = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let four = four.lines().map(fields).any(|f| f.len() > 7 && f[1] == NONE && f[7] == NONE);
    let six = six.lines().map(fields).any(|f| {
        f.len() == 10 && f[0].bytes().all(|byte| byte == b'0') && f[1] == "00" && f[9] != "lo"
    });
    if four || six { WayOut::Theirs } else { WayOut::Ours }
}

/// As the kernel's `dev_valid_name`.
pub(crate) fn check_ifname(name: &str) -> Result<(), NetnsError> {
    let fits = (1..=IFNAME_MAX).contains(&name.len());
    let bytes = name.bytes().all(|byte| byte.is_ascii_graphic() && !b"/:".contains(&byte));
    if fits && bytes && ![".", "..", "lo"].contains(&name) {
        return Ok(());
    }
    Err(NetnsError::BadName { name: name.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_namespace_of_others_is_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("file"), "").unwrap();
        nix::unistd::mkfifo(&path("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let words = |path: &Path| inspect(path, "eth0").unwrap_err().to_string();
        assert!(words(&path("missing")).contains("No such file"));
        for name in ["file", "pipe"] {
            assert!(words(&path(name)).ends_with("is not a network namespace"), "{name}");
        }
        assert!(words(directory.path()).ends_with("is not a network namespace"));
        let mount = Path::new("/proc/self/ns/mnt");
        assert!(words(mount).ends_with("is not a network namespace"));
        let own = Path::new("/proc/self/ns/net");
        assert!(words(own).ends_with("the host's own network namespace"));
        assert!(words(Path::new("ns/net")).ends_with("not an absolute path"));
        for bad in ["", "lo", ".", "a/b", "a:b", "a b", "0123456789abcdef", "ü"] {
            assert!(matches!(inspect(own, bad), Err(NetnsError::BadName { .. })), "{bad:?}");
        }
    }

    #[test]
    fn a_default_route_of_either_family_is_seen() {
        let header = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n";
        let subnet = format!("{header}eth0 0000140A 00000000 0001 0 0 0 00FFFFFF 0 0 0\n");
        let default = format!("{subnet}eth0 00000000 0101140A 0003 0 0 0 00000000 0 0 0\n");
        let zero = "0".repeat(32);
        let six = |dev: &str| format!("{zero} 00 {zero} 00 {zero} ffffffff 1 0 00200200 {dev}\n");
        assert_eq!(way_out(&subnet, &six("lo")), WayOut::Ours);
        assert_eq!(way_out(header, ""), WayOut::Ours);
        assert_eq!(way_out(&default, ""), WayOut::Theirs);
        assert_eq!(way_out(header, &six("eth0")), WayOut::Theirs);
    }

    #[test]
    fn another_namespace_is_known_again_until_its_process_has_gone() {
        let mut child = std::process::Command::new("unshare")
            .args(["--net", "sleep", "infinity"])
            .spawn()
            .expect("unshare runs as root");
        let path = PathBuf::from(format!("/proc/{}/ns/net", child.id()));
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        let found = loop {
            match inspect(&path, "eth0") {
                Ok((found, way_out)) => {
                    assert_eq!(way_out, WayOut::Ours);
                    break Ok(found);
                }
                // It has not unshared yet.
                Err(NetnsError::Host { .. }) if std::time::Instant::now() < deadline => {}
                Err(error) => break Err(error),
            }
        };
        let known = found.as_ref().is_ok_and(|found| is_there(&path, found));
        child.kill().unwrap();
        child.wait().unwrap();
        let found = found.unwrap();
        assert!(known);
        assert!(!is_there(&path, &found));
        let other = Identity { boot: "another".into(), ..found.clone() };
        assert_ne!(other, found);
    }
}
