//! The way between two hosts: TLS 1.3, each end with a certificate that the other's authority has signed.
//!
//! Knows certificates and sockets. Never knows what is said.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use crate::config::CredentialArgs;

/// How long the other host may take to say something when it should.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(10);
/// A silent host is asked whether it is there after this, and given up after about a minute.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// Why there is no way.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// A file of certificates or keys is not one.
    #[error("{0}: {1}")]
    File(PathBuf, String),
    /// Others may read the private key.
    #[error("{0}: others than its owner and group may read it; chmod o= it")]
    Exposed(PathBuf),
    /// The certificate and key are of no use.
    #[error("--ca, --cert, --key: {0}")]
    Credentials(String),
    /// The other host's address is none.
    #[error("{0}: expected HOST:PORT")]
    Address(String),
    /// The other host is not reached, or not believed.
    #[error("{0}: {1}")]
    Io(String, #[source] io::Error),
}

/// Who we are to another host, and whom we believe.
#[derive(Debug)]
pub struct Credentials {
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Credentials {
    /// Reads them.
    ///
    /// # Errors
    /// A file is missing, holds something else, or everybody may read the private key.
    pub fn load(args: &CredentialArgs) -> Result<Self, ChannelError> {
        let mut roots = RootCertStore::empty();
        for authority in certificates(&args.ca)? {
            roots.add(authority).map_err(|error| file(&args.ca, &error))?;
        }
        require_private(&args.key)?;
        let key = PrivateKeyDer::from_pem_file(&args.key).map_err(|error| file(&args.key, &error))?;
        Ok(Self { roots: Arc::new(roots), chain: certificates(&args.cert)?, key })
    }

    fn client(&self) -> Result<Arc<ClientConfig>, ChannelError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| credentials(&error))?
            .with_root_certificates(Arc::clone(&self.roots))
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())
            .map_err(|error| credentials(&error))?;
        Ok(Arc::new(config))
    }

    /// What a listening end needs.
    ///
    /// # Errors
    /// Certificate and key do not go together.
    pub fn server(&self) -> Result<Arc<ServerConfig>, ChannelError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&self.roots), Arc::clone(&provider))
                .build()
                .map_err(|error| credentials(&error))?;
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| credentials(&error))?
            .with_client_cert_verifier(clients)
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .map_err(|error| credentials(&error))?;
        Ok(Arc::new(config))
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ChannelError> {
    let found: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(|error| file(path, &error))?.collect();
    let found = found.map_err(|error| file(path, &error))?;
    if found.is_empty() {
        return Err(ChannelError::File(path.to_owned(), "holds no certificate (PEM)".to_owned()));
    }
    Ok(found)
}

fn require_private(path: &Path) -> Result<(), ChannelError> {
    use std::os::unix::fs::MetadataExt;
    let mode = fs::metadata(path).map_err(|error| file(path, &error))?.mode();
    if mode & 0o007 == 0 { Ok(()) } else { Err(ChannelError::Exposed(path.to_owned())) }
}

fn file(path: &Path, error: &impl ToString) -> ChannelError {
    ChannelError::File(path.to_owned(), error.to_string())
}

fn credentials(error: &impl ToString) -> ChannelError {
    ChannelError::Credentials(error.to_string())
}

/// A way to another host.
pub struct Channel {
    stream: Box<dyn Stream>,
}

trait Stream: Read + Write + Send {
    fn socket(&self) -> &TcpStream;
}

impl Stream for StreamOwned<ClientConnection, TcpStream> {
    fn socket(&self) -> &TcpStream {
        &self.sock
    }
}

impl Stream for StreamOwned<ServerConnection, TcpStream> {
    fn socket(&self) -> &TcpStream {
        &self.sock
    }
}

impl Channel {
    /// Opens a way to `to`, whose certificate must name it so.
    ///
    /// # Errors
    /// It is not reached, or either end does not believe the other.
    pub fn open(to: &str, credentials: &Credentials) -> Result<Self, ChannelError> {
        let (host, _) = to.rsplit_once(':').ok_or_else(|| ChannelError::Address(to.to_owned()))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host).map_err(|_| ChannelError::Address(to.to_owned()))?;
        let wrong = |error| ChannelError::Io(to.to_owned(), error);
        let mut last = io::Error::other("the name has no address");
        for address in to.to_socket_addrs().map_err(wrong)? {
            match TcpStream::connect_timeout(&address, CONNECT) {
                Ok(socket) => {
                    prepare(&socket).map_err(wrong)?;
                    let tls = ClientConnection::new(credentials.client()?, name)
                        .map_err(|error| wrong(io::Error::other(error)))?;
                    let mut stream = StreamOwned::new(tls, socket);
                    // Whether both believe each other is known now, and not at the first word.
                    stream.conn.complete_io(&mut stream.sock).map_err(wrong)?;
                    return Ok(Self { stream: Box::new(stream) });
                }
                Err(error) => last = error,
            }
        }
        Err(wrong(last))
    }

    /// The way from somebody who has connected.
    ///
    /// # Errors
    /// Either end does not believe the other.
    pub fn accept(socket: TcpStream, config: Arc<ServerConfig>) -> io::Result<Self> {
        prepare(&socket)?;
        let tls = ServerConnection::new(config).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(tls, socket);
        stream.conn.complete_io(&mut stream.sock)?;
        Ok(Self { stream: Box::new(stream) })
    }

    /// How long a word is waited for; for ever without.
    ///
    /// # Errors
    /// The system refuses.
    pub fn be_patient(&self, patience: Option<Duration>) -> io::Result<()> {
        self.stream.socket().set_read_timeout(patience)
    }
}

fn prepare(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_keepidle(socket, KEEPALIVE)?;
    Ok(sockopt::set_tcp_keepintvl(socket, KEEPALIVE)?)
}

impl Read for Channel {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.stream.read(into) {
            // A host that goes away without a farewell has gone all the same; snapshots carry their own length.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
            read => read,
        }
    }
}

impl Write for Channel {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.stream.write(from)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}
