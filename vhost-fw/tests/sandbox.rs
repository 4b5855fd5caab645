//! What a confined process can and cannot do.
//!
//! Each row runs in a process of its own, which closes the sandbox and tries one thing. Knows system calls. Never
//! knows how the sandbox is made.
#![expect(unsafe_code, reason = "forbidden system calls are made raw: no library may stand between")]
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a panic is the report; clippy sees no test harness here"
)]

use std::collections::HashMap;
use std::ffi::{CString, c_int, c_long};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;

use vhost_fw::sandbox::{Degraded, Missing, Plan, RunAs, Sandbox, data_thread_calls, own_uid};
use vhost_fw::uplink::{Unix, Uplink};

/// Who tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    /// A data thread spawned before the control thread was confined.
    Data,
    /// One spawned afterwards.
    LateData,
    /// The data thread of an uplink that listens.
    ListeningData,
    Control,
    /// The control thread with `--client`.
    Client,
    /// A keeper, which starts workers.
    Keeper,
}

/// What must come of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Must {
    /// The process ends with SIGSYS.
    Kill,
    /// The call fails with this.
    Fail(c_int),
    Work,
}

struct Row {
    who: Who,
    name: &'static str,
    must: Must,
    /// Whether Landlock is what refuses it.
    by_landlock: bool,
    /// The call's result: negative is refused, with errno.
    act: fn(&Path) -> c_long,
}

const fn row(who: Who, name: &'static str, must: Must, act: fn(&Path) -> c_long) -> Row {
    Row { who, name, must, by_landlock: false, act }
}

const fn landlocked(who: Who, name: &'static str, errno: c_int, act: fn(&Path) -> c_long) -> Row {
    Row { who, name, must: Must::Fail(errno), by_landlock: true, act }
}

macro_rules! call {
    ($number:ident $(, $argument:expr)*) => {
        // SAFETY: every argument that is an address is null or points to a value that lives through the call; calls
        // that would change this process's memory are the ones under test and end it.
        unsafe { libc::syscall(libc::$number $(, $argument)*) }
    };
}

const NULL: usize = 0;
const PAGE: usize = 4096;

fn rows() -> Vec<Row> {
    let mut rows = escapes_by_data_threads();
    rows.extend(escapes_by_the_control_thread());
    rows.extend(escapes_by_a_keeper());
    rows.extend(work_to_be_done());
    rows
}

