//! The peer: Docker Swarm, one engine of the distribution's `docker.io` in each host of a lab.
//!
//! The kernel may lack IPVS, so services are reached by the addresses of their tasks, never by a
//! virtual one; and no image is looked up, because there is no registry.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use weft_tests::{Lab, eventually};

use crate::{
    cluster::{Cluster, PATIENCE, home, processes},
    image,
};

/// The command line that belongs to the engine, whatever else is in PATH.
const DOCKER: &str = "/usr/bin/docker";
const DOCKERD: &str = "/usr/sbin/dockerd";
/// A name with a registry that cannot be there, so that nothing is ever pulled.
const IMAGE: &str = "127.0.0.1:1/bench:1";
/// Where the hierarchies of cgroups are.
const CGROUPS: &str = "/sys/fs/cgroup";

/// Engines in the hosts of a lab.
pub struct Swarm {
    daemons: RefCell<BTreeMap<usize, Child>>,
    lab: Lab,
    // Behind the lab: it is empty only when the containers have ended.
    parents: Parents,
}

impl Swarm {
    /// Hosts 1 to `managers` are managers, the others workers.
    pub fn new(name: &str, managers: usize, workers: usize) -> Self {
        let swarm = Self::started(name, managers + workers);
        let first = swarm.lab.host(1).ip();
        swarm.say(1, &["swarm", "init", "--advertise-addr", &first]).ok();
        for host in 2..=managers + workers {
            let role = if host <= managers { "manager" } else { "worker" };
            let token = swarm.say(1, &["swarm", "join-token", "-q", role]).ok();
            let (own, target) = (swarm.lab.host(host).ip(), format!("{first}:2377"));
            let join = ["swarm", "join", "--advertise-addr", &own, "--token", &token, &target];
            swarm.say(host, &join).ok();
        }
        swarm
    }

    /// An engine in each of so many hosts, in no swarm.
    pub fn started(name: &str, hosts: usize) -> Self {
        let lab = Lab::new(name, hosts);
        let root = image::make(&lab);
        let id = lab.dir().file_name().expect("it has a name").to_string_lossy().into_owned();
        let swarm = Self { daemons: RefCell::default(), lab, parents: Parents(id) };
        for host in 1..=hosts {
            // It is asked for names that nobody knows yet, and refuses at once: nothing listens there.
            swarm.lab.host(host).resolvers("nameserver 10.99.0.254\n");
            let child = swarm.engine(host);
            swarm.daemons.borrow_mut().insert(host, child);
        }
        for host in 1..=hosts {
            eventually("the engine answers", PATIENCE, || swarm.say(host, &["info"]).text());
            swarm.import(host, &root);
        }
        swarm
    }

    fn socket(&self, host: usize) -> String {
        let home = home(&self.lab, self.lab.host(host));
        format!("unix://{}", home.join("sock").display())
    }

    fn engine(&self, number: usize) -> Child {
        let host = self.lab.host(number);
        let dir = home(&self.lab, host);
        let [data, exec, pid] =
            ["data", "exec", "pid"].map(|name| dir.join(name).display().to_string());
        let (socket, parent) = (self.socket(number), format!("/{}", self.parents.name(number)));
        let argv = [
            DOCKERD,
            "--data-root",
            &data,
            "--exec-root",
            &exec,
            "--pidfile",
            &pid,
            "-H",
            &socket,
            "--cgroup-parent",
            &parent,
        ];
        let log = File::create(host.log()).expect("the log can be written");
        let mut command = host.command(&argv);
        command.stdout(log.try_clone().expect("a file can be shared")).stderr(log);
        command.spawn().expect("the engine can be started")
    }

    fn import(&self, host: usize, root: &Path) {
        let mut tar = Command::new("tar")
            .args(["-C".as_ref(), root.as_os_str(), "-c".as_ref(), ".".as_ref()])
            .stdout(Stdio::piped())
            .spawn()
            .expect("tar runs");
        let words = self.words(host);
        let mut argv: Vec<&str> = words.iter().map(String::as_str).collect();
        argv.extend(["import", "-", IMAGE]);
        let status = Command::new(argv[0])
            .args(&argv[1..])
            .stdin(tar.stdout.take().expect("it is piped"))
            .stdout(Stdio::null())
            .status()
            .expect("docker runs");
        assert!(status.success() && tar.wait().expect("our child").success(), "image: {status}");
    }

    fn label(service: &str) -> String {
        format!("label=com.docker.swarm.service.name={service}")
    }
}

impl Cluster for Swarm {
    fn lab(&self) -> &Lab {
        &self.lab
    }

    fn words(&self, host: usize) -> Vec<String> {
        vec![DOCKER.to_owned(), "-H".to_owned(), self.socket(host)]
    }

    fn image(&self) -> String {
        IMAGE.to_owned()
    }

    fn container(&self, host: usize, service: &str) -> Result<String, String> {
        let filter = Self::label(service);
        let list = self.say(host, &["ps", "-q", "--no-trunc", "--filter", &filter]).text()?;
        match list.lines().collect::<Vec<_>>()[..] {
            [only] => Ok(only.to_owned()),
            _ => Err(format!("not one container of {service}: {list:?}")),
        }
    }

    fn containers(&self, host: usize, service: &str) -> Result<usize, String> {
        let filter = Self::label(service);
        let list = self.say(host, &["ps", "-a", "-q", "--filter", &filter]).text()?;
        Ok(list.lines().count())
    }

    fn own_flags(&self) -> &[&str] {
        &["--no-resolve-image"]
    }

    fn kill9(&self, host: usize) {
        let mut child = self.daemons.borrow_mut().remove(&host).expect("the engine runs");
        child.kill().expect("it can be killed");
        child.wait().expect("it is our child");
    }

    fn daemons(&self, host: usize) -> Vec<i32> {
        let home = home(&self.lab, self.lab.host(host)).display().to_string();
        let mut found = processes(&self.lab, "dockerd", &home);
        found.extend(processes(&self.lab, "containerd", &home));
        found
    }

    fn shims(&self) -> Vec<i32> {
        processes(&self.lab, "containerd-shim-runc-v2", "")
    }
}

/// The engines' cgroups, which nobody else removes.
struct Parents(String);

impl Parents {
    fn name(&self, host: usize) -> String {
        format!("{}.n{host}", self.0)
    }
}

impl Drop for Parents {
    fn drop(&mut self) {
        let prefix = format!("{}.n", self.0);
        let mut tops = vec![PathBuf::from(CGROUPS)];
        tops.extend(below(Path::new(CGROUPS)));
        for top in tops {
            let own = below(&top).into_iter().filter(|dir| {
                dir.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix))
            });
            own.for_each(|dir| clear(&dir));
        }
    }
}

fn below(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

/// Removes a cgroup and those in it; one that is in use stays.
fn clear(dir: &Path) {
    for inner in below(dir) {
        clear(&inner);
    }
    let _ = fs::remove_dir(dir);
}
