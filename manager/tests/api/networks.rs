//! Networks: what is chosen, what is refused, and how a retry is known.

use std::collections::BTreeSet;

use tonic::{Code, Status, transport::Channel};
use weft_model::object::ClusterSpec;
use weft_proto::v1::{
    CreateNetworkRequest, GetNetworkRequest, IpamConfig, ListNetworksRequest, Network, NetworkSpec,
    PruneNetworksRequest, RemoveNetworkRequest, network_service_client::NetworkServiceClient,
};

use crate::support::{Node, refused};

fn named(name: &str) -> NetworkSpec {
    NetworkSpec { name: name.to_owned(), ..Default::default() }
}

fn with_subnets(name: &str, subnets: &[&str]) -> NetworkSpec {
    let ipam = subnets
        .iter()
        .map(|subnet| IpamConfig { subnet: (*subnet).to_owned(), ..Default::default() });
    NetworkSpec { ipam: ipam.collect(), ..named(name) }
}

async fn create(
    client: &mut NetworkServiceClient<Channel>,
    spec: NetworkSpec,
    request_id: &str,
) -> Result<Network, Status> {
    let request = CreateNetworkRequest { spec: Some(spec), request_id: request_id.to_owned() };
    let answer = client.create(request).await?;
    Ok(answer.into_inner().network.unwrap())
}

fn subnets(network: &Network) -> Vec<(&str, &str)> {
    network.ipam.iter().map(|ipam| (ipam.subnet.as_str(), ipam.gateway.as_str())).collect()
}

#[tokio::test]
async fn subnets_and_vnis_are_chosen_and_shown() {
    let node = Node::first().await;
    let mut client = NetworkServiceClient::new(node.local());
    let first = create(&mut client, named("one"), "").await.unwrap();
    let second = create(&mut client, named("two"), "").await.unwrap();
    assert_eq!(subnets(&first), [("10.0.0.0/24", "10.0.0.1")]);
    assert_eq!(subnets(&second), [("10.0.1.0/24", "10.0.1.1")]);
    assert!(second.vni > first.vni && first.vni >= 65_536);
    let six = with_subnets("six", &["fd12:3456::/64"]);
    assert_eq!(
        subnets(&create(&mut client, six, "").await.unwrap()),
        [("fd12:3456::/64", "fd12:3456::1")]
    );
    let both = create(&mut client, NetworkSpec { ipv6: true, ..named("both") }, "").await.unwrap();
    let [(four, _), (unique_local, _)] = subnets(&both)[..] else { panic!("{both:?}") };
    assert_eq!(four, "10.0.2.0/24");
    assert!(unique_local.starts_with("fd") && unique_local.ends_with("/64"));
    let list = client.list(ListNetworksRequest {}).await.unwrap().into_inner().networks;
    assert_eq!(list.len(), 4);
    let use_of_first = &list.iter().find(|network| network.id == first.id).unwrap().r#use[0];
    // All but network, broadcast and gateway.
    assert_eq!((use_of_first.size, use_of_first.free), (253, 253));
}

#[tokio::test]
async fn what_the_user_gives_is_kept_or_refused_with_the_owner() {
    let node = Node::first().await;
    let mut client = NetworkServiceClient::new(node.local());
    let given = IpamConfig {
        subnet: "10.7.0.0/16".into(),
        ip_range: "10.7.5.0/24".into(),
        gateway: "10.7.255.254".into(),
        aux_addresses: [("router".to_owned(), "10.7.5.1".to_owned())].into(),
    };
    let spec = NetworkSpec { ipam: vec![given.clone()], ..named("given") };
    assert_eq!(create(&mut client, spec, "").await.unwrap().ipam, [given]);
    let inside = with_subnets("inside", &["10.7.9.0/24"]);
    let (what, hint) = refused(create(&mut client, inside, "").await, Code::FailedPrecondition);
    assert!(what.contains("overlaps 10.7.0.0/16 of network given"), "{what}");
    assert!(hint.contains("--subnet"), "{hint}");
    let (what, _) = refused(create(&mut client, named("GIVEN"), "").await, Code::AlreadyExists);
    assert!(what.contains("already exists"), "{what}");
    let bad = with_subnets("bad", &["10.0.0.5/24"]);
    let (what, hint) = refused(create(&mut client, bad, "").await, Code::InvalidArgument);
    assert!(what.contains("host bits"), "{what}");
    assert_eq!(hint, "did you mean --subnet 10.0.0.0/24?");
    assert_eq!(node.manager().view().networks().count(), 1, "a refusal has changed something");
}

