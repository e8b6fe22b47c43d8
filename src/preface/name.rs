//! The one spelling of a host name.

/// The longest host name, without a closing dot.
pub(super) const LONGEST: usize = 253;

/// The longest part of one.
const LONGEST_LABEL: usize = 63;

/// The name in lower case and without a closing dot, or `None` where `text` is no host name.
///
/// Labels have letters, digits, hyphens and underscores. An IPv4 address is a name too.
pub(super) fn plain(text: &[u8]) -> Option<Box<str>> {
    let text = text.strip_suffix(b".").unwrap_or(text);
    is_plain(text).then(|| str::from_utf8(text).ok())?.map(|text| text.to_ascii_lowercase().into())
}

fn is_plain(text: &[u8]) -> bool {
    let is_label = |label: &[u8]| {
        (1..=LONGEST_LABEL).contains(&label.len())
            && label.iter().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_'))
    };
    text.len() <= LONGEST && text.split(|c| *c == b'.').all(is_label)
}
