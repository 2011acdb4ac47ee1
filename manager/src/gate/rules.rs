//! The one table of what who may call, and where it is answered.

use super::Caller;

/// A set of callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Callers(u8);

impl Callers {
    /// Administrators of the node asked.
    pub const LOCAL: Self = Self(1);
    /// Nodes that are managers.
    pub const MANAGER: Self = Self(2);
    /// Nodes that are not.
    pub const WORKER: Self = Self(4);
    /// Holders of client certificates.
    pub const CLIENT: Self = Self(8);
    /// Callers without a certificate.
    pub const ANONYMOUS: Self = Self(16);
    /// Nodes that were removed and have not yet said that nothing is left.
    pub const REMOVED: Self = Self(32);
    /// Whoever may use the API.
    pub const API: Self = Self(Self::LOCAL.0 | Self::MANAGER.0 | Self::CLIENT.0);
    /// Every member.
    pub const NODE: Self = Self(Self::MANAGER.0 | Self::WORKER.0);
    /// Members, and those who were.
    pub const NODE_OR_REMOVED: Self = Self(Self::NODE.0 | Self::REMOVED.0);
    /// Members, and those who are about to prove that they are.
    pub const NODE_TO_BE: Self = Self(Self::NODE.0 | Self::ANONYMOUS.0);
    /// All that are not turned away for what they are.
    pub const ALL: Self = Self(Self::API.0 | Self::NODE.0 | Self::ANONYMOUS.0);
    /// Everybody that the cluster knows.
    pub const KNOWN: Self = Self(Self::API.0 | Self::NODE.0);

    /// Whether the caller is in the set.
    pub fn admit(self, caller: &Caller) -> bool {
        let one = match caller {
            Caller::Local => Self::LOCAL,
            Caller::Manager(_) => Self::MANAGER,
            Caller::Worker(_) => Self::WORKER,
            Caller::Removed(_) => Self::REMOVED,
            Caller::Client(_) => Self::CLIENT,
            Caller::Anonymous => Self::ANONYMOUS,
        };
        self.0 & one.0 != 0
    }
}

/// Where a call is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// By the node asked, manager or not.
    Node,
    /// By the manager asked.
    Manager,
    /// By the leader, whichever manager was asked.
    Leader,
}

/// How long a call lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shape {
    /// One question and one answer.
    Call,
    /// Until somebody ends it; ended when the caller's standing does.
    Stream,
}

/// What holds for one method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// As HTTP/2 has it: `/weft.v1.NodeService/List`.
    pub path: &'static str,
    /// Who may call it.
    pub callers: Callers,
    /// Where it is answered.
    pub place: Place,
    /// How long it lasts.
    pub shape: Shape,
}

const fn call(path: &'static str, callers: Callers, place: Place) -> Rule {
    Rule { path, callers, place, shape: Shape::Call }
}

const fn stream(path: &'static str, callers: Callers, place: Place) -> Rule {
    Rule { path, callers, place, shape: Shape::Stream }
}

use Place::{Leader, Manager, Node};