#[tokio::test]
async fn a_route_of_a_node_is_in_the_way() {
    let mut node = Node::first().await;
    node.description.used_prefixes =
        ["10.0.0.0/23", "0.0.0.0/0"].map(|p| p.parse().unwrap()).into();
    let _session = node.session(&node).await.unwrap();
    let mut client = NetworkServiceClient::new(node.local());
    let chosen = create(&mut client, named("chosen"), "").await.unwrap();
    assert_eq!(subnets(&chosen), [("10.0.2.0/24", "10.0.2.1")]);
    let over = with_subnets("over", &["10.0.1.0/24"]);
    let (what, _) = refused(create(&mut client, over, "").await, Code::FailedPrecondition);
    assert!(what.contains("10.0.0.0/23 of the routes or resolvers of node n1"), "{what}");
}

#[tokio::test]
async fn a_retry_gets_the_first_answer() {
    let node = Node::first().await;
    let mut client = NetworkServiceClient::new(node.local());
    let id = "0123456789abcdef";
    let first = create(&mut client, named("one"), id).await.unwrap();
    let again = create(&mut client, named("one"), id).await.unwrap();
    assert_eq!(first.id, again.id);
    assert_eq!(node.manager().view().networks().count(), 1);
    let (what, _) =
        refused(create(&mut client, named("two"), "short").await, Code::InvalidArgument);
    assert!(what.contains("16 to 64"), "{what}");
    // A refusal has changed nothing, so a retry is tried again.
    let other = "fedcba9876543210";
    refused(create(&mut client, named("one"), other).await, Code::AlreadyExists);
    let remove = RemoveNetworkRequest { network: "one".into(), request_id: String::new() };
    assert_eq!(client.remove(remove).await.unwrap().into_inner().network_id, first.id);
    assert_ne!(create(&mut client, named("one"), other).await.unwrap().id, first.id);
}

#[tokio::test]
async fn a_full_pool_says_what_is_in_the_way() {
    let pools = vec!["10.9.0.0/24".parse().unwrap()];
    let node = Node::first_of(ClusterSpec { pools, subnet_size: 25, ..Default::default() }).await;
    let mut client = NetworkServiceClient::new(node.local());
    create(&mut client, named("one"), "").await.unwrap();
    create(&mut client, named("two"), "").await.unwrap();
    let (what, hint) =
        refused(create(&mut client, named("three"), "").await, Code::ResourceExhausted);
    assert!(what.contains("10.9.0.0/24 is exhausted: no free /25: 2 networks"), "{what}");
    assert!(hint.contains("weft network prune"), "{hint}");
    let removed = client.prune(PruneNetworksRequest::default()).await.unwrap().into_inner().removed;
    assert_eq!(BTreeSet::from_iter(removed), ["one".to_owned(), "two".to_owned()].into());
    create(&mut client, named("three"), "").await.unwrap();
}

#[tokio::test]
async fn a_network_on_the_segment_of_the_nodes_is_on_a_route_of_theirs() {
    let mut node = Node::first().await;
    node.description.used_prefixes = [("10.99.0.0/24").parse().unwrap()].into();
    let _session = node.session(&node).await.unwrap();
    let mut client = NetworkServiceClient::new(node.local());
    let lan = |scope: &str, subnets: &[&str]| NetworkSpec {
        driver: "macvlan".into(),
        scope: scope.into(),
        options: [("parent".to_owned(), "eth0".to_owned())].into(),
        ..with_subnets("lan", subnets)
    };
    let mut refusal =
        async |spec| refused(create(&mut client, spec, "").await, Code::InvalidArgument);
    let (what, hint) = refusal(lan("cluster", &[])).await;
    assert!(what.contains("the prefix of their segment") && hint.contains("--gateway"), "{what}");
    let (what, hint) = refusal(lan("", &["10.99.0.0/24"])).await;
    assert!(what.contains("of scope cluster") && hint == "give --scope cluster", "{what} {hint}");
    let bridge = NetworkSpec { driver: "bridge".into(), ..lan("cluster", &["10.99.0.0/24"]) };
    let (what, _) = refusal(bridge).await;
    assert!(what.contains("overlay, macvlan or ipvlan"), "{what}");
    let made = create(&mut client, lan("cluster", &["10.99.0.0/24"]), "").await.unwrap();
    assert_eq!((made.vni, made.spec.unwrap().scope.as_str()), (0, "cluster"));
    let over = with_subnets("over", &["10.99.0.128/25"]);
    refused(create(&mut client, over, "").await, Code::FailedPrecondition);
}

