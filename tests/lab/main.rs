//! The laboratory from the command line: what the scripts call.
//!
//! It may know the verbs. It must never do their work.

use std::env;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use fw_tests::host::Stay;
use fw_tests::{bench, image, quickstart, suite, switch};

const USAGE: &str = "usage: lab quickstart [--keep]
       lab test [--fast|--long]
       lab bench [NAME…]
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
        ["image"] => make_image(),
        ["switch", sockets @ ..] => switch::run(sockets.iter().map(PathBuf::from).collect()).map(|()| true),
        _ => {
            let _ = writeln!(io::stderr(), "{USAGE}");
            return ExitCode::from(2);
        }
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

fn make_image() -> Result<bool> {
    let image = image::Image::ensure()?;
    writeln!(io::stdout(), "{}\n{}", image.vmlinuz.display(), image.initramfs.display())?;
    Ok(true)
}
