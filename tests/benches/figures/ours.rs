//! A cluster of ours, as it is installed: the release build, with the log level that is the default.

use std::{cell::RefCell, collections::BTreeMap, fs::File, process::Child};

use weft_tests::{Lab, eventually};

use crate::{
    cluster::{Cluster, PATIENCE, processes},
    image,
};

/// Daemons in the hosts of a lab.
pub struct Ours {
    daemons: RefCell<BTreeMap<usize, Child>>,
    lab: Lab,
}

impl Ours {
    /// Hosts 1 to `managers` are managers, the others workers.
    pub fn new(name: &str, managers: usize, workers: usize) -> Self {
        Self::joined(Lab::new(name, managers + workers), managers)
    }

    /// The same in the hosts of a lab, which run nothing yet.
    pub fn joined(lab: Lab, managers: usize) -> Self {
        let count = lab.hosts().count();
        let ours = Self::daemons_in(lab);
        let first = ours.lab.host(1).ip();
        ours.say(1, &["cluster", "init", "--advertise-addr", &first]).ok();
        for host in 2..=count {
            let role = if host <= managers { "manager" } else { "worker" };
            let token = ours.say(1, &["cluster", "join-token", "-q", role]).ok();
            ours.say(host, &["cluster", "join", "--token", &token, &format!("{first}:2377")]).ok();
        }
        ours.wait_ready(count);
        ours
    }

    /// A daemon in each of so many hosts, in no cluster.
    pub fn started(name: &str, hosts: usize) -> Self {
        Self::daemons_in(Lab::new(name, hosts))
    }

    fn daemons_in(lab: Lab) -> Self {
        image::make(&lab);
        let hosts = lab.hosts().count();
        let ours = Self { daemons: RefCell::default(), lab };
        for host in 1..=hosts {
            let child = ours.daemon(host);
            ours.daemons.borrow_mut().insert(host, child);
        }
        for host in 1..=hosts {
            eventually("the daemon answers", PATIENCE, || ours.say(host, &["info"]).text());
        }
        ours
    }

    fn wait_ready(&self, count: usize) {
        eventually("all nodes are ready", PATIENCE, || {
            let list = self.say(1, &["node", "ls", "--format", "{{.Status}}"]).text()?;
            let ready = list.lines().filter(|line| line.eq_ignore_ascii_case("ready")).count();
            if ready == count { Ok(()) } else { Err(list) }
        });
    }

    fn daemon(&self, number: usize) -> Child {
        let host = self.lab.host(number);
        let [program, state, run] = [image::release(), host.state_dir(), host.run_dir()]
            .map(|path| path.display().to_string());
        let name = host.name();
        let argv = [
            program.as_str(),
            "daemon",
            "--state-dir",
            &state,
            "--run-dir",
            &run,
            "--node-name",
            &name,
        ];
        let log = File::create(host.log()).expect("the log can be written");
        let mut command = host.command(&argv);
        command.stdout(log.try_clone().expect("a file can be shared")).stderr(log);
        command.spawn().expect("the daemon can be started")
    }
}

impl Cluster for Ours {
    fn lab(&self) -> &Lab {
        &self.lab
    }

    fn words(&self, _host: usize) -> Vec<String> {
        // The lab says in the environment which daemon is asked.
        vec![image::release().display().to_string()]
    }

    fn image(&self) -> String {
        self.lab.image()
    }

    fn container(&self, host: usize, service: &str) -> Result<String, String> {
        let filter = format!("service={service}");
        let list = self.say(host, &["ps", "-q", "--no-trunc", "--filter", &filter]).text()?;
        match list.lines().collect::<Vec<_>>()[..] {
            [only] => Ok(only.to_owned()),
            _ => Err(format!("not one container of {service}: {list:?}")),
        }
    }

    fn containers(&self, host: usize, service: &str) -> Result<usize, String> {
        let filter = format!("service={service}");
        let list = self.say(host, &["ps", "-a", "-q", "--filter", &filter]).text()?;
        Ok(list.lines().count())
    }

    fn own_flags(&self) -> &[&str] {
        &[]
    }

    fn kill9(&self, host: usize) {
        let mut child = self.daemons.borrow_mut().remove(&host).expect("the daemon runs");
        child.kill().expect("it can be killed");
        child.wait().expect("it is our child");
    }

    fn daemons(&self, host: usize) -> Vec<i32> {
        let daemons = self.daemons.borrow();
        daemons.get(&host).map(|child| child.id().cast_signed()).into_iter().collect()
    }

    fn shims(&self) -> Vec<i32> {
        processes(&self.lab, "weft-shim", "")
    }
}
