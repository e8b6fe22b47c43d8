//! The dump: everything that a report of a fault needs, as one value.
//!
//! Owns what is in it: the program, the system, the configuration without secrets, what runs, the
//! router, and what the flight recorder holds. [`Anonymous`] hides addresses and host names unless
//! they are asked for.

use serde_json::{Value, json};

use super::{Board, anonymous::Anonymous, recorded};
use crate::{
    config::Plan,
    events::Events,
    mapping::{Host, TargetAddr},
    text::clean,
};

/// The most events of all mappings together. Each mapping has the same share.
const MOST_EVENTS: usize = 50_000;
/// The least share.
const LEAST_SHARE: usize = 16;

impl Board {
    /// The dump of this moment.
    pub(crate) fn dump(&self, events: &Events, has_addresses: bool) -> Value {
        let status = self.status();
        let system = rustix::system::uname();
        let recorders = events.recorders();
        let share = (MOST_EVENTS / recorders.len().max(1)).max(LEAST_SHARE);
        let recent: Vec<_> = recorders
            .iter()
            .flat_map(|(name, recorder)| {
                let (notes, name) = (recorder.notes(), name.as_ref().map(ToString::to_string));
                let left_out = notes.len().saturating_sub(share);
                notes
                    .iter()
                    .skip(left_out)
                    .map(|note| recorded::of(note, name.as_deref()))
                    .collect::<Vec<_>>()
            })
            .collect();
        let (version, commit, started) = (&status.version, &status.commit, &status.started);
        // It names no address, and a version may look like one.
        let about = json!({
            "portway": { "version": version, "commit": commit, "started": started, "uptime_ms": status.uptime_ms },
            "system": {
                "name": clean(&system.sysname().to_string_lossy()),
                "kernel": clean(&system.release().to_string_lossy()),
                "machine": clean(&system.machine().to_string_lossy()),
            },
            "anonymous": !has_addresses,
        });
        let found = json!({
            "status": status,
            "config": self.config(),
            "mappings": self.mappings(),
            "router": self.router(),
            "recent": recent,
        });
        let found = match has_addresses {
            true => found,
            false => Anonymous::hiding(host_names(&self.roster().plan)).value(found),
        };
        let (Value::Object(mut dump), Value::Object(found)) = (about, found) else { return Value::Null };
        dump.extend(found);
        Value::Object(dump)
    }
}

/// The host names of targets, and those that clients ask for.
fn host_names(plan: &Plan) -> Vec<String> {
    let name = |target: &TargetAddr| match &target.host {
        Host::Name(name) | Host::Srv(name) => Some(name.to_string()),
        Host::Ip(..) => None,
    };
    let services = plan.listeners.values().map(|listener| &listener.service);
    let asked = services.clone().flat_map(|service| service.names().map(str::to_owned));
    services.flat_map(|service| service.all_targets().filter_map(name)).chain(asked).collect()
}
