//! Taking nodes in: a token opens the door, the root signs, the log remembers.

use std::net::IpAddr;

use sha2::{Digest as _, Sha256};
use tonic::{Code, Request, Response, Status};
use tracing::{info, warn};
use weft_model::{
    Command, Node, NodeId, Rejected, RequestId, State,
    command::NewNode,
    object::NodeDescription,
    spec::{Invalid, NodeSpec},
};
use weft_proto::{
    convert::{
        node::{availability_of, description_of, role},
        status::{hinted, invalid, refused},
    },
    tls::JoinToken,
    v1::{
        IssueCertificateRequest, IssueCertificateResponse, RenewCertificateRequest,
        RenewCertificateResponse, RenewExpiredCertificateRequest, RootCertificateRequest,
        RootCertificateResponse, join_service_server::JoinService,
    },
};

use crate::{
    api::{Api, caller_of, cluster, origin_of},
    ca::{
        Grant, IssueError, JoinRefused, RefusalReason, Subject, check_token, csr::proven_key,
        prove_member,
    },
    clock::system_time,
    dispatcher::grpc::manager_peer,
    gate::Denied,
    manager::Manager,
};

#[tonic::async_trait]
impl JoinService for Api {
    async fn root_certificate(
        &self,
        _request: Request<RootCertificateRequest>,
    ) -> Result<Response<RootCertificateResponse>, Status> {
        let certificate = self.manager()?.core.identity.current().roots_pem();
        Ok(Response::new(RootCertificateResponse { certificate }))
    }

    async fn issue_certificate(
        &self,
        request: Request<IssueCertificateRequest>,
    ) -> Result<Response<IssueCertificateResponse>, Status> {
        let manager = self.manager()?;
        let source = origin_of(&request)?.source;
        hold_back(&manager, source)?;
        let request = request.into_inner();
        let token: JoinToken = request
            .token
            .parse()
            .map_err(|error| hinted(Code::InvalidArgument, format!("{error}"), None))?;
        let response = take_in(&manager, &token, request, source).await?;
        Ok(Response::new(response))
    }

    async fn renew_certificate(
        &self,
        request: Request<RenewCertificateRequest>,
    ) -> Result<Response<RenewCertificateResponse>, Status> {
        let manager = self.manager()?;
        let id = caller_of(&request)?.node();
        let id = id.ok_or_else(|| Status::permission_denied("only a node renews"))?;
        let state = manager.current().await?;
        let response = renew(&manager, &state, &id.to_string(), &request.get_ref().csr)?;
        Ok(Response::new(response))
    }

    async fn renew_expired_certificate(
        &self,
        request: Request<RenewExpiredCertificateRequest>,
    ) -> Result<Response<RenewCertificateResponse>, Status> {
        let manager = self.manager()?;
        let source = origin_of(&request)?.source;
        let state = manager.current().await?;
        let id = prove(&manager, &state, request.get_ref(), source)?;
        let response = renew(&manager, &state, &id, &request.get_ref().csr)?;
        Ok(Response::new(response))
    }
}

/// A new certificate for a member, with the role it has now.
fn renew(
    manager: &Manager,
    state: &State,
    id: &str,
    csr: &[u8],
) -> Result<RenewCertificateResponse, Status> {
    let member = id.parse().ok().and_then(|id| state.node(id));
    let node = member.ok_or_else(|| Status::from(Denied::NotMember { node: id.to_owned() }))?;
    Ok(RenewCertificateResponse {
        certificate: sign(manager, state, node, csr)?,
        role: role(node.spec.role).into(),
        root_certificate: cluster::authority(state)?.root_pem().to_owned(),
    })
}

/// The ID of the node whose certificate has expired and whose key made the request.
fn prove(
    manager: &Manager,
    state: &State,
    request: &RenewExpiredCertificateRequest,
    source: Option<IpAddr>,
) -> Result<String, Status> {
    hold_back(manager, source)?;
    let roots = cluster::authority(state)?.root_pem().to_owned();
    let proved = prove_member(&roots, &request.certificate, &request.csr);
    proved.map(|peer| peer.node_id).map_err(|error| {
        count_wrong(manager, source);
        let hint = "join the cluster anew: weft cluster join";
        hinted(Code::Unauthenticated, error.to_string(), Some(hint))
    })
}

/// Checks the token, adds the node, and signs its key with the token's role.
async fn take_in(
    manager: &Manager,
    token: &JoinToken,
    request: IssueCertificateRequest,
    source: Option<IpAddr>,
) -> Result<IssueCertificateResponse, Status> {
    let name = name_of(token, &request)?;
    let state = manager.current().await?;
    // A retry of a join that was written finds its node, even if the token was for one use.
    let earlier = state.recorded(&name).cloned().map(weft_model::Outcome::into_result);
    let (id, state) = match earlier {
        Some(Ok(applied)) => (applied.id, state),
        Some(Err(_)) | None => {
            let grant = grant(manager, &state, token, source)?;
            // A key that cannot be signed must not leave a node behind.
            proven_key(&request.csr)
                .map_err(|error| cluster::not_signed(&IssueError::Csr(error)))?;
            let node = new_node(manager, &state, &grant, &request)?;
            let secret = token.secret;
            let add = |_: &State, ids: &mut dyn crate::ids::IdSource| {
                let node = NewNode { id: NodeId::from_bytes(ids.bytes()), ..node.clone() };
                Ok(Command::AddNode { node, secret })
            };
            manager.core.decide(Some(name.into()), add).await?
        }
    };
    let gone = || Status::failed_precondition("the node was removed while it joined");
    let node = id.parse().ok().and_then(|id| state.node(id)).ok_or_else(gone)?;
    // Signed only now: a certificate is never older than what the state says of its node.
    let certificate = sign(manager, &state, node, &request.csr)?;
    info!(node = %node.id.short(), role = node.spec.role.word(), hostname = node.description.hostname, "a node has joined");
    Ok(IssueCertificateResponse {
        certificate,
        node_id: node.id.to_string(),
        cluster_id: manager.cluster().to_string(),
        role: role(node.spec.role).into(),
        number: node.number,
        managers: crate::dispatcher::managers(&state).iter().map(manager_peer).collect(),
    })
}

