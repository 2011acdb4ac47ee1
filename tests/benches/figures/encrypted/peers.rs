//! The peers: other programs that carry packets between hosts, encrypted, in user space. Each has a
//! device in both hosts of a lab, to which the packets of a container behind each host are routed.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::Child,
};

use serde_json::json;
use weft_tests::{Host, Lab};

use crate::{cluster::home, image, inside::Inside};

use super::path::Path;

/// MTU of all of them, the usual one of WireGuard over 1,500 bytes; Nebula's headers need no more.
const MTU: u32 = 1420;

/// One of the programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    Boringtun,
    WireguardGo,
    Nebula,
}

impl Peer {
    pub const ALL: [Self; 3] = [Self::Boringtun, Self::WireguardGo, Self::Nebula];

    pub fn name(self) -> &'static str {
        match self {
            Self::Boringtun => "boringtun-cli",
            Self::WireguardGo => "wireguard-go",
            Self::Nebula => "nebula",
        }
    }

    /// Its own part of the addresses and of the port.
    fn number(self) -> usize {
        match self {
            Self::Boringtun => 1,
            Self::WireguardGo => 2,
            Self::Nebula => 3,
        }
    }

    /// Its device, the same in both hosts.
    fn device(self) -> String {
        format!("tunnel{}", self.number())
    }

    fn port(self) -> usize {
        40000 + self.number()
    }

    /// Its address in the tunnel.
    fn address(self, host: usize) -> String {
        format!("10.{}.0.{host}", 80 + self.number())
    }

    /// The network behind a host: .1 is the host, .2 the container.
    fn behind(self, host: usize) -> String {
        format!("10.{}.{host}", 80 + self.number())
    }
}

/// A tunnel between the two hosts of a lab.
pub struct Tunnel<'a> {
    lab: &'a Lab,
    peer: Peer,
    inside: [Inside; 2],
    programs: Vec<Child>,
}

impl<'a> Tunnel<'a> {
    /// # Errors
    /// Which program is not installed.
    pub fn new(lab: &'a Lab, peer: Peer) -> Result<Self, String> {
        let program = program(peer.name())?;
        let inside = [1, 2].map(|host| Inside::new(lab.host(host)));
        let mut tunnel = Self { lab, peer, inside, programs: Vec::new() };
        match peer {
            Peer::Boringtun => {
                tunnel.start(&[&program, "-f", "--disable-drop-privileges", &peer.device()]);
                tunnel.wireguard()?;
            }
            Peer::WireguardGo => {
                tunnel.start(&[&program, "-f", &peer.device()]);
                tunnel.wireguard()?;
            }
            Peer::Nebula => {
                tunnel.nebula(&program)?;
            }
        }
        tunnel.routes();
        Ok(tunnel)
    }

