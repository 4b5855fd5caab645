//! `serve`, `agent` and `enrol`: the daemons, and an agent's first step.
//!
//! Knows flags and signals. Never knows what a daemon does.

use std::fs;
use std::io::{self, Write};
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::asking::{VerbError, run};
use crate::agent;
use crate::client::Client;
use crate::config::remote::{AgentArgs, EnrolArgs, ServeArgs};
use crate::serve::{self, Serve};

/// Runs serve until SIGTERM or SIGINT.
///
/// # Errors
/// Something does not open, or a socket broke.
pub fn serve(args: &ServeArgs) -> Result<ExitCode, VerbError> {
    let settings = serve::Settings {
        listen: args.listen,
        listen_agents: args.listen_agents,
        state_dir: args.state_dir.clone(),
        names: args.names.clone(),
        certificate: args.certificate.clone().zip(args.key.clone()),
    };
    let told = |error: serve::ServeError| VerbError(error.to_string());
    let serve = Serve::open(settings).map_err(told)?;
    let (people, agents) = serve.addresses()?;
    log::info!("people at https://{people}, agents at https://{agents}");
    daemon()?.block_on(async { serve.run(interrupted()?).await.map_err(told) })?;
    Ok(ExitCode::SUCCESS)
}

/// Runs the agent until SIGTERM or SIGINT.
///
/// # Errors
/// Its folder cannot be read.
pub fn agent(args: &AgentArgs) -> Result<ExitCode, VerbError> {
    let name = args.serve.rsplit_once(':').map_or(args.serve.as_str(), |(host, _)| host);
    let settings = agent::Settings {
        serve: format!("https://{}", args.serve),
        name: name.trim_matches(['[', ']']).to_owned(),
        state_dir: args.state_dir.clone(),
        run_dir: args.run_dir.clone(),
    };
    if !settings.state_dir.join("agent.pem").exists() {
        let folder = settings.state_dir.display();
        return Err(VerbError(format!("{folder}/agent.pem: there is none; `policy-sync enrol` gets one")));
    }
    let told = |error: agent::kept::KeptError| VerbError(error.to_string());
    daemon()?.block_on(async { agent::run(settings, interrupted()?).await.map_err(told) })?;
    Ok(ExitCode::SUCCESS)
}

/// Gets an agent its certificate.
///
/// # Errors
/// The word is not good, or serve is not there.
pub fn enrol(args: &EnrolArgs, out: &mut impl Write) -> Result<ExitCode, VerbError> {
    let path = &args.word_file;
    let word = fs::read_to_string(path).map_err(|error| VerbError(format!("{}: {error}", path.display())))?;
    let client = Client { serve: args.serve.clone(), authority: args.ca.clone(), token: None };
    let host = run(agent::enrolment::enrol(&client, word.trim(), &args.state_dir))??;
    writeln!(out, "{host} is enrolled: start `policy-sync agent`")?;
    Ok(ExitCode::SUCCESS)
}

fn daemon() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

/// Turns true when the process is told to stop.
fn interrupted() -> Result<watch::Receiver<bool>, VerbError> {
    let (tell, told) = watch::channel(false);
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::spawn(async move {
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
        let _ = tell.send(true);
    });
    Ok(told)
}
