//! Words for a hint: what to write in place of a text, and what the text was meant to be.

use std::net::{IpAddr, SocketAddr};

use super::Text;
use crate::{mapping::is_of_one_machine, text::is_plain};

/// Says to write `cure` in place of a text. If variables made the text, it says to change them.
pub(crate) fn instead(text: &Text, cure: &str) -> String {
    match expanded(text) {
        Some(value) => format!("{value}; change the variable, so that it reads {cure}"),
        None => format!("write {cure}"),
    }
}

/// The value of a text with variables; `None` if it has none.
pub(crate) fn expanded(text: &Text) -> Option<String> {
    /// Enough to recognize it.
    const SHOWN: usize = 60;
    text.is_expanded().then(|| {
        let start: String = text.value.chars().take(SHOWN).collect();
        let more = if start.len() < text.value.len() { "..." } else { "" };
        format!("with its variables this is {start:?}{more}")
    })
}

/// A text without the quotes and spaces that an editor, a shell or a variable left around it.
pub(crate) fn bare(text: &str) -> &str {
    text.trim_matches(|c: char| {
        c.is_whitespace() || !is_plain(c) || matches!(c, '"' | '\'' | '`' | '\u{2018}'..='\u{201f}')
    })
}

/// The address in a text that has a port, a prefix or quotes, too.
pub(crate) fn bare_address(text: &str) -> Option<IpAddr> {
    let text = bare(text);
    let text = text.split_once('/').map_or(text, |(ip, _)| ip);
    let ip = text.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|addr| addr.ip()));
    ip.filter(|ip| is_of_one_machine(*ip))
}
