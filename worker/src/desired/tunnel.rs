//! The encrypted networks and the link that all of them share.

use weft_model::{
    Engine as Chosen, NetworkId, NodeKey,
    assignments::{EndpointItem, NodeItem, PeerItem},
    tunnel::{tunnel_address, tunnel_ports},
};
use weft_overlay::{
    Engine, Mac, Overlay, Tunnel,
    wire::{Identity, Key, Member, Node, PeerIdentity},
};

use super::Sorted;
use crate::tunnel::End;

/// Seconds between packets to each peer of a node behind an address translator: translators keep a
/// mapping for 30 s at least (`nf_conntrack_udp_timeout`; RFC 4787, REQ-5, wants more).
const KEEPALIVE: u16 = 25;

impl Sorted<'_> {
    /// The encrypted link to the other nodes, with those of the keys that this node is to have which it
    /// has. None on a node without encrypted networks, or without a key: nothing leaves it then.
    pub fn tunnel(&self, end: &End) -> Option<Tunnel> {
        let (cluster, node) = (self.cluster?, self.node?);
        let identity = |generation: &u64| {
            Some(Identity {
                private_key: *end.keys.get(generation)?,
                address: tunnel_address(node.number, *generation)?,
                ports: tunnel_ports(cluster.wireguard_port, end.choice.lanes, *generation),
            })
        };
        let asked = node.tunnel.as_ref()?.generations.iter();
        let identities: Vec<_> = asked.filter_map(identity).collect();
        // Who is behind one speaks to all, and so is reached by all. Nobody else speaks for its own sake: the
        // mapping is there for as long as one side sends.
        let keepalive = end.translated.then_some(KEEPALIVE);
        let peer =
            |peer: &PeerItem| (peer.number, Node { keepalive, ..at(cluster.wireguard_port, peer) });
        let needed = self.networks.values().any(|network| network.encrypted);
        (needed && !identities.is_empty()).then(|| Tunnel {
            engine: match end.choice.engine {
                Chosen::Kernel => Engine::Kernel,
                Chosen::Userspace => Engine::Userspace,
            },
            identities,
            nodes: self.peers.values().copied().map(peer).collect(),
        })
    }

    /// The members of an encrypted network on other nodes. None of a node whose key is not known yet:
    /// nothing goes there, and nothing is taken from it.
    pub(super) fn encrypted(&self, node: &NodeItem, id: NetworkId) -> Overlay {
        let row = |member: &EndpointItem| {
            let peer = self.peers.get(&member.node)?;
            let row = Member { node: peer.number, addresses: member.addresses.clone() };
            Some((Mac(member.mac), row))
        };
        Overlay::Encrypted(self.elsewhere(node, id).filter_map(row).collect())
    }
}

