//! Logging to standard error, as text or as JSON, with a level that a reload may change.

mod text;

use std::io::IsTerminal;

use tracing_subscriber::{
    Registry, filter::LevelFilter, fmt, layer::SubscriberExt, reload, util::SubscriberInitExt,
};

use crate::config::{LogFormat, LogSettings};

/// The running log.
#[derive(Debug)]
pub(super) struct Logging {
    level: reload::Handle<LevelFilter, Registry>,
    format: LogFormat,
}

/// Starts to log. Without effect when the process logs already (in a test).
pub(super) fn init(settings: &LogSettings) -> Logging {
    let (layer, level) = reload::Layer::new(LevelFilter::from(settings.level));
    let registry = tracing_subscriber::registry().with(layer);
    let lines = fmt::layer().with_writer(std::io::stderr).with_target(false);
    let done = match settings.format {
        LogFormat::Json => registry
            .with(lines.json().flatten_event(true).with_current_span(false).with_span_list(false))
            .try_init(),
        LogFormat::Text if colour() => registry.with(lines.with_ansi(true)).try_init(),
        LogFormat::Text => registry.with(lines.with_ansi(false).event_format(text::Plain)).try_init(),
    };
    drop(done);
    Logging { level, format: settings.format }
}

impl Logging {
    /// Takes changed settings: the level at once; the format needs a new start, and that is said.
    pub(super) fn retune(&self, settings: &LogSettings) {
        if self.level.modify(|level| *level = settings.level.into()).is_err() {
            tracing::warn!("the log level could not be changed");
        }
        if settings.format != self.format {
            tracing::warn!("a changed log format takes effect at the next start");
        }
    }
}

/// Colour only on a terminal, and never with `NO_COLOR` (no-color.org: any value but an empty one).
fn colour() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}
