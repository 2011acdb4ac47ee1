//! The three files of a container that the daemon writes: resolv.conf, hosts, hostname.
#![forbid(unsafe_code)]

use std::{fs, os::unix::fs::symlink};

use weft_tests::{Container, Lab};

const SOON: u64 = 10;
const SLEEP: &[&str] = &["sleep", "1000000"];

/// The lines of resolv.conf that say something.
fn resolv(lab: &Lab, flags: &[&str]) -> Vec<String> {
    let said = lab.try_run(&[&["--rm"], flags].concat(), &["cat", "/etc/resolv.conf"]).ok();
    let speaks = |line: &&str| !line.is_empty() && !line.starts_with('#');
    said.lines().filter(speaks).map(str::to_owned).collect()
}

#[test]
fn resolv_conf_comes_from_the_host_and_the_flags() {
    let lab = Lab::alone("files-resolv", 1);
    let host = lab.host(1);
    host.weft(&["network", "create", "shop"]).ok();
    let text =
        "nameserver 127.0.0.53\nnameserver 9.9.9.9\nsearch lan.example\noptions ndots:3 edns0\n";
    host.resolvers(text);
    let options = ["--dns-search", "a.example", "--dns-opt", "ndots:2", "--dns-option", "rotate"];
    let cases: &[(&[&str], &[&str])] = &[
        // The default bridge has no resolver of ours, and the host's loopback is not its own.
        (&[], &["nameserver 9.9.9.9", "search lan.example", "options ndots:3 edns0"]),
        (
            &["--dns", "1.1.1.1"],
            &["nameserver 1.1.1.1", "search lan.example", "options ndots:3 edns0"],
        ),
        (&options, &["nameserver 9.9.9.9", "search a.example", "options ndots:2 rotate"]),
        (&["--dns-search", "."], &["nameserver 9.9.9.9", "options ndots:3 edns0"]),
        (
            &["--network", "shop"],
            &["nameserver 127.0.0.11", "search lan.example", "options ndots:3 edns0"],
        ),
        (
            &["--network", "shop", "--dns", "1.1.1.1", "--dns-search", "a.example"],
            &["nameserver 127.0.0.11", "search a.example", "options ndots:3 edns0"],
        ),
        (
            &["--network", "host"],
            &[
                "nameserver 127.0.0.53",
                "nameserver 9.9.9.9",
                "search lan.example",
                "options ndots:3 edns0",
            ],
        ),
    ];
    for (flags, wanted) in cases {
        assert_eq!(resolv(&lab, flags), *wanted, "{flags:?}");
    }
    // Without any option for it our resolver asks for one that is not needed to be absolute.
    host.resolvers("nameserver 9.9.9.9\n");
    assert_eq!(resolv(&lab, &["--network", "shop"]), ["nameserver 127.0.0.11", "options ndots:0"]);
    // A host with nothing but loopback: servers that can be reached.
    host.resolvers("nameserver 127.0.0.53\nnameserver ::1\n");
    let servers = resolv(&lab, &[]);
    assert!(
        !servers.is_empty() && !servers.iter().any(|line| line.contains("127.0.0")),
        "{servers:?}"
    );
}

#[test]
fn hosts_and_hostname() {
    let lab = Lab::alone("files-hosts", 1);
    let host = lab.host(1);
    host.weft(&["network", "create", "--subnet", "10.20.0.0/24", "shop"]).ok();
    let flags = ["--network", "shop", "--ip", "10.20.0.9", "--add-host", "db.example:10.9.9.9"];
    let web = lab.run("web", &flags, SLEEP);
    let hosts = web.exec(&["cat", "/etc/hosts"]).ok();
    for line in ["127.0.0.1\tlocalhost", "10.9.9.9\tdb.example", "10.20.0.9\tweb"] {
        assert!(hosts.lines().any(|found| found == line), "{line} is not in {hosts}");
    }
    assert_eq!(web.exec(&["cat", "/etc/hostname"]).ok(), "web");
    assert_eq!(web.exec(&["hostname"]).ok(), "web");
    let id = host.weft(&["inspect", "--format", "{{.Id}}", "web"]).ok();
    host.weft(&["rm", "-f", "web"]).ok();
    // Without one it is the short ID.
    let other = lab.try_run(&["-d", "--name", "other"], SLEEP).ok();
    assert_ne!(other, id);
    assert_eq!(host.container_named("other").exec(&["hostname"]).ok(), other[..12]);
    // A second network gets its own line.
    host.weft(&["network", "connect", "--ip", "10.20.0.10", "shop", "other"]).ok();
    let line = format!("10.20.0.10\t{}", &other[..12]);
    host.eventually("the second address is there", SOON, |host| {
        let hosts = host.container_named("other").exec(&["cat", "/etc/hosts"]).text()?;
        if hosts.contains(&line) { Ok(()) } else { Err(hosts) }
    });
}

