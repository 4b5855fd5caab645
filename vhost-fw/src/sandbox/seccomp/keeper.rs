//! What a keeper may call, and every worker with it: a filter outlives the start of another program.
//!
//! So it lists what serving needs and what starting needs, until the worker's own filters are closed. What is not listed
//! fails with ENOSYS instead of ending the process: the worker may be of a newer version, whose libraries try newer calls
//! first and fall back. Knows call numbers. Never knows which program is started: that is Landlock's to say.

use std::collections::BTreeMap;
use std::ffi::c_long;

use seccompiler::{BackendError, BpfProgram, SeccompAction};

use super::{
    CONTROL, CONTROL_OLD, Calls, DATA, compile, constant, descriptors_and_stricter, is, no_namespace,
};
use crate::uplink::takeover_requests;

/// To start a program, to be one that starts, and to close its sandbox, whatever the arguments. A signal reaches own
/// children alone, by Landlock.
const STARTING: &[c_long] = &[
    libc::SYS_execve,
    libc::SYS_wait4,
    libc::SYS_waitid,
    libc::SYS_kill,
    libc::SYS_dup3,
    libc::SYS_pipe2,
    libc::SYS_socketpair,
    libc::SYS_set_tid_address,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_mkdirat,
    libc::SYS_fallocate,
    libc::SYS_flock,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_getcwd,
    libc::SYS_uname,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getppid,
    libc::SYS_capget,
    libc::SYS_capset,
    libc::SYS_prlimit64,
    libc::SYS_sched_setaffinity,
    libc::SYS_landlock_add_rule,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_connect,
];

/// Older forms, which glibc still uses where they exist.
#[cfg(target_arch = "x86_64")]
const STARTING_OLD: &[c_long] = &[
    libc::SYS_arch_prctl,
    libc::SYS_access,
    libc::SYS_dup2,
    libc::SYS_readlink,
    libc::SYS_mkdir,
    libc::SYS_chmod,
    libc::SYS_open,
    libc::SYS_stat,
];
#[cfg(not(target_arch = "x86_64"))]
const STARTING_OLD: &[c_long] = &[];

/// What a worker, and the keeper itself, may set about itself.
const PRCTLS: [i32; 9] = [
    libc::PR_SET_NAME,
    libc::PR_GET_NAME,
    libc::PR_SET_NO_NEW_PRIVS,
    libc::PR_GET_NO_NEW_PRIVS,
    libc::PR_SET_DUMPABLE,
    libc::PR_SET_PDEATHSIG,
    libc::PR_CAPBSET_READ,
    libc::PR_CAP_AMBIENT,
    super::PR_SET_VMA,
];

/// The filter of a keeper.
pub(super) fn filter() -> Result<BpfProgram, BackendError> {
    let mut calls = Calls(BTreeMap::new());
    for listed in [DATA, CONTROL, CONTROL_OLD, STARTING, STARTING_OLD] {
        calls.any(listed);
    }
    // A process or a thread, in the namespaces that are there.
    calls.when(libc::SYS_clone, vec![no_namespace()?])?;
    calls.when(libc::SYS_socket, vec![is(0, constant(libc::AF_UNIX))?])?;
    calls.when_one_of(libc::SYS_ioctl, 1, &[libc::FIONBIO, libc::FIOCLEX, libc::TCGETS])?;
    calls.when_one_of(libc::SYS_ioctl, 1, &takeover_requests())?;
    descriptors_and_stricter(&mut calls)?;
    calls.when_one_of(libc::SYS_prctl, 0, &PRCTLS.map(constant))?;
    // An abort raises its signal in its own process; which that is, the worker's own filter says.
    calls.any(&[libc::SYS_tgkill]);
    compile(calls.0, SeccompAction::Errno(libc::ENOSYS.unsigned_abs()), SeccompAction::Allow)
}