#[tokio::test]
async fn networks_made_at_once_do_not_collide_and_are_found_by_prefix() {
    // More than there are hex digits: two IDs begin with the same one.
    const MANY: usize = 17;
    let node = Node::first().await;
    let channel = node.local();
    let made = (0..MANY).map(|number| {
        let mut client = NetworkServiceClient::new(channel.clone());
        async move { create(&mut client, named(&format!("n{number}")), "").await.unwrap() }
    });
    let made = futures::future::join_all(made).await;
    let distinct = |key: &dyn Fn(&Network) -> String| made.iter().map(key).collect::<BTreeSet<_>>();
    assert_eq!(distinct(&|network| network.vni.to_string()).len(), MANY);
    assert_eq!(distinct(&|network| network.ipam[0].subnet.clone()).len(), MANY);

    let mut client = NetworkServiceClient::new(channel);
    let mut get = async |text: &str| {
        let request = GetNetworkRequest { network: text.to_owned() };
        client.get(request).await.map(|answer| answer.into_inner().network.unwrap().id)
    };
    for network in &made {
        assert_eq!(get(&network.id).await.unwrap(), network.id);
        assert_eq!(get(&network.id[..20].to_uppercase()).await.unwrap(), network.id);
        assert_eq!(get(&network.spec.as_ref().unwrap().name).await.unwrap(), network.id);
    }
    let mut ids: Vec<_> = made.iter().map(|network| network.id.clone()).collect();
    ids.sort();
    let pair = ids.windows(2).find(|pair| pair[0][..1] == pair[1][..1]).unwrap();
    let (what, _) = refused(get(&pair[0][..1]).await, Code::InvalidArgument);
    assert!(what.contains("is ambiguous") && what.contains(&pair[0][..12]), "{what}");
    for missing in ["", "zz", "nothing\u{1b}[2J"] {
        let (what, hint) = refused(get(missing).await, Code::NotFound);
        assert!(what.starts_with("no such network: ") && !what.contains('\u{1b}'), "{what}");
        assert_eq!(hint, "weft network ls");
    }
}

#[tokio::test]
async fn a_request_id_is_good_for_one_request() {
    let node = Node::first().await;
    let mut client = NetworkServiceClient::new(node.local());
    let id = "the-first-request";
    let labels = (0..20).map(|n| (n.to_string(), String::new())).collect();
    let spec = NetworkSpec { labels, ..named("one") };
    let first = create(&mut client, spec.clone(), id).await.unwrap();
    assert_eq!(create(&mut client, spec, id).await.unwrap().id, first.id);
    let reused = |result| refused(result, Code::InvalidArgument);
    let (message, hint) = reused(create(&mut client, named("one"), id).await.map(drop));
    assert_eq!(message, "request id reused with a different request");
    assert!(!hint.is_empty());
    let remove = RemoveNetworkRequest { network: "one".into(), request_id: id.into() };
    reused(client.remove(remove).await.map(drop));
    let list = client.list(ListNetworksRequest {}).await.unwrap().into_inner().networks;
    assert_eq!(list.len(), 1);
}

#[tokio::test]
async fn a_retry_of_a_prune_removes_nothing_that_was_made_since() {
    let node = Node::first().await;
    let mut client = NetworkServiceClient::new(node.local());
    let first = create(&mut client, named("one"), "").await.unwrap();
    let prune = PruneNetworksRequest { request_id: "prune-once-and-once-only".into() };
    let removed = client.prune(prune.clone()).await.unwrap().into_inner().removed;
    assert_eq!(removed, ["one"]);
    create(&mut client, named("two"), "").await.unwrap();
    let again = client.prune(prune).await.unwrap().into_inner().removed;
    assert_eq!(again, [first.id]);
    let list = client.list(ListNetworksRequest {}).await.unwrap().into_inner().networks;
    assert_eq!(list.len(), 1);
}
