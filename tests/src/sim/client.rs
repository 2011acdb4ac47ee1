//! Clients: each has objects of its own and changes them one call after the other, with a request ID
//! and as many tries as it takes. So it knows at any time what must be there.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tonic::Status;
use weft_proto::{
    convert::value::duration,
    v1::{
        ContainerSpec, CreateNetworkRequest, CreateServiceRequest, GetServiceRequest,
        NetworkAttachmentSpec, NetworkSpec, RemoveNetworkRequest, RemoveServiceRequest,
        RestartPolicy, ServiceMode, ServiceSpec, UpdateConfig, UpdateServiceRequest,
        service_mode::{Mode, Replicated},
    },
};

use super::{
    MANAGERS,
    clock::millis,
    net::{Answer, HostId, Net, Parcel},
    request::{Call, Reply, is_open},
    trace::Trace,
};

/// Where all clients are.
pub(super) const CLIENTS: HostId = 0;
/// How long a client waits for one answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// Between two tries.
const RETRY: Duration = Duration::from_millis(200);
/// Longest pause between two calls.
const PAUSE: Duration = Duration::from_millis(900);
/// Most networks and services of one client.
const OBJECTS_MAX: usize = 3;
/// Most replicas asked for: the services of a client with their virtual addresses just fit in one of
/// its networks.
const REPLICAS_MAX: u32 = 3;

/// What must be there, by name. Clones are the same book.
#[derive(Clone, Default)]
pub(super) struct Book(Arc<Mutex<Entries>>);

#[derive(Clone, Default)]
pub(super) struct Entries {
    /// Networks that were made and not removed.
    pub(super) networks: BTreeMap<String, Certainty>,
    /// Services that were made and not removed, with the last spec that was acknowledged.
    pub(super) services: BTreeMap<String, (ServiceSpec, Certainty)>,
    /// Calls that were acknowledged.
    pub(super) acknowledged: u64,
    /// Calls that were refused for good.
    pub(super) refused: u64,
    /// Calls that needed more than one try.
    pub(super) retried: u64,
}

/// Whether what is written of an object is known to be true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Certainty {
    /// The last call was acknowledged.
    Known,
    /// A call was refused at its second try: the first one may yet arrive and be taken. The object
    /// is left alone from then on.
    Open,
}

impl Book {
    pub(super) fn entries(&self) -> Entries {
        self.lock().clone()
    }

    /// Each change is one call on a map, so it is whole whatever a holder did.
    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a call ended, after as many tries as it took.
enum Outcome {
    Done(Option<ServiceSpec>),
    Refused { status: Status, tries: u32 },
}

/// One client.
pub(super) struct Client {
    pub(super) number: u64,
    pub(super) net: Net,
    pub(super) trace: Trace,
    pub(super) book: Book,
    random: StdRng,
    /// Set when no new calls are to be made.
    stop: Arc<AtomicBool>,
    /// Objects made so far, for new names.
    made: u64,
    calls: u64,
}

impl Client {
    pub(super) fn new(
        (number, seed): (u64, u64),
        (net, trace): (Net, Trace),
        book: Book,
        stop: Arc<AtomicBool>,
    ) -> Self {
        let random = StdRng::seed_from_u64(seed.wrapping_add(number));
        Self { number, net, trace, book, random, stop, made: 0, calls: 0 }
    }

    /// Makes calls until it is told to stop; the last one is brought to its end.
    pub(super) async fn run(mut self) {
        while !self.stop.load(Ordering::Relaxed) {
            let pause = self.random.random_range(0..millis(PAUSE));
            tokio::time::sleep(Duration::from_millis(pause)).await;
            self.next().await;
        }
        self.note("makes no more calls");
    }

