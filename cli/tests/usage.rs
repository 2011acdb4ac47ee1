//! The command line itself: what is understood, what is refused, and with which exit code.

// Helpers of tests panic like tests.
#![allow(clippy::unwrap_used)]

use std::ffi::OsString;

use weft::{
    args::{Cli, Command, container::Verb, service::ServiceCommand},
    run::{Refusal, read, usage_code, usage_words},
};

fn parse(line: &str) -> Result<Cli, Refusal> {
    let words = weft::args::values::words(line).unwrap().0;
    let argv: Vec<OsString> =
        std::iter::once("weft".to_owned()).chain(words).map(OsString::from).collect();
    read(&argv)
}

/// The exit code and the text of a refusal.
fn refused(line: &str) -> (u8, String) {
    match parse(line) {
        Ok(cli) => panic!("{line}: understood as {cli:?}"),
        Err(Refusal::Ours(error)) => {
            let mut text = Vec::new();
            error.report(&mut text);
            (error.exit_code(), String::from_utf8(text).unwrap())
        }
        Err(Refusal::Clap(command, error)) => (usage_code(&command), usage_words(&command, &error)),
    }
}

#[test]
fn every_command_line_of_the_contract_is_understood() {
    let lines = [
        "daemon --state-dir /s --run-dir /r --node-name n --listen-addr 0.0.0.0:2377 \
         --metrics-addr 127.0.0.1:9323 --log-level debug --log-format json --wireguard userspace \
         --bridge br --bip 10.1.0.1/16 --fixed-cidr 10.1.1.0/24 --mtu 1400 --icc=false --ip 0.0.0.0 \
         --ip-forward=true --nftables=false --dns 1.1.1.1 --dns-search a --dns-opt ndots:0 \
         --default-address-pool base=10.1.0.0/16,size=24 --publish-respects-host-firewall",
        "cluster init --advertise-addr eth0:2377 --data-path-addr 10.0.0.1 --data-path-port 4790 \
         --default-addr-pool 10.0.0.0/8 --default-addr-pool 10.9.0.0/16 \
         --default-addr-pool-mask-length 24 --cert-expiry 24h --task-history-limit 5 \
         --encrypt-overlays --wireguard-port 51900 --key-rotation 0 --availability drain",
        "cluster join --token WFTKN-1-a-b --advertise-addr 10.0.0.2 --availability pause m1:2377",
        "cluster join-token worker -q",
        "cluster join-token manager --rotate",
        "cluster join-token worker --ttl 1h --uses 3",
        "cluster client-cert ci --ttl 24h",
        "cluster leave --force",
        "cluster update --task-history-limit 3 --cert-expiry 1h",
        "cluster update --encrypt-overlays --wireguard-port 51900 --key-rotation 12h",
        "node update --rotate-key n2",
        "cluster inspect --format {{.ID}}",
        "info",
        "info --format json",
        "version",
        "node ls -q --filter role=manager",
        "node inspect self --pretty",
        "node ps",
        "node update --availability drain --label-add a=b --label-rm c node1",
        "node promote a b",
        "node demote a",
        "node rm --force a",
        "network create -d overlay --subnet 10.0.9.0/24 --gateway 10.0.9.1 --ip-range 10.0.9.128/25 \
         --aux-address a=10.0.9.5 --ipv6 --internal --attachable --label a=b -o encrypted \
         --opt com.docker.network.driver.mtu=1400 --scope cluster blue",
        "network ls --filter driver=overlay --format '{{.Name}}' --no-trunc",
        "network inspect -f {{.Id}} blue green",
        "network rm blue",
        "network prune -f",
        "service create --name web --replicas 3 --network blue,alias=www --network name=green \
         --endpoint-mode dnsrr --constraint node.labels.zone==a --placement-pref \
         spread=node.labels.zone --replicas-max-per-node 2 --env A=1 -e B=2 --mount \
         type=bind,source=/a,target=/b --hostname h --host db:10.0.0.1 --dns 1.1.1.1 --label x=y \
         --restart-condition on-failure --restart-delay 5s --restart-max-attempts 3 \
         --stop-grace-period 10s --update-parallelism 1 --update-delay 1s --update-order start-first \
         --update-failure-action rollback --limit-memory 512m --limit-cpu 0.5 --user 1000 --cap-add NET_ADMIN \
         --cap-drop CHOWN --init --read-only --stop-signal INT --sysctl net.ipv4.ip_forward=0 -d \
         rootfs:/ sleep 1000",
        "service create --mode global nginx",
        "service ls -q",
        "service ps web db --no-trunc --filter desired-state=running",
        "service inspect --pretty web",
        "service update --image x --args 'sleep 5' --replicas 2 --env-add A=1 --env-rm B --network-add \
         blue --network-rm green --constraint-add node.role==worker --label-add a=b --force web",
        "service update --rollback web",
        "doctor --format json",
        "service create --health-cmd 'wget -q localhost' --health-interval 5s --health-timeout 2s \
         --health-retries 3 --health-start-period 10s rootfs:/ sleep 1000",
        "service create --no-healthcheck rootfs:/ sleep 1000",
        "service update --cap-add NET_ADMIN --cap-drop CHOWN --init --read-only=false --stop-signal INT \
         --sysctl-add net.ipv4.ip_forward=0 --sysctl-rm net.core.somaxconn --health-cmd true \
         --health-interval 5s web",
        "service update --no-healthcheck web",
        "service scale web=5 db=1",
        "service rollback web",
        "service logs -f --tail 10 --since 10m -t web",
        "service rm web db",
        "ps -a -q --filter service=web --filter status=running",
        "inspect --type node self",
        "exec -i -t -e A=1 -w /tmp web.1 sh -c 'echo $A'",
        "exec -it web.1 sh",
        "exec -d web.1 sleep 10",
        "logs -f --tail 5 --since 2026-01-02T15:04:05Z --timestamps web.1",
        "stop -t 5 web.1",
        "kill -s TERM web.1",
        "completion zsh",
        "man /tmp/x",
        "run -h host --rm -it alpine sh",
        "run -d --name n -h HOST --network shop --network-alias a --ip 10.0.0.5 --ip6 fd00::5 \
         --mac-address 02:42:0a:00:00:05 --link db:d -p 8080:80 -P --expose 90 -v /a:/b:ro --mount \
         type=tmpfs,target=/t --tmpfs /run -w /tmp -u root --entrypoint sh --env-file /dev/null -l a=b \
         --cap-add NET_ADMIN --cap-drop ALL --privileged --sysctl net.core.somaxconn=9 --read-only \
         --init --stop-timeout 3 -m 64m --cpus 0.5 --pids-limit 20 --health-cmd true --dns 1.1.1.1 \
         --dns-search a --dns-opt ndots:1 --add-host db:10.0.0.9 -e A=1 --restart always rootfs:/ sh",
        "run --net host --net-alias a --dns-option b rootfs:/ ls -l --rm",
        "create --name n rootfs:/ sh",
        "start -a -i web",
        "restart -t 3 web",
        "rm -f web",
        "wait web",
        "port web 80/tcp",
        "p2p a b --subnet 10.1.1.0/30",
        "system prune -f",
        "network connect --ip 10.0.0.9 --ip6 fd00::9 --alias a --link db:d shop web",
        "network disconnect --force shop web",
        "attach --netns /proc/1/ns/net --network blue",
        "attach --no-stdin --sig-proxy=false web",
        "container run --rm rootfs:/ sh",
        "container ls -a",
        "container ps -q",
        "container inspect -f {{.Id}} web",
        "container attach web",
        "container rm -f web",
        "container prune -f",
        "cluster ca --rotate",
    ];
    for line in lines {
        if let Err(error) = parse(line) {
            panic!("{line}: {error:?}");
        }
    }
}

