//! Clients: the real psql for single statements, and tokio-postgres for sessions that stay.

use std::net::SocketAddr;

use tokio::process::Command;
use tokio_postgres::{Client, Config, NoTls};

/// The password of the user postgres, who is a superuser.
pub const PASSWORD: &str = "rig";

/// Runs SQL through the real psql. Returns its unaligned output, or its error. It gives up connecting after 5 seconds.
pub async fn psql(address: SocketAddr, sql: &str) -> Result<String, String> {
    psql_with(address, sql, &[]).await
}

/// Does the same with more of libpq's environment, such as `("PGSSLMODE", "require")`.
pub async fn psql_with(address: SocketAddr, sql: &str, env: &[(&str, &str)]) -> Result<String, String> {
    let output = Command::new("psql")
        .args([
            "--no-psqlrc",
            "--tuples-only",
            "--no-align",
            "--quiet",
            "--set=ON_ERROR_STOP=1",
            "--command",
            sql,
        ])
        .args([
            "--host",
            &address.ip().to_string(),
            "--port",
            &address.port().to_string(),
        ])
        .args(["--username", "postgres", "--dbname", "postgres"])
        .envs([("PGPASSWORD", PASSWORD), ("PGCONNECT_TIMEOUT", "5")])
        .envs(env.iter().copied())
        .kill_on_drop(true)
        .output()
        .await
        .expect("run psql");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(text(&output.stderr))
    }
}

/// Returns a session that stays until the client is dropped.
pub async fn session(address: SocketAddr) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = config(address).connect(NoTls).await?;
    // The client notices the connection's end in `is_closed` and in every query.
    tokio::spawn(connection);
    Ok(client)
}

/// Returns the settings for the cluster's database at an address.
pub fn config(address: SocketAddr) -> Config {
    let mut config = Config::new();
    config.host(address.ip().to_string()).port(address.port());
    config.user("postgres").dbname("postgres").password(PASSWORD);
    config
}
