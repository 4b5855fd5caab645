//! The operator's day: who is in a group and by what, facts that move workloads, and what engines say when they are asked.
//!
//! Serve, an agent and real NICs without a VM, asked by the real verbs.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a panic here is the report")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use fw_tests::control_plane::ControlPlane;
use fw_tests::process::Process;
use fw_tests::program;
use tempfile::TempDir;

const PROVIDER: &str = r#"
tenants: [shop]
fact-keys: {infected: ["no", "yes"]}
segments: {front: {tenant: shop, realm: shop}}
workloads:
  web-1: {tenant: shop, nics: [{id: web-1, segment: front, mac: "52:54:00:00:01:01", addresses: [10.0.1.1]}]}
  app-1: {tenant: shop, nics: [{id: app-1, segment: front, mac: "52:54:00:00:01:02", addresses: [10.0.1.2]}]}
groups:
  sick: {select: {fact.infected: "yes"}}
policies:
  quarantine:
    tier: provider-emergency
    position: 1
    rules:
      - {name: nothing-out, action: drop, from: sick, to: any, services: any}
      - {name: nothing-in, action: drop, from: any, to: sick, services: any}
"#;

const SHOP: &str = "tenant: shop
label-keys: {app: [web, app]}
labels: {web-1: {app: web}}
groups: {web: {select: {app: web}}, app: {select: {app: app}}, front: {groups: [web], ranges: [198.51.100.0/24]}}
policies:
  shop:
    tier: application
    position: 10
    rules: [{name: web-to-app, action: allow, from: front, to: app, services: tcp/8080}]
";

struct Day {
    plane: ControlPlane,
    nics: Vec<Process>,
    folder: TempDir,
}

impl Day {
    fn begins() -> Self {
        let _ = program::vhost_fw();
        let folder = tempfile::tempdir().unwrap();
        let mut plane = ControlPlane::start(folder.path()).unwrap();
        plane.add_host("host-a").unwrap();
        plane.apply("provider", "base", PROVIDER).unwrap();
        plane.apply("shop", "shop", SHOP).unwrap();
        let run = plane.run_dir("host-a").unwrap();
        let nics = ["web-1", "app-1"].map(|nic| {
            let mut command = Command::new(program::vhost_fw());
            command
                .args(["--nic", nic, "--uplink", "null", "--allow-missing-sandbox", "--run-dir"])
                .arg(&run);
            command.arg("--socket").arg(folder.path().join(format!("{nic}.vhost")));
            Process::start(nic, &mut command, folder.path()).unwrap()
        });
        let mut day = Self { plane, nics: nics.into(), folder };
        day.wait_for(&["get", "nics", "-o", "json"], "\"enforced\":2,\"host\":\"host-a\",\"nic\":\"web-1\"");
        day
    }

    fn wait_for(&mut self, words: &[&str], told: &str) -> String {
        for _ in 0..400 {
            let said = self.says(words);
            if said.contains(told) {
                return said;
            }
            thread::sleep(Duration::from_millis(50));
        }
        panic!("{words:?} never says `{told}`: {}", self.says(words));
    }

    /// What a verb says, whatever becomes of it.
    fn says(&self, words: &[&str]) -> String {
        let output = self.plane.verb(words).unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }

    fn token(&self, name: &str, words: &[&str]) -> PathBuf {
        let secret = self.plane.must(&[&["token", "add", name][..], words].concat()).unwrap();
        let path = self.folder.path().join(name);
        fs::write(&path, secret).unwrap();
        path
    }

    fn says_to(&self, token: &Path, words: &[&str]) -> String {
        let output = self.plane.verb_as(token, words).unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }
}

const EXPLAIN: [&str; 4] = ["explain", "web-1", "app-1", "tcp/8080"];