/// The escape attempts, from a data thread.
fn escapes_by_data_threads() -> Vec<Row> {
    use Must::{Fail, Kill};
    use Who::{Data, LateData, ListeningData};
    vec![
        row(Data, "opens a file", Fail(libc::ENOSYS), |_| open("/etc/passwd", libc::O_RDONLY)),
        row(Data, "makes a file", Fail(libc::ENOSYS), |dir| {
            open(dir.join("state/x"), libc::O_CREAT | libc::O_RDWR)
        }),
        row(Data, "opens a socket to the network", Kill, |_| {
            call!(SYS_socket, libc::AF_INET, libc::SOCK_STREAM, 0)
        }),
        row(Data, "opens a local socket", Kill, |_| call!(SYS_socket, libc::AF_UNIX, libc::SOCK_STREAM, 0)),
        row(Data, "connects", Kill, |_| call!(SYS_connect, -1, NULL, 0)),
        row(Data, "runs a program", Kill, |_| call!(SYS_execve, c"/bin/true".as_ptr(), NULL, NULL)),
        row(Data, "runs a program by descriptor", Kill, |_| call!(SYS_execveat, -1, NULL, NULL, NULL, 0)),
        row(Data, "forks", Kill, |_| call!(SYS_clone, libc::SIGCHLD, NULL, NULL, NULL, NULL)),
        row(Data, "forks by clone3", Fail(libc::ENOSYS), |_| call!(SYS_clone3, NULL, 0)),
        row(Data, "traces its parent", Kill, |_| {
            call!(SYS_ptrace, libc::PTRACE_ATTACH, libc::getppid(), NULL, NULL)
        }),
        row(Data, "reads another process", Kill, |_| call!(SYS_process_vm_readv, 1, NULL, 0, NULL, 0, 0)),
        row(Data, "maps memory to run", Kill, |_| map(libc::PROT_READ | libc::PROT_EXEC)),
        row(Data, "makes memory runnable", Kill, |_| call!(SYS_mprotect, NULL, PAGE, libc::PROT_EXEC)),
        row(Data, "maps a file", Kill, |_| {
            call!(SYS_mmap, NULL, PAGE, libc::PROT_READ, libc::MAP_PRIVATE, 0, 0)
        }),
        row(Data, "types into the terminal", Kill, |_| call!(SYS_ioctl, 0, libc::TIOCSTI, c"x".as_ptr())),
        row(Data, "attaches to another tap", Kill, |_| call!(SYS_ioctl, 0, libc::TUNSETIFF, NULL)),
        row(Data, "signals its parent", Kill, |_| call!(SYS_kill, libc::getppid(), 0)),
        row(Data, "loads a BPF program", Kill, |_| call!(SYS_bpf, 5, NULL, 0)),
        row(Data, "makes a user namespace", Kill, |_| call!(SYS_unshare, libc::CLONE_NEWUSER)),
        row(Data, "enters a namespace", Kill, |_| call!(SYS_setns, -1, 0)),
        row(Data, "mounts", Kill, |_| call!(SYS_mount, NULL, NULL, NULL, 0, NULL)),
        row(Data, "makes an io_uring", Kill, |_| call!(SYS_io_uring_setup, 1, NULL)),
        row(Data, "becomes root", Kill, |_| call!(SYS_setuid, 0)),
        row(Data, "makes itself dumpable", Kill, |_| call!(SYS_prctl, libc::PR_SET_DUMPABLE, 1, 0, 0, 0)),
        row(Data, "makes an anonymous file", Kill, |_| call!(SYS_memfd_create, c"x".as_ptr(), 0)),
        row(Data, "handles page faults", Kill, |_| call!(SYS_userfaultfd, 0)),
        row(Data, "accepts without a listening uplink", Kill, |_| call!(SYS_accept4, -1, NULL, NULL, 0)),
        row(ListeningData, "has no tap to speak to", Kill, |_| call!(SYS_ioctl, 0, libc::TUNSETOFFLOAD, 0)),
        row(LateData, "opens a file", Fail(libc::ENOSYS), |_| open("/etc/passwd", libc::O_RDONLY)),
        row(LateData, "spawns", Kill, |_| call!(SYS_clone, libc::CLONE_THREAD, NULL, NULL, NULL, NULL)),
    ]
}

/// The same from the control thread, which may do more.
fn escapes_by_the_control_thread() -> Vec<Row> {
    use Must::{Fail, Kill};
    use Who::{Client, Control};
    vec![
        landlocked(Control, "reads a foreign file", libc::EACCES, |_| open("/etc/passwd", libc::O_RDONLY)),
        landlocked(Control, "lists the root folder", libc::EACCES, |_| {
            open("/", libc::O_RDONLY | libc::O_DIRECTORY)
        }),
        landlocked(Control, "changes the rules", libc::EACCES, |dir| {
            open(dir.join("rules/nic.yaml"), libc::O_WRONLY)
        }),
        landlocked(Control, "adds to the rules folder", libc::EACCES, |dir| {
            open(dir.join("rules/x"), libc::O_CREAT | libc::O_RDWR)
        }),
        landlocked(Control, "removes the rules", libc::EACCES, |dir| {
            io(fs::remove_file(dir.join("rules/nic.yaml")))
        }),
        landlocked(Control, "moves the rules away", libc::EACCES, |dir| {
            io(fs::rename(dir.join("rules/nic.yaml"), dir.join("state/nic.yaml")))
        }),
        row(Control, "opens a socket to the network", Kill, |_| {
            call!(SYS_socket, libc::AF_INET, libc::SOCK_STREAM, 0)
        }),
        row(Control, "opens a local socket", Kill, |_| {
            call!(SYS_socket, libc::AF_UNIX, libc::SOCK_STREAM, 0)
        }),
        row(Client, "opens a socket to the network", Kill, |_| {
            call!(SYS_socket, libc::AF_INET, libc::SOCK_STREAM, 0)
        }),
        row(Control, "runs a program", Kill, |_| call!(SYS_execve, c"/bin/true".as_ptr(), NULL, NULL)),
        row(Control, "forks", Kill, |_| call!(SYS_clone, libc::SIGCHLD, NULL, NULL, NULL, NULL)),
        row(Control, "spawns into a new namespace", Kill, |_| {
            call!(SYS_clone, libc::CLONE_THREAD | libc::CLONE_NEWNET, NULL, NULL, NULL, NULL)
        }),
        row(Control, "forks by clone3", Fail(libc::ENOSYS), |_| call!(SYS_clone3, NULL, 0)),
        row(Control, "maps memory to run", Kill, |_| map(libc::PROT_WRITE | libc::PROT_EXEC)),
        row(Control, "makes memory runnable", Kill, |_| call!(SYS_mprotect, NULL, PAGE, libc::PROT_EXEC)),
        row(Control, "traces its parent", Kill, |_| {
            call!(SYS_ptrace, libc::PTRACE_ATTACH, libc::getppid(), NULL, NULL)
        }),
        row(Control, "signals its parent", Kill, |_| call!(SYS_kill, libc::getppid(), 0)),
        row(Control, "signals another process's thread", Kill, |_| call!(SYS_tgkill, 1, 1, 0)),
        row(Control, "makes a user namespace", Kill, |_| call!(SYS_unshare, libc::CLONE_NEWUSER)),
        row(Control, "mounts", Kill, |_| call!(SYS_mount, NULL, NULL, NULL, 0, NULL)),
        row(Control, "makes an io_uring", Kill, |_| call!(SYS_io_uring_setup, 1, NULL)),
        row(Control, "becomes root", Kill, |_| call!(SYS_setresuid, 0, 0, 0)),
        row(Control, "makes itself dumpable", Kill, |_| call!(SYS_prctl, libc::PR_SET_DUMPABLE, 1, 0, 0, 0)),
        row(Control, "attaches to another tap", Kill, |_| call!(SYS_ioctl, 0, libc::TUNSETIFF, NULL)),
        row(Control, "sends its owner signals", Kill, |_| {
            call!(SYS_fcntl, 0, libc::F_SETOWN, libc::getppid())
        }),
    ]
}

