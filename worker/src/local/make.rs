//! The steps of a start, in order, and the way back: the container, its ports, its networks, its
//! command.

use std::{fs, io, path::PathBuf, sync::Arc, time::Duration};

use weft_model::{
    Container, ContainerId,
    object::{Endpoint, Holder, PortBinding, Wanted},
    spec::{NetworkMode, Protocol},
};

use super::{
    Local,
    driver::Driver,
    files::{Texts, View, Written, hostname},
    live::Phase as Seen,
    plane::Own,
};
use crate::{
    attach::Ask,
    container::{
        ContainerConfig, ContainerId as RuntimeId, Created, EXIT_NOT_STARTED, Error, EtcFile,
        Found, HostPort, NetNamespace, Phase, chain,
    },
    desired::{LocalSandbox, LocalSandboxes, Sorted, key_of},
    failpoint,
    plumbing::Plumbed,
    tasks,
};

/// How long a sandbox may take to be plumbed before the start counts as failed.
const PLUMBING_DEADLINE: Duration = Duration::from_secs(10);
/// How long the network of an ended container may take to go; it goes with its namespace anyway.
const UNPLUMBING_DEADLINE: Duration = Duration::from_secs(5);
/// The label that says that a container is of `weft run`.
pub(super) const LABEL: &str = "weft.run";

/// A start that did not come about.
pub(super) struct Failed {
    /// 125, 126 or 127, as in Docker.
    pub exit_code: i32,
    /// Why.
    pub message: String,
}

/// Why a start went no further.
pub(super) enum Stop {
    /// Something else is wanted by now.
    Unwanted,
    /// It cannot be.
    Failed(Failed),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        let exit_code = error.exit_code();
        Self::Failed(Failed { exit_code, message: in_words(&error) })
    }
}

fn failed(message: impl Into<String>) -> Stop {
    Stop::Failed(Failed { exit_code: EXIT_NOT_STARTED, message: message.into() })
}

/// As Docker's users know them.
fn in_words(error: &Error) -> String {
    match error {
        Error::PortInUse { listen, source, .. } => match source.raw_os_error() {
            Some(libc::EADDRINUSE) => {
                format!("Bind for {listen} failed: port is already allocated")
            }
            Some(_) | None => format!("Bind for {listen} failed: {source}"),
        },
        // What the library says after the first line is the same again.
        Error::NotStarted { reason, .. } => {
            format!("cannot start: {}", reason.lines().next().unwrap_or_default())
        }
        other => chain(other),
    }
}

/// The container's name for the runtime.
pub(super) fn runtime_id(id: ContainerId) -> RuntimeId {
    RuntimeId::new(id.to_string()).expect("64 hex digits are an ID")
}

/// Whether the runtime has made it for `weft run`.
pub(super) fn is_ours(found: &Found) -> bool {
    found.config.as_ref().is_some_and(|config| config.labels.contains_key(LABEL))
}

/// Everything from nothing, or from what has ended, to a running command; returns its pid.
pub(super) async fn begin(driver: &mut Driver, container: &Arc<Container>) -> Result<i32, Stop> {
    let runtime = Arc::clone(&driver.local.context.runtime);
    let id = runtime_id(driver.id);
    links_are_up(&driver.local, container)?;
    let created = create(driver, container).await?;
    failpoint!("local.start.made");
    let ports = host_ports(&driver.local, container);
    if !ports.is_empty() {
        runtime.publish(&id, &ports).await?;
        failpoint!("local.start.published");
    }
    plumb(driver, container, created).await?;
    failpoint!("local.start.plumbed");
    for attaching in driver.cell.take_attaching() {
        let run = driver.cell.live.borrow().run + 1;
        let session = runtime.attach(&id, attaching.config).await;
        // The client may have gone.
        let _ = attaching.tell.send(session.map(|session| (session, run)));
    }
    if !driver.is_wanted() {
        return Err(Stop::Unwanted);
    }
    let pid = runtime.start(&id).await?;
    failpoint!("local.start.started");
    Ok(pid)
}

