//! `portway revoke`: ends the grant of a client that knocked.

use clap::Args;
use serde_json::Value;

use super::{Daemon, Failed, Outcome};
use crate::{api::client::Ask, text::escaped};

/// The client that may enter no more.
#[derive(Debug, Args)]
pub(in crate::cli) struct Revoke {
    /// Its address, as `portway status` shows it; of IPv6, its whole /64 is meant
    client: String,
}

/// Ends a grant.
pub(super) async fn revoke(args: Revoke, daemon: &Daemon) -> Result<Outcome, Failed> {
    let ask = Ask::delete("/v1/grants").with("client", Some(&args.client));
    let told = |_: &Value| {
        let client = escaped(&args.client);
        format!("{client} has to knock again; its sessions go on: portway close --client {client}")
    };
    daemon.show(&ask, told).await
}
