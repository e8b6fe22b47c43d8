//! Text of unknown origin, made fit for a log line and for a terminal.
//!
//! Owns the one rule for it. Knows nothing of who says it. Invariant: a bounded number of characters, each of them
//! visible or a plain space, so that nobody can forge a line, move a cursor or fill a disk.

/// How much of a text is kept, unless told otherwise.
const LONGEST: usize = 200;

/// The text without control and formatting characters, each of which becomes a dot; of a longer one than 200
/// characters, these and `…`.
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

/// Whether a character neither moves the cursor nor changes how its neighbours are shown.
fn is_plain(c: char) -> bool {
    let hidden = matches!(
        c,
        // Zero width and direction marks, line and paragraph separators, embeddings, isolates, byte order mark, tags.
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

    proptest! {
        #[test]
        fn a_text_is_short_and_visible_whatever_it_was(text in any::<String>()) {
            let clean = clean_start(&text, 20);
            prop_assert!(clean.chars().count() <= 21);
            prop_assert!(clean.chars().all(is_plain));
        }
    }

    #[test]
    fn a_long_text_is_cut_between_characters_and_says_so() {
        assert_eq!(clean_start(&"ü".repeat(20), 20), "ü".repeat(20));
        assert_eq!(clean_start(&"ü".repeat(21), 20), "ü".repeat(20) + "…");
    }
}
