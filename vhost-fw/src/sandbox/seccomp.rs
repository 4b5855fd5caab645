//! Which system calls a thread may make, and with which arguments.
//!
//! Knows call numbers. Never knows why a thread makes them.
//!
//! A call that is not listed ends the process. A few calls that libraries make on their own, and get on without, are
//! refused with ENOSYS instead: `clone3` (its flags lie in memory, where no filter sees them; glibc falls back to
//! `clone`), and in data threads `openat` (glibc asks /proc before it gives memory back), `mremap` (it copies) and
//! `sched_yield` (the standard library's channels wait with it for somebody who is just sending; they spin).

mod keeper;

use std::collections::BTreeMap;
use std::ffi::{c_int, c_long};
use std::io;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

use super::{Plan, SandboxError};
use crate::uplink::offload_request;

/// Calls of a data thread, whatever their arguments. Reading and writing covers rings' eventfds, taps and sockets.
const DATA: &[c_long] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_writev,
    WAIT,
    libc::SYS_epoll_ctl,
    libc::SYS_futex,
    libc::SYS_clock_gettime,
    libc::SYS_munmap,
    libc::SYS_brk,
    libc::SYS_close,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_rt_sigreturn,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigprocmask,
    libc::SYS_sigaltstack,
];

/// How glibc waits on an epoll.
#[cfg(target_arch = "x86_64")]
const WAIT: c_long = libc::SYS_epoll_wait;
#[cfg(not(target_arch = "x86_64"))]
const WAIT: c_long = libc::SYS_epoll_pwait;

/// Calls of the control thread and those it spawns, whatever their arguments. Which files `openat` and its kin reach
/// is Landlock's to say; adding restrictions (a data thread's own) is always allowed.
const CONTROL: &[c_long] = &[
    libc::SYS_readv,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_accept4,
    libc::SYS_shutdown,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_pwait,
    libc::SYS_ppoll,
    libc::SYS_eventfd2,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_signalfd4,
    libc::SYS_memfd_create,
    libc::SYS_openat,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_getdents64,
    libc::SYS_lseek,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_ftruncate,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_unlinkat,
    libc::SYS_mremap,
    libc::SYS_msync,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_getrandom,
    libc::SYS_landlock_create_ruleset,
    libc::SYS_landlock_restrict_self,
];

/// Older forms of calls in [`CONTROL`], which glibc still uses where they exist.
#[cfg(target_arch = "x86_64")]
const CONTROL_OLD: &[c_long] = &[libc::SYS_poll, libc::SYS_unlink, libc::SYS_rename];
#[cfg(not(target_arch = "x86_64"))]
const CONTROL_OLD: &[c_long] = &[];

// `prctl` options without a constant in libc: names of mappings (glibc, since 2.38).
const PR_SET_VMA: c_int = 0x5356_4d41;

/// How many different calls a data thread may make.
#[must_use]
pub fn data_thread_calls(uplink_listens: bool) -> usize {
    data_calls(uplink_listens).map_or(0, |calls| calls.0.len())
}

/// The filters of both kinds of thread, and a keeper's.
#[derive(Debug, Clone)]
pub(super) struct Filters {
    control: Filter,
    data: Filter,
    keeper: BpfProgram,
}

impl Filters {
    pub(super) fn new(plan: &Plan<'_>) -> Result<Self, SandboxError> {
        let build = || -> Result<Self, seccompiler::BackendError> {
            Ok(Self {
                control: Filter::new(control_calls(plan.connects)?, &[libc::SYS_clone3])?,
                data: Filter::new(data_calls(plan.uplink_listens)?, REFUSED_IN_DATA)?,
                keeper: keeper::filter()?,
            })
        };
        build().map_err(|error| SandboxError::Filter(error.to_string()))
    }

    pub(super) fn enter_control(&self) -> io::Result<()> {
        self.control.enter()
    }

