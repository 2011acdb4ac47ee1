//! D1: nothing of a network the asker is not on changes what it is told, or appears in it.

use std::net::IpAddr;

use hickory_proto::op::Message;
use hickory_proto::rr::RecordType;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use weft_dns::answer::{Answer, Transport};
use weft_dns::asker::Outside;
use weft_dns::{Asker, NetworkNames, Synced, Zones};

use crate::support::{ask, asker, elsewhere, message};

const NETWORKS: [&str; 4] = ["red", "blue", "green", "web"];
const LABELS: [&str; 6] = ["web", "db", "tasks.web", "tasks.db", "web.1", "red"];

/// Network `index` with some of the labels; its addresses are 10.index.0.0/24, so that an address
/// in an answer says where it came from.
fn names(index: usize) -> impl Strategy<Value = NetworkNames> {
    let some = prop::collection::btree_map(select(&LABELS[..]), 1u8..6, 0..LABELS.len());
    some.prop_map(move |some| {
        let address = |host: u8| IpAddr::from([10, index as u8, 0, host]);
        let name = NETWORKS[index];
        NetworkNames {
            key: format!("key-{name}"),
            name: name.into(),
            subnets: vec![format!("10.{index}.0.0/24").parse().unwrap()],
            reverse: some.iter().map(|(l, n)| (address(*n), format!("{l}.{name}"))).collect(),
            names: some.iter().map(|(l, n)| (l.to_string(), vec![address(*n)])).collect(),
        }
    })
}

fn all_names() -> impl Strategy<Value = Vec<NetworkNames>> {
    (names(0), names(1), names(2), names(3)).prop_map(|(a, b, c, d)| vec![a, b, c, d])
}

fn question() -> impl Strategy<Value = (String, RecordType)> {
    let label = select(&LABELS[..]);
    let network = select(&NETWORKS[..]);
    let name = prop_oneof![
        label.clone().prop_map(String::from),
        (label, network.clone()).prop_map(|(label, network)| format!("{label}.{network}")),
        network.prop_map(String::from),
        (0u8..5, 0u8..6).prop_map(|(net, host)| format!("{host}.0.{net}.10.in-addr.arpa")),
    ];
    let types = [RecordType::A, RecordType::AAAA, RecordType::PTR, RecordType::ANY, RecordType::MX];
    (name, select(types.to_vec()))
}

fn member() -> impl Strategy<Value = (Vec<usize>, Asker)> {
    let outside = select(&[Outside::Open, Outside::Closed][..]);
    (subsequence(vec![0, 1, 2, 3], 0..=3), outside).prop_map(|(on, outside)| {
        let keys: Vec<_> = on.iter().map(|&at| format!("key-{}", NETWORKS[at])).collect();
        let keys: Vec<_> = keys.iter().map(String::as_str).collect();
        (on, Asker { outside, ..asker(&keys) })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn other_networks_change_nothing(
        one in all_names(),
        two in all_names(),
        (on, asker) in member(),
        (name, rtype) in question(),
        synced in select(&[Synced::Complete, Synced::NotYet][..]),
    ) {
        // Two clusters that differ only in networks the asker is not on.
        let mut second = two;
        on.iter().for_each(|&at| second[at] = one[at].clone());
        let hidden = elsewhere(&["web", "db", "red"]);
        let first = Zones::new(one, hidden.clone(), synced);
        let second = Zones::new(second, hidden, synced);
        let query = message(&name, rtype).to_vec().unwrap();
        let a = ask(&first, &asker, &query, Transport::Udp, 7);
        let b = ask(&second, &asker, &query, Transport::Udp, 7);
        prop_assert_eq!(&a, &b);
        if a.0 == Answer::Reply {
            let reply = Message::from_vec(&a.1).unwrap();
            for record in &reply.answers {
                if let Some(address) = record.data.ip_addr() {
                    let IpAddr::V4(v4) = address else { panic!("{address}") };
                    prop_assert!(on.contains(&usize::from(v4.octets()[1])), "{}", reply);
                }
            }
        }
    }

    /// With no way out, even the labels in use elsewhere make no difference.
    #[test]
    fn labels_elsewhere_do_not_show(
        networks in all_names(),
        (_, member) in member(),
        (name, rtype) in question(),
    ) {
        let asker = Asker { outside: Outside::Closed, ..member };
        let with = Zones::new(networks.clone(), elsewhere(&["web", "db", "red"]), Synced::Complete);
        let without = Zones::new(networks, elsewhere(&[]), Synced::Complete);
        let query = message(&name, rtype).to_vec().unwrap();
        prop_assert_eq!(
            ask(&with, &asker, &query, Transport::Udp, 7),
            ask(&without, &asker, &query, Transport::Udp, 7)
        );
    }
}
