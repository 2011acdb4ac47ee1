//! Reads the facts of a machine and of a worker. What of it blocks is said.

use std::{
    collections::BTreeSet,
    fs,
    net::IpAddr,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use weft_dns::files::upstreams_from_resolv_conf;
use weft_model::{Assignments, TaskState, Time, assignments::Item};
use weft_overlay::{kernel::checkup::checkup, mtu};

use super::{
    facts::{self, Directory, Failed, FoundDirectory, Host, Large, Names, Policy, TakenPort},
    ping,
};
use crate::{desired::Sorted, facts as machine, metrics::Room, worker::Worker};

/// A failure counts as late for this long.
const LATELY: Duration = Duration::from_secs(600);
/// Room that the state directory needs: logs of containers and of the local engine grow in it.
const STATE_ROOM: u64 = 64 << 20;
/// Room that the run directory needs: sockets and small files.
const RUN_ROOM: u64 = 4 << 20;
/// Most other nodes that are asked whether they answer.
const PATHS_MAX: usize = 256;
/// Most of them whose largest packet is looked for: each takes some seconds.
const NARROW_MAX: usize = 4;
/// The name of our program.
const OWN_NAME: &str = "weft";
/// What we do takes these.
const CAPABILITIES: [(caps::Capability, &str); 4] = [
    (caps::Capability::CAP_NET_ADMIN, "CAP_NET_ADMIN"),
    (caps::Capability::CAP_SYS_ADMIN, "CAP_SYS_ADMIN"),
    (caps::Capability::CAP_NET_RAW, "CAP_NET_RAW"),
    (caps::Capability::CAP_DAC_OVERRIDE, "CAP_DAC_OVERRIDE"),
];

/// Where to look at a machine.
#[derive(Clone, Debug)]
pub struct Query {
    /// What outlives a reboot, if it is known where that is.
    pub state_dir: Option<PathBuf>,
    /// What does not.
    pub run_dir: PathBuf,
    /// What the daemon was told.
    pub policy: Policy,
    /// What carries encrypted links, in words.
    pub wireguard: String,
    /// Ports that must be ours: protocol, number, what for.
    pub ports: Vec<(&'static str, u16, &'static str)>,
}

/// Reads a machine. Blocks for some hundred milliseconds.
pub fn host(query: &Query) -> Host {
    let held = caps::read(None, caps::CapSet::Effective).unwrap_or_default();
    let lacking = CAPABILITIES.iter().filter(|(capability, _)| !held.contains(capability));
    let open = fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun");
    let forwards = fs::read_to_string("/proc/sys/net/ipv4/ip_forward").ok();
    let resolvers = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let state = query.state_dir.as_deref().map(|dir| directory("state", dir, STATE_ROOM));
    Host {
        lacking: lacking.map(|(_, name)| *name).collect(),
        kernel: checkup().map_err(|error| error.to_string()),
        no_tun: open.err().map(|error| error.to_string()),
        wireguard: query.wireguard.clone(),
        forwards: forwards.map(|text| text.trim() != "0"),
        policy: query.policy,
        taken: taken(&query.ports),
        directories: state
            .into_iter()
            .chain([directory("run", &query.run_dir, RUN_ROOM)])
            .collect(),
        resolvers: upstreams_from_resolv_conf(&resolvers).len(),
    }
}

/// The ports of a node with these assignments, that listens for the cluster at `listen`.
pub fn ports(listen: u16, assignments: &Assignments) -> Vec<(&'static str, u16, &'static str)> {
    let mut ports = vec![("tcp", listen, "managers and nodes")];
    let sorted = Sorted::new(assignments);
    if let Some(cluster) = sorted.cluster {
        ports.push(("udp", cluster.data_path_port, "VXLAN, between the nodes"));
        if sorted.networks.values().any(|network| network.encrypted) {
            // Of both keys that may be there during a change.
            let first = cluster.wireguard_port;
            let both = [first, first.saturating_add(1)];
            ports.extend(both.map(|port| ("udp", port, "WireGuard, between the nodes")));
        }
    }
    ports
}

fn directory(purpose: &'static str, path: &Path, needed: u64) -> Directory {
    let found = fs::metadata(path).ok().map(|meta| FoundDirectory {
        owner: meta.uid(),
        mode: meta.mode() & 0o7777,
        room: Room::of(path),
    });
    Directory { purpose, path: path.to_owned(), found, needed }
}

/// Which of these ports are held by processes that are not ours. Sockets of the kernel's own, such as those
/// of VXLAN and WireGuard devices, belong to no process.
fn taken(ports: &[(&'static str, u16, &'static str)]) -> Vec<TakenPort> {
    let sockets: BTreeSet<(&str, u16, u64)> = ["tcp", "tcp6", "udp", "udp6"]
        .into_iter()
        .flat_map(|table| {
            let text = fs::read_to_string(format!("/proc/thread-self/net/{table}"));
            listening(table, &text.unwrap_or_default())
        })
        .filter(|(protocol, port, inode)| {
            *inode != 0 && ports.iter().any(|wanted| (wanted.0, wanted.1) == (*protocol, *port))
        })
        .collect();
    if sockets.is_empty() {
        return Vec::new();
    }
    let holders = holders(&sockets.iter().map(|socket| socket.2).collect());
    let own = fs::read_link("/proc/self/exe").ok();
    let mut taken: Vec<_> = sockets
        .into_iter()
        .filter_map(|(protocol, port, inode)| {
            let (_, pid) = holders.iter().find(|holder| holder.0 == inode)?;
            let purpose = ports.iter().find(|wanted| (wanted.0, wanted.1) == (protocol, port))?.2;
            (!is_ours(*pid, own.as_deref())).then(|| {
                let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
                TakenPort { protocol, port, purpose, holder: format!("{pid} ({})", name.trim()) }
            })
        })
        .collect();
    taken.dedup();
    taken
}

/// Whether a process runs our program, this one or that of another version.
fn is_ours(pid: u32, own: Option<&Path>) -> bool {
    let Ok(program) = fs::read_link(format!("/proc/{pid}/exe")) else { return false };
    let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let replaced = name.strip_suffix(" (deleted)").unwrap_or(&name);
    own == Some(&*program) || replaced == OWN_NAME
}

/// Sockets in a table of /proc/net that take what comes: protocol, port and inode. The local address is the
/// second field, the state the fourth (0A is listening, 07 is any UDP socket), the inode the tenth.
fn listening(table: &str, text: &str) -> Vec<(&'static str, u16, u64)> {
    let (protocol, state) = if table.starts_with("tcp") { ("tcp", "0A") } else { ("udp", "07") };
    let rows = text.lines().skip(1).filter_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let port = u16::from_str_radix(fields.get(1)?.rsplit(':').next()?, 16).ok()?;
        let inode = fields.get(9)?.parse().ok()?;
        (*fields.get(3)? == state).then_some((protocol, port, inode))
    });
    rows.collect()
}

