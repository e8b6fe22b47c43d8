//! `/v1/status`: the daemon as a whole.

use std::sync::Arc;

use axum::{Json, extract::State};

use crate::{
    api::{context::Context, failure::Answer, input::Params},
    status::view::Status,
};

pub(super) async fn status(State(context): State<Arc<Context>>, params: Params) -> Answer<Json<Status>> {
    let [] = params.take([])?;
    Ok(Json(context.board().status()))
}
