//! What attaching costs. Measurements, not promises: run with `--ignored --nocapture` in release.

use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};
use weft_overlay::*;

use super::lab::*;

/// Processor time of the whole process so far, in milliseconds: its own, and the kernel's for it.
fn cpu() -> (f64, f64) {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let ms =
        |time: nix::sys::time::TimeVal| time.tv_sec() as f64 * 1e3 + time.tv_usec() as f64 / 1e3;
    (ms(usage.user_time()), ms(usage.system_time()))
}

fn measure(what: &str, count: u32, work: impl FnOnce()) {
    let (start, before) = (Instant::now(), cpu());
    work();
    let wall = start.elapsed().as_secs_f64() * 1e3 / f64::from(count);
    let after = cpu();
    let [user, system] =
        [after.0 - before.0, after.1 - before.1].map(|used| used / f64::from(count));
    println!("{what}: each {wall:.3} ms wall, {user:.3} ms user, {system:.3} ms system");
}

#[test]
#[ignore = "a measurement"]
fn thirty_containers() {
    let mut lab = Lab::new(1, false);
    lab.network(VNI, &[("10.1.0.0/24", "10.1.0.1"), ("fd01::/64", "fd01::1")], false);
    let remotes = (0..1000u32).map(|n| {
        let address = ip(&format!("10.1.{}.{}", 4 + n / 250, n % 250));
        Remote { addresses: vec![address], mac: mac_for([address]), vtep: ip("192.0.2.1") }
    });
    overlay(&mut lab.nodes[0].desired, VNI).remotes = remotes.collect();
    measure("network with 1000 remote attachments", 1, || drop(lab.nodes[0].settle()));
    let mut spaces = Vec::new();
    for n in 0..60 {
        let (v4, v6) = (format!("10.1.0.{}/24", n + 2), format!("fd01::{}/64", n + 2));
        spaces.push(lab.attach(0, &format!("s{n}"), &[(VNI, &[&v4, &v6])]));
        let sandbox = lab.nodes[0].desired.sandboxes.get_mut(&format!("s{n}")).unwrap();
        sandbox.vips.insert(ip("10.1.0.200"), vec![ip("10.1.0.2"), ip("10.1.0.3")]);
        sandbox.dns_port = Some(5353);
    }
    let node = &mut lab.nodes[0];
    let all = std::mem::take(&mut node.desired.sandboxes);
    let mut waiting = all.into_iter();
    node.desired.sandboxes.extend(waiting.by_ref().take(30));
    let changed = || Scope::Changed([].into());
    measure("30 containers at once", 30, || drop(node.look(Completeness::Complete, changed())));
    measure("30 containers one by one", 30, || {
        for (key, sandbox) in waiting {
            node.desired.sandboxes.insert(key, sandbox);
            assert!(node.look(Completeness::Complete, changed()).is_settled());
        }
    });
    measure("a look at the host, nothing to do", 1, || {
        drop(node.look(Completeness::Complete, changed()))
    });
    measure("a full look at 60, nothing to do", 60, || {
        drop(node.look(Completeness::Complete, Scope::Full))
    });
    for sandbox in node.desired.sandboxes.values_mut() {
        sandbox.vips.insert(ip("10.1.0.200"), vec![ip("10.1.0.3")]);
    }
    measure("a backend leaves 60 sandboxes", 60, || {
        drop(node.look(Completeness::Complete, changed()))
    });
}
