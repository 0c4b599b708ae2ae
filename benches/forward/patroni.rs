//! A fake of the REST API of a cluster of one member, which leads. The choice of a leader is not measured here.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

/// Longest request that is read; pgnorth's have some hundred bytes.
const LONGEST: usize = 8192;
const PATIENCE: Duration = Duration::from_secs(1);

/// A fake Patroni. It answers until the process ends.
pub struct FakePatroni {
    address: SocketAddr,
    leads: Arc<AtomicBool>,
}

impl FakePatroni {
    /// Starts it for a leader whose PostgreSQL is at this address.
    pub fn start(postgres: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let leads = Arc::new(AtomicBool::new(true));
        let its_leads = leads.clone();
        thread::Builder::new().name("fake Patroni".into()).spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that breaks off asks again.
                let _broken = answer(stream, address, postgres, its_leads.load(Ordering::Relaxed));
            }
        })?;
        Ok(Self { address, leads })
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Makes the member a primary that holds the lock, or a replica of a cluster without a leader.
    pub fn lead(&self, leads: bool) {
        self.leads.store(leads, Ordering::Relaxed);
    }
}

fn answer(mut stream: TcpStream, rest: SocketAddr, postgres: SocketAddr, leads: bool) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut head = Vec::new();
    let mut buffer = [0; 1024];
    while !head.ends_with(b"\r\n\r\n") && head.len() < LONGEST {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            length => head.extend_from_slice(&buffer[..length]),
        }
    }
    let path = head.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
    let (status, body) = match path {
        b"/primary" if leads => (200, report("primary")),
        b"/primary" => (503, report("replica")),
        b"/cluster" => (200, cluster(rest, postgres, if leads { "leader" } else { "replica" })),
        b"/config" => (200, json!({"ttl": 30, "loop_wait": 10, "retry_timeout": 10})),
        _ => (404, Value::Null),
    };
    let body = body.to_string();
    let head = format!("HTTP/1.0 {status} Fake\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all((head + &body).as_bytes())
}

fn report(role: &str) -> Value {
    json!({
        "state": "running", "role": role, "timeline": 1, "database_system_identifier": "7440000000000000000",
        "patroni": {"version": "4.1.5", "scope": "bench", "name": "bench"},
    })
}

fn cluster(rest: SocketAddr, postgres: SocketAddr, role: &str) -> Value {
    json!({
        "scope": "bench",
        "members": [{
            "name": "bench", "role": role, "state": "running", "timeline": 1, "api_url": format!("http://{rest}/patroni"),
            "host": postgres.ip().to_string(), "port": postgres.port(),
        }],
    })
}
