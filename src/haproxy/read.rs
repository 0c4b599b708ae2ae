//! Reads HAProxy's statistics: over HTTP, from its socket, or from a file. Each reading is bounded in size and, except
//! for a file, in time.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;
use url::Url;

use crate::config::HaproxyStatistics;
use crate::discovery::http::tls::{TlsError, TlsFiles};
use crate::discovery::http::{Connector, Unreachable};

/// Deadline of one reading.
const DEADLINE: Duration = Duration::from_secs(1);
/// Maximum size of the statistics. A server takes about 500 bytes.
const LONGEST: usize = 4 * 1024 * 1024;
/// Maximum age of a file. An older file is outdated.
const FRESH: Duration = Duration::from_secs(3);

/// The source of the statistics.
pub(super) enum Source {
    Http(Connector, Box<Url>),
    Socket(PathBuf),
    File(PathBuf),
}

/// The reason why the statistics cannot be read.
#[derive(Debug, Error)]
pub(super) enum ReadError {
    #[error("{0}: {1}")]
    Http(Box<Url>, #[source] Unreachable),
    #[error("{0} answered with status {1}; if it requires a password, use the socket (unix:PATH)")]
    Status(Box<Url>, u16),
    #[error("{path}: {1}", path = .0.display())]
    Io(PathBuf, #[source] io::Error),
    #[error("{path}: no answer to `show stat` within 1 s", path = .0.display())]
    TimedOut(PathBuf),
    #[error("{path} was last written {age} s ago; write it every second", path = .0.display(), age = .1.as_secs())]
    TooOld(PathBuf, Duration),
    #[error("the statistics are longer than 4 MiB")]
    TooLong,
    #[error("the statistics are not UTF-8 text")]
    NotText,
}

impl Source {
    /// Returns the source that the settings name. Nothing is opened yet.
    pub(super) fn new(settings: &HaproxyStatistics) -> Result<Self, TlsError> {
        Ok(match settings {
            HaproxyStatistics::Http(url) => Self::Http(Connector::new("HAProxy", TlsFiles::default())?, url.clone()),
            HaproxyStatistics::Socket(path) => Self::Socket(path.clone()),
            HaproxyStatistics::File(path) => Self::File(path.clone()),
        })
    }

    /// Reads the current statistics. Cancel-safe: cancelling closes the connection.
    pub(super) async fn read(&self) -> Result<String, ReadError> {
        let bytes = match self {
            Self::Http(connector, url) => over_http(connector, url).await?,
            Self::Socket(path) => from_socket(path).await?,
            Self::File(path) => from_file(path.clone()).await?,
        };
        if bytes.len() > LONGEST {
            return Err(ReadError::TooLong);
        }
        String::from_utf8(bytes).map_err(|_| ReadError::NotText)
    }
}

async fn over_http(connector: &Connector, url: &Url) -> Result<Vec<u8>, ReadError> {
    let answer = timeout(DEADLINE, connector.get(url, LONGEST, DEADLINE)).await;
    let answer = answer.unwrap_or(Err(Unreachable::TimedOut(DEADLINE)));
    let answer = answer.map_err(|error| ReadError::Http(Box::new(url.clone()), error))?;
    match answer.status.is_success() {
        true => Ok(answer.body.to_vec()),
        false => Err(ReadError::Status(Box::new(url.clone()), answer.status.as_u16())),
    }
}

async fn from_socket(path: &Path) -> Result<Vec<u8>, ReadError> {
    let asked = async {
        let mut stream = UnixStream::connect(path).await?;
        stream.write_all(b"show stat\n").await?;
        let mut bytes = Vec::new();
        stream.take(LONGEST as u64 + 1).read_to_end(&mut bytes).await?;
        Ok(bytes)
    };
    match timeout(DEADLINE, asked).await {
        Ok(read) => read.map_err(|error| ReadError::Io(path.to_owned(), error)),
        Err(_) => Err(ReadError::TimedOut(path.to_owned())),
    }
}

/// Reads without a deadline, because each reading that timed out would leave a thread behind. A file system that hangs
/// stops only the comparison.
async fn from_file(path: PathBuf) -> Result<Vec<u8>, ReadError> {
    let reading = tokio::task::spawn_blocking(|| read_file(path));
    reading.await.expect("reading a file does not panic")
}

/// Reads a regular file; a pipe could block forever.
fn read_file(path: PathBuf) -> Result<Vec<u8>, ReadError> {
    let read = || {
        let metadata = path.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("not a regular file; write a socket as unix:PATH"));
        }
        let age = metadata.modified()?.elapsed().unwrap_or_default();
        let mut bytes = Vec::new();
        File::open(&path)?.take(LONGEST as u64 + 1).read_to_end(&mut bytes)?;
        Ok((age, bytes))
    };
    match read() {
        Ok((age, _)) if age > FRESH => Err(ReadError::TooOld(path, age)),
        Ok((_, bytes)) => Ok(bytes),
        Err(error) => Err(ReadError::Io(path, error)),
    }
}
