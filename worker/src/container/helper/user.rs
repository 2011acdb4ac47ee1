//! Becoming the container's user.

use std::os::fd::AsFd;

use nix::unistd::{Gid, Uid, fchown, setgroups, setresgid, setresuid};

use super::process::Refused;
use crate::container::EXIT_NOT_STARTED;
use crate::container::user::Identity;

/// Gives the pipes on the standard descriptors to the user, who may open them by name
/// (/dev/stdout).
pub(super) fn own_stdio(identity: &Identity) {
    for fd in [std::io::stdin().as_fd(), std::io::stdout().as_fd(), std::io::stderr().as_fd()] {
        let is_pipe = nix::sys::stat::fstat(fd)
            .is_ok_and(|meta| meta.st_mode & libc::S_IFMT == libc::S_IFIFO);
        if is_pipe {
            // One that cannot be given away is still open.
            let _ =
                fchown(fd, Some(Uid::from_raw(identity.uid)), Some(Gid::from_raw(identity.gid)));
        }
    }
}

/// All groups, then the user: after that there is no way back.
pub(super) fn become_user(identity: &Identity) -> Result<(), Refused> {
    let groups: Vec<Gid> = identity.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    setgroups(&groups)
        .and_then(|()| setresgid(gid, gid, gid))
        .and_then(|()| setresuid(uid, uid, uid))
        .map_err(|e| Refused {
            code: EXIT_NOT_STARTED,
            reason: format!("become user {}:{}: {}", identity.uid, identity.gid, e.desc()),
        })
}
