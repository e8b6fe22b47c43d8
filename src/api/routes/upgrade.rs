//! `/v1/upgrade`: hands over to the program that is installed now, and tells how this process came
//! to serve.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use serde::Deserialize as _;

use crate::{
    api::{
        context::Context,
        failure::{Answer, Refused},
    },
    handover::{Fault, Refusal, Report},
    status::view::Problem,
};

/// The answer comes when the other process serves.
pub(super) async fn upgrade(State(context): State<Arc<Context>>) -> Answer<Json<Report>> {
    context.means.upgrades.ask().await.map(Json).map_err(refused)
}

/// The hand-over by which this process came to serve: process 1 cannot answer the request itself.
pub(super) async fn last(State(context): State<Arc<Context>>) -> Answer<Json<Report>> {
    let report = context.means.upgrades.came_by().cloned();
    report.map(Json).ok_or_else(|| Refused::missing("this process was started, and has taken over nothing"))
}

fn refused(Refusal { fault, error, problems }: Refusal) -> Refused {
    let status = match fault {
        Fault::Configuration => StatusCode::UNPROCESSABLE_ENTITY,
        Fault::Conflict => StatusCode::CONFLICT,
    };
    let problems = problems.iter().filter_map(|problem| Problem::deserialize(problem).ok());
    Refused::new(status, error).with_problems(problems.collect())
}
