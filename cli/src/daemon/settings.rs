//! What the daemon was told: file, then command line.

use std::{
    fs,
    io::IsTerminal as _,
    net::SocketAddr,
    os::unix::{ffi::OsStringExt, fs::PermissionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde::Deserialize;
use tracing_subscriber::EnvFilter;
use weft_model::Engine;
use weft_worker::{
    local::{AddressPool, Defaults, defaults::DEFAULT_BRIDGE},
    tunnel::Wish,
};

use crate::args::{
    DaemonArgs,
    daemon::{DEFAULT_CONFIG, LogFormat, NetworkDefaults, WireguardKind},
    values,
};

/// Where things lie when nothing else is said.
const STATE_DIR: &str = "/var/lib/weft";
const RUN_DIR: &str = "/run/weft";
/// The environment variable with the number of lanes between two nodes, for measurements.
const LANES: &str = "WEFT_WIREGUARD_LANES";
/// Where nodes and clients connect.
const LISTEN: &str = "0.0.0.0:2377";

/// The keys of `weft.toml` that this version knows; each is also a flag.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct File {
    state_dir: Option<PathBuf>,
    run_dir: Option<PathBuf>,
    node_name: Option<String>,
    listen_addr: Option<SocketAddr>,
    metrics_addr: Option<SocketAddr>,
    log_level: Option<String>,
    log_format: Option<String>,
    // What new networks and containers of this node get: texts that are read as the flags are.
    bridge: Option<String>,
    bip: Option<String>,
    fixed_cidr: Option<String>,
    mtu: Option<u32>,
    icc: Option<bool>,
    ip: Option<String>,
    ip_forward: Option<bool>,
    nftables: Option<bool>,
    #[serde(default)]
    dns: Vec<String>,
    #[serde(default)]
    dns_search: Vec<String>,
    #[serde(default)]
    dns_opt: Vec<String>,
    #[serde(default)]
    default_address_pool: Vec<String>,
    publish_respects_host_firewall: Option<bool>,
    wireguard: Option<String>,
}

/// What the daemon was told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What must outlive a reboot.
    pub state_dir: PathBuf,
    /// What need not.
    pub run_dir: PathBuf,
    /// Name of this node, if it is not its host name.
    pub node_name: Option<String>,
    /// Where nodes and clients connect.
    pub listen: SocketAddr,
    /// Where metrics are served; nowhere unless it was said.
    pub metrics: Option<SocketAddr>,
    /// What new networks and containers of this node get when nothing else is said.
    pub network: NetworkDefaults,
    /// What is to carry encrypted overlays.
    pub wireguard: Wish,
    log_level: String,
    log_json: bool,
}

impl Settings {
    /// Reads the file and puts the flags over it; makes the directories.
    ///
    /// # Errors
    /// A file that cannot be read or has unknown keys, or a directory that cannot be made.
    pub fn new(args: DaemonArgs) -> anyhow::Result<Self> {
        let file = read(args.config.as_deref())?;
        let network = network(&args.network, &file)?;
        let settings = Self {
            state_dir: args.state_dir.or(file.state_dir).unwrap_or_else(|| STATE_DIR.into()),
            run_dir: args.run_dir.or(file.run_dir).unwrap_or_else(|| RUN_DIR.into()),
            node_name: args.node_name.or(file.node_name),
            listen: match args.listen_addr.or(file.listen_addr) {
                Some(listen) => listen,
                None => LISTEN.parse().context("the default listen address")?,
            },
            metrics: args.metrics_addr.or(file.metrics_addr),
            network,
            wireguard: wireguard(args.wireguard, file.wireguard.as_deref())?,
            log_level: args.log_level.or(file.log_level).unwrap_or_else(|| "info".to_owned()),
            log_json: match (args.log_format, file.log_format.as_deref()) {
                (Some(LogFormat::Json), _) | (None, Some("json")) => true,
                (Some(LogFormat::Text), _) | (None, None | Some("text")) => false,
                (None, Some(other)) => anyhow::bail!("log-format {other:?}: must be text or json"),
            },
        };
        let name = settings.node_name.as_deref().unwrap_or("n");
        let clean = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
        anyhow::ensure!(
            clean && !name.is_empty() && name.len() <= 64,
            "node name {name:?}: must be 1 to 64 letters, digits, dots, dashes or underscores"
        );
        for directory in [&settings.state_dir, &settings.run_dir] {
            make_private(directory)
                .with_context(|| format!("cannot use directory {}", directory.display()))?;
        }
        Ok(Self {
            state_dir: fs::canonicalize(&settings.state_dir)?,
            run_dir: fs::canonicalize(&settings.run_dir)?,
            ..settings
        })
    }

