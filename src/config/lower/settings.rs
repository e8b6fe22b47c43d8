//! What concerns the daemon as a whole: `[limits]`, `[log]` and `[shutdown]`, and the terms of
//! `[router]`, `[api]` and `[metrics]`.

use std::{num::NonZeroU32, time::Duration};

use serde::Serialize;

use crate::{
    config::{
        lower::api::{ApiSettings, MetricsSettings},
        text::{
            Code, Keys, Kind, Reader, Refusal, Value, amount,
            cure::{self},
            duration::{self, DURATION},
            table::word,
        },
    },
    gateway::RouterSettings,
    log_level::LogLevel,
    mapping::Timeout,
};

/// What concerns the daemon as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What is logged, and how.
    pub log: LogSettings,
    /// How long sessions may go on after a request to stop; zero ends them at once.
    pub grace: Timeout,
    /// How many sessions and flows the daemon may have.
    pub limits: LimitSettings,
    /// How the home router is asked.
    pub router: RouterSettings,
    /// Where requests are answered.
    pub api: ApiSettings,
    /// Where metrics are read.
    pub metrics: MetricsSettings,
}

/// How many sessions and flows the daemon may have (`[limits]`); `None` is `"auto"`: as many as the
/// descriptor limit allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimitSettings {
    /// TCP sessions.
    pub sessions: Option<NonZeroU32>,
    /// UDP flows.
    pub flows: Option<NonZeroU32>,
}

impl LimitSettings {
    /// Reads `[limits]`.
    pub(crate) fn read(reader: &mut Reader<'_>, keys: &mut Keys<'_, '_>) -> Self {
        let [sessions, flows] =
            ["sessions", "flows"].map(|key| amount::count_or(reader, key, keys.get(key)?, "auto").flatten());
        Self { sessions, flows }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            log: LogSettings::default(),
            grace: Timeout::After(Duration::from_secs(30)),
            limits: LimitSettings::default(),
            router: RouterSettings::default(),
            api: ApiSettings::default(),
            metrics: MetricsSettings::default(),
        }
    }
}

/// What is logged, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogSettings {
    /// The least important line that is written.
    pub level: LogLevel,
    /// The form of a line.
    pub format: LogFormat,
}

/// What the command line or the environment says in place of `[log]`. It holds for reloads, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogOverride {
    /// In place of `level`.
    pub level: Option<LogLevel>,
    /// In place of `format`.
    pub format: Option<LogFormat>,
}

impl LogOverride {
    /// The settings with what is said here in place of theirs.
    pub(crate) fn over(self, settings: LogSettings) -> LogSettings {
        LogSettings {
            level: self.level.unwrap_or(settings.level),
            format: self.format.unwrap_or(settings.format),
        }
    }
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For programs: an object a line.
    Json,
}

impl LogFormat {
    /// Every format.
    pub const ALL: [Self; 2] = [Self::Text, Self::Json];

    /// The word for it in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }

    /// The format with this name, in upper or lower case.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.as_str().eq_ignore_ascii_case(name))
    }
}

impl LogSettings {
    /// Reads `[log]`.
    pub(crate) fn read(reader: &mut Reader<'_>, keys: &mut Keys<'_, '_>) -> Self {
        let levels = LogLevel::ALL.map(|l| (l.as_str(), l));
        let formats = LogFormat::ALL.map(|f| (f.as_str(), f));
        let default = Self::default();
        let settings = Self {
            level: keys.get("level").and_then(|v| word(reader, "level", v, &levels)).unwrap_or(default.level),
            format: keys
                .get("format")
                .and_then(|v| word(reader, "format", v, &formats))
                .unwrap_or(default.format),
        };
        if let Some(value) = keys.get("target") {
            target(reader, value);
        }
        settings
    }
}

fn target(reader: &mut Reader<'_>, value: &Value<'_>) {
    let Some(text) = reader.text("target", value).filter(|t| t.value != "stderr") else { return };
    reader
        .diagnostics
        .problem(Code::Unsupported, text.span(), format!("the log target `{}` is not supported", text.value))
        .text(&text.value)
        .hint("only \"stderr\" is supported in this version");
}

/// Reads `[shutdown]`; it is the grace. With none at all, a stop ends sessions at once.
pub(crate) fn grace(reader: &mut Reader<'_>, keys: &mut Keys<'_, '_>) -> Option<Timeout> {
    const FORMS: &str =
        "write a number and its unit, as in \"30s\" or \"5m\"; \"0s\" ends at once, \"never\" waits";
    let kind = Kind { forms: FORMS, ..DURATION };
    let parse = |text: &str| duration::parse_from_zero(text).map_err(|e| Refusal { hint: FORMS.into(), ..e });
    cure::read(reader, "grace", keys.get("grace")?, &kind, parse)
}
