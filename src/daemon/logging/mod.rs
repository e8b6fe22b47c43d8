//! Logging to standard error, as text or as JSON, with a level that a reload may change. Where
//! standard error is the journal of systemd, each line has its priority: see `journal`.
//!
//! Logging never waits for the reader: see `lines`. Code that ends the program, or writes to
//! standard error beside the log, calls [`flush`] first.

mod journal;
mod json;
mod lines;
mod text;

use std::{
    io::{self, IsTerminal},
    sync::{Arc, OnceLock},
};

use journal::WithPriority;
pub(crate) use journal::for_stderr;
use lines::Lines;
use text::Stamp;
use tracing_subscriber::{filter::LevelFilter, fmt, layer::SubscriberExt, reload, util::SubscriberInitExt};

use crate::{
    config::{LogFormat, LogSettings},
    log_level::LevelControl,
};

/// The process has one standard error.
static LINES: OnceLock<Arc<Lines>> = OnceLock::new();

/// The running log.
#[derive(Debug)]
pub(super) struct Logging {
    level: LevelControl,
    format: LogFormat,
}

/// Starts to log. Without effect when the process logs already (in a test).
///
/// # Errors
/// For a system that makes no thread.
pub(super) fn init(settings: &LogSettings) -> io::Result<Logging> {
    let (layer, level) = reload::Layer::new(LevelFilter::from(settings.level));
    let registry = tracing_subscriber::registry().with(layer);
    let writer = Lines::start()?;
    let lines = fmt::layer().with_writer(writer.clone()).with_target(false);
    let is_journal = journal::is_stderr();
    let done = match settings.format {
        LogFormat::Json => {
            let lines = lines.with_writer(Arc::new(json::Plain(writer.clone())));
            let json = lines.json().flatten_event(true).with_current_span(false).with_span_list(false);
            registry.with(json.map_event_format(|format| WithPriority { format, is_journal })).try_init()
        }
        LogFormat::Text => {
            let stamp = if is_journal {
                Stamp::Priority
            } else if colour() {
                Stamp::Coloured
            } else {
                Stamp::Plain
            };
            let lines = lines.with_ansi(stamp == Stamp::Coloured);
            registry.with(lines.event_format(text::Plain { stamp })).try_init()
        }
    };
    if done.is_ok() && LINES.set(writer).is_ok() {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            // A panic is reported beside the log, and after what led to it.
            flush();
            report(panic);
        }));
    }
    let level = LevelControl::new(settings.level, move |wanted| {
        if level.modify(|level| *level = wanted.into()).is_err() {
            tracing::warn!("the log level could not be changed");
        }
    });
    Ok(Logging { level, format: settings.format })
}

/// Waits until everything that was logged is written, unless the reader has stopped.
pub(super) fn flush() {
    if let Some(lines) = LINES.get() {
        lines.flush();
    }
}

impl Logging {
    /// What changes the level while the daemon runs.
    pub(super) fn level(&self) -> &LevelControl {
        &self.level
    }

    /// Takes changed settings: the level at once; the format needs a new start, and that is said.
    pub(super) fn retune(&self, settings: &LogSettings) {
        self.level.reloaded(settings.level);
        if settings.format != self.format {
            tracing::warn!("a changed log format takes effect at the next start");
        }
    }
}

/// Colour only on a terminal, and never with `NO_COLOR` (no-color.org: any value but an empty one).
fn colour() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}
