//! What is known about a container now: read from its shim, or from the file the shim has left.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

/// How far a container is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The shim runs, the network namespace is there, nothing is started.
    Created,
    /// The command is being started.
    Starting,
    Running,
    Exited(Exit),
    /// Half made, or its shim died: it can only be removed.
    Failed {
        reason: String,
    },
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// The process's code; 128 + signal after a death by signal; 125 to 127 if it never ran.
    pub code: i32,
    pub signal: Option<i32>,
    /// The kernel killed a process of it for its memory limit.
    pub oom: bool,
    pub finished: SystemTime,
    /// Why it could not be started.
    pub error: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub phase: Phase,
    /// The container's first process, seen from the host, while it runs.
    pub pid: Option<i32>,
    /// Whose network namespace is the container's, while it lives.
    pub shim_pid: i32,
    pub dns_port: Option<u16>,
    pub created: Option<SystemTime>,
    pub started: Option<SystemTime>,
    /// Bytes of output that did not fit on the disk.
    pub log_lost: u64,
}

/// The shim's text, with what only we need.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub status: Status,
    pub shim_start: u64,
    /// As the shim knew it, also after its end.
    pub pid: i32,
    pub pid_start: u64,
    pub boot: String,
}

impl Told {
    /// Reads the text of the shim's `status.rs`; `None` if a field is missing or cut off.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let fields: BTreeMap<&str, &str> = text.lines().filter_map(|l| l.split_once('=')).collect();
        // The last line tells that the text is whole.
        let error = fields.get("error").filter(|_| text.ends_with('\n'))?;
        let number = |key: &str| fields.get(key)?.parse::<u64>().ok();
        let signed = |key: &str| fields.get(key)?.parse::<i32>().ok();
        let pid = signed("pid")?;
        let phase = match *fields.get("phase")? {
            "created" => Phase::Created,
            "starting" => Phase::Starting,
            "running" => Phase::Running,
            "exited" => Phase::Exited(Exit {
                code: signed("code")?,
                signal: signed("signal").filter(|s| *s != 0),
                oom: number("oom")? != 0,
                finished: time(number("finished")?).unwrap_or(SystemTime::UNIX_EPOCH),
                error: Some((*error).to_owned()).filter(|e| !e.is_empty()),
            }),
            _ => return None,
        };
        let running = phase == Phase::Running;
        Some(Self {
            status: Status {
                phase,
                pid: Some(pid).filter(|p| running && *p > 0),
                shim_pid: signed("shim")?,
                dns_port: u16::try_from(number("dns_port")?).ok().filter(|p| *p > 0),
                created: time(number("created")?),
                started: time(number("started")?),
                log_lost: number("log_lost")?,
            },
            pid,
            shim_start: number("shim_start")?,
            pid_start: number("pid_start")?,
            boot: (*fields.get("boot")?).to_owned(),
        })
    }
}

fn time(ns: u64) -> Option<SystemTime> {
    (ns > 0).then(|| SystemTime::UNIX_EPOCH + Duration::from_nanos(ns))
}

impl Status {
    pub(crate) fn failed(reason: impl Into<String>) -> Self {
        Self {
            phase: Phase::Failed { reason: reason.into() },
            pid: None,
            shim_pid: 0,
            dns_port: None,
            created: None,
            started: None,
            log_lost: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXITED: &str = "phase=exited\nshim=7\nshim_start=1\nboot=b\npid=9\npid_start=2\ndns_port=40000\ncode=137\n\
                          signal=9\noom=1\ncreated=1\nstarted=2\nfinished=3\nlog_lost=0\nfuture=x\nerror=\n";

    #[test]
    fn an_exit_is_read_whole() {
        let told = Told::parse(EXITED).expect("whole");
        let Phase::Exited(exit) = told.status.phase else { panic!("{told:?}") };
        assert_eq!((exit.code, exit.signal, exit.oom, exit.error), (137, Some(9), true, None));
        assert_eq!((told.status.dns_port, told.status.pid), (Some(40000), None));
    }

    #[test]
    fn no_cut_text_is_taken_for_a_whole_one() {
        for end in 0..EXITED.len() {
            assert!(Told::parse(&EXITED[..end]).is_none(), "{end}");
        }
    }
}
