//! What is told of containers, with managers and without, and by which words they are found.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    os::unix::fs::MetadataExt as _,
    sync::Arc,
};

use tonic::Code;
use weft_model::{
    Assignments, AttachmentId, NetworkId, ServiceId,
    assignments::{EndpointItem, Item, Key, NetworkItem, ServiceItem, ServiceNames, Visibility},
    id::NodeId,
    spec::EndpointMode,
};
use weft_proto::v1::{Container, GetContainerRequest, ListContainersRequest};
use weft_worker::{
    container::{ContainerConfig, Limits, Runtime},
    plumbing::Source,
    tasks::labels,
};

use crate::{lab::block_on, place::Place};

impl Place {
    async fn get(&self, word: &str) -> Result<Container, tonic::Status> {
        let request = GetContainerRequest { container: word.to_owned() };
        let answer = self.containers.clone().get(request).await?.into_inner();
        Ok(answer.container.expect("an answer has a container"))
    }

    async fn names(&self, all: bool) -> BTreeSet<String> {
        let request = ListContainersRequest { all };
        let answer = self.containers.clone().list(request).await.expect("list").into_inner();
        answer.containers.into_iter().map(|container| container.name).collect()
    }
}

const OUTER: NetworkId = NetworkId::from_bytes([1; 32]);
const INNER: NetworkId = NetworkId::from_bytes([2; 32]);
const SERVICE: ServiceId = ServiceId::from_bytes([0x5e; 32]);

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn network(name: &str, subnets: &[(&str, &str)], internal: bool) -> Item {
    let subnet = |(cidr, gateway): &(&str, &str)| (cidr.parse().expect("cidr"), address(gateway));
    Item::Network(NetworkItem {
        name: name.to_owned(),
        vni: Some(4096),
        subnets: subnets.iter().map(subnet).collect(),
        internal,
        mtu: None,
        segment: None,
        encrypted: false,
    })
}

fn endpoint(network: NetworkId, addresses: &[&str], mac: u8, name: &str) -> Item {
    Item::Endpoint(EndpointItem {
        network,
        addresses: addresses.iter().map(|text| address(text)).collect(),
        mac: [2, 0, 0, 0, 0, mac],
        node: NodeId::from_bytes([9; 32]),
        vtep: address("192.0.2.1"),
        service: Some(SERVICE),
        names: vec![name.to_owned(), "web.1".to_owned()],
        visible: Visibility::Shown,
    })
}

/// A task on two networks, one with both families, and one attachment that is gone.
fn assignments(config: &mut ContainerConfig) -> Assignments {
    let ids: Vec<_> = (11..14).map(|n| AttachmentId::from_bytes([n; 32])).collect();
    let list: Vec<_> = ids.iter().map(ToString::to_string).collect();
    config.labels.insert(labels::ATTACHMENTS.to_owned(), list.join(","));
    let both = [("10.1.0.0/24", "10.1.0.1"), ("fd00:1::/64", "fd00:1::1")];
    let names = ServiceNames { aliases: vec!["www".to_owned()], vips: vec![address("10.1.0.2")] };
    let service = ServiceItem {
        name: "web".to_owned(),
        endpoint_mode: EndpointMode::Vip,
        networks: BTreeMap::from([(OUTER, names)]),
    };
    let items = [
        (Key::Network(OUTER), network("front", &both, false)),
        (Key::Network(INNER), network("back", &[("10.2.0.0/16", "10.2.0.1")], true)),
        (Key::Endpoint(ids[0]), endpoint(OUTER, &["10.1.0.7", "fd00:1::7"], 7, &config.name)),
        (Key::Endpoint(ids[2]), endpoint(INNER, &["10.2.3.4"], 8, &config.name)),
        (Key::Service(SERVICE), Item::Service(service)),
    ];
    Assignments { revision: 3, items: items.into() }
}

