//! Who may call what: every method of the schema times every kind of caller, through the gate itself.

#![allow(clippy::unwrap_used)]

#[path = "api/support.rs"]
#[allow(dead_code)]
mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwapOption;
use http::{Request, Response};
use prost_types::FileDescriptorSet;
use tonic::{Code, Status, body::Body};
use tower::{Layer as _, Service as _};
use weft_manager::{
    ca::authority::BACKDATE,
    clock::{Clock as _, SystemClock},
    gate::{Credential, Denied, Gate, Holder, Outlook, Place, RULES, Shape, admit, rule_of},
};
use weft_model::{
    AttachmentId, Command, NetworkId, NodeId, Proposal, State, Subnet, Time,
    command::{Force, NewForeign, NewNode},
    object::{ClientCertificate, NodeState, Secret},
    spec::{NetworkSpec, NodeSpec, Role},
};
use weft_proto::Message as _;
use weft_proto::{
    convert::status::hint_of,
    tls::{self, ConnectionInfo, Peer, UnixConnected},
    v1,
};

use support::{Node, describe};

/// Serial number of a client's certificate that was revoked.
const REVOKED: &str = "2";

/// Every method that is served: ours, and those of the two standard services.
fn methods() -> BTreeSet<(String, Shape)> {
    let sets = [
        v1::FILE_DESCRIPTOR_SET,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ];
    let files = sets.iter().flat_map(|set| FileDescriptorSet::decode(*set).unwrap().file);
    let mut methods = BTreeSet::new();
    for file in files {
        for service in &file.service {
            for method in &service.method {
                let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                let streams = method.client_streaming() || method.server_streaming();
                methods.insert((path, if streams { Shape::Stream } else { Shape::Call }));
            }
        }
    }
    methods
}

/// Who may call it, written down a second time: L an administrator on the unix socket, M a manager,
/// W a worker, R a node that was removed and still holds something, C a client certificate, A nobody
/// known.
fn allowed(path: &str) -> &'static str {
    let (service, method) = path[1..].split_once('/').unwrap();
    match (service, method) {
        ("weft.v1.ClusterService", "Init" | "Join" | "Leave")
        | (
            "weft.v1.ContainerService"
            | "weft.v1.AttachmentService"
            | "weft.v1.LocalNetworkService",
            _,
        )
        | ("weft.v1.AgentService", "Doctor") => "L",
        ("weft.v1.JoinService", "RenewExpiredCertificate") => "MWA",
        ("weft.v1.DispatcherService", "Leave") => "MWR",
        ("weft.v1.JoinService", "RenewCertificate") | ("weft.v1.DispatcherService", _) => "MW",
        ("weft.v1.JoinService", _) => "LMWCA",
        ("weft.v1.RaftService" | "weft.v1.AgentService", _) => "M",
        ("grpc.health.v1.Health", _) => "LMWC",
        _ => "LMC",
    }
}

#[test]
fn the_table_has_every_method_and_no_other() {
    let rules: BTreeSet<_> = RULES.iter().map(|rule| (rule.path.to_owned(), rule.shape)).collect();
    assert_eq!(rules.len(), RULES.len(), "a method has two rules");
    assert_eq!(rules, methods());
}

/// A manager with members of every kind, and what they show.
struct Cast {
    node: Node,
    worker: NodeId,
    manager: NodeId,
    demoted: NodeId,
    promoted: NodeId,
    removed: NodeId,
    holding: NodeId,
}

impl Cast {
    async fn new() -> Self {
        let node = Node::first().await;
        let state = node.manager().view();
        let tokens = state.cluster().unwrap().tokens.clone();
        let mut cast = Self {
            node,
            worker: NodeId::from_bytes([1; 32]),
            manager: NodeId::from_bytes([2; 32]),
            demoted: NodeId::from_bytes([3; 32]),
            promoted: NodeId::from_bytes([4; 32]),
            removed: NodeId::from_bytes([5; 32]),
            holding: NodeId::from_bytes([6; 32]),
        };
        cast.add(cast.worker, Role::Worker, tokens.worker, 1).await;
        cast.add(cast.manager, Role::Manager, tokens.manager, 2).await;
        cast.add(cast.demoted, Role::Manager, tokens.manager, 3).await;
        cast.add(cast.promoted, Role::Worker, tokens.worker, 4).await;
        cast.add(cast.removed, Role::Worker, tokens.worker, 5).await;
        cast.set_role(cast.demoted, Role::Worker).await;
        cast.set_role(cast.promoted, Role::Manager).await;
        cast.write(Command::RemoveNode { id: cast.removed, force: Force::Yes }).await;
        let now = SystemClock.now();
        for serial in ["1", REVOKED] {
            let certificate = ClientCertificate {
                serial: serial.into(),
                name: "alice".into(),
                issued: now,
                expires: now + Duration::from_secs(3600),
                revoked: None,
            };
            cast.write(Command::NoteClient { certificate }).await;
        }
        cast.write(Command::RevokeClient { serials: vec![REVOKED.into()] }).await;
        cast.add(cast.holding, Role::Worker, tokens.worker, 6).await;
        cast.remove_while_it_holds(cast.holding).await;
        cast
    }

