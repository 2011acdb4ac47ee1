//! Clients: each has objects of its own and changes them one call after the other, with a request ID
//! and as many tries as it takes. So it knows at any time what must be there.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rand::RngExt as _;
use tonic::Code;
use weft_proto::{
    convert::value::duration,
    v1::{
        ContainerSpec, CreateNetworkRequest, CreateServiceRequest, GetServiceRequest,
        NetworkAttachmentSpec, NetworkSpec, RemoveNetworkRequest, RemoveServiceRequest,
        RestartPolicy, RollbackServiceRequest, ServiceMode, ServiceSpec, UpdateConfig,
        UpdateServiceRequest,
        service_mode::{Mode, Replicated},
    },
};
use weft_worker::attach::Wish;

use super::{
    HOSTS,
    book::{AttachmentEntry, Certainty, Entries, ServiceEntry},
    caller::{Caller, Outcome},
    clock::millis,
    daemon::host_name,
    local::Local,
    machine::Machine,
    request::{Call, Shown},
};

/// Longest pause between two calls.
const PAUSE: Duration = Duration::from_millis(700);
/// Most services of one client.
const SERVICES_MAX: usize = 3;
/// Most networks of one client.
const NETWORKS_MAX: usize = 2;
/// Most replicas asked for.
const REPLICAS_MAX: u32 = 3;
/// Addresses of a network that its members may need once nothing changes any more: of the five that a
/// prefix of 29 bits has, one stays for a task that starts before the one in its place ends.
const MEMBERS_MAX: usize = 4;

/// See the module.
pub(super) struct Client {
    pub(super) caller: Caller,
    pub(super) stop: Arc<AtomicBool>,
    /// Of all hosts, in order.
    pub(super) machines: Vec<Machine>,
    /// Objects made so far.
    pub(super) made: u64,
}

impl Client {
    /// Makes calls until it is told to stop; the last one is brought to its end.
    pub(super) async fn run(mut self) {
        while !self.stop.load(Ordering::Relaxed) {
            let pause = self.caller.random.random_range(0..millis(PAUSE));
            tokio::time::sleep(Duration::from_millis(pause)).await;
            self.next().await;
        }
        self.caller.note("makes no more calls");
    }

    async fn next(&mut self) {
        let entries = self.caller.book.entries();
        let own = format!("{}-", self.caller.name);
        let own = |name: &String| name.starts_with(&own);
        let networks: Vec<_> = entries
            .networks
            .iter()
            .filter(|(name, certainty)| own(name) && **certainty == Certainty::Known)
            .map(|(name, _)| name.clone())
            .collect();
        let services: Vec<_> =
            entries.services.iter().filter(|(name, _)| own(name)).map(|(_, s)| s.clone()).collect();
        let attachments: Vec<_> = entries.attachments.keys().filter(|name| own(name)).collect();
        let network = self.caller.pick(networks.len()).map(|index| networks[index].clone());
        let service = self.caller.pick(services.len()).map(|index| services[index].clone());
        let attachment = self.caller.pick(attachments.len()).map(|i| attachments[i].clone());
        let roomy: Vec<_> = networks.iter().filter(|name| room(&entries, name) > 0).collect();
        let roomy = self.caller.pick(roomy.len()).map(|index| roomy[index].clone());
        let room = network.as_ref().map_or(0, |network| room(&entries, network));
        // To begin with, what faults can do harm to.
        if networks.is_empty() {
            return self.create_network().await;
        }
        if services.is_empty() {
            return self.create_service(network.filter(|_| room > REPLICAS_MAX as usize)).await;
        }
        match (self.caller.random.random_range(0..24), network, service, attachment) {
            (0 | 1, ..) if networks.len() < NETWORKS_MAX => self.create_network().await,
            (2..=4, network, ..) if services.len() < SERVICES_MAX => {
                // With its virtual address.
                let fits = room > REPLICAS_MAX as usize;
                self.create_service(network.filter(|_| fits)).await;
            }
            (5..=7, _, Some(service), _) => self.scale(service.spec).await,
            (8 | 9, _, Some(service), _) => self.update(service.spec).await,
            (10, _, Some(service), _) => self.remove_service(service.spec.name).await,
            (11, Some(network), ..) => self.remove_network(network).await,
            (12 | 22 | 23, _, Some(service), _) if service.previous.is_some() => {
                self.roll_back(service).await
            }
            (13..=16, ..) => match roomy {
                Some(network) => self.attach(network).await,
                None if networks.len() < NETWORKS_MAX => self.create_network().await,
                None => {}
            },
            (17..=20, _, _, Some(name)) => self.detach(name).await,
            (21, _, _, Some(name)) => self.close(&name),
            (_, _, Some(service), _) => self.get(&service.spec).await,
            (_, _, None, _) => {}
        }
    }

