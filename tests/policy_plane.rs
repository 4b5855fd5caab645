//! Serve, an agent and real NICs: what is applied is enforced, what is wrong changes nothing, and whoever is killed in the
//! middle of a change leaves no mixture behind.
//!
//! The real programs on sockets of their own; NICs without a VM are asked by `ctl explain`, which walks the frames' way.
#![expect(clippy::unwrap_used, reason = "a panic here is the report")]

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;
use std::time::Duration;

use fw_control::{Line, Reply, Request};
use fw_model::{Direction, Probe, Protocol, VerdictName};
use fw_tests::process::Process;
use fw_tests::program;
use fw_tests::suite::Size;
use serde_json::Value;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(20);
const NICS: [&str; 3] = ["web-1", "app-1", "db-1"];

const PROVIDER: &str = r#"
tenants: [shop]
segments: {front: {tenant: shop, realm: shop}}
workloads:
  web-1: {tenant: shop, nics: [{id: web-1, segment: front, mac: "52:54:00:00:01:01", addresses: [10.0.1.1]}]}
  app-1: {tenant: shop, nics: [{id: app-1, segment: front, mac: "52:54:00:00:01:02", addresses: [10.0.1.2]}]}
  db-1: {tenant: shop, nics: [{id: db-1, segment: front, mac: "52:54:00:00:01:03", addresses: [10.0.1.3]}]}
"#;

/// Web speaks to app on `port`; `labels` says who is what.
fn shop(port: u16, labels: &str) -> String {
    format!(
        "tenant: shop
label-keys: {{app: [web, app, db]}}
labels: {labels}
groups: {{web: {{select: {{app: web}}}}, app: {{select: {{app: app}}}}}}
policies:
  shop:
    tier: application
    position: 10
    rules: [{{name: web-to-app, action: allow, from: web, to: app, services: tcp/{port}}}]
"
    )
}

const LABELS: &str = "{web-1: {app: web}, app-1: {app: app}, db-1: {app: db}}";

