//! The laboratory from the command line: what the scripts call.
//!
//! It may know the verbs. It must never do their work.

use std::env;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use fw_tests::host::Stay;
use fw_tests::migrate::{Beside, By, Under};
use fw_tests::{bench, image, migrate, quickstart, suite, switch, takeover};

const USAGE: &str = "usage: lab quickstart [--keep]
       lab test [--fast|--long]
       lab bench [NAME…]
       lab migrate [--count N] [--conns N] [--without-state|--without-firewall] [--compare] [--by-state-migrate]
                   [--vmm qemu|cloud-hypervisor]
       lab takeover [--worker-kills N] [--keeper-kills N] [--upgrades N] [--conns N] [--without-copies] [--vmm played|qemu]
       lab image
       lab switch SOCKET…";

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["quickstart"] => quickstart::run(Stay::Ends),
        ["quickstart", "--keep"] => quickstart::run(Stay::Remains),
        ["test"] => suite::run(suite::Size::Whole),
        ["test", "--fast"] => suite::run(suite::Size::Fast),
        ["test", "--long"] => suite::run(suite::Size::Long),
        ["bench", names @ ..] => bench::run(names),
        ["migrate", words @ ..] => return move_guest(words),
        ["takeover", words @ ..] => match takeover_options(words) {
            Some(options) => takeover::run(options),
            None => return usage(),
        },
        ["image"] => make_image(),
        ["switch", sockets @ ..] => switch::run(sockets.iter().map(PathBuf::from).collect()).map(|()| true),
        _ => return usage(),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    let _ = writeln!(io::stderr(), "{USAGE}");
    ExitCode::from(2)
}

fn takeover_options(words: &[&str]) -> Option<takeover::Options> {
    let mut options = takeover::Options::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut number = || words.next()?.parse().ok();
        match *word {
            "--worker-kills" => options.worker_kills = number()?,
            "--keeper-kills" => options.keeper_kills = number()?,
            "--upgrades" => options.upgrades = number()?,
            "--conns" => options.conns = number().filter(|conns| *conns > 0)?,
            "--without-copies" => options.keeping = takeover::Keeping::Nothing,
            "--vmm" => {
                options.under = match *words.next()? {
                    "qemu" => takeover::Under::Qemu,
                    "played" => takeover::Under::Played,
                    _ => return None,
                }
            }
            _ => return None,
        }
    }
    Some(options)
}

/// Exit code 4: this machine cannot run it.
fn move_guest(words: &[&str]) -> ExitCode {
    let Some(options) = options(words) else { return usage() };
    match migrate::run(options) {
        Ok(migrate::Outcome::Ran { line, good }) => {
            let _ = writeln!(io::stdout(), "{line}");
            if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Ok(migrate::Outcome::NotRun(why)) => {
            let _ = writeln!(io::stderr(), "not run: {why}");
            ExitCode::from(4)
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn options(words: &[&str]) -> Option<migrate::Options> {
    let mut options = migrate::Options::default();
    if words.contains(&"cloud-hypervisor") {
        // Its second move of a guest fails upstream.
        options.count = 1;
    }
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "--count" => options.count = words.next()?.parse().ok().filter(|count| *count > 0)?,
            "--conns" => options.conns = words.next()?.parse().ok().filter(|conns| *conns > 0)?,
            "--without-state" => options.behind = migrate::Behind::Forgetful,
            "--without-firewall" => options.behind = migrate::Behind::Nothing,
            "--by-state-migrate" => options.by = By::StateMigrate,
            "--compare" => options.beside = Beside::Bare,
            "--vmm" => {
                options.under = match *words.next()? {
                    "qemu" => Under::Qemu,
                    "cloud-hypervisor" => Under::CloudHypervisor,
                    _ => return None,
                }
            }
            _ => return None,
        }
    }
    Some(options)
}

fn make_image() -> Result<bool> {
    let image = image::Image::ensure()?;
    writeln!(io::stdout(), "{}\n{}", image.vmlinuz.display(), image.initramfs.display())?;
    Ok(true)
}
