//! The errors of reading and writing a Service's objects, and the deadline of each request.

use std::time::Duration;

use thiserror::Error;
use tokio::time::timeout;

use crate::kubernetes::error_message;

/// Deadline of one request.
const DEADLINE: Duration = Duration::from_secs(1);

/// The reason why a publisher must not write a Service. Only the Service's owner can fix it.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum InvalidService {
    /// A selector makes Kubernetes write the endpoints.
    #[error(
        "service {0} has a selector, so Kubernetes writes its endpoints: name a Service without one, or remove the selector: kubectl patch service {1} --type=json -p '[{{\"op\":\"remove\",\"path\":\"/spec/selector\"}}]'"
    )]
    Selector(String, String),
    /// An ExternalName is a name in DNS and has no endpoints.
    #[error(
        "service {0} is of type ExternalName, which has no endpoints: name one of type ClusterIP without a selector"
    )]
    ExternalName(String),
    /// pgnorth publishes one port of the leader.
    #[error("service {0} has {1} ports, but pgnorth publishes one port of the leader: define exactly one port")]
    Ports(String, usize),
    /// Patroni writes the same object.
    #[error(
        "service {0}: the Endpoints of this name are Patroni's own ({1}): choose another name for the Service, such as {2}-primary"
    )]
    Patronis(String, String, String),
    /// Kubernetes mirrors the addresses of other Endpoints into an additional slice.
    #[error(
        "endpoints {0} has addresses that pgnorth did not write, and Kubernetes sends clients there as well: delete it (kubectl delete endpoints {1}), or let pgnorth write it with --endpoints (PGNORTH_ENDPOINTS=true)"
    )]
    Foreign(String, String),
    /// The API is too old for EndpointSlices, and Endpoints are not enabled.
    #[error("this Kubernetes API has no EndpointSlices (discovery.k8s.io): use --endpoints (PGNORTH_ENDPOINTS=true)")]
    NoSlices,
}

/// The reason why an object cannot be read or written now.
#[derive(Debug, Error)]
pub(crate) enum PublishError {
    #[error(transparent)]
    InvalidService(#[from] InvalidService),
    /// Another client has written the object since it was read.
    #[error("{0} was changed by another client since it was read")]
    Conflict(String),
    #[error("{object}: {cause}")]
    Failed { object: String, cause: String },
}

impl PublishError {
    pub(super) fn failed(object: &str, cause: impl Into<String>) -> Self {
        Self::Failed {
            object: object.to_owned(),
            cause: cause.into(),
        }
    }

    /// Returns the reason without the name of the object.
    pub(super) fn cause(&self) -> String {
        match self {
            Self::Failed { cause, .. } => cause.clone(),
            other => other.to_string(),
        }
    }
}

/// Awaits one request, within the deadline.
pub(super) async fn request<T>(what: &str, request: impl Future<Output = kube::Result<T>>) -> Result<T, PublishError> {
    match timeout(DEADLINE, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(kube::Error::Api(status))) if status.code == 409 => Err(PublishError::Conflict(what.to_owned())),
        Ok(Err(error)) => Err(PublishError::failed(what, error_message(&error))),
        Err(_) => Err(PublishError::failed(what, "no answer within 1 s")),
    }
}
