//! `/v1/mappings`: what is promised, and how it does.
//!
//! A name may have a slash (`8080/tcp`), written as it is or as `%2F`. So everything behind
//! `/v1/mappings/` is the name.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
};

use crate::{
    api::{
        context::Context,
        failure::{Answer, Refused},
        input::Params,
    },
    mapping::MappingName,
    status::view::{Mapping, Mappings},
    text::clean,
};

pub(super) async fn list(State(context): State<Arc<Context>>, params: Params) -> Answer<Json<Mappings>> {
    let [] = params.take([])?;
    Ok(Json(Mappings { mappings: context.board().mappings() }))
}

pub(super) async fn one(
    State(context): State<Arc<Context>>,
    Path(name): Path<String>,
    params: Params,
) -> Answer<Json<Mapping>> {
    let [] = params.take([])?;
    let mapping = MappingName::new(&name).ok().and_then(|name| context.board().mapping(&name));
    mapping.map(Json).ok_or_else(|| unknown(&name))
}

fn unknown(name: &str) -> Refused {
    Refused::missing(format!("there is no mapping `{}`", clean(name)))
}
