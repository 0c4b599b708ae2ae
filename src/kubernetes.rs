//! Connects to the Kubernetes API: credentials and deadlines. Other modules make the requests.
//!
//! A pod's token may appear after its containers have started. In a pod, pgnorth therefore waits for missing
//! credentials; elsewhere, missing credentials are an error. kube reads the token's file again once a minute, so a
//! replaced token is used.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use kube::{Client, Config};
use thiserror::Error;
use tokio::sync::{OnceCell, watch};
use tracing::{info, warn};

use crate::backoff::Backoff;
use crate::root_cause::root_cause;

/// Deadline for opening a connection to the API.
const DEADLINE: Duration = Duration::from_secs(1);
/// Longest time without a byte on a connection. It ends a list that is never answered, and a watch that the server
/// should have ended long ago.
pub const READ_TIMEOUT: Duration = Duration::from_secs(90);
/// Time for which the API server is asked to keep a watch open. It differs for each watch, so that they are not all
/// reopened at the same time. kube waits 5 s longer, then assumes that the stream is dead and opens a new one. This
/// must happen before `READ_TIMEOUT` ends the connection, because that counts as a fault of the API.
pub const WATCH_SECONDS: RangeInclusive<u32> = 60..=80;
/// Pauses between attempts to find missing credentials.
const RETRY: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
/// Environment variable that Kubernetes sets in every pod.
const IN_A_POD: &str = "KUBERNETES_SERVICE_HOST";

/// Access to the API, or the wait for its credentials. All users share one connection, so its state is logged once.
pub struct Access {
    connection: OnceCell<Connection>,
    missing: watch::Sender<Option<String>>,
}

/// A client of the API, and the namespace that its credentials name.
#[derive(Clone)]
pub struct Connection {
    /// Client of the API. Clones share its connections.
    pub client: Client,
    /// Namespace of the pod, or of the kubeconfig's context.
    pub namespace: String,
}

/// A problem with the credentials.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// There is neither a service account nor a kubeconfig.
    #[error(
        "no Kubernetes credentials: neither a pod's service account nor a kubeconfig (KUBECONFIG or ~/.kube/config): {0}"
    )]
    NoCredentials(#[source] kube::config::InferConfigError),
    /// The token file is empty.
    #[error("the service account's token file is empty: {0}")]
    EmptyToken(String),
    /// The credentials cannot be used.
    #[error("the Kubernetes credentials cannot be used: {0}")]
    BadCredentials(#[source] kube::Error),
}

impl Access {
    /// Looks for credentials: a kubeconfig, or the pod's service account. Makes no request.
    ///
    /// # Errors
    /// Outside a pod, returns an error if there are no usable credentials. In a pod, they may still appear.
    pub async fn new() -> Result<Arc<Self>, ConnectError> {
        let mut access = Self {
            connection: OnceCell::new(),
            missing: watch::Sender::new(None),
        };
        match connect().await {
            Ok(connection) => access.connection = OnceCell::from(connection),
            Err(error) if std::env::var_os(IN_A_POD).is_none() => return Err(error),
            Err(error) => access.note_missing(error.to_string()),
        }
        Ok(Arc::new(access))
    }

    /// Returns the newest reason for missing credentials, while pgnorth waits for them.
    pub fn missing(&self) -> watch::Receiver<Option<String>> {
        self.missing.subscribe()
    }

    /// Returns the connection, as soon as there are credentials. Cancel-safe: other waiting tasks continue.
    pub async fn connection(&self) -> &Connection {
        self.connection.get_or_init(|| self.wait(connect)).await
    }

    /// Records the newest reason for missing credentials, and logs it if it differs from the last one.
    fn note_missing(&self, why: String) {
        self.missing.send_if_modified(|known| {
            let differs = known.as_ref() != Some(&why);
            if differs {
                warn!("waiting for this pod's credentials: {why}");
                *known = Some(why);
            }
            differs
        });
    }

    async fn wait(&self, mut connect: impl AsyncFnMut() -> Result<Connection, ConnectError>) -> Connection {
        let mut backoff = RETRY;
        loop {
            tokio::time::sleep(backoff.pause()).await;
            match connect().await {
                Ok(connection) => {
                    info!("this pod's credentials are now available");
                    self.missing.send_replace(None);
                    return connection;
                }
                Err(error) => self.note_missing(error.to_string()),
            }
        }
    }
}

async fn connect() -> Result<Connection, ConnectError> {
    let mut config = Config::infer().await.map_err(ConnectError::NoCredentials)?;
    if let Some(file) = &config.auth_info.token_file
        && std::fs::read_to_string(file).is_ok_and(|token| token.trim().is_empty())
    {
        return Err(ConnectError::EmptyToken(file.clone()));
    }
    config.connect_timeout = Some(DEADLINE);
    config.write_timeout = Some(DEADLINE * 5);
    config.read_timeout = Some(READ_TIMEOUT);
    config.reset_reader_on_write = true;
    let namespace = config.default_namespace.clone();
    let client = Client::try_from(config).map_err(ConnectError::BadCredentials)?;
    Ok(Connection { client, namespace })
}

/// Returns the API's own message, which names verb and resource if it forbids a request; otherwise the root cause,
/// such as "connection refused".
pub fn error_message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        other => root_cause(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_newest_problem_with_the_credentials_is_shown() {
        let access = Access {
            connection: OnceCell::new(),
            missing: watch::Sender::new(Some("no Kubernetes credentials".into())),
        };
        let (mut missing, begun) = (access.missing(), "no Kubernetes credentials");
        assert_eq!(missing.borrow_and_update().as_deref(), Some(begun));
        let mut waiting = std::pin::pin!(access.wait(async || Err(ConnectError::EmptyToken("/token".into()))));
        let minute = Duration::from_secs(60);
        assert!(tokio::time::timeout(minute, &mut waiting).await.is_err());
        assert!(missing.has_changed().unwrap());
        let why = missing.borrow_and_update().clone().unwrap();
        assert_eq!(why, "the service account's token file is empty: /token");
        assert!(tokio::time::timeout(minute, &mut waiting).await.is_err());
        assert!(!missing.has_changed().unwrap(), "a repeated problem is reported once");
    }
}
