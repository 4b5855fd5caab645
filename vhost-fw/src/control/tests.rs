//! The control thread with a real engine behind it, asked over a real socket.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Mutex;
use std::thread;

use fw_control::{Advance, SetChange, SetsChange, message};
use fw_engine::{Answers, Config, Engine, Tick};
use fw_model::{ConnFilter, RuleSet};
use tempfile::TempDir;

use super::*;

const RULES: &str = "nic: {id: web-1, mac: \"52:54:00:00:00:01\"}\ndefaults: {out: drop, in: drop}\n";

/// A NIC without rings: the engine alone, on the control thread.
struct Bare(Mutex<Engine>, Mutex<Option<RuleSet>>);

impl Nic for Bare {
    fn install(&self, rules: Arc<PreparedRules>) -> Reply {
        let generation = rules.rules().generation;
        *self.1.lock().unwrap() = Some(rules.rules().clone());
        self.0.lock().unwrap().install(rules, Tick(0));
        Reply::Enforced(generation)
    }

    fn in_force(&self) -> Option<RuleSet> {
        self.1.lock().unwrap().clone()
    }

    fn ask(&self, request: Request) -> Reply {
        let mut engine = self.0.lock().unwrap();
        match request {
            Request::Stats => Reply::Stats(Box::new(engine.stats(Tick(0)))),
            Request::Conns(filter) => Reply::Conns(engine.conns(&filter, 10, Tick(0))),
            Request::Kill(filter) => {
                Reply::Killed(engine.kill(&filter, Tick(0), &mut Answers::with_capacity(1, 1)))
            }
            Request::Explain(_)
            | Request::Freeze
            | Request::Thaw
            | Request::AnnounceHandover(_)
            | Request::ExpectHandover(_)
            | Request::Upgrade
            | Request::CancelHandover
            | Request::Terms
            | Request::SendAhead(_)
            | Request::ReceiveAhead(_)
            | Request::Export
            | Request::Import => Reply::Done,
            Request::Install(_) | Request::Advance(_) => Reply::Refused("not here".to_owned()),
        }
    }

    fn hand_over(&self, _: Request, mut stream: UnixStream) {
        stream.write_all(b"yours").unwrap();
    }
}

struct Running {
    folder: TempDir,
    _file: SocketFile,
}

impl Running {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (listener, file) = bind(&folder.path().join("nic/control.sock")).unwrap();
        let engine = Engine::new(Config { conns: 16, fragments: 1024, hash_key: [0; 16], mtu: 1500 });
        let nic = Box::new(Bare(Mutex::new(engine), Mutex::default()));
        let stop = EventFd::new(0).unwrap();
        let control = Control::new("web-1".parse().unwrap(), nic, listener, None, stop).unwrap();
        thread::spawn(|| control.run());
        Self { folder, _file: file }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("nic/control.sock")
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.path()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }
}

fn ask(stream: &mut UnixStream, request: &Request) -> Reply {
    message::exchange(stream, request).unwrap()
}

fn rules(text: &str) -> Request {
    Request::Install(Box::new(rules_file::parse(text, "r.yaml", 0).unwrap()))
}

#[test]
fn rules_are_installed_and_seen() {
    let running = Running::new();
    let mut stream = running.connect();
    assert!(matches!(ask(&mut stream, &rules(RULES)), Reply::Enforced(1)));
    let Reply::Stats(stats) = ask(&mut stream, &Request::Stats) else { panic!() };
    assert_eq!((stats.generation, stats.nic.unwrap().as_str()), (Some(1), "web-1"));
    assert!(matches!(ask(&mut stream, &Request::Kill(ConnFilter::default())), Reply::Killed(0)));
}

#[test]
fn rules_of_another_nic_are_refused() {
    let running = Running::new();
    let reply = ask(&mut running.connect(), &rules(&RULES.replace("web-1", "web-2")));
    let Reply::Refused(why) = reply else { panic!("{reply:?}") };
    assert!(why.contains("`web-2`") && why.contains("`web-1`"), "{why}");
}

fn whole(text: &str, generation: u64) -> Request {
    let mut rules = rules_file::parse(text, "r.yaml", 0).unwrap();
    rules.generation = generation;
    Request::Advance(Advance::Whole(Box::new(rules)))
}

fn change(base: u64, generation: u64, set: &str, added: &str, removed: &[&str]) -> Request {
    let member = |text: &str| fw_model::Member { prefix: text.parse().unwrap(), mac: None };
    let change =
        SetChange { added: vec![member(added)], removed: removed.iter().map(|text| member(text)).collect() };
    let sets = [(set.parse().unwrap(), change)].into();
    Request::Advance(Advance::Sets(SetsChange { base, generation, sets }))
}

const WITH_SET: &str = "nic: {id: web-1, mac: \"52:54:00:00:00:01\", addresses: [10.0.0.1]}
defaults: {out: drop, in: drop}
address-sets: {app: [10.0.0.2]}
rules: [{id: a, direction: out, action: allow, protocol: tcp, remote: [{set: app}]}]
";

#[test]
fn the_control_planes_rules_only_rise() {
    let running = Running::new();
    let mut stream = running.connect();
    assert!(matches!(ask(&mut stream, &whole(WITH_SET, 7)), Reply::Enforced(7)));
    for generation in [7, 6] {
        let Reply::Refused(why) = ask(&mut stream, &whole(WITH_SET, generation)) else { panic!() };
        assert!(why.contains("does not rise") && why.contains('7'), "{why}");
    }
    let Reply::Stats(stats) = ask(&mut stream, &Request::Stats) else { panic!() };
    assert_eq!(stats.generation, Some(7));
    assert!(matches!(ask(&mut stream, &whole(WITH_SET, 9)), Reply::Enforced(9)));
}

