//! Which capabilities a container keeps: Docker's default set, more or less what the user said.

use std::collections::BTreeSet;
use std::str::FromStr;

use caps::Capability;

use super::{ContainerConfig, Error};

/// Docker's default set (moby `oci/caps/defaults.go`).
const DEFAULT: [Capability; 14] = [
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_FSETID,
    Capability::CAP_FOWNER,
    Capability::CAP_MKNOD,
    Capability::CAP_NET_RAW,
    Capability::CAP_SETGID,
    Capability::CAP_SETUID,
    Capability::CAP_SETFCAP,
    Capability::CAP_SETPCAP,
    Capability::CAP_NET_BIND_SERVICE,
    Capability::CAP_SYS_CHROOT,
    Capability::CAP_KILL,
    Capability::CAP_AUDIT_WRITE,
];

/// Whether device files are kept in check by a cgroup. If not, a container that may make device
/// files could make one of the host's disk, so MKNOD is taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeviceGuard {
    Cgroup,
    None,
}

/// The names of the set, `CAP_X`, in order. As in Docker, what is added by its name is there whatever
/// is dropped, and ALL is `all` that can be given.
///
/// # Errors
/// `Error::BadCapability` with the name that is none.
fn effective(
    add: &[String],
    drop: &[String],
    all: &BTreeSet<String>,
    guard: DeviceGuard,
) -> Result<BTreeSet<String>, Error> {
    let (add_all, added) = parse_all(add)?;
    let (drop_all, dropped) = parse_all(drop)?;
    let mut set = match (add_all, drop_all) {
        (true, _) => all.clone(),
        (false, true) => BTreeSet::new(),
        (false, false) => DEFAULT.iter().map(Capability::to_string).collect(),
    };
    set.retain(|name| !dropped.contains(name));
    set.extend(added);
    if guard == DeviceGuard::None {
        set.remove("CAP_MKNOD");
    }
    Ok(set)
}

/// The set of one container.
///
/// # Errors
/// As `effective`.
pub(crate) fn of(config: &ContainerConfig, guard: DeviceGuard) -> Result<BTreeSet<String>, Error> {
    // All that there are to give: a daemon in a container may itself have less.
    let all = caps::read(None, caps::CapSet::Bounding).unwrap_or_default();
    let all = all.iter().map(Capability::to_string).collect();
    if config.privileged {
        return Ok(all);
    }
    effective(&config.cap_add, &config.cap_drop, &all, guard)
}

/// Whether ALL is among the names, and the others.
fn parse_all(names: &[String]) -> Result<(bool, BTreeSet<String>), Error> {
    let (all, names): (Vec<_>, Vec<_>) =
        names.iter().partition(|name| name.eq_ignore_ascii_case("ALL"));
    let names = names.into_iter().map(|name| parse(name)).collect::<Result<_, _>>()?;
    Ok((!all.is_empty(), names))
}

fn parse(name: &str) -> Result<String, Error> {
    let upper = name.to_ascii_uppercase();
    let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
    let known =
        Capability::from_str(&full).map_err(|_| Error::BadCapability { name: name.into() })?;
    Ok(known.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(add: &[&str], drop: &[&str], guard: DeviceGuard) -> Result<BTreeSet<String>, Error> {
        let own = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let all = caps::all().iter().map(Capability::to_string).collect();
        effective(&own(add), &own(drop), &all, guard)
    }

    #[test]
    fn adding_and_dropping() {
        let guard = DeviceGuard::Cgroup;
        assert_eq!(set(&[], &[], guard).expect("default").len(), 14);
        assert!(set(&["net_admin"], &[], guard).expect("known").contains("CAP_NET_ADMIN"));
        assert_eq!(set(&[], &["ALL"], guard).expect("none").len(), 0);
        assert_eq!(set(&["KILL"], &["CAP_KILL"], guard).expect("what is named stays").len(), 14);
        let only = set(&["NET_ADMIN"], &["all"], guard).expect("known");
        assert_eq!(only, BTreeSet::from(["CAP_NET_ADMIN".to_owned()]));
        let most = set(&["ALL"], &["CHOWN"], guard).expect("known");
        assert!(!most.contains("CAP_CHOWN") && most.contains("CAP_SYS_ADMIN"));
        assert!(
            matches!(set(&["x"], &[], guard), Err(Error::BadCapability { name }) if name == "x")
        );
    }

    #[test]
    fn without_a_device_cgroup_nobody_makes_device_files() {
        assert!(
            !set(&["MKNOD", "ALL"], &[], DeviceGuard::None).expect("known").contains("CAP_MKNOD")
        );
    }
}
