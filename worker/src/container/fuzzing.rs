//! The readers of what shims and containers' files say.

use std::io;

use super::logs::{self, LogRecord};
use super::ports::HostPort;
use super::status::Told;
use super::{AttachRecord, Status, attach, cgroup, kept, user, wire};

/// The frames in what came of a socket, one piece after the other, each as its fields.
///
/// # Errors
/// A frame is longer than any may be.
pub fn frames<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> io::Result<Vec<Vec<Vec<u8>>>> {
    let mut inbox = wire::Inbox::default();
    let mut all = Vec::new();
    for piece in pieces {
        inbox.add(piece);
        while let Some((fields, _)) = inbox.take()? {
            all.push(fields);
        }
    }
    Ok(all)
}

/// A frame of these fields.
pub fn frame(fields: &[&[u8]]) -> Vec<u8> {
    wire::frame(fields)
}

/// A shim's text.
pub fn status(text: &str) -> Option<Status> {
    Told::parse(text).map(|told| told.status)
}

/// A port of the host as the shim tells it, and in words again.
pub fn host_port(words: &str) -> Option<(HostPort, String)> {
    HostPort::parse(words).map(|port| (port, port.words()))
}

/// What a shim sends to an attached client.
pub fn attach_record(packet: &[u8]) -> Option<AttachRecord> {
    attach::record(packet)
}

/// Takes the whole records out of the bytes of a container's log.
///
/// # Errors
/// It is damaged.
pub fn log(bytes: &mut Vec<u8>) -> io::Result<Vec<LogRecord>> {
    logs::parse(bytes)
}

/// A user in the files of a container: its number, its group's, all groups, its home.
pub fn identity(who: &str, passwd: &str, group: &str) -> Option<(u32, u32, Vec<u32>, String)> {
    let found = user::find(who, passwd, group).ok()?;
    Some((found.uid, found.gid, found.groups.into_iter().collect(), found.home))
}

/// The daemon's cgroups from the texts of /proc; gives how many a container's would be.
pub fn cgroups(mountinfo: &str, cgroup: &str) -> usize {
    let id = super::ContainerId::new("c1").expect("a plain name is an ID");
    cgroup::Own::parse(mountinfo, cgroup).planned(&id).len()
}

/// What the daemon has written down about a container; gives it written again.
pub fn kept(bytes: &[u8]) -> Option<Vec<u8>> {
    let kept: kept::Kept = serde_json::from_slice(bytes).ok()?;
    Some(serde_json::to_vec(&kept).expect("what was read can be written"))
}
