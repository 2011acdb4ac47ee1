//! Stopping and killing.

use std::time::{Duration, Instant};

use tonic::Code;
use weft_proto::{
    convert::value,
    v1::{GetContainerRequest, KillContainerRequest, StopContainerRequest},
};
use weft_worker::container::{ContainerId, Runtime};

use crate::{lab::block_on, place::Place};

fn stop(container: &str, grace: Option<Duration>) -> StopContainerRequest {
    StopContainerRequest { container: container.to_owned(), grace: grace.map(value::duration) }
}

/// Ends with code 7 when told to.
const OBEDIENT: &[&str] =
    &["sh", "-c", "trap 'exit 7' TERM; trap 'exit 8' HUP; echo up; while :; do sleep 0.05; done"];

/// Waits until this is all that the container has said.
async fn said(place: &Place, id: &ContainerId, text: &str) {
    while place.lab.output(id).await.0 != text {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn a_stop_is_a_request_first_and_an_order_after_the_grace() {
    block_on(async {
        let place = Place::new("apistop");
        let mut client = place.containers.clone();
        let obedient = place.task("", "web.1", OBEDIENT);
        let deaf = place.task("", "web.2", &["sleep", "1000"]);
        let (obedient, _) = place.lab.started(obedient).await;
        let (deaf, _) = place.lab.started(deaf).await;
        said(&place, &obedient, "up\n").await;
        let stopped = client.stop(stop("web.1", None)).await.expect("stop").into_inner();
        assert_eq!(stopped.container_id, obedient.as_str());
        assert_eq!(place.lab.embedded.wait(&obedient).await.expect("wait").code, 7);

        let begun = Instant::now();
        let grace = Duration::from_millis(100);
        client.stop(stop("web.2", Some(grace))).await.expect("stop");
        assert!(begun.elapsed() >= grace);
        assert_eq!(place.lab.embedded.wait(&deaf).await.expect("wait").code, 137);

        // One that has ended is stopped already, and still there.
        client.stop(stop("web.2", None)).await.expect("again");
        let get = GetContainerRequest { container: "web.2".into() };
        let shown = client.get(get).await.expect("get").into_inner().container.expect("one");
        assert_eq!((shown.status.as_str(), shown.exit_code, shown.pid), ("exited", Some(137), 0));
        assert!(shown.finished_at.is_some());

        let mut negative = stop("web.2", None);
        negative.grace = Some(value::duration(grace));
        negative.grace.as_mut().expect("set").seconds = -1;
        assert_eq!(client.stop(negative).await.expect_err("refused").code(), Code::InvalidArgument);
        let unknown = client.stop(stop("web.3", None)).await.expect_err("unknown");
        assert_eq!(unknown.code(), Code::NotFound);
    });
}

#[test]
fn a_stop_goes_on_without_its_caller() {
    block_on(async {
        let place = Place::new("apistopgone");
        let deaf = "trap 'echo told' TERM; echo up; while :; do sleep 0.05; done";
        let (id, _) = place.lab.started(place.task("", "web.1", &["sh", "-c", deaf])).await;
        said(&place, &id, "up\n").await;
        let mut client = place.containers.clone();
        let request = stop("web.1", Some(Duration::from_secs(1)));
        let call = tokio::spawn(async move { client.stop(request).await });
        // The caller leaves within the grace; only the order after it ends this container.
        said(&place, &id, "up\ntold\n").await;
        call.abort();
        assert!(call.await.is_err_and(|error| error.is_cancelled()), "the caller left too late");
        let exit = place.lab.embedded.wait(&id).await.expect("wait");
        assert_eq!(exit.code, 137);
    });
}

#[test]
fn a_signal_is_sent_as_it_is() {
    block_on(async {
        let place = Place::new("apikill");
        let mut client = place.containers.clone();
        let kill = |container: &str, signal| KillContainerRequest {
            container: container.to_owned(),
            signal,
        };
        let (hup, _) = place.lab.started(place.task("", "web.1", OBEDIENT)).await;
        let (sleeps, _) = place.lab.started(place.task("", "web.2", &["sleep", "1000"])).await;
        said(&place, &hup, "up\n").await;
        let answer = client.kill(kill("web.1", 1)).await.expect("kill").into_inner();
        assert_eq!(answer.container_id, hup.as_str());
        assert_eq!(place.lab.embedded.wait(&hup).await.expect("wait").code, 8);
        client.kill(kill("web.2", 0)).await.expect("kill");
        assert_eq!(place.lab.embedded.wait(&sleeps).await.expect("wait").code, 137);
        let table = [
            ("web.2", 65, Code::InvalidArgument),
            ("web.2", u32::MAX, Code::InvalidArgument),
            ("web.2", 9, Code::FailedPrecondition),
            ("web.3", 9, Code::NotFound),
        ];
        for (container, signal, code) in table {
            let status = client.kill(kill(container, signal)).await.expect_err("refused");
            assert_eq!(status.code(), code, "{container} {signal}: {status}");
        }
        place.lab.embedded.release(&sleeps).await.expect("release");
        let status = client.kill(kill("web.2", 9)).await.expect_err("refused");
        assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    });
}
