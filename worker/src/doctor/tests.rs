//! Every finding, from the facts of a healthy node with one thing changed.

use std::time::Duration;

use weft_overlay::{
    kernel::{
        KernelError,
        checkup::{Checkup, Feature},
    },
    plane::{Integrity, Table},
};
use weft_proto::v1::{NodeLinksResponse, TunnelPeer};

use super::{
    facts::{
        Called, Daemon, Directory, Failed, FoundDirectory, Host, Large, Member, Path, Policy,
        Quorum, Session, TakenPort,
    },
    *,
};
use crate::metrics::Room;

const LIFE: Duration = Duration::from_secs(24 * 3600);
const GIB: u64 = 1 << 30;

fn healthy() -> Facts {
    let intact = Some(Integrity::Intact);
    let kernel = Checkup {
        tables: [(Table::Host, intact), (Table::Bridge, intact)].into(),
        bridges: vec!["wb010000".to_owned()],
        ..Checkup::default()
    };
    let directory = |purpose| Directory {
        purpose,
        path: "/var/lib/weft".into(),
        found: Some(FoundDirectory {
            owner: 0,
            mode: 0o700,
            room: Some(Room { free: 10 * GIB, size: 20 * GIB }),
        }),
        needed: 64 << 20,
    };
    let host = Host {
        lacking: vec![],
        kernel: Ok(kernel),
        no_tun: None,
        wireguard: "kernel (this kernel has WireGuard)".to_owned(),
        forwards: Some(true),
        policy: Policy { nftables: true, ip_forward: true },
        taken: vec![],
        directories: vec![directory("state"), directory("run")],
        resolvers: 1,
    };
    let voter = |n: u8| (format!("n{n}"), format!("10.0.0.{n}:2377"), true);
    let called =
        |n: u8| Called { address: ([10, 0, 0, n], 2377).into(), own: n == 1, clock: Ok(0.4) };
    let member = Member {
        session: Session { manager: Some(([10, 0, 0, 2], 2377).into()), ..Session::default() },
        managers: [1, 2, 3].map(called).into(),
        certificate: Some((3600 * 20, LIFE)),
        paths: vec![path()],
        links: Some(Ok(links(|_| {}))),
        overlaps: vec![],
        quorum: Some(Quorum {
            leader: true,
            voters: [1, 2, 3].map(voter).into(),
            ..Quorum::default()
        }),
    };
    Facts { host, daemon: Some(Daemon { member: Some(member), ..Daemon::default() }) }
}

fn path() -> Path {
    Path {
        hostname: Some("n2".to_owned()),
        address: [10, 0, 0, 9].into(),
        down: false,
        answers: true,
        large: Some(Large { size: 1500, passes: None, whole: true }),
    }
}

fn links(change: impl FnOnce(&mut TunnelPeer)) -> NodeLinksResponse {
    let mut peer = TunnelPeer {
        hostname: "n2".to_owned(),
        endpoint: "10.0.0.9:51820".to_owned(),
        handshake_age: Some(weft_proto::well_known::Duration { seconds: 10, nanos: 0 }),
        sent_bytes: 100,
        received_bytes: 100,
        ..TunnelPeer::default()
    };
    change(&mut peer);
    NodeLinksResponse { peers: vec![peer], ..NodeLinksResponse::default() }
}

fn kernel(facts: &mut Facts) -> &mut Checkup {
    facts.host.kernel.as_mut().unwrap()
}

fn member(facts: &mut Facts) -> &mut Member {
    facts.daemon.as_mut().unwrap().member.as_mut().unwrap()
}

fn quorum(facts: &mut Facts) -> &mut Quorum {
    member(facts).quorum.as_mut().unwrap()
}

#[test]
fn a_healthy_node_has_no_fault() {
    let findings = examine(&healthy());
    assert!(findings.iter().all(|finding| finding.severity == Severity::Ok), "{findings:#?}");
    assert!(findings.iter().all(|finding| finding.fix.is_empty() && finding.why.is_empty()));
    assert!(findings.len() > 10);
}

type Change = fn(&mut Facts);
type Row = (Severity, &'static str, &'static str, Change);

