//! Serve, an agent and real NICs: what is applied is enforced, what is wrong changes nothing, and whoever is killed in the
//! middle of a change leaves no mixture behind.
//!
//! The real programs on sockets of their own; NICs without a VM are asked by `ctl explain`, which walks the frames' way.
#![expect(clippy::unwrap_used, reason = "a panic here is the report")]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;
use std::time::Duration;

use fw_control::{Line, Reply, Request, control_in};
use fw_model::{Direction, Probe, Protocol, VerdictName};
use fw_tests::control_plane::ControlPlane;
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

/// The one host.
const HOST: &str = "host-a";

struct Plane {
    folder: TempDir,
    control: ControlPlane,
    nics: Vec<Process>,
}

impl Plane {
    fn new() -> Self {
        let _ = program::vhost_fw();
        let folder = tempfile::tempdir().unwrap();
        let mut control = ControlPlane::start(folder.path()).unwrap();
        control.add_host(HOST).unwrap();
        let mut plane = Self { folder, control, nics: Vec::new() };
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

    fn start_nic(&self, nic: &str) -> Process {
        let mut command = Command::new(program::vhost_fw());
        command.args(["--nic", nic, "--uplink", "null", "--run-dir"]).arg(self.run_dir());
        command.arg("--socket").arg(self.path(&format!("{nic}.vhost"))).arg("--allow-missing-sandbox");
        let _ = fs::remove_file(self.path(&format!("{nic}.vhost")));
        let mut process = Process::start(nic, &mut command, self.folder.path()).unwrap();
        process.wait_until(PATIENCE, || self.ask(nic, &Request::Stats).is_some()).unwrap();
        process
    }

    fn verb_as(&self, token: &Path, words: &[&str]) -> Output {
        self.control.verb_as(token, words).unwrap()
    }

    fn must(&self, words: &[&str]) -> String {
        self.control.must(words).unwrap()
    }

    fn refused(&self, words: &[&str], told: &str) {
        refused(&self.control.verb(words).unwrap(), told);
    }

    fn apply(&self, owner: &str, name: &str, text: &str) -> String {
        self.control.apply(owner, name, text).unwrap()
    }

    fn run_dir(&self) -> PathBuf {
        self.control.run_dir(HOST).unwrap()
    }

    fn ask(&self, nic: &str, request: &Request) -> Option<Reply> {
        let socket = control_in(&self.run_dir(), &nic.parse().unwrap());
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
    assert!(!plane.control.verb(&[]).unwrap().status.success(), "no verb is no command");
    let again = plane.control.enrol(&plane.control.word(HOST), &plane.path("second")).unwrap_err();
    assert!(again.to_string().contains("was used"), "{again}");
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
    let output = plane.control.verb(&words).unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success() && said.contains("NOT ENFORCED  web-1 on host-a"), "{said}");
    assert!(plane.passes("web-1", 8080) && !plane.passes("web-1", 9090));
}

#[test]
fn a_nic_that_comes_while_serve_is_away_gets_what_was_kept() {
    let mut plane = Plane::new();
    plane.apply("provider", "base", PROVIDER);
    plane.apply("shop", "shop", &shop(8080, LABELS));
    plane.control.kill_serve();
    plane.nics.remove(0).kill();
    plane.control.kill_agent(HOST);
    plane.control.start_agent(HOST).unwrap();
    let mut nic = plane.start_nic("web-1");
    nic.wait_until(PATIENCE, || plane.passes("web-1", 8080)).unwrap();
    plane.control.kill_agent(HOST);
    // A kept policy that somebody altered is not put in force: the NIC stays closed.
    nic.kill();
    let kept = plane.control.state_dir(HOST).join("policy.kept");
    let mut bytes = fs::read(&kept).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&kept, bytes).unwrap();
    plane.control.start_agent(HOST).unwrap();
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
        let mut applying = plane.control.begin(&["apply", "--owner", "shop", "-f", &file]).unwrap();
        // Anywhere from before the request to after its end.
        thread::sleep(Duration::from_micros(u64::from(round * 7919 % 40_000_u32)));
        match round % 3 {
            0 => plane.control.kill_serve(),
            1 => plane.control.kill_agent(HOST),
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
            0 => plane.control.start_serve().unwrap(),
            1 => plane.control.start_agent(HOST).unwrap(),
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