#[test]
fn flags_behind_the_image_belong_to_the_command() {
    let cli = parse("service create --name w alpine ls -l --name x --replicas=3 -H").unwrap();
    let Command::Service(ServiceCommand::Create(args)) = cli.command else { panic!() };
    assert_eq!(args.image_and_args, ["alpine", "ls", "-l", "--name", "x", "--replicas=3", "-H"]);
    assert_eq!((args.name.as_deref(), args.settings.replicas), (Some("w"), None));

    let cli = parse("exec -i web.1 grep -i -e x --color").unwrap();
    let Command::Verb(Verb::Exec(args)) = cli.command else { panic!() };
    assert_eq!(args.command, ["grep", "-i", "-e", "x", "--color"]);
    assert!(args.interactive && args.env.is_empty());
}

#[test]
fn the_daemon_is_named_before_or_behind_the_command() {
    for line in [
        "-H unix:///a node ls",
        "--host unix:///a node ls",
        "node ls -H unix:///a",
        "node ls --host=unix:///a",
        "service create -H unix:///a --host db:10.0.0.1 x",
        "-H unix:///a service create --host db:10.0.0.1 x",
        "-H unix:///b info -H unix:///a",
    ] {
        assert_eq!(parse(line).unwrap().connection.host, "unix:///a", "{line}");
    }
    let cli = parse("node ls --tls-ca /ca").unwrap();
    assert_eq!(cli.connection.tls_ca.as_deref(), Some(std::path::Path::new("/ca")));
}

