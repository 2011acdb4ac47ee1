//! What a container costs.

use std::time::{Duration, Instant};

use weft_worker::container::Runtime;

use crate::lab::{Lab, block_on};

const CONTAINERS: usize = 30;
/// Bytes a shim may take of the machine's memory.
const SHIM_PSS_LIMIT: u64 = 300 << 10;

/// Far above what it takes (see the printed figures), to fail only for a new wait or walk, also on
/// a busy machine.
const START_LIMIT: Duration = Duration::from_secs(10);

#[test]
fn thirty_containers_start_soon_and_their_shims_are_small() {
    let lab = Lab::new("speed");
    block_on(async {
        let (cpu, since) = (children_cpu(), Instant::now());
        let mut starts = tokio::task::JoinSet::new();
        for n in 0..CONTAINERS {
            let config = lab.config(&n.to_string(), &["sleep", "1000"]);
            let embedded = lab.embedded.clone();
            starts.spawn(async move {
                let id = config.id.clone();
                embedded.create(config).await.expect("create");
                embedded.start(&id).await.expect("start");
                id
            });
        }
        let ids = starts.join_all().await;
        let took = since.elapsed();
        let mut pss = Vec::new();
        for id in &ids {
            let shim = lab.embedded.status(id).await.expect("status").shim_pid;
            pss.push(rollup(shim, "Pss:"));
        }
        let each = took / CONTAINERS as u32;
        println!("{CONTAINERS} containers in {took:?}, {each:?} each");
        println!("machine's CPU time for each: {:?}", (children_cpu() - cpu) / CONTAINERS as u32);
        println!("shim PSS: {:?} B at most", pss.iter().max());
        let since = Instant::now();
        for id in &ids {
            lab.embedded.remove(id).await.expect("remove");
        }
        println!("removed in {:?}, one after the other", since.elapsed());
        assert!(took < START_LIMIT, "{took:?}");
        assert!(pss.iter().all(|p| *p > 0 && *p <= SHIM_PSS_LIMIT), "{pss:?}");
        lab.assert_nothing_left();
    });
}

pub fn rollup(pid: i32, field: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("smaps");
    let line = text.lines().find(|l| l.starts_with(field)).expect("a field");
    line.split_whitespace().nth(1).and_then(|k| k.parse::<u64>().ok()).expect("kB") << 10
}

/// CPU time of the whole machine but for idling: shims and containers are nobody's children to ask
/// about.
fn children_cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/stat").expect("stat");
    let fields: Vec<u64> = text
        .lines()
        .next()
        .expect("cpu")
        .split_whitespace()
        .skip(1)
        .filter_map(|f| f.parse().ok())
        .collect();
    let busy: u64 = fields.iter().take(3).chain(fields.iter().skip(5).take(3)).sum();
    // USER_HZ is 100 on every architecture we run on.
    Duration::from_millis(busy * 10)
}
