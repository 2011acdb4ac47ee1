//! Commands run to their end, and what they said.

use std::{path::PathBuf, process::Command};

/// A command that has ended.
#[derive(Debug, Clone)]
pub struct Output {
    /// As it would be typed.
    pub command: String,
    /// Exit code; 128 + signal as in a shell.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// Runs `command`, shown as `argv` when something is wrong with it.
    pub fn of(command: &mut Command, argv: &[&str]) -> Self {
        use std::os::unix::process::ExitStatusExt as _;
        let output = command.output().expect("the command can be started");
        let code =
            output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap_or(0));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            command: argv.join(" "),
            code,
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }

    /// Its standard output, trimmed, if it succeeded; otherwise all it said.
    pub fn text(&self) -> Result<String, String> {
        if self.code == 0 { Ok(self.stdout.trim().to_owned()) } else { Err(self.to_string()) }
    }

    /// Its standard output, trimmed; it must have succeeded.
    #[track_caller]
    pub fn ok(&self) -> String {
        self.text().unwrap_or_else(|said| panic!("failed: {said}"))
    }

    /// It must have been refused with this exit code and all these words.
    #[track_caller]
    pub fn refused(&self, code: i32, words: &[&str]) -> &Self {
        assert_eq!(self.code, code, "exit code of {self}");
        let said = self.stderr.to_lowercase();
        for word in words {
            assert!(said.contains(&word.to_lowercase()), "{word:?} is not in: {self}");
        }
        if code != 2 {
            assert!(self.stderr.lines().any(|l| l.starts_with("error: ")), "no error line: {self}");
        }
        self
    }

    /// As JSON; it must have succeeded.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        let text = self.ok();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {self}"))
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}` -> {}\n{}{}", self.command, self.code, self.stdout, self.stderr)
    }
}

/// The program under test: `target/debug/weft` beside the tests' own directory.
pub fn weft_binary() -> PathBuf {
    let path = built("weft");
    assert!(path.exists(), "{} is missing: build it with `cargo build -p weft`", path.display());
    path
}

/// A program of this workspace, built with the tests.
pub fn built(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("the path of this program");
    let deps = own.parent().expect("a program lies in a directory");
    deps.parent().expect("target/PROFILE/deps has a parent").join(name)
}
