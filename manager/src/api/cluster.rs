//! The replicated half of `ClusterService`. The daemon implements the service, as the other half is
//! about the node itself, and hands these calls on; the gate brings them to the leader as all others.

use std::{sync::Arc, time::Duration};

use sha2::{Digest as _, Sha256};
use tonic::{Code, Status};
use weft_model::{
    Command, State, Time,
    object::{ClientCertificate, ExtraToken, SERIALS_BETWEEN, Secret},
    spec::{Invalid, Role, escape},
};
use weft_proto::{
    convert::{
        cluster::{cluster as to_wire, spec, spec_of_update},
        node::role_of,
        status::{hinted, invalid},
        value::{span, timestamp},
    },
    tls,
    v1::{
        ClientCertificateInfo, ClientCertificateRequest, ClientCertificateResponse, InfoResponse,
        InspectClusterResponse, JoinTokenRequest, JoinTokenResponse,
        ListClientCertificatesResponse, RaftHealth, RevokeClientCertificateRequest,
        RevokeClientCertificateResponse, UpdateClusterRequest, UpdateClusterResponse,
    },
};

use super::{networks::cluster, resolve::NAME_SHOWN};
use crate::{
    ca::{Authority, IssueError, Subject, join_token, new_secret},
    clock::{model_time, system_time},
    dispatcher::managers,
    ids::IdSource,
    manager::{Manager, named},
    store::{Member, Status as StoreStatus},
};

/// Life of a client's certificate that asks for none.
const CLIENT_TTL: Duration = Duration::from_secs(24 * 3600);
/// Longest life of a client's certificate.
const CLIENT_TTL_MAX: Duration = Duration::from_secs(400 * 24 * 3600);

/// The cluster and its settings.
pub async fn inspect(manager: &Manager) -> Result<InspectClusterResponse, Status> {
    let state = manager.current().await?;
    Ok(InspectClusterResponse { cluster: Some(to_wire(&*cluster(&state)?)) })
}

/// Changes the settings that can be changed.
pub async fn update(
    manager: &Manager,
    request: UpdateClusterRequest,
) -> Result<UpdateClusterResponse, Status> {
    let choice = |state: &State, _: &mut dyn IdSource| {
        let present = &cluster(state)?.spec;
        let spec = spec_of_update(present, &request).map_err(|error| invalid(&error))?;
        let expect = (request.version != 0).then_some(request.version);
        Ok(Command::UpdateCluster { expect, spec })
    };
    let (_, state) = manager.decide(named(&request)?, choice).await?;
    Ok(UpdateClusterResponse { cluster: Some(to_wire(&*cluster(&state)?)) })
}

/// The standing token of a role, a new one in its place, or an extra one that expires.
pub async fn token(
    manager: &Manager,
    request: JoinTokenRequest,
) -> Result<JoinTokenResponse, Status> {
    let needed = || invalid(&Invalid::new("role", "", "must be worker or manager"));
    let role = role_of(request.role).map_err(|error| invalid(&error))?.ok_or_else(needed)?;
    let ttl = span("--ttl", request.ttl.as_ref()).map_err(|error| invalid(&error))?;
    let extra = ttl.is_some() || request.uses > 0;
    if extra && request.rotate {
        let reason = "rotates the standing token, and an extra one is minted with --ttl or --uses";
        return Err(invalid(&Invalid::new("--rotate", "true", reason)));
    }
    let state = manager.current().await?;
    if extra {
        return mint(manager, role, ttl, &request).await;
    }
    if request.rotate {
        let secret = new_secret();
        let choice = |_: &State, _: &mut dyn IdSource| Ok(Command::RotateToken { role, secret });
        let (_, state) = manager.decide(named(&request)?, choice).await?;
        // Of two rotations with one request ID only the first has happened: what stands counts.
        return answer(manager, &state, standing(&state, role)?, None);
    }
    answer(manager, &state, standing(&state, role)?, None)
}

