//! What a container may do to the kernel: capabilities and kernel settings, and who it is.

use super::{ContainerSpec, Invalid};

/// All capabilities of Linux (`include/uapi/linux/capability.h`), by number, without `CAP_`.
const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];
/// Kernel settings that each IPC namespace has of its own.
const IPC_SYSCTLS: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];
/// The same, of POSIX message queues.
const MQUEUE: &str = "fs.mqueue.";
/// Kernel settings that each network namespace has of its own.
pub(super) const NET: &str = "net.";
/// Largest number of a user or a group, as in Docker.
const ID_MAX: u32 = i32::MAX as u32;
/// Most characters of a user's or a group's name (`useradd` of Linux).
const USER_MAX: usize = 32;
/// Largest number of a signal of Linux.
const SIGNAL_MAX: i32 = 64;

impl ContainerSpec {
    pub(super) fn check_security(&self) -> Result<(), Invalid> {
        check_user(&self.user)?;
        if let Some(signal) = self.stop_signal.filter(|n| !(1..=SIGNAL_MAX).contains(n)) {
            let reason = format!("a signal is a number from 1 to {SIGNAL_MAX}");
            return Err(Invalid::new("--stop-signal", signal, reason));
        }
        self.cap_add.iter().try_for_each(|name| check_capability("--cap-add", name))?;
        self.cap_drop.iter().try_for_each(|name| check_capability("--cap-drop", name))?;
        self.sysctls.iter().try_for_each(|(name, value)| check_sysctl(name, value))
    }
}

/// A name of the list in any case, with or without `CAP_`, or `ALL`.
fn check_capability(field: &str, name: &str) -> Result<(), Invalid> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    if upper == "ALL" || CAPABILITIES.contains(&bare) {
        return Ok(());
    }
    Err(Invalid::new(field, name, "must be a capability of Linux, such as NET_ADMIN, or ALL"))
}

fn check_sysctl(name: &str, value: &str) -> Result<(), Invalid> {
    let clean = name.split('.').all(|part| {
        let letters = part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-/".contains(&b));
        !part.is_empty() && letters
    });
    let own =
        [NET, MQUEUE].iter().any(|prefix| name.starts_with(prefix)) || IPC_SYSCTLS.contains(&name);
    if !clean || !own {
        let reason = "must be net.*, fs.mqueue.* or one of kernel's msg*, sem and shm*: others are \
                      not of a container's own";
        return Err(Invalid::new("--sysctl", name, reason));
    }
    if value.is_empty() || value.contains(['\0', '\n']) {
        return Err(Invalid::new("--sysctl", format!("{name}={value}"), "must have one line"));
    }
    Ok(())
}

/// `USER[:GROUP]`, each a name or a number.
fn check_user(text: &str) -> Result<(), Invalid> {
    let invalid = |reason: String| Err(Invalid::new("--user", text, reason));
    if text.is_empty() {
        return Ok(());
    }
    for part in text.splitn(2, ':') {
        let clean = part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.$@-".contains(&b));
        if part.is_empty() || !clean || part.len() > USER_MAX || part.starts_with('-') {
            return invalid("must be USER or USER:GROUP, names or numbers".to_owned());
        }
        let number = part.bytes().all(|byte| byte.is_ascii_digit());
        if number && part.parse::<u32>().ok().is_none_or(|id| id > ID_MAX) {
            return invalid(format!("a number of a user or group is from 0 to {ID_MAX}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_values_pass() {
        for user in ["", "root", "1000", "1000:1000", "www-data:adm", "0:2147483647", "a$"] {
            assert_eq!(check_user(user), Ok(()), "{user}");
        }
        for name in ["NET_ADMIN", "cap_net_admin", "CAP_SYS_PTRACE", "all", "ALL", "bpf"] {
            assert_eq!(check_capability("--cap-add", name), Ok(()), "{name}");
        }
        for name in ["net.ipv4.ip_forward", "net.ipv4.conf.eth0/1.rp_filter", "fs.mqueue.msg_max"] {
            assert_eq!(check_sysctl(name, "1"), Ok(()), "{name}");
        }
        assert_eq!(check_sysctl("kernel.sem", "250 32000 32 128"), Ok(()));
    }

    #[test]
    fn bad_values_are_refused() {
        for user in [":", "a:", ":a", "a b", "a:b:c", "-a", "2147483648", "a/b", &"a".repeat(33)] {
            assert!(check_user(user).is_err(), "{user}");
        }
        for name in ["", "CAP_", "NETADMIN", "CAP_ALL", "NET ADMIN"] {
            assert!(check_capability("--cap-add", name).is_err(), "{name}");
        }
        for name in ["", "net.", "net..x", "kernel.hostname", "vm.swappiness", "network", "net.a b"]
        {
            assert!(check_sysctl(name, "1").is_err(), "{name}");
        }
        assert!(check_sysctl("net.x", "").is_err() && check_sysctl("net.x", "1\n2").is_err());
    }
}
