//! Which system calls a container may make: the facts of Docker's default profile (moby
//! `profiles/seccomp`, the release of 2025) as our own table. What is not named fails with EPERM,
//! `clone3` with ENOSYS, since its flags lie behind a pointer that a filter cannot read, and C
//! libraries then fall back to `clone`.

use std::collections::{BTreeMap, BTreeSet};

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

mod table;

/// Every CLONE_NEW* flag but the time namespace's, which shares its bit with the exit signal.
const CLONE_NEW_FLAGS: u64 = 0x7e02_0000;
/// Personalities that only change how a program sees memory and names: PER_LINUX, PER_LINUX32,
/// UNAME26 and both, and the question for the present one.
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

type Rules = BTreeMap<c_long, Vec<SeccompRule>>;

/// The filters for a process with these capabilities (`CAP_X`), to be installed in order.
///
/// # Errors
/// On an architecture that has no table.
pub(crate) fn compile(
    capabilities: &BTreeSet<String>,
) -> Result<Vec<BpfProgram>, seccompiler::Error> {
    let arch: TargetArch = std::env::consts::ARCH.try_into()?;
    let admin = capabilities.contains("CAP_SYS_ADMIN");
    let mut programs = Vec::with_capacity(2);
    if !admin {
        let no_clone3 = Rules::from([(libc::SYS_clone3, Vec::new())]);
        let enosys = SeccompAction::Errno(libc::ENOSYS as u32);
        programs.push(filter(no_clone3, SeccompAction::Allow, enosys, arch)?);
    }
    let eperm = SeccompAction::Errno(libc::EPERM as u32);
    programs.push(filter(allowed(capabilities)?, eperm, SeccompAction::Allow, arch)?);
    Ok(programs)
}

fn filter(
    rules: Rules,
    otherwise: SeccompAction,
    matched: SeccompAction,
    arch: TargetArch,
) -> Result<BpfProgram, seccompiler::Error> {
    let rules = rules.into_iter().collect();
    Ok(SeccompFilter::new(rules, otherwise, matched, arch)?.try_into()?)
}

fn allowed(capabilities: &BTreeSet<String>) -> Result<Rules, seccompiler::Error> {
    let mut rules: Rules =
        table::ALWAYS.iter().chain(table::ARCH).map(|call| (*call, Vec::new())).collect();
    // Answered by the filter above unless SYS_ADMIN is there.
    rules.insert(libc::SYS_clone3, Vec::new());
    let one = |index, op, value| -> Result<SeccompRule, seccompiler::Error> {
        let condition = SeccompCondition::new(index, SeccompCmpArgLen::Qword, op, value)?;
        Ok(SeccompRule::new(vec![condition])?)
    };
    rules.insert(libc::SYS_clone, vec![one(0, SeccompCmpOp::MaskedEq(CLONE_NEW_FLAGS), 0)?]);
    let vsock = u64::try_from(libc::AF_VSOCK).unwrap_or_default();
    rules.insert(libc::SYS_socket, vec![one(0, SeccompCmpOp::Ne, vsock)?]);
    let personalities = PERSONALITIES.map(|p| one(0, SeccompCmpOp::Eq, p));
    rules.insert(libc::SYS_personality, personalities.into_iter().collect::<Result<_, _>>()?);
    for (capability, calls) in table::WITH_CAPABILITY {
        if capabilities.contains(*capability) {
            // An empty list of conditions takes the place of the stricter one.
            rules.extend(calls.iter().map(|call| (*call, Vec::new())));
        }
    }
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_set_cannot_reach_the_kernels_administration() {
        let rules = allowed(&BTreeSet::from(["CAP_SYS_CHROOT".to_owned()])).expect("table");
        for call in
            [libc::SYS_mount, libc::SYS_unshare, libc::SYS_setns, libc::SYS_bpf, libc::SYS_reboot]
        {
            assert!(!rules.contains_key(&call), "{call}");
        }
        assert!(rules[&libc::SYS_chroot].is_empty());
        assert_eq!(rules[&libc::SYS_clone].len(), 1);
    }

    #[test]
    fn sys_admin_lifts_the_condition_on_clone() {
        let rules = allowed(&BTreeSet::from(["CAP_SYS_ADMIN".to_owned()])).expect("table");
        assert!(rules[&libc::SYS_clone].is_empty() && rules.contains_key(&libc::SYS_mount));
    }

    #[test]
    fn the_filters_fit_the_kernel() {
        for capabilities in [BTreeSet::new(), caps::all().iter().map(ToString::to_string).collect()]
        {
            assert!(!compile(&capabilities).expect("compiles").is_empty());
        }
    }
}
