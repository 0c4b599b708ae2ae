//! PostgreSQL's own clients work through pgnorth as they do without it: it never looks into a session.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use crate::support::psql::{PASSWORD, psql_with, session};
use crate::support::rig::cache;
use crate::support::{Dcs, Product, Rig, psql, wait_until};

/// A deadline against hanging. The longest test, a COPY of 1 GiB, takes some ten seconds.
const DEADLINE: Duration = Duration::from_secs(180);

#[tokio::test]
async fn every_client_works_as_without_pgnorth() {
    let rig = Rig::start(Dcs::Etcd).await;
    let product = Product::start(&rig, &[], &[]).await;
    product.wait_until_writable(DEADLINE).await;
    let clients = Clients {
        at: product.address(),
        folder: rig.folder().to_owned(),
    };
    clients.psql_with_and_without_tls().await;
    clients.pgbench().await;
    clients.psycopg().await;
    clients.dump_and_restore().await;
    clients.copy_both_ways(&product).await;
    clients.listen_and_notify().await;
    clients.cancel().await;
    clients.base_backup_and_wal_stream().await;
    let ended = product.metric("pgnorth_sessions_ended_total", &[]).await;
    assert!(ended.expect("sessions are counted") >= 10.0);
    wait_until("no session is left", DEADLINE, async || {
        (product.metric("pgnorth_sessions", &[]).await == Some(0.0)).then_some(())
    })
    .await;
}

struct Clients {
    at: SocketAddr,
    folder: std::path::PathBuf,
}

impl Clients {
    async fn psql_with_and_without_tls(&self) {
        for (mode, tls) in [("disable", "f"), ("require", "t")] {
            let sql = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";
            assert_eq!(
                psql_with(self.at, sql, &[("PGSSLMODE", mode)]).await.as_deref(),
                Ok(tls),
                "sslmode={mode}"
            );
        }
    }

    async fn pgbench(&self) {
        self.shell("pgbench --initialize --scale=2 --quiet").await;
        let out = self.shell("pgbench --client=8 --jobs=2 --transactions=200").await;
        assert!(
            out.contains("number of transactions actually processed: 1600/1600"),
            "{out}"
        );
        assert!(out.contains("number of failed transactions: 0"), "{out}");
        let out = self
            .shell("pgbench --select-only --connect --client=4 --transactions=50")
            .await;
        assert!(
            out.contains("number of transactions actually processed: 200/200"),
            "{out}"
        );
    }

    async fn psycopg(&self) {
        let python = cache().join("patroni/bin/python");
        let script = "import psycopg; c = psycopg.connect(''); \
                      print(c.execute('select pg_is_in_recovery(), %s::int * 2', (21,)).fetchone())";
        let out = self.shell(&format!("{} -c \"{script}\"", python.display())).await;
        assert_eq!(out.trim(), "(False, 42)");
    }

    async fn dump_and_restore(&self) {
        self.shell("createdb copy && pg_dump | psql --quiet --set=ON_ERROR_STOP=1 copy")
            .await;
        let sum = "select sum(abalance), count(*) from pgbench_accounts";
        let there = self.shell(&format!("psql -At -c '{sum}'")).await;
        let here = self.shell(&format!("psql -At -c '{sum}' copy")).await;
        assert_eq!(there, here);
        assert!(there.trim().ends_with("|200000"), "{there}");
    }

