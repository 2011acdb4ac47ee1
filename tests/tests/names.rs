//! Names: what a container can look up, what it cannot, and what is asked of others.
#![forbid(unsafe_code)]

use weft_tests::{Container, Lab};

fn finds(c: &Container<'_>, name: &str, want: &[String]) {
    c.eventually(&format!("{name} is {want:?}"), 10, |c| {
        let found = c.lookup(name)?;
        if found == want { Ok(()) } else { Err(format!("{found:?}")) }
    });
}

fn vip(lab: &Lab, service: &str, network: &str) -> String {
    let shown = &lab.host(1).weft(&["service", "inspect", service]).json()[0];
    let id = lab.host(1).weft(&["network", "inspect", "--format", "{{.Id}}", network]).ok();
    let ips = shown["Endpoint"]["VirtualIPs"].as_array().expect("VIPs").clone();
    let vip = ips.iter().find(|vip| vip["NetworkID"] == id.as_str()).expect("a VIP in the network");
    vip["Addr"].as_str().expect("an address").split('/').next().expect("text").to_owned()
}

fn sorted(mut found: Vec<String>) -> Vec<String> {
    found.sort();
    found
}

#[test]
fn every_name_that_is_promised_answers_and_no_other() {
    let lab = Lab::cluster("names", 1, 1);
    lab.network("shop", "10.20.0.0/24");
    lab.network("back", "10.21.0.0/24");
    lab.serve("web", &["--network", "shop,alias=www", "--replicas", "3"]);
    lab.serve("rr", &["--network", "shop", "--replicas", "2", "--endpoint-mode", "dnsrr"]);
    lab.serve("store", &["--network", "back"]);
    let clients = lab.clients("shop");
    let c = &clients[1];

    let web = vip(&lab, "web", "shop");
    let tasks: Vec<String> = (1..=2)
        .flat_map(|n| lab.host(n).containers("web"))
        .map(|task| task.address("shop").expect("address"))
        .collect();
    let tasks = sorted(tasks);
    assert_eq!(tasks.len(), 3);
    finds(c, "web", std::slice::from_ref(&web));
    finds(c, "WEB.", std::slice::from_ref(&web));
    finds(c, "www", std::slice::from_ref(&web));
    finds(c, "web.shop", std::slice::from_ref(&web));
    finds(c, "tasks.web", &tasks);
    let robin = c.lookup("rr").expect("rr");
    assert_eq!(robin.len(), 2);
    assert_eq!(robin, c.lookup("tasks.rr").expect("tasks.rr"));
    for slot in 1..=3 {
        let found = c.lookup(&format!("web.{slot}")).expect("a slot");
        assert!(found.len() == 1 && tasks.contains(&found[0]), "{found:?}");
    }
    // Container names and short IDs.
    for host in lab.hosts() {
        for task in host.containers("web") {
            let own = task.address("shop").expect("address");
            finds(c, &task.id()[..12], std::slice::from_ref(&own));
            let name = host.weft(&["inspect", "--format", "{{.Name}}", task.id()]).ok();
            finds(c, name.trim_start_matches('/'), std::slice::from_ref(&own));
            // And back again.
            let back = c.sh(&format!("nslookup {own} 127.0.0.11")).ok();
            assert!(back.contains(&task.id()[..12]) || back.contains("web"), "{back}");
        }
    }
    let back = c.sh(&format!("nslookup {web} 127.0.0.11")).ok();
    assert!(back.contains("web.shop"), "{back}");
    // A known name of another family is no error, only empty.
    let six = c.sh("nslookup -type=aaaa web 127.0.0.11");
    assert!(!six.stdout.contains("NXDOMAIN"), "{six}");

    // Other networks' names do not exist here, and are not asked of anybody else.
    for name in ["tasks.store", "tasks.nobody", "nobody.shop"] {
        c.eventually(&format!("{name} is denied"), 5, |c| c.denied(name));
    }
    let zone = c.sh("nslookup 10.20.0.250 127.0.0.11");
    assert!(zone.stdout.contains("NXDOMAIN"), "{zone}");
}