#[test]
fn wrong_usage_is_2_and_says_what_is_wrong() {
    let table = [
        ("nod ls", "error: weft: unrecognized subcommand 'nod'"),
        (
            "node ls --bogus",
            "error: node ls: unexpected argument '--bogus' found\nhint: weft node ls --help\n",
        ),
        (
            "network create",
            "network create: the following required arguments were not provided: <NAME>",
        ),
        ("network create --subnet 10.0.0.1/24 x", "did you mean 10.0.0.0/24?"),
        ("network create --subnet 10.0.0.0/33 x", "\"10.0.0.0/33\" is no subnet"),
        ("network create --scope swarm x", "possible values: local, cluster"),
        ("service create", "service create: the following required"),
        ("service create --replicas -1 x", "expected a number from 0 to 1000000"),
        ("service create --replicas 9223372036854775808 x", "expected a number from 0"),
        ("service create --limit-memory 5x x", "unknown unit"),
        ("service create --restart-delay 5 x", "missing unit"),
        ("service create --constraint node.role=worker x", "expected KEY==VALUE"),
        ("service create --network blue,foo=bar x", "expected NET,alias=NAME"),
        ("service create --mode foo x", "expected replicated or global"),
        ("service create --endpoint-mode foo x", "possible values: vip, dnsrr"),
        ("service create --health-interval 5 x", "missing unit"),
        ("service create --health-retries -1 x", "--health-retries"),
        ("service create --health-cmd true --no-healthcheck x", "cannot be used with"),
        ("service update --read-only=maybe web", "--read-only"),
        ("service update --stop-signal NONE web", "--stop-signal"),
        ("service update --sysctl-add x web", "expected K=V"),
        ("service scale web", "expected SERVICE=N"),
        ("attach --detach-keys ab web", "expected keys such as ctrl-p,ctrl-q"),
        ("start -ai --detach-keys , web", "expected keys such as ctrl-p,ctrl-q"),
        ("service update web --env-ad A=1", "a similar argument exists: '--env-add'"),
        ("cluster join m1:2377", "required arguments were not provided: --token"),
        ("cluster join --token x m1:0", "the port must be from 1 to 65535"),
        ("cluster join-token boss", "possible values: worker, manager"),
        ("cluster init --data-path-port 80", "80 is not in 1024..=49151"),
        ("cluster init --wireguard-port 99999", "99999 is not in 1024..=65503"),
        ("cluster init --key-rotation 5", "missing unit"),
        ("cluster update --encrypt-overlays=perhaps", "possible values: true, false"),
        ("daemon --wireguard kernl", "possible values: kernel, userspace"),
        ("cluster update", "required arguments were not provided"),
        ("node update x", "required arguments were not provided"),
        ("kill -s FOO x", "\"FOO\" is no signal"),
        ("logs --tail x c", "expected a number or all"),
        ("stop -t x c", "expected a whole number of seconds"),
        ("daemon --default-address-pool 10.0.0.0/8", "expected base=CIDR,size=N"),
    ];
    for (line, text) in table {
        let (code, found) = refused(line);
        assert_eq!(code, 2, "{line}: {found}");
        assert!(found.contains(text), "{line}: {found}");
        assert!(found.starts_with("error: ") && found.lines().count() <= 2, "{line}: {found}");
    }
}

