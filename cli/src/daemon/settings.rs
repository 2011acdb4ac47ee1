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

use crate::args::{
    DaemonArgs,
    daemon::{DEFAULT_CONFIG, LogFormat},
};

/// Where things lie when nothing else is said.
const STATE_DIR: &str = "/var/lib/weft";
const RUN_DIR: &str = "/run/weft";
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
    log_level: Option<String>,
    log_format: Option<String>,
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
    /// Where metrics were asked for; this version serves none, and says so.
    pub metrics: Option<SocketAddr>,
    log_level: String,
    log_json: bool,
}

impl Settings {
    /// Reads the file and puts the flags over it; makes the directories.
    ///
    /// # Errors
    /// A file that cannot be read or has unknown keys, or a directory that cannot be made.
    pub fn new(args: DaemonArgs) -> anyhow::Result<Self> {
        refuse_network_defaults(&args)?;
        let file = read(args.config.as_deref())?;
        let settings = Self {
            state_dir: args.state_dir.or(file.state_dir).unwrap_or_else(|| STATE_DIR.into()),
            run_dir: args.run_dir.or(file.run_dir).unwrap_or_else(|| RUN_DIR.into()),
            node_name: args.node_name.or(file.node_name),
            listen: match args.listen_addr.or(file.listen_addr) {
                Some(listen) => listen,
                None => LISTEN.parse().context("the default listen address")?,
            },
            metrics: args.metrics_addr,
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

/// These belong to the node's own networks, which this version does not have: saying nothing would
/// let the user believe that they are in force.
fn refuse_network_defaults(args: &DaemonArgs) -> anyhow::Result<()> {
    let network = &args.network;
    let given = [
        ("--bridge", network.bridge.is_some()),
        ("--bip", network.bip.is_some()),
        ("--fixed-cidr", network.fixed_cidr.is_some()),
        ("--mtu", network.mtu.is_some()),
        ("--icc", network.icc.is_some()),
        ("--ip", network.ip.is_some()),
        ("--ip-forward", network.ip_forward.is_some()),
        ("--nftables", network.nftables.is_some()),
        ("--dns", !network.dns.is_empty()),
        ("--dns-search", !network.dns_search.is_empty()),
        ("--dns-opt", !network.dns_opt.is_empty()),
        ("--default-address-pool", !network.default_address_pool.is_empty()),
        ("--publish-respects-host-firewall", network.publish_respects_host_firewall.is_some()),
        ("--wireguard", args.wireguard.is_some()),
    ];
    match given.iter().find(|(_, given)| *given) {
        Some((flag, _)) => anyhow::bail!("unsupported: {flag}"),
        None => Ok(()),
    }
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
