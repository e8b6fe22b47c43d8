//! `/v1/recorder`: the last events of a mapping; `/v1/dump`: everything for a report of a fault.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde_json::Value;

use crate::{
    api::{
        context::Context,
        failure::{Answer, Refused},
        input::{Params, wrong_param},
    },
    mapping::MappingName,
    status::{recorded, view::Recorder},
};

pub(super) async fn recorder(State(context): State<Arc<Context>>, params: Params) -> Answer<Json<Recorder>> {
    let [mapping] = params.take(["mapping"])?;
    let events = &context.means.events;
    let Some(mapping) = mapping else { return Ok(Json(Recorder { events: recorded(events, None) })) };
    let name = MappingName::new(&mapping)
        .map_err(|error| wrong_param("mapping", error.to_string(), "use a mapping's name"))?;
    // A mapping that is gone may still be recorded. A look at a name must not make a recorder.
    if !events.recorders().iter().any(|(known, _)| known.as_ref() == Some(&name)) {
        return match context.board().mapping(&name) {
            Some(_) => Ok(Json(Recorder::default())),
            None => Err(Refused::missing(format!("there is no mapping {name}"))),
        };
    }
    Ok(Json(Recorder { events: recorded(events, Some(&name)) }))
}

pub(super) async fn dump(State(context): State<Arc<Context>>, params: Params) -> Answer<Json<Value>> {
    let [addresses] = params.take(["addresses"])?;
    let has_addresses = match addresses.as_deref() {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(wrong_param("addresses", "not a choice", "it may be true or false")),
    };
    Ok(Json(context.board().dump(&context.means.events, has_addresses)))
}
