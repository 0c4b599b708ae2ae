//! The resources of a process, and their growth (pure).

use std::fs;

/// The resources that a process uses at one time.
pub type Sample = [f64; METERS.len()];

/// A meter: its name, and the growth over a whole run that is no growth: of its median value, and in its unit.
pub struct Meter {
    pub name: &'static str,
    share: f64,
    least: f64,
}

const fn meter(name: &'static str, share: f64, least: f64) -> Meter {
    Meter { name, share, least }
}

/// The meters, in the order of a sample. The number of sessions varies with the faults, and with it all others.
pub const METERS: [Meter; 7] = [
    meter("resident memory, MiB", 0.1, 2.0),
    meter("descriptors", 0.1, 16.0),
    meter("threads", 0.0, 1.0),
    meter("TCP sockets", 0.1, 16.0),
    meter("kernel memory of sockets, KiB", 0.5, 256.0),
    meter("dial, ms", 1.0, 10.0),
    meter("hold, ms", 1.0, 50.0),
];

/// Number of parts into which a run is divided. The first quarter is left out, in which caches and pools fill.
const PARTS: usize = 16;

/// Returns the process's resident memory in MiB, its descriptors and its threads.
pub fn of_process(id: u32) -> Option<[f64; 3]> {
    let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<f64>().ok()
    };
    let descriptors = fs::read_dir(format!("/proc/{id}/fd")).ok()?.count();
    Some([field("VmRSS:")? / 1024.0, descriptors as f64, field("Threads:")?])
}

/// Returns the number of sockets and the KiB of kernel memory in their queues, from the output of `ss -tmnH`.
pub fn of_sockets(ss: &str) -> [f64; 2] {
    let mut bytes = 0.0;
    let mut count = 0.0;
    for memory in ss.split("skmem:(").skip(1) {
        count += 1.0;
        let fields = memory.split(')').next().unwrap_or_default().split(',');
        // Received, sent, reserved, queued, backlog; the others are limits.
        let queued = fields.filter_map(|field| match field.split_at_checked(1)? {
            ("r" | "t" | "f" | "w", number) => number.parse::<f64>().ok(),
            _ => None,
        });
        bytes += queued.sum::<f64>();
    }
    [count, bytes / 1024.0]
}

/// Returns the median of each part of a run.
pub fn parts(values: &[f64]) -> Vec<f64> {
    let size = values.len().div_ceil(PARTS).max(1);
    values.chunks(size).map(median).collect()
}

/// Returns the growth of these parts from the first quarter to the end, if it is more than the meter allows.
pub fn growth(meter: &Meter, parts: &[f64]) -> Option<f64> {
    let later = &parts[parts.len() / 4..];
    let growth = slope(later) * later.len().saturating_sub(1) as f64;
    (growth > (median(later) * meter.share).max(meter.least)).then_some(growth)
}

/// Returns the slope per part: the median of the slopes of all pairs (Theil and Sen), which a few outliers do not change.
fn slope(parts: &[f64]) -> f64 {
    let pairs = (0..parts.len()).flat_map(|later| (0..later).map(move |earlier| (earlier, later)));
    let slopes: Vec<f64> = pairs
        .map(|(earlier, later)| (parts[later] - parts[earlier]) / (later - earlier) as f64)
        .collect();
    median(&slopes)
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

/// Draws the parts as bars between zero and the largest value, with the first and the last one.
pub fn chart(name: &str, parts: &[f64]) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = parts.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
    // From 0 to 7: neither sign nor fraction is left.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 7")]
    let bars: String = parts
        .iter()
        .map(|part| BARS[(part / most * 7.0).round() as usize])
        .collect();
    let (first, last) = (parts.first().unwrap_or(&0.0), parts.last().unwrap_or(&0.0));
    format!("{name:32} {bars} {first:9.1} → {last:9.1}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: Meter = meter("any", 0.1, 2.0);

    #[test]
    fn a_leak_grows_and_noise_does_not() {
        let leak: Vec<f64> = (0..16).map(|part| 100.0 + 2.0 * f64::from(part)).collect();
        let found = growth(&ANY, &leak).unwrap();
        assert!((found - 22.0).abs() < 0.01, "{found}");
        let noise = [
            100.0, 130.0, 90.0, 101.0, 99.0, 250.0, 100.0, 98.0, 103.0, 97.0, 100.0, 99.0,
        ];
        assert_eq!(growth(&ANY, &noise), None);
    }

    #[test]
    fn what_fills_in_the_first_quarter_is_no_growth() {
        let mut parts = vec![10.0, 40.0, 70.0, 100.0];
        parts.extend([100.0; 12]);
        assert_eq!(growth(&ANY, &parts), None);
    }

    #[test]
    fn each_part_is_its_median() {
        let values: Vec<f64> = (0..48).map(f64::from).collect();
        assert_eq!(parts(&values).len(), 16);
        assert_eq!(parts(&values)[..2], [1.0, 4.0]);
        assert_eq!(parts(&[7.0]), [7.0]);
    }

    #[test]
    fn queues_of_sockets_are_added_up() {
        let ss = "ESTAB 0 0 10.0.0.1:5432 10.0.0.2:1\t skmem:(r1024,rb131072,t0,tb87040,f1024,w0,o0,bl0,d0)\n\
                  ESTAB 0 0 10.0.0.1:5432 10.0.0.2:2\t skmem:(r0,rb131072,t2048,tb87040,f0,w0,o0,bl0,d0)\n";
        assert_eq!(of_sockets(ss), [2.0, 4.0]);
    }

    #[test]
    fn a_chart_shows_growth() {
        assert!(chart("any", &[1.0, 2.0, 8.0]).contains("▂▃█"));
    }
}
