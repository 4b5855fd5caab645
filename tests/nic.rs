//! A NIC's place on its host: made, mended, used, listed and removed, in namespaces of their own.
//!
//! The real program makes real taps on a real bridge, and is killed in the middle of it.
#![expect(clippy::indexing_slicing, reason = "indexing JSON answers null, and panics on nothing")]

use std::env;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use fw_tests::host::{self, Stay, ip};
use fw_tests::process::Process;
use fw_tests::program;
use fw_tests::report::Report;
use serde_json::Value;
use tempfile::TempDir;

type Outcome = Result<Option<String>>;
type Test = (&'static str, fn() -> Outcome);

const TESTS: &[Test] = &[
    ("add_makes_and_del_removes_all_and_nothing_else", add_and_del),
    ("a_second_add_mends_or_names_the_difference", a_second_add),
    ("what_add_did_not_make_is_left_alone", foreign_devices_stay),
    ("killed_anywhere_the_next_verb_finishes", killed_anywhere),
    ("gc_removes_what_belongs_to_nothing_and_says_so", gc_says_what),
    ("the_program_uses_what_add_made_and_is_ready_when_rules_are_in_force", ready_in_order),
    ("without_rules_it_is_ready_when_some_are_installed", ready_once_installed),
    ("systemd_takes_the_unit", systemd_takes_the_unit),
];

const RULES: &str =
    "generation: 7\nnic: {id: web-1, mac: \"52:54:00:00:00:01\"}\ndefaults: {out: drop, in: drop}\n";

fn main() -> ExitCode {
    let Some(mut report) = Report::asked(TESTS.iter().map(|(name, _)| *name)) else {
        return ExitCode::SUCCESS;
    };
    let entered = if env::var_os(host::INSIDE).is_none() {
        program::build().and_then(|()| host::enter(Stay::Ends))
    } else {
        ip("link add br0 type bridge").and_then(|_| ip("link add br1 type bridge")).map(drop)
    };
    match entered {
        Err(why) => TESTS.iter().for_each(|(name, _)| report.ignore(name, &format!("{why:#}"))),
        Ok(()) => TESTS.iter().for_each(|(name, test)| report.run(name, test)),
    }
    report.close()
}

/// A host's folder of NICs; what is left of it goes with it.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        // The NIC's own user passes through.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        Ok(Self { folder })
    }

    fn run_dir(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    fn command(&self, words: &[&str]) -> Result<Command> {
        let mut command = Command::new(program::ours("vhost-fw")?);
        command.arg("nic").arg("--run-dir").arg(self.run_dir()).args(words).stdin(Stdio::null());
        Ok(command)
    }

    /// What a verb says; an error with its exit code if it is refused.
    fn nic(&self, words: &[&str]) -> Result<String> {
        let output = self.command(words)?.output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            bail!("{:?}: {}", output.status.code(), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(said)
    }

    fn refused(&self, words: &[&str]) -> Result<String> {
        match self.nic(words) {
            Ok(said) => bail!("nic {} was not refused: {said}", words.join(" ")),
            Err(error) => Ok(error.to_string()),
        }
    }

    fn list(&self) -> Result<Vec<Value>> {
        Ok(serde_json::from_str(&self.nic(&["list", "-o", "json"])?)?)
    }

    /// All that a host has of NICs: files and taps.
    fn traces(&self) -> Result<Vec<String>> {
        let mut found = taps()?;
        for folder in [self.run_dir(), self.run_dir().join(".nics")] {
            let Ok(entries) = fs::read_dir(folder) else { continue };
            for entry in entries {
                let name = entry?.file_name().to_string_lossy().into_owned();
                if !name.starts_with('.') {
                    found.push(name);
                }
            }
        }
        Ok(found)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Tests share the namespace: a failed one must not fail the next.
        for name in taps().unwrap_or_default() {
            let _ = ip(&format!("link del {name}"));
        }
    }
}

fn taps() -> Result<Vec<String>> {
    let all: Vec<Value> = serde_json::from_str(&ip("-j link show")?)?;
    let names = all.iter().filter_map(|link| link["ifname"].as_str());
    Ok(names.filter(|name| !["lo", "br0", "br1"].contains(name)).map(str::to_owned).collect())
}

fn link(name: &str) -> Result<Value> {
    let all: Vec<Value> = serde_json::from_str(&ip(&format!("-j -d link show {name}"))?)?;
    all.into_iter().next().with_context(|| format!("no {name}"))
}

fn add_and_del() -> Outcome {
    let place = Place::new()?;
    place.nic(&["add", "other"])?;
    let before = place.traces()?;
    place.nic(&["add", "web-1", "--bridge", "br0"])?;
    let tap = link("pc-web-1")?;
    ensure!(tap["master"] == "br0", "not on its bridge: {tap}");
    ensure!(tap["flags"].as_array().is_some_and(|flags| flags.contains(&"UP".into())), "not up: {tap}");
    ensure!(tap["linkinfo"]["info_data"]["persist"] == true, "not persistent: {tap}");
    let [web] = &place.list()?.into_iter().filter(|nic| nic["id"] == "web-1").collect::<Vec<_>>()[..] else {
        bail!("not listed")
    };
    let found = fs::metadata(place.run_dir().join("web-1"))?;
    ensure!(found.mode() & 0o7777 == 0o750, "mode {:o}", found.mode());
    ensure!(web["user"] == found.uid(), "{web} and the folder is {}'s", found.uid());
    // The kernel tells no owner of a tap that is root's.
    let owner = tap["linkinfo"]["info_data"]["user"].to_string();
    ensure!(
        found.uid() == 0 || owner.trim_matches('"') == found.uid().to_string(),
        "the tap is {owner}'s, the folder {}'s",
        found.uid()
    );
    ensure!(web["running"] == false && web["tap_present"] == true && web["bridge"] == "br0", "{web}");
    place.nic(&["del", "web-1"])?;
    ensure!(place.traces()? == before, "{:?} is not {before:?}", place.traces()?);
    ensure!(place.nic(&["del", "web-1"])?.contains("is not there"));
    Ok(None)
}

fn a_second_add() -> Outcome {
    let place = Place::new()?;
    place.nic(&["add", "web-1", "--bridge", "br0"])?;
    let index = link("pc-web-1")?["ifindex"].clone();
    ensure!(place.nic(&["add", "web-1", "--bridge", "br0"])?.contains("there already"));
    ip("link set pc-web-1 nomaster")?;
    fs::set_permissions(place.run_dir().join("web-1"), fs::Permissions::from_mode(0o777))?;
    ensure!(place.nic(&["add", "web-1", "--bridge", "br0"])?.contains("added"), "nothing was mended");
    let tap = link("pc-web-1")?;
    ensure!(tap["master"] == "br0" && tap["ifindex"] == index, "made anew or not mended: {tap}");
    ensure!(fs::metadata(place.run_dir().join("web-1"))?.mode() & 0o7777 == 0o750);
    let said = place.refused(&["add", "web-1", "--bridge", "br1"])?;
    ensure!(said.contains("bridge br0 (asked for: br1)") && !said.contains("tap pc"), "{said}");
    ensure!(link("pc-web-1")?["master"] == "br0");
    Ok(None)
}

fn foreign_devices_stay() -> Outcome {
    let place = Place::new()?;
    ip("tuntap add dev pc-web-1 mode tap")?;
    let said = place.refused(&["add", "web-1"])?;
    ensure!(said.contains("not made for this NIC"), "{said}");
    ensure!(place.traces()? == ["pc-web-1"], "a refused add left {:?}", place.traces()?);
    ip("link del pc-web-1")?;
    let said = place.refused(&["add", "web-1", "--bridge", "br9"])?;
    ensure!(said.contains("no bridge `br9`") && place.traces()?.is_empty(), "{said} {:?}", place.traces()?);
    // A successor under the same name is not ours to remove either.
    place.nic(&["add", "web-1"])?;
    ip("link del pc-web-1")?;
    ip("tuntap add dev pc-web-1 mode tap")?;
    place.nic(&["del", "web-1"])?;
    ensure!(place.traces()? == ["pc-web-1"], "{:?}", place.traces()?);
    Ok(None)
}

/// Kills `add` and `del` after ever longer delays, so that the blow falls on every step.
fn killed_anywhere() -> Outcome {
    let place = Place::new()?;
    let mut cut_short = 0;
    for round in 0..60_u64 {
        for (verb, after) in [("add", "add"), ("add", "del"), ("del", "del"), ("del", "add")] {
            let bridge: &[&str] = &["--bridge", "br0"];
            let words = |verb| [&[verb, "web-1"][..], if verb == "add" { bridge } else { &[] }].concat();
            if verb == "del" {
                place.nic(&words("add"))?;
            }
            let mut child =
                place.command(&words(verb))?.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
            thread::sleep(Duration::from_micros(round * 150));
            child.kill()?;
            cut_short += u32::from(!child.wait()?.success());
            let said = place.nic(&words(after)).with_context(|| format!("{after} after a killed {verb}"))?;
            if after == "add" {
                ensure!(link("pc-web-1")?["master"] == "br0", "half a NIC: {said}");
                ensure!(place.nic(&words("add"))?.contains("there already"), "not finished");
                place.nic(&words("del"))?;
            }
            ensure!(place.traces()?.is_empty(), "{after} after a killed {verb} left {:?}", place.traces()?);
        }
    }
    ensure!(cut_short > 60, "only {cut_short} of 240 were killed in time");
    Ok(None)
}

fn gc_says_what() -> Outcome {
    let place = Place::new()?;
    for nic in ["whole", "tapless", "orphan"] {
        place.nic(&["add", nic])?;
    }
    ip("link del pc-tapless")?;
    fs::remove_file(place.run_dir().join(".nics/orphan.json"))?;
    drop(UnixListener::bind(place.run_dir().join("orphan/vhost.sock"))?);
    fs::create_dir_all(place.run_dir().join("precious"))?;
    fs::write(place.run_dir().join("precious/notes"), "mine")?;
    fs::create_dir_all(place.run_dir().join("lives"))?;
    let lives = UnixListener::bind(place.run_dir().join("lives/control.sock"))?;
    let before = place.traces()?;
    let would = place.nic(&["gc", "--dry-run"])?;
    ensure!(place.traces()? == before, "a dry run changed something");
    let did = place.nic(&["gc"])?;
    ensure!(would.replace("would remove", "removed") == did, "{would}{did}");
    for (word, wanted) in [("tapless", true), ("tap pc-orphan", true), ("orphan:", true), ("precious", true)]
    {
        ensure!(did.contains(word) == wanted, "{did}");
    }
    ensure!(!did.contains("whole") && !did.contains("lives"), "{did}");
    let mut left = place.traces()?;
    left.sort();
    ensure!(left == ["lives", "pc-whole", "precious", "whole", "whole.json"], "{left:?}");
    ensure!(place.nic(&["gc"])?.lines().count() == 1, "a second gc still finds something");
    drop(lives);
    Ok(None)
}

/// Starts the NIC with what `add` made; `NOTIFY_SOCKET` is the datagram socket that is returned.
fn start(place: &Place, words: &[&str]) -> Result<(Process, UnixDatagram)> {
    let place_of_manager = place.folder.path().join("manager");
    let manager = UnixDatagram::bind(&place_of_manager)?;
    manager.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut command = Command::new(program::ours("vhost-fw")?);
    command.args(["--nic", "web-1", "--run-dir"]).arg(place.run_dir()).args(words);
    command.env("NOTIFY_SOCKET", &place_of_manager);
    if host::is_only_root() {
        command.arg("--allow-missing-sandbox");
    }
    Ok((Process::start("vhost-fw", &mut command, place.folder.path())?, manager))
}

fn told(manager: &UnixDatagram) -> Result<String> {
    let mut bytes = [0; 256];
    let length = manager.recv(&mut bytes).context("the service manager is told nothing")?;
    Ok(String::from_utf8_lossy(bytes.get(..length).unwrap_or_default()).into_owned())
}

fn ctl(place: &Place, words: &[&str]) -> Result<String> {
    let mut command = Command::new(program::ours("vhost-fw")?);
    command.args(["ctl", "-o", "json", "--control"]).arg(place.run_dir().join("web-1/control.sock"));
    let output = command.args(words).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

fn ready_in_order() -> Outcome {
    let place = Place::new()?;
    let rules = place.folder.path().join("rules.yaml");
    fs::write(&rules, RULES)?;
    place.nic(&["add", "web-1", "--bridge", "br0"])?;
    let (mut process, manager) = start(&place, &["--rules", &rules.display().to_string()])?;
    let said = told(&manager).with_context(|| process.log_tail())?;
    ensure!(said.starts_with("READY=1\n") && said.contains("generation 7"), "{said}");
    // Whoever waited for this may connect at once, and finds the rules in force.
    UnixStream::connect(place.run_dir().join("web-1/vhost.sock"))?;
    let stats: Value = serde_json::from_str(&ctl(&place, &["stats"])?)?;
    ensure!(stats["enforced"] == 7, "{stats}");
    let [web] = &place.list()?[..] else { bail!("not listed") };
    ensure!(web["running"] == true && web["generation"] == 7, "{web}");
    ensure!(taps()? == ["pc-web-1"], "it made a tap of its own: {:?}", taps()?);
    let said = place.refused(&["del", "web-1"])?;
    ensure!(said.contains("running"), "{said}");
    ensure!(place.nic(&["add", "web-1", "--bridge", "br0"])?.contains("there already"));
    ensure!(place.nic(&["gc"])?.is_empty(), "gc touched a running NIC");
    process.kill();
    // A crash leaves its sockets; they keep nobody from removing or starting again.
    place.nic(&["del", "web-1"])?;
    ensure!(place.traces()?.is_empty(), "{:?}", place.traces()?);
    Ok(None)
}

fn ready_once_installed() -> Outcome {
    let place = Place::new()?;
    let rules = place.folder.path().join("rules.yaml");
    fs::write(&rules, RULES)?;
    place.nic(&["add", "web-1"])?;
    let (mut process, manager) = start(&place, &[])?;
    process.wait_until(Duration::from_secs(20), || ctl(&place, &["stats"]).is_ok())?;
    manager.set_nonblocking(true)?;
    ensure!(told(&manager).is_err(), "ready without rules");
    manager.set_nonblocking(false)?;
    ctl(&place, &["install", &rules.display().to_string()])?;
    let said = told(&manager)?;
    ensure!(said.starts_with("READY=1\n"), "{said}");
    Ok(None)
}

fn systemd_takes_the_unit() -> Outcome {
    let Some(analyze) = program::on_path("systemd-analyze") else {
        return Ok(Some("there is no systemd-analyze on this machine".to_owned()));
    };
    let folder = tempfile::tempdir()?;
    let unit = program::repository().join("scripts/systemd/portcullis-nic@.service");
    let text = fs::read_to_string(unit)?;
    // It is verified with the program where it is.
    let here = program::ours("vhost-fw")?.canonicalize()?;
    let verify = |text: &str| -> Result<(bool, String)> {
        let copy: &Path = &folder.path().join("portcullis-nic@.service");
        fs::write(copy, text)?;
        let output = Command::new(&analyze).args(["verify", "--man=no"]).arg(copy).output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        Ok((output.status.success() && !said.contains("portcullis-nic"), said))
    };
    let text = text.replace("/usr/bin/vhost-fw", &here.display().to_string());
    let (taken, said) = verify(&text)?;
    ensure!(taken, "{said}");
    let (taken, _) = verify(&text.replace("Type=notify", "Type=notfy"))?;
    ensure!(!taken, "systemd-analyze takes a wrong unit too");
    Ok(None)
}
