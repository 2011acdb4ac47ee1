//! What a container is made from.

use std::time::Duration;

use weft_model::spec::{
    Access, ContainerSpec, Health, HealthTest, Invalid, Limits, Missing, Mount,
};

use super::value;
use crate::v1;

/// First words of a health test, Docker's.
const NO_TEST: &str = "NONE";
const EXEC_TEST: &str = "CMD";
const SHELL_TEST: &str = "CMD-SHELL";

/// The user's words, for the wire.
pub fn spec(spec: &ContainerSpec) -> v1::ContainerSpec {
    v1::ContainerSpec {
        image: spec.image.clone(),
        args: spec.args.clone(),
        env: spec.env.clone(),
        hostname: spec.hostname.clone(),
        labels: value::map(spec.labels.clone()),
        mounts: spec.mounts.iter().map(mount).collect(),
        hosts: spec.hosts.iter().map(|(name, address)| format!("{name}:{address}")).collect(),
        dns: spec.dns.iter().map(ToString::to_string).collect(),
        dns_search: spec.dns_search.clone(),
        dns_options: spec.dns_options.clone(),
        stop_grace_period: Some(value::duration(spec.stop_grace)),
        limits: Some(v1::Limits {
            memory_bytes: spec.limits.memory,
            nano_cpus: spec.limits.nano_cpus,
            pids: spec.limits.pids,
        }),
        workdir: spec.workdir.clone(),
        user: spec.user.clone(),
        // The model holds numbers of signals only, which are small and above zero.
        stop_signal: spec.stop_signal.and_then(|n| u32::try_from(n).ok()).unwrap_or_default(),
        tty: spec.tty,
        open_stdin: spec.open_stdin,
        cap_add: spec.cap_add.clone(),
        cap_drop: spec.cap_drop.clone(),
        privileged: spec.privileged,
        sysctls: value::map(spec.sysctls.clone()),
        read_only: spec.read_only,
        init: spec.init,
        health: spec.health.as_ref().map(health),
    }
}

/// The user's words, from the wire.
///
/// # Errors
/// The first field that cannot be read. What is allowed is checked by the model.
pub fn spec_of(wire: &v1::ContainerSpec) -> Result<ContainerSpec, Invalid> {
    let mut spec = ContainerSpec::new(&wire.image, &[]);
    if let Some(grace) = value::span("--stop-grace-period", wire.stop_grace_period.as_ref())? {
        spec.stop_grace = grace;
    }
    if let Some(limits) = &wire.limits {
        spec.limits =
            Limits { memory: limits.memory_bytes, nano_cpus: limits.nano_cpus, pids: limits.pids };
    }
    spec.args.clone_from(&wire.args);
    spec.env.clone_from(&wire.env);
    spec.hostname.clone_from(&wire.hostname);
    spec.labels = value::map(wire.labels.clone());
    spec.mounts = wire.mounts.iter().map(mount_of).collect::<Result<_, _>>()?;
    spec.hosts = wire.hosts.iter().map(|line| host_of(line)).collect::<Result<_, _>>()?;
    let servers = wire.dns.iter();
    spec.dns = servers.map(|text| value::address("--dns", text)).collect::<Result<_, _>>()?;
    spec.dns_search.clone_from(&wire.dns_search);
    spec.dns_options.clone_from(&wire.dns_options);
    spec.workdir.clone_from(&wire.workdir);
    spec.user.clone_from(&wire.user);
    spec.stop_signal = signal_of(wire.stop_signal)?;
    (spec.tty, spec.open_stdin) = (wire.tty, wire.open_stdin);
    spec.cap_add.clone_from(&wire.cap_add);
    spec.cap_drop.clone_from(&wire.cap_drop);
    (spec.privileged, spec.read_only, spec.init) = (wire.privileged, wire.read_only, wire.init);
    spec.sysctls = value::map(wire.sysctls.clone());
    spec.health = wire.health.as_ref().map(health_of).transpose()?;
    Ok(spec)
}

fn signal_of(number: u32) -> Result<Option<i32>, Invalid> {
    match i32::try_from(number) {
        Ok(0) => Ok(None),
        Ok(number) => Ok(Some(number)),
        Err(_) => Err(Invalid::new("--stop-signal", number, "must be the number of a signal")),
    }
}

fn health(health: &Health) -> v1::Health {
    let test = match &health.test {
        HealthTest::Off => vec![NO_TEST.to_owned()],
        HealthTest::Shell(line) => vec![SHELL_TEST.to_owned(), line.clone()],
        HealthTest::Exec(args) => {
            std::iter::once(EXEC_TEST.to_owned()).chain(args.iter().cloned()).collect()
        }
    };
    v1::Health {
        test,
        interval: Some(value::duration(health.interval)),
        timeout: Some(value::duration(health.timeout)),
        start_period: Some(value::duration(health.start_period)),
        retries: health.retries,
    }
}

fn health_of(wire: &v1::Health) -> Result<Health, Invalid> {
    let test = match wire.test.split_first().map(|(kind, rest)| (kind.as_str(), rest)) {
        Some((NO_TEST, [])) => HealthTest::Off,
        Some((SHELL_TEST, [line])) => HealthTest::Shell(line.clone()),
        Some((EXEC_TEST, args)) if !args.is_empty() => HealthTest::Exec(args.to_vec()),
        Some(_) | None => {
            let reason = "must be NONE, CMD and a command, or CMD-SHELL and one line";
            return Err(Invalid::new("--health-cmd", wire.test.join(" "), reason));
        }
    };
    let span = |field: &str, wire: Option<&prost_types::Duration>| {
        Ok::<Duration, Invalid>(value::span(field, wire)?.unwrap_or_default())
    };
    Ok(Health {
        test,
        interval: span("--health-interval", wire.interval.as_ref())?,
        timeout: span("--health-timeout", wire.timeout.as_ref())?,
        start_period: span("--health-start-period", wire.start_period.as_ref())?,
        retries: wire.retries,
    })
}

