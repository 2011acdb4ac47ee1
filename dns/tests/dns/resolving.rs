//! The rules of resolving, as tables: who asks, what, and what is said.

use weft_dns::asker::Outside;
use weft_dns::resolve::{Question, Resolution, resolve};
use weft_dns::wire::{CLASS_IN, name, rtype};
use weft_dns::{Asker, Synced, Zones};

use crate::support::{asker, zones};

const A: u16 = rtype::A;
const AAAA: u16 = rtype::AAAA;
const PTR: u16 = rtype::PTR;
const ANY: u16 = rtype::ANY;
const MX: u16 = 15;
const SRV: u16 = 33;
const HTTPS: u16 = 65;

/// A resolution in words: `10.0.1.10,10.0.1.11`, `nodata`, `forward`.
fn said(zones: &Zones, asker: &Asker, asked: &str, rtype: u16) -> String {
    let question = Question { name: asked, rtype, class: CLASS_IN };
    let join = |all: Vec<String>| all.join(",");
    match resolve(zones, asker, &question) {
        Resolution::V4(all) => join(all.iter().map(ToString::to_string).collect()),
        Resolution::V6(all) => join(all.iter().map(ToString::to_string).collect()),
        Resolution::Pointer(wire) => name::text(wire),
        Resolution::Minimal => "minimal".into(),
        Resolution::NoData => "nodata".into(),
        Resolution::NxDomain => "nxdomain".into(),
        Resolution::Forward => "forward".into(),
        Resolution::Refuse => "refuse".into(),
        Resolution::ServFail => "servfail".into(),
    }
}

fn check(zones: &Zones, asker: &Asker, table: &[(&str, u16, &str)]) {
    for (name, rtype, expected) in table {
        assert_eq!(said(zones, asker, name, *rtype), *expected, "{name} type {rtype}, {asker:?}");
    }
}

#[test]
fn names_of_the_networks_of_the_asker() {
    let zones = zones(Synced::Complete);
    check(
        &zones,
        &asker(&["n1", "n2"]),
        &[
            ("web", A, "10.0.1.10"),
            ("web", AAAA, "fd00:1::10"),
            ("web.front", A, "10.0.1.10"),
            ("web.1", A, "10.0.1.11"),
            ("web.1.front", A, "10.0.1.11"),
            ("a.b", A, "10.0.1.30"),
            ("a.b.front", A, "10.0.1.30"),
            ("tasks.web", A, "10.0.1.11,10.0.1.12"),
            ("tasks.web.front", A, "10.0.1.11,10.0.1.12"),
            // The first network of the asker wins; the other is reached by its name.
            ("db", A, "10.0.1.20"),
            ("db.back.end", A, "10.0.17.20"),
            ("db.front", A, "10.0.1.20"),
            ("only", A, "10.0.17.9"),
            // The first network has the name in the other family only.
            ("six", A, "10.0.17.6"),
            ("six", AAAA, "fd00:1::6"),
            ("db", AAAA, "nodata"),
            ("db", MX, "nodata"),
            ("web", HTTPS, "nodata"),
            ("web", PTR, "nodata"),
            ("web", ANY, "minimal"),
            ("_http._tcp.web", SRV, "nodata"),
            ("_http._tcp.example.com", SRV, "forward"),
            // A network is a name with nothing at it, so that resolvers believe what is below.
            ("front", A, "nodata"),
            ("back.end", A, "nodata"),
        ],
    );
    check(&zones, &asker(&["n2", "n1"]), &[("db", A, "10.0.17.20"), ("db.front", A, "10.0.1.20")]);
}

#[test]
fn what_is_ours_is_never_forwarded() {
    let zones = zones(Synced::Complete);
    check(
        &zones,
        &asker(&["n1", "n2"]),
        &[
            ("nope.front", A, "nxdomain"),
            ("x.y.front", AAAA, "nxdomain"),
            ("\\000.front", A, "nxdomain"),
            ("nope.back.end", A, "nxdomain"),
            ("nope.front", ANY, "nxdomain"),
            ("tasks.nope", A, "nxdomain"),
            ("secret", A, "nxdomain"),
            ("hidden", AAAA, "nxdomain"),
            ("secret.other", A, "forward"),
            ("end", A, "forward"),
            ("example.com", A, "forward"),
            ("tasks.google.com", A, "forward"),
            ("printer", A, "forward"),
            ("", 2, "forward"),
            // What ANY says must not tell hidden from unknown.
            ("secret", ANY, "minimal"),
            ("printer", ANY, "minimal"),
        ],
    );
}

