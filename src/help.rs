//! The one shape of a message with what would help, in every window.

use std::fmt::{self, Display};

/// What is wrong, and what would help: below it, for a terminal, or with `{:#}` behind it, for a
/// log line.
pub(crate) struct Helped<'a> {
    message: String,
    help: Option<&'a str>,
    gutter: usize,
}

impl<'a> Helped<'a> {
    /// A message, and what would help.
    pub(crate) fn new(message: impl Into<String>, help: Option<&'a str>) -> Self {
        Self { message: message.into(), help, gutter: 2 }
    }

    /// Shows the help below an excerpt whose line numbers have this width.
    pub(crate) fn gutter(self, gutter: usize) -> Self {
        Self { gutter, ..self }
    }
}

impl Display for Helped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { message, help, gutter } = self;
        f.write_str(message)?;
        match help {
            Some(help) if f.alternate() => write!(f, " ({help})"),
            Some(help) => write!(f, "\n{:gutter$} = help: {help}", ""),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_is_below_the_message_or_on_the_same_line() {
        let helped = || Helped::new("it is wrong", Some("do this"));
        assert_eq!(helped().to_string(), "it is wrong\n   = help: do this");
        assert_eq!(helped().gutter(1).to_string(), "it is wrong\n  = help: do this");
        assert_eq!(format!("{:#}", helped()), "it is wrong (do this)");
        assert_eq!(Helped::new("it is wrong", None).to_string(), "it is wrong");
    }
}
