//! The one shape of a message with what would help, in every window.

/// The message, and what would help below it. `gutter` is the width of the line numbers above.
pub(crate) fn below(message: &str, help: Option<&str>, gutter: usize) -> String {
    help.map_or(message.to_owned(), |help| format!("{message}\n{:gutter$} = help: {help}", ""))
}

/// The message, and what would help behind it, for a log line.
pub(crate) fn behind(message: &str, help: Option<&str>) -> String {
    help.map_or(message.to_owned(), |help| format!("{message} ({help})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_is_below_the_message_or_on_the_same_line() {
        let (message, help) = ("it is wrong", Some("do this"));
        assert_eq!(below(message, help, 2), "it is wrong\n   = help: do this");
        assert_eq!(below(message, help, 1), "it is wrong\n  = help: do this");
        assert_eq!(behind(message, help), "it is wrong (do this)");
        assert_eq!([below(message, None, 2), behind(message, None)], [message; 2]);
    }
}
