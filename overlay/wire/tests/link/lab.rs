//! A small world: nodes on one switch, each with an engine and one container on network [`VNI`].
//!
//! Each namespace is held by a thread of the test; when the test ends, however it ends, the threads end
//! and the kernel removes everything in them. Nothing leaves the machine.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use nix::{
    sched::{CloneFlags, unshare},
    sys::signal::{SigSet, Signal},
};
use weft_wire::{Client, Config, Identity, Key, Mac, Member, Network, Node, PeerIdentity, Status};

/// The network that all containers are on.
pub const VNI: u32 = 65_536;
/// Its TAP device on each node.
pub const TAP: &str = "wt010000";
/// Where the engine's process reads its run directory from.
pub const RUN_DIR: &str = "WEFT_WIRE_TEST_DIR";
/// Longest wait for what should happen soon, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(30);
/// The first lane's port with a key of an even generation.
pub const PORT: u16 = 51_820;

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace and the thread in it.
pub struct Space {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    path: String,
}

impl Space {
    pub fn new() -> Self {
        let (jobs, receiver) = mpsc::channel::<Job>();
        let (tell, told) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("root");
            let (process, task) = (std::process::id(), nix::unistd::gettid());
            tell.send(format!("/proc/{process}/task/{task}/ns/net")).unwrap();
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

    /// Runs a shell command inside, which must succeed; returns its output.
    pub fn sh(&self, command: &str) -> String {
        self.try_sh(command).unwrap()
    }

    /// Runs a shell command inside.
    pub fn try_sh(&self, command: &str) -> Result<String, String> {
        let command = command.to_owned();
        self.run(move || {
            let output = Command::new("sh").arg("-ec").arg(&command).output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            if output.status.success() { Ok(text) } else { Err(format!("{command}: {errors}")) }
        })
    }

    /// Whether `target` answers a single packet.
    pub fn pings(&self, target: &str) -> bool {
        self.try_sh(&format!("busybox ping -c1 -W1 {target}")).is_ok()
    }

    pub fn udp(&self, bind: &str) -> UdpSocket {
        let bind: SocketAddr = bind.parse().unwrap();
        let socket = self.run(move || UdpSocket::bind(bind).unwrap());
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        socket
    }

    pub fn listen(&self, bind: &str) -> TcpListener {
        let bind: SocketAddr = bind.parse().unwrap();
        self.run(move || TcpListener::bind(bind).unwrap())
    }

    pub fn connect(&self, to: &str) -> TcpStream {
        let to: SocketAddr = to.parse().unwrap();
        self.run(move || TcpStream::connect_timeout(&to, PATIENCE).unwrap())
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        self.jobs = None;
        let _ = self.thread.take().unwrap().join();
    }
}

/// A node: its host, its container, its engine.
pub struct Host {
    pub number: u8,
    pub host: Space,
    pub guest: Space,
    /// Generations of its keys; the first is used.
    pub keys: Vec<u8>,
    engine: Option<Child>,
    dir: tempfile::TempDir,
}

impl Host {
    /// Address on the underlay.
    pub fn address(&self) -> String {
        format!("10.99.0.{}", self.number)
    }

    /// The container's address; its IPv6 address ends alike.
    pub fn inner(&self) -> String {
        format!("10.0.0.{}", self.number)
    }

    pub fn inner6(&self) -> String {
        format!("fd00::{}", self.number)
    }

    pub fn mac(&self) -> Mac {
        mac(self.number)
    }

    /// Starts the engine, which knows nothing yet.
    pub fn start(&mut self) {
        let dir = self.dir.path().to_owned();
        self.engine = Some(self.host.run(move || spawn_engine(&dir)));
        wait_until("the engine is there", || Client::connect(self.dir.path()).is_ok());
    }

    /// Ends the engine as a crash does.
    pub fn kill(&mut self) {
        if let Some(mut engine) = self.engine.take() {
            engine.kill().unwrap();
            engine.wait().unwrap();
        }
    }

    pub fn client(&self) -> Client {
        Client::connect(self.dir.path()).unwrap()
    }

    pub fn run_dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn pid(&self) -> u32 {
        self.engine.as_ref().unwrap().id()
    }

    /// Waits until the engine has ended by itself.
    pub fn wait(&mut self) -> std::process::ExitStatus {
        self.engine.take().unwrap().wait().unwrap()
    }

    pub fn status(&self) -> Status {
        self.client().status().unwrap()
    }

    pub fn add_tap(&self) {
        self.host.sh(&format!(
            "ip tuntap add dev {TAP} mode tap multi_queue vnet_hdr
             ip link set {TAP} master br0 mtu 1390 addrgenmode none up"
        ));
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.kill();
    }
}

/// This program as an engine. The threads of its test harness do not block the signals that end it, as
/// those of the real program do; here they do from their beginning.
fn spawn_engine(dir: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "engine_process", "--ignored", "--nocapture"])
        .env(RUN_DIR, dir)
        .stdout(Stdio::null());
    let block = || Ok(SigSet::from_iter([Signal::SIGTERM]).thread_block()?);
    // SAFETY: between fork and exec it does nothing but one system call.
    unsafe { command.pre_exec(block) };
    command.spawn().unwrap()
}

/// All of it.
pub struct World {
    pub hosts: Vec<Host>,
    pub lanes: u16,
    pub switch: Space,
}

impl World {
    /// Nodes 1 to `count`, configured, with an engine each.
    pub fn new(count: u8, lanes: u16) -> Self {
        let mut world = Self::without_engines(count, lanes);
        for host in &mut world.hosts {
            host.start();
        }
        world.configure();
        world
    }

