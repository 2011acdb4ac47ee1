//! An engine without a daemon, for measuring: two nodes with one interface each on network 65536.
//!
//! ```text
//! engine run DIR
//! engine set DIR a|b LANES
//! engine status DIR
//! engine stop DIR
//! ```
//! Node a is 10.99.0.1 and has 10.0.0.2 behind it, node b is 10.99.0.2 and has 10.0.0.3.

use std::{collections::BTreeMap, env, error::Error, path::Path};

use weft_wire::{Client, Config, Identity, Key, Member, Network, Node, PeerIdentity, run};

/// Where the first lane listens.
const PORT: u16 = 51820;
/// The tunnel addresses are 100.64.0.1 and 100.64.0.2.
const TUNNEL: u32 = 0x6440_0000;

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["run", dir] => run(Path::new(dir))?,
        ["set", dir, side, lanes] => {
            let number = if *side == "a" { 1 } else { 2 };
            Client::connect(Path::new(dir))?.set(config(number, lanes.parse()?))?;
        }
        ["status", dir] => println!("{:#?}", Client::connect(Path::new(dir))?.status()?),
        ["stop", dir] => Client::connect(Path::new(dir))?.stop()?,
        _ => return Err("usage: engine run|set|status|stop DIR".into()),
    }
    Ok(())
}

fn config(own: u8, lanes: u16) -> Config {
    let other = 3 - own;
    let ports: Vec<u16> = (0..lanes).map(|lane| PORT + 2 * lane).collect();
    let identity = Identity {
        private_key: Key([own; 32]),
        address: (TUNNEL + u32::from(own)).into(),
        ports: ports.clone(),
    };
    let peer = PeerIdentity {
        public_key: Key([other; 32]).public(),
        address: (TUNNEL + u32::from(other)).into(),
        ports,
    };
    let node =
        Node { endpoint: [10, 99, 0, other].into(), identities: vec![peer], keepalive: None };
    let member = Member { node: other.into(), addresses: vec![[10, 0, 0, other + 1].into()] };
    let members = BTreeMap::from([([2, 0x42, 10, 0, 0, other + 1], member)]);
    Config {
        identities: vec![identity],
        nodes: BTreeMap::from([(other.into(), node)]),
        networks: BTreeMap::from([(65536, Network { device: "wt010000".into(), members })]),
    }
}
