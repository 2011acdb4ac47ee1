//! `run` and what is done to its containers, against a daemon that answers as told: what is sent,
//! what is printed, and with which exit code it ends.

// Helpers of tests panic like tests.
#![allow(clippy::unwrap_used)]

mod fake;

use std::collections::BTreeMap;

use fake::{Daemon, NOW};
use tonic::{
    Code, Status,
    metadata::{MetadataMap, MetadataValue},
};
use weft_proto::v1::{attach_container_response::Response as Answer, *};
use weft_proto::well_known::{Duration, Timestamp};

fn at(seconds: i64) -> Option<Timestamp> {
    Some(Timestamp { seconds: NOW + seconds, nanos: 0 })
}

fn answer(response: Answer) -> AttachContainerResponse {
    AttachContainerResponse { response: Some(response) }
}

fn ids() -> String {
    "c".repeat(64)
}

/// The spec that a line of `run` asks for.
async fn asked(line: &str) -> RunSpec {
    let daemon = Daemon::start();
    let words = weft::args::values::words(line).unwrap().0;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let found = daemon.run(&words).await;
    assert_eq!(found.code, 0, "{line}: {}", found.err);
    let spec = daemon.fake.state().runs.pop();
    spec.unwrap_or_else(|| panic!("{line}: nothing was made"))
}

#[tokio::test]
async fn detached_prints_the_id_and_warns() {
    let daemon = Daemon::start();
    let found = daemon.run(&["run", "-d", "--name", "web", "rootfs:/srv", "httpd", "-f"]).await;
    assert_eq!((found.code, found.out), (0, format!("{}\n", ids())));
    assert_eq!(found.err, "warning: no memory limit: no cgroup controller\n");
    let state = daemon.fake.state();
    assert_eq!(state.deeds, ["create web", &format!("start {}", ids())]);
    assert!(state.request_ids.iter().all(|id| id.len() == 32));
}

#[tokio::test]
async fn in_the_foreground_output_and_exit_code_are_the_commands() {
    let daemon = Daemon::start();
    daemon.fake.state().attached = vec![
        answer(Answer::Stdout(b"out\n".to_vec())),
        answer(Answer::Stderr(b"err\n".to_vec())),
        answer(Answer::ExitCode(3)),
    ];
    let found = daemon.run(&["run", "--rm", "rootfs:/srv", "sh"]).await;
    assert_eq!((found.code, found.out.as_str()), (3, "out\n"));
    assert!(found.err.ends_with("err\n"), "{}", found.err);
    let id = ids();
    // Attached before the start, so that nothing is missed; gone before it returns.
    let deeds = daemon.fake.state().deeds.clone();
    let wanted = [
        "create ".to_owned(),
        format!("attach {id} stdin=false"),
        format!("start {id}"),
        format!("wait {id}"),
    ];
    assert_eq!(deeds, wanted);
}

#[tokio::test]
async fn failures_count_as_in_docker() {
    let not_started = |code: &'static str, text: &str| {
        let mut metadata = MetadataMap::new();
        metadata.insert("weft-exit-code", MetadataValue::from_static(code));
        Status::with_metadata(Code::FailedPrecondition, text, metadata)
    };
    for (code, text) in [("127", "no such program"), ("126", "permission denied")] {
        let daemon = Daemon::start();
        daemon.fake.state().refuse_start.push_back(not_started(code, text));
        let found = daemon.run(&["run", "-d", "rootfs:/srv", "nope"]).await;
        assert_eq!(found.code.to_string(), code);
        assert!(found.err.ends_with(&format!("error: start cccccccccccc: {text}\n")));
        assert_eq!(found.out, "");
    }
    let daemon = Daemon::start();
    let conflict = "the name web is in use by container cccccccccccc";
    daemon.fake.state().refuse.push_back(Status::already_exists(conflict));
    let found = daemon.run(&["run", "-d", "--name", "web", "rootfs:/srv", "sh"]).await;
    assert_eq!((found.code, found.err), (125, format!("error: run: {conflict}\n")));
}

