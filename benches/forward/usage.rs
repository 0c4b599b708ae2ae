//! The resources of a contender: CPU time, memory and open files of a process and all its descendants; and the CPUs on
//! which it may run.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};

/// Returns a process and all its descendants.
pub fn tree(root: u32) -> Vec<u32> {
    let parents: BTreeMap<u32, u32> = numbers("/proc")
        .into_iter()
        .filter_map(|id| Some((id, parent(id)?)))
        .collect();
    let is_in = |mut id: u32| loop {
        if id == root {
            return true;
        }
        match parents.get(&id) {
            Some(parent) => id = *parent,
            None => return false,
        }
    };
    parents.keys().copied().filter(|id| is_in(*id)).collect()
}

/// Returns the CPU time of all their threads: the scheduler's own count, in nanoseconds. (utime and stime in
/// /proc/PID/stat are the same, in hundredths of a second.)
pub fn cpu(root: u32) -> Duration {
    let threads = tree(root).into_iter().flat_map(threads);
    let on_cpu = threads.filter_map(|thread| {
        let text = fs::read_to_string(format!("/proc/{thread}/task/{thread}/schedstat")).ok()?;
        text.split(' ').next()?.parse().ok().map(Duration::from_nanos)
    });
    on_cpu.sum()
}

/// Returns their resident memory in KiB.
pub fn resident(root: u32) -> u64 {
    let sizes = tree(root).into_iter().filter_map(|id| {
        // Exact, unlike the figure in /proc/PID/statm, which lags.
        let text = fs::read_to_string(format!("/proc/{id}/smaps_rollup")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("Rss:"))?;
        line.trim().trim_end_matches(" kB").parse::<u64>().ok()
    });
    sizes.sum()
}

/// Returns the number of their open files.
pub fn files(root: u32) -> usize {
    let folders = tree(root).into_iter().map(|id| format!("/proc/{id}/fd"));
    folders.map(|folder| numbers(&folder).len()).sum()
}

/// Restricts all threads of these processes, and those that they start later, to these CPUs.
pub fn pin(roots: &[u32], cpus: &[usize]) {
    let mut set = CpuSet::new();
    cpus.iter().for_each(|cpu| set.set(*cpu));
    for thread in roots.iter().flat_map(|root| tree(*root)).flat_map(threads) {
        // A thread that has ended meanwhile needs no CPU.
        let _ended = sched_setaffinity(i32::try_from(thread).ok().and_then(Pid::from_raw), &set);
    }
}

fn threads(process: u32) -> Vec<u32> {
    numbers(&format!("/proc/{process}/task"))
}

/// Returns a process's parent. The program's name is in parentheses, and may contain spaces.
fn parent(process: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split(' ').nth(1)?.parse().ok()
}

/// Returns the entries of a folder that are numbers.
fn numbers(folder: &str) -> Vec<u32> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}