/// The processes that hold these sockets: inode, process ID.
fn holders(inodes: &BTreeSet<u64>) -> Vec<(u64, u32)> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut found = Vec::new();
    for pid in ids {
        let Ok(open) = fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        for file in open.flatten() {
            let Ok(target) = fs::read_link(file.path()) else { continue };
            let target = target.to_string_lossy();
            let inode = target.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'));
            if let Some(inode) = inode.and_then(|inode| inode.parse().ok())
                && inodes.contains(&inode)
            {
                found.push((inode, pid));
            }
        }
    }
    found
}

/// What a worker knows of itself. The cluster's part is left to who knows the managers.
pub fn daemon(worker: &Worker) -> facts::Daemon {
    let standing = worker.standing().borrow().clone();
    let (_, assignments) = worker.assigned().borrow().clone();
    let sorted = Sorted::new(&assignments);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let now = Time::default() + now;
    let tasks = sorted.tasks.values().filter_map(|task| {
        let bad = matches!(task.status.state, TaskState::Failed | TaskState::Rejected);
        let ago = now.since(task.status.since);
        let look =
            format!("weft service ps {} --no-trunc; weft logs {}", task.service_name, task.name());
        (bad && ago < LATELY).then(|| Failed {
            name: task.name(),
            error: task.status.error.clone(),
            ago,
            look,
        })
    });
    let local = worker.local().map(|local| local.state());
    let own = local.iter().flat_map(|state| state.containers()).filter_map(|container| {
        let last = container.last.as_ref()?;
        let (name, ago) = (container.spec.name.clone(), now.since(last.finished));
        let error = match (&last.error, last.oom) {
            (error, _) if !error.is_empty() => error.clone(),
            (_, true) => "the kernel killed it for its use of memory".to_owned(),
            (_, false) => return None,
        };
        let look = format!("weft logs {name}; weft inspect {name}");
        (ago < LATELY).then_some(Failed { name, error, ago, look })
    });
    let name_of = |holder| match holder {
        weft_model::object::Holder::Task(id) => {
            sorted.tasks.get(&id).map_or_else(|| id.to_string(), |task| task.name())
        }
        weft_model::object::Holder::Container(id) => {
            let found = local.as_ref().and_then(|state| state.container(id).cloned());
            found.map_or_else(|| id.to_string(), |container| container.spec.name.clone())
        }
        weft_model::object::Holder::Foreign(id) => id.to_string(),
    };
    facts::Daemon {
        errors: standing.errors.clone(),
        troubled: standing
            .troubled
            .iter()
            .map(|(holder, why)| (name_of(*holder), why.clone()))
            .collect(),
        failed: tasks.chain(own).collect(),
        member: None,
    }
}

