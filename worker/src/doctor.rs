//! `weft doctor`: what is wrong on this node and between it and others, and what to type against it.
//!
//! [`facts`] is what can be known, as values; [`examine`] says what it means (pure: [`host`] for the machine,
//! [`member`] for the cluster); [`gather`] and [`ping`] read the facts of a host, and need no daemon for it.
//!
//! A finding that is no fault says in one line what was looked at and is right.

pub mod facts;
pub mod gather;
mod host;
mod member;
pub mod ping;

use std::cmp::Reverse;

pub use facts::Facts;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// As it should be.
    Ok,
    /// It works, and may soon not.
    Warning,
    /// It does not work.
    Problem,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What was looked at, one word of a fixed list.
    pub check: &'static str,
    /// What was found, in one line.
    pub text: String,
    /// What it means or where it comes from; empty where all is well.
    pub why: String,
    /// A command to type; empty where all is well.
    pub fix: String,
}

impl Finding {
    fn ok(check: &'static str, text: impl Into<String>) -> Self {
        let (text, why, fix) = (text.into(), String::new(), String::new());
        Self { severity: Severity::Ok, check, text, why, fix }
    }

    fn warning(
        check: &'static str,
        text: impl Into<String>,
        why: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        let (text, why, fix) = (text.into(), why.into(), fix.into());
        Self { severity: Severity::Warning, check, text, why, fix }
    }

    fn problem(
        check: &'static str,
        text: impl Into<String>,
        why: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self { severity: Severity::Problem, ..Self::warning(check, text, why, fix) }
    }
}

/// What the facts mean; the worst first.
pub fn examine(facts: &Facts) -> Vec<Finding> {
    let mut findings = host::examine(facts);
    match &facts.daemon {
        Some(daemon) => findings.extend(member::examine(daemon)),
        None => findings.push(Finding::problem(
            "daemon",
            "no daemon answers on this node",
            "containers and networks stay as they are, but nothing is repaired or changed",
            "systemctl start weft, or: weft daemon",
        )),
    }
    findings.sort_by_key(|finding| Reverse(finding.severity));
    findings
}

/// Bytes for people.
fn size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let unit = UNITS.into_iter().find(|(unit, _)| bytes >= *unit);
    unit.map_or_else(|| format!("{bytes} B"), |(unit, word)| format!("{} {word}", bytes / unit))
}

/// A span for people: its two largest parts.
fn span(time: std::time::Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests;
