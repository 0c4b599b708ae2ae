//! HAProxy's file format: words with their quotes, comments, and sections.

use super::Outcome;

/// One line of a file. Comments and empty lines are omitted.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) file: String,
    pub(super) number: usize,
    /// The line as it is written, but with passwords masked.
    pub(super) text: String,
    pub(super) outcomes: Vec<Outcome>,
}

/// A line's words, and the index of its `Line`.
#[derive(Debug)]
pub(super) struct Directive {
    pub(super) at: usize,
    pub(super) words: Vec<String>,
}

/// A section: its first line, and the directives below it.
#[derive(Debug)]
pub(super) struct Section {
    pub(super) at: usize,
    pub(super) kind: String,
    /// Its name; empty if it has none.
    pub(super) name: String,
    /// The `defaults` section that it names with `from`.
    pub(super) from: Option<String>,
    pub(super) directives: Vec<Directive>,
}

/// Keywords that begin a section (HAProxy 2.6 and later).
const SECTIONS: [&str; 19] = [
    "global",
    "defaults",
    "listen",
    "frontend",
    "backend",
    "peers",
    "resolvers",
    "userlist",
    "mailers",
    "program",
    "cache",
    "ring",
    "http-errors",
    "fcgi-app",
    "log-forward",
    "crt-store",
    "traces",
    "log-profile",
    "acme",
];

/// Returns the lines that are not empty or comments, and the sections that they form.
pub(super) fn read(files: &[(String, String)]) -> (Vec<Line>, Vec<Section>) {
    let (mut lines, mut sections) = (Vec::new(), Vec::<Section>::new());
    for (file, text) in files {
        for (number, text) in (1..).zip(text.lines()) {
            let split = split(text);
            if split.as_ref().is_ok_and(Vec::is_empty) {
                continue;
            }
            let at = lines.len();
            let mut line = Line {
                file: file.clone(),
                number,
                text: masked(text, split.as_deref().unwrap_or_default()),
                outcomes: Vec::new(),
            };
            match split {
                Err(problem) => line.outcomes.push(Outcome::NoEquivalent(problem.to_owned())),
                Ok(words) if words[0].starts_with('.') => line.outcomes.push(Outcome::NoEquivalent(
                    "import does not evaluate conditions: it reads the lines of every branch".to_owned(),
                )),
                Ok(words) if SECTIONS.contains(&words[0].as_str()) => sections.push(section(at, &words)),
                Ok(words) => match sections.last_mut() {
                    Some(section) => section.directives.push(Directive { at, words }),
                    None => line.outcomes.push(Outcome::NoEquivalent(
                        "this line is before the first section".to_owned(),
                    )),
                },
            }
            lines.push(line);
        }
    }
    (lines, sections)
}

/// Returns a line with its password masked: users paste the report into tickets.
fn masked(text: &str, words: &[String]) -> String {
    let text = text.trim_end().replace('\t', "    ");
    let is_before = |word: &String| ["password", "insecure-password", "ca-sign-pass"].contains(&word.as_str());
    let secret = match words {
        [stats, auth, login, ..] if stats == "stats" && auth == "auth" => {
            login.split_once(':').map(|(_, secret)| secret)
        }
        _ => {
            let at = words.iter().position(is_before);
            at.and_then(|at| words.get(at + 1)).map(String::as_str)
        }
    };
    match secret {
        // The line could not be split.
        None if words.is_empty() && ["pass", "auth"].iter().any(|part| text.contains(part)) => "    ***".to_owned(),
        None | Some("") => text,
        Some(secret) if text.contains(secret) => text.replace(secret, "***"),
        // The password is quoted or escaped.
        Some(_) => format!("    {} ***", words[0]),
    }
}

fn section(at: usize, words: &[String]) -> Section {
    let from = words.iter().position(|word| word == "from");
    let name = words.get(1).filter(|_| from != Some(1));
    Section {
        at,
        kind: words[0].clone(),
        name: name.cloned().unwrap_or_default(),
        from: from.and_then(|from| words.get(from + 1).cloned()),
        directives: Vec::new(),
    }
}

/// Splits a line into words (HAProxy's manual, 2.2): `\` escapes, quotes keep spaces, `#` begins a comment. Returns an
/// error for variables, which HAProxy expands within double quotes.
fn split(text: &str) -> Result<Vec<String>, &'static str> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match (letter, quote) {
            ('\'', Some('\'')) | ('"', Some('"')) => quote = None,
            (_, Some('\'')) => word.get_or_insert_default().push(letter),
            ('$', Some(_)) => return Err("environment variable: write its value instead, and import again"),
            ('\\', _) => word.get_or_insert_default().extend(letters.next()),
            (_, Some(_)) => word.get_or_insert_default().push(letter),
            ('\'' | '"', None) => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            ('#', None) => break,
            (_, None) if letter.is_whitespace() => words.extend(word.take()),
            (_, None) => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    match quote {
        Some(_) => Err("a quote is not closed"),
        None => Ok(words),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_shows_a_password() {
        for (text, seen) in [
            (
                "\tuser admin insecure-password s3cret",
                "    user admin insecure-password ***",
            ),
            (
                "  user admin password $5$s3cret groups a",
                "  user admin password *** groups a",
            ),
            ("  stats auth admin:s3cret", "  stats auth admin:***"),
            (r"  user admin insecure-password s3\cret", "    user ***"),
            ("  stats auth admin", "  stats auth admin"),
        ] {
            assert_eq!(masked(text, &split(text).unwrap()), seen);
        }
        assert_eq!(masked("user admin password 's3cret", &[]), "    ***");
    }

    #[test]
    fn a_line_belongs_to_the_section_before_it() {
        let text = "listen pg\n bind :5000\nlog-profile short\n on any drop\nacme le\n contact dba@example.com\n";
        let (_, sections) = read(&[("haproxy.cfg".to_owned(), text.to_owned())]);
        let read: Vec<_> = sections.iter().map(|one| (&*one.kind, one.directives.len())).collect();
        assert_eq!(read, [("listen", 1), ("log-profile", 1), ("acme", 1)]);
    }

    #[test]
    fn words_are_split_as_haproxy_splits_them() {
        for (text, words) in [
            ("  bind *:5000 # clients", &["bind", "*:5000"][..]),
            ("# a comment", &[]),
            (
                r#"log-format "%ci \"x\" #1" 'a b'"#,
                &["log-format", r#"%ci "x" #1"#, "a b"],
            ),
            (r"a\ b \#c d#e", &["a b", "#c", "d"]),
            ("user ''", &["user", ""]),
            ("price '$5'", &["price", "$5"]),
        ] {
            assert_eq!(split(text).unwrap(), words, "{text}");
        }
        for text in ["server a \"$HOST:1\"", "server \"a"] {
            assert!(split(text).is_err(), "{text}");
        }
    }
}
