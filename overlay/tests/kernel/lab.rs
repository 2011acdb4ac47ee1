//! A small world of namespaces: hosts on one switch, sandboxes on hosts.
//!
//! Each namespace is held by a thread of the test; when the test ends, however it ends, the threads end
//! and the kernel removes everything in them. Nothing leaves the machine.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use weft_overlay::*;

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace and the thread in it.
pub struct Space {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<std::thread::JoinHandle<()>>,
    pub path: String,
}

impl Space {
    pub fn new() -> Self {
        let (jobs, receiver) = mpsc::channel::<Job>();
        let (tell, told) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("root");
            // What is mounted here is seen nowhere else, and goes with the thread.
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
            tell.send(format!(
                "/proc/{}/task/{}/ns/net",
                std::process::id(),
                nix::unistd::gettid()
            ))
            .unwrap();
            receiver.into_iter().for_each(|job| job());
        });
        let path = told.recv().unwrap();
        let space = Self { jobs: Some(jobs), thread: Some(thread), path };
        space.sh("ip link set lo up");
        space
    }

    /// Runs `work` inside.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (tell, told) = mpsc::channel();
        let job: Job = Box::new(move || drop(tell.send(work())));
        self.jobs.as_ref().unwrap().send(job).unwrap();
        told.recv().expect("the job panicked")
    }

    /// Runs a shell command inside; returns its output if it succeeds.
    pub fn try_sh(&self, command: &str) -> Result<String, String> {
        let command = command.to_owned();
        self.run(move || {
            let output = Command::new("sh").arg("-ec").arg(&command).output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            if output.status.success() {
                Ok(text)
            } else {
                Err(format!("{command}: {text}{errors}"))
            }
        })
    }

    pub fn sh(&self, command: &str) -> String {
        self.try_sh(command).unwrap()
    }

    /// Whether `target` answers; one packet may get lost on a busy machine, and neighbour discovery asks
    /// again only after a second.
    pub fn reaches(&self, target: &str) -> bool {
        (0..3).any(|_| self.pings(target))
    }

    /// Whether `target` answers a single packet; for those who expect that it does not.
    pub fn pings(&self, target: &str) -> bool {
        self.try_sh(&format!("busybox ping -c1 -W1 {target}")).is_ok()
    }

    /// Serves TCP, telling every client `name` and the address it comes from.
    pub fn serve_tcp(&self, address: &str, name: &str) {
        let address: SocketAddr = address.parse().unwrap();
        let name = name.to_owned();
        let listener = self.run(move || TcpListener::bind(address).unwrap());
        std::thread::spawn(move || {
            use std::io::Write;
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let peer = stream.peer_addr().unwrap().ip();
                let _ = write!(stream, "{name} {peer}");
            }
        });
    }

    /// What a TCP server says. Patient enough for one lost packet on a busy machine.
    pub fn ask_tcp(&self, address: &str) -> std::io::Result<String> {
        self.connect(address, Duration::from_secs(3))
    }

    /// Whether TCP gets through; for those who expect that it does not.
    pub fn tcp_passes(&self, address: &str) -> bool {
        self.connect(address, Duration::from_millis(600)).is_ok()
    }

    fn connect(&self, address: &str, patience: Duration) -> std::io::Result<String> {
        let address: SocketAddr = address.parse().unwrap();
        self.run(move || {
            use std::io::Read;
            let mut stream = TcpStream::connect_timeout(&address, patience)?;
            stream.set_read_timeout(Some(Duration::from_secs(2)))?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        })
    }

    /// Answers each UDP packet with `name`.
    pub fn serve_udp(&self, address: &str, name: &str) {
        let address: SocketAddr = address.parse().unwrap();
        let name = name.to_owned();
        let socket = self.run(move || UdpSocket::bind(address).unwrap());
        std::thread::spawn(move || {
            let mut buffer = [0; 1500];
            while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(name.as_bytes(), peer);
            }
        });
    }

    pub fn udp(&self, bind: &str) -> UdpSocket {
        let bind: SocketAddr = bind.parse().unwrap();
        let socket = self.run(move || UdpSocket::bind(bind).unwrap());
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        socket
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        self.jobs = None;
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

pub fn ask_udp(socket: &UdpSocket, address: &str) -> std::io::Result<String> {
    let mut buffer = [0; 1500];
    socket.send_to(b"?", address)?;
    let length = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

/// A node: its namespace, its reconciler, what it wants.
pub struct Node {
    pub run: Arc<tempfile::TempDir>,
    pub space: Space,
    pub reconciler: Reconciler,
    pub desired: Dataplane,
    pub runtime: tokio::runtime::Runtime,
}

impl Node {
    pub fn new(space: Space) -> Self {
        Self::in_dir(space, Arc::new(tempfile::tempdir().unwrap()))
    }

    pub fn in_dir(space: Space, run: Arc<tempfile::TempDir>) -> Self {
        let path = run.path().to_owned();
        let reconciler = space.run(move || Reconciler::new(&path).unwrap());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { run, space, reconciler, desired: Dataplane::default(), runtime }
    }

    /// Runs a shell command in the namespace of the tunnel.
    pub fn inside(&self, command: &str) -> String {
        let path = self.run.path().join("tunnel");
        self.space.sh(&format!("nsenter --net={} sh -ec '{command}'", path.display()))
    }

    pub fn look(&self, completeness: Completeness, scope: Scope) -> Report {
        let desired = Arc::new(self.desired.clone());
        self.runtime.block_on(self.reconciler.reconcile(desired, completeness, scope)).unwrap()
    }

    /// Reconciles fully and expects success.
    pub fn settle(&self) -> Report {
        let report = self.look(Completeness::Complete, Scope::Full);
        let failed: Vec<String> = report.failed.iter().map(ToString::to_string).collect();
        assert!(report.is_settled(), "{failed:#?} {:#?}", report.unreachable);
        let again = self.look(Completeness::Complete, Scope::Full);
        let left: Vec<String> = again.executed.iter().map(ToString::to_string).collect();
        assert!(left.is_empty(), "a second look still plans {left:#?}");
        report
    }
}

/// The part of a plain overlay network that is elsewhere.
pub fn overlay(desired: &mut Dataplane, vni: u32) -> &mut Plain {
    let network = desired.networks.get_mut(&NetworkKey::Vni(vni)).unwrap();
    match network.kind.overlay_mut() {
        Some(Overlay::Plain(plain)) => plain,
        other => panic!("{other:?}"),
    }
}

/// Hosts on one switch, all reaching each other; node `n` has 192.0.2.n and 2001:db8::n.
pub struct Lab {
    pub nodes: Vec<Node>,
    pub switch: Space,
}

pub const VNI: u32 = 65536;

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

impl Lab {
    pub fn new(count: usize, v6: bool) -> Self {
        let switch = Space::new();
        switch.sh("ip link add sw0 type bridge mcast_snooping 0; ip link set sw0 up");
        let nodes: Vec<Node> = (1..=count).map(|n| Node::new(plug(&switch, n))).collect();
        let mut lab = Self { nodes, switch };
        let vtep =
            |n: usize| if v6 { ip(&format!("2001:db8::{n}")) } else { ip(&format!("192.0.2.{n}")) };
        let members: BTreeSet<IpAddr> = (1..=count).map(vtep).collect();
        for (index, node) in lab.nodes.iter_mut().enumerate() {
            let members = members.clone();
            node.desired.underlay = Some(Underlay { vtep: vtep(index + 1), port: 4789, members });
        }
        lab
    }

    /// Puts a network on every node.
    pub fn network(&mut self, vni: u32, subnets: &[(&str, &str)], internal: bool) {
        for node in &mut self.nodes {
            let subnet = |(cidr, gateway): &(&str, &str)| Subnet {
                cidr: cidr.parse().unwrap(),
                gateway: gateway.parse().unwrap(),
            };
            let subnets = subnets.iter().map(subnet).collect();
            let id = format!("net{vni}");
            let underlay = node.desired.underlay.clone().unwrap();
            let peers =
                underlay.members.into_iter().filter(|member| *member != underlay.vtep).collect();
            let kind = Kind::Overlay(Overlay::Plain(Plain { peers, ..Plain::default() }));
            let network = Network { id, subnets, internal, mtu: None, kind };
            node.desired.networks.insert(NetworkKey::Vni(vni), network);
        }
    }

    /// Attaches a new sandbox on node `on`, known to all the others.
    pub fn attach(&mut self, on: usize, key: &str, ports: &[(u32, &[&str])]) -> Space {
        let space = Space::new();
        let mut attachments = BTreeMap::new();
        for (number, (vni, addresses)) in ports.iter().enumerate() {
            let addresses: Vec<ipnet::IpNet> =
                addresses.iter().map(|a| a.parse().unwrap()).collect();
            let plain: Vec<IpAddr> = addresses.iter().map(|net| net.addr()).collect();
            let mac = mac_for(plain.iter().copied());
            let vtep = self.nodes[on].desired.underlay.as_ref().unwrap().vtep;
            for (index, node) in self.nodes.iter_mut().enumerate().filter(|(index, _)| *index != on)
            {
                let _ = index;
                let remote = Remote { addresses: plain.clone(), mac, vtep };
                overlay(&mut node.desired, *vni).remotes.insert(remote);
            }
            let port = Port {
                ifname: format!("eth{number}"),
                mac,
                addresses,
                default_gateway: true,
                rank: 0,
            };
            attachments.insert(NetworkKey::Vni(*vni), port);
        }
        let netns = NetnsRef(space.path.clone().into());
        let sandbox = Sandbox { netns, attachments, vips: BTreeMap::new(), dns_port: None };
        self.nodes[on].desired.sandboxes.insert(key.to_owned(), sandbox);
        space
    }

    /// Joins a new sandbox to networks of node 0: interface, addresses and rank on each.
    pub fn join(&mut self, key: &str, ports: &[(NetworkKey, &str, &[&str], u32)]) -> Space {
        let space = Space::new();
        let attachments = ports.iter().map(|(on, ifname, addresses, rank)| {
            let port = port(ifname, addresses, *rank);
            (*on, port)
        });
        let sandbox = Sandbox {
            netns: NetnsRef(space.path.clone().into()),
            attachments: attachments.collect(),
            vips: BTreeMap::new(),
            dns_port: None,
        };
        self.nodes[0].desired.sandboxes.insert(key.to_owned(), sandbox);
        space
    }

    /// Puts a network of its own on node 0.
    pub fn local(&mut self, number: u8, subnets: &[(&str, &str)], kind: Kind) -> NetworkKey {
        let key = local(number);
        let subnet = |(cidr, gateway): &(&str, &str)| Subnet {
            cidr: cidr.parse().unwrap(),
            gateway: ip(gateway),
        };
        let network = Network {
            id: format!("local{number}"),
            subnets: subnets.iter().map(subnet).collect(),
            internal: false,
            mtu: None,
            kind,
        };
        self.nodes[0].desired.networks.insert(key, network);
        key
    }

    pub fn settle(&self) {
        self.nodes.iter().for_each(|node| drop(node.settle()));
    }
}

pub fn local(number: u8) -> NetworkKey {
    NetworkKey::Local([0, 0, 0, 0, 0, number])
}

/// A bridge as a user's `network create` makes it.
pub fn bridge(device: &str) -> Bridge {
    Bridge {
        device: device.to_owned(),
        owned: true,
        icc: true,
        masquerade: true,
        openings: BTreeSet::new(),
    }
}

pub fn port(ifname: &str, addresses: &[&str], rank: u32) -> Port {
    let addresses: Vec<ipnet::IpNet> = addresses.iter().map(|a| a.parse().unwrap()).collect();
    let mac = mac_for(addresses.iter().map(|net| net.addr()));
    Port { ifname: ifname.to_owned(), mac, addresses, default_gateway: true, rank }
}

/// A namespace plugged into the switch.
pub fn plug(switch: &Space, n: usize) -> Space {
    let space = Space::new();
    switch.sh(&format!(
        "ip link add p{n} type veth peer name up0 netns {}; ip link set p{n} master sw0 up",
        space.path
    ));
    space.sh(&format!(
        "ip link set up0 up; ip addr add 192.0.2.{n}/24 dev up0; ip addr add 2001:db8::{n}/64 dev up0 nodad"
    ));
    // Asking makes the kernel finish the change of the carrier.
    space.sh("ip link show up0");
    switch.sh(&format!("ip link show p{n}"));
    space
}