#[test]
fn a_day_of_groups_facts_and_questions() {
    let mut day = Day::begins();
    let who = day.says(&["who", "shop/front"]);
    assert!(who.contains("web-1     10.0.1.1         in shop/web: label app=web"), "{who}");
    assert!(who.contains("-         198.51.100.0/24  range"), "{who}");
    assert!(day.says(&["who", "shop/fron"]).contains("did you mean `shop/front`"));

    let said = day.says(&EXPLAIN);
    assert!(said.starts_with("DENIED  10.0.1.1 -> 10.0.1.2 tcp/8080 in realm shop"), "{said}");
    day.plane.must(&["facts", "set", "app-1", "app=app", "--label", "--wait", "enforced"]).unwrap();
    let said = day.plane.must(&EXPLAIN).unwrap();
    assert!(said.starts_with("DELIVERED"), "{said}");
    for told in [
        "out at web-1 on host-a: pass by rule web-to-app of policy shop/shop (application) at shop/shop:9",
        "in  at app-1 on host-a: pass by rule web-to-app",
        "in shop/app: label app=app",
        "in shop/front: in shop/web: label app=web",
    ] {
        assert!(said.contains(told), "wanted `{told}`: {said}");
    }
    let machine = day.says(&["explain", "web-1", "app-1", "tcp/22", "-o", "json"]);
    assert!(
        machine.contains("\"verdict\":\"denied\"") && machine.contains("\"by\":\"default\""),
        "{machine}"
    );

    day.plane.must(&["facts", "set", "web-1", "infected=yes", "--wait", "enforced"]).unwrap();
    let said = day.says(&EXPLAIN);
    assert!(said.contains("drop by rule nothing-out of policy provider/quarantine"), "{said}");
    assert!(said.contains("in provider/sick: fact infected=yes"), "{said}");
    assert!(day.says(&["who", "provider/sick"]).contains("fact infected=yes"));
    let facts = day.says(&["facts", "list", "web-1"]);
    assert!(facts.contains("fact   infected  yes    provider  provider/set-by-api"), "{facts}");
    day.plane.must(&["facts", "remove", "web-1", "infected", "--wait", "enforced"]).unwrap();
    assert!(day.plane.must(&EXPLAIN).unwrap().starts_with("DELIVERED"));
    assert!(day.says(&["history"]).contains("set fact infected=yes of web-1"));
    assert!(day.says(&["audit"]).contains("removed fact infected of web-1"));

    day.nics.pop().unwrap().kill();
    let mut killed = day.wait_for(&EXPLAIN, "NO ANSWER from app-1");
    assert!(killed.starts_with("UNKNOWN"), "{killed}");
    killed = day.says(&EXPLAIN);
    assert!(killed.contains("the policy wants: pass by rule web-to-app"), "{killed}");
}

#[test]
fn facts_that_cannot_be_change_nothing() {
    let day = Day::begins();
    let before = day.says(&["history"]);
    assert!(day.says(&["facts", "set", "web-9", "infected=yes"]).contains("there is no workload `web-9`"));
    assert!(day.says(&["facts", "set", "web-1", "infectd=yes"]).contains("there is no fact key `infectd`"));
    assert!(day.says(&["facts", "set", "web-1", "infected=maybe"]).contains("maybe"));
    let twice = day.says(&["facts", "set", "web-1", "app=app", "--label"]);
    assert!(twice.contains("stands here again") && twice.contains("shop/shop:3"), "{twice}");
    let other = day.says(&["facts", "remove", "web-1", "app", "--label"]);
    assert!(other.contains("is written at shop/shop:3: change it there"), "{other}");
    let ed = day.token("ed", &["--role", "tenant-editor", "--tenant", "shop"]);
    let refused = day.says_to(&ed, &["facts", "set", "web-1", "infected=no"]);
    assert!(refused.contains("may not write documents of provider"), "{refused}");
    let stranger = day.token("stranger", &["--role", "tenant-editor", "--tenant", "blog"]);
    assert!(day.says_to(&stranger, &["who", "shop/web"]).contains("reads its own tenant alone"));
    assert!(!day.says_to(&stranger, &["facts", "list"]).contains("web-1"));
    let viewer = day.token("viewer", &["--role", "viewer"]);
    assert!(day.says_to(&viewer, &["facts", "set", "app-1", "app=app", "--label"]).contains("may not write"));
    assert!(day.says_to(&viewer, &["explain", "web-1", "nobody", "tcp/1"]).contains("there is no workload"));
    assert_eq!(day.says(&["history"]), before);
    assert!(day.says_to(&ed, &["facts", "set", "app-1", "app=app", "--label"]).contains("is wanted"));
}

#[test]
fn an_agent_that_is_away_is_named() {
    let day = Day::begins();
    day.plane.must(&["host", "revoke", "host-a"]).unwrap();
    let mut said = String::new();
    for _ in 0..200 {
        said = day.says(&EXPLAIN);
        if said.contains("NO ANSWER from web-1 on host-a: its host's agent is not connected") {
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("{said}");
}