#[tokio::test]
async fn what_cannot_be_started_is_removed_with_rm() {
    for (words, left) in [(&["run", "-d", "--rm"][..], false), (&["run", "-d"], true)] {
        let daemon = Daemon::start();
        daemon.fake.state().refuse_start.push_back(Status::failed_precondition("port in use"));
        let words: Vec<&str> = words.iter().copied().chain(["rootfs:/srv", "sh"]).collect();
        assert_eq!(daemon.run(&words).await.code, 125);
        let removed = format!("rm {} by force", ids());
        assert_eq!(!daemon.fake.state().deeds.contains(&removed), left, "{words:?}");
    }
}

#[tokio::test]
async fn ports_of_a_container_without_a_network_of_its_own() {
    let daemon = Daemon::start();
    let found = daemon.run(&["run", "-d", "--net", "host", "-p", "80:80", "rootfs:/", "sh"]).await;
    assert_eq!(found.code, 0, "{}", found.err);
    assert!(found.err.contains("warning: published ports are discarded"), "{}", found.err);
    assert!(daemon.fake.state().runs[0].publish.is_empty());
    let words = ["run", "-d", "--net", "container:web", "-p", "80:80", "rootfs:/", "sh"];
    let found = daemon.run(&words).await;
    assert_eq!(found.code, 125, "{}", found.err);
    assert_eq!(daemon.fake.state().runs.len(), 1);
}

#[tokio::test]
async fn attach_takes_over_output_and_code_of_a_container_that_runs() {
    let daemon = Daemon::start();
    let container = |name: &str, status: &str| Container {
        name: name.into(),
        status: status.into(),
        ..Default::default()
    };
    daemon.fake.state().containers = vec![container("web", "running"), container("old", "exited")];
    daemon.fake.state().attached =
        vec![answer(Answer::Stdout(b"out\n".to_vec())), answer(Answer::ExitCode(4))];
    for words in [&["attach", "web"][..], &["container", "attach", "web"]] {
        let found = daemon.run(words).await;
        assert_eq!((found.code, found.out.as_str()), (4, "out\n"), "{}", found.err);
    }
    let found = daemon.run(&["attach", "old"]).await;
    assert_eq!(
        (found.code, found.err.as_str()),
        (1, "error: attach old: the container is exited, not running\nhint: weft start -a old\n")
    );
}

#[tokio::test]
async fn a_state_that_does_not_exist_is_wrong_usage() {
    let daemon = Daemon::start();
    let found = daemon.run(&["ps", "--filter", "status=runing"]).await;
    assert_eq!(found.code, 2, "{}", found.err);
    assert!(found.err.contains("use created, restarting, running"), "{}", found.err);
    assert_eq!(daemon.run(&["ps", "--filter", "status=running"]).await.code, 0);
}

#[tokio::test]
async fn the_flags_of_the_network_become_endpoints() {
    let spec = asked(
        "run -d --network shop --network-alias a --net-alias b --ip 10.0.0.5 --ip6 fd00::5 \
         --mac-address 02:42:0a:00:00:05 --network name=back,alias=c --link db:database \
         -p 8080:80 -p 127.0.0.1:53:53/udp -P --expose 90 rootfs:/srv sh",
    )
    .await;
    let [shop, back] = &spec.networks[..] else { panic!("{:?}", spec.networks) };
    assert_eq!(shop.network, "shop");
    assert_eq!(shop.aliases, ["a", "b"]);
    assert_eq!(shop.addresses, ["10.0.0.5", "fd00::5"]);
    assert_eq!(shop.mac_address, "02:42:0a:00:00:05");
    assert_eq!((back.network.as_str(), &back.aliases[..]), ("back", &["c".to_owned()][..]));
    assert_eq!(spec.links, ["db:database"]);
    assert!(spec.publish_all);
    assert_eq!(spec.expose, ["90/tcp"]);
    assert_eq!((spec.publish[0].host_port, spec.publish[0].container_port), (8080, 80));
    assert_eq!(
        (spec.publish[1].host_ip.as_str(), spec.publish[1].protocol.as_str()),
        ("127.0.0.1", "udp")
    );
    assert_eq!(asked("run -d --net host rootfs:/srv sh").await.network_mode, "host");
    let spec = asked("run -d --network container:web rootfs:/srv sh").await;
    assert_eq!(spec.network_mode, "container:web");
    assert!(asked("run -d rootfs:/srv sh").await.networks.is_empty());
}