#[test]
fn reverse_names() {
    let zones = zones(Synced::Complete);
    let six = "0.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.0.0.d.f.ip6.arpa";
    check(
        &zones,
        &asker(&["n1", "n2"]),
        &[
            ("10.1.0.10.in-addr.arpa", PTR, "web.front"),
            ("20.17.0.10.in-addr.arpa", PTR, "db.back.end"),
            (six, PTR, "web.front"),
            (&six[2..], PTR, "nodata"),
            ("10.1.0.10.in-addr.arpa", A, "nodata"),
            ("10.1.0.10.in-addr.arpa", ANY, "minimal"),
            ("77.1.0.10.in-addr.arpa", PTR, "nxdomain"),
            ("1.31.0.10.in-addr.arpa", PTR, "nxdomain"),
            ("1.32.0.10.in-addr.arpa", PTR, "forward"),
            ("1.0.10.in-addr.arpa", 6, "nodata"),
            ("junk.1.0.10.in-addr.arpa", PTR, "nxdomain"),
            ("300.1.0.10.in-addr.arpa", PTR, "nxdomain"),
            ("1.2.10.1.0.10.in-addr.arpa", PTR, "nxdomain"),
            // A range of a network of somebody else.
            ("9.99.0.10.in-addr.arpa", PTR, "nxdomain"),
            ("8.99.0.10.in-addr.arpa", PTR, "nxdomain"),
            ("9.99.0.10.in-addr.arpa", ANY, "minimal"),
            // Wider than any network, or public.
            ("10.in-addr.arpa", PTR, "forward"),
            ("0.10.in-addr.arpa", PTR, "forward"),
            ("8.8.8.8.in-addr.arpa", PTR, "forward"),
            ("in-addr.arpa", PTR, "forward"),
            ("ip6.arpa", PTR, "forward"),
            ("notin-addr.arpa", PTR, "forward"),
        ],
    );
    check(&zones, &asker(&["n3"]), &[("10.1.0.10.in-addr.arpa", PTR, "nxdomain")]);
    let wider = zones.with_cluster_subnets(["10.7.0.0/16".parse().unwrap()]);
    check(&wider, &asker(&["n1"]), &[("1.2.7.10.in-addr.arpa", PTR, "nxdomain")]);
}

#[test]
fn not_synced_is_servfail_for_what_would_be_ours() {
    let names = [
        ("web", A, "10.0.1.10"),
        ("db", AAAA, "nodata"),
        ("nope.front", A, "servfail"),
        ("tasks.nope", A, "servfail"),
        ("nope", A, "servfail"),
        ("secret", A, "servfail"),
        ("77.1.0.10.in-addr.arpa", PTR, "servfail"),
        ("example.com", A, "forward"),
    ];
    check(&zones(Synced::NotYet), &asker(&["n1"]), &names);
    // The same for one asker only, if one of its networks has not arrived.
    check(&zones(Synced::Complete), &asker(&["n1", "n-new"]), &names);
}

#[test]
fn a_sandbox_without_a_way_out_asks_nobody() {
    let zones = zones(Synced::Complete);
    let closed = Asker { outside: Outside::Closed, ..asker(&["n1"]) };
    let names = ["example.com", "printer", "secret", "9.99.0.10.in-addr.arpa", "secret.other", ""];
    for name in names {
        for rtype in [A, AAAA, PTR, ANY, MX] {
            assert_eq!(said(&zones, &closed, name, rtype), "nxdomain", "{name} {rtype}");
        }
    }
    check(&zones, &closed, &[("web", A, "10.0.1.10")]);
    let nobody = Asker { upstreams: vec![], ..asker(&["n1"]) };
    check(&zones, &nobody, &[("example.com", A, "servfail"), ("secret", A, "servfail")]);
}

#[test]
fn ndots_of_the_user_keeps_single_labels_in() {
    let zones = zones(Synced::Complete);
    let with = |ndots| Asker { ndots, ..asker(&["n1"]) };
    check(
        &zones,
        &with(Some(2)),
        &[
            ("printer", A, "nodata"),
            ("secret", A, "nodata"),
            ("web", A, "10.0.1.10"),
            ("example.com", A, "forward"),
        ],
    );
    check(&zones, &with(Some(0)), &[("printer", A, "forward")]);
}

#[test]
fn transfers_and_other_classes_are_refused() {
    let zones = zones(Synced::Complete);
    for rtype in [249, 250, 251, 252, 253, 254, rtype::OPT] {
        check(
            &zones,
            &asker(&["n1"]),
            &[("web", rtype, "refuse"), ("example.com", rtype, "refuse")],
        );
    }
    for class in [3, 4, 254, 255] {
        let question = Question { name: "web", rtype: A, class };
        assert_eq!(resolve(&zones, &asker(&["n1"]), &question), Resolution::Refuse);
    }
}
