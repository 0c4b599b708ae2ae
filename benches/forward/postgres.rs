//! A real PostgreSQL with pgbench's tables, and pgbench.

use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::load::Window;
use crate::process::Process;
use crate::session::is_answered;
use crate::world::folder;

pub const PORT: u16 = 6001;
/// The user and the database of pgbench.
pub const LOGIN: (&str, &str) = ("postgres", "postgres");

const START: Duration = Duration::from_secs(20);
/// Time that pgbench may need beyond its window.
const PATIENCE: Duration = Duration::from_secs(30);
/// Rows of pgbench_accounts in units of 100,000: all of them stay in memory.
const SCALE: &str = "10";
/// Settings without any wait for a disk: only the network is measured.
const SETTINGS: [&str; 10] = [
    "ssl=on",
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "max_connections=300",
    "shared_buffers=256MB",
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "autovacuum=off",
    "max_wal_size=4GB",
];

/// The certificate's and the key's file in the data folder.
const TLS: [&str; 2] = ["server.crt", "server.key"];

/// The work of one run of pgbench.
#[derive(Clone, Copy, Debug)]
pub struct Script {
    clients: u32,
    /// Size of the rows to select; without it, pgbench runs with -S.
    row: Option<u32>,
    /// Each transaction has a session of its own.
    connects: bool,
    tls: bool,
}

/// A PostgreSQL server. Its drop ends it.
pub struct Postgres {
    _process: Process,
}

/// The result of pgbench.
pub struct Done {
    pub transactions: f64,
    /// Transactions a second, without the time of connecting.
    pub rate: f64,
}

impl Script {
    pub fn selects(clients: u32) -> Self {
        Self {
            clients,
            row: None,
            connects: false,
            tls: false,
        }
    }

    pub fn rows(size: u32) -> Self {
        Self {
            row: Some(size),
            ..Self::selects(4)
        }
    }

    pub fn connections(clients: u32) -> Self {
        Self {
            connects: true,
            ..Self::selects(clients)
        }
    }

    pub fn with_tls(self) -> Self {
        Self { tls: true, ..self }
    }
}

impl Postgres {
    /// Starts the server and fills pgbench's tables.
    pub fn start() -> Result<Self, String> {
        let data = folder().join("postgres");
        make_folder(&data)?;
        let initdb = finish(
            as_postgres("initdb")
                .args(["--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C", "-D"])
                .arg(&data),
            PATIENCE,
        );
        initdb.map_err(|error| error.to_string())?;
        make_certificate(&data)?;
        let mut command = as_postgres("postgres");
        command.arg("-D").arg(&data).args(["-p", &PORT.to_string()]);
        SETTINGS.iter().for_each(|setting| {
            command.args(["-c", setting]);
        });
        let mut process = Process::start("postgres", command, &folder().join("postgres.log"));
        let address = SocketAddr::from(([127, 0, 0, 1], PORT));
        let start = Instant::now();
        while let Err(error) = is_answered(address, LOGIN.0, LOGIN.1) {
            if process.exit_status().is_some() || start.elapsed() > START {
                return Err(format!("PostgreSQL does not answer: {error}\n{}", process.log()));
            }
            thread::sleep(Duration::from_millis(20));
        }
        let filled = finish(
            pgbench(address)
                .env("PGSSLMODE", "disable")
                .args(["-i", "-q", "-s", SCALE, LOGIN.1]),
            2 * PATIENCE,
        );
        filled.map_err(|error| error.to_string())?;
        Ok(Self { _process: process })
    }

    /// Runs pgbench for the window's time, whole seconds at least.
    pub fn pgbench(&self, address: SocketAddr, window: Window, script: Script) -> io::Result<Done> {
        let seconds = window.counted.as_secs().max(1).to_string();
        let mut command = pgbench(address);
        let clients = script.clients.to_string();
        command.args(["-n", "-M", "prepared", "-T", &seconds, "-c", &clients, "-j", "1"]);
        command.env("PGSSLMODE", if script.tls { "require" } else { "disable" });
        if script.connects {
            command.arg("-C");
        }
        match script.row {
            None => command.arg("-S"),
            Some(size) => {
                let script = folder().join(format!("rows-{size}.sql"));
                fs::write(&script, format!("select repeat('x', {size});\n"))?;
                command.arg("-f").arg(script)
            }
        };
        let report = finish(command.arg(LOGIN.1), window.counted + PATIENCE)?;
        let number = |name: &str| {
            let value = report.lines().find_map(|line| line.strip_prefix(name))?;
            value.split([' ', '/']).next()?.parse().ok()
        };
        let transactions = number("number of transactions actually processed: ");
        let rate = number("tps = ");
        match transactions.zip(rate) {
            Some((transactions, rate)) if !report.contains("ERROR") => Ok(Done { transactions, rate }),
            _ => Err(io::Error::other(format!("pgbench: {report}"))),
        }
    }
}

fn pgbench(address: SocketAddr) -> Command {
    let mut command = Command::new("pgbench");
    command.env("PGUSER", LOGIN.0);
    command.args(["-h", &address.ip().to_string(), "-p", &address.port().to_string()]);
    command
}

/// Returns a command that runs as the user postgres: PostgreSQL refuses to be root. Debian's server programs are not in
/// PATH.
fn as_postgres(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "postgres", "--regid", "postgres", "--clear-groups"]);
    command.arg(debian(program).unwrap_or_else(|| program.into()));
    command.current_dir("/");
    command
}

/// Returns the newest installed version.
fn debian(program: &str) -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?.flatten();
    let version = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
    let newest = versions.map(|entry| entry.path()).max_by_key(|path| version(path))?;
    Some(newest.join("bin").join(program)).filter(|path| path.exists())
}

fn make_folder(data: &Path) -> Result<(), String> {
    fs::create_dir(data).map_err(|error| format!("create {}: {error}", data.display()))?;
    let users = fs::read_to_string("/etc/passwd").map_err(|error| format!("read /etc/passwd: {error}"))?;
    let line = users.lines().find(|line| line.starts_with("postgres:"));
    let id = line.and_then(|line| line.split(':').nth(2)?.parse().ok());
    let id = id.ok_or("there is no user postgres: PostgreSQL is not installed")?;
    chown(data, Some(id), None).map_err(|error| format!("give {} to postgres: {error}", data.display()))
}

/// Creates the server's key and a certificate signed by itself, where PostgreSQL looks for them.
fn make_certificate(data: &Path) -> Result<(), String> {
    let [certificate, key] = TLS.map(|file| data.join(file));
    let mut openssl = as_postgres("openssl");
    openssl.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
    ]);
    openssl
        .args(["-nodes", "-days", "2", "-subj", "/CN=bench", "-out"])
        .arg(certificate);
    let made = finish(openssl.arg("-keyout").arg(key), PATIENCE);
    made.map(drop).map_err(|error| error.to_string())
}

/// Runs a tool until it ends, and returns its output. Kills it after the deadline.
fn finish(command: &mut Command, within: Duration) -> io::Result<String> {
    let log = folder().join("tool.log");
    let out = File::create(&log)?;
    command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
    let mut child = command.spawn()?;
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if start.elapsed() > within {
            child.kill()?;
            break child.wait()?;
        }
        thread::sleep(Duration::from_millis(5));
    };
    let output = fs::read_to_string(&log)?;
    match status.success() {
        true => Ok(output),
        false => Err(io::Error::other(format!("{command:?}: {status}: {output}"))),
    }
}
