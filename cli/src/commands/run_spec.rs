//! From the flags of `run` and `create` to the spec on the wire. Reads the files that the flags name.

use std::{fs, path::Path};

use weft_proto::v1;

use super::health;
use crate::{
    args::{
        run::{NetworkFlags, ProcessFlags, SpecArgs},
        values::run::NetworkArg,
    },
    error::CliError,
    output::escape::shown,
    wire::duration,
};

/// The spec that the flags ask for.
pub fn spec(args: &SpecArgs) -> Result<v1::RunSpec, CliError> {
    let (network_mode, networks) = networks(&args.network)?;
    let publishes = args.network.publish_all || !args.network.publish.is_empty();
    if publishes && network_mode.starts_with("container:") {
        let why = format!("not with --network {network_mode}: that container publishes");
        return Err(CliError::usage("--publish", why));
    }
    // Without a network of its own it has nothing to lead ports to.
    let published = network_mode.is_empty();
    Ok(v1::RunSpec {
        name: args.name.clone().unwrap_or_default().trim_start_matches('/').to_owned(),
        container: Some(container(args)?),
        network_mode,
        networks,
        publish: if published { args.network.publish.clone() } else { Vec::new() },
        publish_all: published && args.network.publish_all,
        expose: args.network.expose.clone(),
        restart: args.restart.clone(),
        auto_remove: args.rm,
        links: args.network.link.clone(),
    })
}

/// Whether ports are to be published of a container whose ports are the host's anyway.
pub fn publishes_in_vain(args: &SpecArgs) -> bool {
    let host = NetworkArg::Mode("host".to_owned());
    let flags = &args.network;
    flags.network.contains(&host) && (flags.publish_all || !flags.publish.is_empty())
}

fn container(args: &SpecArgs) -> Result<v1::ContainerSpec, CliError> {
    let (image, command) = args.image_and_args.split_first().map_or(("", &[][..]), |(i, c)| (i, c));
    let (process, network, rights) = (&args.process, &args.network, &args.rights);
    let mounts = [&args.files.volume, &args.files.mount, &args.files.tmpfs];
    Ok(v1::ContainerSpec {
        image: image.to_owned(),
        args: with_entrypoint(process.entrypoint.as_deref(), command),
        env: environment(process)?,
        hostname: network.hostname.clone().unwrap_or_default(),
        labels: labels(process)?.into_iter().collect(),
        mounts: mounts.into_iter().flatten().cloned().collect(),
        hosts: network.add_host.clone(),
        dns: network.dns.iter().map(ToString::to_string).collect(),
        dns_search: network.dns_search.clone(),
        dns_options: network.dns_option.clone(),
        stop_grace_period: process
            .stop_timeout
            .map(|seconds| duration(std::time::Duration::from_secs(seconds.into()))),
        limits: Some(v1::Limits {
            memory_bytes: process.memory.unwrap_or(0),
            nano_cpus: process.cpus.unwrap_or(0),
            // Docker takes -1 for no limit, too.
            pids: process.pids_limit.map_or(0, |most| u64::try_from(most).unwrap_or(0)),
        }),
        workdir: process.workdir.clone().unwrap_or_default(),
        user: process.user.clone().unwrap_or_default(),
        stop_signal: process.stop_signal.unwrap_or(0),
        tty: args.tty,
        open_stdin: args.interactive,
        cap_add: rights.cap_add.clone(),
        cap_drop: rights.cap_drop.clone(),
        privileged: rights.privileged,
        sysctls: rights.sysctl.iter().cloned().collect(),
        read_only: args.files.read_only,
        init: process.init,
        health: health::changed(None, &args.health)?,
    })
}

/// The entry point stands in front of the command; an empty one is none.
fn with_entrypoint(entrypoint: Option<&str>, command: &[String]) -> Vec<String> {
    let entrypoint = entrypoint.filter(|program| !program.is_empty()).map(str::to_owned);
    entrypoint.into_iter().chain(command.iter().cloned()).collect()
}

