//! The processes of a program in this world, and their memory.

use std::fs;

/// Processes of a program.
pub struct Usage {
    pub processes: usize,
    /// Memory of all, each shared page counted once: the sum of their proportional set sizes.
    pub mebibytes: f64,
}

/// Returns the ids of the processes that run this program, the oldest first.
pub fn processes(program: &str) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    // A process that has ended has no program.
    let runs_it = |id: &u32| {
        let running = fs::read_link(format!("/proc/{id}/exe"));
        running.is_ok_and(|running| running.file_name().is_some_and(|name| name == program))
    };
    let mut ids: Vec<u32> = ids.filter(runs_it).collect();
    ids.sort_unstable();
    ids
}

/// Returns the usage of all of them.
pub fn usage(program: &str) -> Usage {
    let ids = processes(program);
    let kibibytes = ids.iter().filter_map(|id| {
        let text = fs::read_to_string(format!("/proc/{id}/smaps_rollup")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
        line.trim().trim_end_matches(" kB").parse::<f64>().ok()
    });
    Usage {
        mebibytes: kibibytes.sum::<f64>() / 1024.0,
        processes: ids.len(),
    }
}