/// On the default bridge a link is an address, which only one that runs has for sure.
fn links_are_up(local: &Local, container: &Container) -> Result<(), Stop> {
    let links = container.endpoints.iter().flat_map(|endpoint| &endpoint.spec.links);
    for link in links {
        let phase = local.table.live(link.target).phase;
        if !matches!(phase, Seen::Up { .. }) {
            let (name, own) = (&link.name, &container.spec.name);
            let text =
                format!("Cannot link to a non running container: {name} AS {own}/{}", link.alias);
            return Err(failed(text));
        }
    }
    Ok(())
}

async fn create(driver: &mut Driver, container: &Container) -> Result<Created, Stop> {
    let runtime = Arc::clone(&driver.local.context.runtime);
    let id = runtime_id(driver.id);
    let local = Arc::clone(&driver.local);
    let texts = local.texts(container);
    let network = match container.spec.network {
        NetworkMode::Networks | NetworkMode::None => NetNamespace::Own,
        NetworkMode::Host => NetNamespace::Host,
        NetworkMode::Container(owner) => {
            NetNamespace::Join(join(&local, container.id, owner).await?)
        }
    };
    let written = Written::new(&local.directory, driver.id);
    if driver.made {
        let created = runtime.renew(&id).await?;
        failpoint!("local.start.renewed");
        write(&local, container.id, &written, &texts).await;
        return Ok(created);
    }
    let mut config = config(container, &texts, network);
    if let NetworkMode::Container(owner) = container.spec.network
        && let Some(owner) = local.engine.state().container(owner)
    {
        config.hostname = hostname(owner);
    }
    let created = runtime.create(config).await?;
    driver.made = true;
    if let Err(error) = written.save(&texts) {
        tracing::warn!(container = %driver.id.short(), %error, "its files count as edited");
    }
    Ok(created)
}

fn config(container: &Container, texts: &Texts, network: NetNamespace) -> ContainerConfig {
    let mut config = tasks::of_spec(runtime_id(container.id), &container.spec.container);
    config.name.clone_from(&container.spec.name);
    config.network = network;
    config.resolv_conf.clone_from(&texts.resolv_conf);
    config.hosts.clone_from(&texts.hosts);
    config.labels.insert(LABEL.to_owned(), "1".to_owned());
    config
}

/// A path to the namespace of `owner` that stays the same over its restarts: a container is made
/// with it once.
async fn join(local: &Local, joiner: ContainerId, owner: ContainerId) -> Result<PathBuf, Stop> {
    let state = local.engine.state();
    let name = state.container(owner).map_or_else(|| owner.short(), |c| c.spec.name.clone());
    let found = local.context.runtime.status(&runtime_id(owner)).await;
    let running = found.ok().filter(|status| status.phase == Phase::Running);
    let Some(status) = running else {
        return Err(failed(format!("cannot join network of a non running container: {name}")));
    };
    let target = PathBuf::from(format!("/proc/{}/ns/net", status.shim_pid));
    let link = local.directory.join("netns").join(joiner.to_string());
    point(&link, &target).map_err(|error| failed(format!("{}: {error}", link.display())))?;
    Ok(link)
}

fn point(link: &std::path::Path, target: &std::path::Path) -> io::Result<()> {
    if let Some(directory) = link.parent() {
        fs::create_dir_all(directory)?;
    }
    match fs::remove_file(link) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => std::os::unix::fs::symlink(target, link),
    }
}

/// What the container's holder listens at: every binding, since it serves the host's loopback and
/// what changes the family.
fn host_ports(local: &Local, container: &Container) -> Vec<HostPort> {
    let state = local.engine.state();
    let assigned = local.context.assigned.borrow().1.clone();
    let (sorted, none) = (Sorted::new(&assigned), LocalSandboxes::new());
    let own = Own { state: &state, defaults: &local.defaults, sorted: &sorted, sandboxes: &none };
    let Some((_, targets)) = own.reached_at(container) else { return Vec::new() };
    let port = |binding: &PortBinding| {
        let same = targets.iter().find(|t| t.is_ipv4() == binding.host_ip.is_ipv4());
        let target = same.or_else(|| targets.first())?;
        Some(HostPort {
            protocol: match binding.protocol {
                Protocol::Tcp => crate::container::Protocol::Tcp,
                Protocol::Udp => crate::container::Protocol::Udp,
                Protocol::Sctp => crate::container::Protocol::Sctp,
            },
            listen: (binding.host_ip, binding.host_port).into(),
            target: (*target, binding.port).into(),
        })
    };
    container.ports.iter().filter_map(port).collect()
}

