//! Who a container's process is: `USER[:GROUP]` looked up in the container's own files, with the
//! rules of Docker (moby/sys `user.GetExecUser`).

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

/// Bytes that are read of a file of the container's.
const MAX_FILE: u64 = 1 << 20;
/// The home of a user that no file knows (Docker's).
const NO_HOME: &str = "/";
/// That of the superuser in such a container.
const ROOT_HOME: &str = "/root";
/// The largest number (moby's `maxID`).
const MAX_NUMBER: u32 = i32::MAX as u32;

/// Who a process is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub uid: u32,
    pub gid: u32,
    /// All groups, the first one included.
    pub groups: BTreeSet<u32>,
    pub home: String,
}

/// Docker's words.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UnknownUser {
    #[error("unable to find user {0}: no matching entries in passwd file")]
    User(String),
    #[error("unable to find group {0}: no matching entries in group file")]
    Group(String),
}

/// Looks up `user` in the files of the root file system at `root`, which is not trusted.
pub(crate) fn find_in(root: &Path, user: &str) -> Result<Identity, UnknownUser> {
    find(user, &text(root, "etc/passwd"), &text(root, "etc/group"))
}

/// The text of a plain file as a process inside would find it; nothing if there is none.
fn text(root: &Path, path: &str) -> String {
    let read = || -> std::io::Result<String> {
        let root = File::open(root)?;
        let how = OpenHow::new()
            // A FIFO must not hold us up.
            .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let file = File::from(openat2(&root, path, how)?);
        let mut bytes = Vec::new();
        if file.metadata()?.is_file() {
            file.take(MAX_FILE).read_to_end(&mut bytes)?;
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().unwrap_or_default()
}

/// From the texts of passwd(5) and group(5).
pub(super) fn find(user: &str, passwd: &str, group: &str) -> Result<Identity, UnknownUser> {
    let (user, own_group) = user.split_once(':').unwrap_or((user, ""));
    let number = |text: &str| text.parse::<u32>().ok().filter(|number| *number <= MAX_NUMBER);
    let wanted = if user.is_empty() { Some(0) } else { number(user) };
    let entry = passwd
        .lines()
        .filter_map(Entry::parse)
        .find(|entry| (!user.is_empty() && entry.name == user) || wanted == Some(entry.number));
    let (uid, mut gid, home, name) = match (entry, wanted) {
        (Some(entry), _) => {
            let field = |n: usize| entry.rest.split(':').nth(n).unwrap_or_default();
            (entry.number, number(field(0)).unwrap_or(0), field(2).to_owned(), entry.name)
        }
        (None, Some(uid)) => {
            let home = if uid == 0 { ROOT_HOME } else { NO_HOME };
            (uid, 0, home.to_owned(), "")
        }
        (None, None) => return Err(UnknownUser::User(user.to_owned())),
    };
    let mut groups = group.lines().filter_map(Entry::parse);
    let mut all = BTreeSet::new();
    if own_group.is_empty() {
        let has = |entry: &Entry<'_>| !name.is_empty() && entry.rest.split(',').any(|n| n == name);
        all.extend(groups.filter(has).map(|entry| entry.number));
    } else {
        let wanted = number(own_group);
        let found = groups.find(|e| e.name == own_group || wanted == Some(e.number));
        gid = found
            .map(|entry| entry.number)
            .or(wanted)
            .ok_or_else(|| UnknownUser::Group(own_group.to_owned()))?;
    }
    all.insert(gid);
    let home = if home.is_empty() { NO_HOME.to_owned() } else { home };
    Ok(Identity { uid, gid, groups: all, home })
}

/// A line of either file: name, password, number, and the rest.
struct Entry<'a> {
    name: &'a str,
    number: u32,
    rest: &'a str,
}

impl<'a> Entry<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.trim().splitn(4, ':');
        let name = fields.next().filter(|name| !name.is_empty() && !name.starts_with('#'))?;
        let number = fields.nth(1)?.parse().ok()?;
        Some(Self { name, number, rest: fields.next().unwrap_or_default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n# note\nwww:x:33:34:a,b:/var/www:/bin/sh\n\
                          7:x:1007:1007::/seven:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nwheel:x:10:root,www\nweb:x:34:\nmail:x:12:www\n";

    fn said(user: &str) -> Result<(u32, u32, Vec<u32>, String), UnknownUser> {
        let found = find(user, PASSWD, GROUP)?;
        Ok((found.uid, found.gid, found.groups.into_iter().collect(), found.home))
    }

    #[test]
    fn names_and_numbers_are_found_as_docker_finds_them() {
        let table: [(&str, (u32, u32, &[u32], &str)); 8] = [
            ("", (0, 0, &[0, 10], "/root")),
            ("root", (0, 0, &[0, 10], "/root")),
            ("www", (33, 34, &[10, 12, 34], "/var/www")),
            ("33", (33, 34, &[10, 12, 34], "/var/www")),
            ("www:wheel", (33, 10, &[10], "/var/www")),
            ("4000:4001", (4000, 4001, &[4001], "/")),
            ("4000", (4000, 0, &[0], "/")),
            // A name that looks like a number is a name first.
            ("7", (1007, 1007, &[1007], "/seven")),
        ];
        for (user, (uid, gid, groups, home)) in table {
            assert_eq!(said(user), Ok((uid, gid, groups.to_vec(), home.to_owned())), "{user}");
        }
        assert_eq!(find("", "", "").expect("root").home, "/root");
    }

    #[test]
    fn nobody_else_is_found() {
        for user in ["nosuch", "-1", "2147483648"] {
            assert_eq!(said(user), Err(UnknownUser::User(user.to_owned())));
        }
        assert_eq!(said("www:nosuch"), Err(UnknownUser::Group("nosuch".to_owned())));
    }
}
