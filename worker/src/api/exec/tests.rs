//! What may be asked for.

use tonic::Code;

use super::*;

fn start() -> Start {
    Start { container: "a".into(), args: vec!["true".into()], ..Start::default() }
}

#[test]
fn what_cannot_be_done_is_refused_by_name() {
    let table: [(Start, &str); 7] = [
        (Start { user: "a\0".into(), ..start() }, "NUL"),
        (Start { args: vec![], ..start() }, "no command"),
        (Start { args: vec![String::new()], ..start() }, "no command"),
        (Start { workdir: "bin".into(), ..start() }, "\"bin\" is not absolute"),
        (Start { args: vec!["a".into(), "b\0".into()], ..start() }, "NUL"),
        (Start { env: vec!["A".into()], ..start() }, "\"A\" is not KEY=VALUE"),
        (Start { env: vec!["=A".into()], ..start() }, "\"=A\" is not KEY=VALUE"),
    ];
    for (start, why) in table {
        let status = config(&start).expect_err(why);
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains(why), "{status}");
    }
}

#[test]
fn the_user_is_the_containers_to_know() {
    let start = Start { user: "www:web".to_owned(), ..start() };
    assert_eq!(config(&start).expect("good").user, "www:web");
}

#[test]
fn a_terminal_has_a_size() {
    let table = [
        (None, DEFAULT_SIZE),
        (Some((30, 90)), WindowSize { rows: 30, columns: 90 }),
        (Some((70_000, u32::MAX)), WindowSize { rows: u16::MAX, columns: u16::MAX }),
    ];
    for (size, wanted) in table {
        let size = size.map(|(rows, columns)| exec_request::WindowSize { rows, columns });
        let got = config(&Start { tty: true, size, ..start() }).expect("good").terminal;
        assert_eq!(got, Terminal::Yes(wanted));
    }
    assert_eq!(config(&start()).expect("good").terminal, Terminal::No);
}
