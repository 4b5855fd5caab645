//! The agent's end of the link: follows serve, takes what fits, and comes back whenever it is lost.
//!
//! Knows the link and the vault. Never knows how a NIC is reached.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify, broadcast, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use super::Settings;
use super::coverage;
use super::kept::{Kept, KeptError, Vault};
use super::nics::Nics;
use super::questions;
use crate::authority::{self, AuthorityError, write_secret};
use crate::link::MESSAGE_MAX;
use crate::link::wire::link_client::LinkClient;
use crate::link::wire::{Coverage, Hello, Order, RenewRequest, Report, report};

/// Longer than three signs of life apart: serve is gone.
const SILENCE_MAX: Duration = Duration::from_secs(7);
/// The first pause before serve is sought again, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// A certificate older than this is renewed: a third of its life.
const RENEW_AFTER: Duration = Duration::from_secs(10 * 24 * 3600);
/// How often what is not behind the firewall is counted.
const COVERAGE: Duration = Duration::from_secs(30);
/// A connection older than this is made anew, so that its certificate is looked at.
const CONNECTION_MAX: Duration = Duration::from_secs(12 * 3600);

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("{0}")]
    Kept(#[from] KeptError),
    #[error("{0}")]
    Certificate(#[from] AuthorityError),
    #[error("{}", chain_of(.0))]
    Transport(#[from] tonic::transport::Error),
    #[error("{}", .0.message())]
    Refused(#[from] tonic::Status),
    #[error("serve says nothing any more")]
    Silent,
    #[error("serve ended the connection")]
    Closed,
    #[error("too much happened at once: everything is said again")]
    Lagged,
    #[error("the connection is old: a new one is made")]
    Old,
}

fn chain_of(error: &dyn std::error::Error) -> String {
    let below = error.source().map(chain_of);
    below.map_or_else(|| error.to_string(), |below| format!("{error}: {below}"))
}

pub(super) struct Follower {
    pub(super) settings: Settings,
    pub(super) vault: Vault,
    pub(super) kept: watch::Sender<Arc<Kept>>,
    pub(super) nics: Arc<Nics>,
    pub(super) reports: broadcast::Sender<Report>,
    pub(super) wake: Arc<Notify>,
}

impl Follower {
    /// Follows for ever.
    pub(super) async fn run(self) {
        let mut pause = PAUSES.0;
        loop {
            let mut heard = false;
            let Err(ended) = self.follow(&mut heard).await;
            pause = if heard { PAUSES.0 } else { (pause * 2).min(PAUSES.1) };
            log::warn!("serve at {}: {ended}; again in {} ms", self.settings.serve, pause.as_millis());
            tokio::time::sleep(pause).await;
        }
    }

    async fn follow(&self, heard: &mut bool) -> Result<std::convert::Infallible, Ended> {
        let mut client = LinkClient::new(self.channel().await?).max_decoding_message_size(MESSAGE_MAX);
        if self.renew_if_old(&mut client).await? {
            client = LinkClient::new(self.channel().await?).max_decoding_message_size(MESSAGE_MAX);
        }
        let mut news = self.reports.subscribe();
        let (say, said) = mpsc::channel(64);
        let mut all = vec![report::What::Hello(self.hello())];
        all.extend(self.nics.states().into_iter().map(report::What::Nic));
        let first = all.len();
        let say_all = async {
            for what in all {
                let _ = say.send(Report { what: Some(what) }).await;
            }
        };
        log::debug!("{first} reports to begin with");
        let (followed, ()) = tokio::join!(client.follow(ReceiverStream::new(said)), say_all);
        let mut orders = followed?.into_inner();
        let mut coverage = tokio::time::interval(COVERAGE);
        let old = tokio::time::sleep(CONNECTION_MAX);
        tokio::pin!(old);
        loop {
            tokio::select! {
                order = tokio::time::timeout(SILENCE_MAX, orders.message()) => {
                    let order = order.map_err(|_| Ended::Silent)??.ok_or(Ended::Closed)?;
                    *heard = true;
                    self.take(order).await?;
                }
                report = news.recv() => match report {
                    Ok(report) => say.send(report).await.map_err(|_| Ended::Closed)?,
                    Err(_) => return Err(Ended::Lagged),
                },
                _ = coverage.tick() => {
                    let unprotected = coverage::unprotected();
                    let what = Some(report::What::Coverage(Coverage { unprotected }));
                    say.send(Report { what }).await.map_err(|_| Ended::Closed)?;
                }
                () = &mut old => return Err(Ended::Old),
            }
        }
    }

    fn hello(&self) -> Hello {
        let kept = self.kept.borrow();
        let there = self.nics.states().into_iter().map(|state| state.nic);
        let mut nics: Vec<String> = kept.nics.keys().map(ToString::to_string).chain(there).collect();
        nics.sort_unstable();
        nics.dedup();
        Hello { version: env!("CARGO_PKG_VERSION").to_owned(), kept: kept.version, nics }
    }

    /// Takes an order: on the disk first, then to the NICs.
    async fn take(&self, mut order: Order) -> Result<(), Ended> {
        for question in std::mem::take(&mut order.questions) {
            questions::answer(question, self.settings.run_dir.clone(), self.reports.clone());
        }
        if order.beat {
            return Ok(());
        }
        let next = Arc::new(self.kept.borrow().after(&order)?);
        let (vault, saved) = (self.vault.clone(), Arc::clone(&next));
        let done = tokio::task::spawn_blocking(move || vault.save(&saved)).await;
        done.map_err(|_| Ended::Closed)??;
        log::info!("version {} of the policy is kept", next.version);
        self.kept.send_replace(next);
        self.wake.notify_one();
        Ok(())
    }

    async fn channel(&self) -> Result<Channel, Ended> {
        let file = |name: &str| authority::read(&self.settings.state_dir.join(name));
        let own = file("agent.pem")?;
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(file("ca.pem")?))
            .identity(Identity::from_pem(&own, &own))
            .domain_name(self.settings.name.clone());
        let endpoint = Endpoint::from_shared(self.settings.serve.clone())?.tls_config(tls)?;
        Ok(endpoint.connect_timeout(Duration::from_secs(5)).connect().await?)
    }

    /// Has the certificate renewed in time; whether it was.
    async fn renew_if_old(&self, client: &mut LinkClient<Channel>) -> Result<bool, Ended> {
        let folder = &self.settings.state_dir;
        if !is_old(&folder.join("agent.pem")) {
            return Ok(false);
        }
        let (key, request) = authority::request()?;
        let chain = client.renew(RenewRequest { request }).await?.into_inner().chain;
        // One file: a key beside another key's certificate is no use.
        write_secret(&folder.join("agent.pem"), &(key + &chain))?;
        log::info!("the certificate of this agent was renewed");
        Ok(true)
    }
}

fn is_old(path: &Path) -> bool {
    let changed = fs::metadata(path).and_then(|file| file.modified());
    let age = changed.ok().and_then(|changed| SystemTime::now().duration_since(changed).ok());
    age.is_some_and(|age| age > RENEW_AFTER)
}
