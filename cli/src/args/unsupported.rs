//! Flags that Docker has (or that the contract promises for later) and that are not built: the
//! answer to them is "unsupported", which scripts can tell from a typing mistake.

/// Flags by command. A flag that is here and understood all the same is answered by clap first.
const FLAGS: &[(&str, &str)] = &[
    (
        "cluster init",
        "autolock force-new-cluster dispatcher-heartbeat external-ca listen-addr max-snapshots \
         snapshot-interval",
    ),
    ("cluster join", "listen-addr"),
    ("cluster update", "autolock dispatcher-heartbeat external-ca max-snapshots snapshot-interval"),
    ("daemon", "default-gateway default-gateway-v6 fixed-cidr-v6 ip-masq ip6tables iptables ipv6"),
    ("network create", "config-from config-only ipam-driver ipam-opt ipv4"),
    ("network prune", "filter"),
    (
        "service create",
        "publish p config credential-spec entrypoint env-file generic-resource group \
         health-start-interval isolation log-driver log-opt max-concurrent no-resolve-image \
         oom-score-adj reserve-cpu reserve-memory rollback-delay rollback-failure-action \
         rollback-max-failure-ratio rollback-monitor rollback-order rollback-parallelism secret tty \
         t ulimit update-max-failure-ratio update-monitor with-registry-auth runtime",
    ),
    (
        "service update",
        "publish-add publish-rm config-add config-rm credential-spec entrypoint \
         generic-resource-add generic-resource-rm group-add group-rm health-start-interval \
         isolation log-driver log-opt max-concurrent no-resolve-image oom-score-adj reserve-cpu \
         reserve-memory rollback-delay rollback-failure-action rollback-max-failure-ratio \
         rollback-monitor rollback-order rollback-parallelism secret-add secret-rm tty t \
         ulimit-add ulimit-rm update-max-failure-ratio update-monitor with-registry-auth",
    ),
    ("attach", "tap"),
    ("service logs", "details"),
    (
        "run",
        "annotation attach a blkio-weight blkio-weight-device cgroup-parent cgroupns cpu-period \
         cpu-quota cpu-rt-period cpu-rt-runtime cpu-shares c cpuset-cpus cpuset-mems \
         device device-cgroup-rule device-read-bps device-read-iops device-write-bps \
         device-write-iops disable-content-trust domainname gpus group-add health-start-interval \
         ipc isolation kernel-memory link-local-ip log-driver log-opt memory-reservation \
         memory-swap memory-swappiness oom-kill-disable oom-score-adj pid platform pull runtime \
         security-opt shm-size storage-opt ulimit use-api-socket userns uts volume-driver \
         volumes-from",
    ),
    (
        "create",
        "annotation attach a blkio-weight blkio-weight-device cgroup-parent cgroupns cpu-period \
         cpu-quota cpu-rt-period cpu-rt-runtime cpu-shares c cpuset-cpus cpuset-mems \
         device device-cgroup-rule device-read-bps device-read-iops device-write-bps \
         device-write-iops disable-content-trust domainname gpus group-add health-start-interval \
         ipc isolation kernel-memory link-local-ip log-driver log-opt memory-reservation \
         memory-swap memory-swappiness oom-kill-disable oom-score-adj pid platform pull runtime \
         security-opt shm-size storage-opt ulimit use-api-socket userns uts volume-driver \
         volumes-from",
    ),
    ("start", "checkpoint checkpoint-dir"),
    ("restart", "signal s"),
    ("rm", "link l"),
    ("system prune", "filter volumes"),
    ("prune", "filter"),
    ("network connect", "driver-opt gw-priority link-local-ip"),
    ("ps", "size s"),
    ("inspect", "size s"),
    ("exec", "detach-keys env-file privileged"),
    ("logs", "details until"),
    ("stop", "signal s"),
];

/// True if `flag` (with its dashes) is known for the command and not built. `container run` is `run`.
pub fn is_unsupported(command: &str, flag: &str) -> bool {
    let command = match command.strip_prefix("container ") {
        Some("ls") => "ps",
        Some(verb) => verb,
        None => command,
    };
    let name = flag.trim_start_matches('-');
    // A single letter is only ever a short flag, a word only ever a long one.
    let dashes = if name.chars().count() == 1 { "-" } else { "--" };
    flag == format!("{dashes}{name}")
        && FLAGS
            .iter()
            .filter(|(known, _)| *known == command)
            .any(|(_, flags)| flags.split_whitespace().any(|known| known == name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_flags_are_told_from_unknown_ones() {
        assert!(is_unsupported("service create", "--secret"));
        assert!(is_unsupported("service create", "-p"));
        assert!(!is_unsupported("service create", "--sercet"));
        assert!(!is_unsupported("service create", "--p"));
        assert!(!is_unsupported("node ls", "--secret"));
        assert!(is_unsupported("container run", "--pid") && is_unsupported("container ls", "-s"));
    }
}