/// Another node, whose first lane is at that port.
fn at(first_port: u16, peer: &PeerItem) -> Node {
    let identity = |key: &NodeKey| {
        Some(PeerIdentity {
            public_key: Key(key.public.0),
            address: tunnel_address(peer.number, key.generation)?,
            ports: tunnel_ports(first_port, peer.lanes, key.generation),
        })
    };
    Node {
        endpoint: peer.endpoint,
        identities: peer.keys.iter().filter_map(identity).collect(),
        keepalive: None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use weft_model::{
        Assignments, AttachmentId, ClusterId, NodeId, PublicKey,
        assignments::{ClusterItem, Item, Key as On, NetworkItem, TunnelItem, Visibility},
        spec::Role,
    };
    use weft_overlay::{Dataplane, Kind, NetworkKey};

    use super::*;
    use crate::{desired::LocalSandboxes, tunnel::Choice};

    const NETWORK: NetworkId = NetworkId::from_bytes([7; 32]);
    const VNI: u32 = 4096;

    fn node(number: u8) -> NodeId {
        NodeId::from_bytes([number; 32])
    }

    fn cluster() -> Item {
        Item::Cluster(ClusterItem {
            id: ClusterId::from_bytes([9; 32]),
            data_path_port: 4789,
            wireguard_port: 51_820,
            members: [].into(),
            managers: [].into(),
            labels: [].into(),
        })
    }

    fn own(generations: &[u64]) -> Item {
        Item::Node(NodeItem {
            id: node(1),
            role: Role::Worker,
            data_path: "10.99.0.1".parse().unwrap(),
            number: 1,
            tunnel: Some(TunnelItem { generations: generations.to_vec() }),
        })
    }

    fn network(encrypted: bool) -> Item {
        Item::Network(NetworkItem {
            name: "shop".into(),
            vni: Some(VNI),
            subnets: vec![],
            internal: false,
            mtu: None,
            segment: None,
            encrypted,
        })
    }

    fn member(number: u8) -> (On, Item) {
        let item = EndpointItem {
            network: NETWORK,
            addresses: vec![[10, 20, 0, number].into()],
            mac: [2, 0x42, 10, 20, 0, number],
            node: node(number),
            vtep: [10, 99, 0, number].into(),
            service: None,
            names: vec![],
            visible: Visibility::Shown,
        };
        (On::Endpoint(AttachmentId::from_bytes([number; 32])), Item::Endpoint(item))
    }

    /// Members on nodes 1 to 3, of which only node 2 has said its keys; nodes are told of `encrypted`.
    fn assignments(encrypted: bool, generations: &[u64]) -> Assignments {
        let key = |generation| NodeKey { generation, public: PublicKey([generation as u8; 32]) };
        let peer = PeerItem {
            number: 2,
            hostname: "n2".into(),
            endpoint: [10, 99, 0, 2].into(),
            lanes: 2,
            keys: vec![key(4), key(3)],
        };
        let mut items: BTreeMap<_, _> = (1..=3).map(member).collect();
        items.insert(On::Cluster, cluster());
        items.insert(On::Node, own(generations));
        items.insert(On::Network(NETWORK), network(encrypted));
        items.insert(On::Peer(node(2)), Item::Peer(peer));
        Assignments { revision: 1, items }
    }

    fn end(generations: &[u64]) -> End {
        let keys = generations.iter().map(|generation| (*generation, Key([*generation as u8; 32])));
        let choice = Choice { lanes: 3, ..Choice::in_memory() };
        End { choice, keys: keys.collect(), translated: false }
    }

    fn dataplane(assignments: &Assignments) -> Dataplane {
        Sorted::new(assignments).dataplane(&LocalSandboxes::new())
    }

    #[test]
    fn keys_come_in_the_order_they_are_asked_for_with_their_addresses_and_ports() {
        let assignments = assignments(true, &[6, 5]);
        let tunnel = Sorted::new(&assignments).tunnel(&end(&[4, 5, 6])).unwrap();
        assert_eq!(tunnel.engine, Engine::Userspace);
        let own: Vec<_> = tunnel
            .identities
            .iter()
            .map(|identity| (identity.private_key, identity.address.to_string(), &*identity.ports))
            .collect();
        let six = (Key([6; 32]), "100.64.0.2".to_owned(), &[51_820, 51_822, 51_824][..]);
        let five = (Key([5; 32]), "100.64.0.3".to_owned(), &[51_821, 51_823, 51_825][..]);
        assert_eq!(own, [six, five]);
        let [(2, peer)] = &tunnel.nodes.into_iter().collect::<Vec<_>>()[..] else {
            panic!("node 2 only");
        };
        assert_eq!(peer.endpoint.to_string(), "10.99.0.2");
        let theirs: Vec<_> = peer.identities.iter().map(|key| key.address.to_string()).collect();
        assert_eq!(theirs, ["100.64.0.4", "100.64.0.5"]);
        assert_eq!(peer.identities[0].ports, [51_820, 51_822]);
        assert_eq!(peer.identities[0].public_key, Key([4; 32]));
    }

    #[test]
    fn a_node_behind_a_translator_speaks_to_all_peers_and_no_other_does() {
        let assignments = assignments(true, &[1]);
        let sorted = Sorted::new(&assignments);
        let keepalive = |end: End| sorted.tunnel(&end).unwrap().nodes[&2].keepalive;
        assert_eq!(keepalive(end(&[1])), None);
        assert_eq!(keepalive(End { translated: true, ..end(&[1]) }), Some(25));
    }

    #[test]
    fn a_key_that_is_not_there_is_not_used_and_without_any_there_is_no_link() {
        let assignments = assignments(true, &[6, 5]);
        let sorted = Sorted::new(&assignments);
        assert_eq!(sorted.tunnel(&end(&[5])).unwrap().identities.len(), 1);
        assert_eq!(sorted.tunnel(&end(&[4])), None);
        let asked_for_none = self::assignments(true, &[]);
        assert_eq!(Sorted::new(&asked_for_none).tunnel(&end(&[5])), None);
    }

    #[test]
    fn members_are_known_by_their_nodes_number_and_those_without_a_key_not_at_all() {
        let assignments = assignments(true, &[1]);
        let networks = dataplane(&assignments).networks;
        let Kind::Overlay(Overlay::Encrypted(members)) = &networks[&NetworkKey::Vni(VNI)].kind
        else {
            panic!("encrypted: {networks:?}");
        };
        let two = Member { node: 2, addresses: vec![[10, 20, 0, 2].into()] };
        assert_eq!(*members, BTreeMap::from([(Mac([2, 0x42, 10, 20, 0, 2]), two)]));
    }

    #[test]
    fn a_plain_network_has_no_link() {
        let assignments = assignments(false, &[1]);
        assert_eq!(Sorted::new(&assignments).tunnel(&end(&[1])), None);
        let networks = dataplane(&assignments).networks;
        let Kind::Overlay(Overlay::Plain(plain)) = &networks[&NetworkKey::Vni(VNI)].kind else {
            panic!("plain: {networks:?}");
        };
        assert_eq!(plain.remotes.len(), 2);
    }
}
