//! Which device files a container may open: as rules for the device controller of version 1, as a
//! BPF program on a group of version 2 (kernel documentation, cgroup-v2, "Device controller").

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;

/// Character devices that may be read and written (Docker's list), a minor number or all: null,
/// zero, full, random, urandom, tty, console, ptmx, pseudo terminals. Any may be made.
const OPEN: [(u16, Option<u16>); 9] = [
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (5, Some(1)),
    (5, Some(2)),
    (136, None),
];

/// The lines for `devices.allow`, after `a` was denied.
pub(super) fn rules() -> impl Iterator<Item = String> {
    let make = ["c *:* m", "b *:* m"].map(str::to_owned);
    let open = OPEN.iter().map(|(major, minor)| match minor {
        Some(minor) => format!("c {major}:{minor} rwm"),
        None => format!("c {major}:* rwm"),
    });
    make.into_iter().chain(open)
}

/// Attaches the same rules to a group of version 2. They stay as long as the group.
pub(super) fn attach(group: &Path) -> io::Result<()> {
    let group = std::fs::File::open(group)?;
    let program = load(&program())?;
    let request = Attach {
        target_fd: group.as_raw_fd() as u32,
        program_fd: program.as_raw_fd() as u32,
        attach_type: BPF_CGROUP_DEVICE,
        // Beside the programs of the groups above, all of which must agree.
        attach_flags: BPF_F_ALLOW_MULTI,
    };
    bpf(BPF_PROG_ATTACH, &request).map(drop)
}

// From the kernel's linux/bpf.h.
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;
const BPF_DEVCG_ACC_MKNOD: i32 = 1;
const BPF_DEVCG_DEV_CHAR: i32 = 2;

/// The part of `union bpf_attr` that loading needs; the kernel takes what is not given for zero.
#[repr(C)]
struct Load {
    program_type: u32,
    instructions: u32,
    first: u64,
    license: u64,
}

#[repr(C)]
struct Attach {
    target_fd: u32,
    program_fd: u32,
    attach_type: u32,
    attach_flags: u32,
}

/// One `struct bpf_insn`.
#[repr(C)]
struct Instruction {
    code: u8,
    /// Source in the upper, destination in the lower four bits, on little-endian machines.
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// Registers: the context comes in 1, the answer goes out in 0 (1: yes).
const ANSWER: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

/// Reads `struct bpf_cgroup_dev_ctx` (kind and access in one word, major, minor) and answers.
fn program() -> Vec<Instruction> {
    let plain = |code, to: u8, immediate| Instruction { code, registers: to, offset: 0, immediate };
    let word = |to: u8, offset| Instruction {
        code: 0x61,
        registers: CONTEXT << 4 | to,
        offset,
        immediate: 0,
    };
    let copy = |to: u8, from: u8| Instruction {
        code: 0xbf,
        registers: from << 4 | to,
        offset: 0,
        immediate: 0,
    };
    let and = |to, mask| plain(0x57, to, mask);
    let shift_right = |to, bits| plain(0x77, to, bits);
    let skip_unless =
        |to: u8, value, offset| Instruction { code: 0x55, registers: to, offset, immediate: value };
    let answer = |value| [plain(0xb7, ANSWER, value), plain(0x95, 0, 0)];

    let mut out =
        vec![word(KIND, 0), copy(ACCESS, KIND), and(KIND, 0xffff), shift_right(ACCESS, 16)];
    out.extend([word(MAJOR, 4), word(MINOR, 8)]);
    out.push(skip_unless(ACCESS, BPF_DEVCG_ACC_MKNOD, 2));
    out.extend(answer(1));
    // The answer of two instructions is skipped, with what still stands before it.
    out.push(skip_unless(KIND, BPF_DEVCG_DEV_CHAR, after_all_rules()));
    for (major, minor) in OPEN {
        out.push(skip_unless(MAJOR, major.into(), 2 + i16::from(minor.is_some())));
        out.extend(minor.map(|minor| skip_unless(MINOR, minor.into(), 2)));
        out.extend(answer(1));
    }
    out.extend(answer(0));
    out
}

/// Instructions of all the rules in `program`.
fn after_all_rules() -> i16 {
    OPEN.iter().map(|(_, minor)| 3 + i16::from(minor.is_some())).sum()
}

fn load(program: &[Instruction]) -> io::Result<OwnedFd> {
    let request = Load {
        program_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        instructions: program.len() as u32,
        first: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
    };
    let fd = bpf(BPF_PROG_LOAD, &request)?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn bpf<T>(command: libc::c_int, request: &T) -> io::Result<i32> {
    // SAFETY: the request has the size given and, with all it points to, outlives the call, which
    // only reads it.
    let done = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(request), std::mem::size_of::<T>())
    };
    Ok(Errno::result(done)? as i32)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::process::Command;

    use super::*;

    /// A group of version 2 that goes with the test.
    struct Group(PathBuf);

    impl Drop for Group {
        fn drop(&mut self) {
            super::super::remove(std::slice::from_ref(&self.0)).expect("removed");
        }
    }

    fn group() -> Option<Group> {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        let point = mounts.lines().find(|l| l.contains(" - cgroup2 "))?.split(' ').nth(4)?;
        let dir = Path::new(point).join(format!("weft-test-devices-{}", std::process::id()));
        std::fs::create_dir(&dir).expect("mkdir");
        Some(Group(dir))
    }

    #[test]
    fn a_group_of_version_2_opens_what_is_listed_and_nothing_else() {
        let Some(group) = group() else {
            println!("no cgroup2 is mounted here: nothing to test");
            return;
        };
        let opens = |what: &str| {
            let join = format!("echo 0 >{}/cgroup.procs; : <{what}", group.0.display());
            Command::new("sh").args(["-c", &join]).output().expect("sh").status.success()
        };
        assert!(opens("/dev/null") && opens("/dev/kmsg"), "before there are rules");
        attach(&group.0).expect("attach");
        for (open, device) in
            [(true, "/dev/null"), (true, "/dev/zero"), (true, "/dev/urandom"), (false, "/dev/kmsg")]
        {
            assert_eq!(opens(device), open, "{device}");
        }
        let disk = std::env::temp_dir().join(format!("weft-test-disk-{}", std::process::id()));
        let script = format!(
            "echo 0 >{0}/cgroup.procs; mknod {1} b 254 0 && ! cat {1} >/dev/null; r=$?; rm -f {1}; exit $r",
            group.0.display(),
            disk.display()
        );
        let output = Command::new("sh").args(["-c", &script]).output().expect("sh");
        assert!(output.status.success(), "made, and not opened: {output:?}");
    }

    #[test]
    fn the_rules_of_version_1_are_dockers() {
        let all: Vec<String> = rules().collect();
        assert_eq!(all.len(), 11);
        assert!(all.contains(&"c 136:* rwm".to_owned()) && all.contains(&"c 1:3 rwm".to_owned()));
    }
}
