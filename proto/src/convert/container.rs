//! What a container is made from.

use weft_model::spec::{Access, ContainerSpec, Invalid, Limits, Mount};

use super::value;
use crate::v1;

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
        ..v1::ContainerSpec::default()
    }
}

/// The user's words, from the wire.
///
/// # Errors
/// The first field that cannot be read. What is allowed is checked by the model.
pub fn spec_of(wire: &v1::ContainerSpec) -> Result<ContainerSpec, Invalid> {
    if !wire.user.is_empty() {
        return Err(Invalid::new("--user", &wire.user, "not available for services yet"));
    }
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
    Ok(spec)
}

fn mount(mount: &Mount) -> v1::Mount {
    match mount {
        Mount::Bind { source, target, access } => v1::Mount {
            r#type: "bind".to_owned(),
            source: source.clone(),
            target: target.clone(),
            read_only: *access == Access::ReadOnly,
            ..v1::Mount::default()
        },
        Mount::Tmpfs { target } => v1::Mount {
            r#type: "tmpfs".to_owned(),
            source: String::new(),
            target: target.clone(),
            ..v1::Mount::default()
        },
    }
}

fn mount_of(wire: &v1::Mount) -> Result<Mount, Invalid> {
    let target = wire.target.clone();
    match wire.r#type.as_str() {
        "bind" => {
            let access = if wire.read_only { Access::ReadOnly } else { Access::ReadWrite };
            Ok(Mount::Bind { source: wire.source.clone(), target, access })
        }
        "tmpfs" if wire.source.is_empty() => Ok(Mount::Tmpfs { target }),
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
            (path, path, any::<bool>()).prop_map(|(source, target, read_only)| Mount::Bind {
                source,
                target,
                access: if read_only { Access::ReadOnly } else { Access::ReadWrite },
            }),
            path.prop_map(|target| Mount::Tmpfs { target }),
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
            ("--user", |s| s.user = "1000".into()),
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
