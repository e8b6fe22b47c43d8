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
    fmt::{self, Debug, Write as _},
    io,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use humantime::format_rfc3339_seconds;
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

use super::journal;
use crate::text::Escaping;

/// The format.
pub(super) struct Plain {
    /// What each line begins with.
    pub(super) stamp: Stamp,
}

/// What a line begins with, which depends on where it goes.
#[derive(Clone, Copy, PartialEq, Eq)]
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

impl<S, N> FormatEvent<S, N> for Plain
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let level = *event.metadata().level();
        let coloured = self.stamp == Stamp::Coloured;
        let word = match level {
            Level::ERROR => " ERROR",
            Level::WARN => "  WARN",
            Level::INFO => "  INFO",
            Level::DEBUG => " DEBUG",
            Level::TRACE => " TRACE",
        };
        if self.stamp == Stamp::Priority {
            writer.write_str(journal::prefix(level))?;
            writer.write_str(word.trim_start())?;
        } else {
            let [dim, paint, plain] = if coloured { [DIM, paint(level), PLAIN] } else { [""; 3] };
            writer.write_str(dim)?;
            stamp(&mut writer, SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())?;
            for part in [plain, paint, word, plain] {
                writer.write_str(part)?;
            }
        }
        let mut fields = Fields { writer, colour: coloured, result: Ok(()) };
        event.record(&mut fields);
        fields.result?;
        fields.writer.write_char('\n')
    }
}

/// Writes the fields of an event, each after a space.
struct Fields<'a> {
    writer: Writer<'a>,
    colour: bool,
    result: fmt::Result,
}

impl Fields<'_> {
    fn field(&mut self, field: &Field, value: fmt::Arguments<'_>) -> fmt::Result {
        self.writer.write_char(' ')?;
        if field.name() == "message" {
            return Escaping(&mut self.writer).write_fmt(value);
        }
        self.name(field)?;
        Escaping(&mut self.writer).write_fmt(value)
    }

    fn name(&mut self, field: &Field) -> fmt::Result {
        let name = field.name();
        let name = name.strip_prefix("r#").unwrap_or(name);
        let [italic, plain, dim] = if self.colour { [ITALIC, PLAIN, DIM] } else { [""; 3] };
        for part in [italic, name, plain, dim, "=", plain] {
            self.writer.write_str(part)?;
        }
        Ok(())
    }

    fn word(&mut self, field: &Field, word: &str) -> fmt::Result {
        self.writer.write_char(' ')?;
        self.name(field)?;
        self.writer.write_char('"')?;
        self.writer.write_str(word)?;
        self.writer.write_char('"')
    }
}

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.' | b' ');
        if self.result.is_err() {
        } else if field.name() == "message" {
            self.result = self.field(field, format_args!("{value}"));
        } else if value.bytes().all(plain) {
            self.result = self.word(field, value);
        } else {
            self.result = self.field(field, format_args!("{value:?}"));
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if self.result.is_ok() {
            self.result = self.field(field, format_args!("{value:?}"));
        }
    }
}

/// The second that a thread wrote last, and its text. Most lines are of the same second.
type Second = (u64, [u8; 19]);

thread_local! {
    static LAST: Cell<Second> = const { Cell::new((0, *b"1970-01-01T00:00:00")) };
}

/// Writes a moment of UTC as RFC 3339 has it, with microseconds.
fn stamp(writer: &mut impl fmt::Write, since_epoch: Duration) -> fmt::Result {
    let mut last = LAST.get();
    if last.0 != since_epoch.as_secs() {
        last = (since_epoch.as_secs(), second(since_epoch.as_secs()));
        LAST.set(last);
    }
    let mut text = *b"0000-00-00T00:00:00.000000Z";
    text[..19].copy_from_slice(&last.1);
    put(&mut text[20..26], u64::from(since_epoch.subsec_micros()));
    writer.write_str(str::from_utf8(&text).map_err(|_| fmt::Error)?)
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
    use crate::fixture::Kept;

    /// The lines without their time stamps.
    fn lines(kept: &Kept) -> Vec<String> {
        kept.take().lines().map(|line| line.get(27..).unwrap_or(line).to_owned()).collect()
    }

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

    #[test]
    fn a_line_is_that_of_the_library_without_colour() {
        let (ours, theirs) = (Kept::default(), Kept::default());
        let layer = || tracing_subscriber::fmt::layer().with_ansi(false).with_target(false);
        let plain = layer().with_writer(ours.clone()).event_format(Plain { stamp: Stamp::Plain });
        tracing::subscriber::with_default(tracing_subscriber::registry().with(plain), say);
        let library = layer().with_writer(theirs.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(library), say);
        let ours = lines(&ours);
        assert_eq!(ours, lines(&theirs));
        assert_eq!(ours.len(), 5);
    }

    #[test]
    fn no_value_forges_a_line_or_commands_a_terminal() {
        let ours = Kept::default();
        let plain = tracing_subscriber::fmt::layer().with_writer(ours.clone());
        let plain = plain.event_format(Plain { stamp: Stamp::Plain });
        tracing::subscriber::with_default(tracing_subscriber::registry().with(plain), || {
            let name = "a\nb\u{1b}[31m\u{9b}\u{202e}";
            tracing::error!(path = %name, word = name, list = ?[name], "cannot read {name}");
        });
        let shown = "a\\nb\\u{1b}[31m\\u{9b}\\u{202e}";
        assert_eq!(
            lines(&ours),
            [format!(" ERROR cannot read {shown} path={shown} word=\"{shown}\" list=[\"{shown}\"]")]
        );
    }

    #[test]
    fn a_line_for_the_journal_has_its_priority_in_place_of_the_time() {
        let kept = Kept::default();
        let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(kept.clone());
        let layer = layer.event_format(Plain { stamp: Stamp::Priority });
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::error!(error = %"one\ntwo", "bad");
            tracing::info!(up = true, "good");
            tracing::trace!("");
        });
        assert_eq!(kept.take(), "<3>ERROR bad error=one\\ntwo\n<6>INFO good up=true\n<7>TRACE \n");
    }

    #[test]
    fn moments_are_written_by_the_calendar() {
        let written = |seconds, micros: u32| {
            let mut text = String::new();
            stamp(&mut text, Duration::new(seconds, micros * 1000)).unwrap();
            text
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