async fn mint(
    manager: &Manager,
    role: Role,
    ttl: Option<Duration>,
    request: &JoinTokenRequest,
) -> Result<JoinTokenResponse, Status> {
    let secret = minted_secret(&*manager.current().await?, &request.request_id)?;
    let expires = ttl.map(|ttl| manager.core.clock.now() + ttl);
    let uses = (request.uses > 0).then_some(request.uses);
    let token = ExtraToken { secret, role, expires, uses };
    let choice = |_: &State, _: &mut dyn IdSource| Ok(Command::MintToken { token: token.clone() });
    let (_, state) = manager.decide(named(request)?, choice).await?;
    let minted = cluster(&state)?;
    // A retry gets the token of the first call, with its end.
    let found = minted.tokens.extra.iter().find(|extra| extra.secret == secret);
    let expires = found.map_or(expires, |found| found.expires);
    answer(manager, &state, secret, expires)
}

/// The secret of a new token. That of a named call follows from its name and from the root's key,
/// which only managers have, so that a retry gets the token of the first call.
fn minted_secret(state: &State, request_id: &str) -> Result<Secret, Status> {
    if request_id.is_empty() {
        return Ok(new_secret());
    }
    let key = &cluster(state)?.root_key;
    let digest = Sha256::new()
        .chain_update(b"weft join token\0")
        .chain_update(Sha256::digest(key.as_bytes()))
        .chain_update(request_id.as_bytes())
        .finalize();
    let mut secret = Secret::default();
    secret.copy_from_slice(&digest[..size_of::<Secret>()]);
    Ok(secret)
}

fn standing(state: &State, role: Role) -> Result<Secret, Status> {
    let cluster = cluster(state)?;
    Ok(match role {
        Role::Worker => cluster.tokens.worker,
        Role::Manager => cluster.tokens.manager,
    })
}

fn answer(
    manager: &Manager,
    state: &State,
    secret: Secret,
    expires: Option<Time>,
) -> Result<JoinTokenResponse, Status> {
    let own = state.node(manager.node());
    Ok(JoinTokenResponse {
        token: join_token(&cluster(state)?.root_certificate, secret).to_string(),
        addr: own.map(|node| node.description.address.to_string()).unwrap_or_default(),
        expires_at: expires.map(timestamp),
    })
}

/// Signs a certificate for a client of the API. Who may ask for one is decided by the gate.
pub async fn client_certificate(
    manager: &Manager,
    request: ClientCertificateRequest,
) -> Result<ClientCertificateResponse, Status> {
    let ttl = span("--ttl", request.ttl.as_ref()).map_err(|error| invalid(&error))?;
    let ttl = ttl.unwrap_or(CLIENT_TTL);
    if ttl > CLIENT_TTL_MAX {
        let value = format!("{} s", ttl.as_secs());
        return Err(invalid(&Invalid::new("--ttl", value, "at most 400 days")));
    }
    let state = manager.current().await?;
    let subject = Subject { role: tls::Role::Client, node_id: request.name };
    let authority = authority(&state)?;
    let now = system_time(manager.core.clock.now());
    let issued = authority.sign_csr(&request.csr, &subject, ttl, now);
    let issued = issued.map_err(|error| not_signed(&error))?;
    // Nobody has it before all managers know how to take it back.
    let certificate = ClientCertificate {
        serial: issued.peer.serial.clone(),
        name: issued.peer.node_id.clone(),
        issued: manager.core.clock.now(),
        expires: model_time(issued.peer.not_after),
        revoked: None,
    };
    manager.core.write(vec![Command::NoteClient { certificate }]).await?;
    Ok(ClientCertificateResponse {
        certificate: issued.chain_pem,
        root_certificate: authority.root_pem().to_owned(),
        expires_at: Some(timestamp(model_time(issued.peer.not_after))),
    })
}

/// The certificates of clients that have not expired.
pub async fn list_clients(manager: &Manager) -> Result<ListClientCertificatesResponse, Status> {
    let state = manager.current().await?;
    let now = manager.core.clock.now();
    let mut noted: Vec<_> = state.clients().filter(|noted| noted.expires > now).collect();
    noted.sort_by(|a, b| (&a.name, a.issued, &a.serial).cmp(&(&b.name, b.issued, &b.serial)));
    let certificates = noted.into_iter().map(|noted| ClientCertificateInfo {
        name: noted.name.clone(),
        serial: noted.serial.clone(),
        issued_at: Some(timestamp(noted.issued)),
        expires_at: Some(timestamp(noted.expires)),
        revoked_at: noted.revoked.map(timestamp),
    });
    Ok(ListClientCertificatesResponse { certificates: certificates.collect() })
}

