//! The commands against a daemon that answers as told: what is sent, what is printed, and how it
//! fails.

// Helpers of tests panic like tests.
#![allow(clippy::unwrap_used)]

mod fake;

use fake::{Daemon, NOW};
use tonic::{
    Code, Status,
    metadata::{MetadataMap, MetadataValue},
};
use weft_proto::v1::{exec_response::Response as ExecAnswer, *};
use weft_proto::well_known::{Duration as WireDuration, Timestamp};

fn at(seconds: i64) -> Option<Timestamp> {
    Some(Timestamp { seconds: NOW + seconds, nanos: 0 })
}

fn meta() -> Option<Meta> {
    Some(Meta { version: 3, created_at: at(-3600), updated_at: at(-60) })
}

fn id(digit: &str) -> String {
    digit.repeat(64)
}

fn node(digit: &str, name: &str, state: NodeState, leader: Option<bool>) -> Node {
    Node {
        id: id(digit),
        meta: meta(),
        spec: Some(NodeSpec {
            role: if leader.is_some() { Role::Manager } else { Role::Worker }.into(),
            availability: Availability::Active.into(),
            labels: [("zone".to_owned(), "a".to_owned())].into(),
        }),
        hostname: name.into(),
        state: state.into(),
        addr: "10.9.0.1:2377".into(),
        data_path_addr: "10.9.0.1".into(),
        os: "linux".into(),
        architecture: "x86_64".into(),
        engine_version: "0.1.0".into(),
        nano_cpus: 2_000_000_000,
        memory_bytes: 1 << 30,
        manager: leader.map(|leader| ManagerStatus {
            leader,
            reachability: Reachability::Reachable.into(),
            addr: "10.9.0.1:2377".into(),
            voter: true,
            raft_incarnation: "0123456789abcdef".into(),
        }),
        ..Default::default()
    }
}

fn blue() -> Network {
    Network {
        id: id("b"),
        meta: meta(),
        spec: Some(NetworkSpec {
            name: "blue".into(),
            driver: "overlay".into(),
            attachable: true,
            labels: [("team".to_owned(), "x".to_owned())].into(),
            ..Default::default()
        }),
        vni: 4097,
        ipam: vec![IpamConfig {
            subnet: "10.0.1.0/24".into(),
            gateway: "10.0.1.1".into(),
            ..Default::default()
        }],
        endpoints: vec![Endpoint {
            attachment_id: id("e"),
            name: "web.1.dddd".into(),
            task_id: id("d"),
            service_id: id("5"),
            node_id: id("1"),
            addresses: vec!["10.0.1.3/24".into()],
            mac_address: "02:42:0a:00:01:03".into(),
            ..Default::default()
        }],
        vips: vec![ServiceVip {
            service_id: id("5"),
            service_name: "web".into(),
            addresses: vec!["10.0.1.2/24".into()],
        }],
        ..Default::default()
    }
}

fn service() -> Service {
    let mode = service_mode::Mode::Replicated(service_mode::Replicated { replicas: 3 });
    Service {
        id: id("5"),
        meta: meta(),
        spec: Some(ServiceSpec {
            name: "web".into(),
            container: Some(ContainerSpec {
                image: "rootfs:/".into(),
                args: vec!["sleep".into(), "1000".into()],
                env: vec!["A=1".into(), "B=2".into()],
                ..Default::default()
            }),
            mode: Some(ServiceMode { mode: Some(mode) }),
            networks: vec![NetworkAttachmentSpec { network: id("b"), aliases: vec![] }],
            ..Default::default()
        }),
        virtual_ips: vec![VirtualIp { network_id: id("b"), addresses: vec!["10.0.1.2/24".into()] }],
        running_tasks: 2,
        desired_tasks: 3,
        ..Default::default()
    }
}

