//! `/v1/router`: the home router, and what is open on it.

use std::sync::Arc;

use axum::{Json, extract::State};

use crate::{
    api::{context::Context, failure::Answer, input::Params},
    status::view::Router,
};

pub(super) async fn router(State(context): State<Arc<Context>>, params: Params) -> Answer<Json<Router>> {
    let [] = params.take([])?;
    Ok(Json(context.board().router()))
}
