//! The name that a caller gives its write, with a digest of what it asks for: the same name for
//! something else is a mistake of the caller, who must not get the first answer for it.

use sha2::{Digest as _, Sha256};
use tonic::Status;
use weft_model::{Digest, Named};
use weft_proto::Message;
use weft_proto::v1::{
    CreateNetworkRequest, CreateServiceRequest, JoinTokenRequest, PruneNetworksRequest,
    RemoveNetworkRequest, RemoveNodeRequest, RemoveServiceRequest, RevokeClientCertificateRequest,
    RollbackServiceRequest, RotateKeyRequest, UpdateClusterRequest, UpdateNodeRequest,
    UpdateServiceRequest,
};

use super::parse_request_id;

/// A request whose write has a name.
pub(crate) trait Request: Message {
    /// Its kind: two kinds may be of the same bytes.
    const KIND: &str;

    /// The caller's name for it; empty if there is none.
    fn request_id(&self) -> &str;
}

macro_rules! requests {
    ($($request:ident),* $(,)?) => {$(
        impl Request for $request {
            const KIND: &str = stringify!($request);

            fn request_id(&self) -> &str {
                &self.request_id
            }
        }
    )*};
}

requests!(
    CreateNetworkRequest,
    CreateServiceRequest,
    JoinTokenRequest,
    PruneNetworksRequest,
    RemoveNetworkRequest,
    RemoveNodeRequest,
    RemoveServiceRequest,
    RevokeClientCertificateRequest,
    RollbackServiceRequest,
    RotateKeyRequest,
    UpdateClusterRequest,
    UpdateNodeRequest,
    UpdateServiceRequest,
);

/// The name of the write that `request` asks for; none if the caller gave none.
///
/// # Errors
/// `INVALID_ARGUMENT` for a name that is too short, too long, or cannot be printed.
pub(crate) fn named<R: Request>(request: &R) -> Result<Option<Named>, Status> {
    let id = parse_request_id(request.request_id())?;
    // Maps are in order in our messages, so the same request has the same bytes.
    Ok(id.map(|id| Named { id, digest: Some(digest(R::KIND, &request.encode_to_vec())) }))
}

fn digest(kind: &str, bytes: &[u8]) -> Digest {
    let whole = Sha256::new().chain_update(kind).chain_update(b"\0").chain_update(bytes).finalize();
    let mut first = [0; 8];
    first.copy_from_slice(&whole[..8]);
    Digest(u64::from_be_bytes(first))
}

#[cfg(test)]
mod tests {
    use weft_proto::Message as _;

    use super::*;

    #[test]
    fn the_same_request_has_the_same_digest_and_another_one_has_not() {
        let labels: Vec<_> = (0..20).map(|n| (n.to_string(), "x".to_owned())).collect();
        let request = |labels: Vec<(String, String)>| UpdateNodeRequest {
            node: "n1".to_owned(),
            label_add: labels.into_iter().collect(),
            request_id: "0123456789abcdef".to_owned(),
            ..Default::default()
        };
        let first = named(&request(labels.clone())).unwrap();
        let backwards = named(&request(labels.iter().rev().cloned().collect())).unwrap();
        assert_eq!(first, backwards);
        assert_ne!(first, named(&request(labels[1..].to_vec())).unwrap());
        let id = "0123456789abcdef".to_owned();
        let network = RemoveNetworkRequest { network: "a".to_owned(), request_id: id.clone() };
        let service = RemoveServiceRequest { service: "a".to_owned(), request_id: id };
        assert_eq!(network.encode_to_vec(), service.encode_to_vec());
        assert_ne!(named(&network).unwrap(), named(&service).unwrap());
        assert_eq!(named(&RemoveNetworkRequest::default()).unwrap(), None);
    }
}