    async fn next(&mut self) {
        let entries = self.book.entries();
        let own = format!("c{}-", self.number);
        let known = |certainty: Certainty| certainty == Certainty::Known;
        let networks: Vec<_> = entries
            .networks
            .iter()
            .filter(|(name, certainty)| name.starts_with(&own) && known(**certainty))
            .map(|(name, _)| name.clone())
            .collect();
        let services: Vec<_> = entries
            .services
            .iter()
            .filter(|(name, (_, certainty))| name.starts_with(&own) && known(*certainty))
            .map(|(name, (spec, _))| (name.clone(), spec.clone()))
            .collect();
        let network = self.pick(networks.len()).map(|index| networks[index].clone());
        let service = self.pick(services.len()).map(|index| services[index].clone());
        match (self.random.random_range(0..12), network, service) {
            (0 | 1, ..) if networks.len() < OBJECTS_MAX => self.create_network().await,
            (2..=4, network, _) if services.len() < OBJECTS_MAX => {
                self.create_service(network).await;
            }
            (5 | 6, _, Some((_, spec))) => self.scale(spec).await,
            (7 | 8, _, Some((_, spec))) => self.update(spec).await,
            (9, _, Some((name, _))) => self.remove_service(name).await,
            (10, Some(name), _) => self.remove_network(name).await,
            (_, _, Some((name, spec))) => self.get(name, &spec).await,
            (_, _, None) => {}
        }
    }

    fn pick(&mut self, count: usize) -> Option<usize> {
        (count > 0).then(|| self.random.random_range(0..count))
    }

    fn new_name(&mut self, kind: char) -> String {
        self.made += 1;
        format!("c{}-{kind}{}", self.number, self.made)
    }

    async fn create_network(&mut self) {
        let name = self.new_name('n');
        let internal = self.random.random_ratio(1, 4);
        let ipv6 = self.random.random_ratio(1, 4);
        let spec = NetworkSpec { name: name.clone(), internal, ipv6, ..Default::default() };
        let outcome = self
            .call(&format!("create network {name}"), |request_id| {
                let spec = Some(spec.clone());
                Call::CreateNetwork(CreateNetworkRequest { spec, request_id })
            })
            .await;
        match outcome {
            Outcome::Done(_) => drop(self.book.lock().networks.insert(name, Certainty::Known)),
            Outcome::Refused { status, .. } => self.unexpected(&status),
        }
    }

