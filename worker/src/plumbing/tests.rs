//! The loop's own pace, over a kernel that changes all the time.

use weft_dns::Zones;
use weft_model::TaskId;

use super::*;
use crate::tunnel::Choice;

/// Something in it has always changed, and all that is wanted is there.
struct Busy;

impl HostKernel for Busy {
    async fn reconcile(
        &mut self,
        _: Arc<Dataplane>,
        _: Completeness,
        _: Scope,
    ) -> Result<Report, Gone> {
        Ok(Report::default())
    }

    async fn changed(&mut self) {}
}

/// A node without keys.
fn end() -> (watch::Sender<Arc<End>>, watch::Receiver<Arc<End>>) {
    let end = End { choice: Choice::in_memory(), keys: BTreeMap::new(), translated: false };
    watch::channel(Arc::new(end))
}

#[tokio::test(start_paused = true)]
async fn a_busy_kernel_does_not_keep_wishes_waiting() {
    let (_assigned, told) = watch::channel((Source::Managers, Arc::default()));
    let names = Server::new(Zones::default(), tokio::runtime::Handle::current());
    let (_keys, end) = end();
    let plumbing = Plumbing::start(Busy, told, None, end, Arc::new(names), BTreeMap::new());
    let mut standing = plumbing.standing();
    // A look has ended, so the loop pauses until the next.
    standing.wait_for(|now| now.looks > 1).await.expect("the loop runs");
    let (holder, asked) = (Holder::Task(TaskId::from_bytes([1; 32])), Instant::now());
    let local = LocalSandbox {
        netns: "/run/netns/busy".into(),
        dns_port: None,
        attachments: Vec::new(),
        ifname: None,
        default_gateway: false,
    };
    plumbing.put(holder, Plumbed { local, resolving: Resolving::default() });
    standing.wait_for(|now| now.sandboxes.contains(&holder)).await.expect("the loop runs");
    assert!(asked.elapsed() < EVENT_PAUSE / 2, "{:?}", asked.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_busy_kernel_does_not_keep_the_loop_busy() {
    let (_assigned, told) = watch::channel((Source::Managers, Arc::default()));
    let names = Server::new(Zones::default(), tokio::runtime::Handle::current());
    let (_keys, end) = end();
    let plumbing = Plumbing::start(Busy, told, None, end, Arc::new(names), BTreeMap::new());
    tokio::time::sleep(EVENT_PAUSE * 10).await;
    let looks = plumbing.standing().borrow().looks;
    assert!((2..=11).contains(&looks), "{looks} looks");
}