#[test]
fn everything_of_a_running_container_is_told() {
    block_on(async {
        let place = Place::new("apiget");
        let mut config = place.task("", "web.1", &["sleep", "1000"]);
        config.env = vec!["A=1".into()];
        config.hosts = "10.1.0.7 here\n".into();
        config.resolv_conf = "nameserver 127.0.0.11\n".into();
        config.limits = Limits { memory: Some(64 << 20), cpu_millis: Some(500), pids: Some(50) };
        let told = assignments(&mut config);
        place.assigned.send_replace((Source::Managers, Arc::new(told)));
        let (name, labels) = (config.name.clone(), config.labels.clone());
        let (id, pid) = place.lab.started(config).await;
        let got = place.get("web.1").await.expect("get");
        let rootfs = place.lab.rootfs();
        let texts = [
            (&got.id, id.as_str()),
            (&got.name, &name),
            (&got.task_name, "web.1"),
            (&got.service_name, "web"),
            (&got.service_id, &SERVICE.to_string()),
            (&got.image, &format!("rootfs:{}", rootfs.display())),
            (&got.hostname, &id.as_str()[..12]),
            (&got.status, "running"),
            (&got.error, ""),
        ];
        for (got, wanted) in texts {
            assert_eq!(got, wanted);
        }
        assert_eq!(got.args, ["sleep", "1000"]);
        assert!(got.env.contains(&"A=1".to_owned()), "{:?}", got.env);
        assert_eq!(got.labels.clone().into_iter().collect::<BTreeMap<_, _>>(), labels);
        assert_eq!((got.pid, got.exit_code, got.oom_killed), (pid as u32, None, false));
        assert!(got.created_at.is_some() && got.started_at.is_some() && got.finished_at.is_none());
        let limits = got.limits.expect("limits");
        let limits = (limits.memory_bytes, limits.nano_cpus, limits.pids);
        assert_eq!(limits, (64 << 20, 500_000_000, 50));
        let text = |path: &str| std::fs::read_to_string(path).expect(path);
        assert_eq!(text(&got.hosts_path), "10.1.0.7 here\n");
        assert_eq!(text(&got.resolv_conf_path), "nameserver 127.0.0.11\n");
        assert_eq!(text(&got.hostname_path), format!("{}\n", &id.as_str()[..12]));
        assert!(std::path::Path::new(&got.log_path).is_file(), "{}", got.log_path);
        let inode = |path: &str| std::fs::metadata(path).expect("namespace").ino();
        assert_eq!(inode(&got.netns_path), inode(&format!("/proc/{pid}/ns/net")));

        let [front, back] = &got.networks[..] else { panic!("{:?}", got.networks) };
        assert_eq!((front.network_name.as_str(), front.interface.as_str()), ("front", "eth0"));
        assert_eq!(front.network_id, OUTER.to_string());
        assert_eq!(front.endpoint_id, "0b".repeat(32));
        assert_eq!(front.addresses, ["10.1.0.7/24", "fd00:1::7/64"]);
        assert_eq!(front.gateways, ["10.1.0.1", "fd00:1::1"]);
        assert_eq!(front.mac_address, "02:00:00:00:00:07");
        assert_eq!(front.aliases, [&name, "web.1", "www"]);
        // The attachment between the two is gone; the interface keeps its number.
        assert_eq!((back.network_name.as_str(), back.interface.as_str()), ("back", "eth2"));
        assert_eq!(back.addresses, ["10.2.3.4/16"]);
        assert_eq!(back.gateways, Vec::<String>::new(), "no way out of an internal network");
        assert_eq!(back.aliases, [&name, "web.1"]);
    });
}

