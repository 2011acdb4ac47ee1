//! Commands that are not run, and callers that make mistakes.

use tonic::Code;
use weft_proto::v1::exec_request::{Request, Start};

use crate::{
    lab::{block_on, eventually},
    place::{Place, command, first_pid, guests},
};

#[test]
fn what_cannot_run_ends_as_in_a_shell() {
    block_on(async {
        let place = Place::new("apinorun");
        let name = place.sleeper().await;
        for (args, code) in [(["nosuch"], 127), (["/no/such"], 127), (["/etc"], 126)] {
            let told = place.run(command(&name, &args), "").await.expect("no failure of ours");
            assert_eq!((told.code, told.started, told.stdout.len()), (Some(code), 0, 0));
            assert!(told.err().contains(args[0]) && told.err().ends_with('\n'), "{told:?}");
        }
        let nobody = Start { user: "www".into(), ..command(&name, &["true"]) };
        let told = place.run(nobody, "").await.expect("no failure of ours");
        assert_eq!((told.code, told.started), (Some(126), 0));
        assert!(told.err().contains("unable to find user www"), "{told:?}");
        let detached = Start { detach: true, ..command(&name, &["nosuch"]) };
        assert_eq!(place.run(detached, "").await.expect("run").code, Some(127));
    });
}

#[test]
fn what_is_not_allowed_is_a_status() {
    block_on(async {
        let place = Place::new("apirefuse");
        let name = place.sleeper().await;
        let ended = place.task("", "ended.1", &["true"]);
        let over = ended.name.clone();
        place.lab.run(ended).await;
        let table = [
            (command("nosuch", &["true"]), Code::NotFound, "no such container: nosuch"),
            (command("", &["true"]), Code::InvalidArgument, "no container was named"),
            (command(&over, &["true"]), Code::FailedPrecondition, "is not running"),
            (command(&name, &[]), Code::InvalidArgument, "no command was given"),
        ];
        for (start, code, why) in table {
            let status = place.run(start, "").await.expect_err(why);
            assert_eq!(status.code(), code, "{status}");
            assert!(status.message().contains(why), "{status}");
        }
        let first = place.session(Request::Stdin(b"x".to_vec())).await.err().expect("refused");
        assert_eq!(first.code(), Code::InvalidArgument);
        let none = place.containers.clone().exec(tokio_stream::empty()).await.expect_err("refused");
        assert_eq!(none.code(), Code::InvalidArgument);
    });
}

#[test]
fn a_mistake_ends_the_session_and_its_command() {
    block_on(async {
        let place = Place::new("apimistake");
        let name = place.sleeper().await;
        let first = first_pid(&place, &name).await;
        let sleep = || command(&name, &["sleep", "1000"]);
        let table = [
            (Request::Signal(65), "65"),
            (Request::Signal(0), "0"),
            (Request::Stdin(b"x".to_vec()), "no standard input"),
            (Request::Start(sleep()), "runs already"),
        ];
        for (mistake, why) in table {
            let mut session = place.session(Request::Start(sleep())).await.expect("session");
            eventually("it runs", || guests(first).len() == 1).await;
            session.say(mistake).await;
            let status = session.rest().await.expect_err(why);
            assert_eq!(status.code(), Code::InvalidArgument, "{status}");
            assert!(status.message().contains(why), "{status}");
            eventually("the command is gone", || guests(first).is_empty()).await;
        }
    });
}
