//! `weft doctor`: what is wrong on this node and between it and others, each with what to type against it.

use std::{path::PathBuf, time::Duration};

use weft_proto::v1::{self, DoctorFinding, DoctorSeverity};
use weft_worker::doctor::{
    Facts, Finding, examine,
    facts::Policy,
    gather::{self, Query},
};

use super::Context;
use crate::{
    args::{Connection, FormatArgs},
    client::Client,
    daemon::settings,
    error::{CliError, EXIT_REFUSED},
    output::{
        escape::one_line,
        list::{self, Columns, Row, Style},
    },
};

/// What `--format` can show.
const COLUMNS: Columns = Columns {
    shown: &[
        ("Severity", "SEVERITY"),
        ("Check", "CHECK"),
        ("Text", "TEXT"),
        ("Why", "WHY"),
        ("Fix", "FIX"),
    ],
    more: &[],
    id: "Check",
};
/// How long a daemon may look; paths that do not answer take their time.
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks the daemon.
pub async fn doctor(
    client: &Client,
    args: &FormatArgs,
    context: &mut Context<'_>,
) -> Result<(), CliError> {
    let mut agent = client.agent();
    let asked = tokio::time::timeout(PATIENCE, agent.doctor(v1::DoctorRequest {})).await;
    let late = |_| CliError::refused("doctor", format!("no answer within {PATIENCE:?}"));
    let answer = asked.map_err(late)?.map_err(|status| client.refused("doctor", &status))?;
    print(&answer.into_inner().findings, args, context)
}

/// Looks at this host, where no daemon answers; the reason has been printed.
pub fn alone(
    connection: &Connection,
    args: &FormatArgs,
    context: &mut Context<'_>,
) -> Result<(), CliError> {
    let query = query(connection)?;
    let facts = Facts { host: gather::host(&query), daemon: None };
    let findings: Vec<_> = examine(&facts).iter().map(to_wire).collect();
    print(&findings, args, context)
}

/// Where the daemon's socket should be is its run directory; the rest is as its configuration says.
fn query(connection: &Connection) -> Result<Query, CliError> {
    let refused = |error: anyhow::Error| CliError::refused("doctor", format!("{error:#}"));
    let outline = settings::outline().map_err(refused)?;
    let socket = connection.host.strip_prefix("unix://").map(PathBuf::from);
    let run_dir = socket.and_then(|socket| Some(socket.parent()?.to_owned()));
    let wireguard = match weft_overlay::kernel::wireguard_available() {
        Ok(()) => "kernel (this kernel has WireGuard)".to_owned(),
        Err(error) => format!("userspace ({error})"),
    };
    Ok(Query {
        // Another socket is another daemon's, whose state is somewhere else.
        state_dir: run_dir
            .as_ref()
            .is_none_or(|dir| *dir == outline.run_dir)
            .then_some(outline.state_dir),
        run_dir: run_dir.unwrap_or(outline.run_dir),
        policy: Policy { nftables: outline.nftables, ip_forward: outline.ip_forward },
        wireguard,
        ports: vec![("tcp", outline.listen.port(), "managers and nodes")],
    })
}

fn to_wire(finding: &Finding) -> DoctorFinding {
    weft_worker::api::doctor_finding(finding)
}

fn print(
    findings: &[DoctorFinding],
    args: &FormatArgs,
    context: &mut Context<'_>,
) -> Result<(), CliError> {
    match args.format.as_deref() {
        None => {
            let text = render(findings, context.terminal.out);
            context.out.write_all(text.as_bytes())?;
        }
        format @ Some(_) => {
            let rows: Vec<_> = findings.iter().map(row).collect();
            list::print(COLUMNS, &rows, Style { format, quiet: false }, context.out)?;
        }
    }
    let bad = findings.iter().any(|finding| finding.severity() == DoctorSeverity::Problem);
    if bad { Err(CliError::Exit(EXIT_REFUSED)) } else { Ok(()) }
}

fn row(finding: &DoctorFinding) -> Row {
    Row::new([
        ("Severity", word(finding.severity()).to_owned()),
        ("Check", finding.check.clone()),
        ("Text", finding.text.clone()),
        ("Why", finding.why.clone()),
        ("Fix", finding.fix.clone()),
    ])
}

fn word(severity: DoctorSeverity) -> &'static str {
    match severity {
        DoctorSeverity::Unspecified => "unknown",
        DoctorSeverity::Ok => "ok",
        DoctorSeverity::Warning => "warning",
        DoctorSeverity::Problem => "problem",
    }
}

/// One line for each finding, and where it is a fault two below it.
fn render(findings: &[DoctorFinding], colours: bool) -> String {
    let mut text = String::new();
    for finding in findings {
        let severity = finding.severity();
        let word = format!("{:<8}", word(severity));
        let word = if colours { coloured(severity, &word) } else { word };
        text += &format!("{word} {}: {}\n", one_line(&finding.check), one_line(&finding.text));
        for (name, line) in [("why", &finding.why), ("fix", &finding.fix)] {
            if !line.is_empty() {
                text += &format!("  {name}: {}\n", one_line(line));
            }
        }
    }
    text
}

/// Green, yellow and red of ECMA-48 (SGR 32, 33, 31).
fn coloured(severity: DoctorSeverity, word: &str) -> String {
    let colour = match severity {
        DoctorSeverity::Ok => 32,
        DoctorSeverity::Unspecified | DoctorSeverity::Warning => 33,
        DoctorSeverity::Problem => 31,
    };
    format!("\u{1b}[{colour}m{word}\u{1b}[0m")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(severity: DoctorSeverity, why: &str) -> DoctorFinding {
        DoctorFinding {
            severity: severity.into(),
            check: "session".to_owned(),
            text: "a\u{1b}[2J".to_owned(),
            why: why.to_owned(),
            fix: String::new(),
        }
    }

    #[test]
    fn a_fault_has_its_reason_below_and_nothing_foreign_reaches_the_terminal() {
        let findings = [finding(DoctorSeverity::Problem, "b"), finding(DoctorSeverity::Ok, "")];
        let expected = "problem  session: a\\u{1b}[2J\n  why: b\nok       session: a\\u{1b}[2J\n";
        assert_eq!(render(&findings, false), expected);
        let coloured = render(&findings[1..], true);
        assert_eq!(coloured, "\u{1b}[32mok      \u{1b}[0m session: a\\u{1b}[2J\n");
    }
}
