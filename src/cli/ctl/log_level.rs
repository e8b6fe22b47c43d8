//! `portway log-level`: how much the daemon logs, for a while.

use clap::{Args, builder::PossibleValuesParser};
use serde_json::{Value, json};

use super::{Daemon, Failed, Outcome};
use crate::{api::client::Ask, config, text::escaped};

/// What is wanted.
#[derive(Debug, Args)]
pub(in crate::cli) struct LogLevel {
    /// The least important line that is written
    #[arg(ignore_case = true, value_parser = PossibleValuesParser::new(config::LogLevel::ALL.map(config::LogLevel::as_str)))]
    level: String,
    /// How long; without it until the next reload
    #[arg(long = "for", value_name = "DURATION")]
    length: Option<String>,
}

/// Changes the level.
pub(super) async fn log_level(args: LogLevel, daemon: &Daemon) -> Result<Outcome, Failed> {
    let level = args.level.to_ascii_lowercase();
    let mut body = json!({ "level": level });
    if let Some(length) = &args.length {
        body["for"] = json!(length);
    }
    let end = args.length.as_deref().map_or("until the next reload".to_owned(), |length| {
        format!("for {}, or until the next reload", escaped(length))
    });
    let ask = Ask::post("/v1/log-level").body(body);
    daemon.show(&ask, |_: &Value| format!("the log has the level {level} {end}")).await
}
