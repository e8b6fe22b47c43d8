//! A container of Docker or podman, by the API of the engine.
//!
//! The engine is the one of `DOCKER_HOST`, else the first socket there is: Docker's, podman's of
//! the system, podman's of the user. `POST /containers/NAME/start` and `/stop` are all that is
//! asked, so that a proxy in front of the socket can forbid the rest.

use std::{env, path::Path, sync::Arc, time::Duration};

use crate::engine::{Engine, EngineError};

/// How long the engine may take for one request. A stop lasts as long as the container needs.
const ANSWER_LIMIT: Duration = Duration::from_secs(280);
/// Where engines listen, unless `DOCKER_HOST` says otherwise.
const SOCKETS: [&str; 3] = ["/var/run/docker.sock", "/run/docker.sock", "/run/podman/podman.sock"];

/// A container.
#[derive(Debug)]
pub(super) struct Container {
    name: Arc<str>,
    /// The engine; `None` as the environment says.
    engine: Option<Arc<str>>,
}

impl Container {
    pub(super) fn new(name: &Arc<str>) -> Self {
        Self { name: Arc::clone(name), engine: None }
    }

    #[cfg(test)]
    pub(super) fn of(name: &str, engine: &str) -> Self {
        Self { name: name.into(), engine: Some(engine.into()) }
    }

    /// Starts it. One that runs is left as it is.
    pub(super) async fn start(&self) -> Result<(), String> {
        self.ask("start").await
    }

    /// Stops it, with the time that it has of its own.
    pub(super) async fn stop(&self) -> Result<(), String> {
        self.ask("stop").await
    }

    async fn ask(&self, verb: &str) -> Result<(), String> {
        let is_name = |name: &str| {
            let mut chars = name.chars();
            chars.next().is_some_and(|c| c.is_ascii_alphanumeric())
                && chars.all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
        };
        if !is_name(&self.name) {
            return Err(
                "a name has letters, digits, `_`, `.` and `-`, and begins with a letter or digit".to_owned()
            );
        }
        let host = self.host();
        let engine = host.parse().map(Engine::at).map_err(|error| no_engine(&host, &error))?;
        let path = format!("/containers/{}/{verb}", self.name);
        engine.post(&path, ANSWER_LIMIT).await.map_err(|error| self.failed(&error))
    }

    fn host(&self) -> String {
        self.engine.as_ref().map_or_else(host, |host| host.to_string())
    }

    fn failed(&self, error: &EngineError) -> String {
        match error {
            EngineError::Refused { status: 404, .. } => format!(
                "the engine knows no such container: `docker ps --all` shows their names; \
                 make it with `docker create --name {}` or by compose",
                self.name
            ),
            EngineError::Refused { status: 403, message } => {
                format!("the engine, or a proxy before it, forbids it: allow POST /containers ({message})")
            }
            EngineError::Refused { message, .. } => message.clone(),
            error => no_engine(&self.host(), error),
        }
    }
}

/// Where the engine is.
fn host() -> String {
    if let Some(host) = env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty()) {
        return host;
    }
    let of_user = env::var("XDG_RUNTIME_DIR").map(|dir| format!("{dir}/podman/podman.sock"));
    let all = SOCKETS.into_iter().map(str::to_owned).chain(of_user);
    all.into_iter().find(|path| Path::new(path).exists()).unwrap_or_else(|| SOCKETS[0].to_owned())
}

fn no_engine(host: &str, error: &dyn std::error::Error) -> String {
    let said = error.to_string();
    let cure = if said.contains("ermission denied") {
        "add portway's user to the group of the socket (`SupplementaryGroups=docker`)"
    } else {
        "is it running? In a container, mount its socket; elsewhere set DOCKER_HOST"
    };
    format!("no container engine at {host} ({said}): {cure}")
}
