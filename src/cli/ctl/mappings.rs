//! `portway add`, `remove`, `pause` and `resume`: mappings while the daemon runs.

#![allow(rustdoc::broken_intra_doc_links, reason = "a help text shows `[optional]` parts in brackets")]

use clap::Args;
use serde_json::{Value, json};

use super::{
    Daemon, Failed, Outcome,
    human::clock,
    pretty,
    status::{listener, listeners_state},
};
use crate::{
    api::client::{Ask, LONG_PATIENCE},
    status::view::{self, ListenerState},
    text::{Escaped, escaped},
};

/// The mapping to make.
#[derive(Debug, Args)]
pub(in crate::cli) struct Add {
    /// What to publish, as [LISTEN_IP:]LISTEN_PORT:[TARGET_HOST:]TARGET_PORT[/PROTOCOL]
    spec: String,
    /// Its name; without it, port and protocol. A mapping of this name that `add` made is replaced
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Only these clients may enter: networks, addresses or lists ("@office"), separated by commas;
    /// may be repeated
    #[arg(long, value_name = "CLIENT", value_delimiter = ',')]
    allow: Vec<String>,
    /// Open its port on the home router
    #[arg(long)]
    router: bool,
    /// Remove it by itself after this time, as 2h
    #[arg(long = "for", value_name = "DURATION")]
    length: Option<String>,
}

/// The mapping to remove.
#[derive(Debug, Args)]
pub(in crate::cli) struct Remove {
    /// The name of a mapping that was made by `add`
    name: String,
}

/// The mapping to pause, or one of its targets.
#[derive(Debug, Args)]
pub(in crate::cli) struct Pause {
    /// Its name; or TARGET@NAME for one of its targets, which takes no new sessions then
    name: String,
}

/// The mapping to resume, or one of its targets.
#[derive(Debug, Args)]
pub(in crate::cli) struct Resume {
    /// Its name; or TARGET@NAME for one of its targets
    name: String,
}

impl Add {
    /// The mapping as the configuration has it, as JSON.
    fn table(&self) -> Value {
        let mut table = json!({ "publish": self.spec });
        if !self.allow.is_empty() {
            table["allow"] = json!(self.allow);
        }
        if self.router {
            table["router"] = json!(true);
        }
        if let Some(length) = &self.length {
            table["for"] = json!(length);
        }
        table
    }
}

/// Makes a mapping.
pub(super) async fn add(args: Add, daemon: &Daemon) -> Result<Outcome, Failed> {
    let ask = match &args.name {
        Some(name) => Ask::put("/v1/mappings").step(name),
        None => Ask::post("/v1/mappings"),
    };
    let ask = ask.body(args.table()).patiently(LONG_PATIENCE);
    daemon.show(&ask, added).await
}

fn added(mapping: &view::Mapping) -> String {
    let targets: Vec<_> = mapping.targets.iter().map(|target| escaped(&target.address)).collect();
    let listeners: Vec<_> = mapping.listeners.iter().map(|l| escaped(&listener(l))).collect();
    let mut text = format!("added {}", Escaped(&mapping.name));
    if !listeners.is_empty() && !targets.is_empty() {
        text += &format!(": {} → {}", listeners.join(", "), targets.join(", "));
    }
    if let Some(until) = &mapping.until {
        text += &format!(", until {} (UTC)", clock(until));
    }
    text + &troubles(mapping)
}

/// The listeners that do not listen, each on a line.
fn troubles(mapping: &view::Mapping) -> String {
    let is_trouble = |l: &&view::Listener| matches!(l.state, ListenerState::Waiting | ListenerState::Failed);
    let lines = mapping.listeners.iter().filter(is_trouble).map(|l| {
        let reason = l.error.as_deref().unwrap_or("its socket is not open");
        format!("\n  {} is {}: {}", Escaped(listener(l)), listeners_state(l.state), Escaped(reason))
    });
    lines.collect()
}

/// Removes a mapping.
pub(super) async fn remove(args: Remove, daemon: &Daemon) -> Result<Outcome, Failed> {
    let ask = Ask::delete("/v1/mappings").step(&args.name);
    done(&ask, daemon, &format!("removed {}", escaped(&args.name))).await
}

/// What a mapping, or `TARGET@MAPPING`, is told.
fn turn(name: &str, act: &str) -> Ask {
    let (target, name) = name.rsplit_once('@').map_or((None, name), |(target, name)| (Some(target), name));
    Ask::post("/v1/mappings").step(name).step(act).with("target", target)
}

/// Pauses a mapping or a target.
pub(super) async fn pause(args: Pause, daemon: &Daemon) -> Result<Outcome, Failed> {
    let ask = turn(&args.name, "pause");
    done(&ask, daemon, &format!("paused {}", escaped(&args.name))).await
}

/// Resumes a mapping or a target.
pub(super) async fn resume(args: Resume, daemon: &Daemon) -> Result<Outcome, Failed> {
    let ask = turn(&args.name, "resume");
    done(&ask, daemon, &format!("resumed {}", escaped(&args.name))).await
}

/// Asks, and says what was done. The answer may be the mapping as it is now.
async fn done(ask: &Ask, daemon: &Daemon, said: &str) -> Result<Outcome, Failed> {
    let answer = daemon.client.ask(&ask.clone().patiently(LONG_PATIENCE)).await?;
    if daemon.json {
        return Ok(Outcome::done(pretty(&answer.json)));
    }
    let troubles = answer.read().map(|mapping| troubles(&mapping)).unwrap_or_default();
    Ok(Outcome::done(format!("{said}{troubles}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapping::Protocol;

    #[test]
    fn what_is_added_is_a_mapping_of_the_configuration() {
        let add = Add {
            spec: "8080:80".into(),
            name: None,
            allow: vec!["@office".into()],
            router: true,
            length: Some("2h".into()),
        };
        let table = json!({ "publish": "8080:80", "allow": ["@office"], "router": true, "for": "2h" });
        assert_eq!(add.table(), table);
        let bare = Add { allow: Vec::new(), router: false, length: None, ..add };
        assert_eq!(bare.table(), json!({ "publish": "8080:80" }));
    }

    #[test]
    fn what_was_added_is_said_with_what_does_not_listen() {
        let listener = |listen: &str, state, error: Option<&str>| view::Listener {
            protocol: Some(Protocol::Tcp),
            listen: listen.into(),
            state,
            error: error.map(str::to_owned),
            holder: None,
        };
        let mapping = view::Mapping {
            name: "mc".into(),
            until: Some("2026-11-29T14:11:20Z".into()),
            listeners: vec![
                listener("0.0.0.0:80", ListenerState::Listening, None),
                listener("10.9.9.9:80", ListenerState::Waiting, Some("no such address\n")),
            ],
            targets: vec![view::Target { address: "10.0.0.5:80".into(), ..view::Target::default() }],
            ..view::Mapping::default()
        };
        assert_eq!(
            added(&mapping),
            "added mc: 0.0.0.0:80/tcp, 10.9.9.9:80/tcp → 10.0.0.5:80, until 2026-11-29 14:11:20 (UTC)\n  \
             10.9.9.9:80/tcp is waiting: no such address\\n"
        );
    }
}
