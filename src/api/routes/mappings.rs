//! `/v1/mappings`: what is promised, and how it does.
//!
//! A name may have a slash (`8080/tcp`), written as it is or as `%2F`. So everything behind
//! `/v1/mappings/` is the name, but for the `/pause`, `/resume` and `/probe` of a POST.
//!
//! A change is finished although its client leaves: it writes a file and then reloads.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use serde_json::{Map, Value};

use crate::{
    api::{
        context::Context,
        failure::{Answer, Refused},
        input::{Input, Params, wrong_field},
        routes::{probe, reload},
    },
    config::parse_duration,
    mapping::{MappingName, Timeout},
    sources::managed::{Managed, ManagedError},
    status::view::{self, Mapping, Mappings},
    supervisor::Applied,
    text::clean,
};

/// What a change gives.
type Changed = Result<Applied, ManagedError>;

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
    mapping.map(Json).ok_or_else(|| Refused::no_mapping(&name))
}

/// Makes a mapping with the name in its table, or the default name of its publish spec.
pub(super) async fn add(
    State(context): State<Arc<Context>>,
    params: Params,
    Input(mut table): Input<Map<String, Value>>,
) -> Answer<(StatusCode, Json<Mapping>)> {
    let [] = params.take([])?;
    let name = match table.remove("name") {
        Some(Value::String(name)) => named(&name).map_err(|message| wrong_field("name", &message))?,
        Some(_) => return Err(wrong_field("name", "not a text")),
        None => default_name(&table)?,
    };
    if context.board().mapping(&name).is_some() {
        let error = format!("there is a mapping `{name}`; choose another `name`, or change it with PUT");
        return Err(Refused::conflict(error));
    }
    Ok((StatusCode::CREATED, store(&context, name, table).await?))
}

/// Makes a mapping, or changes one as a whole.
pub(super) async fn put(
    State(context): State<Arc<Context>>,
    Path(name): Path<String>,
    params: Params,
    Input(mut table): Input<Map<String, Value>>,
) -> Answer<Json<Mapping>> {
    let [] = params.take([])?;
    let name = named(&name).map_err(Refused::bad)?;
    if table.remove("name").is_some_and(|own| own != name.as_str()) {
        return Err(wrong_field("name", "not the name in the path"));
    }
    store(&context, name, table).await
}

/// Removes a mapping.
pub(super) async fn remove(
    State(context): State<Arc<Context>>,
    Path(name): Path<String>,
    params: Params,
) -> Answer<StatusCode> {
    let [] = params.take([])?;
    let name = named(&name).map_err(|_| Refused::no_mapping(&name))?;
    change(&context, move |managed| async move { managed.remove(&name).await }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Pauses a mapping or one of its targets, or resumes it; or has its ports tried from outside.
pub(super) async fn act(
    State(context): State<Arc<Context>>,
    Path(path): Path<String>,
    params: Params,
) -> Answer<Response> {
    let [target] = params.take(["target"])?;
    if let Some((name, "probe")) = path.rsplit_once('/') {
        let name = named(name).map_err(|_| Refused::no_mapping(name))?;
        return Ok(probe::of_mapping(&context, &name).await?.into_response());
    }
    let (name, pauses) = match path.rsplit_once('/') {
        Some((name, "pause")) => (name, true),
        Some((name, "resume")) => (name, false),
        _ => {
            let error = "POST is for …/pause, …/resume and …/probe; change a mapping with PUT";
            return Err(Refused::missing(error));
        }
    };
    let name = named(name).map_err(|_| Refused::no_mapping(name))?;
    if let Some(target) = target {
        if !context.means.handle.pause_target(&name, &target, pauses) {
            let error = format!("no target `{}` in a mapping `{name}`", clean(&target));
            return Err(Refused::missing(error));
        }
        return Ok(shown(&context, &name)?.into_response());
    }
    let own = name.clone();
    let acted = move |managed: Managed| async move {
        if pauses { managed.pause(&own).await } else { managed.resume(&own).await }
    };
    change(&context, acted).await?;
    Ok(shown(&context, &name)?.into_response())
}

/// Puts the table of a mapping.
async fn store(
    context: &Arc<Context>,
    name: MappingName,
    mut table: Map<String, Value>,
) -> Answer<Json<Mapping>> {
    if let Some(length) = table.remove("for") {
        let text = length.as_str().ok_or_else(|| wrong_field("for", "not a text, such as \"2h\""))?;
        let length = parse_duration(text).map_err(|refusal| wrong_field("for", &refusal.to_string()))?;
        if let Timeout::After(length) = length {
            // The file has whole seconds: not less than was asked for.
            let until = SystemTime::now() + length + Duration::from_millis(999);
            table.insert("until".into(), humantime::format_rfc3339_seconds(until).to_string().into());
        }
    }
    let own = name.clone();
    change(context, move |managed| async move { managed.put(&own, table).await }).await?;
    shown(context, &name)
}

/// Makes a change, whether or not the client waits for it.
async fn change<C, F>(context: &Arc<Context>, change: C) -> Answer<()>
where
    C: FnOnce(Managed) -> F,
    F: Future<Output = Changed> + Send + 'static,
{
    let changed = context.tasks.spawn(change(context.means.managed.clone()));
    match changed.await {
        Ok(changed) => changed.map(drop).map_err(|error| refused(&error)),
        // It panicked: standard error has the details.
        Err(_) => {
            Err(Refused::new(StatusCode::INTERNAL_SERVER_ERROR, "a mistake in portway has ended this change"))
        }
    }
}

fn refused(error: &ManagedError) -> Refused {
    let status = match error {
        ManagedError::Refused(error) => return reload::refused(error),
        ManagedError::Body(problems) => {
            let problems = problems.iter().map(view::Problem::from).collect();
            return Refused::bad(error.to_string()).with_problems(problems);
        }
        ManagedError::Unknown(_) => StatusCode::NOT_FOUND,
        ManagedError::Shape(_) => StatusCode::BAD_REQUEST,
        ManagedError::Job(_) => StatusCode::SERVICE_UNAVAILABLE,
        ManagedError::DeclaredElsewhere { .. }
        | ManagedError::NoPlace
        | ManagedError::Broken { .. }
        | ManagedError::Changed(_)
        | ManagedError::Unwritable { .. } => StatusCode::CONFLICT,
    };
    Refused::new(status, error.to_string())
}

fn shown(context: &Context, name: &MappingName) -> Answer<Json<Mapping>> {
    context.board().mapping(name).map(Json).ok_or_else(|| Refused::no_mapping(name.as_str()))
}

fn named(text: &str) -> Result<MappingName, String> {
    MappingName::new(text).map_err(|error| format!("`{}` is not a name: {error}", clean(text)))
}

/// The name of a mapping that is given none.
fn default_name(table: &Map<String, Value>) -> Answer<MappingName> {
    let spec = match table.get("publish") {
        Some(Value::String(spec)) => Some(&**spec),
        Some(Value::Array(specs)) => specs.first().and_then(Value::as_str),
        _ => None,
    };
    let name = spec.and_then(Managed::default_name);
    name.ok_or_else(|| wrong_field("name", "no name, and no `publish` that could give one"))
}
