//! A small HTTP client: one HTTP/1.0 request a connection, with a deadline, in plaintext or TLS. It is independent of
//! the product's own client, so that one mistake cannot hide in both.

use std::io;
use std::time::Duration;

use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use url::Url;

/// A client. It trusts the rig's authority for `https`.
#[derive(Clone)]
pub struct Http {
    tls: TlsConnector,
}

/// A request. `get` and `send` make one; the other fields are set by name.
#[derive(Clone)]
pub struct Request<'a> {
    pub method: &'a str,
    pub url: &'a str,
    pub token: Option<&'a str>,
    pub body: Option<(&'a str, &'a Value)>,
    pub within: Duration,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    head: String,
    pub body: String,
}

impl Http {
    pub fn new(tls: TlsConnector) -> Self {
        Self { tls }
    }

    /// Sends one request. Without a complete answer before the deadline, returns an error of the kind `TimedOut`.
    pub async fn ask(&self, request: &Request<'_>) -> io::Result<Answer> {
        match timeout(request.within, self.exchange(request)).await {
            Ok(result) => result,
            Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut)),
        }
    }

    async fn exchange(&self, request: &Request<'_>) -> io::Result<Answer> {
        let url = Url::parse(request.url).map_err(io::Error::other)?;
        let address = url.socket_addrs(|| None)?[0];
        let stream = TcpStream::connect(address).await?;
        if url.scheme() != "https" {
            return talk(stream, request, &url).await;
        }
        let stream = self.tls.connect(ServerName::from(address.ip()), stream).await?;
        talk(stream, request, &url).await
    }
}

impl<'a> Request<'a> {
    pub fn get(url: &'a str) -> Self {
        Self {
            method: "GET",
            url,
            token: None,
            body: None,
            within: Duration::from_secs(2),
        }
    }

    /// Returns a request with a JSON body of the given content type.
    pub fn send(method: &'a str, url: &'a str, content_type: &'a str, body: &'a Value) -> Self {
        Self {
            method,
            body: Some((content_type, body)),
            ..Self::get(url)
        }
    }

    fn render(&self, url: &Url) -> String {
        let target = &url[url::Position::BeforePath..url::Position::AfterQuery];
        let host = url.host_str().unwrap_or_default();
        let mut head = format!("{} {target} HTTP/1.0\r\nHost: {host}\r\nAccept: */*\r\n", self.method);
        if let Some(token) = self.token {
            head += &format!("Authorization: Bearer {token}\r\n");
        }
        let Some((content_type, body)) = self.body else {
            return head + "\r\n";
        };
        let body = body.to_string();
        head + &format!(
            "Content-Type: {content_type}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }
}

impl Answer {
    fn parse(text: &str) -> Option<Self> {
        let (head, body) = text.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some(Self {
            status,
            head: head.to_owned(),
            body: body.to_owned(),
        })
    }

    /// Returns a header, if there is one with this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let headers = self.head.lines().filter_map(|line| line.split_once(": "));
        let mut found = headers.filter(|(header, _)| header.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value)
    }

    /// Returns the body as JSON, or null if it is not JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }
}

async fn talk<S>(mut stream: S, request: &Request<'_>, url: &Url) -> io::Result<Answer>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    stream.write_all(request.render(url).as_bytes()).await?;
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes).await {
        // Patroni closes TLS connections without a close_notify; the answer is complete nevertheless.
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(error),
        _ => {}
    }
    let text = String::from_utf8(bytes).map_err(io::Error::other)?;
    Answer::parse(&text).ok_or_else(|| io::Error::other(format!("not an HTTP answer: {text:?}")))
}