#[test]
fn a_set_changes_by_what_came_and_went() {
    let running = Running::new();
    let mut stream = running.connect();
    let refused = |stream: &mut UnixStream, request: &Request, told: &str| {
        let Reply::Refused(why) = ask(stream, request) else { panic!("{told}") };
        assert!(why.contains(told), "{why}");
    };
    refused(&mut stream, &change(0, 1, "app", "10.0.0.3", &[]), "none are in force");
    assert!(matches!(ask(&mut stream, &whole(WITH_SET, 7)), Reply::Enforced(7)));
    refused(
        &mut stream,
        &change(6, 8, "app", "10.0.0.3", &[]),
        "a change to generation 6, and 7 is in force",
    );
    refused(&mut stream, &change(7, 8, "app", "10.0.0.2", &[]), "does not fit");
    refused(&mut stream, &change(7, 8, "db", "10.0.0.3", &[]), "no address set `db`");
    refused(&mut stream, &change(7, 7, "app", "10.0.0.3", &[]), "does not rise");
    assert!(matches!(ask(&mut stream, &change(7, 8, "app", "10.0.0.3", &["10.0.0.2"])), Reply::Enforced(8)));
    // Made to what is in force now, and to nothing else.
    assert!(matches!(ask(&mut stream, &change(8, 9, "app", "10.0.0.2", &["10.0.0.3"])), Reply::Enforced(9)));
    refused(&mut stream, &change(8, 10, "app", "10.0.0.4", &[]), "9 is in force");
}

#[test]
fn what_is_no_message_is_refused_and_the_connection_lives() {
    let running = Running::new();
    let mut stream = running.connect();
    for (json, told) in
        [("[1,\"dance\"]", "not understood"), ("[9,\"dance\"]", "version 1"), ("{}", "not understood")]
    {
        let length = u32::try_from(json.len()).unwrap().to_le_bytes();
        stream.write_all(&[&length, json.as_bytes()].concat()).unwrap();
        let mut prefix = [0; 4];
        stream.read_exact(&mut prefix).unwrap();
        let mut reply = vec![0; usize::try_from(u32::from_le_bytes(prefix)).unwrap()];
        stream.read_exact(&mut reply).unwrap();
        let Ok(Reply::Refused(why)) = message::decode(&reply) else { panic!("{reply:?}") };
        assert!(why.contains(told), "{why}");
    }
    assert!(matches!(ask(&mut stream, &Request::Stats), Reply::Stats(_)));
}

#[test]
fn an_endless_message_ends_the_connection() {
    let running = Running::new();
    let mut stream = running.connect();
    stream.write_all(&u32::MAX.to_le_bytes()).unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert!(String::from_utf8_lossy(&rest).contains("a message may have"));
}

#[test]
fn clients_that_say_nothing_keep_nobody_waiting() {
    let running = Running::new();
    let mut stuck: Vec<UnixStream> = (1..CONNECTIONS_MAX).map(|_| running.connect()).collect();
    for stream in &mut stuck {
        stream.write_all(&[9, 0]).unwrap();
    }
    let mut served = running.connect();
    assert!(matches!(ask(&mut served, &Request::Stats), Reply::Stats(_)));
    let mut turned_away = running.connect();
    let reply: Reply = message::exchange(&mut turned_away, &Request::Stats).unwrap();
    assert!(matches!(reply, Reply::Refused(_)), "{reply:?}");
    drop(stuck.pop());
    let again = (0..200).any(|_| {
        thread::sleep(Duration::from_millis(10));
        matches!(message::exchange(&mut running.connect(), &Request::Stats), Ok(Reply::Stats(_)))
    });
    assert!(again, "a connection that closed leaves its place");
}

#[test]
fn a_long_message_arrives_in_pieces() {
    let running = Running::new();
    let mut text = RULES.to_owned() + "address-sets:\n  s:\n";
    for number in 0..30_000 {
        text.push_str(&format!("    - 10.{}.{}.0/24\n", number >> 8, number & 255));
    }
    let mut stream = running.connect();
    assert!(matches!(ask(&mut stream, &rules(&text)), Reply::Enforced(1)));
}

#[test]
fn the_socket_is_closed_to_others_and_goes_with_the_nic() {
    let running = Running::new();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&running.path()), 0o600);
    assert_eq!(mode(running.path().parent().unwrap()) & 0o027, 0);
    let Running { folder, _file } = running;
    drop(_file);
    assert_eq!(fs::read_dir(folder.path().join("nic")).unwrap().count(), 0);
}

#[test]
fn a_living_socket_is_not_taken_and_a_dead_one_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control.sock");
    let (listener, file) = bind(&path).unwrap();
    assert!(matches!(bind(&path), Err(ControlError::InUse(_))));
    drop(listener);
    let (_second, second_file) = bind(&path).unwrap();
    drop(file);
    assert!(path.exists(), "the first one's end must not remove the second one's socket");
    drop(second_file);
    fs::write(&path, "").unwrap();
    assert!(matches!(bind(&path), Err(ControlError::NoSocket(_))));
}

#[test]
fn a_rule_set_survives_the_wire() {
    let rules: RuleSet =
        rules_file::parse(include_str!("../../../tests/golden/rules/rule-everything.yaml"), "r.yaml", 0)
            .unwrap();
    let bytes = message::encode(&Request::Install(Box::new(rules.clone()))).unwrap();
    let Ok(Request::Install(read)) = message::decode(&bytes[message::PREFIX..]) else { panic!() };
    assert_eq!(*read, rules);
}
