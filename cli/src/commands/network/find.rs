//! Which network a word means, where both the node and the cluster may have one.

use tonic::{Code, Status};
use weft_proto::v1;

use super::{Place, in_no_cluster, is_closed};
use crate::{
    client::Client,
    docker::{SHORT_ID, Trunc},
};

/// Looks for a network on the node and in the cluster.
pub async fn find(client: &Client, name: &str) -> Result<(Place, v1::Network), Status> {
    let request = v1::GetNetworkRequest { network: name.to_owned() };
    let own = client.local_networks().get(request.clone()).await;
    let own = own.map(|answer| answer.into_inner().network.unwrap_or_default());
    let shared = match &own {
        // Whether the cluster has one too is worth one question, not a wait.
        Ok(own) if stands_alone(own, name) => {
            client.networks().get(request).await.map(tonic::Response::into_inner)
        }
        Ok(_) | Err(_) => {
            client
                .try_ask(|| {
                    let (mut stub, request) = (client.networks(), request.clone());
                    async move { stub.get(request).await }
                })
                .await
        }
    };
    choose(name, own, shared.map(|answer| answer.network.unwrap_or_default()))
}

/// A whole name or ID of either half counts before the beginning of an ID in the other.
fn choose(
    name: &str,
    own: Result<v1::Network, Status>,
    shared: Result<v1::Network, Status>,
) -> Result<(Place, v1::Network), Status> {
    match (own, shared) {
        (Ok(own), Ok(shared)) => match (is_called(&own, name), is_called(&shared, name)) {
            (true, false) => Ok((Place::Node, own)),
            (false, true) => Ok((Place::Cluster, shared)),
            (true, true) | (false, false) => Err(ambiguous(name, &own, &shared)),
        },
        (Ok(own), Err(shared)) if is_called(&own, name) || is_absent(&shared) => {
            Ok((Place::Node, own))
        }
        (Ok(own), Err(shared))
            if shared.code() == Code::Unavailable && stands_alone(&own, name) =>
        {
            Ok((Place::Node, own))
        }
        // A few digits may be the name of one that only the managers know.
        (Ok(_), Err(shared)) => Err(shared),
        (Err(own), Ok(shared)) if is_called(&shared, name) || is_absent(&own) => {
            Ok((Place::Cluster, shared))
        }
        (Err(own), Ok(_)) => Err(own),
        // The node knows that it has none; what the managers say is worth more than that.
        (Err(own), Err(shared)) if own.code() == Code::NotFound && in_no_cluster(&shared) => {
            Err(own)
        }
        (Err(own), Err(shared)) if is_absent(&own) => Err(shared),
        (Err(own), Err(_)) => Err(own),
    }
}

/// Whether `name` is its whole name or ID.
fn is_called(network: &v1::Network, name: &str) -> bool {
    let own = network.spec.as_ref().map_or("", |spec| &spec.name);
    own.eq_ignore_ascii_case(name) || network.id.eq_ignore_ascii_case(name)
}

/// Whether no manager is needed to know that it is meant: by its whole name, or by as much of its ID
/// as lists show, which is nobody's name by chance.
fn stands_alone(own: &v1::Network, name: &str) -> bool {
    is_called(own, name) || name.len() >= SHORT_ID
}

/// Whether a half has no such network for this caller.
fn is_absent(status: &Status) -> bool {
    status.code() == Code::NotFound || in_no_cluster(status) || is_closed(status)
}

fn ambiguous(name: &str, own: &v1::Network, shared: &v1::Network) -> Status {
    let show = |place: Place, network: &v1::Network| {
        let id = Trunc::Yes.id(&network.id);
        format!("{id} of {}", place.words())
    };
    let (own, shared) = (show(Place::Node, own), show(Place::Cluster, shared));
    Status::failed_precondition(format!("{name} may be {own} or {shared}: name it by ID"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "ab00000000000000000000000000beef";
    const SHARED: &str = "ab11111111111111111111111111beef";

    fn network(name: &str, id: &str) -> v1::Network {
        let spec = v1::NetworkSpec { name: name.to_owned(), ..Default::default() };
        v1::Network { id: id.to_owned(), spec: Some(spec), ..Default::default() }
    }

    fn place(
        name: &str,
        own: Result<v1::Network, Status>,
        shared: Result<v1::Network, Status>,
    ) -> Result<Place, Code> {
        choose(name, own, shared).map(|(place, _)| place).map_err(|status| status.code())
    }

    #[test]
    fn a_whole_name_or_id_of_either_half_counts_before_a_beginning() {
        let own = || Ok(network("shop", OWN));
        let shared = |name: &str| Ok(network(name, SHARED));
        assert_eq!(place("a", own(), shared("a")), Ok(Place::Cluster));
        assert_eq!(place("AB", own(), shared("ab")), Ok(Place::Cluster));
        assert_eq!(place("shop", own(), shared("shops")), Ok(Place::Node));
        assert_eq!(place(OWN, own(), shared("other")), Ok(Place::Node));
        assert_eq!(place(SHARED, own(), shared("other")), Ok(Place::Cluster));
    }

    #[test]
    fn a_name_of_both_and_a_beginning_of_both_are_ambiguous() {
        let (own, shared) = (|| Ok(network("shop", OWN)), || Ok(network("shop", SHARED)));
        assert_eq!(place("shop", own(), shared()), Err(Code::FailedPrecondition));
        assert_eq!(place("ab", own(), shared()), Err(Code::FailedPrecondition));
        // Two of one half begin so, and one of the other.
        let two = || Err(Status::invalid_argument("ambiguous"));
        assert_eq!(place("ab", own(), two()), Err(Code::InvalidArgument));
        assert_eq!(place("ab", two(), shared()), Err(Code::InvalidArgument));
        assert_eq!(place("shop", two(), shared()), Ok(Place::Cluster));
        assert_eq!(place("shop", own(), two()), Ok(Place::Node));
    }

    #[test]
    fn a_short_beginning_needs_the_managers_word() {
        let own = || Ok(network("shop", OWN));
        let silent = || Err(Status::unavailable("no leader"));
        let alone = || Err(Status::failed_precondition("this node is not part of a cluster"));
        assert_eq!(place("ab", own(), silent()), Err(Code::Unavailable));
        assert_eq!(place("ab", own(), alone()), Ok(Place::Node));
        assert_eq!(place("ab", own(), Err(Status::not_found("none"))), Ok(Place::Node));
        for whole in ["shop", &OWN[..SHORT_ID]] {
            assert_eq!(place(whole, own(), silent()), Ok(Place::Node));
        }
    }
}