/// From a keeper, which must be able to start a program; nothing here ends it, since its worker may be of a newer version.
fn escapes_by_a_keeper() -> Vec<Row> {
    use Must::Fail;
    use Who::Keeper;
    vec![
        landlocked(Keeper, "reads a foreign file", libc::EACCES, |_| open("/etc/shadow", libc::O_RDONLY)),
        landlocked(Keeper, "runs a foreign program", libc::EACCES, |_| {
            io(Command::new("/bin/true").spawn().and_then(|mut child| child.wait()))
        }),
        row(Keeper, "opens a socket to the network", Fail(libc::ENOSYS), |_| {
            call!(SYS_socket, libc::AF_INET, libc::SOCK_STREAM, 0)
        }),
        row(Keeper, "opens a netlink socket", Fail(libc::ENOSYS), |_| {
            call!(SYS_socket, libc::AF_NETLINK, libc::SOCK_RAW, 0)
        }),
        row(Keeper, "spawns into a new namespace", Fail(libc::ENOSYS), |_| {
            call!(SYS_clone, libc::CLONE_NEWUSER | libc::SIGCHLD, NULL, NULL, NULL, NULL)
        }),
        row(Keeper, "forks by clone3", Fail(libc::ENOSYS), |_| call!(SYS_clone3, NULL, 0)),
        row(Keeper, "makes a user namespace", Fail(libc::ENOSYS), |_| {
            call!(SYS_unshare, libc::CLONE_NEWUSER)
        }),
        row(Keeper, "enters a namespace", Fail(libc::ENOSYS), |_| call!(SYS_setns, -1, 0)),
        row(Keeper, "traces its parent", Fail(libc::ENOSYS), |_| {
            call!(SYS_ptrace, libc::PTRACE_ATTACH, libc::getppid(), NULL, NULL)
        }),
        row(Keeper, "reads another process", Fail(libc::ENOSYS), |_| {
            call!(SYS_process_vm_readv, 1, NULL, 0, NULL, 0, 0)
        }),
        row(Keeper, "mounts", Fail(libc::ENOSYS), |_| call!(SYS_mount, NULL, NULL, NULL, 0, NULL)),
        row(Keeper, "makes an io_uring", Fail(libc::ENOSYS), |_| call!(SYS_io_uring_setup, 1, NULL)),
        row(Keeper, "loads a BPF program", Fail(libc::ENOSYS), |_| call!(SYS_bpf, 5, NULL, 0)),
        row(Keeper, "becomes root", Fail(libc::ENOSYS), |_| call!(SYS_setresuid, 0, 0, 0)),
        row(Keeper, "attaches to another tap", Fail(libc::ENOSYS), |_| {
            call!(SYS_ioctl, 0, libc::TUNSETIFF, NULL)
        }),
        row(Keeper, "runs a program by descriptor", Fail(libc::ENOSYS), |_| {
            call!(SYS_execveat, -1, NULL, NULL, NULL, 0)
        }),
    ]
}

