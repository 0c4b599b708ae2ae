//! The causes of an error, for messages.

use std::error::Error;

/// Returns the innermost error's message, such as "connection refused": the part of the chain that an operator can
/// act on.
pub fn root_cause(error: &dyn Error) -> String {
    match error.source() {
        Some(source) => root_cause(source),
        None => error.to_string(),
    }
}

/// Returns the error's message and those of its causes that it does not contain: hyper's own text says only
/// "connection error".
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
        next = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_added_unless_the_message_contains_it() {
        #[derive(Debug, thiserror::Error)]
        #[error("connection error")]
        struct Outer(#[source] std::io::Error);
        #[derive(Debug, thiserror::Error)]
        #[error("cannot list: {0}")]
        struct Quoting(#[source] std::io::Error);
        let refused = || std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        assert_eq!(with_causes(&Outer(refused())), "connection error: connection refused");
        assert_eq!(with_causes(&Quoting(refused())), "cannot list: connection refused");
    }

    #[test]
    fn the_innermost_message_is_returned_without_the_layers_around_it() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot list: {0}")]
        struct Layer(#[source] std::io::Error);
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        assert_eq!(root_cause(&Layer(refused)), "connection refused");
    }
}
