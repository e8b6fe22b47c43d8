//! `/v1/history`: rates over time, for graphs.

use std::sync::Arc;

use axum::{Json, extract::State};

use crate::{
    api::{
        context::Context,
        failure::{Answer, Refused},
        input::{Params, wrong_param},
    },
    mapping::MappingName,
    status::view::History,
};

/// Minutes that are shown where none are asked for, and the most: a day.
const USUAL: u32 = 15;
const MOST: u32 = 24 * 60;

pub(super) async fn history(State(context): State<Arc<Context>>, params: Params) -> Answer<Json<History>> {
    let [mapping, minutes] = params.take(["mapping", "minutes"])?;
    let minutes = minutes.map_or(Some(USUAL), |text| text.parse().ok().filter(|n| (1..=MOST).contains(n)));
    let minutes = minutes.ok_or_else(|| {
        wrong_param("minutes", format!("not a number from 1 to {MOST}"), "as in minutes=15")
    })?;
    let Some(mapping) = mapping else {
        return context.board().history(None, minutes).map(Json).ok_or_else(|| Refused::no_mapping(""));
    };
    let name = MappingName::new(&mapping).ok();
    let history = name.and_then(|name| context.board().history(Some(&name), minutes));
    history.map(Json).ok_or_else(|| Refused::no_mapping(&mapping))
}