/// What must go on working.
fn work_to_be_done() -> Vec<Row> {
    use Must::Work;
    use Who::{Client, Control, Data, Keeper, LateData, ListeningData};
    vec![
        row(Keeper, "starts the program it may start, and ends it", Work, |_| io(start_and_end())),
        row(Data, "moves bytes, allocates, locks and tells the time", Work, data_work),
        row(LateData, "moves bytes, allocates, locks and tells the time", Work, data_work),
        row(ListeningData, "takes a peer's frame and lets it go", Work, take_a_frame),
        // Checked before the filters: the calls that ask are not among those allowed.
        row(Control, "has no privilege left", Work, |_| 0),
        row(Control, "reads rules and keeps state", Work, |dir| io(files(dir))),
        row(Control, "serves a socket and removes it", Work, |dir| io(serve(dir))),
        row(Client, "connects to a socket", Work, |dir| {
            io(UnixStream::connect(dir.join("state/there.sock")))
        }),
        row(Control, "spawns and joins threads", Work, |_| {
            std::thread::Builder::new().name("a thread".to_owned()).spawn(|| 0).unwrap().join().unwrap()
        }),
    ]
}

/// This program again: its list of arguments holds nothing to do.
fn start_and_end() -> std::io::Result<()> {
    let mut child = Command::new(std::env::current_exe()?).arg("--pause").stdin(Stdio::piped()).spawn()?;
    assert!(child.try_wait()?.is_none());
    child.kill()?;
    assert_eq!(child.wait()?.signal(), Some(libc::SIGKILL));
    Ok(())
}

fn data_work(_: &Path) -> c_long {
    let mut grown = vec![1_u8; 200_000];
    for _ in 0..8 {
        grown.extend_from_within(..);
    }
    let map: HashMap<u32, usize> = (0..1000).map(|number| (number, grown.len())).collect();
    let lock = Mutex::new(map.len());
    let start = std::time::Instant::now();
    drop(grown);
    let before = std::time::SystemTime::now();
    let written = call!(SYS_write, 2, c"".as_ptr(), 0);
    assert!(start.elapsed().as_secs() < 60 && before.elapsed().is_ok());
    written + i64::from(*lock.lock().unwrap() != 1000)
}

/// From a peer that connected, spoke and left before the sandbox closed.
fn take_a_frame(_: &Path) -> c_long {
    let mut uplink = UPLINK.lock().unwrap().take().unwrap();
    let mut buffer = [0; 100];
    // Ends the process if a call was refused, so that the result needs no words.
    let (first, then) = (uplink.recv(&mut buffer).ok().flatten(), uplink.recv(&mut buffer).ok().flatten());
    if first == Some(30) && then.is_none() { 0 } else { -1 }
}

/// An uplink with one frame in it.
fn listen_and_be_spoken_to(path: &Path) -> Unix {
    let uplink = Unix::listen(path, None).unwrap();
    let (family, kind) = (rustix::net::AddressFamily::UNIX, rustix::net::SocketType::SEQPACKET);
    let peer = rustix::net::socket(family, kind, None).unwrap();
    rustix::net::connect(&peer, &rustix::net::SocketAddrUnix::new(path).unwrap()).unwrap();
    rustix::net::send(&peer, &[0; 30], rustix::net::SendFlags::empty()).unwrap();
    uplink
}

fn files(dir: &Path) -> std::io::Result<()> {
    fs::read_to_string(dir.join("rules/nic.yaml"))?;
    fs::read_dir(dir.join("rules"))?.count();
    let temporary = dir.join("state/conns.new");
    let mut file = File::create(&temporary)?;
    file.write_all(b"records")?;
    file.sync_all()?;
    fs::rename(&temporary, dir.join("state/conns"))?;
    assert_eq!(fs::read(dir.join("state/conns"))?, b"records");
    fs::remove_file(dir.join("state/conns"))
}

