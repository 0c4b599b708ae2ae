//! The root cause of an error, for messages.

use std::error::Error;

/// Returns the innermost error's message, such as "connection refused": the part of the chain that an operator can
/// act on.
pub fn root_cause(error: &dyn Error) -> String {
    match error.source() {
        Some(source) => root_cause(source),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_message_is_returned_without_the_layers_around_it() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot list: {0}")]
        struct Layer(#[source] std::io::Error);
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        assert_eq!(root_cause(&Layer(refused)), "connection refused");
    }
}