/// The mode, and the networks with what is asked of each. The flags without a network's name are
/// about the first one.
fn networks(flags: &NetworkFlags) -> Result<(String, Vec<v1::EndpointSpec>), CliError> {
    let modes: Vec<&String> = flags
        .network
        .iter()
        .filter_map(|network| match network {
            NetworkArg::Mode(mode) => Some(mode),
            NetworkArg::Network(_) => None,
        })
        .collect();
    let mut networks: Vec<v1::EndpointSpec> = flags
        .network
        .iter()
        .filter_map(|network| match network {
            NetworkArg::Network(spec) => Some(spec.clone()),
            NetworkArg::Mode(_) => None,
        })
        .collect();
    if let Some(mode) = modes.first() {
        if modes.len() + networks.len() > 1 {
            let why = format!("{mode} cannot be together with another network");
            return Err(CliError::usage("--network", why));
        }
        let endpoint = [
            ("--network-alias", !flags.network_alias.is_empty()),
            ("--ip", flags.ip.is_some()),
            ("--ip6", flags.ip6.is_some()),
            ("--mac-address", flags.mac_address.is_some()),
        ];
        if let Some((flag, _)) = endpoint.iter().find(|(_, given)| *given) {
            return Err(CliError::usage(*flag, format!("not with --network {mode}")));
        }
        return Ok(((*mode).clone(), Vec::new()));
    }
    for (index, spec) in networks.iter().enumerate() {
        if networks[..index].iter().any(|earlier| earlier.network == spec.network) {
            let why = format!("{} is given twice", shown(&spec.network));
            return Err(CliError::usage("--network", why));
        }
    }
    let asked = flags.ip.is_some()
        || flags.ip6.is_some()
        || flags.mac_address.is_some()
        || !flags.network_alias.is_empty();
    if networks.is_empty() && asked {
        networks.push(v1::EndpointSpec { network: "bridge".to_owned(), ..Default::default() });
    }
    if let Some(first) = networks.first_mut() {
        first.aliases.extend(flags.network_alias.iter().cloned());
        let addresses = flags.ip.into_iter().chain(flags.ip6);
        first.addresses.extend(addresses.map(|address| address.to_string()));
        if let Some(mac) = &flags.mac_address {
            first.mac_address.clone_from(mac);
        }
    }
    Ok((String::new(), networks))
}

fn environment(flags: &ProcessFlags) -> Result<Vec<String>, CliError> {
    let mut all = Vec::new();
    for file in &flags.env_file {
        for line in lines("--env-file", file)? {
            let name = line.split('=').next().unwrap_or_default();
            if name.is_empty() || name.contains(char::is_whitespace) {
                let why = format!("{}: variable {:?}", file.display(), shown(name));
                return Err(CliError::usage("--env-file", format!("{why}: no name")));
            }
            match (line.contains('='), std::env::var(&line)) {
                (true, _) => all.push(line),
                (false, Ok(value)) => all.push(format!("{line}={value}")),
                // A name without a value that is not set here is not set there, as in Docker.
                (false, Err(_)) => {}
            }
        }
    }
    // A variable without a value that is not set here is not set there either.
    all.extend(flags.env.iter().filter(|pair| pair.contains('=')).cloned());
    Ok(all)
}

fn labels(flags: &ProcessFlags) -> Result<Vec<(String, String)>, CliError> {
    let mut all = Vec::new();
    for file in &flags.label_file {
        for line in lines("--label-file", file)? {
            let label = crate::args::values::label(&line);
            all.push(label.map_err(|why| CliError::usage("--label-file", why))?);
        }
    }
    all.extend(flags.label.iter().cloned());
    Ok(all)
}

/// The lines of a file that say something: neither empty nor a comment.
fn lines(flag: &str, file: &Path) -> Result<Vec<String>, CliError> {
    let text = fs::read_to_string(file)
        .map_err(|source| CliError::Io { what: format!("{flag} {}", file.display()), source })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let lines = text.lines().map(str::trim_start);
    Ok(lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect())
}
