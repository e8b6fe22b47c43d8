//! `/v1/reload`: reads the configuration again and applies it, or says what that would change.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};

use crate::{
    api::{
        context::Context,
        failure::{Answer, Refused},
        input::{Params, wrong_param},
    },
    status::view::{Failure, Reload},
    supervisor::ReloadError,
};

pub(super) async fn reload(State(context): State<Arc<Context>>, params: Params) -> Answer<Json<Reload>> {
    let [dry_run] = params.take(["dry_run"])?;
    let handle = &context.means.handle;
    let outcome = match dry_run.as_deref() {
        Some("true") => handle.reload_dry_run().await.map(|preview| Reload::from(&preview)),
        None | Some("false") => handle.reload().await.map(|applied| {
            // The board has the warnings of the configuration that runs now.
            let warnings = context.board().warnings();
            Reload { warnings, ..Reload::from(&applied.changes) }
        }),
        Some(_) => return Err(wrong_param("dry_run", "not a choice", "it may be true or false")),
    };
    outcome.map(Json).map_err(|error| refused(&error))
}

/// The answer to a reload that was refused.
pub(super) fn refused(error: &ReloadError) -> Refused {
    let status = match error {
        ReloadError::Config(_) => StatusCode::UNPROCESSABLE_ENTITY,
        ReloadError::Bind(_) => StatusCode::CONFLICT,
        ReloadError::Job(_) | ReloadError::Stopping | ReloadError::HandedOver => {
            StatusCode::SERVICE_UNAVAILABLE
        }
    };
    let Failure { error, problems } = Failure::from(error);
    Refused::new(status, error).with_problems(problems)
}
