//! How the Kubernetes API is reached: credentials and deadlines. What is asked of it stands in `discovery::kubernetes` and in `publish`.
//!
//! A pod's token may appear after its containers have started. So inside a pod, missing credentials are waited for; anywhere else they are a mistake. That a
//! token was replaced is noticed by kube, which reads its file anew once a minute.

use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::{Client, Config};
use thiserror::Error;
use tokio::sync::OnceCell;
use tracing::{info, warn};

use crate::backoff::Backoff;

/// How long one connection to the API may take.
const DEADLINE: Duration = Duration::from_secs(1);
/// How long a connection may be quiet: a list that is never answered, or a watch that the server should have ended long ago.
pub const READ_TIMEOUT: Duration = Duration::from_secs(90);
/// How long the API server is asked to keep a watch open: a different time for each, so that not all are opened anew together. kube waits 5 s longer, then
/// takes the stream for dead and opens another: before the connection is given up, which would look like an API that does not answer.
pub const WATCH_SECONDS: RangeInclusive<u32> = 60..=80;
/// The pauses before missing credentials are looked for again.
const RETRY: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
/// Kubernetes sets it in every pod.
const IN_A_POD: &str = "KUBERNETES_SERVICE_HOST";

/// The way to the API: there, or waited for. All who share it connect once, and tell once.
pub struct Access {
    connection: OnceCell<Connection>,
    missing: Mutex<Option<String>>,
}

/// A client of the API, and the namespace that its credentials name.
#[derive(Clone)]
pub struct Connection {
    /// Clones share its connections.
    pub client: Client,
    /// The pod's own, or the kubeconfig's.
    pub namespace: String,
}

/// There is no way to reach the API.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// Neither in a pod nor with a kubeconfig.
    #[error(
        "no Kubernetes credentials: neither a pod's service account nor a kubeconfig (KUBECONFIG or ~/.kube/config): {0}"
    )]
    NoCredentials(#[source] kube::config::InferConfigError),
    /// The file is there before its content.
    #[error("the service account's token is empty: {0}")]
    EmptyToken(String),
    /// The credentials cannot be used.
    #[error("the Kubernetes credentials cannot be used: {0}")]
    BadCredentials(#[source] kube::Error),
}

impl Access {
    /// Looks for credentials: a kubeconfig, or the pod's own. Nothing is asked of the API yet.
    ///
    /// # Errors
    /// When there are none and none will come, because this is no pod.
    pub async fn new() -> Result<Arc<Self>, ConnectError> {
        let mut access = Self {
            connection: OnceCell::new(),
            missing: Mutex::new(None),
        };
        match connect().await {
            Ok(connection) => access.connection = OnceCell::from(connection),
            Err(error) if std::env::var_os(IN_A_POD).is_none() => return Err(error),
            Err(error) => {
                let why = error.to_string();
                warn!("waiting for this pod's credentials: {why}");
                *access.missing.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
            }
        }
        Ok(Arc::new(access))
    }

    /// Why there are no credentials yet.
    pub fn missing(&self) -> Option<String> {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The connection, as soon as there are credentials. Cancel-safe: another who waits goes on.
    pub async fn connection(&self) -> &Connection {
        self.connection.get_or_init(|| self.wait()).await
    }

    async fn wait(&self) -> Connection {
        let mut backoff = RETRY;
        loop {
            tokio::time::sleep(backoff.pause()).await;
            if let Ok(connection) = connect().await {
                info!("this pod's credentials are there");
                *self.missing.lock().unwrap_or_else(PoisonError::into_inner) = None;
                return connection;
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

/// What a person can act on: the API's own words, which name verb and resource where it forbids; else the innermost error, such as "connection refused".
pub fn why(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        other => innermost(other),
    }
}

/// The innermost error: what a person can act on.
pub(crate) fn innermost(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => innermost(source),
        None => error.to_string(),
    }
}