/// With a peer that the parent process plays.
fn serve(dir: &Path) -> std::io::Result<()> {
    LISTENER.with_borrow(|listener| {
        let (mut peer, _) = listener.as_ref().unwrap().accept()?;
        peer.set_read_timeout(Some(std::time::Duration::from_secs(10)))?;
        let mut request = [0; 4];
        peer.read_exact(&mut request)?;
        peer.write_all(&request)?;
        peer.shutdown(std::net::Shutdown::Both)
    })?;
    fs::remove_file(dir.join("state/control.sock"))
}

fn assert_nothing_kept(was_root: bool, has_service_user: bool, degraded: &[Degraded]) {
    let sets = rustix::thread::capabilities(None).unwrap();
    assert!(sets.effective.is_empty() && sets.permitted.is_empty() && sets.inheritable.is_empty());
    assert!(rustix::thread::no_new_privs().unwrap());
    assert_eq!(rustix::process::dumpable_behavior().unwrap(), rustix::process::DumpableBehavior::NotDumpable);
    assert_eq!(rustix::process::getrlimit(rustix::process::Resource::Core).maximum, Some(0));
    if was_root && !degraded.contains(&Degraded::UidUnmapped) {
        let uid = rustix::process::getuid();
        assert!(!uid.is_root() && uid == rustix::process::geteuid());
        assert!(has_service_user || uid.as_raw() == own_uid(&"web-1".parse().unwrap()));
        assert!(rustix::process::getgroups().unwrap().is_empty());
        let bounding = rustix::thread::CapabilitySet::NET_ADMIN;
        assert!(!rustix::thread::capability_is_in_bounding_set(bounding).unwrap());
    }
}

static UPLINK: Mutex<Option<Unix>> = Mutex::new(None);

thread_local! {
    static LISTENER: std::cell::RefCell<Option<UnixListener>> = const { std::cell::RefCell::new(None) };
}

/// Exit codes of a row's process. Others are errno.
const WORKED: i32 = 100;
const NO_LANDLOCK: i32 = 101;
const NO_SECCOMP: i32 = 102;

/// A row's process: close the sandbox, try.
fn inside(row: &Row, dir: &Path) -> ! {
    let was_root = rustix::process::geteuid().is_root();
    let has_service_user =
        fs::read_to_string("/etc/passwd").is_ok_and(|users| users.contains("\nportcullis:"));
    let (rules, state) = (dir.join("rules/nic.yaml"), dir.join("state"));
    let control = state.join("control.sock");
    if row.name.starts_with("serves") {
        LISTENER.set(Some(UnixListener::bind(&control).unwrap()));
    }
    if row.name.starts_with("takes a peer") {
        *UPLINK.lock().unwrap() = Some(listen_and_be_spoken_to(&state.join("uplink.sock")));
    }
    let nic = "web-1".parse().unwrap();
    let me = std::env::current_exe().unwrap();
    let sandbox = Sandbox::prepare(&Plan {
        nic: &nic,
        run_as: RunAs::Own,
        missing: Missing::Allow,
        rules: Some(&rules),
        writable: &[&state],
        hand_over: &[&state],
        connects: row.who == Who::Client,
        uplink_listens: row.who == Who::ListeningData,
        open_files: 64,
        starts: (row.who == Who::Keeper).then_some(me.as_path()),
    })
    .unwrap();
    if row.by_landlock && sandbox.degraded().contains(&Degraded::Landlock) {
        std::process::exit(NO_LANDLOCK);
    }
    if matches!(row.must, Must::Kill | Must::Fail(libc::ENOSYS))
        && sandbox.degraded().contains(&Degraded::Seccomp)
    {
        std::process::exit(NO_SECCOMP);
    }
    if row.name.starts_with("has no privilege") {
        assert_nothing_kept(was_root, has_service_user, sandbox.degraded());
    }
    let (act, path, data) = (row.act, dir.to_owned(), sandbox.data_thread());
    let on_data_thread = move || {
        data().unwrap();
        report(act(&path));
    };
    match row.who {
        Who::Data | Who::ListeningData => {
            let thread = std::thread::spawn(on_data_thread);
            thread.join().unwrap();
        }
        Who::LateData => {
            sandbox.enter_control_thread().unwrap();
            std::thread::spawn(on_data_thread).join().unwrap();
        }
        Who::Control | Who::Client => {
            sandbox.enter_control_thread().unwrap();
            report((row.act)(dir));
        }
        Who::Keeper => {
            sandbox.enter_keeper().unwrap();
            report((row.act)(dir));
        }
    }
    std::process::exit(WORKED);
}