#[test]
fn containers_are_told_with_no_manager_and_after_their_end() {
    block_on(async {
        let place = Place::new("apilist");
        let created = place.task("", "new.1", &["sleep", "1000"]);
        let running = place.task("", "run.1", &["sleep", "1000"]);
        let ended = place.task("", "end.1", &["sh", "-c", "exit 3"]);
        let unstarted = place.task("", "bad.1", &["nosuch"]);
        let lost = place.task("", "lost.1", &["true"]);
        let name = |config: &ContainerConfig| config.name.clone();
        let live = BTreeSet::from([name(&created), name(&running)]);
        let mut all = live.clone();
        all.extend([name(&ended), name(&unstarted)]);
        let (ended_id, bad_id) = (ended.id.clone(), unstarted.id.clone());
        place.lab.embedded.create(created).await.expect("create");
        place.lab.started(running).await;
        place.lab.run(ended).await;
        place.lab.embedded.release(&ended_id).await.expect("release");
        place.lab.embedded.create(unstarted).await.expect("create");
        place.lab.embedded.start(&bad_id).await.expect_err("it cannot start");
        // What a crash of the daemon leaves, before anything is written down.
        let half = place.lab.state_dir().join("containers").join(lost.id.as_str());
        std::fs::create_dir(half).expect("mkdir");
        all.insert(lost.id.to_string());
        assert_eq!(place.names(false).await, live);
        assert_eq!(place.names(true).await, all);

        let got = place.get("end.1").await.expect("get");
        assert_eq!((got.status.as_str(), got.exit_code, got.pid), ("exited", Some(3), 0));
        assert_eq!((got.netns_path.as_str(), got.service_name.as_str()), ("", "end"));
        assert!(got.finished_at.is_some() && got.networks.is_empty());
        let got = place.get("bad.1").await.expect("get");
        assert_eq!((got.status.as_str(), got.exit_code), ("exited", Some(127)));
        assert!(got.error.contains("nosuch"), "{}", got.error);
        assert_eq!(place.get("new.1").await.expect("get").status, "created");
        let got = place.get(lost.id.as_str()).await.expect("get");
        assert_eq!(got.status, "dead");
        assert!(!got.error.is_empty());
    });
}

#[test]
fn a_container_is_found_by_name_task_and_beginning() {
    block_on(async {
        let place = Place::new("apifind");
        let old = place.task("aaaaaaaaaaaa", "web.1", &["true"]);
        let new = place.task("aaaaaaaaaaab", "web.1", &["sleep", "1000"]);
        let other = place.task("aaaaaaaaaaac", "db.1", &["true"]);
        let ids = [&old, &new, &other].map(|config| config.id.to_string());
        let old_name = old.name.clone();
        place.lab.run(old).await;
        place.lab.started(new).await;
        place.lab.run(other).await;
        let table = [
            ("web.1", &ids[1]),
            (&old_name, &ids[0]),
            (&ids[0], &ids[0]),
            ("aaaaaaaaaaaa", &ids[0]),
            ("aaaaaaaaaaab", &ids[1]),
            ("db.1", &ids[2]),
        ];
        for (word, id) in table {
            assert_eq!(&place.get(word).await.expect(word).id, id, "{word}");
        }
        let status = place.get("aaaa").await.expect_err("any of three");
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(ids.iter().all(|id| status.message().contains(id)), "{status}");
        let status = place.get("web").await.expect_err("unknown");
        assert_eq!((status.code(), status.message()), (Code::NotFound, "no such container: web"));
        let hint = weft_proto::convert::status::hint_of(&status);
        assert_eq!(hint.as_deref(), Some("weft ps -a"));
    });
}

/// Looking is harmless also at the moment when a container is being made or removed.
#[test]
fn a_look_at_any_moment_disturbs_nobody() {
    const CONTAINERS: usize = 24;
    block_on(async {
        let place = Place::new("apilook2");
        let mut lookers = tokio::task::JoinSet::new();
        for _ in 0..4 {
            let mut client = place.containers.clone();
            lookers.spawn(async move {
                loop {
                    client.list(ListContainersRequest { all: true }).await.expect("list");
                }
            });
        }
        for number in 0..CONTAINERS {
            let config = place.task("", &format!("web.{number}"), &["true"]);
            let id = config.id.clone();
            let (exit, _, _) = place.lab.run(config).await;
            assert_eq!((exit.code, exit.signal), (0, None), "container {number}");
            place.lab.embedded.remove(&id).await.expect("remove");
        }
        lookers.abort_all();
        while let Some(ended) = lookers.join_next().await {
            assert!(ended.is_err_and(|error| error.is_cancelled()), "a look failed");
        }
    });
}