    fn new_name(&mut self, kind: char) -> String {
        self.made += 1;
        format!("{}-{kind}{}", self.caller.name, self.made)
    }

    // ---- networks

    async fn create_network(&mut self) {
        let name = self.new_name('n');
        let internal = self.caller.random.random_ratio(1, 4);
        let ipv6 = self.caller.random.random_ratio(1, 4);
        let encrypted = !self.made.is_multiple_of(3);
        let options = encrypted.then(|| ("encrypted".to_owned(), String::new()));
        let spec = NetworkSpec {
            name: name.clone(),
            internal,
            ipv6,
            attachable: true,
            options: options.into_iter().collect(),
            ..Default::default()
        };
        let what = format!("create network {name}");
        let call = |request_id| {
            Call::CreateNetwork(CreateNetworkRequest { spec: Some(spec.clone()), request_id })
        };
        match self.caller.call(&what, call).await {
            Outcome::Done(_) => {
                self.caller.book.lock().networks.insert(name, Certainty::Known);
            }
            Outcome::Refused { status, .. } => self.unexpected(status.message()),
        }
    }

    async fn remove_network(&mut self, name: String) {
        let what = format!("remove network {name}");
        let call = |request_id| {
            Call::RemoveNetwork(RemoveNetworkRequest { network: name.clone(), request_id })
        };
        let outcome = self.caller.call(&what, call).await;
        let mut entries = self.caller.book.lock();
        match outcome {
            Outcome::Done(_) => drop(entries.networks.remove(&name)),
            // It is in use.
            Outcome::Refused { tries, .. } => {
                if tries > 1 {
                    entries.networks.insert(name, Certainty::Open);
                }
            }
        }
    }

    // ---- services

    async fn create_service(&mut self, network: Option<String>) {
        let name = self.new_name('s');
        let spec = self.spec(name, network);
        let what = format!("create service {}", spec.name);
        let call = |request_id| {
            Call::CreateService(CreateServiceRequest { spec: Some(spec.clone()), request_id })
        };
        match self.caller.call(&what, call).await {
            Outcome::Done(shown) => self.now_is(spec, None, &shown),
            // Tasks that are just ending, or were on nodes that are away, hold its addresses.
            Outcome::Refused { status, .. } if status.code() == Code::ResourceExhausted => {}
            Outcome::Refused { status, .. } => self.unexpected(status.message()),
        }
    }

    fn spec(&mut self, name: String, network: Option<String>) -> ServiceSpec {
        let random = &mut self.caller.random;
        let moment = |millis| duration(Duration::from_millis(millis));
        ServiceSpec {
            name,
            container: Some(ContainerSpec {
                image: "rootfs:/srv".into(),
                args: vec!["serve".into(), "0".into()],
                ..Default::default()
            }),
            mode: Some(ServiceMode {
                mode: Some(Mode::Replicated(Replicated {
                    replicas: random.random_range(1..=REPLICAS_MAX),
                })),
            }),
            networks: network
                .map(|network| NetworkAttachmentSpec { network, aliases: Vec::new() })
                .into_iter()
                .collect(),
            endpoint_mode: random.random_range(1..=2),
            // Short, so that the back-off does not outlast the test.
            restart: Some(RestartPolicy { delay: Some(moment(200)), ..Default::default() }),
            update: Some(UpdateConfig {
                // One at a time where addresses are few.
                parallelism: 1,
                delay: Some(moment(0)),
                order: random.random_range(1..=2),
                // "Continue": a container that fails by chance must not stop an update for good.
                failure_action: 2,
            }),
            ..Default::default()
        }
    }

    async fn scale(&mut self, mut spec: ServiceSpec) {
        let replicas = self.caller.random.random_range(0..=REPLICAS_MAX);
        spec.mode = Some(ServiceMode { mode: Some(Mode::Replicated(Replicated { replicas })) });
        self.change(&format!("scale {} to {replicas}", spec.name), spec).await;
    }

    async fn update(&mut self, mut spec: ServiceSpec) {
        let argument = self.caller.random.random_range(0..1000).to_string();
        let what = format!("update {} to {argument}", spec.name);
        if let Some(container) = &mut spec.container {
            container.args = vec!["serve".into(), argument];
        }
        self.change(&what, spec).await;
    }

    async fn change(&mut self, what: &str, spec: ServiceSpec) {
        let call = |request_id| {
            Call::UpdateService(UpdateServiceRequest {
                service: spec.name.clone(),
                spec: Some(spec.clone()),
                request_id,
                ..Default::default()
            })
        };
        let outcome = self.caller.call(what, call).await;
        self.changed(spec, outcome);
    }

