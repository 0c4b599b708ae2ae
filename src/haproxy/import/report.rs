//! The text that `pgnorth import` prints: each line with its outcomes, then the settings.

use std::collections::HashMap;
use std::fmt::{self, Write};

use super::lines::Line;
use super::{Import, Outcome, Suggestion};

const LEGEND: &str = "= becomes this setting   - needs none   ! has no equivalent: decide yourself\n";

impl Import {
    /// Returns each line with its number and its outcomes. A repeated remark refers to the first line that has it.
    pub(super) fn annotated(&self) -> String {
        let mut text = LEGEND.to_owned();
        let mut remarks = HashMap::new();
        let mut file = "";
        for line in &self.lines {
            if line.file != file {
                file = &line.file;
                let _infallible = writeln!(text, "\n{file}");
            }
            let _infallible = writeln!(text, "{:>5}  {}", line.number, line.text);
            for outcome in &line.outcomes {
                let (mark, what) = outcome.parts();
                let first = *remarks.entry((mark, what)).or_insert((&line.file, line.number));
                let _infallible = match (mark, first == (&line.file, line.number)) {
                    ('=', _) | (_, true) => writeln!(text, "         {mark} {what}"),
                    (_, false) => writeln!(text, "         {mark} {}: as in line {}", subject(what), first.1),
                };
            }
        }
        text
    }

    /// Returns the lines with a part that has no equivalent, as `line` or `file:line`.
    fn open(&self) -> Vec<String> {
        let is_open = |line: &&Line| {
            let mut outcomes = line.outcomes.iter();
            outcomes.any(|outcome| matches!(outcome, Outcome::NoEquivalent(_)))
        };
        let several = self.lines.iter().any(|line| line.file != self.lines[0].file);
        let name = |line: &Line| match several {
            true => format!("{}:{}", line.file, line.number),
            false => line.number.to_string(),
        };
        self.lines.iter().filter(is_open).map(name).collect()
    }
}

impl Outcome {
    fn parts(&self) -> (char, &str) {
        match self {
            Self::Setting(text) => ('=', text),
            Self::NotNeeded(text) => ('-', text),
            Self::NoEquivalent(text) => ('!', text),
        }
    }
}

/// Returns the word that a remark is about.
fn subject(remark: &str) -> &str {
    remark.split_once(':').map_or("this", |(subject, _)| subject)
}

impl fmt::Display for Import {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "{}", self.annotated())?;
        match &self.open()[..] {
            [] => writeln!(out, "Every line has an equivalent, or needs none.")?,
            lines => writeln!(out, "Lines with a part that has no equivalent: {}.", lines.join(", "))?,
        }
        if self.suggestions.len() > 1 {
            writeln!(
                out,
                "Judging by their addresses, the servers belong to {} clusters. Each cluster needs its own pgnorth, with a different \
                 --admin.",
                self.suggestions.len()
            )?;
        }
        for suggestion in &self.suggestions {
            write!(out, "{suggestion}")?;
        }
        writeln!(
            out,
            "\nIf Patroni uses etcd, add --scope and --etcd, so that pgnorth watches the lock itself. Without etcd, add --scope \
             NAME\nand --kubernetes=false, so that pgnorth ignores answers of another cluster. Then check everything with pgnorth doctor."
        )
    }
}

impl fmt::Display for Suggestion {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "\nAs a command:\n\n{}", self.command())?;
        writeln!(out, "\nIn the package's /etc/default/pgnorth:\n")?;
        write!(out, "{}", self.environment())?;
        let leads_to_primary =
            |(flag, value): &(&str, String)| *flag == "route" && value.split([',', '=']).nth(1) == Some("primary");
        match self.settings.iter().any(leads_to_primary) {
            true => Ok(()),
            false => writeln!(
                out,
                "\nNo section leads to the primary. pgnorth still listens for clients of the primary, at --listen (default [::]:5432)."
            ),
        }
    }
}