/// Every method there is.
pub const RULES: &[Rule] = &[
    call("/weft.v1.ClusterService/Init", Callers::LOCAL, Node),
    call("/weft.v1.ClusterService/Join", Callers::LOCAL, Node),
    call("/weft.v1.ClusterService/Leave", Callers::LOCAL, Node),
    call("/weft.v1.ClusterService/Info", Callers::API, Node),
    call("/weft.v1.ClusterService/Inspect", Callers::API, Leader),
    call("/weft.v1.ClusterService/Update", Callers::API, Leader),
    call("/weft.v1.ClusterService/JoinToken", Callers::API, Leader),
    call("/weft.v1.ClusterService/ClientCertificate", Callers::API, Leader),
    call("/weft.v1.ClusterService/ListClientCertificates", Callers::API, Leader),
    call("/weft.v1.ClusterService/RevokeClientCertificate", Callers::API, Leader),
    call("/weft.v1.NodeService/List", Callers::API, Leader),
    call("/weft.v1.NodeService/Get", Callers::API, Leader),
    call("/weft.v1.NodeService/Update", Callers::API, Leader),
    call("/weft.v1.NodeService/Remove", Callers::API, Leader),
    call("/weft.v1.NodeService/RotateKey", Callers::API, Leader),
    call("/weft.v1.NodeService/Links", Callers::API, Leader),
    call("/weft.v1.NetworkService/Create", Callers::API, Leader),
    call("/weft.v1.NetworkService/List", Callers::API, Leader),
    call("/weft.v1.NetworkService/Get", Callers::API, Leader),
    call("/weft.v1.NetworkService/Remove", Callers::API, Leader),
    call("/weft.v1.NetworkService/Prune", Callers::API, Leader),
    call("/weft.v1.ServiceService/Create", Callers::API, Leader),
    call("/weft.v1.ServiceService/List", Callers::API, Leader),
    call("/weft.v1.ServiceService/Get", Callers::API, Leader),
    call("/weft.v1.ServiceService/Update", Callers::API, Leader),
    call("/weft.v1.ServiceService/Rollback", Callers::API, Leader),
    call("/weft.v1.ServiceService/Remove", Callers::API, Leader),
    stream("/weft.v1.ServiceService/Logs", Callers::API, Leader),
    call("/weft.v1.TaskService/List", Callers::API, Leader),
    call("/weft.v1.TaskService/Get", Callers::API, Leader),
    // Every manager has the changes, and a watch that stays where it is outlives an election.
    stream("/weft.v1.WatchService/Watch", Callers::API, Leader),
    call("/weft.v1.ContainerService/List", Callers::LOCAL, Node),
    call("/weft.v1.ContainerService/Get", Callers::LOCAL, Node),
    stream("/weft.v1.ContainerService/Logs", Callers::LOCAL, Node),
    call("/weft.v1.ContainerService/Stop", Callers::LOCAL, Node),
    call("/weft.v1.ContainerService/Kill", Callers::LOCAL, Node),
    stream("/weft.v1.ContainerService/Exec", Callers::LOCAL, Node),
    call("/weft.v1.ContainerService/Create", Callers::LOCAL, Node),
    call("/weft.v1.ContainerService/Start", Callers::LOCAL, Node),
    call("/weft.v1.ContainerService/Restart", Callers::LOCAL, Node),
    call("/weft.v1.ContainerService/Remove", Callers::LOCAL, Node),
    // It lasts as long as the container, and tells only of what this node's administrators own.
    call("/weft.v1.ContainerService/Wait", Callers::LOCAL, Node),
    stream("/weft.v1.ContainerService/Attach", Callers::LOCAL, Node),
    call("/weft.v1.ContainerService/Prune", Callers::LOCAL, Node),
    call("/weft.v1.ContainerService/ConnectPair", Callers::LOCAL, Node),
    call("/weft.v1.LocalNetworkService/Create", Callers::LOCAL, Node),
    call("/weft.v1.LocalNetworkService/List", Callers::LOCAL, Node),
    call("/weft.v1.LocalNetworkService/Get", Callers::LOCAL, Node),
    call("/weft.v1.LocalNetworkService/Remove", Callers::LOCAL, Node),
    call("/weft.v1.LocalNetworkService/Prune", Callers::LOCAL, Node),
    call("/weft.v1.LocalNetworkService/ConnectContainer", Callers::LOCAL, Node),
    call("/weft.v1.LocalNetworkService/DisconnectContainer", Callers::LOCAL, Node),
    call("/weft.v1.AttachmentService/Attach", Callers::LOCAL, Node),
    call("/weft.v1.AttachmentService/Detach", Callers::LOCAL, Node),
    call("/weft.v1.AttachmentService/List", Callers::LOCAL, Node),
    // The root certificate is no secret: who joins compares its digest with the token's.
    call("/weft.v1.JoinService/RootCertificate", Callers::ALL, Manager),
    // The token is what admits; a certificate of before adds nothing to it.
    call("/weft.v1.JoinService/IssueCertificate", Callers::ALL, Leader),
    call("/weft.v1.JoinService/RenewCertificate", Callers::NODE, Leader),
    // A node whose certificate has expired proves with its key who it is.
    call("/weft.v1.JoinService/RenewExpiredCertificate", Callers::NODE_TO_BE, Leader),
    call("/weft.v1.RaftService/Call", Callers::MANAGER, Manager),
    stream("/weft.v1.DispatcherService/Session", Callers::NODE, Leader),
    // A node that was removed says by it that nothing of the cluster is left there.
    call("/weft.v1.DispatcherService/Leave", Callers::NODE_OR_REMOVED, Leader),
    call("/weft.v1.DispatcherService/AttachForeign", Callers::NODE, Leader),
    call("/weft.v1.DispatcherService/ForeignReady", Callers::NODE, Leader),
    call("/weft.v1.DispatcherService/DetachForeign", Callers::NODE, Leader),
    stream("/weft.v1.AgentService/Logs", Callers::MANAGER, Node),
    call("/weft.v1.AgentService/Links", Callers::MANAGER, Node),
    call("/weft.v1.AgentService/Doctor", Callers::LOCAL, Node),
    call("/grpc.health.v1.Health/Check", Callers::KNOWN, Node),
    stream("/grpc.health.v1.Health/Watch", Callers::KNOWN, Node),
    stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Callers::API, Node),
    stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Callers::API, Node),
];

/// The rule of a method, if there is such a method.
pub fn rule_of(path: &str) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.path == path)
}