#[tokio::test]
async fn the_flags_of_the_process_become_the_container() {
    let dir = tempfile::tempdir().unwrap();
    let (env, labels) = (dir.path().join("env"), dir.path().join("labels"));
    std::fs::write(&env, "# a comment\nA=1\n\nWEFT_TEST_UNSET_VARIABLE\n  B=x y\n").unwrap();
    std::fs::write(&labels, "k=v\n").unwrap();
    let line = format!(
        "run -d --env-file {} -e C=3 --label-file {} -l x=y -w /tmp -u 1000:1000 --entrypoint /bin/sh \
         --init --stop-signal INT --stop-timeout 3 -m 64m --cpus 0.5 --pids-limit 20 -v /a:/b:ro \
         --mount type=bind,source=/c,target=/d --tmpfs /run:size=1m --read-only --cap-add NET_ADMIN \
         --cap-drop ALL --sysctl net.core.somaxconn=9 --privileged --health-cmd 'true || false' \
         --health-interval 5s --health-retries 2 -h box --add-host db:10.0.0.9 --dns 1.1.1.1 \
         --dns-search ex.com --dns-opt ndots:2 --restart on-failure:3 -i -t rootfs:/srv -c 'echo hi'",
        env.display(),
        labels.display()
    );
    let run = asked(&line).await;
    assert_eq!(run.restart, "on-failure:3");
    let spec = run.container.unwrap();
    assert_eq!(spec.args, ["/bin/sh", "-c", "echo hi"]);
    assert_eq!(spec.env, ["A=1", "B=x y", "C=3"]);
    let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    assert_eq!(spec.labels, BTreeMap::from([label("k", "v"), label("x", "y")]));
    assert_eq!((spec.workdir.as_str(), spec.user.as_str()), ("/tmp", "1000:1000"));
    assert_eq!(spec.stop_grace_period, Some(Duration { seconds: 3, nanos: 0 }));
    let limits = Limits { memory_bytes: 64 << 20, nano_cpus: 500_000_000, pids: 20 };
    assert_eq!((spec.stop_signal, spec.limits), (2, Some(limits)));
    assert!(spec.init && spec.read_only && spec.privileged && spec.tty && spec.open_stdin);
    let mounts: Vec<_> =
        spec.mounts.iter().map(|m| (m.target.as_str(), m.read_only, m.make_source)).collect();
    assert_eq!(mounts, [("/b", true, true), ("/d", false, false), ("/run", false, false)]);
    assert_eq!((spec.cap_add, spec.cap_drop), (vec!["NET_ADMIN".into()], vec!["ALL".to_owned()]));
    let health = spec.health.unwrap();
    assert_eq!(
        (health.test, health.retries),
        (vec!["CMD-SHELL".to_owned(), "true || false".to_owned()], 2)
    );
    let off = asked("run -d --no-healthcheck rootfs:/srv sh").await.container.unwrap();
    assert_eq!(off.health.unwrap().test, ["NONE"]);
}

#[tokio::test]
async fn what_does_not_go_together_is_refused_before_anything_is_made() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let taken = format!("run -d --cidfile {} rootfs:/ sh", file.path().display());
    let cases = [
        ("run -d --network host --network shop rootfs:/ sh", "cannot be together"),
        ("run -d --network none --ip 10.0.0.1 rootfs:/ sh", "--ip: not with --network none"),
        ("run -d --network host --network-alias a rootfs:/ sh", "--network-alias: not with"),
        ("run -d --rm --restart always rootfs:/ sh", "--rm: not with --restart"),
        ("run -d --health-interval 5s rootfs:/ sh", "needs --health-cmd"),
        ("run -d --env-file /does/not/exist rootfs:/ sh", "--env-file /does/not/exist"),
        (&taken, "the file exists"),
    ];
    for (line, wanted) in cases {
        let daemon = Daemon::start();
        let words = weft::args::values::words(line).unwrap().0;
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let found = daemon.run(&words).await;
        assert_eq!(found.code, 125, "{line}: {}", found.err);
        assert!(found.err.contains(wanted), "{line}: {}", found.err);
        assert!(daemon.fake.state().deeds.is_empty(), "{line}");
    }
}

