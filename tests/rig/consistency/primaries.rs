//! Each acknowledged write came from the primary (pure): the server was not in recovery, no other server wrote on its
//! timeline, and nothing had been acknowledged on a newer timeline before the transaction began.

use std::collections::HashMap;
use std::time::Instant;

use super::workload::Server;

/// An acknowledged transaction.
#[derive(Clone, Copy, Debug)]
pub struct Acknowledged<'a> {
    pub started: Instant,
    pub ended: Instant,
    pub server: &'a Server,
}

/// Returns what contradicts the claim.
pub fn check(acknowledged: &[Acknowledged]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut owners: HashMap<u32, &str> = HashMap::new();
    for Acknowledged { server, .. } in acknowledged {
        if server.recovers {
            wrong.push(format!("a server in recovery acknowledged a write: {server:?}"));
        }
        let owner = owners.entry(server.timeline).or_insert(&server.address);
        if *owner != server.address {
            wrong.push(format!(
                "{} wrote on timeline {} of {owner}",
                server.address, server.timeline
            ));
        }
    }
    let mut by_start: Vec<_> = acknowledged.iter().collect();
    by_start.sort_by_key(|transaction| transaction.started);
    let mut by_end: Vec<_> = acknowledged.iter().collect();
    by_end.sort_by_key(|transaction| transaction.ended);
    let mut ended = by_end.into_iter().peekable();
    let mut newest = 0;
    for Acknowledged { started, server, .. } in by_start {
        while let Some(earlier) = ended.next_if(|earlier| earlier.ended < *started) {
            newest = newest.max(earlier.server.timeline);
        }
        if server.timeline < newest {
            wrong.push(format!(
                "{server:?} acknowledged a write that began after one on timeline {newest}"
            ));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Checks transactions: beginning and end in ms, last digit of the address, timeline, and recovery.
    fn wrong(rows: &[(u64, u64, u8, &str, bool)]) -> String {
        let zero = Instant::now();
        let at = |millis| zero + Duration::from_millis(millis);
        let server = |row: &(u64, u64, u8, &str, bool)| Server::new(&format!("10.0.0.{}", row.2), row.3, row.4);
        let servers: Vec<_> = rows.iter().map(server).collect();
        let acknowledged = rows.iter().zip(&servers).map(|(row, server)| Acknowledged {
            started: at(row.0),
            ended: at(row.1),
            server,
        });
        check(&acknowledged.collect::<Vec<_>>()).join("; ")
    }

    #[test]
    fn a_former_primary_acknowledges_nothing_that_began_after_its_successor_did() {
        assert_eq!(
            wrong(&[(0, 5, 1, "1", false), (6, 9, 2, "2", false), (10, 11, 2, "2", false)]),
            ""
        );
        assert_eq!(
            wrong(&[(0, 20, 1, "1", false), (6, 9, 2, "2", false)]),
            "",
            "it began before"
        );
        let late = wrong(&[(0, 5, 1, "1", false), (6, 9, 2, "2", false), (10, 11, 1, "1", false)]);
        assert!(late.contains("began after one on timeline 2"), "{late}");
    }

    #[test]
    fn two_servers_never_write_on_one_timeline() {
        let two = wrong(&[(0, 5, 1, "A", false), (6, 9, 2, "A", false)]);
        assert!(two.contains("10.0.0.2 wrote on timeline 10 of 10.0.0.1"), "{two}");
    }

    #[test]
    fn a_server_in_recovery_acknowledges_no_write() {
        assert!(wrong(&[(0, 5, 1, "1", true)]).contains("in recovery"));
    }
}