    async fn add(&mut self, id: NodeId, role: Role, secret: Secret, port: u16) {
        let description = describe("n", ([127, 0, 0, 1], port).into());
        let spec = NodeSpec { role, ..NodeSpec::default() };
        self.write(Command::AddNode { node: NewNode { id, spec, description }, secret }).await;
    }

    /// Removes a node that is away and has an attachment.
    async fn remove_while_it_holds(&self, id: NodeId) {
        let network = NetworkId::from_bytes([1; 32]);
        let mut spec = NetworkSpec::overlay("open");
        spec.attachable = true;
        let range = "10.0.1.0/24".parse().unwrap();
        let subnet = Subnet {
            cidr: range,
            gateway: "10.0.1.1".parse().unwrap(),
            range,
            auxiliary: BTreeMap::default(),
            cursor: None,
            resting: BTreeMap::default(),
        };
        let (vni, subnets) = (Some(65_536), vec![subnet]);
        self.write(Command::CreateNetwork { id: network, spec, vni, subnets }).await;
        let foreign = NewForeign {
            id: AttachmentId::from_bytes([1; 32]),
            network,
            node: id,
            name: "probe".into(),
            aliases: Vec::new(),
            service: None,
            addresses: vec!["10.0.1.9".parse().unwrap()],
        };
        self.write(Command::AttachForeign { foreign }).await;
        let message = "not heard of".to_owned();
        self.write(Command::SetNodeState { id, state: NodeState::Down, message }).await;
        self.write(Command::RemoveNode { id, force: Force::No }).await;
    }

    async fn set_role(&self, id: NodeId, role: Role) {
        let spec = NodeSpec { role, ..NodeSpec::default() };
        self.write(Command::UpdateNode { id, expect: None, spec }).await;
    }

    async fn write(&self, command: Command) {
        let now = SystemClock.now();
        let proposal = Proposal { request: None, now, commands: vec![command] };
        let (_, outcome) = self.node.manager().store().propose(proposal).await.unwrap();
        outcome.into_result().unwrap();
    }

    /// A certificate that was signed an hour ago.
    fn certificate(&self, role: tls::Role, name: impl ToString) -> Peer {
        let issued = SystemTime::now() - Duration::from_secs(3600);
        Peer {
            role,
            node_id: name.to_string(),
            cluster_id: self.node.cluster.to_string(),
            serial: "1".into(),
            not_before: issued - BACKDATE,
            not_after: issued + Duration::from_secs(86_400),
        }
    }

    /// Every kind of caller with the letter it counts for; `-` is nobody.
    fn callers(&self) -> Vec<(&'static str, char, Option<Peer>)> {
        use tls::Role::{Client, Manager, Worker};
        let foreign = |mut peer: Peer| {
            peer.cluster_id = "f".repeat(64);
            Some(peer)
        };
        let some = |role, id: &NodeId| Some(self.certificate(role, id));
        vec![
            ("local", 'L', None),
            ("anonymous", 'A', None),
            ("worker", 'W', some(Worker, &self.worker)),
            ("manager", 'M', some(Manager, &self.manager)),
            ("client", 'C', Some(self.certificate(Client, "alice"))),
            (
                "revoked client",
                '-',
                Some(Peer { serial: REVOKED.into(), ..self.certificate(Client, "alice") }),
            ),
            ("removed", '-', some(Worker, &self.removed)),
            ("removed, and holding an address", 'R', some(Worker, &self.holding)),
            ("unknown manager", '-', some(Manager, &NodeId::from_bytes([9; 32]))),
            ("manager of another cluster", '-', foreign(self.certificate(Manager, self.manager))),
            ("client of another cluster", '-', foreign(self.certificate(Client, "alice"))),
            ("demoted, with the certificate of before", 'W', some(Manager, &self.demoted)),
            ("worker with a manager's certificate", 'W', some(Manager, &self.worker)),
            ("promoted, with the certificate of before", 'W', some(Worker, &self.promoted)),
            ("no node at all", '-', Some(self.certificate(Manager, "alice"))),
        ]
    }
}