/// Gives the sandbox to the loop that plumbs it, its sockets to the resolver, and waits until the
/// kernel has all of it.
async fn plumb(driver: &mut Driver, container: &Container, created: Created) -> Result<(), Stop> {
    match container.spec.network {
        NetworkMode::Networks | NetworkMode::None => {}
        NetworkMode::Host | NetworkMode::Container(_) => return Ok(()),
    }
    let local = Arc::clone(&driver.local);
    let holder = Holder::Container(driver.id);
    let sandbox = sandbox(created.netns, created.dns.as_ref().map(|dns| dns.port));
    if let Some(dns) = created.dns {
        let served = local.context.names.add_unknown(&key_of(holder), dns.udp, dns.tcp);
        served.map_err(|error| failed(error.to_string()))?;
    }
    let resolving = local.view(|view| view.resolving(container));
    local.context.plumbing.put(holder, Plumbed { local: sandbox, resolving });
    if container.endpoints.iter().any(Endpoint::foreign) {
        local.has_addresses(container).await.map_err(|error| failed(error.to_string()))?;
    }
    let revision = local.engine.state().revision();
    let carried = local.context.plumbing.carried(holder, revision, PLUMBING_DEADLINE);
    tokio::pin!(carried);
    loop {
        tokio::select! {
            carried = &mut carried => {
                carried.map_err(|why| failed(format!("network: {why}")))?;
                break;
            }
            () = driver.rethought() => if !driver.is_wanted() {
                return Err(Stop::Unwanted);
            }
        }
    }
    ready(&local, container).await
}

fn sandbox(netns: PathBuf, dns_port: Option<u16>) -> LocalSandbox {
    // Its memberships are in the node's own state.
    LocalSandbox { netns, dns_port, attachments: Vec::new(), ifname: None, default_gateway: true }
}

/// Tells the managers that the kernel carries what they gave addresses to.
async fn ready(local: &Local, container: &Container) -> Result<(), Stop> {
    for endpoint in container.endpoints.iter().filter(|endpoint| endpoint.foreign()) {
        let told = local.ground.ask(&Ask::Ready(endpoint.attachment)).await;
        told.map_err(|status| failed(status.message()))?;
    }
    Ok(())
}

/// Takes over a container that runs: its sandbox is plumbed already.
pub(super) async fn adopt(
    driver: &mut Driver,
    container: &Container,
    found: &Found,
) -> Result<(), String> {
    let local = Arc::clone(&driver.local);
    if !matches!(container.spec.network, NetworkMode::Networks | NetworkMode::None) {
        return Ok(());
    }
    let holder = Holder::Container(driver.id);
    let plumbed = adopted(container, found).ok_or("its namespace is lost")?;
    let dns = local.context.runtime.dns_sockets(&found.id).await.map_err(|e| e.to_string())?;
    let served = local.context.names.add_unknown(&key_of(holder), dns.udp, dns.tcp);
    served.map_err(|error| error.to_string())?;
    let resolving = local.view(|view| view.resolving(container));
    local.context.plumbing.put(holder, Plumbed { resolving, ..plumbed });
    local.context.plumbing.look_again();
    Ok(())
}

/// The sandbox of a container that runs, for the first look at the kernel.
pub(super) fn adopted(container: &Container, found: &Found) -> Option<Plumbed> {
    let own = matches!(container.spec.network, NetworkMode::Networks | NetworkMode::None);
    let running = found.status.phase == Phase::Running;
    let netns = found.netns().filter(|_| own && running)?;
    let local = sandbox(netns, found.status.dns_port);
    Some(Plumbed { local, resolving: tasks::default_resolving() })
}