/// The name of the write: whoever has neither the token nor the key of the first call gets another.
fn name_of(token: &JoinToken, request: &IssueCertificateRequest) -> Result<RequestId, Status> {
    crate::manager::parse_request_id(&request.request_id)?;
    let digest = Sha256::new()
        .chain_update(b"weft join\0")
        .chain_update(token.secret)
        .chain_update(Sha256::digest(&request.csr))
        .chain_update(request.request_id.as_bytes())
        .finalize();
    let text: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    RequestId::new(&text).ok_or_else(|| Status::internal("a digest is a good request ID"))
}

/// What the token gives. A wrong secret counts against the source.
fn grant(
    manager: &Manager,
    state: &State,
    token: &JoinToken,
    source: Option<IpAddr>,
) -> Result<Grant, Status> {
    let missing = || Status::unavailable("the cluster is just being made");
    let cluster = state.cluster().ok_or_else(missing)?;
    let now = manager.core.clock.now().max(state.now());
    check_token(token, &cluster.root_certificate, &cluster.tokens, now).map_err(|error| match error
    {
        JoinRefused::OtherCluster => {
            let hint = "the token names the cluster it is for: use one of this cluster";
            hinted(Code::Unauthenticated, error.to_string(), Some(hint))
        }
        JoinRefused::Secret(reason) => {
            note_wrong(manager, source, reason);
            refused(&Rejected::Token)
        }
    })
}

/// Refuses to look at a token of a source that has shown too many wrong ones.
fn hold_back(manager: &Manager, source: Option<IpAddr>) -> Result<(), Status> {
    // Who calls over the unix socket has no address, and other ways to take part.
    let Some(source) = source else { return Ok(()) };
    let throttle = manager.core.wrong_tokens.lock().expect("no holder panics");
    throttle.wait(source, manager.core.clock.now()).map_or(Ok(()), |wait| {
        let hint = format!("retry in {} ms", wait.as_millis());
        let message = "too many wrong join tokens from this address";
        Err(hinted(Code::ResourceExhausted, message, Some(&hint)))
    })
}

fn note_wrong(manager: &Manager, source: Option<IpAddr>, reason: RefusalReason) {
    if count_wrong(manager, source) {
        warn!(?source, ?reason, "wrong join tokens; further ones of this source are held back");
    }
}

/// Counts a wrong secret or proof; true for the one that is one too many.
fn count_wrong(manager: &Manager, source: Option<IpAddr>) -> bool {
    let mut throttle = manager.core.wrong_tokens.lock().expect("no holder panics");
    source.is_some_and(|source| throttle.failed(source, manager.core.clock.now()))
}

/// The node as it will stand in the state, but for its ID.
fn new_node(
    manager: &Manager,
    state: &State,
    grant: &Grant,
    request: &IssueCertificateRequest,
) -> Result<NewNode, Status> {
    let missing = || Status::invalid_argument("the request has no description of the node");
    let wire = request.description.as_ref().ok_or_else(missing)?;
    let description = description_of(wire).map_err(|error| invalid(&error))?;
    let own = state.node(manager.node()).map(|node| node.description.address.ip());
    check_addresses(&description, own).map_err(|error| invalid(&error))?;
    let availability = availability_of(request.availability).map_err(|error| invalid(&error))?;
    let spec = NodeSpec {
        role: grant.role,
        availability: availability.unwrap_or_default(),
        labels: std::collections::BTreeMap::new(),
    };
    Ok(NewNode { id: NodeId::from_bytes([0; 32]), spec, description })
}

/// Others must be able to reach the node at what it says. A cluster that is itself on the loopback
/// interface is on one machine, and there that is what reaches it.
fn check_addresses(node: &NodeDescription, own: Option<IpAddr>) -> Result<(), Invalid> {
    let one_machine = own.is_some_and(|own| own.is_loopback());
    let checked = [("--advertise-addr", node.address.ip()), ("--data-path-addr", node.data_path)];
    for (field, address) in checked {
        let reason = match address {
            _ if address.is_unspecified() => "is not an address of one machine",
            _ if address.is_multicast() => "is a multicast address",
            _ if address.is_loopback() && !one_machine => "cannot be reached by other machines",
            _ => continue,
        };
        return Err(Invalid::new(field, address, reason).hint("give an address of this machine"));
    }
    Ok(())
}

/// A certificate for the key of the request, with the role that the state gives the node.
fn sign(manager: &Manager, state: &State, node: &Node, csr: &[u8]) -> Result<String, Status> {
    let authority = cluster::authority(state)?;
    let subject = Subject { role: node.spec.role.into(), node_id: node.id.to_string() };
    let expiry = state.cluster().map(|cluster| cluster.spec.certificate_expiry);
    let now = system_time(manager.core.clock.now());
    let issued = authority.sign_csr(csr, &subject, expiry.unwrap_or_default(), now);
    Ok(issued.map_err(|error| cluster::not_signed(&error))?.chain_pem)
}