    /// What the worker is told of networks and containers of its own.
    pub fn defaults(&self) -> Defaults {
        let (network, plain) = (&self.network, Defaults::default());
        let pools = network.default_address_pool.iter();
        Defaults {
            bridge: network.bridge.clone().filter(|bridge| bridge != DEFAULT_BRIDGE),
            bip: network.bip,
            fixed_cidr: network.fixed_cidr,
            mtu: network.mtu,
            icc: network.icc.unwrap_or(plain.icc),
            ip: network.ip,
            ip_forward: network.ip_forward.unwrap_or(plain.ip_forward),
            nftables: network.nftables.unwrap_or(plain.nftables),
            dns: network.dns.clone(),
            dns_search: network.dns_search.clone(),
            dns_options: network.dns_opt.clone(),
            pools: pools.map(|pool| AddressPool { base: pool.base, size: pool.size }).collect(),
            respects_firewall: network
                .publish_respects_host_firewall
                .unwrap_or(plain.respects_firewall),
        }
    }

    /// The user's socket.
    pub fn socket(&self) -> PathBuf {
        self.run_dir.join("weft.sock")
    }

    /// The command line of this process.
    pub fn arguments(&self) -> Vec<Vec<u8>> {
        std::env::args_os().map(OsStringExt::into_vec).collect()
    }

    /// Sends the log to standard error.
    ///
    /// # Errors
    /// A filter that cannot be read.
    pub fn start_log(&self) -> anyhow::Result<()> {
        let filter = EnvFilter::try_new(quiet_libraries(&self.log_level))
            .with_context(|| format!("log level {:?}", self.log_level))?;
        let log = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_ansi(std::io::stderr().is_terminal())
            .with_writer(std::io::stderr);
        let started = if self.log_json { log.json().try_init() } else { log.try_init() };
        started.map_err(|error| anyhow::anyhow!("cannot start the log: {error}"))
    }
}

/// A bare level is for us; the libraries below speak from their warnings up.
fn quiet_libraries(level: &str) -> String {
    let bare = level.bytes().all(|byte| byte.is_ascii_alphabetic());
    if bare {
        let ours =
            ["weft", "weft_worker", "weft_manager", "weft_overlay", "weft_dns", "weft_proto"];
        let ours: Vec<_> = ours.iter().map(|name| format!("{name}={level}")).collect();
        format!("error,{}", ours.join(","))
    } else {
        level.to_owned()
    }
}

/// The flag, or the key of the file; and what a test or a measurement says of the lanes.
fn wireguard(flag: Option<WireguardKind>, key: Option<&str>) -> anyhow::Result<Wish> {
    let engine = match (flag, key) {
        (Some(WireguardKind::Kernel), _) | (None, Some("kernel")) => Some(Engine::Kernel),
        (Some(WireguardKind::Userspace), _) | (None, Some("userspace")) => Some(Engine::Userspace),
        (None, None) => None,
        (None, Some(other)) => {
            anyhow::bail!("wireguard {other:?}: must be kernel or userspace")
        }
    };
    let lanes = std::env::var(LANES)
        .ok()
        .map(|text| text.parse().with_context(|| format!("environment variable {LANES}={text}")));
    Ok(Wish { engine, lanes: lanes.transpose()? })
}

/// The flags over the keys of the file, each checked, and what does not go together refused.
fn network(flags: &NetworkDefaults, file: &File) -> anyhow::Result<NetworkDefaults> {
    let mut all = flags.clone();
    all.bridge = all.bridge.or_else(|| file.bridge.clone());
    if let (None, Some(text)) = (all.bip, &file.bip) {
        all.bip = Some(parsed("bip", text, values::cidr)?);
    }
    if let (None, Some(text)) = (all.fixed_cidr, &file.fixed_cidr) {
        all.fixed_cidr = Some(parsed("fixed-cidr", text, values::cidr)?);
    }
    if let (None, Some(text)) = (all.ip, &file.ip) {
        all.ip = Some(parsed("ip", text, values::address)?);
    }
    all.mtu = all.mtu.or(file.mtu);
    all.icc = all.icc.or(file.icc);
    all.ip_forward = all.ip_forward.or(file.ip_forward);
    all.nftables = all.nftables.or(file.nftables);
    all.publish_respects_host_firewall =
        all.publish_respects_host_firewall.or(file.publish_respects_host_firewall);
    if all.dns.is_empty() {
        let servers = file.dns.iter().map(|text| parsed("dns", text, values::address));
        all.dns = servers.collect::<Result<_, _>>()?;
    }
    if all.dns_search.is_empty() {
        all.dns_search.clone_from(&file.dns_search);
    }
    if all.dns_opt.is_empty() {
        all.dns_opt.clone_from(&file.dns_opt);
    }
    if all.default_address_pool.is_empty() {
        let pools = file.default_address_pool.iter();
        let pools = pools.map(|text| parsed("default-address-pool", text, values::address_pool));
        all.default_address_pool = pools.collect::<Result<_, _>>()?;
    }
    check(&all)?;
    Ok(all)
}

