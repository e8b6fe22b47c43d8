//! Lines of plain text, in the form of `tracing-subscriber`'s own, for a third of its work.
//!
//! A daemon that takes ten thousand connections a second writes as many lines, so their making
//! shows in its CPU time: the second of the time stamp is made once a second.
//!
//! Invariants: a line of plain characters is the same as the library's, so that no parser sees a
//! difference (checked by a test). A line for the journal has its priority in place of the time.
//! Whatever a message or a field holds, it stays one line and holds no command for a terminal: both
//! are written through [`Escaping`].

use std::{
    cell::Cell,
    fmt::{self, Write as _},
    io,
    time::{Duration, UNIX_EPOCH},
};

use humantime::format_rfc3339_seconds;
use tracing::Level;

use super::{
    journal,
    record::{FieldOf, Kind, Record},
};
use crate::text::Escaping;

/// What a line begins with, which depends on where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stamp {
    /// The time.
    Plain,
    /// The time. It, the level and the names are coloured, for a terminal.
    Coloured,
    /// The priority, for the journal of systemd.
    Priority,
}

const DIM: &str = "\x1b[2m";
const ITALIC: &str = "\x1b[3m";
const PLAIN: &str = "\x1b[0m";

/// The colour of a level, as `tracing-subscriber` has it.
fn paint(level: Level) -> &'static str {
    match level {
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        Level::DEBUG => "\x1b[34m",
        Level::TRACE => "\x1b[35m",
    }
}

/// Bytes as a place for text: it takes all.
pub(super) struct Text<'a>(pub(super) &'a mut Vec<u8>);

impl fmt::Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// Appends the line of a record, with its end.
pub(super) fn line(out: &mut Vec<u8>, record: Record<'_>, begin: Stamp) {
    let coloured = begin == Stamp::Coloured;
    let word = match record.level {
        Level::ERROR => " ERROR",
        Level::WARN => "  WARN",
        Level::INFO => "  INFO",
        Level::DEBUG => " DEBUG",
        Level::TRACE => " TRACE",
    };
    if begin == Stamp::Priority {
        push(out, &[journal::prefix(record.level), word.trim_start()]);
    } else {
        let [dim, paint, plain] = if coloured { [DIM, paint(record.level), PLAIN] } else { [""; 3] };
        push(out, &[dim]);
        stamp(out, record.at);
        push(out, &[plain, paint, word, plain]);
    }
    body(out, record, coloured);
    out.push(b'\n');
}

/// Appends the message and the fields of a record, each after a space.
pub(super) fn body(out: &mut Vec<u8>, record: Record<'_>, coloured: bool) {
    for field in record.fields() {
        out.push(b' ');
        if field.name != "message" {
            name(out, field.name, coloured);
        }
        value(out, field);
    }
}

fn name(out: &mut Vec<u8>, name: &str, coloured: bool) {
    let [italic, plain, dim] = if coloured { [ITALIC, PLAIN, DIM] } else { [""; 3] };
    push(out, &[italic, name, plain, dim, "=", plain]);
}

fn value(out: &mut Vec<u8>, FieldOf { name, kind, value }: FieldOf<'_>) {
    let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.' | b' ');
    if kind != Kind::Word || name == "message" {
        // Neither this place nor a text can fail.
        let _ = Escaping(Text(out)).write_str(value);
    } else if value.bytes().all(plain) {
        push(out, &["\"", value, "\""]);
    } else {
        let _ = write!(Escaping(Text(out)), "{value:?}");
    }
}

fn push(out: &mut Vec<u8>, parts: &[&str]) {
    parts.iter().for_each(|part| out.extend_from_slice(part.as_bytes()));
}

/// The second that a thread wrote last, and its text. Most lines are of the same second.
type Second = (u64, [u8; 19]);

thread_local! {
    static LAST: Cell<Second> = const { Cell::new((0, *b"1970-01-01T00:00:00")) };
}

/// Appends a moment of UTC as RFC 3339 has it, with microseconds.
pub(super) fn stamp(out: &mut Vec<u8>, since_epoch: Duration) {
    let mut last = LAST.get();
    if last.0 != since_epoch.as_secs() {
        last = (since_epoch.as_secs(), second(since_epoch.as_secs()));
        LAST.set(last);
    }
    let mut text = *b"0000-00-00T00:00:00.000000Z";
    text[..19].copy_from_slice(&last.1);
    put(&mut text[20..26], u64::from(since_epoch.subsec_micros()));
    out.extend_from_slice(&text);
}