    async fn roll_back(&mut self, service: ServiceEntry) {
        let Some(previous) = service.previous else { return };
        let name = &service.spec.name;
        let call = |request_id| {
            let service = name.clone();
            Call::RollbackService(RollbackServiceRequest { service, request_id })
        };
        let outcome = self.caller.call(&format!("roll back {name}"), call).await;
        self.changed(previous, outcome);
    }

    /// Writes down what a service is now that it was asked to be `asked`.
    fn changed(&self, asked: ServiceSpec, outcome: Outcome) {
        match outcome {
            Outcome::Done(shown) => {
                let before = self.caller.book.lock().services.get(&asked.name).cloned();
                self.now_is(asked, before.map(|before| before.spec), &shown);
            }
            Outcome::Refused { status, .. } => self.unexpected(status.message()),
        }
    }

    fn now_is(&self, spec: ServiceSpec, previous: Option<ServiceSpec>, shown: &Shown) {
        self.compare(&spec, shown);
        let name = spec.name.clone();
        self.caller.book.lock().services.insert(name, ServiceEntry { spec, previous });
    }

    async fn remove_service(&mut self, name: String) {
        let what = format!("remove service {name}");
        let call = |request_id| {
            Call::RemoveService(RemoveServiceRequest { service: name.clone(), request_id })
        };
        match self.caller.call(&what, call).await {
            Outcome::Done(_) => drop(self.caller.book.lock().services.remove(&name)),
            Outcome::Refused { status, .. } => self.unexpected(status.message()),
        }
    }

    /// A read sees every write that was acknowledged before it.
    async fn get(&mut self, spec: &ServiceSpec) {
        let service = spec.name.clone();
        let call = |_| Call::GetService(GetServiceRequest { service: service.clone() });
        match self.caller.call(&format!("get service {service}"), call).await {
            Outcome::Done(shown) => self.compare(spec, &shown),
            Outcome::Refused { status, .. } => self.unexpected(status.message()),
        }
    }

    fn compare(&self, written: &ServiceSpec, shown: &Shown) {
        let same = match shown {
            Shown::Service(read) => essence(read) == essence(written),
            Shown::Nothing | Shown::Number(_) => false,
        };
        if !same {
            self.caller.violated(format!("wrote {written:?}, read {shown:?}"));
        }
    }

    // ---- namespaces of others

    /// Puts a new namespace on a network.
    async fn attach(&mut self, network: String) {
        let name = self.new_name('a');
        let host = self.caller.random.random_range(1..=HOSTS);
        let path = self.machine(host).open_namespace();
        let wish = Wish {
            netns: path.clone(),
            network: network.clone(),
            name: name.clone(),
            ifname: "eth0".to_owned(),
            request: self.caller.request(),
            ..Wish::default()
        };
        // Its address is used up from the first try on.
        let entry = AttachmentEntry { host, path: path.clone(), network };
        self.caller.book.lock().attachments.insert(name.clone(), entry);
        let what = format!("attach {name} on {}", host_name(host));
        if !self.caller.ask(host, &what, &Local::Attach(wish)).await {
            self.close(&name);
        }
    }

    async fn detach(&mut self, name: String) {
        let Some(entry) = self.caller.book.entries().attachments.get(&name).cloned() else {
            return;
        };
        let what = format!("detach {name} on {}", host_name(entry.host));
        if !self.caller.ask(entry.host, &what, &Local::Detach(name.clone())).await {
            self.unexpected("not detached");
        }
        self.close(&name);
    }

    /// Its owner ends a namespace without a word.
    fn close(&self, name: &str) {
        let entry = self.caller.book.lock().attachments.remove(name);
        if let Some(AttachmentEntry { host, path, .. }) = entry {
            self.caller.note(format!("{} on {} is closed", path.display(), host_name(host)));
            self.machine(host).close_namespace(&path);
        }
    }

    fn machine(&self, host: u8) -> &Machine {
        &self.machines[usize::from(host) - 1]
    }

    fn unexpected(&self, message: &str) {
        self.caller.violated(format!("refused: {message}"));
    }
}

/// How many more members a network has room for.
fn room(entries: &Entries, network: &str) -> usize {
    let on = |service: &&ServiceEntry| service.spec.networks.iter().any(|n| n.network == network);
    let services = entries.services.values().filter(on).count();
    let attached = entries.attachments.values().filter(|a| a.network == network).count();
    MEMBERS_MAX.saturating_sub(services * (REPLICAS_MAX as usize + 1) + attached)
}

/// What of a spec a client varies.
pub(super) fn essence(spec: &ServiceSpec) -> (String, Option<u32>, Vec<String>) {
    let replicas = spec.mode.as_ref().and_then(|mode| match &mode.mode {
        Some(Mode::Replicated(replicated)) => Some(replicated.replicas),
        Some(Mode::Global(_)) | None => None,
    });
    let args = spec.container.as_ref().map(|container| container.args.clone());
    (spec.name.clone(), replicas, args.unwrap_or_default())
}
