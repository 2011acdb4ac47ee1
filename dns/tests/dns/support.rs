//! Small zones to ask, and messages made by an independent library.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use rand::SeedableRng;
use rand::rngs::StdRng;
use weft_dns::answer::{Answer, Transport, answer};
use weft_dns::asker::Outside;
use weft_dns::{Asker, Elsewhere, NetworkNames, Synced, Zones, elsewhere_hash};

pub const KEY: [u8; 16] = *b"sixteen bytes !!";

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// `names`: name and its addresses. Reverse entries are `<first name>.<network>`.
pub fn network(key: &str, name: &str, subnets: &[&str], names: &[(&str, &[&str])]) -> NetworkNames {
    let mut reverse = BTreeMap::new();
    for (host, addresses) in names {
        for address in *addresses {
            reverse.entry(ip(address)).or_insert_with(|| format!("{host}.{name}"));
        }
    }
    NetworkNames {
        key: key.into(),
        name: name.into(),
        subnets: subnets.iter().map(|subnet| subnet.parse().unwrap()).collect(),
        names: names
            .iter()
            .map(|(host, all)| (host.to_string(), all.iter().map(|text| ip(text)).collect()))
            .collect(),
        reverse,
    }
}

pub fn elsewhere(labels: &[&str]) -> Elsewhere {
    let hashes: BTreeSet<u64> = labels.iter().map(|label| elsewhere_hash(&KEY, label)).collect();
    Elsewhere::new(KEY, hashes)
}

/// Two networks an asker may be on, and a third.
pub fn zones(synced: Synced) -> Zones {
    let front = network(
        "n1",
        "Front",
        &["10.0.1.0/24", "fd00:1::/64"],
        &[
            ("Web", &["10.0.1.10", "fd00:1::10"]),
            ("web.1", &["10.0.1.11"]),
            ("tasks.web", &["10.0.1.11", "10.0.1.12"]),
            ("db", &["10.0.1.20"]),
            ("six", &["fd00:1::6"]),
            ("a.b", &["10.0.1.30"]),
        ],
    );
    let back = network(
        "n2",
        "back.end",
        &["10.0.16.0/20"],
        &[("db", &["10.0.17.20"]), ("six", &["10.0.17.6"]), ("only", &["10.0.17.9"])],
    );
    let other = network("n3", "other", &["10.0.99.0/24"], &[("secret", &["10.0.99.9"])]);
    Zones::new([front, back, other], elsewhere(&["secret", "hidden"]), synced)
}

pub fn asker(networks: &[&str]) -> Asker {
    Asker {
        networks: networks.iter().map(|key| key.to_string()).collect(),
        upstreams: vec!["192.0.2.1:53".parse().unwrap()],
        outside: Outside::Open,
        ..Asker::default()
    }
}

pub fn message(name: &str, rtype: RecordType) -> Message {
    let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), rtype));
    message
}

pub fn with_edns(mut message: Message, size: u16) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(size);
    message.edns = Some(edns);
    message
}

/// The answer of the zones, and the reply if there is one.
pub fn ask(
    zones: &Zones,
    asker: &Asker,
    query: &[u8],
    transport: Transport,
    seed: u64,
) -> (Answer, Vec<u8>) {
    let mut out = Vec::new();
    let mut rng = StdRng::seed_from_u64(seed);
    let answer = answer(zones, asker, query, transport, &mut rng, &mut out);
    (answer, out)
}
