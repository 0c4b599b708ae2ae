//! tokio-postgres with deadpool. The environment and the account are as in load.py.

use std::collections::BTreeMap;
use std::future::Future;
use std::io::Read;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use deadpool_postgres::{Connect, Manager, ManagerConfig, Pool, PoolError, RecyclingMethod};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_postgres::config::{ChannelBinding, SslMode};
use tokio_postgres::{Client, Config, Error, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

const WORKERS: usize = 3;
const PAUSE: Duration = Duration::from_millis(30);

/// Logins begun and completed, rows, errors, and the longest time for a row.
#[derive(Default)]
struct Account {
    begun: u64,
    completed: u64,
    rows: u64,
    longest: f64,
    errors: BTreeMap<String, u64>,
}

type Shared = Arc<Mutex<Account>>;

/// Opens connections, and counts them.
struct Logins {
    account: Shared,
    tls: Option<MakeRustlsConnect>,
}

type Opened<'a> = Pin<Box<dyn Future<Output = Result<(Client, JoinHandle<()>), Error>> + Send + 'a>>;

impl Connect for Logins {
    fn connect(&self, config: &Config) -> Opened<'_> {
        let (config, account) = (config.clone(), self.account.clone());
        Box::pin(async move {
            locked(&account).begun += 1;
            let (client, task) = match self.tls.clone() {
                Some(tls) => {
                    let (client, connection) = config.connect(tls).await?;
                    (client, tokio::spawn(async move { drop(connection.await) }))
                }
                None => {
                    let (client, connection) = config.connect(NoTls).await?;
                    (client, tokio::spawn(async move { drop(connection.await) }))
                }
            };
            locked(&account).completed += 1;
            Ok((client, task))
        })
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let name = variable("CLIENT_NAME");
    let mut config = Config::new();
    config.user("postgres").password("rig").dbname("postgres").application_name(&name);
    config.host(variable("CLIENT_HOSTS"));
    config.port(variable("CLIENT_PORTS").parse().expect("a port"));
    let tls = std::env::var("CLIENT_CA").ok().map(|authority| tls(&authority));
    match tls {
        // tokio-postgres-rustls 0.13.0 fails to parse the certificate for channel binding, so that cannot be required.
        Some(_) => config.ssl_mode(SslMode::Require).channel_binding(ChannelBinding::Prefer),
        None => config.ssl_mode(SslMode::Disable),
    };
    let recycling_method = match variable("CLIENT_SAFE").as_str() {
        "yes" => RecyclingMethod::Verified,
        _ => RecyclingMethod::Fast,
    };
    let account = Shared::default();
    let logins = Logins {
        account: account.clone(),
        tls,
    };
    let manager = Manager::from_connect(config, logins, ManagerConfig { recycling_method });
    let pool = Pool::builder(manager).max_size(WORKERS).build().expect("a pool");

    let (end, over) = watch::channel(());
    let mut workers = JoinSet::new();
    for _ in 0..WORKERS {
        workers.spawn(work(pool.clone(), name.clone(), account.clone(), over.clone()));
    }
    let read = || std::io::stdin().read_to_end(&mut Vec::new());
    tokio::task::spawn_blocking(read).await.expect("no panic").expect("read until the end");
    drop((over, end));
    workers.join_all().await;
    let account = locked(&account);
    println!(
        "{}",
        serde_json::json!({
            "begun": account.begun,
            "completed": account.completed,
            "rows": account.rows,
            "longest": account.longest,
            "errors": account.errors,
        })
    );
}

async fn work(pool: Pool, name: String, account: Shared, over: watch::Receiver<()>) {
    while over.has_changed().is_ok() {
        let began = Instant::now();
        let inserted = insert(&pool, &name).await;
        {
            let mut account = locked(&account);
            match inserted {
                Ok(()) => {
                    account.rows += 1;
                    account.longest = account.longest.max(began.elapsed().as_secs_f64());
                }
                Err(error) => {
                    let count = account.errors.entry(kind(&error)).or_default();
                    *count += 1;
                    if *count == 1 {
                        eprintln!("{name}: {error:?}");
                    }
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn insert(pool: &Pool, name: &str) -> Result<(), PoolError> {
    let client = pool.get().await?;
    let statement = format!("insert into driven (client) values ('{name}')");
    Ok(client.batch_execute(&statement).await?)
}

/// Returns the error's kind, with its SQLSTATE.
fn kind(error: &PoolError) -> String {
    match error {
        PoolError::Backend(error) => match error.code() {
            Some(code) => format!("Error {}", code.code()),
            None if error.is_closed() => "Error closed".to_owned(),
            None => "Error io".to_owned(),
        },
        PoolError::Timeout(_) => "PoolError::Timeout".to_owned(),
        other => format!("PoolError {other}"),
    }
}

/// Returns a connector that verifies the server's certificate and its name.
fn tls(authority: &str) -> MakeRustlsConnect {
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(authority).expect("read the authority");
    roots.add_parsable_certificates(certificates.map(|certificate| certificate.expect("a certificate")));
    MakeRustlsConnect::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}

fn locked(account: &Shared) -> MutexGuard<'_, Account> {
    account.lock().unwrap_or_else(PoisonError::into_inner)
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}
