//! Serve's end of the link: each agent follows on a stream of its own, known by its certificate.
//!
//! Knows streams. Never knows what a policy says.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use fw_model::NicId;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use super::wire::link_server::Link;
use super::wire::{self, Certificate, NicState, Order, RenewRequest, Report, report};
use super::{MESSAGE_MAX, Told};
use crate::clock::now_ms;
use crate::plane::Plane;
use crate::plane::questions::{Answered, Question};
use crate::plane::realized::NicRealized;
use crate::roles::Host;

/// How often an agent hears from serve, whatever happens.
const BEAT: Duration = Duration::from_secs(2);
/// Orders that wait for a slow agent.
const ORDERS_MAX: usize = 4;
/// Most NICs on one host.
const NICS_MAX: usize = 4096;

/// Serve's end.
pub(crate) struct Server {
    pub(crate) plane: Arc<Plane>,
}

impl Server {
    /// The service, with its limits.
    pub(crate) fn service(self) -> super::wire::link_server::LinkServer<Self> {
        super::wire::link_server::LinkServer::new(self)
            .max_decoding_message_size(1 << 20)
            .max_encoding_message_size(MESSAGE_MAX)
    }

    fn host<T>(&self, request: &Request<T>) -> Result<Host, Status> {
        let certificates = request.peer_certs();
        let own = certificates.as_deref().and_then(|chain| chain.first());
        let own = own.ok_or_else(|| Status::unauthenticated("come with a certificate: enrol first"))?;
        let host = self.plane.host_of(own).map_err(|error| Status::unavailable(error.to_string()))?;
        host.ok_or_else(|| Status::permission_denied("this certificate is not trusted any more: enrol again"))
    }
}

#[tonic::async_trait]
impl Link for Server {
    type FollowStream = Pin<Box<dyn Stream<Item = Result<Order, Status>> + Send>>;

    async fn follow(
        &self,
        request: Request<Streaming<Report>>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        let host = self.host(&request)?.host;
        let (orders, stream) = mpsc::channel(ORDERS_MAX);
        let plane = Arc::clone(&self.plane);
        let reports = request.into_inner();
        tokio::spawn(async move {
            Following { plane, host, attached: BTreeSet::new() }.run(reports, orders).await
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<Certificate>, Status> {
        let host = self.host(&request)?;
        let chain = self.plane.renew(host, &request.into_inner().request);
        let chain = chain.map_err(|error| Status::invalid_argument(error.to_string()))?;
        Ok(Response::new(Certificate { chain }))
    }
}

/// A question on its way.
fn spoken(question: &Question) -> Result<Order, Status> {
    let probe = serde_json::to_vec(&question.probe).map_err(|error| Status::internal(error.to_string()))?;
    let question = wire::Question { number: question.number, nic: question.nic.to_string(), probe };
    Ok(Order { beat: true, questions: vec![question], ..Order::default() })
}

fn heard(answered: wire::Answered) -> Answered {
    if answered.explanation.is_empty() {
        return Err(answered.problem);
    }
    serde_json::from_slice(&answered.explanation).map_err(|error| format!("the agent's answer: {error}"))
}

/// One agent that follows.
struct Following {
    plane: Arc<Plane>,
    host: String,
    attached: BTreeSet<NicId>,
}

impl Following {
    async fn run(mut self, mut reports: Streaming<Report>, orders: mpsc::Sender<Result<Order, Status>>) {
        let Some(Ok(Report { what: Some(report::What::Hello(hello)) })) = reports.next().await else {
            return;
        };
        // NICs that are there or were: nothing that the agent keeps may fall out of the first order.
        self.attached = hello.nics.iter().filter_map(|nic| nic.parse().ok()).take(NICS_MAX).collect();
        let connection = self.plane.realized.connect(&self.host, &hello.version);
        log::info!("agent of {} follows (connection {connection}, keeps version {})", self.host, hello.kept);
        let asked = self.plane.questions.connect(&self.host, connection);
        let ended = self.follow(&mut reports, &orders, connection, asked).await;
        if let Err(status) = ended {
            log::warn!("agent of {}: {}", self.host, status.message());
            let _ = orders.send(Err(status)).await;
        }
        self.plane.questions.disconnect(&self.host, connection);
        self.plane.realized.disconnect(&self.host, connection);
    }

    async fn follow(
        &mut self,
        reports: &mut Streaming<Report>,
        orders: &mpsc::Sender<Result<Order, Status>>,
        connection: u64,
        mut asked: mpsc::Receiver<Question>,
    ) -> Result<(), Status> {
        let mut wanted = self.plane.wanted();
        let mut beat = tokio::time::interval(BEAT);
        let mut told = Told::default();
        loop {
            if !self.plane.realized.is_current(&self.host, connection) {
                return Err(Status::permission_denied(
                    "this host is not trusted any more, or connected anew",
                ));
            }
            let now = Arc::clone(&wanted.borrow_and_update());
            let order = told.order(&now, &self.attached, now_ms());
            if let Some(order) = order.map_err(|error| Status::internal(error.to_string()))?
                && orders.send(Ok(order)).await.is_err()
            {
                return Ok(());
            }
            tokio::select! {
                report = reports.next() => match report {
                    Some(report) => self.hear(report?)?,
                    None => return Ok(()),
                },
                changed = wanted.changed() => if changed.is_err() { return Ok(()) },
                Some(question) = asked.recv() => {
                    if orders.send(Ok(spoken(&question)?)).await.is_err() { return Ok(()) }
                }
                _ = beat.tick() => {
                    let beat = Order { beat: true, ..Order::default() };
                    if orders.send(Ok(beat)).await.is_err() { return Ok(()) }
                }
            }
        }
    }

    fn hear(&mut self, report: Report) -> Result<(), Status> {
        match report.what {
            Some(report::What::Nic(state)) => self.hear_of_nic(state),
            Some(report::What::Coverage(coverage)) => {
                self.plane.realized.coverage(&self.host, coverage.unprotected);
                Ok(())
            }
            Some(report::What::Answered(answered)) => {
                let number = answered.number;
                self.plane.questions.answered(&self.host, number, heard(answered));
                Ok(())
            }
            Some(report::What::Hello(_)) | None => Err(Status::invalid_argument("a report without meaning")),
        }
    }

    fn hear_of_nic(&mut self, state: NicState) -> Result<(), Status> {
        let nic: NicId = state.nic.parse().map_err(|_| Status::invalid_argument("a NIC without a name"))?;
        if !state.attached {
            self.attached.remove(&nic);
            self.plane.realized.nic_left(&nic, &self.host);
            return Ok(());
        }
        self.attached.insert(nic.clone());
        if self.attached.len() > NICS_MAX {
            return Err(Status::resource_exhausted(format!("more than {NICS_MAX} NICs on one host")));
        }
        let realized =
            NicRealized { host: self.host.clone(), enforced: state.enforced, problem: state.problem };
        self.plane.realized.nic(nic, realized);
        Ok(())
    }
}