/// Takes the force of one certificate, or of all that a client has.
pub async fn revoke_client(
    manager: &Manager,
    request: RevokeClientCertificateRequest,
) -> Result<RevokeClientCertificateResponse, Status> {
    let name = named(&request)?;
    let choice = |state: &State, _: &mut dyn IdSource| {
        let serials = revoked_by(state, &request.certificate)?;
        Ok(Command::RevokeClient { serials })
    };
    let (serials, _) = manager.decide(name, choice).await?;
    let serials = serials.split(SERIALS_BETWEEN).map(str::to_owned).collect();
    Ok(RevokeClientCertificateResponse { serials })
}

/// Serial numbers of those that `text` names and that are in force.
fn revoked_by(state: &State, text: &str) -> Result<Vec<String>, Status> {
    let known = |noted: &&Arc<ClientCertificate>| noted.serial == text || noted.name == text;
    let mut known = state.clients().filter(known).peekable();
    if known.peek().is_none() {
        let message = format!("no such client certificate: {}", escape(text, NAME_SHOWN));
        let hint = "see what there is: weft cluster client-cert --ls";
        return Err(hinted(Code::NotFound, message, Some(hint)));
    }
    let in_force = known.filter(|noted| noted.revoked.is_none());
    let serials: Vec<_> = in_force.map(|noted| noted.serial.clone()).collect();
    if serials.is_empty() {
        let message = format!("client certificate {} is revoked already", escape(text, NAME_SHOWN));
        return Err(hinted(Code::FailedPrecondition, message, None));
    }
    Ok(serials)
}

/// The cluster's authority, as the state holds it.
pub(crate) fn authority(state: &State) -> Result<Authority, Status> {
    let cluster = cluster(state)?;
    Authority::from_pem(&cluster.root_certificate, &cluster.root_key)
        .map_err(|error| Status::internal(format!("the cluster's root cannot be used: {error}")))
}

/// Why a certificate was not signed.
pub(crate) fn not_signed(error: &IssueError) -> Status {
    let source = std::error::Error::source(error);
    let message = source.map_or_else(|| error.to_string(), |source| format!("{error}: {source}"));
    match error {
        IssueError::Csr(_) | IssueError::Id | IssueError::Validity { .. } => {
            hinted(Code::InvalidArgument, message, None)
        }
        IssueError::RootEnds => hinted(Code::FailedPrecondition, message, None),
        IssueError::Sign(_) | IssueError::Unusable(_) => Status::internal(message),
    }
}

/// What a manager adds to its daemon's answer to `Info`: the cluster, its managers and Raft's
/// health, all as this manager has them now.
pub fn describe(manager: &Manager, info: &mut InfoResponse) {
    let (state, status) = (manager.view(), manager.store().status());
    let managers = managers(&state);
    info.cluster_active = true;
    info.is_manager = true;
    info.node_id = manager.node().to_string();
    info.cluster_id = manager.cluster().to_string();
    info.manager_count = u32::try_from(managers.len()).unwrap_or(u32::MAX);
    info.node_count = u32::try_from(state.nodes().count()).unwrap_or(u32::MAX);
    info.managers = managers.into_iter().map(|(_, _, address)| address).collect();
    info.cluster = state.cluster().map(|cluster| spec(&cluster.spec));
    if let Some(refusal) = &status.condemned {
        info.warnings.push(format!("this manager does not take part any more: {refusal}"));
    }
    info.raft = Some(raft_health(&status));
}

fn raft_health(status: &StoreStatus) -> RaftHealth {
    let addresses =
        |members: &[Member]| members.iter().map(|member| member.address.clone()).collect();
    let leader = status.leadership.leader.as_ref();
    RaftHealth {
        term: status.leadership.term,
        last_log: status.last_log,
        committed: status.committed,
        applied: status.applied,
        snapshot: status.snapshot,
        leader: leader.map(|leader| leader.address.clone()).unwrap_or_default(),
        voters: addresses(&status.voters),
        learners: addresses(&status.learners),
    }
}
