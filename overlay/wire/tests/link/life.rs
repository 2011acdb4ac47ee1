//! Beginnings and ends: of the engine, of its devices, of what it is told.

use std::thread;

use weft_wire::{Client, ClientError};

use crate::lab::{TAP, VNI, World, check_stream, send_stream, wait_until};

#[test]
fn a_killed_engine_comes_back_and_flows_go_on() {
    let mut world = World::new(2, 1);
    let [a, b] = &world.hosts[..] else { unreachable!() };
    let listener = b.guest.listen("10.0.0.2:5001");
    let stream = a.guest.connect("10.0.0.2:5001");
    let (accepted, _) = listener.accept().unwrap();
    const BYTES: usize = 8 << 20;
    let (half, reached) = std::sync::mpsc::channel();
    let (go, gone) = std::sync::mpsc::channel::<()>();
    let sender = thread::spawn(move || {
        send_stream(stream, 1, |sent| {
            if sent == BYTES / 2 {
                half.send(()).unwrap();
                gone.recv().unwrap();
            }
            sent < BYTES
        });
    });
    let receiver = thread::spawn(move || check_stream(accepted, 1));
    reached.recv().unwrap();
    let receiving = &mut world.hosts[1];
    receiving.kill();
    receiving.start();
    world.configure();
    go.send(()).unwrap();
    sender.join().unwrap();
    assert_eq!(receiver.join().unwrap(), BYTES);
    // The other one did not wait the 15 s until it would ask by itself.
    let age = world.hosts[0].status().peers[&2].handshake_age.unwrap();
    assert!(age.as_secs() < 60, "{age:?}");
}

#[test]
fn a_second_engine_is_refused() {
    let mut world = World::without_engines(1, 1);
    world.hosts[0].start();
    let dir = world.hosts[0].run_dir();
    let error = weft_wire::run(dir).unwrap_err();
    assert!(error.to_string().starts_with("an engine runs already"), "{error}");
    assert!(Client::connect(dir).is_ok(), "the first one goes on");
}

#[test]
fn it_ends_when_it_is_told_and_on_a_signal() {
    let mut world = World::without_engines(1, 1);
    let host = &mut world.hosts[0];
    host.start();
    host.client().stop().unwrap();
    assert!(host.wait().success());
    assert!(!host.run_dir().join(weft_wire::SOCKET).exists());
    host.start();
    let pid = nix::unistd::Pid::from_raw(host.pid().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert!(host.wait().success());
    host.start();
}

#[test]
fn only_the_public_halves_are_shown() {
    let world = World::new(2, 1);
    let config = world.config(1);
    let shown = world.hosts[0].client().get().unwrap();
    assert_eq!(shown, config.without_private_keys());
    assert_ne!(shown, config);
}

#[test]
fn what_cannot_be_is_refused_and_changes_nothing() {
    let world = World::new(2, 1);
    let [a, b] = &world.hosts[..] else { unreachable!() };
    let before = a.client().get().unwrap();
    let taken = a.host.udp("[::]:51830");
    let mut config = world.config(1);
    config.identities[0].ports = vec![51830];
    let refused = |config| match a.client().set(config) {
        Err(ClientError::Refused(reason)) => reason,
        other => panic!("{other:?}"),
    };
    let reason = refused(config.clone());
    assert!(reason.contains("51830") && reason.contains("in use"), "{reason}");
    config.identities[0].ports = vec![];
    assert!(refused(config).contains("ports"));
    assert_eq!(a.client().get().unwrap(), before);
    wait_until("it goes on", || a.guest.pings(&b.inner()));
    drop(taken);
}

#[test]
fn a_device_that_is_missing_is_waited_for() {
    let mut world = World::without_engines(2, 2);
    world.hosts[0].host.sh(&format!("ip link delete {TAP}"));
    for host in &mut world.hosts {
        host.start();
    }
    world.configure();
    let [a, b] = &world.hosts[..] else { unreachable!() };
    wait_until("the status says so", || a.status().devices.contains_key(&VNI));
    a.add_tap();
    wait_until("it is open", || a.status().devices.is_empty());
    wait_until("packets pass", || a.guest.pings(&b.inner()));
    a.host.sh(&format!("ip link delete {TAP}"));
    wait_until("the status says so again", || a.status().devices.contains_key(&VNI));
    a.add_tap();
    wait_until("packets pass again", || a.guest.pings(&b.inner()));
}

#[test]
fn a_node_that_moves_is_followed() {
    let world = World::new(2, 1);
    let [a, b] = &world.hosts[..] else { unreachable!() };
    wait_until("they have met", || a.guest.pings(&b.inner()));
    // Its old address is gone: only its own packets can tell where it is.
    b.host.sh("ip address add 10.99.0.77/24 dev u0; ip address del 10.99.0.2/24 dev u0");
    b.host.sh("ip address show dev u0 | grep -q 10.99.0.77 || ip address add 10.99.0.77/24 dev u0");
    wait_until("it is reached where it is now", || b.guest.pings(&a.inner()));
    let moved = || a.status().peers[&2].endpoint.unwrap().to_string();
    wait_until("the other one has noticed", || moved() == "10.99.0.77:51820");
}

#[test]
fn who_keeps_a_way_open_speaks_first_so_that_others_can() {
    let mut world = World::without_engines(2, 1);
    // Nothing is sent by its container.
    world.hosts[0].guest.sh("ip link set eth0 down");
    world.hosts.iter_mut().for_each(|host| host.start());
    let [a, b] = &world.hosts[..] else { unreachable!() };
    let mut config = world.config(1);
    config.nodes.get_mut(&2).unwrap().keepalive = Some(25);
    a.client().set(config).unwrap();
    // The second looks for the first where nobody is, as for a node behind an address translator.
    let mut config = world.config(2);
    config.nodes.get_mut(&1).unwrap().endpoint = [10, 99, 0, 77].into();
    b.client().set(config).unwrap();
    wait_until("the second hears of the first", || {
        b.status().peers.get(&1).is_some_and(|peer| peer.received > 0)
    });
    a.guest.sh("ip link set eth0 up");
    wait_until("a packet comes from the second", || b.guest.pings(&a.inner()));
}