/// Ends the process if the act was refused; lets the thread end by itself if not.
fn report(result: c_long) {
    let errno = last_errno();
    if result < 0 {
        // SAFETY: ends the process without anything that could allocate or lock.
        unsafe { libc::_exit(errno) };
    }
}

fn run(number: usize, row: &Row) -> Result<Option<&'static str>, String> {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for folder in ["rules", "state"] {
        fs::create_dir(dir.path().join(folder)).unwrap();
    }
    fs::write(dir.path().join("rules/nic.yaml"), "generation: 1\n").unwrap();
    let there = dir.path().join("state/there.sock");
    let _there = UnixListener::bind(&there).unwrap();
    fs::set_permissions(&there, fs::Permissions::from_mode(0o777)).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--inside", &number.to_string()])
        .arg(dir.path())
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let mut spoken = Ok(());
    if row.name.starts_with("serves") {
        spoken = speak(&dir.path().join("state/control.sock"));
        if spoken.is_err() {
            child.kill().unwrap();
        }
    }
    let status = child.wait().unwrap();
    spoken?;
    let must = match (status.code(), row.must) {
        (Some(NO_LANDLOCK), _) => return Ok(Some("this kernel has no Landlock")),
        (Some(NO_SECCOMP), _) => return Ok(Some("this kernel has no seccomp filters")),
        (Some(WORKED), Must::Work) => return Ok(None),
        (Some(code), Must::Fail(errno)) if code == errno => return Ok(None),
        (None, Must::Kill) if status.signal() == Some(libc::SIGSYS) => return Ok(None),
        (_, must) => must,
    };
    Err(format!("must {must:?}, but the process ended with {status} ({WORKED} = it worked, else errno)"))
}

fn speak(path: &PathBuf) -> Result<(), String> {
    for _ in 0..200 {
        if let Ok(mut stream) = UnixStream::connect(path) {
            let mut answer = [0; 4];
            stream
                .write_all(b"ping")
                .and_then(|()| stream.read_exact(&mut answer))
                .map_err(|e| e.to_string())?;
            return if &answer == b"ping" { Ok(()) } else { Err(format!("answered {answer:?}")) };
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    Err("never listened".to_owned())
}

fn main() -> ExitCode {
    let rows = rows();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [inside_flag, number, dir] = arguments.as_slice()
        && inside_flag == "--inside"
    {
        inside(&rows[number.parse::<usize>().unwrap()], Path::new(dir));
    }
    if arguments.first().is_some_and(|first| first == "--pause") {
        std::thread::sleep(std::time::Duration::from_secs(60));
        return ExitCode::SUCCESS;
    }
    let wanted = arguments.iter().find(|argument| !argument.starts_with('-'));
    let mut failed = 0;
    for (number, row) in rows.iter().enumerate() {
        let name = format!("{:?} thread {}", row.who, row.name);
        if wanted.is_some_and(|wanted| !name.contains(wanted.as_str())) {
            continue;
        }
        match run(number, row) {
            Ok(None) => eprintln!("{name} ... {:?}: ok", row.must),
            Ok(Some(reason)) => eprintln!("{name} ... skipped: {reason}"),
            Err(what) => {
                failed += 1;
                eprintln!("{name} ... FAILED: {what}");
            }
        }
    }
    for listens in [false, true] {
        let calls = data_thread_calls(listens);
        eprintln!("a data thread has {calls} system calls (uplink listens: {listens})");
        // A debug build's standard library makes one more.
        let most = 20 + usize::from(cfg!(debug_assertions));
        failed += usize::from(!(1..=most).contains(&calls));
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn open(path: impl AsRef<Path>, flags: c_int) -> c_long {
    let path = CString::new(path.as_ref().to_str().unwrap()).unwrap();
    call!(SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags, 0o600)
}

fn map(protection: c_int) -> c_long {
    call!(SYS_mmap, NULL, PAGE, protection, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
}

/// The result as a system call would give it.
fn io<T>(result: std::io::Result<T>) -> c_long {
    match result {
        Ok(_) => 0,
        Err(error) => {
            // SAFETY: errno is this thread's own.
            unsafe { *libc::__errno_location() = error.raw_os_error().unwrap_or(99) };
            -1
        }
    }
}

fn last_errno() -> c_int {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(99)
}
