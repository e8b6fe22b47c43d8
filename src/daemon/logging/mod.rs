//! The log: to standard error, a file, the journal or syslog, with a level and a target that a
//! reload may change.
//!
//! An event becomes a `record`, which goes through the buffer of `lines` to a `sink`. Logging never
//! waits for the sink. Code that ends the program, or writes to standard error beside the log,
//! calls [`flush`] first.

mod entry;
mod journal;
mod json;
mod lines;
mod local_time;
mod record;
mod sink;
mod syslog;
mod text;

use std::{
    io,
    sync::{Arc, OnceLock},
};

pub(crate) use journal::for_stderr;
use lines::{Lines, Order};
use record::Recorder;
pub(super) use sink::Sink;
use tracing_subscriber::{filter::LevelFilter, layer::SubscriberExt, reload, util::SubscriberInitExt};

use crate::{config::LogSettings, log_level::LevelControl};

/// The process has one log.
static LINES: OnceLock<Arc<Lines>> = OnceLock::new();

/// The running log.
#[derive(Debug)]
pub(super) struct Logging {
    level: LevelControl,
    lines: Arc<Lines>,
}

/// Starts to log to a sink. Without effect when the process logs already (in a test).
///
/// # Errors
/// For a system that makes no thread.
pub(super) fn init(settings: &LogSettings, sink: Sink) -> io::Result<Logging> {
    let (layer, level) = reload::Layer::new(LevelFilter::from(settings.level));
    let lines = Lines::start(sink)?;
    let writer = Arc::clone(&lines);
    let recorder = Recorder(move |record: &[u8]| writer.add(record));
    let done = tracing_subscriber::registry().with(layer).with(recorder).try_init();
    if done.is_ok() && LINES.set(Arc::clone(&lines)).is_ok() {
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
    Ok(Logging { level, lines })
}

/// Waits until everything that was logged is sent, unless the sink takes nothing.
pub(super) fn flush() {
    if let Some(lines) = LINES.get() {
        lines.flush();
    }
}

/// Opens the file of the log again, if it is one: a program may have given it another name.
pub(super) fn reopen() {
    if let Some(lines) = LINES.get() {
        lines.order(Order::Reopen);
    }
}

impl Logging {
    /// What changes the level while the daemon runs.
    pub(super) fn level(&self) -> &LevelControl {
        &self.level
    }

    /// Takes the settings of a reload. A target that cannot be opened is refused in the log, and
    /// the old one stays.
    pub(super) fn retune(&self, settings: &LogSettings) {
        self.level.reloaded(settings.level);
        self.lines.order(Order::Use(settings.target.clone(), settings.format));
    }
}