struct Plane {
    folder: TempDir,
    people: u16,
    agents: u16,
    serve: Option<Process>,
    agent: Option<Process>,
    nics: Vec<Process>,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Plane {
    fn new() -> Self {
        let _ = program::vhost_fw();
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(folder.path().join("run")).unwrap();
        fs::set_permissions(folder.path().join("run"), fs::Permissions::from_mode(0o777)).unwrap();
        let (people, agents) = (free_port(), free_port());
        let mut plane = Self { folder, people, agents, serve: None, agent: None, nics: Vec::new() };
        plane.start_serve();
        let word = plane.must(&["host", "invite", "host-a"]);
        plane.write("word", &word);
        plane.enrol("agent").unwrap();
        plane.start_agent();
        plane.nics = NICS.iter().map(|nic| plane.start_nic(nic)).collect();
        plane.write("base.yaml", PROVIDER);
        plane
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        fs::File::create(self.path(name)).unwrap().write_all(text.as_bytes()).unwrap();
        self.path(name)
    }

    fn start_serve(&mut self) {
        let mut command = Command::new(program::ours("policy-sync").unwrap());
        let (people, agents) = (format!("127.0.0.1:{}", self.people), format!("127.0.0.1:{}", self.agents));
        command.args(["serve", "--listen", &people, "--listen-agents", &agents, "--state-dir"]);
        let mut serve = Process::start("serve", command.arg(self.path("serve")), self.folder.path()).unwrap();
        let ready = || self.verb(&["history"]).status.success();
        serve.wait_until(PATIENCE, ready).unwrap();
        self.serve = Some(serve);
    }

    fn start_agent(&mut self) {
        let mut command = Command::new(program::ours("policy-sync").unwrap());
        command.args(["agent", "--serve", &format!("localhost:{}", self.agents), "--state-dir"]);
        command.arg(self.path("agent")).arg("--run-dir").arg(self.path("run"));
        self.agent = Some(Process::start("agent", &mut command, self.folder.path()).unwrap());
    }

    fn start_nic(&self, nic: &str) -> Process {
        let mut command = Command::new(program::vhost_fw());
        command.args(["--nic", nic, "--uplink", "null", "--run-dir"]).arg(self.path("run"));
        command.arg("--socket").arg(self.path(&format!("{nic}.vhost"))).arg("--allow-missing-sandbox");
        let _ = fs::remove_file(self.path(&format!("{nic}.vhost")));
        let mut process = Process::start(nic, &mut command, self.folder.path()).unwrap();
        process.wait_until(PATIENCE, || self.ask(nic, &Request::Stats).is_some()).unwrap();
        process
    }

    fn verb_as(&self, token: &Path, words: &[&str]) -> Output {
        Command::new(program::ours("policy-sync").unwrap())
            .args(words)
            .env("PORTCULLIS_SERVE", format!("localhost:{}", self.people))
            .env("PORTCULLIS_CA", self.path("serve/ca.pem"))
            .env("PORTCULLIS_TOKEN_FILE", token)
            .output()
            .unwrap()
    }

    fn verb(&self, words: &[&str]) -> Output {
        self.verb_as(&self.path("serve/admin.token"), words)
    }

    fn must(&self, words: &[&str]) -> String {
        let output = self.verb(words);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{words:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
        said
    }

    fn refused(&self, words: &[&str], told: &str) {
        refused(&self.verb(words), told);
    }

    fn enrol(&self, state: &str) -> Result<(), String> {
        let output = self.verb(&[]).status;
        assert!(!output.success(), "no verb is no command");
        let output = Command::new(program::ours("policy-sync").unwrap())
            .args(["enrol", "--serve", &format!("localhost:{}", self.people), "--ca"])
            .arg(self.path("serve/ca.pem"))
            .arg("--word-file")
            .arg(self.path("word"))
            .arg("--state-dir")
            .arg(self.path(state))
            .output()
            .unwrap();
        if output.status.success() {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    fn apply(&self, owner: &str, name: &str, text: &str) -> String {
        let file = self.write(&format!("{name}.yaml"), text);
        self.must(&["apply", "--owner", owner, "-f", &file.display().to_string(), "--wait", "enforced"])
    }

    fn ask(&self, nic: &str, request: &Request) -> Option<Reply> {
        let socket = self.path("run").join(nic).join("control.sock");
        Line::open(&socket, Duration::from_secs(5)).ok()?.ask(request).ok()
    }

    fn generation(&self, nic: &str) -> u64 {
        match self.ask(nic, &Request::Stats) {
            Some(Reply::Stats(stats)) => stats.enforced.unwrap_or(0),
            _ => 0,
        }
    }

    /// Whether web-1's first frame to app-1 on `port` passes at `nic`.
    fn passes(&self, nic: &str, port: u16) -> bool {
        let direction = if nic == "web-1" { Direction::Out } else { Direction::In };
        let probe = Probe {
            direction,
            protocol: Protocol::TCP,
            source: "10.0.1.1".parse().unwrap(),
            source_port: 0,
            destination: "10.0.1.2".parse().unwrap(),
            destination_port: port,
        };
        match self.ask(nic, &Request::Explain(probe)) {
            Some(Reply::Explanation(explanation)) => explanation.verdict == VerdictName::Pass,
            _ => false,
        }
    }

    fn versions(&self) -> u64 {
        let said: Value = serde_json::from_str(&self.must(&["history", "-o", "json"])).unwrap();
        said.get(0).and_then(|version| version.get("version")).and_then(Value::as_u64).unwrap_or(0)
    }
}

fn refused(output: &Output, told: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains(told), "wanted `{told}`, got: {said}");
}

#[test]
fn what_is_applied_is_enforced_at_both_ends() {
    let plane = Plane::new();
    plane.apply("provider", "base", PROVIDER);
    assert!(!plane.passes("web-1", 8080) && !plane.passes("app-1", 8080));
    plane.apply("shop", "shop", &shop(8080, LABELS));
    assert!(plane.passes("web-1", 8080) && plane.passes("app-1", 8080));
    assert!(!plane.passes("web-1", 9090) && !plane.passes("app-1", 9090));
    let before = plane.generation("web-1");
    plane.apply("shop", "shop", &shop(8080, "{web-1: {app: web}, app-1: {app: db}, db-1: {app: app}}"));
    assert!(!plane.passes("web-1", 8080), "its group is another now");
    plane.must(&["rollback", "2", "--wait", "enforced"]);
    assert!(plane.passes("web-1", 8080) && plane.generation("web-1") > before);
    plane.must(&["apply", "--owner", "shop", "--remove", "shop", "--wait", "enforced"]);
    assert!(
        !plane.passes("web-1", 8080) && !plane.passes("app-1", 8080),
        "an application's rules go with it"
    );
    assert!(plane.must(&["audit"]).contains("whole: every line follows"));
}

#[test]
fn what_is_wrong_changes_nothing() {
    let plane = Plane::new();
    plane.apply("provider", "base", PROVIDER);
    plane.apply("shop", "shop", &shop(8080, LABELS));
    let (version, generation) = (plane.versions(), plane.generation("web-1"));
    let file = plane.write("shop.yaml", "tenant: shop\ngroups: [");
    let shop_file = ["apply", "--owner", "shop", "-f", &file.display().to_string()];
    plane.refused(&shop_file, "shop/shop:");
    plane.write("shop.yaml", &shop(8080, LABELS).replace("from: web", "from: wev"));
    plane.refused(&shop_file, "`web`");
    plane.write("shop.yaml", &shop(8080, LABELS).replace("{app: web}}, app", "{ap: web}}, app"));
    plane.refused(&shop_file, "did you mean `app`");
    plane.write("shop.yaml", &"# long\n".repeat(700_000));
    plane.refused(&shop_file, "one may have 4194304");
    plane.write("shop.yaml", &shop(9090, LABELS));
    plane.refused(&["apply", "--base", "1", "--owner", "shop", "-f", shop_file[4]], "is the newest");
    plane.refused(&["apply", "--owner", "shop", "--remove", "other"], "no document shop/other");
    plane.refused(&["rollback", "99"], "no version 99");
    for (name, role) in [("eve", "viewer"), ("ed", "tenant-editor")] {
        let tenant: &[&str] = if role == "viewer" { &[] } else { &["--tenant", "other"] };
        let secret = plane.must(&[&["token", "add", name, "--role", role][..], tenant].concat());
        let token = plane.write(name, &secret);
        refused(&plane.verb_as(&token, &shop_file), "may not write");
        refused(&plane.verb_as(&token, &["audit"]), "needs the role admin");
        plane.must(&["token", "remove", name]);
        refused(&plane.verb_as(&token, &["get", "nics"]), "unknown or has ended");
    }
    let nobody = plane.write("nobody", "guess");
    refused(&plane.verb_as(&nobody, &["get", "documents"]), "unknown or has ended");
    assert!(plane.enrol("second").unwrap_err().contains("was used"));
    assert_eq!((plane.versions(), plane.generation("web-1")), (version, generation));
    assert!(plane.passes("web-1", 8080) && !plane.passes("web-1", 9090));
}

#[test]
fn a_revoked_host_gets_nothing_more_and_its_nics_stay_as_they_are() {
    let plane = Plane::new();
    plane.apply("provider", "base", PROVIDER);
    plane.apply("shop", "shop", &shop(8080, LABELS));
    plane.must(&["host", "revoke", "host-a"]);
    let file = plane.write("shop.yaml", &shop(9090, LABELS)).display().to_string();
    let words = ["apply", "--owner", "shop", "-f", &file, "--wait", "enforced", "--timeout-s", "1"];
    let output = plane.verb(&words);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success() && said.contains("NOT ENFORCED  web-1 on host-a"), "{said}");
    assert!(plane.passes("web-1", 8080) && !plane.passes("web-1", 9090));
}

#[test]
fn a_nic_that_comes_while_serve_is_away_gets_what_was_kept() {
    let mut plane = Plane::new();
    plane.apply("provider", "base", PROVIDER);
    plane.apply("shop", "shop", &shop(8080, LABELS));
    plane.serve = None;
    plane.nics.remove(0).kill();
    plane.agent = None;
    plane.start_agent();
    let mut nic = plane.start_nic("web-1");
    nic.wait_until(PATIENCE, || plane.passes("web-1", 8080)).unwrap();
    plane.agent = None;
    // A kept policy that somebody altered is not put in force: the NIC stays closed.
    nic.kill();
    let kept = plane.path("agent/policy.kept");
    let mut bytes = fs::read(&kept).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&kept, bytes).unwrap();
    plane.start_agent();
    let _nic = plane.start_nic("web-1");
    thread::sleep(Duration::from_millis(500));
    assert_eq!(plane.generation("web-1"), 0);
}

/// Policies take turns: one allows port 8080, the other 9090. A NIC that lets both pass, or whose generation is of one and
/// whose rules are of the other, enforces a mixture.
#[test]
fn whoever_is_killed_leaves_no_mixture_and_all_converge() {
    let rounds = if Size::asked() == Size::Long { 1000 } else { 9 };
    let mut plane = Plane::new();
    plane.apply("provider", "base", PROVIDER);
    plane.apply("shop", "shop", &shop(8080, LABELS));
    for round in 0..rounds {
        let port = if round % 2 == 0 { 9090 } else { 8080 };
        let file = plane.write("shop.yaml", &shop(port, LABELS)).display().to_string();
        let mut applying = Command::new(program::ours("policy-sync").unwrap());
        applying.args(["apply", "--owner", "shop", "-f", &file, "--ca"]).arg(plane.path("serve/ca.pem"));
        applying.args(["--serve", &format!("localhost:{}", plane.people), "--token-file"]);
        applying.arg(plane.path("serve/admin.token"));
        let mut applying = Process::start("apply", &mut applying, plane.folder.path()).unwrap();
        // Anywhere from before the request to after its end.
        thread::sleep(Duration::from_micros(u64::from(round * 7919 % 40_000_u32)));
        match round % 3 {
            0 => drop(plane.serve.take()),
            1 => drop(plane.agent.take()),
            _ => plane.nics.remove(0).kill(),
        }
        for nic in ["web-1", "app-1"] {
            let before = plane.generation(nic);
            let both = plane.passes(nic, 8080) && plane.passes(nic, 9090);
            // Between the two questions one policy may follow the other.
            let moved = plane.generation(nic) != before;
            assert!(moved || !both, "{nic} enforces a mixture");
            assert!(!plane.passes(nic, 22), "{nic} is open");
        }
        applying.exit_code(PATIENCE);
        match round % 3 {
            0 => plane.start_serve(),
            1 => plane.start_agent(),
            _ => {
                let nic = plane.start_nic(NICS[0]);
                plane.nics.insert(0, nic);
            }
        }
        plane.apply("shop", "shop", &shop(port, LABELS));
        for nic in ["web-1", "app-1"] {
            let converged = (0..400).any(|_| {
                thread::sleep(Duration::from_millis(10));
                plane.passes(nic, port)
            });
            let other = if port == 8080 { 9090 } else { 8080 };
            assert!(converged && !plane.passes(nic, other), "round {round}: {nic} does not converge");
        }
    }
}
