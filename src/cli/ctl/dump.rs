//! `portway dump`: everything for a report of a fault, as JSON.

use clap::Args;

use super::{Daemon, Failed, Outcome, pretty};
use crate::api::client::Ask;

/// What is in it.
#[derive(Debug, Args)]
pub(in crate::cli) struct Dump {
    /// Leave addresses and host names as they are, in place of placeholders such as public-v4-1
    #[arg(long)]
    addresses: bool,
}

/// Prints the dump.
pub(super) async fn dump(args: Dump, daemon: &Daemon) -> Result<Outcome, Failed> {
    let ask = Ask::get("/v1/dump").with("addresses", args.addresses.then_some("true"));
    let answer = daemon.client.ask(&ask).await?;
    Ok(Outcome::done(pretty(&answer.json)))
}