    pub(super) fn enter_keeper(&self) -> io::Result<()> {
        seccompiler::apply_filter(&self.keeper).map_err(io::Error::other)
    }

    pub(super) fn enter_data(&self) -> io::Result<()> {
        self.data.enter()
    }
}

#[cfg(target_arch = "x86_64")]
const REFUSED_IN_DATA: &[c_long] =
    &[libc::SYS_openat, libc::SYS_open, libc::SYS_mremap, libc::SYS_sched_yield, libc::SYS_clone3];
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_IN_DATA: &[c_long] =
    &[libc::SYS_openat, libc::SYS_mremap, libc::SYS_sched_yield, libc::SYS_clone3];

/// Whether the kernel takes filters: a thread that ends at once enters one that allows everything.
pub(super) fn is_available() -> bool {
    let probe = || -> Option<()> {
        let rules = [(libc::SYS_clone3, Vec::new())].into_iter().collect();
        let program = compile(rules, SeccompAction::Allow, SeccompAction::Log).ok()?;
        seccompiler::apply_filter(&program).ok()
    };
    std::thread::spawn(probe).join().ok().flatten().is_some()
}

/// Two programs, since one knows one answer to what it lists. The kernel obeys the stricter.
#[derive(Debug, Clone)]
struct Filter {
    allowed: BpfProgram,
    refused: BpfProgram,
}

impl Filter {
    fn new(mut calls: Calls, refused: &[c_long]) -> Result<Self, seccompiler::BackendError> {
        let enosys = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
        let listed: BTreeMap<i64, Vec<SeccompRule>> =
            refused.iter().map(|call| (*call, Vec::new())).collect();
        calls.any(refused);
        Ok(Self {
            allowed: compile(calls.0, SeccompAction::KillProcess, SeccompAction::Allow)?,
            refused: compile(listed, SeccompAction::Allow, enosys)?,
        })
    }

    /// The strict one last: it does not list the calls that add filters.
    fn enter(&self) -> io::Result<()> {
        seccompiler::apply_filter(&self.refused).map_err(io::Error::other)?;
        seccompiler::apply_filter(&self.allowed).map_err(io::Error::other)
    }
}

fn compile(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    others: SeccompAction,
    listed: SeccompAction,
) -> Result<BpfProgram, seccompiler::BackendError> {
    SeccompFilter::new(rules, others, listed, std::env::consts::ARCH.try_into()?)?.try_into()
}

/// Calls with what their arguments must be; no rules = whatever they are.
struct Calls(BTreeMap<i64, Vec<SeccompRule>>);

impl Calls {
    fn any(&mut self, calls: &[c_long]) {
        self.0.extend(calls.iter().map(|call| (*call, Vec::new())));
    }

    /// `call`, if all of `conditions` hold.
    fn when(
        &mut self,
        call: c_long,
        conditions: Vec<SeccompCondition>,
    ) -> Result<(), seccompiler::BackendError> {
        self.0.entry(call).or_default().push(SeccompRule::new(conditions)?);
        Ok(())
    }

    /// `call`, if argument `index` is one of `values`.
    fn when_one_of(
        &mut self,
        call: c_long,
        index: u8,
        values: &[u64],
    ) -> Result<(), seccompiler::BackendError> {
        for value in values {
            self.when(call, vec![is(index, *value)?])?;
        }
        Ok(())
    }
}

/// The argument's lower 32 bits are `value`; the kernel reads no more of an `int`.
fn is(index: u8, value: u64) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(index, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
}

/// Of the bits in `mask`, exactly those in `value` are set.
fn bits(index: u8, mask: u64, value: u64) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(index, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(mask), value)
}

/// A C constant as an argument.
fn constant(value: c_int) -> u64 {
    value.unsigned_abs().into()
}

