//! An event as bytes, in no form yet.
//!
//! A thread of the data plane that logs writes its event as a record: the time, the level and the
//! fields as text. The thread of the log gives it the form of the sink: a line, an entry of the
//! journal, a message of syslog. So the data plane does not pay for the form, and a reload can
//! change the sink between two records.
//!
//! Owns the encoding in both directions. Invariant: [`Records`] yields what [`encode`] wrote, whole
//! records in their order. A record begins with its length.

use std::{
    cell::RefCell,
    fmt::Debug,
    io::Write as _,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::layer::{Context, Layer};

/// The bytes of a length.
const LENGTH: usize = size_of::<u32>();

/// What a thread keeps for the next record.
const KEPT: usize = 4 << 10;

/// What a value is, for a form that shows words and numbers in another way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// What a type shows of itself.
    Shown = 0,
    /// A string.
    Word = 1,
    /// A number, `true` or `false`.
    Number = 2,
}

/// A record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record<'a> {
    /// When it was logged, since 1970.
    pub(super) at: Duration,
    /// How important it is.
    pub(super) level: Level,
    fields: &'a [u8],
}

/// A field of a record.
#[derive(Clone, Copy, Debug)]
pub(super) struct FieldOf<'a> {
    /// Its name, in letters, digits, `_` and `.`; `message` is the message.
    pub(super) name: &'a str,
    /// What the value is.
    pub(super) kind: Kind,
    /// The value as it was logged: it may hold any character.
    pub(super) value: &'a str,
}

/// Passes on the record of each event.
pub(super) struct Recorder<F>(pub(super) F);

impl<S: Subscriber, F: Fn(&[u8]) + 'static> Layer<S> for Recorder<F> {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        thread_local! {
            /// Spares an allocation for each event.
            static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        let pass = |record: &mut Vec<u8>| {
            record.clear();
            encode(record, event);
            (self.0)(record);
            record.shrink_to(KEPT);
        };
        let passed = SCRATCH.try_with(|scratch| scratch.try_borrow_mut().map(|mut record| pass(&mut record)));
        if !matches!(passed, Ok(Ok(()))) {
            // A value logs while it is shown, or the thread ends.
            pass(&mut Vec::new());
        }
    }
}

/// Appends the record of an event to `out`.
fn encode(out: &mut Vec<u8>, event: &Event<'_>) {
    let start = out.len();
    let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    out.extend_from_slice(&[0; LENGTH]);
    out.extend_from_slice(&at.as_secs().to_le_bytes());
    out.extend_from_slice(&at.subsec_nanos().to_le_bytes());
    out.push(match *event.metadata().level() {
        Level::ERROR => 0,
        Level::WARN => 1,
        Level::INFO => 2,
        Level::DEBUG => 3,
        Level::TRACE => 4,
    });
    event.record(&mut Encoder(out));
    put_length(out, start);
}

/// Writes how many bytes follow the length at `start`.
fn put_length(out: &mut [u8], start: usize) {
    let length = u32::try_from(out.len() - start - LENGTH).unwrap_or(u32::MAX);
    out[start..start + LENGTH].copy_from_slice(&length.to_le_bytes());
}

/// Appends fields.
struct Encoder<'a>(&'a mut Vec<u8>);

impl Encoder<'_> {
    fn field(&mut self, field: &Field, kind: Kind, write: impl FnOnce(&mut Vec<u8>)) {
        let name = field.name();
        let name = name.strip_prefix("r#").unwrap_or(name).as_bytes();
        let name = &name[..name.len().min(u8::MAX.into())];
        self.0.extend_from_slice(&[kind as u8, name.len() as u8]);
        self.0.extend_from_slice(name);
        let start = self.0.len();
        self.0.extend_from_slice(&[0; LENGTH]);
        write(self.0);
        put_length(self.0, start);
    }

    fn number(&mut self, field: &Field, value: impl Debug) {
        // A vector takes all.
        self.field(field, Kind::Number, |out| drop(write!(out, "{value:?}")));
    }
}