/// Severity, check, part of the text, and what is changed.
const TABLE: &[Row] = {
    use Severity::{Problem, Warning};
    &[
        (Problem, "privileges", "missing: CAP_NET_ADMIN", |f| f.host.lacking.push("CAP_NET_ADMIN")),
        (Problem, "kernel", "cannot be asked", |f| f.host.kernel = Err("not permitted".into())),
        (Problem, "kernel", "vxlan cannot be used", |f| {
            let error = KernelError::Missing { what: "VXLAN", option: "CONFIG_VXLAN" };
            kernel(f).missing.insert(Feature::Vxlan, error);
        }),
        (Problem, "kernel", "nftables cannot be used", |f| {
            let error = KernelError::Nft { message: "no such program".into() };
            kernel(f).missing.insert(Feature::Nftables, error);
        }),
        (Problem, "nftables", "table inet weft is not there", |f| {
            kernel(f).tables.insert(Table::Host, None);
        }),
        (Problem, "nftables", "table bridge weft was changed", |f| {
            kernel(f).tables.insert(Table::Bridge, Some(Integrity::Damaged));
        }),
        (Problem, "forwarding", "does not forward packets", |f| f.host.forwards = Some(false)),
        (Warning, "forwarding", "as the daemon was told", |f| {
            f.host.forwards = Some(false);
            f.host.policy.ip_forward = false;
        }),
        (Problem, "firewall", "chain inet other forward", |f| {
            kernel(f).dropping.push("inet other forward".into());
        }),
        (Warning, "firewall", "chain inet other forward", |f| {
            kernel(f).bridges.clear();
            kernel(f).dropping.push("inet other forward".into());
        }),
        (Warning, "tun", "cannot be opened", |f| f.host.no_tun = Some("no such device".into())),
        (Problem, "ports", "2377/tcp is held by process 7 (nc)", |f| {
            f.host.taken.push(TakenPort {
                protocol: "tcp",
                port: 2377,
                purpose: "managers and nodes",
                holder: "7 (nc)".into(),
            });
        }),
        (Problem, "directories", "belongs to user 1000", |f| {
            f.host.directories[0].found.as_mut().unwrap().owner = 1000;
        }),
        (Problem, "directories", "open to others (mode 755)", |f| {
            f.host.directories[1].found.as_mut().unwrap().mode = 0o755;
        }),
        (Problem, "directories", "has 1 MiB left", |f| {
            f.host.directories[0].found.as_mut().unwrap().room =
                Some(Room { free: 1 << 20, size: GIB });
        }),
        (Warning, "directories", "has 100 MiB left", |f| {
            f.host.directories[0].found.as_mut().unwrap().room =
                Some(Room { free: 100 << 20, size: GIB });
        }),
        (Warning, "directories", "is not there", |f| f.host.directories[0].found = None),
        (Warning, "resolvers", "has no name server", |f| f.host.resolvers = 0),
        (Problem, "daemon", "no daemon answers", |f| f.daemon = None),
        (Problem, "data-plane", "refuses a change", |f| {
            f.daemon.as_mut().unwrap().errors.push("link add: not permitted".into());
        }),
        (Problem, "data-plane", "container web.1 is not as wanted", |f| {
            f.daemon.as_mut().unwrap().troubled.push(("web.1".into(), "no link".into()));
        }),
        (Problem, "tasks", "web.1 failed 5 s ago", |f| {
            f.daemon.as_mut().unwrap().failed.push(Failed {
                name: "web.1".into(),
                error: "task: non-zero exit (1)".into(),
                ago: Duration::from_secs(5),
                look: "weft logs web.1".into(),
            });
        }),
        (Problem, "session", "no session with a manager for 1 min 5 s", |f| {
            member(f).session = Session {
                manager: None,
                error: "hung up".into(),
                lost: Some(Duration::from_secs(65)),
            };
        }),
        (Problem, "managers", "manager 10.0.0.2:2377 does not answer", |f| {
            member(f).managers[1].clock = Err("connection refused".into());
        }),
        (Problem, "clock", "clock is 60 s behind that of manager 10.0.0.2:2377", |f| {
            member(f).managers[1].clock = Ok(60.0);
        }),
        (Problem, "clock", "clock is 9 s ahead of that of manager 10.0.0.3:2377", |f| {
            member(f).managers[2].clock = Ok(-9.0);
        }),
        (Problem, "certificate", "has ended", |f| member(f).certificate = Some((-1, LIFE))),
        (Problem, "certificate", "ends in 1 h 0 min", |f| {
            member(f).certificate = Some((3600, LIFE));
        }),
        (Problem, "quorum", "the quorum is lost: 1 of 3", |f| {
            quorum(f).voters[1].2 = false;
            quorum(f).voters[2].2 = false;
        }),
        (Problem, "quorum", "no manager leads", |f| quorum(f).leader = false),
        (Warning, "quorum", "one more failure", |f| quorum(f).voters[2].2 = false),
        (Warning, "quorum", "one more failure", |f| drop(quorum(f).voters.pop())),
        (Problem, "store", "takes no part", |f| quorum(f).condemned = Some("wiped".into())),
        (Problem, "store", "disk has 1 MiB left", |f| quorum(f).no_room = Some((1 << 20, 1 << 26))),
        (Problem, "nodes", "node n2 is down for 1 h 0 min", |f| {
            let away = ("n2".into(), "down".into(), Duration::from_secs(3600), String::new());
            quorum(f).away.push(away);
        }),
        (Warning, "addresses", "network shop has 3 of 253 addresses left", |f| {
            quorum(f).full.push(("shop".into(), 3, 253));
        }),
        (Problem, "underlay", "node n3 (10.0.0.8) cannot be reached", |f| {
            let n3 = Path {
                hostname: Some("n3".into()),
                address: [10, 0, 0, 8].into(),
                answers: false,
                large: None,
                ..path()
            };
            member(f).paths.push(n3);
        }),
        // Its link shakes hands: the ping alone is filtered.
        (Warning, "underlay", "answers no ping", |f| {
            let silent = Path { answers: false, large: None, ..path() };
            member(f).paths = vec![silent];
        }),
        (
            Problem,
            "underlay",
            "packets of 1500 bytes do not reach node n2 (10.0.0.9), 1400 bytes do",
            |f| {
                let narrow = Large { size: 1500, passes: Some(1400), whole: false };
                member(f).paths = vec![Path { large: Some(narrow), ..path() }];
            },
        ),
        (Problem, "links", "does not answer", |f| member(f).links = Some(Err("gone".into()))),
        (Problem, "links", "no handshake with node n2", |f| {
            member(f).links = Some(Ok(links(|peer| {
                peer.handshake_age = None;
                peer.received_bytes = 0;
            })));
        }),
        (Warning, "links", "the last handshake with node n2 is 10 min 0 s old", |f| {
            member(f).links = Some(Ok(links(|peer| {
                peer.handshake_age.as_mut().unwrap().seconds = 600;
                peer.drops.insert("no-session".into(), 3);
            })));
        }),
        (Warning, "links", "packets of the link with node n2 were dropped", |f| {
            member(f).links = Some(Ok(links(|peer| {
                peer.drops.insert("spoofed-source".into(), 1);
            })));
        }),
        (Warning, "links", "from whom is not known", |f| {
            let mut links = links(|_| {});
            links.drops.insert("malformed".into(), 1);
            member(f).links = Some(Ok(links));
        }),
        (Problem, "routes", "network shop (10.20.0.0/24) lies over the route", |f| {
            let subnet = "10.20.0.0/24".parse().unwrap();
            member(f).overlaps.push((
                "shop".into(),
                subnet,
                "the route of this host by eth0".into(),
            ));
        }),
    ]
};

