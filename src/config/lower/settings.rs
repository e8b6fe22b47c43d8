//! What concerns the daemon as a whole: `[limits]` and `[shutdown]`, and the terms of `[router]`,
//! `[log]`, `[api]`, `[metrics]` and `[docker]`.

use std::{num::NonZeroU32, time::Duration};

use crate::{
    config::{
        lower::{
            api::{ApiSettings, MetricsSettings},
            daemon::DaemonSettings,
            docker::DockerSettings,
            log::LogSettings,
        },
        text::{
            Keys, Kind, Reader, Refusal, amount,
            cure::{self},
            duration::{self, DURATION},
        },
    },
    gateway::RouterSettings,
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
    /// The process itself.
    pub daemon: DaemonSettings,
    /// The engine whose containers declare mappings; `None` asks none.
    pub docker: Option<DockerSettings>,
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
            daemon: DaemonSettings::default(),
            docker: None,
        }
    }
}

/// Reads `[shutdown]`; it is the grace. With none at all, a stop ends sessions at once.
pub(crate) fn grace(reader: &mut Reader<'_>, keys: &mut Keys<'_, '_>) -> Option<Timeout> {
    const FORMS: &str =
        "write a number and its unit, as in \"30s\" or \"5m\"; \"0s\" ends at once, \"never\" waits";
    let kind = Kind { forms: FORMS, ..DURATION };
    let parse = |text: &str| duration::parse_from_zero(text).map_err(|e| Refusal { hint: FORMS.into(), ..e });
    cure::read(reader, "grace", keys.get("grace")?, &kind, parse)
}