    /// Copies 1 GiB each way; the two have the same hash, and pgnorth counts at least that many bytes.
    async fn copy_both_ways(&self, product: &Product) {
        const LINES: u32 = 1024 * 1024;
        psql(self.at, "create unlogged table big (line text)")
            .await
            .expect("make the table");
        // 1023 characters and a line feed; none that COPY would escape.
        let script = format!(
            "import hashlib, sys\n\
             h = hashlib.sha256(); o = sys.stdout.buffer\n\
             for n in range({LINES}):\n \
               line = (b'%016d' % n * 64)[:1023] + b'\\n'; h.update(line); o.write(line)\n\
             sys.stderr.write(h.hexdigest())"
        );
        let file = self.folder.join("lines.py");
        std::fs::write(&file, script).expect("write the script");
        let copy_in = format!(
            "python3 {} | psql --quiet --set=ON_ERROR_STOP=1 -c 'copy big from stdin'",
            file.display()
        );
        let sent = self.shell(&format!("{{ {copy_in}; }} 2>&1 >/dev/null")).await;
        let received = self
            .shell("psql --quiet -c 'copy big to stdout' | sha256sum | cut -c 1-64")
            .await;
        assert_eq!(sent.trim().len(), 64, "{sent}");
        assert_eq!(sent.trim(), received.trim());
        for direction in ["client_to_leader", "leader_to_client"] {
            let bytes = product
                .metric("pgnorth_forwarded_bytes_total", &[("direction", direction)])
                .await;
            assert!(
                bytes.expect("bytes are counted") >= 1024.0 * f64::from(LINES),
                "{direction}: {bytes:?}"
            );
        }
        psql(self.at, "drop table big").await.expect("drop the table");
    }

    async fn listen_and_notify(&self) {
        let listen = "psql -c 'listen news' -c 'select pg_sleep(0)' -c \"select pg_notify('news', 'hello')\"";
        let out = self.shell(listen).await;
        assert!(
            out.contains("Asynchronous notification \"news\" with payload \"hello\""),
            "{out}"
        );
    }

    /// Cancels a query. The request comes on a connection of its own, which has to reach the same server.
    async fn cancel(&self) {
        let client = session(self.at).await.expect("a session");
        let cancel = client.cancel_token();
        let query = client.simple_query("select pg_sleep(600)");
        let stop = async {
            wait_until("the query runs", DEADLINE, async || {
                let sql =
                    "select count(*) from pg_stat_activity where query like '%pg_sleep(600)' and state = 'active'";
                (psql(self.at, sql).await.ok()? == "1").then_some(())
            })
            .await;
            cancel
                .cancel_query(tokio_postgres::NoTls)
                .await
                .expect("send the cancel request");
        };
        let (result, ()) = timeout(DEADLINE, async { tokio::join!(query, stop) })
            .await
            .expect("the query is cancelled");
        let error = result.expect_err("a cancelled query fails");
        assert_eq!(error.code().map(|code| code.code()), Some("57014"), "{error}");
    }

    async fn base_backup_and_wal_stream(&self) {
        let backup = self.folder.join("backup");
        self.shell(&format!(
            "pg_basebackup --pgdata={} --checkpoint=fast --wal-method=stream",
            backup.display()
        ))
        .await;
        self.shell(&format!(
            "/usr/lib/postgresql/15/bin/pg_verifybackup {}",
            backup.display()
        ))
        .await;
        let wal = self.folder.join("wal");
        std::fs::create_dir(&wal).expect("make the folder");
        let mut receiver = self.command(&format!("exec pg_receivewal --directory={} --no-loop", wal.display()));
        let mut receiver = receiver.stdout(Stdio::null()).spawn().expect("start pg_receivewal");
        let segments = || std::fs::read_dir(&wal).expect("the folder").count();
        wait_until("WAL streams", DEADLINE, async || {
            psql(self.at, "select pg_switch_wal()").await.ok()?;
            (segments() > 2).then_some(())
        })
        .await;
        receiver.kill().await.expect("stop pg_receivewal");
    }

    /// Runs a shell line with libpq's environment set to pgnorth. Returns its output, or panics with its error.
    async fn shell(&self, line: &str) -> String {
        let output = timeout(DEADLINE, self.command(line).output()).await;
        let output = output.unwrap_or_else(|_| panic!("hung: {line}")).expect("run sh");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{line}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new("bash");
        command.args(["-o", "pipefail", "-c", line]).kill_on_drop(true);
        command
            .env("PGHOST", self.at.ip().to_string())
            .env("PGPORT", self.at.port().to_string());
        command.envs([
            ("PGUSER", "postgres"),
            ("PGDATABASE", "postgres"),
            ("PGPASSWORD", PASSWORD),
        ]);
        command
    }
}
