//! The status as text for a terminal (pure). Text from outside can neither break a line nor control the terminal.

use std::fmt::{Display, Write};

use crate::admin::status::{
    ClusterStatus, LockStatus, Member, ReportSource, RouteStatus, Series, Sessions, StateName, Status, Treatment,
};
use crate::recorder::{Failover, OngoingChange};

/// The lock's bar, in characters.
const BAR: usize = 20;
/// Number of changes of leader shown.
const FAILOVERS: usize = 3;

const GREEN: &str = "32";
const YELLOW: &str = "33";
const RED: &str = "31";
const BOLD: &str = "1";
const DIM: &str = "2";

/// The text under construction, with or without colour.
struct Page {
    text: String,
    colour: bool,
}

/// Returns the whole status, with a line break at the end.
pub(super) fn page(status: &Status, colour: bool) -> String {
    let mut page = Page {
        text: String::new(),
        colour,
    };
    page.headline(status);
    page.line("");
    if let Some(lock) = &status.lock {
        page.lock(lock);
    }
    if let Some(sessions) = &status.sessions {
        page.sessions(sessions, &status.history);
    }
    page.sources(status);
    page.foreign(status);
    page.members(&status.members);
    page.routes(&status.routes);
    page.failovers(status);
    page.text
}

/// Returns the text for a status that cannot be read.
pub(super) fn no_contact(why: &dyn Display, colour: bool) -> String {
    let mut page = Page {
        text: String::new(),
        colour,
    };
    let word = page.painted("NO CONTACT", RED);
    page.line(&format!("{word}  {}", escaped(&why.to_string())));
    page.text
}

impl Page {
    fn line(&mut self, line: &str) {
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }

    fn painted(&self, text: &str, code: &str) -> String {
        match self.colour {
            true => format!("\x1b[{code}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }

    fn headline(&mut self, status: &Status) {
        let (word, code, what) = match status.state {
            StateName::Route => ("ROUTING", GREEN, "new clients go to the leader"),
            StateName::Hold => ("HOLDING", YELLOW, "new clients wait"),
            StateName::Fence => ("FENCING", RED, "new clients wait; sessions to the primary were ended"),
        };
        let word = self.painted(word, code);
        self.line(&format!("{word} for {}: {what}", time(status.state_seconds)));
        self.line(&format!("  because   {}", escaped(&status.reason)));
        let leader = match &status.leader {
            Some(leader) => {
                let name = self.painted(&escaped(&leader.member), BOLD);
                let timeline = leader
                    .timeline
                    .map_or(String::new(), |number| format!(", timeline {number}"));
                let since = status.since.as_deref().unwrap_or_default();
                let address = escaped(&leader.address);
                format!(
                    "{name} at {address}{timeline}, for {} (since {})",
                    time(status.since_seconds),
                    escaped(since)
                )
            }
            None => format!("none for {}", time(status.since_seconds)),
        };
        self.line(&format!("  leader    {leader}"));
        if status.readiness != "ready" {
            self.line(&format!("  readiness {}", escaped(&status.readiness)));
        }
        if status.paused {
            self.line("  paused    Patroni is paused: no automatic failover");
        }
        if let Some(switchover) = &status.switchover {
            let name = |member: &Option<String>| escaped(member.as_deref().unwrap_or("any member"));
            let when = switchover.scheduled_at.as_deref().unwrap_or("now");
            let (from, to) = (name(&switchover.from), name(&switchover.to));
            self.line(&format!(
                "  announced a switchover from {from} to {to}: {}",
                escaped(when)
            ));
        }
        if let Some(trouble) = &status.trouble {
            self.trouble(trouble);
        }
    }

    fn trouble(&mut self, trouble: &OngoingChange) {
        let mut line = format!(
            "first sign {} ago: {}",
            time(trouble.for_seconds),
            escaped(&trouble.first_sign)
        );
        if let (Some(member), Some(after)) = (&trouble.lock_moved_to, trouble.lock_moved_after_seconds) {
            let _infallible = write!(line, "; the lock moved to {} after {}", escaped(member), time(after));
        }
        self.line(&format!("  trouble   {line}"));
    }

    fn lock(&mut self, lock: &LockStatus) {
        let left = lock.ttl_seconds - lock.age_seconds;
        let part = (left / lock.ttl_seconds).clamp(0.0, 1.0);
        let full = (part * BAR as f64).round() as usize;
        let bar = format!("{}{}", "#".repeat(full), "-".repeat(BAR - full));
        let code = match part {
            part if part > 0.5 => GREEN,
            part if part > 0.2 => YELLOW,
            _ => RED,
        };
        let bar = self.painted(&bar, code);
        let (ttl, member) = (format!("{:.0} s", lock.ttl_seconds), escaped(&lock.member));
        let text = match left > 0.0 {
            true => format!("{} of {ttl} left, held by {member}", time(left)),
            false => format!("expired {} ago, held by {member} (ttl {ttl})", time(-left)),
        };
        self.line(&format!("  lock      [{bar}] {text}"));
    }

    fn sessions(&mut self, sessions: &Sessions, history: &Series) {
        let Sessions {
            held,
            dialling,
            forwarding,
            max,
            ..
        } = sessions;
        let mut waiting = format!("{held} held");
        if let Some(oldest) = sessions.oldest_wait_seconds {
            let _infallible = write!(waiting, ", the oldest for {}", time(oldest));
        }
        if *held > 0 {
            waiting = self.painted(&waiting, YELLOW);
        }
        self.line(&format!(
            "  sessions  {forwarding} forwarding, {dialling} dialling, {waiting} (at most {max})"
        ));
        let last = |values: &[u64]| bytes(values.last().copied().unwrap_or_default());
        let (to_leader, to_client) = (last(&history.to_leader), last(&history.to_client));
        self.line(&format!(
            "  traffic   {to_leader}/s to the leader, {to_client}/s to clients"
        ));
    }

    fn sources(&mut self, status: &Status) {
        for source in &status.sources {
            let word = match source.up {
                true => self.painted("up", GREEN),
                false => self.painted("DOWN", RED),
            };
            let (name, detail) = (escaped(&source.name), escaped(&source.detail));
            self.line(&format!("  source    {name} is {word}: {detail}"));
        }
    }

    fn foreign(&mut self, status: &Status) {
        let name = |known: Option<&String>| escaped(known.map_or("unknown", String::as_str));
        let both = |cluster: &ClusterStatus| {
            let (scope, system) = (name(cluster.scope.as_ref()), name(cluster.system.as_ref()));
            format!("scope {scope}, system identifier {system}")
        };
        for foreign in &status.foreign {
            let word = self.painted("ANOTHER CLUSTER", RED);
            let (at, theirs, ours) = (escaped(&foreign.at), both(&foreign.cluster), both(&status.cluster));
            self.line(&format!(
                "  foreign   {word} answers for {at}: {theirs}; ignored, because pgnorth follows {ours}"
            ));
        }
    }

    fn members(&mut self, members: &[Member]) {
        if members.is_empty() {
            return;
        }
        let mut rows = vec![["", "MEMBER", "ROLE", "STATE", "TIMELINE", "LAG", "LAST REPORT"].map(str::to_owned)];
        rows.extend(members.iter().map(row));
        let wide = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..7).map(wide).collect();
        self.line("");
        for (number, row) in rows.iter().enumerate() {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
            let line = cells.collect::<Vec<_>>().join("  ");
            let line = line.trim_end();
            let line = if number == 0 {
                self.painted(line, DIM)
            } else {
                line.to_owned()
            };
            self.line(&line);
            if let Some(silent) = number.checked_sub(1).and_then(|at| members[at].silent.as_deref()) {
                self.line(&format!("     its REST API failed: {}", escaped(silent)));
            }
        }
    }

    /// Writes the routes if there is more than one.
    fn routes(&mut self, routes: &[RouteStatus]) {
        if routes.len() < 2 {
            return;
        }
        self.line("");
        let heading = self.painted("ROUTES", DIM);
        self.line(&heading);
        for route in routes {
            let word = match route.open {
                true => self.painted("open", GREEN),
                false => self.painted("HELD", YELLOW),
            };
            self.line(&format!(
                "{}{} on {}: {word}",
                escaped(&route.route),
                target_of(route),
                escaped(&route.address)
            ));
            for member in &route.members {
                let sessions = member.sessions;
                let (name, reason) = (escaped(&member.name), member.reason.as_deref());
                let fit = match member.treatment {
                    Treatment::Fit => format!("{name} is fit"),
                    Treatment::Closed => format!(
                        "{}; its sessions stay",
                        escaped(reason.unwrap_or("new clients are held"))
                    ),
                    Treatment::Out => format!("{}; its sessions end", escaped(reason.unwrap_or_default())),
                };
                let to = member.address.as_deref().unwrap_or("an unknown address");
                self.line(&format!("    {fit}, {sessions} sessions to {}", escaped(to)));
            }
        }
    }

    fn failovers(&mut self, status: &Status) {
        if status.failovers.is_empty() {
            return;
        }
        self.line("");
        let heading = self.painted("LAST CHANGES OF LEADER", DIM);
        self.line(&heading);
        for failover in status.failovers.iter().take(FAILOVERS) {
            self.failover(failover);
        }
    }

    fn failover(&mut self, failover: &Failover) {
        let began = escaped(failover.began.as_deref().unwrap_or("?"));
        let (from, to) = (escaped(&failover.from), escaped(&failover.to));
        let total = time(failover.writable_after_seconds);
        self.line(&format!("{began}  {from} -> {to}, writable after {total}"));
        let mut phases = Vec::new();
        if let Some(lock) = failover.lock_moved_after_seconds {
            phases.push(format!("lock {}", time(lock)));
            phases.push(format!("promotion {}", time(failover.writable_after_seconds - lock)));
        }
        if let Some(first) = failover.first_session_after_seconds {
            phases.push(format!("first session {}", time(first)));
        }
        if let Some(sessions) = failover.sessions_cut {
            phases.push(format!("{sessions} sessions cut"));
        }
        let longest = time(failover.longest_hold_seconds.unwrap_or_default());
        phases.push(match failover.clients_held {
            None => format!("no leader for new clients for {}", time(failover.held_seconds)),
            Some(0) => "no client waited".to_owned(),
            Some(held) => format!("{held} clients waited, at most {longest}"),
        });
        self.line(&format!("    {}", phases.join(", ")));
        self.line(&format!("    first sign: {}", escaped(&failover.first_sign)));
        if let Some(haproxy) = &failover.haproxy {
            self.line(&format!("    {}", escaped(&haproxy.summary)));
        }
    }
}

fn row(member: &Member) -> [String; 7] {
    let or_dash = |text: Option<&str>| escaped(text.unwrap_or("-"));
    let last_report = member.heard_seconds.map(time).unwrap_or_else(|| "-".to_owned());
    let last_report = match member.heard_from {
        Some(ReportSource::Rest) => format!("{last_report} ago, from itself"),
        Some(ReportSource::Pod) => format!("status in the DCS, watched; unchanged for {last_report}"),
        Some(ReportSource::Cluster) => format!("{last_report} ago, from /cluster"),
        None => "none yet".to_owned(),
    };
    [
        if member.leads { "*" } else { "" }.to_owned(),
        escaped(&member.name),
        or_dash(member.role.as_deref()),
        or_dash(member.state.as_deref()),
        member.timeline.map_or("-".to_owned(), |timeline| timeline.to_string()),
        member.lag_bytes.map_or("-".to_owned(), bytes),
        last_report,
    ]
}

/// Returns the target of a route as a suffix of its name; empty for PostgreSQL itself.
fn target_of(route: &RouteStatus) -> String {
    match route.target.as_str() {
        "" | "postgres" => String::new(),
        target => format!(",target={}", escaped(target)),
    }
}

/// Formats seconds with at most two units.
fn time(seconds: f64) -> String {
    let whole = seconds.max(0.0) as u64;
    let (days, hours, minutes) = (whole / 86_400, whole / 3_600 % 24, whole / 60 % 60);
    match seconds {
        seconds if seconds < 1.0 => format!("{:.0} ms", seconds.max(0.0) * 1_000.0),
        seconds if seconds < 60.0 => format!("{seconds:.1} s"),
        _ if whole < 3_600 => format!("{minutes} min {} s", whole % 60),
        _ if whole < 86_400 => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

fn bytes(count: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1_000.0 && unit + 1 < units.len() {
        value /= 1_000.0;
        unit += 1;
    }
    match unit {
        0 => format!("{count} B"),
        _ => format!("{value:.1} {}", units[unit]),
    }
}

/// Escapes control characters, which a terminal would act on.
fn escaped(text: &str) -> String {
    let safe = |letter: char| match letter.is_control() {
        true => letter.escape_default().to_string(),
        false => letter.to_string(),
    };
    text.chars().map(safe).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_rounded_as_people_read_them() {
        for (seconds, text) in [
            (-1.0, "0 ms"),
            (0.0, "0 ms"),
            (0.0071, "7 ms"),
            (1.13, "1.1 s"),
            (61.0, "1 min 1 s"),
            (7_380.0, "2 h 3 min"),
            (200_000.0, "2 d 7 h"),
        ] {
            assert_eq!(time(seconds), text, "{seconds}");
        }
        for (count, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_500, "1.5 kB"),
            (u64::MAX, "18446744.1 TB"),
        ] {
            assert_eq!(bytes(count), text, "{count}");
        }
    }

    #[test]
    fn nothing_from_outside_commands_the_terminal() {
        let text = no_contact(&"\x1b[2Jgone\r\nHOLDING", false);
        assert_eq!(text, "NO CONTACT  \\u{1b}[2Jgone\\r\\nHOLDING\n");
    }
}