fn data_calls(uplink_listens: bool) -> Result<Calls, seccompiler::BackendError> {
    let mut calls = Calls(BTreeMap::new());
    calls.any(DATA);
    let anonymous = constant(libc::MAP_ANONYMOUS);
    calls.when(libc::SYS_mmap, vec![never_executable()?, bits(3, anonymous, anonymous)?])?;
    calls.when(libc::SYS_mprotect, vec![never_executable()?])?;
    calls.when_one_of(
        libc::SYS_madvise,
        2,
        &[libc::MADV_DONTNEED, libc::MADV_FREE, libc::MADV_HUGEPAGE].map(constant),
    )?;
    if cfg!(debug_assertions) {
        // The standard library's own check before it closes a descriptor; release builds do without.
        calls.when_one_of(libc::SYS_fcntl, 1, &[constant(libc::F_GETFD)])?;
    }
    if uplink_listens {
        calls.any(&[libc::SYS_accept4]);
    } else {
        calls.when(libc::SYS_ioctl, vec![is(1, offload_request())?])?;
    }
    Ok(calls)
}

fn control_calls(connects: bool) -> Result<Calls, seccompiler::BackendError> {
    let mut calls = Calls(BTreeMap::new());
    calls.any(DATA);
    calls.any(CONTROL);
    calls.any(CONTROL_OLD);
    calls.when(libc::SYS_mmap, vec![never_executable()?])?;
    calls.when(libc::SYS_mprotect, vec![never_executable()?])?;
    calls.any(&[libc::SYS_madvise]);
    descriptors_and_stricter(&mut calls)?;
    calls.when_one_of(
        libc::SYS_ioctl,
        1,
        &[libc::FIONBIO, libc::FIOCLEX, libc::TCGETS, offload_request()],
    )?;
    let options = [libc::PR_SET_NAME, libc::PR_GET_NAME, libc::PR_SET_NO_NEW_PRIVS, PR_SET_VMA];
    calls.when_one_of(libc::SYS_prctl, 0, &options.map(constant))?;
    calls.when(libc::SYS_clone, vec![thread_only()?])?;
    // An abort raises its signal in this process, and in no other.
    calls.when(libc::SYS_tgkill, vec![is(0, std::process::id().into())?])?;
    if connects {
        calls.when(libc::SYS_socket, vec![is(0, constant(libc::AF_UNIX))?])?;
        calls.any(&[libc::SYS_connect]);
    }
    Ok(calls)
}

/// What serving asks about descriptors and sockets, and that a stricter filter may be added.
fn descriptors_and_stricter(calls: &mut Calls) -> Result<(), seccompiler::BackendError> {
    let fcntls = [
        libc::F_GETFD,
        libc::F_SETFD,
        libc::F_GETFL,
        libc::F_SETFL,
        libc::F_DUPFD_CLOEXEC,
        libc::F_GET_SEALS,
    ];
    calls.when_one_of(libc::SYS_fcntl, 1, &fcntls.map(constant))?;
    calls.when_one_of(libc::SYS_seccomp, 0, &[libc::SECCOMP_SET_MODE_FILTER.into()])?;
    calls.when_one_of(libc::SYS_getsockopt, 1, &[constant(libc::SOL_SOCKET)])?;
    calls.when_one_of(libc::SYS_setsockopt, 1, &[constant(libc::SOL_SOCKET)])
}

fn never_executable() -> Result<SeccompCondition, seccompiler::BackendError> {
    bits(2, constant(libc::PROT_EXEC), 0)
}

/// A thread of this process, in its namespaces.
fn thread_only() -> Result<SeccompCondition, seccompiler::BackendError> {
    let thread = constant(libc::CLONE_THREAD);
    bits(0, thread | constant(NAMESPACES), thread)
}

/// Whatever it is, it is in the namespaces of its maker.
fn no_namespace() -> Result<SeccompCondition, seccompiler::BackendError> {
    bits(0, constant(NAMESPACES), 0)
}

const NAMESPACES: c_int = libc::CLONE_NEWNS
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWCGROUP;
