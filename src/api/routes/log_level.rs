//! `/v1/log-level`: which lines the log has, for a while.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    api::{
        context::Context,
        failure::Answer,
        input::{Input, Params, wrong_field},
    },
    config::{LogLevel, parse_duration},
    events::{Draft, EventKind},
    text::clean,
};

/// A level that an operator asks for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    level: String,
    /// A duration as the configuration has it; without it until the next reload.
    r#for: Option<String>,
}

/// The level in force, and how long it stays if it was asked for.
pub(super) async fn show(State(context): State<Arc<Context>>, params: Params) -> Answer<Json<Value>> {
    let [] = params.take([])?;
    Ok(Json(shown(&context)))
}

/// Puts a level in force.
pub(super) async fn set(
    State(context): State<Arc<Context>>,
    Input(asked): Input<Asked>,
) -> Answer<Json<Value>> {
    let level = LogLevel::named(&asked.level).ok_or_else(|| {
        let known = LogLevel::ALL.map(LogLevel::as_str).join(", ");
        wrong_field("level", &format!("`{}` is not a level; it may be {known}", clean(&asked.level)))
    })?;
    let time = asked.r#for.map(|text| parse_duration(&text)).transpose();
    let time = time.map_err(|refusal| wrong_field("for", &refusal.to_string()))?;
    context.means.log_level.set(level, time.and_then(crate::mapping::Timeout::duration));
    let events = &context.means.events;
    events.emit(EventKind::LogLevel, || Draft::new(format_args!("the log has the level {level}")));
    Ok(Json(shown(&context)))
}

fn shown(context: &Context) -> Value {
    let control = &context.means.log_level;
    let mut shown = json!({ "level": control.level() });
    if let Some(left) = control.left() {
        shown["left_ms"] = json!(u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
    }
    shown
}