/// Lets go of what a run, or a half of one, holds: names, networks, ports, its namespaces. What it
/// has written stays.
pub(super) async fn unmake(driver: &mut Driver) {
    let local = Arc::clone(&driver.local);
    let holder = Holder::Container(driver.id);
    // It may never have been served.
    let _ = local.context.names.remove(&key_of(holder));
    local.context.plumbing.let_go(holder, UNPLUMBING_DEADLINE).await;
    if !driver.made {
        return;
    }
    let id = runtime_id(driver.id);
    if let Err(error) = local.context.runtime.release(&id).await {
        tracing::warn!(container = %driver.id.short(), %error, "the container holds on");
    }
}

/// What follows from a change of a container that runs on: its files, and where its ports lead.
pub(super) async fn refresh(driver: &mut Driver) {
    let local = Arc::clone(&driver.local);
    let state = local.engine.state();
    let Some(container) = state.container(driver.id) else { return };
    let own = matches!(container.spec.network, NetworkMode::Networks);
    if !own || container.wanted != Wanted::Running {
        return;
    }
    let texts = local.texts(container);
    write(&local, driver.id, &Written::new(&local.directory, driver.id), &texts).await;
    let ports = host_ports(&local, container);
    if !container.ports.is_empty()
        && let Err(error) = local.context.runtime.publish(&runtime_id(driver.id), &ports).await
    {
        tracing::warn!(container = %driver.id.short(), %error, "its ports lead where they did");
    }
}

/// Writes what has changed, but not over what was edited in the container.
async fn write(local: &Local, id: ContainerId, written: &Written, texts: &Texts) {
    let known = written.load().unwrap_or_default();
    if known == *texts {
        return;
    }
    let mut next = known.clone();
    let files = [
        (EtcFile::ResolvConf, "resolv.conf", &known.resolv_conf, &texts.resolv_conf),
        (EtcFile::Hosts, "hosts", &known.hosts, &texts.hosts),
    ];
    for (file, name, known, text) in files {
        let present = fs::read_to_string(local.etc(id).join(name)).unwrap_or_default();
        if known == text || present != *known {
            continue;
        }
        match local.context.runtime.write_etc(&runtime_id(id), file, text).await {
            Ok(()) => match file {
                EtcFile::ResolvConf => next.resolv_conf.clone_from(text),
                EtcFile::Hosts | EtcFile::Hostname => next.hosts.clone_from(text),
            },
            Err(error) => {
                tracing::warn!(container = %id.short(), name, %error, "not written");
            }
        }
    }
    if let Err(error) = written.save(&next) {
        tracing::warn!(container = %id.short(), %error, "its files count as edited");
    }
}

/// Whether the runtime has made all of the container: what is written into it is noted after that.
pub(super) fn is_whole(driver: &Driver) -> bool {
    Written::new(&driver.local.directory, driver.id).load().is_some()
}

/// Drops what is kept of a container beside the state and the runtime.
pub(super) fn forget_files(driver: &Driver) {
    Written::new(&driver.local.directory, driver.id).forget();
    // Only one that has joined another has such a link.
    let _ = fs::remove_file(driver.local.directory.join("netns").join(driver.id.to_string()));
}

/// Gives back the addresses on networks of the cluster.
pub(super) async fn give_back(driver: &Driver, container: &Container) {
    for endpoint in container.endpoints.iter().filter(|endpoint| endpoint.foreign()) {
        if let Err(status) = driver.local.ground.ask(&Ask::Detach(endpoint.attachment)).await {
            // What nobody knows here is given back later.
            tracing::warn!(attachment = %endpoint.attachment.short(), reason = status.message(), "not given back");
        }
    }
}

impl Local {
    /// The files of a container.
    pub(super) fn etc(&self, id: ContainerId) -> PathBuf {
        self.state_dir.join("containers").join(id.to_string()).join("etc")
    }

    /// The texts of a container's files as of now.
    pub(super) fn texts(&self, container: &Container) -> Texts {
        self.view(|view| view.texts(container))
    }

    pub(super) fn view<T>(&self, look: impl FnOnce(&View<'_>) -> T) -> T {
        let state = self.engine.state();
        let assigned = self.context.assigned.borrow().1.clone();
        let sorted = Sorted::new(&assigned);
        let etc = |id| self.etc(id);
        look(&View { state: &state, sorted: &sorted, defaults: &self.defaults, etc: &etc })
    }
}
