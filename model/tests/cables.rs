//! Direct links between containers against random commands, and what is refused.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use proptest::prelude::*;
use weft_model::{
    CableEnd, CableId, Command, ContainerId, Proposal, Rejected, State, Time,
    command::Force,
    object::Wanted,
    spec::{ContainerSpec, NetworkMode, RunSpec},
};

fn container(number: u8) -> ContainerId {
    ContainerId::from_bytes([number; 32])
}

fn create(number: u8, network: NetworkMode) -> Command {
    let container_spec = ContainerSpec::new("rootfs:/srv", &["sh"]);
    let mut spec = RunSpec::new(&format!("c{number}"), container_spec);
    spec.network = network;
    Command::CreateContainer { id: container(number), spec: Arc::new(spec), endpoints: Vec::new() }
}

fn remove(number: u8) -> Command {
    let (wanted, force) = (Wanted::Removed, Force::Yes);
    Command::SetContainer { id: container(number), wanted, ports: Vec::new(), force }
}

fn forget(number: u8) -> Command {
    Command::ForgetContainer { id: container(number) }
}

fn end(number: u8, ifname: &str, address: &str) -> CableEnd {
    let address = address.parse().unwrap();
    CableEnd { container: container(number), ifname: ifname.to_owned(), address }
}

fn pair(id: u8, ends: [CableEnd; 2]) -> Command {
    Command::ConnectPair { id: CableId::from_bytes([id; 32]), ends }
}

fn apply(state: &mut State, command: Command) -> Result<(), Rejected> {
    let index = state.revision() + 1;
    let proposal = Proposal { request: None, now: Time(index), commands: vec![command] };
    let result = state.apply(index, &proposal).into_result().map(drop);
    assert_eq!(state.check(), vec![], "after {proposal:?}");
    result
}

fn commands() -> impl Strategy<Value = Command> {
    let mode = prop_oneof![3 => Just(NetworkMode::None), 1 => Just(NetworkMode::Host)];
    let an_end = || {
        (0u8..4, 0u8..3, 0u8..8, prop_oneof![Just(29u8), Just(30), Just(32)]).prop_map(
            |(number, eth, host, prefix)| {
                end(number, &format!("eth{eth}"), &format!("10.1.1.{host}/{prefix}"))
            },
        )
    };
    prop_oneof![
        3 => (0u8..4, mode).prop_map(|(number, mode)| create(number, mode)),
        1 => (0u8..4).prop_map(remove),
        1 => (0u8..4).prop_map(forget),
        8 => (0u8..4, an_end(), an_end()).prop_map(|(id, one, other)| pair(id, [one, other])),
    ]
}

proptest! {
    #[test]
    fn whatever_comes_the_invariants_hold(commands in prop::collection::vec(commands(), 1..80)) {
        let mut state = State::default();
        for command in commands {
            let before: Vec<_> = state.cables().cloned().collect();
            if apply(&mut state, command).is_err() {
                prop_assert_eq!(before, state.cables().cloned().collect::<Vec<_>>());
            }
        }
        let bytes = rmp_serde::to_vec_named(&state).unwrap();
        let restored: State = rmp_serde::from_slice(&bytes).unwrap();
        prop_assert_eq!(restored, state, "a snapshot differs");
    }
}

#[test]
fn a_link_is_refused_where_it_cannot_be_and_goes_with_either_end() {
    let mut state = State::default();
    for number in 0..2 {
        apply(&mut state, create(number, NetworkMode::None)).unwrap();
    }
    apply(&mut state, create(2, NetworkMode::Host)).unwrap();
    let one = || end(0, "eth0", "10.1.1.1/30");
    let refused = |state: &mut State, other: CableEnd| {
        apply(state, pair(9, [one(), other])).unwrap_err().to_string()
    };
    let text = refused(&mut state, end(2, "eth1", "10.1.1.2/30"));
    assert_eq!(text, "container c2 cannot have a direct link: it has the host's network namespace");
    assert!(refused(&mut state, end(0, "eth1", "10.1.1.2/30")).contains("is named twice"));
    assert!(refused(&mut state, end(1, "eth0", "10.1.1.3/30")).contains("not for hosts"));
    assert!(refused(&mut state, end(1, "eth0", "10.1.2.2/30")).contains("both addresses"));
    apply(&mut state, pair(1, [one(), end(1, "eth0", "10.1.1.2/30")])).unwrap();
    let twice = pair(2, [end(0, "eth0", "10.1.2.1/30"), end(1, "eth1", "10.1.2.2/30")]);
    assert!(apply(&mut state, twice).unwrap_err().to_string().contains("given twice"));
    let same = pair(2, [end(0, "eth1", "10.1.1.1/29"), end(1, "eth1", "10.1.1.2/29")]);
    let text = apply(&mut state, same).unwrap_err().to_string();
    assert!(text.contains("overlaps 10.1.1.0/30 of another direct link"), "{text}");
    apply(&mut state, remove(1)).unwrap();
    assert_eq!(state.cables().count(), 1, "it is there until nothing of the container is left");
    apply(&mut state, forget(1)).unwrap();
    assert_eq!(state.cables().count(), 0);
}
