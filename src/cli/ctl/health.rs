//! `portway health`: whether the daemon is ready, for containers.

use clap::Args;
use serde_json::Value;

use super::{Daemon, Failed, Outcome};
use crate::api::client::{Ask, ClientError};

/// It has no arguments of its own.
#[derive(Debug, Args)]
pub(in crate::cli) struct Health {}

/// Asks whether every listener listens.
pub(super) async fn health(_: Health, daemon: &Daemon) -> Result<Outcome, Failed> {
    let ask = Ask::get("/readyz");
    let refused = match daemon.show(&ask, |_: &Value| "ready".to_owned()).await {
        Err(Failed::Client(ClientError::Refused { json, failure, .. })) if !daemon.json => (json, failure),
        outcome => return outcome,
    };
    let (json, failure) = refused;
    let listeners = json["not_ready"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let message = listeners.fold(failure.error, |message, listener| message + "\n  " + listener);
    Err(Failed::Other(message, None))
}
