//! A node by hand: the engine of encrypted networks, a bridge with the engine's device, a container.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    process::Child,
    time::Duration,
};

use weft_tests::{Host, Lab, eventually};
use weft_wire::{Client, Config, Identity, Key, Mac, Member, Network, PeerIdentity};

use crate::{
    cluster::{PATIENCE, home},
    image,
    inside::Inside,
};

/// VXLAN network identifier of the one network.
pub const VNI: u32 = 65536;
/// What is left of 1,500 bytes by WireGuard, IP, UDP and VXLAN over IPv4.
const MTU: u32 = 1390;
const DEVICE: &str = "wt010000";
/// Where the first lane listens; each has two ports, for two generations of keys.
const PORT: u16 = 51820;
/// The tunnel addresses of the cluster begin here (RFC 6598).
const TUNNELS: u32 = 0x6440_0000;

/// Node `number` of the cluster, on the host of that number.
pub struct Node<'a> {
    host: &'a Host,
    run_dir: PathBuf,
    number: u16,
    inside: Inside,
    engine: Child,
}

impl<'a> Node<'a> {
    /// With an engine that has been told nothing.
    pub fn new(lab: &'a Lab, number: u16) -> Self {
        let host = lab.host(number.into());
        let run_dir = home(lab, host).join("wire");
        fs::create_dir(&run_dir).expect("the lab's directory can be written");
        let inside = Inside::new(host);
        let pid = inside.pid();
        host.sh(&format!(
            "ip link add wb mtu {MTU} type bridge; ip link set wb up
             ip tuntap add dev {DEVICE} mode tap multi_queue vnet_hdr
             ip link set {DEVICE} mtu {MTU} master wb up
             ip link add c0 mtu {MTU} type veth peer name eth0 mtu {MTU} address {mac} netns {pid}
             ip link set c0 master wb up
             nsenter -t {pid} -n ip addr add {address}/16 dev eth0
             nsenter -t {pid} -n ip link set eth0 up",
            mac = shown(mac(number)),
            address = address(number),
        ))
        .ok();
        let engine = start(host, &run_dir);
        Self { host, run_dir, number, inside, engine }
    }

    /// Tells the engine of other nodes, each with its endpoint and UDP ports.
    pub fn set(&self, lanes: u16, others: &[(u16, IpAddr, Vec<u16>)]) {
        let config = self.config(lanes, others);
        self.client().set(config).expect("the engine takes the configuration");
    }

    fn config(&self, lanes: u16, others: &[(u16, IpAddr, Vec<u16>)]) -> Config {
        let identity = Identity {
            private_key: key(self.number),
            address: tunnel(self.number),
            ports: ports(lanes),
        };
        let node = |(number, endpoint, ports): &(u16, IpAddr, Vec<u16>)| {
            let identity = PeerIdentity {
                public_key: key(*number).public(),
                address: tunnel(*number),
                ports: ports.clone(),
            };
            let identities = vec![identity];
            (
                u64::from(*number),
                weft_wire::Node { endpoint: *endpoint, identities, keepalive: None },
            )
        };
        let member = |(number, ..): &(u16, IpAddr, Vec<u16>)| {
            let addresses = vec![address(*number).into()];
            (mac(*number), Member { node: (*number).into(), addresses })
        };
        let network =
            Network { device: DEVICE.to_owned(), members: others.iter().map(member).collect() };
        Config {
            identities: vec![identity],
            nodes: others.iter().map(node).collect(),
            networks: BTreeMap::from([(VNI, network)]),
        }
    }

    fn client(&self) -> Client {
        eventually("the engine answers", PATIENCE, || {
            Client::connect(&self.run_dir).map_err(|error| error.to_string())
        })
    }

    /// Ends the engine without a warning and starts another, which has been told nothing.
    pub fn restart(&mut self) {
        self.end();
        self.engine = start(self.host, &self.run_dir);
    }

    fn end(&mut self) {
        let _ = self.engine.kill();
        let _ = self.engine.wait();
    }

    /// Process of the engine.
    pub fn pid(&self) -> i32 {
        self.engine.id().cast_signed()
    }

    /// How the engine is doing, for who waits for it in vain.
    pub fn says(&mut self) -> String {
        let status = Client::connect(&self.run_dir).and_then(|mut client| client.status());
        format!("the engine says {status:?}, its process {:?}", self.engine.try_wait())
    }

    /// A process in the namespace of the container.
    pub fn inside(&self) -> u32 {
        self.inside.pid()
    }

    /// Processor time that the engine has used, all threads together.
    pub fn spent(&self) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid())).expect("the engine runs");
        // The first number: nanoseconds on a processor (Documentation/scheduler/sched-stats.rst).
        let times = tasks.flatten().filter_map(|task| {
            let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse::<u64>().ok()
        });
        Duration::from_nanos(times.sum())
    }
}

impl Drop for Node<'_> {
    fn drop(&mut self) {
        self.end();
    }
}

fn start(host: &Host, run_dir: &std::path::Path) -> Child {
    let log = File::options().create(true).append(true).open(host.log());
    let log = log.expect("the log can be written");
    let argv = [image::release().display().to_string(), run_dir.display().to_string()];
    let mut command = host.command(&[&argv[0], "wire", "--run-dir", &argv[1]]);
    command.stdout(log.try_clone().expect("a file can be shared")).stderr(log);
    command.spawn().expect("the engine can be started")
}

/// UDP ports of so many lanes.
pub fn ports(lanes: u16) -> Vec<u16> {
    (0..lanes).map(|lane| PORT + 2 * lane).collect()
}

/// The private key of a node.
pub fn key(number: u16) -> Key {
    let mut bytes = [1; 32];
    bytes[..2].copy_from_slice(&number.to_be_bytes());
    Key(bytes)
}

/// The address of a node inside the tunnel, with the first generation of its key.
pub fn tunnel(number: u16) -> Ipv4Addr {
    (TUNNELS + 2 * u32::from(number)).into()
}

/// The container on a node.
pub fn address(number: u16) -> Ipv4Addr {
    let [high, low] = number.to_be_bytes();
    [10, 73, high, low].into()
}

pub fn mac(number: u16) -> Mac {
    let [high, low] = number.to_be_bytes();
    [2, 0x42, 10, 73, high, low]
}

pub fn shown(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
