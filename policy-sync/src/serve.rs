//! Serve: opens the store and the authority, and listens for people and for agents until it is told to stop.
//!
//! Knows folders, sockets and certificates. Never knows what a policy says.

use std::fs::{self, DirBuilder};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum_server::tls_rustls::RustlsConfig;
use tokio::sync::watch;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};

use crate::api;
use crate::authority::{self, Authority, AuthorityError, LEAF_DAYS, write_secret};
use crate::link;
use crate::plane::{Plane, PlaneError};
use crate::roles::{Grant, Role};
use crate::store::StoreError;
use crate::store::sqlite::Sqlite;

/// How often serve's own certificate is made anew.
const RENEW: Duration = Duration::from_secs(24 * 3600);

/// What serve is started with.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Where people ask.
    pub(crate) listen: SocketAddr,
    /// Where agents ask.
    pub(crate) listen_agents: SocketAddr,
    /// The folder of database, authority and first token.
    pub(crate) state_dir: PathBuf,
    /// Names and addresses in the certificate.
    pub(crate) names: Vec<String>,
    /// A certificate chain and its key, PEM files, in place of ours, for people.
    pub(crate) certificate: Option<(PathBuf, PathBuf)>,
}

/// Why serve does not serve.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    /// A folder or a socket.
    #[error("{0}: {1}")]
    Io(String, io::Error),
    /// The store.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// The policy that was kept.
    #[error("{0}")]
    Plane(#[from] PlaneError),
    /// Certificates.
    #[error("{0}")]
    Authority(#[from] AuthorityError),
    /// The link.
    #[error("the agents' socket: {0}")]
    Link(#[from] tonic::transport::Error),
}

/// Serve, with its sockets open.
pub(crate) struct Serve {
    plane: Arc<Plane>,
    people: TcpListener,
    agents: TcpListener,
    settings: Settings,
}

impl Serve {
    /// Opens everything; what does not open is told, and nothing is served.
    pub(crate) fn open(settings: Settings) -> Result<Self, ServeError> {
        let folder = &settings.state_dir;
        let wrong = |what: &Path| {
            let what = what.display().to_string();
            move |error| ServeError::Io(what, error)
        };
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(wrong(folder))?;
        let store = Sqlite::open(&folder.join("policy.db"))?;
        let authority = Authority::open(folder)?;
        if authority.is_new {
            log::info!("made an authority of our own: {}", folder.join("ca.pem").display());
            log::info!("for a certificate of yours start with --certificate FILE --key FILE");
        }
        let plane = Arc::new(Plane::new(Box::new(store), authority)?);
        first_token(&plane, folder)?;
        let listen = |address: SocketAddr| {
            let listener = TcpListener::bind(address).and_then(|listener| {
                listener.set_nonblocking(true)?;
                Ok(listener)
            });
            listener.map_err(|error| ServeError::Io(address.to_string(), error))
        };
        let (people, agents) = (listen(settings.listen)?, listen(settings.listen_agents)?);
        Ok(Self { plane, people, agents, settings })
    }

    /// Where it listens: for people, and for agents.
    pub(crate) fn addresses(&self) -> io::Result<(SocketAddr, SocketAddr)> {
        Ok((self.people.local_addr()?, self.agents.local_addr()?))
    }

    /// Serves until it is told to stop.
    pub(crate) async fn run(self, mut stop: watch::Receiver<bool>) -> Result<(), ServeError> {
        let Self { plane, people, agents, settings } = self;
        let own = plane.authority.for_serve(&settings.names)?;
        let (chain, key) = match &settings.certificate {
            Some((chain, key)) => (authority::read(chain)?, authority::read(key)?),
            None => own.clone(),
        };
        let https = RustlsConfig::from_config(Arc::new(authority::https(&chain, &key)?));
        let door = axum_server::Handle::new();
        let routes = api::routes(Arc::clone(&plane)).into_make_service();
        let people = axum_server::from_tcp_rustls(people, https.clone())
            .map_err(|error| ServeError::Io("the people's socket".to_owned(), error))?
            .handle(door.clone())
            .serve(routes);
        tokio::spawn(renew(Arc::clone(&plane), settings, https));
        let agents = tokio::net::TcpListener::from_std(agents)
            .map_err(|error| ServeError::Io("the agents' socket".to_owned(), error))?;
        let tls = ServerTlsConfig::new()
            .identity(Identity::from_pem(own.0, own.1))
            .client_ca_root(Certificate::from_pem(&plane.authority.pem));
        let link = Server::builder()
            .tls_config(tls)?
            .add_service(link::server::Server { plane }.service())
            .serve_with_incoming(TcpIncoming::from(agents));
        tokio::select! {
            ended = people => ended.map_err(|error| ServeError::Io("the people's socket".to_owned(), error)),
            ended = link => Ok(ended?),
            _ = stop.wait_for(|stop| *stop) => {
                door.graceful_shutdown(Some(Duration::from_secs(1)));
                Ok(())
            }
        }
    }
}

/// Gives people a fresh certificate in time, and the operator's own whenever its file changed.
async fn renew(plane: Arc<Plane>, settings: Settings, https: RustlsConfig) {
    debug_assert!(RENEW.as_secs() < LEAF_DAYS.unsigned_abs() * 24 * 3600);
    loop {
        tokio::time::sleep(RENEW).await;
        let pair = match &settings.certificate {
            Some((chain, key)) => authority::read(chain).and_then(|chain| Ok((chain, authority::read(key)?))),
            None => plane.authority.for_serve(&settings.names),
        };
        match pair.and_then(|(chain, key)| authority::https(&chain, &key)) {
            Ok(config) => https.reload_from_config(Arc::new(config)),
            Err(error) => log::error!("the certificate in use stays: {error}"),
        }
    }
}

/// The first start makes a token with which everything else can be made.
fn first_token(plane: &Plane, folder: &Path) -> Result<(), ServeError> {
    let path = folder.join("admin.token");
    let marker = folder.join("admin.made");
    if marker.exists() {
        return Ok(());
    }
    let grant = Grant { name: "first-admin".to_owned(), role: Role::Admin, tenant: None, expires_ms: None };
    // A start that was killed here before may have kept one whose secret nobody knows.
    plane.store().remove_token(&grant.name)?;
    let secret = plane.add_token(&grant, "policy-sync")?;
    write_secret(&path, &secret)?;
    fs::write(&marker, "").map_err(|error| ServeError::Io(marker.display().to_string(), error))?;
    log::info!("the first admin's token is in {}: make others with it, then remove it", path.display());
    Ok(())
}