fn task(digit: &str, slot: u32, state: TaskState, error: &str, created: i64) -> Task {
    let over = state > TaskState::Running;
    Task {
        id: id(digit),
        meta: Some(Meta { created_at: at(created), ..Default::default() }),
        name: format!("web.{slot}"),
        service_id: id("5"),
        service_name: "web".into(),
        slot,
        node_id: id("1"),
        node_hostname: "n1".into(),
        container: service().spec.unwrap().container,
        desired_state: if over { DesiredState::Shutdown } else { DesiredState::Running }.into(),
        status: Some(TaskStatus {
            state: state.into(),
            since: at(created),
            error: error.into(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn container() -> Container {
    Container {
        id: id("d"),
        name: "web.1.dddd".into(),
        task_name: "web.1".into(),
        service_id: id("5"),
        service_name: "web".into(),
        image: "rootfs:/".into(),
        args: vec!["sh".into(), "-c".into(), "sleep 1000; echo done".into()],
        status: "running".into(),
        pid: 4242,
        created_at: at(-180),
        started_at: at(-179),
        networks: vec![ContainerNetwork {
            network_id: id("b"),
            network_name: "blue".into(),
            addresses: vec!["10.0.1.3/24".into(), "fd00::3/64".into()],
            gateways: vec!["10.0.1.1".into()],
            mac_address: "02:42:0a:00:01:03".into(),
            aliases: vec!["web".into()],
            interface: "eth0".into(),
            endpoint_id: id("e"),
        }],
        netns_path: "/run/weft/netns/dddd".into(),
        ..Default::default()
    }
}

fn daemon() -> Daemon {
    let daemon = Daemon::start();
    {
        let mut state = daemon.fake.state();
        state.nodes = vec![
            node("2", "n2", NodeState::Down, None),
            node("1", "n1", NodeState::Ready, Some(true)),
            node("3", "n3", NodeState::Ready, Some(false)),
        ];
        state.info.node_id = id("1");
        state.networks = vec![blue()];
        state.services = vec![service()];
        state.tasks = vec![
            task("7", 1, TaskState::Failed, "exit code 1", -600),
            task("8", 2, TaskState::Running, "", -120),
            task("6", 1, TaskState::Running, "", -300),
        ];
        state.containers = vec![container()];
    }
    daemon
}

#[tokio::test]
async fn tables_are_dockers() {
    let daemon = daemon();
    insta::assert_snapshot!(daemon.run(&["node", "ls"]).await.out, @r#"
    ID               HOSTNAME   STATUS    AVAILABILITY   MANAGER STATUS   ENGINE VERSION
    111111111111 *   n1         Ready     Active         Leader           0.1.0
    222222222222     n2         Down      Active                          0.1.0
    333333333333     n3         Ready     Active         Reachable        0.1.0
    "#);
    insta::assert_snapshot!(daemon.run(&["network", "ls"]).await.out, @r#"
    NETWORK ID     NAME      DRIVER    SCOPE
    bbbbbbbbbbbb   blue      overlay   cluster
    "#);
    insta::assert_snapshot!(daemon.run(&["service", "ls"]).await.out, @r#"
    ID             NAME      MODE         REPLICAS   IMAGE      PORTS
    555555555555   web       replicated   2/3        rootfs:/
    "#);
    insta::assert_snapshot!(daemon.run(&["service", "ps", "web"]).await.out, @r#"
    ID             NAME        IMAGE      NODE      DESIRED STATE   CURRENT STATE           ERROR           PORTS
    666666666666   web.1       rootfs:/   n1        Running         Running 5 minutes ago                   
    777777777777    \_ web.1   rootfs:/   n1        Shutdown        Failed 10 minutes ago   "exit code 1"   
    888888888888   web.2       rootfs:/   n1        Running         Running 2 minutes ago
    "#);
    insta::assert_snapshot!(daemon.run(&["ps"]).await.out, @r#"
    CONTAINER ID   IMAGE      COMMAND                  CREATED         STATUS         PORTS     NAMES
    dddddddddddd   rootfs:/   "sh -c sleep 1000; e…"   3 minutes ago   Up 2 minutes             web.1.dddd
    "#);
}

#[tokio::test]
async fn lists_through_templates_and_filters() {
    let daemon = daemon();
    let table: &[(&[&str], &str)] = &[
        (&["node", "ls", "-q", "--filter", "role=manager"], "111111111111\n333333333333\n"),
        (
            &["node", "ls", "--format", "{{.Hostname}}:{{.Status}}:{{if .Self}}*{{end}}"],
            "n1:Ready:*\nn2:Down:\nn3:Ready:\n",
        ),
        (&["network", "ls", "--filter", "name=gre"], "NETWORK ID   NAME      DRIVER    SCOPE\n"),
        (
            &[
                "network",
                "ls",
                "--filter",
                "label=team=x",
                "--format",
                "{{.Name}} {{.Label \"team\"}}",
            ],
            "blue x\n",
        ),
        (
            &["network", "ls", "--format", "json"],
            "{\"CreatedAt\":\"2027-01-15T07:00:00Z\",\"Driver\":\"overlay\",\"ID\":\"bbbbbbbbbbbb\",\
             \"IPv4\":\"true\",\"IPv6\":\"false\",\"Internal\":\"false\",\"Labels\":\"team=x\",\
             \"Name\":\"blue\",\"Scope\":\"cluster\"}\n",
        ),
        (&["service", "ls", "--format", "{{.Name}} {{.Replicas}}"], "web 2/3\n"),
        (
            &[
                "service",
                "ps",
                "web",
                "--filter",
                "desired-state=running",
                "--format",
                "{{.Name}} {{.Node}}",
            ],
            "web.1 n1\nweb.2 n1\n",
        ),
        (
            &[
                "ps",
                "--filter",
                "service=web",
                "--filter",
                "network=blue",
                "--format",
                "{{.Names}}",
            ],
            "web.1.dddd\n",
        ),
        (&["ps", "--filter", "status=exited", "-q"], ""),
    ];
    for (words, expected) in table {
        let found = daemon.run(words).await;
        assert_eq!((found.code, found.out.as_str()), (0, *expected), "{words:?} {}", found.err);
    }
}

#[tokio::test]
async fn inspect_has_dockers_names() {
    let daemon = daemon();
    let table: &[(&[&str], &str)] = &[
        (
            &[
                "inspect",
                "web.1.dddd",
                "--format",
                "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}} {{.State.Pid}} {{.Name}}",
            ],
            "10.0.1.3 4242 /web.1.dddd\n",
        ),
        (
            &[
                "inspect",
                "-f",
                "{{with index .NetworkSettings.Networks \"blue\"}}{{.Gateway}} \
            {{.IPPrefixLen}} {{.GlobalIPv6Address}} {{.MacAddress}} {{.Aliases}}{{end}}",
                "web.1.dddd",
            ],
            "10.0.1.1 24 fd00::3 02:42:0a:00:01:03 [web]\n",
        ),
        (
            &[
                "network",
                "inspect",
                "blue",
                "-f",
                "{{(index .IPAM.Config 0).Subnet}} {{.Driver}} \
            {{.Scope}} {{index .Options \"com.docker.network.driver.overlay.vxlanid_list\"}}",
            ],
            "10.0.1.0/24 overlay cluster 4097\n",
        ),
        (
            &[
                "network",
                "inspect",
                "blue",
                "-f",
                "{{range $id, $c := .Containers}}{{slice $id 0 4}} {{$c.Name}} {{$c.IPv4Address}}{{end}} {{range .Peers}}{{.Name}}={{.IP}}{{end}}",
            ],
            "dddd web.1.dddd 10.0.1.3/24 n1=10.9.0.1\n",
        ),
        (
            &[
                "service",
                "inspect",
                "web",
                "-f",
                "{{.Spec.Mode.Replicated.Replicas}} \
            {{.Spec.TaskTemplate.ContainerSpec.Image}} {{range .Endpoint.VirtualIPs}}{{.Addr}}{{end}}",
            ],
            "3 rootfs:/ 10.0.1.2/24\n",
        ),
        (
            &[
                "node",
                "inspect",
                "n1",
                "--format",
                "{{.Status.State}} {{.Status.Addr}} {{.Spec.Role}} {{.ManagerStatus.Leader}} {{.Spec.Labels.zone}}",
            ],
            "ready 10.9.0.1 manager true a\n",
        ),
        (&["inspect", "blue", "--format", "{{.Id}}"], &(id("b") + "\n")),
        (
            &["inspect", "--type", "task", "web.1", "-f", "{{.Status.State}}: {{.Status.Err}}"],
            "failed: exit code 1\n",
        ),
    ];
    for (words, expected) in table {
        let found = daemon.run(words).await;
        assert_eq!((found.code, found.out.as_str()), (0, *expected), "{words:?} {}", found.err);
    }
    let found = daemon.run(&["inspect", "blue", "nope"]).await;
    assert_eq!((found.code, found.err.as_str()), (1, "error: inspect: no such object: nope\n"));
    let value: serde_json::Value = serde_json::from_str(&found.out).unwrap();
    assert_eq!(value[0]["Name"], "blue");
    assert!(found.out.starts_with("[\n    {\n        \"Name\": \"blue\",\n"), "{}", found.out);
    let found = daemon.run(&["network", "inspect", "nope"]).await;
    assert_eq!((found.code, found.out.as_str()), (1, "[]\n"));
}

#[tokio::test]
async fn texts_for_people() {
    let daemon = daemon();
    daemon.fake.state().info = InfoResponse {
        version: "0.1.0".into(),
        hostname: "n1".into(),
        cluster_active: true,
        node_id: id("1"),
        cluster_id: "c1".into(),
        is_manager: true,
        node_addr: "10.9.0.1".into(),
        data_path_addr: "10.9.0.1".into(),
        managers: vec!["10.9.0.1:2377".into()],
        manager_count: 1,
        node_count: 3,
        cluster: Some(ClusterSpec {
            default_address_pools: vec!["10.0.0.0/8".into()],
            subnet_size: 24,
            data_path_port: 4789,
            task_history_limit: 5,
            encrypt_overlays: true,
            wireguard_port: 51_820,
            key_rotation: Some(WireDuration { seconds: 24 * 3600, nanos: 0 }),
            ..Default::default()
        }),
        wireguard: "userspace (the kernel has no WireGuard)".into(),
        raft: Some(RaftHealth { term: 2, leader: id("1"), ..Default::default() }),
        data_path: Some(DataPathHealth::default()),
        memory_bytes: 3 << 29,
        ..Default::default()
    };
    insta::assert_snapshot!(daemon.run(&["info"]).await.out, @r#"
    Server Version: 0.1.0
    Name: n1
    Containers: 0
     Running: 0
     Stopped: 0
    Cluster: active
     NodeID: 1111111111111111111111111111111111111111111111111111111111111111
     Is Manager: true
     ClusterID: c1
     Managers: 1
     Nodes: 3
     Default Address Pool: 10.0.0.0/8
     SubnetSize: 24
     Data Path Port: 4789
     Encrypt Overlays: true
     WireGuard Port: 51820
     Key Rotation: 24h0m0s
     Orchestration:
      Task History Retention Limit: 5
     Node Address: 10.9.0.1
     Data Path Address: 10.9.0.1
     Manager Addresses:
      10.9.0.1:2377
    Raft: healthy
     Leader: 1111111111111111111111111111111111111111111111111111111111111111
     Term: 2
     Last Log: 0
     Committed: 0
     Applied: 0
     Snapshot: 0
     Voters: 
    Data Path: healthy
     Networks: 0
     Attachments: 0
     Applied Revision: 0
     Repairs: 0
    WireGuard: userspace (the kernel has no WireGuard)
    Kernel Version: 
    Cgroup Version: 
    CPUs: 0
    Total Memory: 1.50GiB
    Weft Root Dir: 
    Weft Run Dir:
    "#);
    insta::assert_snapshot!(daemon.run(&["node", "inspect", "--pretty", "n1"]).await.out, @r#"
    ID:			1111111111111111111111111111111111111111111111111111111111111111
    Labels:
     - zone=a
    Hostname:		n1
    Joined at:		2027-01-15T07:00:00Z
    Status:
     State:			Ready
     Availability:		Active
     Address:		10.9.0.1
    Manager Status:
     Address:		10.9.0.1:2377
     Raft Status:		Reachable
     Leader:		Yes
    Platform:
     Operating System:	linux
     Architecture:		x86_64
    Resources:
     CPUs:			2
     Memory:		1024MiB
    Engine Version:		0.1.0
    "#);
    insta::assert_snapshot!(daemon.run(&["service", "inspect", "--pretty", "web"]).await.out, @r#"
    ID:		5555555555555555555555555555555555555555555555555555555555555555
    Name:		web
    Service Mode:	Replicated
     Replicas:	3
    ContainerSpec:
     Image:		rootfs:/
     Args:		sleep 1000
     Env:		A=1 B=2
    Networks:	bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb
    Endpoint Mode:	vip
    "#);
    let found = daemon.run(&["info", "-f", "{{.Swarm.LocalNodeState}} {{.Cluster.NodeID}}"]).await;
    assert_eq!(found.out, format!("active {}\n", id("1")));
    daemon.fake.state().info.cluster_active = false;
    let found = daemon.run(&["info"]).await.out;
    assert!(found.contains("Cluster: inactive\n") && !found.contains("NodeID"), "{found}");
}

#[tokio::test]
async fn the_life_of_a_cluster() {
    let daemon = daemon();
    daemon.fake.state().token = JoinTokenResponse {
        token: "WFTKN-1-x".into(),
        addr: "10.9.0.1:2377".into(),
        expires_at: None,
    };
    let found = daemon.run(&["cluster", "init"]).await;
    assert_eq!(
        found.out,
        "Cluster initialized: current node (n1) is now a manager.\n\n\
         To add a worker to this cluster, run the following command:\n\n    \
         weft cluster join --token WFTKN-1-aaa-bbb 10.0.0.1:2377\n\n\
         To add a manager to this cluster, run 'weft cluster join-token manager' and follow the \
         instructions.\n\n"
    );
    let table: &[(&[&str], &str)] = &[
        (
            &["cluster", "join", "--token", "x-w", "m1:2377"],
            "This node joined a cluster as a worker.\n",
        ),
        (
            &["cluster", "join", "--token", "x-m", "m1"],
            "This node joined a cluster as a manager.\n",
        ),
        (&["cluster", "join-token", "-q", "worker"], "WFTKN-1-x\n"),
        (
            &["cluster", "join-token", "manager"],
            "To add a manager to this cluster, run the following command:\n\n    \
             weft cluster join --token WFTKN-1-x 10.9.0.1:2377\n\n",
        ),
        (&["cluster", "leave", "--force"], "Node left the cluster.\n"),
        (&["node", "rm", "n2"], "n2\n"),
        (&["node", "update", "--availability", "drain", "n1"], "n1\n"),
        (&["node", "promote", "n2"], "Node n2 promoted to a manager in the cluster.\n"),
        (&["node", "promote", "n1"], "Node n1 is already a manager.\n"),
        (&["node", "demote", "n3"], "Manager n3 demoted in the cluster.\n"),
        (&["network", "rm", "blue"], "blue\n"),
        (&["network", "prune", "-f"], "Deleted Networks:\nblue\n\n"),
        (&["service", "rm", "web"], "web\n"),
        (&["stop", "web.1.dddd"], "web.1.dddd\n"),
        (&["kill", "-s", "USR1", "web.1.dddd"], "web.1.dddd\n"),
    ];
    for (words, expected) in table {
        let found = daemon.run(words).await;
        assert_eq!((found.code, found.out.as_str()), (0, *expected), "{words:?} {}", found.err);
    }
    let state = daemon.fake.state();
    let roles: Vec<Option<i32>> = state.node_updates.iter().map(|update| update.role).collect();
    assert_eq!(roles, [None, Some(Role::Manager.into()), Some(Role::Worker.into())]);
    assert_eq!(state.killed[0].signal, 10);
}

#[tokio::test]
async fn a_client_certificate_is_three_files_and_the_key_is_secret() {
    use std::os::unix::fs::PermissionsExt;
    let (daemon, dir) = (daemon(), tempfile::tempdir().unwrap());
    let path = dir.path().to_str().unwrap();
    let found = daemon.run(&["cluster", "client-cert", "ci", "--dir", path]).await;
    assert_eq!(found.code, 0, "{found:?}");
    let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    assert_eq!((read("ci.crt").as_str(), read("ca.crt").as_str()), ("CERT\n", "ROOT\n"));
    assert!(read("ci.key").contains("PRIVATE KEY"));
    let mode = std::fs::metadata(dir.path().join("ci.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn the_flags_of_a_network_arrive() {
    let daemon = daemon();
    let found = daemon
        .run(&[
            "network",
            "create",
            "-d",
            "overlay",
            "--subnet",
            "10.0.9.0/24",
            "--subnet",
            "fd09::/64",
            "--gateway",
            "10.0.9.1",
            "--ip-range",
            "10.0.9.128/25",
            "--aux-address",
            "r=fd09::5",
            "--ipv6",
            "--internal",
            "--attachable",
            "--label",
            "a=b",
            "-o",
            "encrypted",
            "green",
        ])
        .await;
    assert_eq!((found.code, found.out), (0, format!("{}\n", "ab".repeat(32))), "{}", found.err);
    let spec = daemon.fake.state().created_networks[0].clone();
    assert_eq!((spec.name.as_str(), spec.driver.as_str()), ("green", "overlay"));
    assert!(
        spec.internal && spec.attachable && spec.ipv6 && spec.options.contains_key("encrypted")
    );
    assert_eq!(spec.ipam[0].ip_range, "10.0.9.128/25");
    assert_eq!(spec.ipam[0].gateway, "10.0.9.1");
    assert_eq!(spec.ipam[1].aux_addresses["r"], "fd09::5");
    let bad: &[(&[&str], &str)] = &[
        (&["--subnet", "10.0.9.0/24", "--gateway", "10.0.8.1"], "10.0.8.1: it is in no --subnet"),
        (&["--gateway", "10.0.8.1"], "10.0.8.1: no --subnet is given"),
        (
            &["--subnet", "10.0.0.0/16", "--subnet", "10.0.9.0/24"],
            "10.0.9.0/24 overlaps 10.0.0.0/16",
        ),
        (&["-d", "overlay", "--scope", "local"], "an overlay network is always scope cluster"),
    ];
    for (flags, why) in bad {
        let words: Vec<&str> =
            ["network", "create", "x"].into_iter().chain(flags.iter().copied()).collect();
        let found = daemon.run(&words).await;
        assert_eq!(found.code, 2, "{flags:?}");
        assert!(found.err.contains(why), "{}", found.err);
    }
    assert_eq!(daemon.fake.state().created_networks.len(), 1);
}

#[tokio::test]
async fn an_update_sends_the_whole_spec_and_the_version_it_was_made_from() {
    let daemon = daemon();
    let found = daemon
        .run(&[
            "service",
            "update",
            "-d",
            "--image",
            "x",
            "--args",
            "sleep 5",
            "--env-add",
            "A=9",
            "--env-add",
            "C=3",
            "--env-rm",
            "B",
            "--network-rm",
            "blue",
            "--replicas",
            "4",
            "web",
        ])
        .await;
    assert_eq!((found.code, found.out.as_str()), (0, "web\n"), "{}", found.err);
    let update = daemon.fake.state().updated[0].clone();
    let spec = update.spec.unwrap();
    let container = spec.container.unwrap();
    assert_eq!((update.version, update.service), (3, id("5")));
    assert_eq!(container.image, "x");
    assert_eq!(container.args, ["sleep", "5"]);
    assert_eq!(container.env, ["A=9", "C=3"]);
    assert!(spec.networks.is_empty());
    let found = daemon.run(&["service", "update", "-d", "--network-rm", "green", "web"]).await;
    assert_eq!(found.code, 1);
    assert!(found.err.contains("the service is not on that network"), "{}", found.err);
}

#[tokio::test]
async fn a_stale_version_is_read_again_and_a_lost_leader_waited_for_with_one_request_id() {
    let daemon = daemon();
    daemon.fake.state().refuse = [Status::aborted("stale")].into();
    let found = daemon.run(&["service", "scale", "-d", "web=5"]).await;
    assert_eq!((found.code, found.out.as_str()), (0, "web scaled to 5\n"), "{}", found.err);
    let ids = daemon.fake.state().request_ids.clone();
    assert_eq!(ids.len(), 2);
    assert_ne!(ids[0], ids[1]);

    daemon.fake.state().request_ids.clear();
    daemon.fake.state().refuse =
        [Status::unavailable("no leader"), Status::unavailable("x")].into();
    let found = daemon.run(&["service", "create", "-d", "rootfs:/"]).await;
    assert_eq!(found.code, 0, "{}", found.err);
    let ids = daemon.fake.state().request_ids.clone();
    assert_eq!(ids.len(), 3);
    assert!(ids.iter().all(|id| *id == ids[0] && id.len() == 32), "{ids:?}");
    assert_eq!(daemon.fake.state().created.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_does_not_come_back_is_given_up() {
    let daemon = daemon();
    daemon.fake.state().refuse = vec![Status::unavailable("no leader"); 1000].into();
    let found = daemon.run(&["network", "rm", "blue"]).await;
    assert_eq!(found.code, 1);
    assert!(found.err.starts_with("error: network rm blue: no leader\nhint: "), "{}", found.err);
}

#[tokio::test]
async fn a_refusal_is_one_line_with_its_hint_and_the_others_go_on() {
    let daemon = daemon();
    let mut green = blue();
    green.spec.as_mut().unwrap().name = "green".into();
    daemon.fake.state().networks.push(green);
    let mut metadata = MetadataMap::new();
    metadata.insert_bin("weft-hint-bin", MetadataValue::from_bytes(b"weft service rm web"));
    let refusal =
        Status::with_metadata(Code::FailedPrecondition, "used by service web\u{1b}[2J", metadata);
    daemon.fake.state().refuse = [refusal].into();
    let found = daemon.run(&["network", "rm", "blue", "green"]).await;
    assert_eq!((found.code, found.out.as_str()), (1, "green\n"));
    assert_eq!(
        found.err,
        "error: network rm blue: used by service web\\u{1b}[2J\nhint: weft service rm web\n"
    );
    daemon.fake.state().refuse = [Status::not_found("no network x")].into();
    let found = daemon.run(&["network", "rm", "-f", "x"]).await;
    assert_eq!((found.code, found.out.as_str(), found.err.as_str()), (0, "", ""));
}

#[tokio::test]
async fn exec_takes_over_output_and_code_and_its_own_failures_are_125() {
    let daemon = daemon();
    let answer = |response| ExecResponse { response: Some(response) };
    daemon.fake.state().exec = vec![
        answer(ExecAnswer::Started(true)),
        answer(ExecAnswer::Stdout(b"out\xff\n".to_vec())),
        answer(ExecAnswer::Stderr(b"err\n".to_vec())),
        answer(ExecAnswer::ExitCode(42)),
    ];
    // The output is not text: only the exit code is looked at here.
    daemon.fake.state().exec[1] = answer(ExecAnswer::Stdout(b"out\n".to_vec()));
    let found = daemon.run(&["exec", "-e", "A=1", "-w", "/tmp", "web.1", "ls", "-l"]).await;
    assert_eq!((found.code, found.out.as_str(), found.err.as_str()), (42, "out\n", "err\n"));
    let first = daemon.fake.state().execs[0].request.clone();
    let Some(exec_request::Request::Start(start)) = first else { panic!("{first:?}") };
    assert_eq!(
        (start.args.len(), start.env[0].as_str(), start.workdir.as_str()),
        (2, "A=1", "/tmp")
    );

    let found = daemon.run(&["exec", "-d", "web.1", "sleep", "1"]).await;
    assert_eq!((found.code, found.out.as_str()), (0, ""));
    daemon.fake.state().exec = vec![answer(ExecAnswer::Started(true))];
    let found = daemon.run(&["exec", "web.1", "ls"]).await;
    assert_eq!(found.code, 125);
    assert!(found.err.contains("the daemon ended the session"), "{}", found.err);
    daemon.fake.state().exec.clear();
    let found = daemon.run(&["exec", "nope", "ls"]).await;
    assert_eq!((found.code, found.err.as_str()), (125, "error: exec nope: no such container\n"));
}

#[tokio::test]
async fn logs_name_the_task_and_keep_the_streams_apart() {
    let daemon = daemon();
    let line = |task: &str, stream: LogStream, text: &str| ServiceLogsResponse {
        task_id: id("7"),
        task_name: task.into(),
        node_hostname: "n1".into(),
        record: Some(LogRecord {
            time: at(0),
            stream: stream.into(),
            data: text.as_bytes().to_vec(),
        }),
        ..Default::default()
    };
    daemon.fake.state().logs =
        vec![line("web.1", LogStream::Stdout, "hello\n"), line("web.1", LogStream::Stderr, "oops")];
    let found = daemon.run(&["service", "logs", "web"]).await;
    assert_eq!(found.out, "web.1.777777777777@n1    | hello\n");
    assert_eq!(found.err, "web.1.777777777777@n1    | oops\n");
    let found = daemon.run(&["service", "logs", "--raw", "-t", "web"]).await;
    assert_eq!(found.out, "2027-01-15T08:00:00Z hello\n");
    let found = daemon.run(&["logs", "web.1.dddd"]).await;
    assert_eq!((found.out.as_str(), found.err.as_str()), ("hello\n", "oops\n"));
}

#[tokio::test]
async fn an_absent_daemon_is_125_with_the_way_to_start_it() {
    let cli =
        weft::run::read(&["weft", "-H", "unix:///nowhere/weft.sock", "node", "ls"].map(Into::into));
    let error = weft::client::Client::connect(&cli.unwrap().connection).await.unwrap_err();
    let mut text = Vec::new();
    error.report(&mut text);
    assert_eq!(error.exit_code(), 125);
    assert_eq!(
        String::from_utf8(text).unwrap(),
        "error: unix:///nowhere/weft.sock: cannot reach the daemon: no such file or directory\n\
         hint: start it with `weft daemon`, or name another one with -H or WEFT_HOST\n"
    );
}

fn tunnel() -> NodeTunnel {
    NodeTunnel {
        engine: TunnelEngine::Userspace.into(),
        reason: "the kernel has no WireGuard".into(),
        lanes: 2,
        public_key: vec![7; 32],
        generation: 3,
        since: at(-7200),
        rotation: KeyRotation::Distributed.into(),
        address: "100.64.0.3".into(),
        port: 51_821,
        waiting_for: vec!["n2".into(), "n3".into()],
    }
}

fn links() -> NodeLinksResponse {
    let count = |reason: &str, count: u64| (reason.to_owned(), count);
    NodeLinksResponse {
        peers: vec![
            TunnelPeer {
                node_id: id("2"),
                hostname: "n2".into(),
                endpoint: "10.9.0.2:51820".into(),
                handshake_age: Some(WireDuration { seconds: 12, nanos: 500_000_000 }),
                sent_bytes: 1_214_567,
                received_bytes: 12_340,
                drops: [count("replayed", 2), count("forged", 3)].into(),
            },
            TunnelPeer {
                node_id: id("3"),
                hostname: "n3".into(),
                endpoint: "[fd99::3]:51820".into(),
                ..Default::default()
            },
        ],
        drops: [count("malformed", 9)].into(),
    }
}

#[tokio::test]
async fn a_node_is_shown_with_its_encrypted_links() {
    let daemon = daemon();
    for node in &mut daemon.fake.state().nodes {
        node.tunnel = Some(tunnel());
    }
    daemon.fake.state().links = vec![(id("1"), links())];
    let found = daemon.run(&["node", "inspect", "n1", "--format", "{{json .Tunnel}}"]).await;
    assert_eq!((found.code, found.err.as_str()), (0, ""));
    let value: serde_json::Value = serde_json::from_str(&found.out).unwrap();
    let expected = serde_json::json!({
        "Engine": "userspace",
        "Reason": "the kernel has no WireGuard",
        "PublicKey": "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=",
        "Generation": 3,
        "Since": "2027-01-15T06:00:00Z",
        "Rotation": "distributed",
        "WaitingFor": ["n2", "n3"],
        "Address": "100.64.0.3",
        "Port": 51_821,
        "Lanes": 2,
        "Ports": [51_821, 51_823],
        "Links": [
            {
                "NodeID": id("2"),
                "Hostname": "n2",
                "Endpoint": "10.9.0.2:51820",
                "HandshakeAge": 12_500_000_000_i64,
                "SentBytes": 1_214_567,
                "ReceivedBytes": 12_340,
                "Drops": {"forged": 3, "replayed": 2},
            },
            {
                "NodeID": id("3"),
                "Hostname": "n3",
                "Endpoint": "[fd99::3]:51820",
                "HandshakeAge": null,
                "SentBytes": 0,
                "ReceivedBytes": 0,
                "Drops": {},
            },
        ],
        "Drops": {"malformed": 9},
    });
    assert_eq!(value, expected);
    let pretty = daemon.run(&["node", "inspect", "--pretty", "n1"]).await.out;
    let (_, part) = pretty.split_once("WireGuard:\n").unwrap();
    insta::assert_snapshot!(part, @r#"
     Engine:		userspace (the kernel has no WireGuard)
     Public Key:		BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=
     Generation:		3 (2 hours ago)
     Rotation:		distributed, waiting for n2, n3
     Tunnel Address:	100.64.0.3
     Ports:			51821/udp 51823/udp
    Links:
     NODE      ENDPOINT          HANDSHAKE        SENT      RECEIVED   DROPPED
     n2        10.9.0.2:51820    12 seconds ago   1.21MB    12.3kB     3 forged, 2 replayed
     n3        [fd99::3]:51820   never            0B        0B         -
    Dropped From Nobody:	9 malformed
    "#);

    // Of a node that is away everything else is shown, and what is missing is said.
    let found = daemon.run(&["node", "inspect", "n2"]).await;
    assert_eq!(found.err, "note: links of n2 are not shown: it does not answer\n");
    let value: serde_json::Value = serde_json::from_str(&found.out).unwrap();
    assert_eq!((found.code, &value[0]["Tunnel"]["Generation"]), (0, &3.into()));
    assert_eq!(value[0]["Tunnel"].get("Links"), None);
    let found = daemon.run(&["node", "inspect", "--pretty", "n2"]).await;
    assert!(found.err.starts_with("note: ") && !found.out.contains("Links"), "{found:?}");

    // One that has not said a key is not asked.
    daemon.fake.state().nodes[0].tunnel = None;
    let found = daemon.run(&["node", "inspect", "n2", "--format", "{{json .}}"]).await;
    assert!(found.err.is_empty() && !found.out.contains("Tunnel"), "{found:?}");
}

#[tokio::test]
async fn keys_are_rotated_by_hand_and_by_period() {
    let daemon = daemon();
    let found = daemon.run(&["node", "update", "--rotate-key", "n2"]).await;
    assert_eq!((found.code, found.out.as_str()), (0, "n2\n"), "{}", found.err);
    assert_eq!(daemon.fake.state().rotated, ["n2"]);
    assert!(daemon.fake.state().node_updates.is_empty());
    let words = ["node", "update", "--rotate-key", "--availability", "drain", "n3"];
    assert_eq!(daemon.run(&words).await.code, 0);
    assert_eq!(daemon.fake.state().rotated, ["n2", "n3"]);
    assert_eq!(daemon.fake.state().node_updates.len(), 1);
    let found = daemon.run(&["node", "update", "--rotate-key", "nosuch"]).await;
    assert_eq!((found.code, found.out.as_str()), (1, ""));
    assert!(found.err.starts_with("error: node update nosuch: "), "{}", found.err);

    let init = ["cluster", "init", "--encrypt-overlays", "--wireguard-port", "51900"];
    assert_eq!(daemon.run(&[&init[..], &["--key-rotation", "0"]].concat()).await.code, 0);
    assert_eq!(daemon.run(&["cluster", "init"]).await.code, 0);
    let inits = daemon.fake.state().inits.clone();
    assert!(inits[0].encrypt_overlays && !inits[1].encrypt_overlays);
    assert_eq!((inits[0].wireguard_port, inits[1].wireguard_port), (51_900, 51_820));
    let never = WireDuration { seconds: 0, nanos: 0 };
    assert_eq!((inits[0].key_rotation, inits[1].key_rotation), (Some(never), None));

    let update = ["cluster", "update", "--encrypt-overlays=false", "--key-rotation", "1h"];
    assert_eq!(daemon.run(&update).await.out, "Cluster updated.\n");
    let sent = daemon.fake.state().cluster_updates[0].clone();
    assert_eq!((sent.encrypt_overlays, sent.wireguard_port), (Some(false), None));
    assert_eq!(sent.key_rotation.map(|period| period.seconds), Some(3600));
}

#[tokio::test]
async fn a_network_says_whether_it_is_encrypted() {
    let daemon = daemon();
    let shown = async |expected: &str| {
        let format = "{{.Encrypted}} {{json .Options}}";
        let found = daemon.run(&["network", "inspect", "blue", "-f", format]).await;
        assert_eq!(found.out, expected, "{}", found.err);
    };
    shown("false {\"com.docker.network.driver.overlay.vxlanid_list\":\"4097\"}\n").await;
    // By the cluster's default: nothing was said.
    daemon.fake.state().networks[0].encrypted = true;
    shown("true {\"com.docker.network.driver.overlay.vxlanid_list\":\"4097\"}\n").await;
    let spec = daemon.fake.state().networks[0].spec.as_mut().map(|spec| {
        spec.options.insert("encrypted".into(), String::new());
    });
    assert!(spec.is_some());
    shown(
        "true {\"com.docker.network.driver.overlay.vxlanid_list\":\"4097\",\"encrypted\":\"\"}\n",
    )
    .await;
}
