//! The file with the operators' token. It is read for each command, so that a changed Secret takes effect immediately;
//! its content is never logged or shown.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::header::HeaderValue;
use subtle::ConstantTimeEq;
use thiserror::Error;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// Minimum length of a token; a shorter one can be guessed.
const SHORTEST: usize = 16;
/// Maximum length of a token, far below the limit of a request's head.
const LONGEST: usize = 1024;
/// Deadline for reading the file: storage that hangs must not keep an admin connection.
const DEADLINE: Duration = Duration::from_secs(1);

/// The path of the token's file.
#[derive(Clone, Debug)]
pub(super) struct TokenFile(PathBuf);

/// The token; it has no `Debug` and no `Display`.
pub struct Token(Vec<u8>);

/// The reason why a token file cannot be used. The text names the file and shows none of its content.
#[derive(Debug, Error)]
pub enum Problem {
    /// The file cannot be read.
    #[error("{}: {error}", file.display())]
    Unreadable {
        /// The token's file.
        file: PathBuf,
        /// The system's error.
        #[source]
        error: io::Error,
    },
    /// The file's storage does not answer.
    #[error("{}: no answer from its storage within 1 s", .0.display())]
    Hangs(PathBuf),
    /// The content is too short, too long, or not valid in a header.
    #[error("{}: {why}; make one with `openssl rand -hex 32`", file.display())]
    Unfit {
        /// The token's file.
        file: PathBuf,
        /// The rule that the content breaks.
        why: &'static str,
    },
}

impl TokenFile {
    pub(super) fn new(file: PathBuf) -> Self {
        Self(file)
    }

    /// Reads the token as it is now.
    pub(super) async fn read(&self) -> Result<Token, Problem> {
        let file = self.0.clone();
        match timeout(DEADLINE, spawn_blocking(move || read(&file))).await {
            Ok(Ok(token)) => token,
            Ok(Err(broken)) => Err(Problem::Unreadable {
                file: self.0.clone(),
                error: io::Error::other(broken),
            }),
            Err(_) => Err(Problem::Hangs(self.0.clone())),
        }
    }
}

impl Token {
    /// Returns the `Authorization` header. hyper does not print a sensitive header.
    pub fn header(&self) -> HeaderValue {
        let value = [b"Bearer ", self.0.as_slice()].concat();
        let mut value = HeaderValue::from_bytes(&value).expect("a token has printable ASCII characters only");
        value.set_sensitive(true);
        value
    }

    /// Compares in constant time, so that the duration does not reveal how much of the token is right.
    pub(super) fn is(&self, shown: &[u8]) -> bool {
        self.0.ct_eq(shown).into()
    }
}

/// Reads the token in this file. Blocks if the storage hangs.
///
/// # Errors
/// Returns a `Problem` if the file cannot be read, or its content is not a usable token.
pub fn read(file: &Path) -> Result<Token, Problem> {
    let unreadable = |error| Problem::Unreadable {
        file: file.to_owned(),
        error,
    };
    let unfit = |why| Problem::Unfit {
        file: file.to_owned(),
        why,
    };
    let mut content = Vec::new();
    let opened = File::open(file).map_err(unreadable)?;
    let bound = 2 * LONGEST as u64;
    opened.take(bound).read_to_end(&mut content).map_err(unreadable)?;
    let token = content.trim_ascii();
    match token.len() {
        0 => Err(unfit("it is empty")),
        length if length < SHORTEST => Err(unfit("a token needs at least 16 characters")),
        length if length > LONGEST => Err(unfit("a token has at most 1024 characters")),
        _ if !token.iter().all(u8::is_ascii_graphic) => {
            Err(unfit("a token must be one word of printable ASCII characters"))
        }
        _ => Ok(Token(token.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_one_long_word_and_its_line_break_is_no_part_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        let long = "x".repeat(LONGEST + 1);
        for (content, problem) in [
            ("0123456789abcdef", None),
            ("0123456789abcdef\n", None),
            ("", Some("it is empty")),
            ("\n", Some("it is empty")),
            ("0123456789abcde\n", Some("at least 16 characters")),
            (long.as_str(), Some("at most 1024 characters")),
            ("0123456789 abcdef", Some("one word")),
            ("0123456789äbcdef", Some("one word")),
        ] {
            std::fs::write(&file, content).unwrap();
            match (read(&file), problem) {
                (Ok(token), None) => assert!(token.is(b"0123456789abcdef") && !token.is(b"0123456789abcdeF")),
                (Err(found), Some(words)) => {
                    let found = found.to_string();
                    assert!(found.contains(words) && found.contains("token: "), "{found}");
                    assert!(content.is_empty() || !found.contains(content), "{found}");
                }
                (Ok(_), Some(words)) => panic!("{content:?} is taken, but: {words}"),
                (Err(found), None) => panic!("{found}"),
            }
        }
        std::fs::remove_file(&file).unwrap();
        assert!(read(&file).is_err_and(|problem| problem.to_string().contains("No such file")));
    }
}
