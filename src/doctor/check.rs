//! One line of the report: the result, the subject, the facts that were found, and the fix (pure).

use std::fmt;

use serde::Serialize;

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// No problem.
    Ok,
    /// A problem that does not stop pgnorth, or a check that could not be done.
    Warn,
    /// pgnorth does not work, or will not when it is needed.
    Fail,
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// The result.
    pub level: Level,
    /// The subject.
    pub what: String,
    /// The facts that were found.
    pub found: String,
    /// The fix, if one is needed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

/// All checks, with causes before their consequences.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The lines.
    pub checks: Vec<Check>,
}

impl Check {
    pub(super) fn ok(what: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(Level::Ok, what.into(), found.into(), None)
    }

    pub(super) fn warn(what: impl Into<String>, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(Level::Warn, what.into(), found.into(), Some(fix.into()))
    }

    pub(super) fn fail(what: impl Into<String>, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(Level::Fail, what.into(), found.into(), Some(fix.into()))
    }

    /// Returns a warning: a check that was not done is not a success.
    pub(super) fn not_checked(what: impl Into<String>, because: impl fmt::Display) -> Self {
        Self::new(Level::Warn, what.into(), format!("not checked: {because}"), None)
    }

    fn new(level: Level, what: String, found: String, fix: Option<String>) -> Self {
        Self {
            level,
            what,
            found,
            fix,
        }
    }
}

impl Report {
    /// Returns true if any check failed.
    pub fn has_failed(&self) -> bool {
        self.count(Level::Fail) > 0
    }

    /// Returns one JSON object with `checks`, each with `level`, `what`, `found` and, if one is needed, `fix`.
    pub fn json(&self) -> String {
        serde_json::json!({ "checks": self.checks }).to_string()
    }

    fn count(&self, level: Level) -> usize {
        self.checks.iter().filter(|check| check.level == level).count()
    }
}

impl fmt::Display for Level {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
        })
    }
}

impl fmt::Display for Check {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:<4}  {} — {}", self.level, plain(&self.what), plain(&self.found))?;
        match &self.fix {
            Some(fix) => write!(out, " — {}", plain(fix)),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.checks.iter().try_for_each(|check| writeln!(out, "{check}"))?;
        let [ok, warn, fail] = [Level::Ok, Level::Warn, Level::Fail].map(|level| self.count(level));
        write!(out, "{} checks: {ok} ok, {warn} warn, {fail} FAIL", self.checks.len())
    }
}

/// Escapes control characters. Names and states come from outside and must neither start a line nor move the cursor.
fn plain(text: &str) -> String {
    let escape = |letter: char| match letter {
        letter if letter.is_control() => letter.escape_default().to_string(),
        letter => letter.to_string(),
    };
    text.chars().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            checks: vec![
                Check::ok("pods", "3"),
                Check::warn("clock", "7 s ahead", "set it"),
                Check::fail("lock", "no\nok    lock — all is well\u{1b}[2J", "look"),
                Check::not_checked("names", "it is forbidden"),
            ],
        }
    }

    #[test]
    fn each_check_is_one_line_and_no_value_forges_another() {
        assert_eq!(
            report().to_string(),
            "ok    pods — 3\n\
             warn  clock — 7 s ahead — set it\n\
             FAIL  lock — no\\nok    lock — all is well\\u{1b}[2J — look\n\
             warn  names — not checked: it is forbidden\n\
             4 checks: 1 ok, 2 warn, 1 FAIL"
        );
    }

    #[test]
    fn only_a_failed_check_sets_the_exit_status() {
        assert!(report().has_failed());
        let warned = Report {
            checks: vec![Check::not_checked("names", "it is forbidden")],
        };
        assert!(!warned.has_failed());
    }

    #[test]
    fn json_for_scripts() {
        let json: serde_json::Value = serde_json::from_str(&report().json()).unwrap();
        assert_eq!(
            json["checks"][0],
            serde_json::json!({"level": "ok", "what": "pods", "found": "3"})
        );
        assert_eq!(json["checks"][1]["fix"], "set it");
        assert_eq!(json["checks"][2]["level"], "fail");
    }
}