/// What a worker knows of the cluster: the session, the links, routes under networks.
pub async fn member(worker: &Worker) -> facts::Member {
    let contact = worker.contact().borrow().clone();
    let links = match worker.links() {
        Some(links) => Some(links.look().await.map_err(|status| status.message().to_owned())),
        None => None,
    };
    let (_, assignments) = worker.assigned().borrow().clone();
    let sorted = Sorted::new(&assignments);
    // One that cannot be read has no route that is known.
    let used = machine::used().unwrap_or_default();
    let subnets = sorted.networks.values().flat_map(|network| {
        network.subnets.iter().map(move |(subnet, _)| (network.name.clone(), *subnet))
    });
    let over = subnets.filter_map(|(name, subnet)| {
        let overlaps = |net: &&ipnet::IpNet| net.contains(&subnet) || subnet.contains(*net);
        let (_, whose) = used.iter().find(|(net, _)| overlaps(net))?;
        Some((name, subnet, whose.clone()))
    });
    facts::Member {
        session: facts::Session {
            manager: contact.manager,
            error: contact.error,
            lost: contact.lost.map(|at| at.elapsed()),
        },
        links,
        overlaps: over.collect(),
        ..facts::Member::default()
    }
}

/// The data paths of the other nodes as this node was told, with the names that it knows.
pub fn others(worker: &Worker) -> (Vec<IpAddr>, Names) {
    let (_, assignments) = worker.assigned().borrow().clone();
    let sorted = Sorted::new(&assignments);
    let own = sorted.node.map(|node| node.data_path);
    let members = sorted.cluster.map(|cluster| cluster.members.clone()).unwrap_or_default();
    let names = sorted.peers.values().map(|peer| (peer.endpoint, peer.hostname.clone()));
    (members.into_iter().filter(|member| Some(*member) != own).collect(), names.collect())
}

