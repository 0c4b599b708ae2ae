//! PostgreSQL's own suites, on a direct connection and through pgnorth: the results are the same, file by file.
//!
//! Patroni's settings make a few of their tests fail on a direct connection, too; what counts is that pgnorth changes nothing.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use crate::support::psql::PASSWORD;
use crate::support::rig::cache;
use crate::support::{Dcs, Product, Rig};

/// One run of one suite: far longer than it takes on two busy cores.
const RUN: Duration = Duration::from_secs(20 * 60);

/// One of the suites in PostgreSQL's source, below `src/test`.
struct Suite {
    folder: &'static str,
    program: &'static str,
    schedule: &'static str,
    database: &'static str,
    /// Fewer results than this mean that the suite did not run.
    least: usize,
}

const REGRESS: Suite = Suite {
    folder: "regress",
    program: "pg_regress",
    schedule: "parallel_schedule",
    database: "regression",
    least: 200,
};

const ISOLATION: Suite = Suite {
    folder: "isolation",
    program: "pg_isolation_regress",
    schedule: "isolation_schedule",
    database: "isolation_regression",
    least: 90,
};

/// Result of one run.
struct Outcome {
    /// Each test's output by its name.
    results: BTreeMap<String, String>,
    /// The tests that did not give the expected result.
    failed: Vec<String>,
}

#[tokio::test]
async fn postgresqls_own_suites_give_the_same_results_through_pgnorth() {
    let rig = Rig::start(Dcs::Etcd).await;
    let product = Product::start(&rig, &[], &[]).await;
    product.wait_until_writable(Duration::from_secs(30)).await;
    for suite in [&REGRESS, &ISOLATION] {
        let direct = suite.run(&rig, "direct", rig.member(0).address()).await;
        let through = suite.run(&rig, "pgnorth", product.address()).await;
        let names = |outcome: &Outcome| outcome.results.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&direct), names(&through));
        for (name, result) in &direct.results {
            assert!(
                *result == through.results[name],
                "{name}:\n{}",
                differing(result, &through.results[name])
            );
        }
        println!(
            "{}: {} results, all the same through pgnorth; not as expected either way: {:?}",
            suite.program,
            direct.results.len(),
            direct.failed,
        );
        assert_eq!(direct.failed, through.failed);
    }
}

impl Suite {
    async fn run(&self, rig: &Rig, way: &str, address: SocketAddr) -> Outcome {
        let suites = cache().join("postgresql-suites");
        let input = suites.join("source/src/test").join(self.folder);
        assert!(input.is_dir(), "{}: `make test` builds it", input.display());
        let output = rig.folder().join(format!("{}-{way}", self.folder));
        fs::create_dir(&output).unwrap();
        let status = Command::new("chown")
            .arg("postgres:postgres")
            .arg(&output)
            .status()
            .await
            .unwrap();
        assert!(status.success());
        let argument = |name: &str, value: &Path| format!("--{name}={}", value.display());
        let mut run = Command::new("setpriv");
        run.args(["--reuid", "postgres", "--regid", "postgres", "--init-groups"])
            .arg(suites.join("bin").join(self.program))
            .args([argument("inputdir", &input), argument("outputdir", &output)])
            .arg(argument("schedule", &input.join(self.schedule)))
            .arg(argument("dlpath", &suites.join("bin")))
            .args([
                "--bindir=/usr/lib/postgresql/15/bin",
                "--user=postgres",
                "--max-concurrent-tests=20",
            ])
            .args([format!("--host={}", address.ip()), format!("--port={}", address.port())])
            .arg(format!("--dbname={}", self.database))
            .env("PGPASSWORD", PASSWORD)
            .current_dir(&output)
            .kill_on_drop(true);
        let ran = timeout(RUN, run.output()).await.expect("the suite ends").unwrap();
        let printed = String::from_utf8_lossy(&ran.stdout).into_owned();
        assert!(
            printed.contains("test") && ran.status.code().is_some(),
            "{printed}{}",
            String::from_utf8_lossy(&ran.stderr)
        );
        let results = results(&output);
        assert!(
            results.len() >= self.least,
            "{} results of {}: {printed}{}",
            results.len(),
            self.program,
            String::from_utf8_lossy(&ran.stderr)
        );
        Outcome {
            results,
            failed: failed(&printed),
        }
    }
}

/// Every file of `results`, with the name of the folder taken out: some tests print paths.
fn results(output: &Path) -> BTreeMap<String, String> {
    let files = fs::read_dir(output.join("results")).expect("the suite left results");
    let outputs = files
        .map(|file| file.unwrap().path())
        .filter(|file| file.extension().is_some_and(|extension| extension == "out"));
    let folder = output.to_str().unwrap();
    let named = |file: PathBuf| {
        let text = String::from_utf8_lossy(&fs::read(&file).unwrap()).replace(folder, "OUTPUT");
        (file.file_stem().unwrap().to_string_lossy().into_owned(), text)
    };
    outputs.map(named).collect()
}

/// Names of failed tests in pg_regress's output: `test strings   ... FAILED   123 ms`, or `     strings   ... FAILED` within a group.
fn failed(printed: &str) -> Vec<String> {
    let lines = printed
        .lines()
        .filter(|line| line.contains("... FAILED") || line.contains("... failed"));
    let mut names: Vec<_> = lines
        .filter_map(|line| line.trim_start().trim_start_matches("test ").split_whitespace().next())
        .map(str::to_owned)
        .collect();
    names.sort_unstable();
    names
}

/// The first lines that differ, for people.
fn differing(one: &str, other: &str) -> String {
    let pairs = one
        .lines()
        .zip(other.lines())
        .filter(|(one, other)| one != other)
        .take(10);
    pairs
        .map(|(one, other)| format!("direct:  {one}\npgnorth: {other}\n"))
        .collect()
}
