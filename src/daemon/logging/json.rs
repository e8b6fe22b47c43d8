//! Lines of JSON, in the form of `tracing-subscriber`'s own: an object with the time, the level and
//! the fields.
//!
//! Invariant: a line holds no character that a terminal obeys. JSON itself lets all but the first
//! 32 stand.

use super::{
    record::{Kind, Record},
    text,
};
use crate::text::escaped_json;

/// Appends the line of a record, with its end.
pub(super) fn line(out: &mut Vec<u8>, record: Record<'_>) {
    let start = out.len();
    out.extend_from_slice(b"{\"timestamp\":\"");
    text::stamp(out, record.at);
    out.extend_from_slice(b"\",\"level\":\"");
    out.extend_from_slice(record.level.as_str().as_bytes());
    out.push(b'"');
    for field in record.fields() {
        out.push(b',');
        string(out, field.name);
        out.push(b':');
        match field.kind {
            Kind::Number => out.extend_from_slice(field.value.as_bytes()),
            Kind::Shown | Kind::Word => string(out, field.value),
        }
    }
    out.extend_from_slice(b"}\n");
    let line = &out[start..];
    let is_plain = line.iter().all(|c| matches!(c, b' '..=b'~' | b'\n'));
    if !is_plain && let Ok(text) = str::from_utf8(line) {
        let escaped = escaped_json(text);
        out.truncate(start);
        out.extend_from_slice(escaped.as_bytes());
    }
}

/// Appends a text as JSON has it.
fn string(out: &mut Vec<u8>, text: &str) {
    // A text is always JSON, and a vector takes all.
    let _ = serde_json::to_writer(out, text);
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;
    use crate::{
        daemon::logging::record::{Records, tests::records_of},
        fixture::Kept,
    };

    fn say() {
        tracing::info!(
            client.addr = %"127.0.0.1:9",
            "bytes.in" = u64::MAX,
            change = -3,
            up = true,
            share = 0.5,
            words = "a \"quoted\"\n\u{1b}\\ ünï",
            list = ?["one"],
            error = None::<tracing::field::DisplayValue<u8>>,
            "session ended"
        );
        tracing::error!("{}", "bad");
    }

    fn lines(say: impl FnOnce()) -> String {
        let mut out = Vec::new();
        Records::of(&records_of(say)).for_each(|record| line(&mut out, record));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_is_that_of_the_library() {
        let theirs = Kept::default();
        let library = tracing_subscriber::fmt::layer().with_target(false).json().flatten_event(true);
        let library = library.with_current_span(false).with_span_list(false).with_writer(theirs.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(library), say);
        let unstamped = |text: &str| -> Vec<String> {
            text.lines().map(|line| line.split_once("Z\"").unwrap().1.to_owned()).collect()
        };
        let (ours, theirs) = (lines(say), theirs.take());
        assert!(ours.starts_with("{\"timestamp\":\"20"), "{ours}");
        assert_eq!(unstamped(&ours), unstamped(&theirs));
    }

    #[test]
    fn a_line_holds_no_command_for_a_terminal() {
        let name = "a\nb\u{1b}[31m\u{9b}\u{202e}";
        let ours = lines(|| tracing::warn!(path = %name, "odd"));
        assert!(ours.bytes().all(|c| matches!(c, b' '..=b'~' | b'\n')), "{ours}");
        assert_eq!(ours.lines().count(), 1);
        let value: Value = serde_json::from_str(&ours).unwrap();
        assert_eq!(value["path"], name);
    }
}
