//! The soak: TPC-B through 200 sessions that come and go, and a fault a minute, for hours. Nothing that a pgnorth uses grows.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::cluster::{Cluster, Pgnorth};
use super::faults::Fault;
use super::history::History;
use super::tpcb::{self, TpcB};
use super::trial::recovered;
use super::usage::{self, METERS, Sample};
use super::watch::Watch;
use crate::support::http::{Http, Request};
use crate::support::pgnorth::sum;
use crate::support::random::{Random, seed};
use crate::support::{Dcs, session};

/// Sessions of each pgnorth.
const SESSIONS: usize = 100;
const FAULT_EVERY: Duration = Duration::from_secs(60);
const SAMPLE_EVERY: Duration = Duration::from_secs(5);

/// Histograms whose means are sampled: name and labels.
const HISTOGRAMS: [(&str, &[(&str, &str)]); 2] = [
    ("pgnorth_dial_seconds", &[("outcome", "ok")]),
    ("pgnorth_hold_seconds", &[]),
];

/// One pgnorth, as it is sampled.
struct Sampled<'a> {
    pgnorth: &'a Pgnorth,
    http: &'a Http,
    samples: Vec<Sample>,
    /// Sum and count of each histogram at the last sample.
    last: [[f64; 2]; HISTOGRAMS.len()],
}

/// PGNORTH_HOURS is its length, which may be a fraction.
#[tokio::test]
#[ignore = "takes hours: make test-soak"]
async fn soak() {
    let hours = std::env::var("PGNORTH_HOURS").map_or(1.0, |hours| hours.parse().expect("a number of hours"));
    let (seed, length) = (seed(), Duration::from_secs_f64(hours * 3600.0));
    eprintln!("{length:?}, PGNORTH_SEED={seed}");
    let history = History::begin(seed);
    let cluster = Cluster::start(history.folder(), Dcs::Etcd, false).await;
    TpcB::prepare(cluster.rig.leader().await).await;
    let watch = Watch::start(&cluster).await;
    let addresses: Vec<_> = cluster.pgnorths.iter().map(Pgnorth::address).collect();
    let mut clients = TpcB::start(&addresses, SESSIONS, &mut Random(!seed));
    recovered(&cluster, &watch).await;

    let end = Instant::now() + length;
    let (samples, faults) = tokio::join!(sample_until(end, &cluster), strike_until(end, seed, &cluster, &watch));
    eprintln!("{faults} faults; {}", clients.finish().await);
    let mut grown = Vec::new();
    for (number, samples) in samples.iter().enumerate() {
        eprintln!("pgnorth {number}, {} samples", samples.len());
        grown.extend(
            growth(samples)
                .into_iter()
                .map(|text| format!("pgnorth {number}: {text}")),
        );
    }
    let session = session(addresses[0]).await.expect("a session for the last read");
    let sums = tpcb::sums(&session).await.expect("the sums");
    assert!(
        sums.windows(2).all(|two| two[0] == two[1]),
        "a part of a transaction is lost: {sums:?}"
    );
    assert!(grown.is_empty(), "{grown:#?}");
}

/// Strikes once a minute; returns the number of faults. No pgnorth is killed: a new process would hide what the old one used.
async fn strike_until(end: Instant, seed: u64, cluster: &Cluster, watch: &Watch) -> usize {
    let (mut random, mut faults) = (Random(seed), 0);
    let mut next = Instant::now() + FAULT_EVERY;
    while next < end {
        sleep_until(next).await;
        let fault = Fault::choose(&mut random, cluster, recovered(cluster, watch).await);
        if !fault.ends_pgnorth() {
            eprintln!("{fault}");
            fault.strike(cluster).await;
            tokio::time::sleep(fault.lasts).await;
            fault.heal(cluster);
            recovered(cluster, watch).await;
            faults += 1;
            next = Instant::now().max(next + FAULT_EVERY);
        }
    }
    sleep_until(end).await;
    faults
}

/// Returns the samples of each pgnorth.
async fn sample_until(end: Instant, cluster: &Cluster) -> Vec<Vec<Sample>> {
    let sampled = |pgnorth| Sampled {
        pgnorth,
        http: cluster.rig.http(),
        samples: Vec::new(),
        last: Default::default(),
    };
    let mut all: Vec<_> = cluster.pgnorths.iter().map(sampled).collect();
    let mut next = Instant::now();
    while next < end {
        sleep_until(next).await;
        for one in &mut all {
            one.sample().await;
        }
        next += SAMPLE_EVERY;
    }
    all.into_iter().map(|one| one.samples).collect()
}

impl Sampled<'_> {
    async fn sample(&mut self) {
        let [memory, descriptors, threads] = usage::of_process(self.pgnorth.id()).expect("pgnorth runs");
        let [sockets, queued] = usage::of_sockets(&self.pgnorth.sockets());
        let previous = self.samples.last().map_or([0.0, 0.0], |sample| [sample[5], sample[6]]);
        let [dial, hold] = self.means(previous).await;
        self.samples
            .push([memory, descriptors, threads, sockets, queued, dial, hold]);
    }

    /// Returns the mean of each histogram since the last sample, in ms; the previous one if there is no new value.
    async fn means(&mut self, mut means: [f64; HISTOGRAMS.len()]) -> [f64; HISTOGRAMS.len()] {
        // A frozen pgnorth does not answer.
        let Ok(answer) = self.http.ask(&Request::get(&self.pgnorth.url("/metrics"))).await else {
            return means;
        };
        for (number, (name, labels)) in HISTOGRAMS.into_iter().enumerate() {
            let value = |kind: &str| sum(&answer.body, &format!("{name}_{kind}"), labels).unwrap_or_default();
            let now = [value("sum"), value("count")];
            let [sum, count] = [0, 1].map(|index| now[index] - self.last[number][index]);
            if count > 0.0 {
                means[number] = sum / count * 1000.0;
            }
            self.last[number] = now;
        }
        means
    }
}

/// Prints a chart of each meter; returns what has grown.
fn growth(samples: &[Sample]) -> Vec<String> {
    let mut grown = Vec::new();
    for (number, meter) in METERS.iter().enumerate() {
        let values: Vec<f64> = samples.iter().map(|sample| sample[number]).collect();
        let parts = usage::parts(&values);
        eprintln!("{}", usage::chart(meter.name, &parts));
        let growth = usage::growth(meter, &parts);
        grown.extend(growth.map(|growth| format!("{} has grown by {growth:.1}: {parts:.1?}", meter.name)));
    }
    grown
}