    /// # Errors
    /// What ping said last.
    pub fn path(&self) -> Result<Path<'a>, String> {
        let pids = [self.inside[0].pid(), self.inside[1].pid()];
        Path::new(self.lab, pids, &format!("{}.2", self.peer.behind(1)))
    }

    /// Runs it in both hosts.
    fn start(&mut self, argv: &[&str]) {
        for host in self.lab.hosts() {
            self.programs.push(run(self.lab, host, self.peer.name(), argv));
        }
    }

    fn wireguard(&self) -> Result<(), String> {
        let (wg, peer) = (program("wg")?, self.peer);
        let (device, port) = (peer.device(), peer.port());
        let key = |host: &Host| home(self.lab, host).join(format!("{device}.key"));
        let mut public = Vec::new();
        for host in self.lab.hosts() {
            let key = key(host).display().to_string();
            public.push(
                host.sh(&format!("umask 077; {wg} genkey > {key}; {wg} pubkey < {key}")).text()?,
            );
        }
        for (own, other) in [(1, 2), (2, 1)] {
            let host = self.lab.host(own);
            let socket = format!("/run/wireguard/{device}.sock");
            host.sh(&format!(
                "for _ in $(seq 100); do [ -S {socket} ] && break; sleep 0.05; done
                 {wg} set {device} listen-port {port} private-key {key} peer {public} \
                   endpoint {endpoint}:{port} allowed-ips {behind}.0/24",
                key = key(host).display(),
                public = public[other - 1],
                endpoint = self.lab.host(other).ip(),
                behind = peer.behind(other),
            ))
            .text()?;
        }
        Ok(())
    }

    fn nebula(&mut self, program: &str) -> Result<(), String> {
        let (cert, peer) = (self::program("nebula-cert")?, self.peer);
        let dir = self.lab.dir().join("nebula");
        fs::create_dir(&dir).map_err(|error| error.to_string())?;
        let shown = dir.display();
        let first = self.lab.host(1);
        first.sh(&format!("cd {shown}; {cert} ca -name bench")).text()?;
        for (own, other) in [(1, 2), (2, 1)] {
            let (address, behind) = (peer.address(own), peer.behind(own));
            first
                .sh(&format!(
                    "cd {shown}; {cert} sign -name n{own} -ip {address}/24 -subnets {behind}.0/24"
                ))
                .text()?;
            let all = json!([{ "port": "any", "proto": "any", "host": "any" }]);
            let mut map = serde_json::Map::new();
            let endpoint = format!("{}:{}", self.lab.host(other).ip(), peer.port());
            map.insert(peer.address(other), json!([endpoint]));
            let file = |end: &str| dir.join(end).display().to_string();
            let config = json!({
                "pki": {
                    "ca": file("ca.crt"),
                    "cert": file(&format!("n{own}.crt")),
                    "key": file(&format!("n{own}.key")),
                },
                "static_host_map": map,
                "lighthouse": { "am_lighthouse": false, "hosts": [] },
                "listen": { "host": "0.0.0.0", "port": peer.port() },
                "tun": {
                    "dev": peer.device(),
                    "mtu": MTU,
                    "unsafe_routes": [{
                        "route": format!("{}.0/24", peer.behind(other)),
                        "via": peer.address(other),
                        "mtu": MTU,
                    }],
                },
                "firewall": { "outbound": all, "inbound": all },
            });
            // All JSON is YAML.
            let path = file(&format!("n{own}.yml"));
            fs::write(&path, config.to_string()).map_err(|error| error.to_string())?;
            let argv = [program, "-config", &path];
            self.programs.push(run(self.lab, self.lab.host(own), peer.name(), &argv));
        }
        Ok(())
    }

    /// From each container through its host to the other's.
    fn routes(&self) {
        let (peer, device) = (self.peer, self.peer.device());
        for (own, other) in [(1, 2), (2, 1)] {
            let (behind, pid) = (peer.behind(own), self.inside[own - 1].pid());
            let (link, far) = (format!("c{}", peer.number()), peer.behind(other));
            self.lab
                .host(own)
                .sh(&format!(
                    "for _ in $(seq 100); do [ -e /sys/class/net/{device} ] && break; sleep 0.05; done
                     echo 1 >/proc/sys/net/ipv4/ip_forward
                     ip link add {link} mtu {MTU} type veth peer name eth0 mtu {MTU} netns {pid}
                     ip addr add {behind}.1/24 dev {link}; ip link set {link} up
                     nsenter -t {pid} -n ip addr add {behind}.2/24 dev eth0
                     nsenter -t {pid} -n ip link set eth0 up
                     nsenter -t {pid} -n ip route add default via {behind}.1
                     ip link set {device} mtu {MTU} up
                     ip route replace {far}.0/24 dev {device}"
                ))
                .ok();
        }
    }
}

impl Drop for Tunnel<'_> {
    fn drop(&mut self) {
        for program in &mut self.programs {
            let _ = program.kill();
            let _ = program.wait();
        }
    }
}

/// Hosts for the peers. They keep their sockets in /run, so each host has one of its own.
pub fn lab(name: &str) -> Lab {
    let lab = super::wire::lab(name);
    for host in lab.hosts() {
        host.sh("mount -t tmpfs tmpfs /run; mkdir /run/wireguard").ok();
    }
    lab
}

/// Where a program is: in PATH, or among what `deploy/bench.sh` has built.
fn program(name: &str) -> Result<String, String> {
    let built = image::built().with_file_name("peers").join("bin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&path).chain([built]).map(|dir| dir.join(name));
    let found: Option<PathBuf> = places.find(|at| at.exists());
    found.map(|at| at.display().to_string()).ok_or_else(|| format!("{name} is not installed"))
}

fn run(lab: &Lab, host: &Host, name: &str, argv: &[&str]) -> Child {
    let log = home(lab, host).join(format!("{name}.log"));
    let log = File::create(log).expect("the log can be written");
    let mut command = host.command(argv);
    command.stdout(log.try_clone().expect("a file can be shared")).stderr(log);
    command.spawn().expect("the program can be started")
}
