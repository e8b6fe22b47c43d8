//! Text that comes from a router, made fit for a log line.
//!
//! Owns the one rule for it. Knows nothing of who says it. Invariant: at most [`LONGEST`] characters, each of them
//! visible or a plain space, so that nobody on the network can forge a line or fill a disk.

/// How much of a router's text is kept.
pub(super) const LONGEST: usize = 200;

/// The text without control and formatting characters, cut to [`LONGEST`] characters.
pub(super) fn clean(text: &str) -> String {
    let visible = text.trim().chars().map(|c| if is_plain(c) { c } else { '.' });
    let kept: String = visible.take(LONGEST).collect();
    kept.trim_end().to_owned()
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
            let clean = clean(&text);
            prop_assert!(clean.chars().count() <= LONGEST);
            prop_assert!(clean.chars().all(is_plain));
        }
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(clean(&"ü".repeat(1000)), "ü".repeat(LONGEST));
    }
}