impl Visit for Encoder<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            self.number(field, value);
        } else {
            self.record_debug(field, &value);
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.number(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.number(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.number(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.field(field, Kind::Word, |out| out.extend_from_slice(value.as_bytes()));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.field(field, Kind::Shown, |out| drop(write!(out, "{value:?}")));
    }
}

/// The records in a buffer.
#[derive(Clone, Debug)]
pub(super) struct Records<'a>(&'a [u8]);

impl<'a> Records<'a> {
    /// Those in `bytes`, which hold whole records alone.
    pub(super) fn of(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The bytes of the records that were not yielded yet.
    pub(super) fn left(&self) -> usize {
        self.0.len()
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        let mut bytes = chunk(&mut self.0)?;
        let secs = u64::from_le_bytes(*take(&mut bytes)?);
        let nanos = u32::from_le_bytes(*take(&mut bytes)?);
        let level = match take(&mut bytes)? {
            [0] => Level::ERROR,
            [1] => Level::WARN,
            [2] => Level::INFO,
            [3] => Level::DEBUG,
            _ => Level::TRACE,
        };
        Some(Record { at: Duration::new(secs, nanos), level, fields: bytes })
    }
}

impl<'a> Record<'a> {
    /// Its fields, in the order in which they were logged: the message is the first.
    pub(super) fn fields(self) -> impl Iterator<Item = FieldOf<'a>> {
        let mut rest = self.fields;
        std::iter::from_fn(move || {
            let [kind, length] = *take(&mut rest)?;
            let (name, after) = rest.split_at_checked(length.into())?;
            rest = after;
            let value = chunk(&mut rest)?;
            let kind = match kind {
                0 => Kind::Shown,
                1 => Kind::Word,
                _ => Kind::Number,
            };
            Some(FieldOf { name: str::from_utf8(name).ok()?, kind, value: str::from_utf8(value).ok()? })
        })
    }

    /// The message; empty where there is none.
    pub(super) fn message(self) -> &'a str {
        self.fields().find(|field| field.name == "message").map_or("", |field| field.value)
    }
}

/// Takes bytes of a fixed number off the front.
fn take<'a, const N: usize>(bytes: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(first)
}

/// Takes a length, and as many bytes, off the front.
fn chunk<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = u32::from_le_bytes(*take(bytes)?);
    let (first, rest) = bytes.split_at_checked(usize::try_from(length).ok()?)?;
    *bytes = rest;
    Some(first)
}

/// Writes `text` of at most `most` bytes; of a longer one the start and `…`.
pub(super) fn start_of(text: &str, most: usize) -> (&str, &'static str) {
    if text.len() <= most { (text, "") } else { (&text[..text.floor_char_boundary(most)], "…") }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    /// The records of what `say` logs.
    pub(in super::super) fn records_of(say: impl FnOnce()) -> Vec<u8> {
        let bytes = Arc::<Mutex<Vec<u8>>>::default();
        let kept = Arc::clone(&bytes);
        let recorder = Recorder(move |record: &[u8]| kept.lock().unwrap().extend_from_slice(record));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(recorder), say);
        std::mem::take(&mut bytes.lock().unwrap())
    }

    /// The record of a line.
    pub(in super::super) fn record_of(message: &str) -> Vec<u8> {
        records_of(|| tracing::info!("{message}"))
    }

    #[test]
    fn a_record_holds_what_was_logged() {
        let bytes = records_of(|| {
            tracing::warn!("bytes.in" = 7_u64, r#type = "a\nb",list = ?[1], share = f64::NAN, "hello {}", 1);
            tracing::trace!("");
        });
        let records = Records::of(&bytes);
        let said: Vec<String> = records
            .clone()
            .map(|record| {
                let fields = record.fields().map(|f| format!("{:?} {}={:?}", f.kind, f.name, f.value));
                format!("{} {}: {}", record.level, record.message(), fields.collect::<Vec<_>>().join(", "))
            })
            .collect();
        assert_eq!(
            said,
            [
                "WARN hello 1: Shown message=\"hello 1\", Number bytes.in=\"7\", Word type=\"a\\nb\", \
                 Shown list=\"[1]\", Shown share=\"NaN\"",
                "TRACE : Shown message=\"\"",
            ]
        );
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        assert!(records.clone().all(|record| now - record.at < Duration::from_secs(60)));
        assert_eq!(records.left(), bytes.len());
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(start_of("abc", 3), ("abc", ""));
        assert_eq!(start_of("aüü", 4), ("aü", "…"));
    }
}