/// A second since 1970 as date and time.
fn second(since_epoch: u64) -> [u8; 19] {
    let mut text = *b"0000-00-00T00:00:00";
    let moment = UNIX_EPOCH + Duration::from_secs(since_epoch);
    // What does not fit, the `Z` at the end, is left out.
    let _ = io::Write::write_fmt(&mut &mut text[..], format_args!("{}", format_rfc3339_seconds(moment)));
    text
}

/// Fills `place` with the last digits of `number`.
fn put(place: &mut [u8], mut number: u64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;
    use crate::{
        daemon::logging::record::{Records, tests::records_of},
        fixture::Kept,
    };

    fn say() {
        let error = std::io::Error::other("no \"such\" thing");
        tracing::error!("{error}, ünïcode");
        tracing::warn!(error = %error, failures = 3_u64, "cannot accept");
        tracing::info!(
            client.addr = %"127.0.0.1:9",
            "bytes.in" = u64::MAX,
            r#type = -3,
            up = true,
            share = 0.5,
            word = "tcp",
            words = "a \"quoted\"\n\u{1b}\\ one",
            error = None::<tracing::field::DisplayValue<u8>>,
            "session ended"
        );
        tracing::debug!(list = ?[1, 2]);
        tracing::trace!("");
    }

    /// The lines of what `say` logs, in this form.
    fn lines(begin: Stamp, say: impl FnOnce()) -> String {
        let mut out = Vec::new();
        Records::of(&records_of(say)).for_each(|record| line(&mut out, record, begin));
        String::from_utf8(out).unwrap()
    }

    /// The lines without their time stamps.
    fn unstamped(text: &str) -> Vec<&str> {
        text.lines().map(|line| line.get(27..).unwrap_or(line)).collect()
    }

    #[test]
    fn a_line_is_that_of_the_library_without_colour() {
        let theirs = Kept::default();
        let library = tracing_subscriber::fmt::layer().with_ansi(false).with_target(false);
        let library = library.with_writer(theirs.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(library), say);
        let (ours, theirs) = (lines(Stamp::Plain, say), theirs.take());
        assert_eq!(unstamped(&ours), unstamped(&theirs));
        assert_eq!(ours.lines().count(), 5);
    }

    #[test]
    fn no_value_forges_a_line_or_commands_a_terminal() {
        let ours = lines(Stamp::Plain, || {
            let name = "a\nb\u{1b}[31m\u{9b}\u{202e}";
            tracing::error!(path = %name, word = name, list = ?[name], "cannot read {name}");
        });
        let shown = "a\\nb\\u{1b}[31m\\u{9b}\\u{202e}";
        assert_eq!(
            unstamped(&ours),
            [format!(" ERROR cannot read {shown} path={shown} word=\"{shown}\" list=[\"{shown}\"]")]
        );
    }

    #[test]
    fn a_line_for_the_journal_has_its_priority_in_place_of_the_time() {
        let ours = lines(Stamp::Priority, || {
            tracing::error!(error = %"one\ntwo", "bad");
            tracing::info!(up = true, "good");
            tracing::trace!("");
        });
        assert_eq!(ours, "<3>ERROR bad error=one\\ntwo\n<6>INFO good up=true\n<7>TRACE \n");
    }

    #[test]
    fn moments_are_written_by_the_calendar() {
        let written = |seconds, micros: u32| {
            let mut text = Vec::new();
            stamp(&mut text, Duration::new(seconds, micros * 1000));
            String::from_utf8(text).unwrap()
        };
        for (seconds, micros, expected) in [
            (0, 0, "1970-01-01T00:00:00.000000Z"),
            (951_782_399, 999_999, "2000-02-28T23:59:59.999999Z"),
            (951_782_400, 0, "2000-02-29T00:00:00.000000Z"),
            (951_868_800, 7, "2000-03-01T00:00:00.000007Z"),
            (1_767_225_599, 1, "2025-12-31T23:59:59.000001Z"),
            (1_795_280_054, 0, "2026-11-21T16:54:14.000000Z"),
            (4_107_542_400, 0, "2100-03-01T00:00:00.000000Z"),
        ] {
            assert_eq!(written(seconds, micros), expected);
            assert_eq!(written(seconds, micros), expected, "from the thread's memory");
        }
    }
}
