//! A real PostgreSQL without passwords: each new client costs it a process, and no hash.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use tokio::time::sleep;
use tokio_postgres::{Client, Config, NoTls};

use crate::folder;
use crate::process::{Process, run};

const PORT: u16 = 6001;
const START: Duration = Duration::from_secs(20);
/// Sessions of a run, and those of clients that a contender has not closed yet.
const CONNECTIONS: &str = "1500";

/// A PostgreSQL server. Its drop ends it.
pub struct Postgres {
    pub address: SocketAddr,
    _process: Process,
}

impl Postgres {
    /// Starts the server; returns when it answers.
    pub async fn start() -> Self {
        let data = folder().join("postgres");
        let data = data.to_str().expect("an ASCII path");
        run(
            "install",
            &["-d", "-o", "postgres", "-g", "postgres", "-m", "700", data],
        );
        let initdb = as_postgres("initdb")
            .args(["--no-sync", "--auth=trust", "-D", data])
            .output();
        let initdb = initdb.expect("run initdb");
        assert!(initdb.status.success(), "{}", String::from_utf8_lossy(&initdb.stderr));
        let mut command = as_postgres("postgres");
        command.args(["-D", data, "-p", &PORT.to_string()]);
        let connections = format!("max_connections={CONNECTIONS}");
        for setting in ["unix_socket_directories=", "fsync=off", "autovacuum=off", &connections] {
            command.args(["-c", setting]);
        }
        let mut process = Process::start("postgres", command, &folder().join("postgres.log"));
        let (address, begun) = (SocketAddr::from(([127, 0, 0, 1], PORT)), Instant::now());
        while connect(address).await.is_err() {
            assert_eq!(process.exit_status(), None, "PostgreSQL ended: {}", process.log());
            assert!(begun.elapsed() < START, "PostgreSQL does not answer: {}", process.log());
            sleep(Duration::from_millis(20)).await;
        }
        Self {
            address,
            _process: process,
        }
    }
}

/// Returns a session.
pub async fn connect(address: SocketAddr) -> Result<Client, tokio_postgres::Error> {
    let mut config = Config::new();
    config.host(address.ip().to_string()).port(address.port());
    let (client, connection) = config.user("postgres").dbname("postgres").connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// Returns a command that runs as the user postgres, with the programs of the newest version of Debian's packages.
pub fn as_postgres(program: &str) -> Command {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let number = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
    let newest = versions.map(|entry| entry.path()).max_by_key(number);
    let of_debian = newest.map(|version| version.join("bin").join(program));
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "postgres", "--regid", "postgres", "--clear-groups"]);
    command.arg(of_debian.filter(|path| path.exists()).unwrap_or_else(|| program.into()));
    command.current_dir("/");
    command
}