#[test]
fn wrong_usage_of_what_runs_a_command_is_125() {
    for line in [
        "run",
        "run --bogus x",
        "run -p x y",
        "run -it --detach-keys ctrl-1 rootfs:/ sh",
        "exec",
        "container exec --bogus x y",
    ] {
        let (code, found) = refused(line);
        assert_eq!(code, 125, "{line}: {found}");
    }
    for line in
        ["attach", "attach --netns /n", "attach --network n", "attach --netns /n --network n c"]
    {
        let (code, found) = refused(line);
        assert_eq!(code, 2, "{line}: {found}");
    }
}

#[test]
fn what_docker_has_and_we_have_not_is_125() {
    let table = [
        ("service create --secret x nginx", "unsupported: --secret"),
        ("service create --secret=x nginx", "unsupported: --secret"),
        ("service create -p 80:80 nginx", "unsupported: -p"),
        ("service create --publish 80:80 nginx", "unsupported: --publish"),
        ("service create --health-start-interval 1s nginx", "unsupported: --health-start-interval"),
        ("service update --secret-add x web", "unsupported: --secret-add"),
        ("service update --publish-add 80:80 web", "unsupported: --publish-add"),
        ("service create --mount type=volume,target=/x x", "unsupported: type=volume"),
        ("network create --ipam-driver x n", "unsupported: --ipam-driver"),
        ("daemon --ipv6", "unsupported: --ipv6"),
        ("daemon --fixed-cidr-v6 fd00::/64", "unsupported: --fixed-cidr-v6"),
        ("cluster init --autolock", "unsupported: --autolock"),
        ("exec --privileged c ls", "unsupported: --privileged"),
        ("ps -s", "unsupported: -s"),
        ("run --pid host rootfs:/ sh", "unsupported: --pid"),
        ("run --ulimit=nofile=9 rootfs:/ sh", "unsupported: --ulimit"),
        ("run -c 5 rootfs:/ sh", "unsupported: -c"),
        ("container run --shm-size 1g rootfs:/ sh", "unsupported: --shm-size"),
        ("create --gpus all rootfs:/ sh", "unsupported: --gpus"),
        ("run -v data:/data rootfs:/ sh", "unsupported: volume"),
        ("attach --tap x", "unsupported: --tap"),
    ];
    for (line, text) in table {
        let (code, found) = refused(line);
        assert_eq!(code, 125, "{line}: {found}");
        assert!(found.contains(text), "{line}: {found}");
    }
    for line in ["cluster backup f", "top", "dns dump"] {
        let error = weft::commands::not_built(&parse(line).unwrap().command).unwrap();
        assert_eq!(error.exit_code(), 125, "{line}");
    }
}

#[test]
fn the_help_promises_nothing_that_is_not_there() {
    let mut command = weft::run::command();
    command.build();
    let help = command.render_long_help().to_string();
    for word in ["service", "network", "exec", "attach", "doctor"] {
        assert!(help.contains(word), "{word}");
    }
    for word in ["trace", "ipam"] {
        assert!(!help.contains(word), "{word}");
    }
    command.debug_assert();
}