#[track_caller]
fn append(container: &Container<'_>, file: &str) {
    container.sh(&format!("echo '# by hand' >>/etc/{file}")).ok();
}

#[test]
fn what_is_edited_in_a_container_stays() {
    let lab = Lab::alone("files-edited", 1);
    let host = lab.host(1);
    host.weft(&["network", "create", "shop"]).ok();
    let db = lab.run("db", &[], SLEEP);
    let app = lab.run("app", &["--link", "db"], SLEEP);
    let plain = lab.run("plain", &["--link", "db"], SLEEP);
    append(&app, "hosts");
    append(&app, "resolv.conf");
    host.weft(&["restart", "-t", "0", "db"]).ok();
    // Somebody takes its address, so that it comes back with another.
    host.weft(&["stop", "-t", "0", "db"]).ok();
    host.weft(&["start", "db"]).ok();
    host.weft(&["network", "connect", "shop", "plain"]).ok();
    host.weft(&["network", "connect", "shop", "app"]).ok();
    let now = db.address("bridge").expect("address");
    plain.eventually("what nobody edited follows", SOON, |plain| {
        let hosts = plain.exec(&["cat", "/etc/hosts"]).text()?;
        let resolv = plain.exec(&["cat", "/etc/resolv.conf"]).text()?;
        let own = plain.address("shop")?;
        let whole = hosts.contains(&now) && hosts.contains(&own) && resolv.contains("127.0.0.11");
        if whole { Ok(()) } else { Err(format!("{hosts}\n{resolv}")) }
    });
    for file in ["hosts", "resolv.conf"] {
        let text = app.exec(&["cat", &format!("/etc/{file}")]).ok();
        assert!(text.ends_with("# by hand"), "{text}");
    }
    // Also over the daemon's death.
    host.restart();
    host.weft(&["network", "disconnect", "shop", "app"]).ok();
    for file in ["hosts", "resolv.conf"] {
        let text = app.exec(&["cat", &format!("/etc/{file}")]).ok();
        assert!(text.ends_with("# by hand"), "{text}");
    }
}

#[test]
fn links_in_an_image_do_not_lead_to_the_hosts_files() {
    let lab = Lab::alone("files-symlink", 1);
    let host = lab.host(1);
    let image = lab.image();
    let root = image.trim_start_matches("rootfs:").to_owned();
    let victims = ["hosts", "resolv.conf", "hostname"].map(|file| {
        let victim = lab.dir().join(format!("victim-{file}"));
        fs::write(&victim, "the host's\n").expect("writable");
        let _ = fs::remove_file(format!("{root}/etc/{file}"));
        symlink(&victim, format!("{root}/etc/{file}")).expect("writable");
        victim
    });
    // A directory of the host behind a link, and one that leads up and out.
    symlink("../../../../../../../..", format!("{root}/out")).expect("writable");
    host.weft(&["network", "create", "shop"]).ok();
    let unharmed = |after: &str| {
        for victim in &victims {
            assert_eq!(fs::read_to_string(victim).expect("it is there"), "the host's\n", "{after}");
        }
    };
    let said = lab.try_run(&["-d", "--name", "a", "--privileged"], SLEEP);
    unharmed("the start");
    if said.code == 0 {
        let a = host.container_named("a");
        // One with all rights may even replace the mounts.
        a.sh(&format!(
            "umount /etc/hosts; rm -f /etc/hosts; ln -s {} /etc/hosts; echo mine >/etc/hosts",
            victims[0].display()
        ));
        host.weft(&["network", "connect", "shop", "a"]).ok();
        host.restart();
        host.weft(&["network", "disconnect", "shop", "a"]).ok();
        host.weft(&["restart", "-t", "0", "a"]);
        unharmed("changes");
    }
    let source = lab.dir().join("source");
    fs::create_dir(&source).expect("writable");
    let inside = format!("{}:/out{}/planted", source.display(), lab.dir().display());
    lab.try_run(&["--rm", "-v", &inside], &["true"]);
    assert!(!lab.dir().join("planted").exists(), "a mount point was made on the host");
    host.weft(&["rm", "-f", "a"]);
    unharmed("the end");
    host.has_nothing_left("all of it");
}
