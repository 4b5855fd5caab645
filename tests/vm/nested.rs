//! Cloud Hypervisor on a machine whose KVM cannot boot a guest: this very test program runs in a machine around it.
//!
//! It may know how one report becomes part of another. It must never know the steps.

use std::env;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use fw_tests::image::Image;
use fw_tests::outer::Errand;
use fw_tests::report::Report;

pub(crate) use fw_tests::outer::is_inside;

/// Runs this test program in the outer machine and takes over what it reports.
pub(crate) fn run(report: &mut Report, image: &Image, vmm: &Path) -> Result<()> {
    let folder = tempfile::Builder::new().prefix("portcullis-").tempdir()?;
    let errand = Errand { program: env::current_exe()?, words: &[], vmm, patience: Duration::from_secs(900) };
    let ran = errand.run(image, folder.path(), |line| {
        if line.starts_with("test ") && !line.starts_with("test result") {
            report.adopt("cloud_hypervisor", line);
        } else if line.starts_with("rung of") || line.starts_with("    ") {
            report.say(line);
        }
    });
    // A failed step has been reported already; what counts here is that there was a report.
    let ran = ran.and_then(|said| {
        ensure!(said.contains("test result: "), "it made no report");
        Ok(())
    });
    if ran.is_err() {
        report.say(&format!("logs are kept in {}", folder.keep().display()));
    }
    ran
}
