//! Containers reach each other across hosts, and nobody else.

use super::lab::*;

#[test]
fn containers_reach_each_other_across_hosts() {
    let mut lab = Lab::new(2, false);
    lab.network(VNI, &[("10.1.0.0/24", "10.1.0.1"), ("fd01::/64", "fd01::1")], false);
    let a = lab.attach(0, "a", &[(VNI, &["10.1.0.2/24", "fd01::2/64"])]);
    let b = lab.attach(1, "b", &[(VNI, &["10.1.0.3/24", "fd01::3/64"])]);
    let c = lab.attach(0, "c", &[(VNI, &["10.1.0.4/24", "fd01::4/64"])]);
    lab.settle();
    for target in ["10.1.0.3", "fd01::3", "10.1.0.4", "fd01::4", "10.1.0.1", "fd01::1"] {
        assert!(a.pings(target), "a cannot reach {target}");
    }
    b.serve_tcp("10.1.0.3:80", "b");
    b.serve_tcp("[fd01::3]:80", "b6");
    assert_eq!(c.ask_tcp("10.1.0.3:80").unwrap(), "b 10.1.0.4");
    assert_eq!(a.ask_tcp("[fd01::3]:80").unwrap(), "b6 fd01::2");
}