#[tokio::test]
async fn the_id_is_written_into_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cid");
    let daemon = Daemon::start();
    let words = ["create", "--cidfile", path.to_str().unwrap(), "rootfs:/", "sh"];
    assert_eq!(daemon.run(&words).await.out, format!("{}\n", ids()));
    assert_eq!(std::fs::read_to_string(path).unwrap(), ids());
    assert_eq!(daemon.fake.state().deeds, ["create "]);
}

#[tokio::test]
async fn what_is_done_to_containers() {
    let daemon = Daemon::start();
    let table: &[(&[&str], &str)] = &[
        (&["start", "web"], "web\n"),
        (&["restart", "-t", "1", "web"], "web\n"),
        (&["rm", "-f", "web", "db"], "web\ndb\n"),
        (&["wait", "web"], "7\n"),
        (&["p2p", "a", "b"], "a eth1 10.1.1.1/30\nb eth1 10.1.1.2/30\n"),
        (&["system", "prune", "-f"], "Deleted Containers:\nold\n\nDeleted Networks:\nblue\n\n"),
        (&["container", "prune", "-f"], "Deleted Containers:\nold\n\n"),
        (&["container", "stop", "web"], "web\n"),
    ];
    for (words, wanted) in table {
        let found = daemon.run(words).await;
        assert_eq!((found.code, found.out.as_str()), (0, *wanted), "{words:?} {}", found.err);
    }
    let deeds = daemon.fake.state().deeds.clone();
    assert_eq!(
        deeds,
        ["start web", "restart web", "rm web by force", "rm db by force", "wait web"]
    );
}

