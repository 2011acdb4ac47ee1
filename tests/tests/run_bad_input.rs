//! Bad input for a lone host as tables: an error of its own with its exit code, and nothing changed.
#![forbid(unsafe_code)]

use weft_tests::{Host, Lab};

/// Words typed after `weft`, and what the error must say.
type Case = (&'static str, &'static [&'static str]);

/// `weft run` that makes no sense. IMAGE and a command follow. As for all failures of `run` that are
/// not the command's own, the exit code is 125.
const RUN_USAGE: &[Case] = &[
    ("--nonsense", &["--nonsense"]),
    ("--restart sometimes", &["sometimes", "on-failure"]),
    ("--restart on-failure:x", &["on-failure:x"]),
    ("--restart on-failure:-1", &["on-failure:-1"]),
    ("--restart always:3", &["always:3"]),
    ("--network container:", &["name of the container"]),
    ("--network shop --ip banana", &["banana", "IPv4"]),
    ("--network shop --ip fd00::9", &["fd00::9", "IPv4"]),
    ("--network shop --ip6 10.20.0.9", &["10.20.0.9", "IPv6"]),
    ("--network shop --mac-address banana", &["banana", "MAC"]),
    ("--network shop --mac-address 01:00:5e:00:00:01", &["01:00:5e:00:00:01", "one interface"]),
    ("--network shop --mac-address 00:00:00:00:00:00", &["one interface"]),
    ("--link :", &["NAME:ALIAS"]),
    ("-p banana", &["banana", "65535"]),
    ("-p 80:banana", &["banana"]),
    ("-p 0", &["\"0\""]),
    ("-p 80:0", &["\"0\""]),
    ("-p 65536:80", &["65536"]),
    ("-p 80:65536", &["65536"]),
    ("-p -1:80", &["-1:80"]),
    ("-p 80:80/icmp", &["icmp"]),
    ("-p 8000-8010:80-81", &["11 ports", "2 of the container"]),
    ("-p 8010-8000:80", &["ends before"]),
    ("-p 1.2.3:80:80", &["1.2.3"]),
    ("-p 300.2.3.4:80:80", &["300.2.3.4"]),
    ("-p [::1:80:80", &["[::1:80:80"]),
    ("--expose banana", &["banana"]),
    ("--expose 0", &["\"0\""]),
    ("--expose 70000", &["70000"]),
    ("--expose 92-91", &["92-91"]),
    ("--expose 80/icmp", &["icmp"]),
    ("--add-host banana", &["NAME:IP"]),
    ("--add-host a:banana", &["banana"]),
    ("--dns banana", &["banana"]),
    ("-e =x", &["=x", "empty"]),
    ("-l =x", &["empty"]),
    ("--stop-signal NONSENSE", &["NONSENSE"]),
    ("--stop-signal 99", &["1 to 64"]),
    ("--stop-timeout banana", &["banana"]),
    ("-m banana", &["banana", "512m"]),
    ("-m -1", &["-1"]),
    ("--cpus banana", &["banana", "0.5"]),
    ("--cpus -1", &["-1"]),
    ("--pids-limit banana", &["banana"]),
    ("-v /tmp:relative", &["absolute"]),
    ("--mount type=bind,target=/x", &["source"]),
    ("--mount type=bind,source=/tmp", &["target"]),
    ("--mount type=tmpfs,source=/tmp,target=/x", &["no source"]),
    ("--mount type=tmpfs,target=/x,tmpfs-size=banana", &["512m"]),
    ("--tmpfs relative", &["absolute"]),
    ("--tmpfs /x:size=banana", &["512m"]),
    ("--sysctl banana", &["K=V"]),
    ("--health-cmd true --health-interval banana", &["banana", "10s"]),
    ("--health-cmd true --health-retries -1", &["-1"]),
    ("--health-cmd true --no-healthcheck", &["--no-healthcheck"]),
];

/// `weft run` that is understood, and refused before anything is made: exit code 125.
const RUN_REFUSED: &[Case] = &[
    ("--name ../x", &["../x", "must match"]),
    ("--name web", &["/web", "already in use"]),
    ("--name WEB", &["/WEB", "already in use"]),
    ("--restart always --rm", &["--restart", "--rm"]),
    ("--network nobody", &["no such network", "nobody"]),
    ("--network shop --network shop", &["--network", "shop is given twice"]),
    ("--network host --network shop", &["host", "another network"]),
    ("--network none --network shop", &["none", "another network"]),
    ("--network container:nobody", &["no such container", "nobody"]),
    ("--network container:web -p 80:80", &["--publish", "container:web"]),
    ("--network container:web --hostname h", &["--hostname", "the other's"]),
    ("--network container:web --dns 1.1.1.1", &["--dns", "the other's"]),
    ("--network container:web --add-host a:1.2.3.4", &["--add-host", "the other's"]),
    ("--network container:web --network-alias a", &["--network-alias"]),
    ("--network host --ip 10.20.0.9", &["--ip", "host"]),
    ("--network none --ip 10.20.0.9", &["--ip", "none"]),
    ("--network host --network-alias a", &["--network-alias", "host"]),
    ("--network host --mac-address 02:42:ac:11:00:09", &["--mac-address", "host"]),
    ("--network-alias a", &["bridge", "user-defined networks only"]),
    ("--ip 172.17.0.9", &["bridge", "user-defined networks only"]),
    ("--network shop --network-alias ../a", &["../a", "must match"]),
    ("--network shop --ip 10.21.0.9", &["10.21.0.9", "shop"]),
    ("--network shop --ip 10.20.0.1", &["10.20.0.1", "shop"]),
    ("--network shop --ip 10.20.0.0", &["10.20.0.0", "shop"]),
    ("--network shop --ip 10.20.0.255", &["10.20.0.255", "shop"]),
    ("--network shop --ip 10.20.0.2", &["10.20.0.2", "taken"]),
    ("--network shop --ip6 fd00::9", &["fd00::9", "shop"]),
    ("--network shop --mac-address 02:42:0a:14:00:02", &["02:42:0a:14:00:02", "in use"]),
    ("--link nobody", &["no such container", "nobody"]),
    ("--link web", &["web", "not on the default bridge"]),
    ("--link plain:../x", &["../x", "must match"]),
    ("--network none --link plain", &["--link", "none"]),
    ("--hostname a_b!c", &["a_b!c", "host name"]),
    ("--dns-search ../x..y", &["../x..y"]),
    ("-w relative", &["relative", "absolute"]),
    ("-u 1:2:3", &["1:2:3", "USER"]),
    ("-m 1k", &["--memory", "1024", "at least", "6m"]),
    ("-v relative:/x", &["unsupported", "relative"]),
    ("-v /nowhere-x", &["unsupported", "volumes"]),
    ("-v /tmp:/x:sideways", &["unsupported", "sideways"]),
    ("-v /tmp:/", &["must be an absolute path below /"]),
    ("-v /tmp:/x -v /etc:/x", &["/x", "twice"]),
    ("--mount banana", &["unsupported", "banana"]),
    ("--mount type=volume,source=v,target=/x", &["unsupported", "type=volume"]),
    ("--tmpfs /x:nonsense=1", &["unsupported", "nonsense=1"]),
    ("--cap-add NONSENSE", &["--cap-add", "NONSENSE"]),
    ("--cap-drop NONSENSE", &["--cap-drop", "NONSENSE"]),
    ("--sysctl kernel.panic=1", &["kernel.panic", "not of a container's own"]),
    ("--network host --sysctl net.ipv4.ip_forward=1", &["net.ipv4.ip_forward", "host"]),
    ("--env-file /nowhere", &["--env-file", "/nowhere"]),
    ("--cidfile /nowhere/x", &["--cidfile", "/nowhere/x"]),
    ("--gpus all", &["unsupported", "--gpus"]),
    ("--volumes-from web", &["unsupported", "--volumes-from"]),
    ("--ipc host", &["unsupported", "--ipc"]),
    ("--device /dev/null", &["unsupported", "--device"]),
    ("--platform linux/arm64", &["unsupported", "--platform"]),
];

/// `weft run` whose start fails. Without `--rm` the container stays, made and not started, as in
/// Docker; with it nothing does.
const RUN_FAILED: &[(&str, i32, &[&str])] = &[
    ("-p 8080:80 IMAGE true", 125, &["8080", "already allocated", "plain"]),
    ("-p 10.77.0.1:80:80 IMAGE true", 125, &["10.77.0.1:80"]),
    ("-u nobody-there IMAGE true", 126, &["nobody-there"]),
    ("--entrypoint nowhere IMAGE", 127, &["nowhere", "not found"]),
    ("IMAGE nowhere", 127, &["nowhere", "not found"]),
    ("IMAGE /etc", 126, &["/etc", "directory"]),
    ("IMAGE /etc/passwd", 126, &["/etc/passwd", "permission denied"]),
    ("--mount type=bind,source=/nowhere-x,target=/x IMAGE true", 125, &["/nowhere-x", "not exist"]),
    ("--sysctl net.nonsense=1 IMAGE true", 125, &["nonsense"]),
];

const OTHERS: &[(&str, i32, &[&str])] = &[
    ("run", 125, &["IMAGE"]),
    ("run IMAGE", 125, &["no default command"]),
    ("run --name -x IMAGE true", 125, &["-x"]),
    ("run rootfs: true", 125, &["absolute path"]),
    ("run rootfs:/nowhere true", 125, &["/nowhere", "no such file", "hint: "]),
    ("create rootfs:/nowhere true", 1, &["/nowhere", "no such file", "hint: "]),
    ("create rootfs:/etc/passwd true", 1, &["/etc/passwd", "not a directory", "hint: "]),
    ("run rootfs:relative true", 125, &["absolute path"]),
    ("network create", 2, &["NAME"]),
    ("network create x y", 2, &["y"]),
    ("network create --subnet 10.30.0.0/33 x", 2, &["10.30.0.0/33"]),
    ("network create --subnet 010.30.0.0/24 x", 2, &["010.30.0.0/24"]),
    ("network create --subnet 10.30.0.5/24 x", 2, &["10.30.0.5/24", "10.30.0.0/24"]),
    ("network create --subnet 127.0.0.0/8 x", 1, &["127.0.0.0/8", "loopback"]),
    ("network create --subnet 224.0.0.0/24 x", 1, &["multicast"]),
    ("network create --subnet 0.0.0.0/0 x", 1, &["whole"]),
    ("network create --subnet fe80::/64 x", 1, &["link-local"]),
    ("network create --subnet 10.30.0.0/32 x", 1, &["too small"]),
    ("network create --subnet 10.20.0.0/16 x", 1, &["overlaps", "shop"]),
    ("network create --subnet 10.20.0.128/25 x", 1, &["overlaps", "shop"]),
    ("network create --subnet 172.17.0.0/24 x", 1, &["overlaps", "bridge"]),
    ("network create --subnet 10.99.0.0/24 x", 1, &["10.99.0.0/24"]),
    ("network create --subnet 10.30.0.0/24 --gateway 10.31.0.1 x", 2, &["10.31.0.1"]),
    ("network create --subnet 10.30.0.0/24 --gateway 10.30.0.0 x", 1, &["network address"]),
    ("network create --gateway 10.31.0.1 x", 2, &["--subnet"]),
    ("network create --subnet 10.30.0.0/24 --ip-range 10.31.0.0/28 x", 2, &["10.31.0.0/28"]),
    ("network create --subnet 10.30.0.0/24 --aux-address a x", 2, &["NAME=IP"]),
    ("network create shop", 1, &["shop", "exists"]),
    ("network create SHOP", 1, &["SHOP", "exists"]),
    ("network create ../x", 1, &["../x", "must match"]),
    ("network create bridge", 1, &["predefined"]),
    ("network create --scope cluster x", 1, &["not part of a cluster"]),
    ("network create -d overlay x", 1, &["not part of a cluster"]),
    ("network create -d nonsense x", 1, &["nonsense", "macvlan"]),
    ("network create -d host x", 1, &["predefined"]),
    ("network create -o mtu=banana x", 1, &["mtu", "banana"]),
    ("network create -o com.docker.network.driver.mtu=10 x", 1, &["mtu", "576"]),
    ("network create -o com.docker.network.bridge.name=weft0 x", 1, &["weft0"]),
    ("network create -o com.docker.network.bridge.name=averyverylongname x", 1, &["15"]),
    ("network create -o com.docker.network.bridge.enable_icc=banana x", 1, &["banana"]),
    ("network create -o com.docker.network.bridge.host_binding_ipv4=banana x", 1, &["banana"]),
    ("network create -o nonsense=1 x", 1, &["nonsense", "unknown"]),
    ("network create -o =1 x", 2, &["empty"]),
    ("network create -d macvlan -o parent=eth0 -o macvlan_mode=sideways x", 1, &["sideways"]),
    ("network create -d macvlan -o parent=eth0.5000 x", 1, &["eth0.5000", "4094"]),
    ("network create -d ipvlan -o parent=eth0 -o ipvlan_mode=l9 x", 1, &["l9", "l3s"]),
    ("network rm nobody", 1, &["nobody"]),
    ("network rm bridge", 1, &["pre-defined"]),
    ("network rm shop", 1, &["shop", "in use", "web", "weft network inspect shop"]),
    ("network inspect nobody", 1, &["nobody"]),
    ("network connect shop", 2, &["CONTAINER"]),
    ("network connect nobody web", 1, &["nobody"]),
    ("network connect shop nobody", 1, &["nobody"]),
    ("network connect shop web", 1, &["web", "already"]),
    ("network connect host web", 1, &["host"]),
    ("network connect none web", 1, &["none"]),
    ("network connect --ip banana shop plain", 2, &["banana"]),
    ("network connect --ip 10.21.0.9 shop plain", 1, &["10.21.0.9"]),
    ("network connect --ip 10.20.0.1 shop plain", 1, &["10.20.0.1"]),
    ("network connect --ip 10.20.0.2 shop plain", 1, &["10.20.0.2", "taken"]),
    ("network connect --ip6 10.20.0.9 shop plain", 2, &["10.20.0.9", "IPv6"]),
    ("network connect --alias ../x shop plain", 1, &["../x", "must match"]),
    ("network connect --link nobody shop plain", 1, &["nobody"]),
    ("network connect --link plain:me shop plain", 1, &["itself"]),
    ("network disconnect shop plain", 1, &["not connected"]),
    ("network disconnect nobody plain", 1, &["nobody"]),
    ("start nobody", 1, &["nobody"]),
    ("stop nobody", 1, &["nobody"]),
    ("stop -t banana web", 2, &["banana"]),
    ("restart nobody", 1, &["nobody"]),
    ("kill -s NONSENSE web", 2, &["NONSENSE"]),
    ("rm nobody", 1, &["nobody"]),
    ("rm web", 1, &["web", "running"]),
    ("port web 81", 1, &["81/tcp"]),
    ("wait nobody", 1, &["nobody"]),
    ("exec -w relative web true", 125, &["relative", "absolute"]),
    ("logs --tail banana web", 2, &["banana"]),
];

/// `weft daemon` that does not start.
const DAEMON: &[(&str, i32, &[&str])] = &[
    ("--nonsense", 2, &["--nonsense"]),
    ("--bip banana", 2, &["banana"]),
    ("--bip 10.7.0.0/24", 1, &["--bip", "10.7.0.0/24"]),
    ("--bip 10.7.0.1/24 --fixed-cidr 10.8.0.0/28", 1, &["--fixed-cidr", "10.8.0.0/28"]),
    ("--bridge nobody0 --bip 10.7.0.1/24", 1, &["--bip", "--bridge"]),
    ("--bridge a/b", 1, &["--bridge", "a/b"]),
    ("--mtu 10", 2, &["10"]),
    ("--ip banana", 2, &["banana"]),
    ("--icc=maybe", 2, &["maybe"]),
    ("--dns banana", 2, &["banana"]),
    ("--default-address-pool base=10.0.0.0/8", 2, &["base=CIDR,size=N"]),
    ("--default-address-pool base=10.0.0.0/24,size=8", 2, &["from 24 to 32"]),
    ("--listen-addr banana", 2, &["banana"]),
    ("--log-level banana", 1, &["banana"]),
    ("--config /nowhere", 1, &["/nowhere"]),
    ("", 1, &["another weft daemon"]),
];

/// A host with `web` on network `shop` and `plain` on the default one, published.
fn town(name: &str) -> Lab {
    let lab = Lab::alone(name, 1);
    lab.host(1).weft(&["network", "create", "--subnet", "10.20.0.0/24", "shop"]).ok();
    lab.run("web", &["--network", "shop"], &["sleep", "1000000"]);
    lab.run("plain", &["-p", "8080:80"], &["peer", "serve", "80"]);
    lab
}

/// All that a user sees of a host's objects.
fn seen(host: &Host) -> String {
    ["ps -a --no-trunc --format {{.ID}}{{.Names}}{{.Networks}}", "network ls --no-trunc"]
        .map(|list| host.weft(&list.split(' ').collect::<Vec<_>>()).ok())
        .join("\n")
}

/// Types each line, and says which did not get its error. Nothing may change.
#[track_caller]
fn refused(lab: &Lab, cases: impl IntoIterator<Item = (String, i32, &'static [&'static str])>) {
    let (host, image) = (lab.host(1), lab.image());
    let (before, kernel, left) = (seen(host), host.snapshot(), host.left_of_containers());
    let mut wrong = Vec::new();
    for (words, code, says) in cases {
        let word = |word| if word == "IMAGE" { image.as_str() } else { word };
        let said = host.weft(&words.split_whitespace().map(word).collect::<Vec<_>>());
        let text = said.stderr.to_lowercase();
        let missing = says.iter().any(|word| !text.contains(&word.to_lowercase()));
        let error = said.stderr.starts_with("error: ");
        let silent = matches!(said.stdout.as_str(), "" | "[]\n");
        if said.code != code || missing || !error || !silent {
            wrong.push(format!("want {code} and {says:?}: {said}"));
        }
        assert_eq!(seen(host), before, "changed by {said}");
    }
    assert_eq!(kernel.changes(&host.snapshot()), Vec::<String>::new());
    assert_eq!(host.left_of_containers(), left);
    assert!(wrong.is_empty(), "{} of the table:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_flag_of_run() {
    let lab = town("bad-run");
    let typed = |words: &str| format!("run {words} IMAGE true");
    let usage = RUN_USAGE.iter().map(|(words, says)| (typed(words), 125, *says));
    let others = RUN_REFUSED.iter().map(|(words, says)| (typed(words), 125, *says));
    refused(&lab, usage.chain(others));
}

#[test]
fn networks_and_the_other_commands() {
    let lab = town("bad-others");
    refused(&lab, OTHERS.iter().map(|(words, code, says)| ((*words).to_owned(), *code, *says)));
}

#[test]
fn a_start_that_fails_leaves_what_can_be_removed_or_nothing() {
    let lab = town("bad-start");
    let host = lab.host(1);
    let rm =
        RUN_FAILED.iter().map(|(words, code, says)| (format!("run --rm {words}"), *code, *says));
    refused(&lab, rm);
    let (before, kernel, left) = (seen(host), host.snapshot(), host.left_of_containers());
    let image = lab.image();
    for (words, code, says) in RUN_FAILED {
        let line = format!("run --name failed {words}");
        let word = |word| if word == "IMAGE" { image.as_str() } else { word };
        let said = host.weft(&line.split_whitespace().map(word).collect::<Vec<_>>());
        said.refused(*code, says);
        assert_eq!(host.status("failed").as_deref(), Ok("Created"), "{said}");
        host.weft(&["rm", "failed"]).ok();
    }
    assert_eq!(seen(host), before);
    assert_eq!(kernel.changes(&host.snapshot()), Vec::<String>::new());
    assert_eq!(host.left_of_containers(), left);
}

#[test]
fn flags_of_the_daemon() {
    let lab = Lab::alone("bad-daemon", 1);
    let host = lab.host(1);
    let kernel = host.snapshot();
    let dirs = ["s2", "r2"].map(|dir| lab.dir().join(dir).display().to_string());
    for (words, code, says) in DAEMON {
        let mut args = vec!["daemon", "--state-dir", &dirs[0], "--run-dir", &dirs[1]];
        args.extend(words.split_whitespace());
        host.weft(&args).refused(*code, says);
    }
    let (state, run) = (host.state_dir(), lab.dir().join("r2"));
    let args = ["daemon", "--state-dir", &state.display().to_string(), "--run-dir"];
    host.weft(&[&args[..], &[&run.display().to_string()]].concat())
        .refused(1, &["another daemon uses the state directory"]);
    assert_eq!(kernel.changes(&host.snapshot()), Vec::<String>::new());
    host.weft(&["info"]).ok();
}