#[test]
fn the_files_are_those_that_programs_expect_and_port_53_is_free() {
    let lab = Lab::cluster("files", 1, 0);
    let host = lab.host(1);
    host.resolvers("nameserver 10.99.0.254\nsearch corp.example\noptions edns0\n");
    lab.network("shop", "10.20.0.0/24");
    lab.service("web", &["--network", "shop"], &["sleep", "1000000"]);
    let c = host.container("web");
    let resolv = c.sh("grep -v '^#' /etc/resolv.conf").ok();
    assert_eq!(resolv, "nameserver 127.0.0.11\nsearch corp.example\noptions edns0 ndots:0");
    let hosts = c.sh("cat /etc/hosts").ok();
    assert!(hosts.starts_with("127.0.0.1\tlocalhost"), "{hosts}");
    let address = c.address("shop").expect("address");
    assert!(hosts.lines().any(|line| line.starts_with(&address)), "{hosts}");
    assert_eq!(c.sh("cat /etc/hostname").ok(), c.id()[..12]);
    assert_eq!(c.sh("hostname").ok(), c.id()[..12]);
    // Somebody else may have port 53.
    c.sh("peer serve 53 >/dev/null 2>&1 & sleep 0.1; kill -0 $!").ok();
    // UDP and TCP alike: a query with a length before it, as in RFC 1035 section 4.2.2.
    let query = "\\000\\025\\0\\1\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0\\003web\\0\\0\\1\\0\\1";
    let script =
        format!("printf '{query}' > /tmp/q; (cat /tmp/q; sleep 1) | nc -w 2 127.0.0.11 53 | wc -c");
    let length: usize = c.sh(&script).ok().parse().expect("a number");
    // Twelve bytes of header, nine of question and sixteen of answer, behind two of length.
    assert!(length >= 2 + 12 + 9 + 16, "{length} bytes came back");
}

#[test]
fn what_is_not_ours_is_asked_of_the_hosts_servers() {
    let lab = Lab::cluster("forward", 1, 0);
    let host = lab.host(1);
    // A name server outside that knows everything as 192.0.2.7; it writes down what it was asked.
    let log = lab.dir().join("asked");
    let _server = lab.name_server("192.0.2.7", &log);
    host.resolvers("nameserver 10.99.0.254\n");
    lab.network("shop", "10.20.0.0/24");
    lab.network("back", "10.21.0.0/24");
    host.weft(&[
        "network",
        "create",
        "-d",
        "overlay",
        "--internal",
        "--subnet",
        "10.22.0.0/24",
        "closed",
    ])
    .ok();
    lab.service("web", &["--network", "shop"], &["sleep", "1000000"]);
    lab.service("store", &["--network", "back"], &["sleep", "1000000"]);
    lab.service("shut", &["--network", "closed"], &["sleep", "1000000"]);
    let (web, shut) = (host.container("web"), host.container("shut"));
    web.eventually("a name outside", 10, |c| {
        let found = c.lookup("www.example.org")?;
        if found == ["192.0.2.7"] { Ok(()) } else { Err(format!("{found:?}")) }
    });
    for name in ["tasks.www", "nobody.shop", "store"] {
        web.eventually(&format!("{name} is denied"), 5, |c| c.denied(name));
    }
    web.sh("nslookup 10.20.0.77 127.0.0.11");
    // An internal network has no way out, names included.
    assert!(shut.lookup("www.example.org").is_err());
    let asked = std::fs::read_to_string(&log).expect("the server's notes");
    assert!(asked.contains("www.example.org"), "{asked}");
    for secret in ["tasks", "shop", "store", "in-addr"] {
        assert!(!asked.contains(secret), "{secret} was asked outside: {asked}");
    }
    assert_eq!(
        asked.matches("www.example.org").count(),
        asked.lines().filter(|l| l.contains("www.example.org")).count()
    );
    // The second time it comes from the cache.
    let before = asked.lines().count();
    web.lookup("www.example.org").expect("from the cache");
    let after = std::fs::read_to_string(&log).expect("the server's notes").lines().count();
    assert_eq!(before, after, "asked again");
}