fn parsed<T>(
    key: &str,
    text: &str,
    read: impl FnOnce(&str) -> Result<T, String>,
) -> anyhow::Result<T> {
    read(text).map_err(|why| anyhow::anyhow!("{key} {text:?}: {why}"))
}

/// Longest name of a network device (`IFNAMSIZ` less the NUL).
const DEVICE_NAME_MAX: usize = 15;

fn check(network: &NetworkDefaults) -> anyhow::Result<()> {
    if let Some(bridge) = &network.bridge {
        anyhow::ensure!(
            network.bip.is_none() || bridge == "weft0",
            "--bip and --bridge: the address of an existing bridge is its own"
        );
        let clean = !bridge.is_empty()
            && bridge.len() <= DEVICE_NAME_MAX
            && !matches!(bridge.as_str(), "." | "..")
            && bridge.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/' && byte != b':');
        anyhow::ensure!(clean, "--bridge {bridge:?}: not the name of a network device");
    }
    if let Some(bip) = network.bip {
        anyhow::ensure!(
            bip.addr() != bip.network() && (bip.addr().is_ipv6() || bip.addr() != bip.broadcast()),
            "--bip {bip}: must be the address of the bridge in its subnet, such as 192.168.5.1/24"
        );
    }
    if let (Some(bip), Some(part)) = (network.bip, network.fixed_cidr) {
        anyhow::ensure!(
            bip.trunc().contains(&part),
            "--fixed-cidr {part}: lies outside of --bip {}",
            bip.trunc()
        );
    }
    Ok(())
}

/// Checks the text of a configuration file as [`Settings::new`] does, and gives what it says of networks.
///
/// # Errors
/// Unknown keys, or values that cannot be.
pub fn check_text(text: &str) -> anyhow::Result<NetworkDefaults> {
    let file: File = toml::from_str(text)?;
    wireguard(None, file.wireguard.as_deref())?;
    network(&NetworkDefaults::default(), &file)
}

/// What a daemon is told by the file where it always is, with nothing made and nothing changed.
#[derive(Debug, Clone)]
pub struct Outline {
    /// What must outlive a reboot.
    pub state_dir: PathBuf,
    /// What need not.
    pub run_dir: PathBuf,
    /// Where nodes and clients connect.
    pub listen: SocketAddr,
    /// Whether it has tables in the host.
    pub nftables: bool,
    /// Whether it makes the host forward.
    pub ip_forward: bool,
}

/// Reads that file.
///
/// # Errors
/// When it is there and cannot be read, or has unknown keys.
pub fn outline() -> anyhow::Result<Outline> {
    let (file, plain) = (read(None)?, Defaults::default());
    Ok(Outline {
        state_dir: file.state_dir.unwrap_or_else(|| STATE_DIR.into()),
        run_dir: file.run_dir.unwrap_or_else(|| RUN_DIR.into()),
        listen: match file.listen_addr {
            Some(listen) => listen,
            None => LISTEN.parse().context("the default listen address")?,
        },
        nftables: file.nftables.unwrap_or(plain.nftables),
        ip_forward: file.ip_forward.unwrap_or(plain.ip_forward),
    })
}

fn read(path: Option<&Path>) -> anyhow::Result<File> {
    let (path, named) = match path {
        Some(path) => (path, true),
        None => (Path::new(DEFAULT_CONFIG), false),
    };
    match fs::read_to_string(path) {
        Ok(text) => {
            toml::from_str(&text).with_context(|| format!("configuration file {}", path.display()))
        }
        Err(error) if !named && error.kind() == std::io::ErrorKind::NotFound => Ok(File::default()),
        Err(error) => {
            Err(error).with_context(|| format!("cannot read configuration file {}", path.display()))
        }
    }
}

/// A directory that only root can look into: it holds keys.
fn make_private(directory: &Path) -> std::io::Result<()> {
    fs::create_dir_all(directory)?;
    fs::set_permissions(directory, fs::Permissions::from_mode(0o700))
}
