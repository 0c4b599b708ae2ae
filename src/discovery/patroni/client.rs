//! Sends one GET to a member before a deadline.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::Request;
use hyper::body::Bytes;

use crate::discovery::http::tls::{TlsError, TlsFiles};
use crate::discovery::http::{Answer, Connector, Unreachable};
use crate::metrics::{Metrics, Outcome};

/// Deadline of one request, including the connection. The kernel accepts connections for a frozen Patroni, which never
/// answers.
const DEADLINE: Duration = Duration::from_secs(1);
/// Longest answer. `/cluster` of a large cluster has a few KiB.
const MAX_BODY: usize = 1024 * 1024;

/// A client of Patroni's REST API. Clones share its TLS settings.
#[derive(Clone)]
pub struct Client {
    connector: Connector,
    metrics: Arc<Metrics>,
}

impl Client {
    /// Reads the TLS files, if any are given.
    pub fn new(files: TlsFiles, metrics: Arc<Metrics>) -> Result<Self, TlsError> {
        Ok(Self {
            connector: Connector::new("Patroni's REST API", files)?,
            metrics,
        })
    }

    /// Sends GET `path` to `base` and waits for the answer until the deadline. Cancel-safe: cancelling closes the
    /// connection.
    pub async fn get(&self, base: &str, path: &str) -> Result<Answer, Unreachable> {
        let answer = tokio::time::timeout(DEADLINE, self.attempt(base, path)).await;
        let answer = answer.unwrap_or(Err(Unreachable::TimedOut(DEADLINE)));
        self.metrics.probed(match answer {
            Ok(_) => Outcome::Ok,
            Err(Unreachable::TimedOut(_)) => Outcome::TimedOut,
            Err(_) => Outcome::Failed,
        });
        answer
    }

    /// Sends the request on a separate connection: Patroni uses HTTP/1.0. An answer to `/primary` names its member
    /// (since Patroni 3.2), so members stay reachable at their last known addresses while the name server fails.
    async fn attempt(&self, base: &str, path: &str) -> Result<Answer, Unreachable> {
        let names_its_member = path == "/primary";
        let mut connection = self.connector.connect(base, names_its_member, DEADLINE).await?;
        let request = Request::get(path).body(Full::<Bytes>::default());
        let request = request.map_err(|error| Unreachable::Http(error.into()))?;
        connection.ask(request, MAX_BODY).await
    }
}