    pub fn without_engines(count: u8, lanes: u16) -> Self {
        let switch = Space::new();
        switch.sh("ip link add br0 type bridge mcast_snooping 0; ip link set br0 up");
        let hosts = (1..=count).map(|number| host(number, &switch)).collect();
        Self { hosts, lanes, switch }
    }

    /// Another machine on the underlay, without an engine.
    pub fn stranger(&self, number: u8) -> Space {
        let space = Space::new();
        plug(&space, number, &self.switch);
        space
    }

    /// Tells all engines how things are.
    pub fn configure(&self) {
        for host in &self.hosts {
            host.client().set(self.config(host.number)).unwrap();
        }
    }

    /// What one node is told.
    pub fn config(&self, own: u8) -> Config {
        let of = |number: u8| self.hosts.iter().find(move |host| host.number == number).unwrap();
        let identity = |generation: &u8| Identity {
            private_key: key(own, *generation),
            address: tunnel(own, *generation).into(),
            ports: self.ports(*generation),
        };
        let others = || self.hosts.iter().filter(|host| host.number != own);
        let node = |host: &Host| Node {
            endpoint: host.address().parse().unwrap(),
            identities: host.keys.iter().map(|it| self.peer(host.number, *it)).collect(),
            keepalive: None,
        };
        let members = others().map(|host| (host.mac(), member(host.number))).collect();
        Config {
            identities: of(own).keys.iter().map(identity).collect(),
            nodes: others().map(|host| (host.number.into(), node(host))).collect(),
            networks: BTreeMap::from([(VNI, Network { device: TAP.into(), members })]),
        }
    }

    /// What others are told of one key of a node.
    pub fn peer(&self, number: u8, generation: u8) -> PeerIdentity {
        PeerIdentity {
            public_key: key(number, generation).public(),
            address: tunnel(number, generation).into(),
            ports: self.ports(generation),
        }
    }

    fn ports(&self, generation: u8) -> Vec<u16> {
        (0..self.lanes).map(|lane| PORT + 2 * lane + u16::from(generation % 2)).collect()
    }
}

fn host(number: u8, switch: &Space) -> Host {
    let (host, guest) = (Space::new(), Space::new());
    plug(&host, number, switch);
    // As the daemon makes them: none of these speaks for itself.
    host.sh("ip link add br0 type bridge mcast_snooping 0
         sysctl -qw net.ipv6.conf.br0.disable_ipv6=1
         ip link set br0 up");
    host.sh(&format!("ip link add v0 type veth peer name eth0 netns {}", name(&guest)));
    host.sh("ip link set v0 master br0 addrgenmode none up");
    guest.sh(&format!(
        "sysctl -qw net.ipv6.conf.eth0.accept_dad=0
         ip link set eth0 address 02:42:0a:00:00:0{number} mtu 1390
         ip address add 10.0.0.{number}/24 broadcast 10.0.0.255 dev eth0
         ip -6 address add fd00::{number}/64 dev eth0 nodad
         ip link set eth0 up"
    ));
    let dir = tempfile::tempdir().unwrap();
    let host = Host { number, host, guest, keys: vec![0], engine: None, dir };
    host.add_tap();
    host
}

fn plug(space: &Space, number: u8, switch: &Space) {
    switch.sh(&format!("ip link add p{number} type veth peer name u0 netns {}", name(space)));
    switch.sh(&format!("ip link set p{number} master br0 up"));
    space.sh(&format!("ip address add 10.99.0.{number}/24 dev u0; ip link set u0 up"));
}

/// `ip` takes the number of a process, or of a thread, for its namespace.
fn name(space: &Space) -> String {
    space.path.split('/').nth(4).unwrap().to_owned()
}

/// The private key of a node's generation.
pub fn key(number: u8, generation: u8) -> Key {
    Key([number * 16 + generation + 1; 32])
}

/// The tunnel address of a node's generation.
pub fn tunnel(number: u8, generation: u8) -> [u8; 4] {
    [100, 64, 0, 2 * number + generation % 2]
}

pub fn mac(number: u8) -> Mac {
    [2, 0x42, 10, 0, 0, number]
}

pub fn member(number: u8) -> Member {
    let v6: IpAddr = format!("fd00::{number}").parse().unwrap();
    Member { node: number.into(), addresses: vec![[10, 0, 0, number].into(), v6] }
}

/// Waits for a condition.
pub fn wait_until(what: &str, mut is: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < end, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Bytes that look random and are the same each time.
pub struct Stream(u64);

impl Stream {
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub fn fill(&mut self, buffer: &mut [u8]) {
        for bytes in buffer.chunks_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            bytes.copy_from_slice(&self.0.to_le_bytes()[..bytes.len()]);
        }
    }
}

/// How much of a stream is handled at once; a multiple of eight.
const PIECE: usize = 65_536;

/// Sends `length` bytes of a stream, until told to stop earlier by `more`.
pub fn send_stream(mut to: TcpStream, seed: u64, mut more: impl FnMut(usize) -> bool) {
    let (mut stream, mut piece, mut sent) = (Stream::new(seed), vec![0; PIECE], 0);
    while more(sent) {
        stream.fill(&mut piece);
        to.write_all(&piece).unwrap();
        sent += PIECE;
    }
}

/// Reads a stream to its end, compares every byte, and returns how many there were.
pub fn check_stream(mut from: TcpStream, seed: u64) -> usize {
    from.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut stream, mut piece, mut wanted) = (Stream::new(seed), vec![0; PIECE], vec![0; PIECE]);
    let mut total = 0;
    loop {
        match from.read_exact(&mut piece) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return total,
            Err(error) => panic!("after {total} bytes: {error}"),
        }
        stream.fill(&mut wanted);
        assert!(piece == wanted, "other bytes than were sent, after {total}");
        total += PIECE;
    }
}
