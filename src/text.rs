//! Text that did not come from this program, made fit for a log line and for a terminal.
//!
//! Owns the one rule for it, in two forms: [`clean`] for a text of a stranger, where a dot for each
//! odd character is enough, and [`escaped`] for a text that its author has to find again: a path, a
//! value of the configuration. Knows nothing of where it comes from. Invariant: each character of
//! the outcome is visible or a plain space, so that no text forges a line, moves a cursor or turns
//! the direction of writing.

use std::fmt::{self, Display, Write};

/// How much of a text is kept, unless told otherwise.
const LONGEST: usize = 200;

/// The text without control and formatting characters, each of which becomes a dot; of a longer one
/// than 200 characters, these and `…`.
pub(crate) fn clean(text: &str) -> String {
    clean_start(text, LONGEST)
}

/// The same, but of a longer text than `most` characters these.
pub(crate) fn clean_start(text: &str, most: usize) -> String {
    let mut plain = text.trim().chars().map(|c| if is_plain(c) { c } else { '.' });
    let mut kept: String = plain.by_ref().take(most).collect();
    if plain.next().is_some() {
        kept.push('…');
    }
    kept
}

/// Shows a value with each control and formatting character escaped: `\n`, `\u{1b}`.
pub(crate) struct Escaped<T>(pub(crate) T);

impl<T: Display> Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping(f), "{}", self.0)
    }
}

/// A text as [`Escaped`] shows it.
pub(crate) fn escaped(text: &str) -> String {
    Escaped(text).to_string()
}

/// The same for a text of this program of several lines, with parts of others: the line ends stay.
pub(crate) fn escaped_lines(text: &str) -> String {
    text.split('\n').map(escaped).collect::<Vec<_>>().join("\n")
}

/// The same for JSON: the outcome is the same JSON, as such characters stand in its strings alone.
pub(crate) fn escaped_json(json: &str) -> String {
    let mut plain = String::with_capacity(json.len());
    for c in json.chars() {
        if is_plain(c) || c == '\n' {
            plain.push(c);
        } else {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                let _ = write!(plain, "\\u{unit:04x}");
            }
        }
    }
    plain
}

/// Writes on what it gets, with what is not plain escaped.
pub(crate) struct Escaping<W>(pub(crate) W);

impl<W: Write> Write for Escaping<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if text.bytes().all(|c| (b' '..=b'~').contains(&c)) {
            return self.0.write_str(text);
        }
        for c in text.chars() {
            match c {
                c if is_plain(c) => self.0.write_char(c)?,
                '\t' | '\r' | '\n' => write!(self.0, "{}", c.escape_default())?,
                c => write!(self.0, "{}", c.escape_unicode())?,
            }
        }
        Ok(())
    }
}

/// Whether a character neither moves the cursor nor changes how its neighbours are shown.
pub(crate) fn is_plain(c: char) -> bool {
    let hidden = matches!(
        c,
        // Zero width and direction marks, line and paragraph separators, embeddings, isolates, byte
        // order mark, tags.
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
    );
    !c.is_control() && !hidden
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_could_forge_a_line_becomes_a_dot() {
        assert_eq!(clean(" a\r\nb\u{1b}[31mc\u{202e}d\u{2028}e "), "a..b.[31mc.d.e");
        assert_eq!(clean("Fritz!Box 7590 – Küche"), "Fritz!Box 7590 – Küche");
    }

    #[test]
    fn what_could_forge_a_line_is_shown_escaped() {
        assert_eq!(escaped("a\r\n\t\u{1b}[31m\u{202e}ü"), "a\\r\\n\\t\\u{1b}[31m\\u{202e}ü");
        assert_eq!(escaped_lines("a\nb\u{7f}"), "a\nb\\u{7f}");
        assert_eq!(escaped_json("{\"a\": \"\u{9b}\u{e0041}\"}\n"), "{\"a\": \"\\u009b\\udb40\\udc41\"}\n");
    }

    proptest! {
        #[test]
        fn a_text_is_short_and_visible_whatever_it_was(text in any::<String>()) {
            let clean = clean_start(&text, 20);
            prop_assert!(clean.chars().count() <= 21);
            prop_assert!(clean.chars().all(is_plain));
            prop_assert!(escaped(&text).chars().all(is_plain));
        }

        #[test]
        fn escaped_json_says_the_same(text in any::<String>()) {
            let json = serde_json::to_string(&text).unwrap();
            let plain = escaped_json(&json);
            prop_assert!(plain.chars().all(is_plain));
            prop_assert_eq!(serde_json::from_str::<String>(&plain).unwrap(), text);
        }
    }

    #[test]
    fn a_long_text_is_cut_between_characters_and_says_so() {
        assert_eq!(clean_start(&"ü".repeat(20), 20), "ü".repeat(20));
        assert_eq!(clean_start(&"ü".repeat(21), 20), "ü".repeat(20) + "…");
    }
}