fn mount(mount: &Mount) -> v1::Mount {
    match mount {
        Mount::Bind { source, target, access, missing } => v1::Mount {
            r#type: "bind".to_owned(),
            source: source.clone(),
            target: target.clone(),
            read_only: *access == Access::ReadOnly,
            make_source: *missing == Missing::Make,
            ..v1::Mount::default()
        },
        Mount::Tmpfs { target, size, mode } => v1::Mount {
            r#type: "tmpfs".to_owned(),
            target: target.clone(),
            tmpfs_size: size.unwrap_or_default(),
            tmpfs_mode: mode.unwrap_or_default(),
            ..v1::Mount::default()
        },
    }
}

fn mount_of(wire: &v1::Mount) -> Result<Mount, Invalid> {
    let target = wire.target.clone();
    match wire.r#type.as_str() {
        "bind" => {
            let access = if wire.read_only { Access::ReadOnly } else { Access::ReadWrite };
            let missing = if wire.make_source { Missing::Make } else { Missing::Refuse };
            Ok(Mount::Bind { source: wire.source.clone(), target, access, missing })
        }
        "tmpfs" if wire.source.is_empty() => Ok(Mount::Tmpfs {
            target,
            size: Some(wire.tmpfs_size).filter(|size| *size > 0),
            mode: Some(wire.tmpfs_mode).filter(|mode| *mode > 0),
        }),
        "tmpfs" => Err(Invalid::new("--mount source", &wire.source, "a tmpfs has none")),
        other => Err(Invalid::new("--mount type", other, "must be bind or tmpfs")),
    }
}

/// `NAME:ADDRESS`; the address may have colons itself.
fn host_of(line: &str) -> Result<(String, std::net::IpAddr), Invalid> {
    let (name, address) =
        line.split_once(':').ok_or_else(|| Invalid::new("--host", line, "must be NAME:ADDRESS"))?;
    Ok((name.to_owned(), value::address("--host", address)?))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn any_mount() -> impl Strategy<Value = Mount> {
        let path = "/[a-z]{1,8}";
        prop_oneof![
            (path, path, any::<[bool; 2]>()).prop_map(|(source, target, [read_only, make])| {
                Mount::Bind {
                    source,
                    target,
                    access: if read_only { Access::ReadOnly } else { Access::ReadWrite },
                    missing: if make { Missing::Make } else { Missing::Refuse },
                }
            }),
            (path, prop::option::of(1..u64::MAX), prop::option::of(1..0o7777_u32))
                .prop_map(|(target, size, mode)| Mount::Tmpfs { target, size, mode }),
        ]
    }

    pub(in super::super) fn any_spec() -> impl Strategy<Value = ContainerSpec> {
        let texts = || prop::collection::vec("[ -~]{0,8}", 0..3);
        let address = || any::<[u8; 16]>().prop_map(std::net::IpAddr::from);
        let numbers = (any::<[u64; 3]>(), 0..10_u64.pow(15));
        (
            texts(),
            texts(),
            prop::collection::btree_map("[a-z]{1,8}", ".{0,8}", 0..3),
            prop::collection::vec(any_mount(), 0..3),
            prop::collection::vec(("[a-z]{1,8}", address()), 0..3),
            prop::collection::vec(address(), 0..3),
            texts(),
            numbers,
        )
            .prop_map(|(args, env, labels, mounts, hosts, dns, words, (limits, grace))| {
                let [memory, nano_cpus, pids] = limits;
                ContainerSpec {
                    args,
                    env,
                    labels,
                    mounts,
                    hosts,
                    dns,
                    dns_search: words.clone(),
                    dns_options: words,
                    hostname: "h".into(),
                    workdir: "/w".into(),
                    stop_grace: Duration::from_nanos(grace),
                    limits: Limits { memory, nano_cpus, pids },
                    ..ContainerSpec::new("rootfs:/x", &[])
                }
            })
    }

    proptest! {
        #[test]
        fn a_spec_comes_back(given in any_spec()) {
            prop_assert_eq!(spec_of(&spec(&given)), Ok(given));
        }
    }

    #[test]
    fn what_cannot_be_read_names_its_field() {
        let cases: [(&str, fn(&mut v1::ContainerSpec)); 6] = [
            ("--health-cmd", |s| s.health = Some(v1::Health::default())),
            ("--mount type", |s| s.mounts = vec![v1::Mount::default()]),
            ("--mount source", |s| {
                s.mounts = vec![v1::Mount {
                    r#type: "tmpfs".into(),
                    source: "/x".into(),
                    ..Default::default()
                }];
            }),
            ("--host", |s| s.hosts = vec!["name".into()]),
            ("--dns", |s| s.dns = vec!["one.one".into()]),
            ("--stop-grace-period", |s| {
                s.stop_grace_period = Some(prost_types::Duration { seconds: -1, nanos: 0 });
            }),
        ];
        for (field, spoil) in cases {
            let mut wire = spec(&ContainerSpec::new("rootfs:/x", &["sh"]));
            spoil(&mut wire);
            assert_eq!(spec_of(&wire).unwrap_err().field, field);
        }
    }
}
