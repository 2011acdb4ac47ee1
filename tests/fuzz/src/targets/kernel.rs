//! What the kernel and Open vSwitch say.

use arbitrary::Unstructured;
use weft_overlay::kernel::fuzzing::{Question, ask, switches as read_switches};
use weft_worker::fuzzing;

use super::texts;

/// Types of messages that some reader looks for: rtnetlink's, conntrack's, generic netlink's families, and
/// those of nftables.
const KINDS: [u16; 14] =
    [16, 20, 24, 28, 32, 2, 3, 0x100, 0x10, 0x0a00, 0x0a03, 0x0a06, 0x0a09, 0x0a0c];
/// How deep attributes lie in each other.
const DEPTH: usize = 5;

/// Answers of a kernel: a question, whether bytes are messages as they are, and what they are made from.
pub fn netlink(input: &[u8]) {
    let Some(([which, raw], rest)) = input.split_first_chunk() else { return };
    let question = Question::ALL[usize::from(*which) % Question::ALL.len()];
    let answers: Vec<Vec<u8>> = if raw & 1 == 1 {
        rest.split(|byte| *byte == 0xfe).map(<[u8]>::to_vec).collect()
    } else {
        let mut bytes = Unstructured::new(rest);
        let mut answers = Vec::new();
        while !bytes.is_empty() && answers.len() < 8 {
            answers.push(answer(&mut bytes).unwrap_or_default());
        }
        answers
    };
    let total: usize = answers.iter().map(Vec::len).sum();
    if let Ok(count) = ask(question, &answers) {
        // No object takes less than a header.
        assert!(count <= total / 16 + 3, "{count} objects of {total} bytes");
    }
}

/// A datagram of messages.
fn answer(bytes: &mut Unstructured<'_>) -> arbitrary::Result<Vec<u8>> {
    let mut out = Vec::new();
    for _ in 0..bytes.int_in_range(1..=3)? {
        let kind: u16 = match bytes.ratio(15, 16)? {
            true => *bytes.choose(&KINDS)?,
            false => bytes.arbitrary()?,
        };
        let fixed = usize::from(bytes.int_in_range(0..=5u8)?) * 4;
        let mut body = bytes.bytes(fixed.min(bytes.len()))?.to_vec();
        attributes(bytes, &mut body, DEPTH)?;
        out.extend(u32::try_from(body.len() + 16).unwrap_or(u32::MAX).to_ne_bytes());
        out.extend(kind.to_ne_bytes());
        out.extend([0; 10]);
        out.extend(&body);
        out.resize(out.len().next_multiple_of(4), 0);
    }
    Ok(out)
}

fn attributes(
    bytes: &mut Unstructured<'_>,
    out: &mut Vec<u8>,
    deep: usize,
) -> arbitrary::Result<()> {
    /// What values of names are compared with.
    const WORDS: [&[u8]; 12] = [
        b"eth0\0",
        b"wb000001\0",
        b"weft",
        b"weft:",
        b"bridge\0",
        b"vxlan\0",
        b"veth\0",
        b"tun\0",
        b"wireguard\0",
        b"macvlan\0",
        b"filter\0",
        b"openvswitch\0",
    ];
    for _ in 0..bytes.int_in_range(0..=6)? {
        let kind = u16::from(bytes.int_in_range(0..=63u8)?);
        let mut value = Vec::new();
        match bytes.int_in_range(0..=5)? {
            0 | 1 if deep > 0 => attributes(bytes, &mut value, deep - 1)?,
            2 => value.extend_from_slice(bytes.choose::<&[u8]>(&WORDS)?),
            3 => value.extend(bytes.arbitrary::<u32>()?.to_ne_bytes()),
            4 => value.push(bytes.arbitrary()?),
            _ => {
                let length = bytes.int_in_range(0..=40usize)?.min(bytes.len());
                value.extend_from_slice(bytes.bytes(length)?);
            }
        }
        out.extend(u16::try_from(value.len() + 4).unwrap_or(u16::MAX).to_ne_bytes());
        out.extend(kind.to_ne_bytes());
        out.extend(value);
        out.resize(out.len().next_multiple_of(4), 0);
    }
    Ok(())
}

/// What ovs-vsctl prints.
pub fn switches(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let count = read_switches(text).unwrap_or(0);
    assert!(count <= text.len(), "{count} objects of {} bytes", text.len());
}

/// Texts of /proc: routes, memory, mounts and cgroups; and the user files of a container.
pub fn proc(input: &[u8]) {
    let Some([four, six, memory, mounts, groups]) = texts(input) else { return };
    let (count, _, bytes) = fuzzing::kernel_tables(four, six, memory);
    assert!(count <= four.lines().count() + six.lines().count());
    assert_eq!(bytes % 1024, 0);
    assert!(fuzzing::cgroups(mounts, groups) <= 5);
    if let Some((uid, gid, all, home)) = fuzzing::identity(four, mounts, groups) {
        assert!(all.contains(&gid) && !home.is_empty(), "{uid} {gid} {all:?} {home:?}");
        assert!(all.len() <= groups.lines().count() + 1);
    }
}