    async fn remove_network(&mut self, name: String) {
        let outcome = self
            .call(&format!("remove network {name}"), |request_id| {
                Call::RemoveNetwork(RemoveNetworkRequest { network: name.clone(), request_id })
            })
            .await;
        let mut entries = self.book.lock();
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

    async fn create_service(&mut self, network: Option<String>) {
        let name = self.new_name('s');
        let spec = self.spec(name, network);
        let outcome = self
            .call(&format!("create service {}", spec.name), |request_id| {
                let spec = Some(spec.clone());
                Call::CreateService(CreateServiceRequest { spec, request_id })
            })
            .await;
        self.changed(spec, outcome);
    }

    fn spec(&mut self, name: String, network: Option<String>) -> ServiceSpec {
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
                    replicas: self.random.random_range(1..=REPLICAS_MAX),
                })),
            }),
            networks: network
                .map(|network| NetworkAttachmentSpec { network, aliases: Vec::new() })
                .into_iter()
                .collect(),
            endpoint_mode: self.random.random_range(1..=2),
            // Short, so that the back-off does not outlast the test.
            restart: Some(RestartPolicy { delay: Some(moment(200)), ..Default::default() }),
            update: Some(UpdateConfig {
                parallelism: self.random.random_range(0..3),
                delay: Some(moment(0)),
                order: self.random.random_range(1..=2),
                // "Continue": a container that fails by chance must not stop an update for good.
                failure_action: 2,
            }),
            ..Default::default()
        }
    }

    async fn scale(&mut self, mut spec: ServiceSpec) {
        let replicas = self.random.random_range(0..=REPLICAS_MAX);
        spec.mode = Some(ServiceMode { mode: Some(Mode::Replicated(Replicated { replicas })) });
        self.change(&format!("scale {} to {replicas}", spec.name), spec).await;
    }

    async fn update(&mut self, mut spec: ServiceSpec) {
        let argument = self.random.random_range(0..1000).to_string();
        let what = format!("update {} to {argument}", spec.name);
        if let Some(container) = &mut spec.container {
            container.args = vec!["serve".into(), argument];
        }
        self.change(&what, spec).await;
    }

    async fn change(&mut self, what: &str, spec: ServiceSpec) {
        let outcome = self
            .call(what, |request_id| {
                Call::UpdateService(UpdateServiceRequest {
                    service: spec.name.clone(),
                    spec: Some(spec.clone()),
                    request_id,
                    ..Default::default()
                })
            })
            .await;
        self.changed(spec, outcome);
    }

    /// Writes down what a service is now.
    fn changed(&self, asked: ServiceSpec, outcome: Outcome) {
        let name = asked.name.clone();
        match outcome {
            Outcome::Done(shown) => {
                if shown.as_ref().map(essence) != Some(essence(&asked)) {
                    let who = format!("c{}", self.number);
                    self.trace.violated(&who, format!("asked {asked:?}, got {shown:?}"));
                }
                self.book.lock().services.insert(name, (asked, Certainty::Known));
            }
            Outcome::Refused { status, .. } => self.unexpected(&status),
        }
    }

    async fn remove_service(&mut self, name: String) {
        let outcome = self
            .call(&format!("remove service {name}"), |request_id| {
                Call::RemoveService(RemoveServiceRequest { service: name.clone(), request_id })
            })
            .await;
        match outcome {
            Outcome::Done(_) => drop(self.book.lock().services.remove(&name)),
            Outcome::Refused { status, .. } => self.unexpected(&status),
        }
    }

    /// A read sees every write that was acknowledged before it.
    async fn get(&mut self, name: String, spec: &ServiceSpec) {
        let outcome = self
            .call(&format!("get service {name}"), |_| {
                Call::GetService(GetServiceRequest { service: name.clone() })
            })
            .await;
        let who = format!("c{}", self.number);
        match outcome {
            Outcome::Done(Some(shown)) if essence(&shown) == essence(spec) => {}
            Outcome::Done(shown) => {
                self.trace.violated(&who, format!("wrote {spec:?}, read {shown:?}"));
            }
            Outcome::Refused { status, .. } => self.unexpected(&status),
        }
    }

    /// Tries until it is known what came of the call.
    async fn call(&mut self, what: &str, body: impl Fn(String) -> Call) -> Outcome {
        self.calls += 1;
        let request = format!("client-{:04}-call-{:06}", self.number, self.calls);
        self.note(format!("{what}?"));
        let mut tries = 0;
        loop {
            tries += 1;
            let manager = self.random.random_range(1..=MANAGERS);
            match self.attempt(manager, body(request.clone())).await {
                Some(Ok(shown)) => {
                    self.note(format!("{what}: done, tries {tries}"));
                    self.count(tries, |entries| entries.acknowledged += 1);
                    return Outcome::Done(shown);
                }
                Some(Err(status)) if !is_open(status.code()) => {
                    self.note(format!("{what}: refused, tries {tries}: {}", status.message()));
                    self.count(tries, |entries| entries.refused += 1);
                    return Outcome::Refused { status, tries };
                }
                Some(Err(_)) | None => tokio::time::sleep(RETRY).await,
            }
        }
    }

    fn count(&self, tries: u32, count: impl FnOnce(&mut Entries)) {
        let mut entries = self.book.lock();
        entries.retried += u64::from(tries > 1);
        count(&mut entries);
    }

    async fn attempt(&self, manager: HostId, body: Call) -> Option<Reply> {
        let parcel = |call| Parcel::Api { call, client: CLIENTS, hops: 0, body };
        match self.net.ask(CLIENTS, manager, parcel).answer(PATIENCE).await {
            Some(Answer::Api(reply)) => Some(reply),
            Some(Answer::Raft(_) | Answer::Taken | Answer::Refused) | None => None,
        }
    }

    fn unexpected(&self, status: &Status) {
        let who = format!("c{}", self.number);
        self.trace.violated(&who, format!("refused: {}", status.message()));
    }

    fn note(&self, what: impl std::fmt::Display) {
        self.trace.note(&format!("c{}", self.number), what);
    }
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
