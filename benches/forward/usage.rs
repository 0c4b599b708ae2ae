//! The resources of a contender: CPU time, memory and open files of a process and all its descendants; and the CPUs on
//! which it may run.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};

/// A page of memory in KiB, where it is not larger.
const PAGE_KIB: f64 = 4.0;

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

/// Returns the memory of the kernel's objects, and of all TCP buffers, of the whole machine, in KiB.
pub fn of_the_kernel() -> [f64; 2] {
    [objects(), tcp_buffers()]
}

/// Returns the memory of the objects that are in use. `Slab` in /proc/meminfo would include the free ones, which the
/// sessions of the contender before leave behind.
fn objects() -> f64 {
    let caches = fs::read_to_string("/proc/slabinfo").unwrap_or_default();
    let bytes = caches.lines().skip(2).filter_map(|line| {
        // The cache's name, objects in use, all objects, and the size of one.
        let mut numbers = line.split_whitespace().skip(1).map(str::parse::<f64>);
        let (used, _all, size) = (numbers.next()?.ok()?, numbers.next()?, numbers.next()?.ok()?);
        Some(used * size)
    });
    bytes.sum::<f64>() / 1024.0
}

fn tcp_buffers() -> f64 {
    let sockets = fs::read_to_string("/proc/net/sockstat").unwrap_or_default();
    // "TCP: inuse 1 orphan 0 tw 0 alloc 110 mem 0", in pages.
    let line = sockets.lines().find(|line| line.starts_with("TCP:"));
    let pages = line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    pages.unwrap_or(0.0) * PAGE_KIB
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