#[test]
fn each_fault_is_named_and_comes_with_a_reason_and_a_command() {
    for (severity, check, text, change) in TABLE {
        let mut facts = healthy();
        change(&mut facts);
        let findings = examine(&facts);
        let faults: Vec<_> = findings.iter().filter(|f| f.severity != Severity::Ok).collect();
        let [fault] = faults[..] else { panic!("{check}, {text}: {faults:#?}") };
        assert_eq!((fault.severity, fault.check), (*severity, *check), "{fault:?}");
        assert!(fault.text.contains(text), "{text}: {fault:?}");
        assert!(!fault.why.is_empty() && !fault.fix.is_empty(), "{fault:?}");
        assert_eq!(findings[0], *fault, "the worst comes first");
    }
}

#[test]
fn what_cannot_be_helped_is_not_told() {
    let quiet: &[Change] = &[
        // Nothing of ours is here, so the tables are not needed.
        |f| {
            kernel(f).bridges.clear();
            kernel(f).tables = [(Table::Host, None), (Table::Bridge, None)].into();
            f.host.forwards = Some(false);
        },
        // The daemon was told to touch no rules.
        |f| {
            f.host.policy.nftables = false;
            kernel(f).tables.insert(Table::Host, None);
        },
        // In iptables' own chain the daemon makes an exception.
        |f| kernel(f).dropping.push("ip filter FORWARD".into()),
        // A link that nobody has used yet has no handshake.
        |f| {
            member(f).links = Some(Ok(links(|peer| {
                peer.handshake_age = None;
                (peer.sent_bytes, peer.received_bytes) = (0, 0);
            })));
        },
        // One that is at rest lets its session go.
        |f| {
            let old = links(|peer| peer.handshake_age.as_mut().unwrap().seconds = 600);
            member(f).links = Some(Ok(old));
        },
        |f| f.daemon.as_mut().unwrap().member = None,
        // One manager is one manager.
        |f| quorum(f).voters.truncate(1),
    ];
    for (number, change) in quiet.iter().enumerate() {
        let mut facts = healthy();
        change(&mut facts);
        let faults: Vec<_> =
            examine(&facts).into_iter().filter(|f| f.severity != Severity::Ok).collect();
        assert!(faults.is_empty(), "{number}: {faults:#?}");
    }
}

#[test]
fn sizes_and_spans_are_for_people() {
    assert_eq!(
        [size(12), size(5 << 10), size(3 << 20), size(2 << 30)],
        ["12 B", "5 KiB", "3 MiB", "2 GiB"]
    );
    let spans = [59, 61, 3660, 90_000].map(|seconds| span(Duration::from_secs(seconds)));
    assert_eq!(spans, ["59 s", "1 min 1 s", "1 h 1 min", "1 d 1 h"]);
}
