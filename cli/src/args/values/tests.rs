//! Each reader: what it takes, and what it refuses.

use std::time::Duration;

use super::*;
use proptest::prelude::*;

#[test]
fn spans_and_sizes() {
    let spans = [("10s", 10_000), ("1h30m", 5_400_000), ("250ms", 250), ("0", 0), ("1.5s", 1_500)];
    for (text, millis) in spans {
        assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
    }
    for bad in ["", "5", "-1s", "1e99h", "NaN", "1x", "s", "99999999999999h", "1.2.3s"] {
        assert!(duration(bad).is_err(), "{bad}");
    }
    let sizes =
        [("512m", 512 << 20), ("1.5g", 3 << 29), ("64k", 65_536), ("100", 100), ("1GiB", 1 << 30)];
    for (text, size) in sizes {
        assert_eq!(bytes(text), Ok(size), "{text}");
    }
    for bad in ["", "-1", "m", "1x", "99999999999999999999g", "nan"] {
        assert!(bytes(bad).is_err(), "{bad}");
    }
    assert_eq!(nano_cpus("0.5"), Ok(500_000_000));
    for bad in ["-1", "nan", "inf", "x", "1e-12"] {
        assert!(nano_cpus(bad).is_err(), "{bad}");
    }
}

#[test]
fn networks_and_constraints() {
    let spec = network("blue,alias=db,alias=data").unwrap();
    assert_eq!((spec.network.as_str(), spec.aliases.len()), ("blue", 2));
    assert_eq!(network("name=blue,alias=db").unwrap().aliases, ["db"]);
    for bad in ["", "alias=x", "blue,foo=x", "blue,green", "name=", "blue,alias="] {
        assert!(network(bad).is_err(), "{bad}");
    }
    for good in ["node.role==manager", "node.labels.zone != a", "Node.Hostname==x"] {
        assert_eq!(constraint(good).as_deref(), Ok(good));
    }
    for bad in
        ["node.role=manager", "node.rol==x", "node.labels.==x", "node.id==", "x", "node.id===a"]
    {
        assert!(constraint(bad).is_err(), "{bad}");
    }
}

#[test]
fn addresses() {
    assert_eq!(
        subnet("10.0.9.7/24").unwrap_err(),
        "10.0.9.7/24 has bits behind the prefix: did you mean 10.0.9.0/24?"
    );
    for bad in ["10.0.0.0/33", "010.0.0.0/8", "10.0.0.0 /8", "10.0.0.0", "fe80::1%eth0/64"] {
        assert!(subnet(bad).is_err(), "{bad}");
    }
    assert_eq!(host_port("10.0.0.1").as_deref(), Ok("10.0.0.1:2377"));
    // Without brackets nobody can tell the port from the end of the address.
    for bad in ["0:2:3:4:5:6:7:00022", "[host]:22", "[::1:22", "host:+22"] {
        assert!(host_port(bad).is_err(), "{bad}");
    }
    assert_eq!(host_port("fd00::1").as_deref(), Ok("[fd00::1]:2377"));
    assert_eq!(host_port("m1:99").as_deref(), Ok("m1:99"));
    for bad in ["m1:0", "m1:x", ":2377", "", "a b:1", "http://x:1"] {
        assert!(host_port(bad).is_err(), "{bad}");
    }
    assert_eq!(host("db:fd00::1").as_deref(), Ok("db:fd00::1"));
    let pool = address_pool("base=10.1.0.0/16,size=24").unwrap();
    assert_eq!(pool.size, 24);
    assert!(address_pool("base=10.1.0.0/16,size=8").is_err());
}

#[test]
fn signals_times_words_and_mounts() {
    for (text, number) in [("KILL", 9), ("sigterm", 15), ("1", 1), ("USR1", 10)] {
        assert_eq!(signal(text), Ok(number), "{text}");
    }
    assert!(signal("0").is_err() && signal("NOPE").is_err());
    assert_eq!(since("10m"), Ok(Since::Ago(Duration::from_secs(600))));
    assert_eq!(since("5"), Ok(Since::At(Timestamp::from_second(5).unwrap())));
    assert!(matches!(since("2026-01-02T15:04:05Z"), Ok(Since::At(_))));
    assert!(matches!(since("2026-01-02"), Ok(Since::At(_))));
    for bad in ["yesterday", "nan", "-inf"] {
        assert!(since(bad).is_err(), "{bad}");
    }
    assert_eq!(
        words(r#"sh -c "echo 'a b'" x\ y ''"#).unwrap().0,
        ["sh", "-c", "echo 'a b'", "x y", ""]
    );
    assert!(words("'a").is_err());
    let bind = mount("type=bind,src=/a,dst=/b,readonly").unwrap();
    assert!(bind.read_only && bind.source == "/a" && bind.target == "/b");
    for bad in [
        "type=volume,target=/b",
        "type=bind,source=a,target=/b",
        "type=tmpfs",
        "type=tmpfs,target=/x,bogus=1",
    ] {
        assert!(mount(bad).is_err(), "{bad}");
    }
    assert_eq!(scale("a=b=3"), Ok(("a=b".into(), 3)));
    assert!(scale("web=-1").is_err() && scale("web").is_err());
    assert!(file_name("../x").is_err() && file_name("").is_err() && file_name("ci-1").is_ok());
}

proptest! {
    #[test]
    fn no_value_makes_a_reader_panic(text in any::<String>()) {
        let _ = (duration(&text), bytes(&text), nano_cpus(&text), network(&text), constraint(&text));
        let _ = (since(&text), host_port(&text), mount(&text), words(&text), host(&text));
        let _ = (address_pool(&text), signal(&text), scale(&text), label(&text), tail(&text));
    }

    #[test]
    fn every_number_of_seconds_is_read_back(seconds in 0u64..1_000_000_000) {
        prop_assert_eq!(duration(&format!("{seconds}s")), Ok(Duration::from_secs(seconds)));
    }
}
