//! The demo runs from nothing to a name that is pinged from each host, and leaves nothing.
#![forbid(unsafe_code)]

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// Beside a demo that somebody has started: under a name of its own.
fn demo(name: &str, command: &str) -> Output {
    let script: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/demo/demo.sh");
    Command::new("bash")
        .arg(script)
        .arg(command)
        .env("WEFT_DEMO", name)
        .env("WEFT", weft_tests::weft_binary())
        .output()
        .expect("bash runs")
}

/// Everything on this machine that has the demo's name.
fn left(name: &str) -> String {
    // The brackets keep the search from finding itself.
    let script = format!(
        "ls -d /run/weft-dem[o]-{name} 2>/dev/null; \
         grep -lsa '[w]eft-demo-{name}' /proc/[0-9]*/cmdline; \
         grep -s '[w]eft-demo-{name}' /proc/self/mountinfo; \
         find /sys/fs/cgroup -name 'weft-dem[o]-{name}'; true"
    );
    let said = Command::new("sh").args(["-c", &script]).output().expect("sh runs");
    String::from_utf8_lossy(&said.stdout).into_owned()
}

#[test]
fn it_comes_up_again_and_again_and_goes() {
    let name = format!("test{}", std::process::id());
    // The second one finds the first and removes it.
    for round in 0..2 {
        let up = demo(&name, "up");
        let text = String::from_utf8_lossy(&up.stdout).into_owned();
        let errors = String::from_utf8_lossy(&up.stderr).into_owned();
        if !up.status.success() {
            demo(&name, "down");
            panic!("round {round}: {text}{errors}");
        }
        assert_eq!(text.matches("2 packets received, 0% packet loss").count(), 3, "{text}");
        assert_eq!(
            text.matches("verify: Service converged").count()
                + errors.matches("verify: Service converged").count(),
            2,
            "{text}"
        );
        for word in [
            "n1",
            "n2",
            "n3",
            "Leader",
            "shop",
            "web",
            "answered by",
            "make demo-shell",
            "make demo-down",
        ] {
            assert!(text.contains(word), "{word}: {text}");
        }
    }
    let down = demo(&name, "down");
    assert!(down.status.success(), "{}", String::from_utf8_lossy(&down.stderr));
    assert_eq!(left(&name), "");
    assert!(demo(&name, "down").status.success(), "down twice is no error");
}