/// Bytes of the largest outer packets that this node's overlays send; none without an overlay.
pub fn largest_packet(worker: &Worker) -> Option<u32> {
    let (_, assignments) = worker.assigned().borrow().clone();
    let vtep = Sorted::new(&assignments).node?.data_path;
    let device = ping::mtu_at(vtep);
    let sizes = assignments.items.values().filter_map(|item| match item {
        Item::Network(network) if network.vni.is_some() => {
            Some(outer(device, vtep, network.mtu, network.encrypted))
        }
        _ => None,
    });
    sizes.max()
}

fn outer(device: Option<u32>, vtep: IpAddr, option: Option<u32>, encrypted: bool) -> u32 {
    let plain = if vtep.is_ipv4() { mtu::OVERHEAD_V4 } else { mtu::OVERHEAD_V6 };
    if !encrypted {
        return mtu::inner(device, Some(vtep), option) + plain;
    }
    let sealed = if vtep.is_ipv4() { mtu::WIREGUARD_V4 } else { mtu::WIREGUARD_V6 };
    mtu::encrypted(device, Some(vtep), option) + mtu::OVERHEAD_V4 + sealed
}

/// Asks other nodes whether they answer, and packets of `size` bytes get through. Blocks for some seconds
/// where they do not.
pub fn paths(
    addresses: Vec<IpAddr>,
    names: &Names,
    down: &BTreeSet<IpAddr>,
    size: Option<u32>,
) -> Vec<facts::Path> {
    let addresses: Vec<IpAddr> = addresses.into_iter().take(PATHS_MAX).collect();
    let small = ping::answers(&addresses, ping::SMALL);
    let answering: Vec<IpAddr> = small.iter().filter(|(_, yes)| **yes).map(|(to, _)| *to).collect();
    let whole = size.map(|size| ping::answers(&answering, size)).unwrap_or_default();
    let mut looked = 0;
    let mut large = |to: &IpAddr| {
        let (size, whole) = (size?, *whole.get(to)?);
        let passes = (!whole && looked < NARROW_MAX).then(|| {
            looked += 1;
            ping::largest(*to, size)
        });
        Some(Large { size, passes: passes.flatten(), whole })
    };
    let path = |(to, answers): (&IpAddr, &bool)| facts::Path {
        hostname: names.get(to).cloned(),
        address: *to,
        down: down.contains(to),
        answers: *answers,
        large: large(to),
    };
    small.iter().map(path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_that_listen_are_read() {
        let tcp = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
                   0: 00000000:0949 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 x\n\
                   1: 0100007F:0949 0100007F:8888 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 x\n";
        assert_eq!(listening("tcp", tcp), [("tcp", 2377, 4711)]);
        let udp6 = "head\n 5: 00000000000000000000000000000000:12B5 00000000000000000000000000000000:0000 07 \
                    00000000:00000000 00:00000000 00000000     0        0 99 2 x 0\n";
        assert_eq!(listening("udp6", udp6), [("udp", 4789, 99)]);
    }

    #[test]
    fn a_port_that_another_program_has_is_told_with_its_holder() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let wanted = [("tcp", port, "a test")];
        assert_eq!(taken(&wanted), [], "we have it ourselves");
        // A child that is another program holds it in our place, as its standard input.
        let held = std::os::fd::OwnedFd::from(socket);
        let mut child = std::process::Command::new("sleep").arg("60").stdin(held).spawn().unwrap();
        let found = taken(&wanted);
        child.kill().unwrap();
        child.wait().unwrap();
        let holder = format!("{} (sleep)", child.id());
        assert!(found.len() == 1 && found[0].holder == holder, "{found:?}");
        assert_eq!(taken(&wanted), []);
    }

    #[test]
    fn the_outer_packet_is_as_large_as_the_device_takes_unless_the_network_asks_for_less() {
        let v4: IpAddr = [10, 0, 0, 1].into();
        for (option, encrypted, size) in [
            (None, false, 1500),
            (None, true, 1500),
            (Some(1400), false, 1450),
            (Some(1300), true, 1410),
        ] {
            assert_eq!(outer(Some(1500), v4, option, encrypted), size, "{option:?} {encrypted}");
        }
    }
}
