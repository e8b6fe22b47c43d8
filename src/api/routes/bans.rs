//! `/v1/bans`: which clients are kept out, and the operator's word about them.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    api::{
        context::Context,
        failure::{Answer, Refused},
        input::{Input, Params, wrong_field, wrong_param},
    },
    config::parse_duration,
    mapping::Timeout,
    policy::parse_net,
    status::view::{self, Bans},
    text::clean,
};

/// A ban that an operator asks for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    client: String,
    /// A duration as the configuration has it; without it until further notice.
    r#for: Option<String>,
    reason: Option<String>,
}

pub(super) async fn list(State(context): State<Arc<Context>>, params: Params) -> Answer<Json<Bans>> {
    let [] = params.take([])?;
    Ok(Json(Bans { bans: context.board().bans() }))
}

/// Bans a client, in place of any ban that it has.
pub(super) async fn ban(
    State(context): State<Arc<Context>>,
    Input(asked): Input<Asked>,
) -> Answer<Json<view::Ban>> {
    let client = parse_net(&asked.client).map_err(|message| wrong_field("client", &message))?;
    let length = asked.r#for.map_or(Ok(Timeout::Never), |text| {
        parse_duration(&text).map_err(|refusal| wrong_field("for", &refusal.to_string()))
    })?;
    let guard = context.means.handle.gate().guard();
    let ban = guard.ban_net(client, length.duration(), asked.reason.as_deref(), Instant::now());
    Ok(Json(view::Ban::from(&ban)))
}

/// Ends a ban.
pub(super) async fn unban(State(context): State<Arc<Context>>, params: Params) -> Answer<Json<Value>> {
    let [asked] = params.take(["client"])?;
    const HELP: &str = "as in client=203.0.113.9";
    let asked = asked.ok_or_else(|| wrong_param("client", "no client", HELP))?;
    let client = parse_net(&asked).map_err(|message| wrong_param("client", message, HELP))?;
    if context.means.handle.gate().guard().unban_net(client) {
        return Ok(Json(json!({ "removed": 1 })));
    }
    Err(Refused::missing(format!("{} is not banned", clean(&asked))))
}
