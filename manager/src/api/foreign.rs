//! Namespaces of others, as nodes ask to have them on a network.

use std::net::IpAddr;

use tonic::{Code, Status};
use weft_model::{
    AttachmentId, Command, Named, NodeId, State,
    command::NewForeign,
    spec::{Invalid, check_name},
};
use weft_proto::{
    convert::status::{hinted, invalid, refused},
    v1::AttachForeignRequest,
};

use super::resolve;
use crate::{
    gate::Caller,
    ids::IdSource,
    manager::{Manager, parse_request_id},
};

/// Chooses the addresses and writes the attachment down. The ID names the write: a node that asks
/// again gets the first answer.
///
/// # Errors
/// When a field cannot be read, the state refuses, or `caller` may not answer for a service: who may
/// open a worker's socket has no say in the cluster's services.
pub(crate) async fn attach(
    manager: &Manager,
    caller: &Caller,
    node: NodeId,
    request: &AttachForeignRequest,
) -> Result<(), Status> {
    let id = id_of(&request.id)?;
    if !request.service.is_empty() && !matches!(caller, Caller::Manager(_)) {
        return Err(hinted(
            Code::PermissionDenied,
            format!("a {} may not answer for service {}", caller.word(), request.service),
            Some("attach it on a manager, or without --service"),
        ));
    }
    check_name("--name", &request.name).map_err(|error| invalid(&error))?;
    let given = addresses(&request.addresses)?;
    let choice = |state: &State, _: &mut dyn IdSource| {
        let network = resolve::network(state, &request.network)?;
        let service = match request.service.as_str() {
            "" => None,
            name => Some(resolve::service(state, name)?.id),
        };
        let mut foreign = NewForeign {
            id,
            network: network.id,
            node,
            name: request.name.clone(),
            aliases: request.aliases.clone(),
            service,
            addresses: given.clone(),
        };
        // A network that is not attachable is the clearer refusal than one that is full.
        if network.spec.attachable {
            let chosen = state.choose_addresses_beside(network.id, &given);
            foreign.addresses = chosen.map_err(|error| refused(&error))?;
        }
        Ok(Command::AttachForeign { foreign })
    };
    let name = parse_request_id(&request.id)?.map(Named::from);
    manager.decide(name, choice).await.map(drop)
}

/// The ID of an attachment, from the wire.
pub(crate) fn id_of(text: &str) -> Result<AttachmentId, Status> {
    text.parse().map_err(|error| Status::invalid_argument(format!("attachment: {error}")))
}

fn addresses(texts: &[String]) -> Result<Vec<IpAddr>, Status> {
    let parsed = texts.iter().map(|text| {
        text.parse().map_err(|_| invalid(&Invalid::new("--ip", text, "is no address")))
    });
    parsed.collect()
}