/// A container that `run` has made, with a published range.
fn web() -> Container {
    let port = |host_ip: &str, host_port, container_port| PortBinding {
        host_ip: host_ip.to_owned(),
        host_port,
        container_port,
        protocol: "tcp".to_owned(),
    };
    Container {
        id: ids(),
        name: "web".into(),
        image: "rootfs:/srv".into(),
        args: vec!["httpd".into(), "-f".into()],
        status: "running".into(),
        pid: 4711,
        created_at: at(-200),
        started_at: at(-180),
        networks: vec![ContainerNetwork {
            network_id: "b".repeat(64),
            network_name: "bridge".into(),
            addresses: vec!["172.17.0.2/16".into()],
            gateways: vec!["172.17.0.1".into()],
            mac_address: "02:42:ac:11:00:02".into(),
            ..Default::default()
        }],
        ports: vec![
            port("0.0.0.0", 8080, 80),
            port("0.0.0.0", 8081, 81),
            port("::", 8080, 80),
            port("::", 8081, 81),
            port("127.0.0.1", 9000, 90),
        ],
        exposed: vec!["53/udp".into()],
        restart_count: 2,
        health: Some(HealthStatus { status: "healthy".into(), ..Default::default() }),
        run: Some(RunSpec {
            container: Some(ContainerSpec {
                mounts: vec![Mount {
                    r#type: "bind".into(),
                    source: "/srv/data".into(),
                    target: "/data".into(),
                    read_only: true,
                    ..Default::default()
                }],
                ..Default::default()
            }),
            restart: "on-failure:5".into(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_container_is_shown_as_docker_shows_it() {
    let daemon = Daemon::start();
    daemon.fake.state().containers = vec![web()];
    let found = daemon.run(&["ps"]).await;
    let row = found.out.lines().nth(1).unwrap();
    let ports = "127.0.0.1:9000->90/tcp, [::]:8080-8081->80-81/tcp, 53/udp";
    assert!(row.contains(&format!("0.0.0.0:8080-8081->80-81/tcp, {ports}")), "{row}");
    assert!(row.contains("Up 3 minutes (healthy)"), "{row}");
    let found = daemon.run(&["port", "web"]).await;
    assert_eq!(
        found.out,
        "80/tcp -> 0.0.0.0:8080\n80/tcp -> [::]:8080\n81/tcp -> 0.0.0.0:8081\n\
         81/tcp -> [::]:8081\n90/tcp -> 127.0.0.1:9000\n"
    );
    assert_eq!(daemon.run(&["port", "web", "80"]).await.out, "0.0.0.0:8080\n[::]:8080\n");
    let found = daemon.run(&["port", "web", "81/udp"]).await;
    let wanted = "error: port web: no public port 81/udp published\n";
    assert_eq!((found.code, found.err.as_str()), (1, wanted));
    let templates = [
        ("{{.NetworkSettings.IPAddress}}", "172.17.0.2\n"),
        ("{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", "172.17.0.2\n"),
        ("{{(index (index .NetworkSettings.Ports \"80/tcp\") 0).HostPort}}", "8080\n"),
        ("{{.State.Pid}} {{.State.Health.Status}} {{.RestartCount}}", "4711 healthy 2\n"),
        ("{{.HostConfig.RestartPolicy.Name}}", "on-failure\n"),
        ("{{range .Mounts}}{{.Source}}:{{.Destination}} {{.RW}}{{end}}", "/srv/data:/data false\n"),
        ("{{json .HostConfig.PortBindings}}", ""),
    ];
    for (template, wanted) in templates {
        let found = daemon.run(&["inspect", "-f", template, "web"]).await;
        assert_eq!(found.code, 0, "{template}: {}", found.err);
        assert!(wanted.is_empty() || found.out == wanted, "{template}: {}", found.out);
    }
}

#[tokio::test]
async fn networks_of_the_node_and_of_the_cluster() {
    let network = |digit: &str, name: &str, driver: &str| Network {
        id: digit.repeat(64),
        spec: Some(NetworkSpec { name: name.into(), driver: driver.into(), ..Default::default() }),
        ..Default::default()
    };
    let daemon = Daemon::start();
    {
        let mut state = daemon.fake.state();
        state.local = vec![network("1", "bridge", "bridge"), network("2", "none", "null")];
        state.networks = vec![network("3", "blue", "overlay"), network("4", "shop", "overlay")];
        state.local.push(network("5", "shop", "bridge"));
    }
    let found =
        daemon.run(&["network", "ls", "--format", "{{.Name}} {{.Driver}} {{.Scope}}"]).await;
    assert_eq!(
        found.out,
        "blue overlay cluster\nbridge bridge local\nnone null local\nshop bridge local\n\
         shop overlay cluster\n"
    );
    let found = daemon.run(&["network", "inspect", "shop"]).await;
    assert!(
        found.err.contains("shop may be 555555555555 of this node or 444444444444"),
        "{found:?}"
    );
    assert_eq!(daemon.run(&["network", "create", "mine"]).await.out.len(), 65);
    assert_eq!(daemon.run(&["network", "create", "-d", "overlay", "ours"]).await.code, 0);
    let macvlan =
        ["network", "create", "-d", "macvlan", "--scope", "cluster", "-o", "parent=eth0", "m"];
    assert_eq!(daemon.run(&macvlan).await.code, 0);
    let connect = ["network", "connect", "--ip", "10.0.0.9", "--alias", "a", "mine", "web"];
    assert_eq!(daemon.run(&connect).await.code, 0);
    assert_eq!(daemon.run(&["network", "disconnect", "-f", "mine", "web"]).await.code, 0);
    let state = daemon.fake.state();
    let names = |specs: &[NetworkSpec]| specs.iter().map(|s| s.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&state.created_local), ["mine"]);
    assert_eq!(names(&state.created_networks), ["ours", "m"]);
    let endpoint = state.connected[0].endpoint.clone().unwrap();
    assert_eq!(
        (endpoint.network.as_str(), &endpoint.addresses[..]),
        ("mine", &["10.0.0.9".into()][..])
    );
    assert!(state.disconnected[0].force);
}