/// Sends an empty request through the gate; the service behind it answers with a header.
async fn reach(gate: &Gate, path: &str, letter: char, peer: Option<Peer>) -> Result<(), Status> {
    let inner = tower::service_fn(|_request: Request<Body>| async {
        let response = Response::builder().header("reached", "yes").body(Body::empty());
        Ok::<_, Infallible>(response.unwrap())
    });
    let mut request = Request::builder().uri(path).body(Body::empty()).unwrap();
    if letter == 'L' {
        request.extensions_mut().insert(UnixConnected { uid: 0, gid: 0, pid: None });
    } else {
        let remote = "192.0.2.9:1".parse().unwrap();
        request.extensions_mut().insert(ConnectionInfo { peer, remote });
    }
    let response = gate.layer(inner).call(request).await.unwrap();
    if response.headers().contains_key("reached") {
        return Ok(());
    }
    Err(Status::from_header_map(response.headers()).expect("a status"))
}

#[tokio::test]
async fn every_cell_of_the_table_holds() {
    let cast = Cast::new().await;
    let gate = Gate::new(cast.node.slot.clone(), Arc::new(Outlook::default));
    let callers = cast.callers();
    let mut wrong = Vec::new();
    for rule in RULES {
        for (name, letter, peer) in &callers {
            let expected = allowed(rule.path).contains(*letter);
            let denied =
                if *letter == 'A' { Code::Unauthenticated } else { Code::PermissionDenied };
            match (reach(&gate, rule.path, *letter, peer.clone()).await, expected) {
                (Ok(()), true) => {}
                (Err(status), false) if status.code() == denied => {}
                (found, _) => wrong.push((rule.path, *name, expected, found)),
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let unknown = reach(&gate, "/weft.v1.NodeService/Drop", 'L', None).await.unwrap_err();
    assert_eq!(unknown.code(), Code::Unimplemented);
}

#[tokio::test]
async fn a_node_that_is_no_manager_says_where_to_go() {
    let ask = async |outlook: Outlook| {
        let slot = Arc::new(ArcSwapOption::empty());
        let gate = Gate::new(slot, Arc::new(move || outlook.clone()));
        for rule in RULES.iter().filter(|rule| rule.place == Place::Node) {
            assert_eq!(
                reach(&gate, rule.path, 'L', None).await.is_ok(),
                allowed(rule.path).contains('L'),
                "{}",
                rule.path
            );
        }
        let status = reach(&gate, "/weft.v1.NodeService/List", 'L', None).await.unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition);
        (status.message().to_owned(), hint_of(&status).unwrap())
    };
    let (what, hint) = ask(Outlook::default()).await;
    assert_eq!(what, "this node is not part of a cluster");
    assert!(hint.contains("weft cluster init"), "{hint}");
    let cluster = Some("c".to_owned());
    let (what, hint) = ask(Outlook { cluster, managers: vec!["10.0.0.1:2377".into()] }).await;
    assert_eq!(what, "this node is not a manager");
    assert!(hint.contains("10.0.0.1:2377"), "{hint}");
}

#[tokio::test]
async fn a_state_that_is_older_than_a_certificate_turns_nobody_away() {
    let cast = Cast::new().await;
    let state = State::clone(&cast.node.manager().view());
    let cluster = cast.node.cluster.to_string();
    let raft = rule_of("/weft.v1.RaftService/Call").unwrap();
    let show = |holder, id: NodeId, issued| Credential::Certificate {
        holder,
        name: id.to_string(),
        cluster: cluster.clone(),
        issued,
        serial: String::new(),
    };
    let later = state.now() + Duration::from_secs(1);
    let judge = |credential: &Credential| admit(raft, credential, Some(&cluster), Some(&state));
    let unknown = NodeId::from_bytes([9; 32]);
    let not_member = Err(Denied::NotMember { node: unknown.to_string() });
    assert!(judge(&show(Holder::Manager, unknown, later)).is_ok());
    assert_eq!(judge(&show(Holder::Manager, unknown, state.now())), not_member);
    // Promoted later than this state knows; and demoted, with a certificate of before.
    assert!(judge(&show(Holder::Manager, cast.worker, later)).is_ok());
    assert!(judge(&show(Holder::Manager, cast.demoted, Time(0))).is_err());
    // A manager that waits to be let in has no state at all.
    let empty = State::default();
    let credential = show(Holder::Manager, unknown, Time(0));
    assert!(admit(raft, &credential, Some(&cluster), Some(&empty)).is_ok());
}
