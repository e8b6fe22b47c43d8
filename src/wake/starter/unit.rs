//! A unit of systemd, over D-Bus.
//!
//! A start or a stop is a job. Its result comes as a signal, so the signals are asked for before
//! the job is. Each start has a connection of its own: they are rare, and the bus may be restarted
//! between two of them.

use std::{future::poll_fn, pin::Pin, sync::Arc, time::Duration};

use tokio::time::timeout;
use zbus::{
    Connection, Error, Message, MessageStream, OwnedObjectPath, connection::Builder,
    export::futures_core::Stream, fdo, match_rule::MatchRule, message::Type,
};

/// The manager of units.
const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const PATH: &str = "/org/freedesktop/systemd1";
/// How long a job may take. A unit has limits of its own, `TimeoutStartSec=` first of all.
const JOB_LIMIT: Duration = Duration::from_secs(900);
/// How long the bus may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// A unit of systemd.
#[derive(Debug)]
pub(super) struct Unit {
    name: Arc<str>,
    /// The bus; `None` for that of the system.
    bus: Option<Arc<str>>,
}

impl Unit {
    /// A name without a type is that of a service.
    pub(super) fn new(name: &str) -> Self {
        let name = if name.contains('.') { name.into() } else { format!("{name}.service").into() };
        Self { name, bus: None }
    }

    #[cfg(test)]
    pub(super) fn on(name: &str, bus: &str) -> Self {
        Self { bus: Some(bus.into()), ..Self::new(name) }
    }

    pub(super) async fn start(&self) -> Result<(), String> {
        self.job("StartUnit").await
    }

    pub(super) async fn stop(&self) -> Result<(), String> {
        self.job("StopUnit").await
    }

    /// Has systemd do a job, and waits for its end.
    async fn job(&self, method: &str) -> Result<(), String> {
        let bus = self.connect().await.map_err(|error| no_bus(&error))?;
        let asked = timeout(ANSWER_LIMIT, self.ask(&bus, method)).await;
        let asked =
            asked.map_err(|_| format!("no answer from systemd within {} s", ANSWER_LIMIT.as_secs()))?;
        let (job, mut signals) = asked.map_err(|error| self.refused(&error))?;
        let result = timeout(JOB_LIMIT, result_of(&job, &mut signals)).await;
        match result.map_err(|_| format!("its job has no end within {} s", JOB_LIMIT.as_secs()))? {
            // A condition of the unit does not hold: systemd takes that for a success.
            Some(result) if result == "done" || result == "skipped" => Ok(()),
            Some(result) => {
                let name = &self.name;
                Err(format!("its job ended with {result:?}; look into `journalctl -u {name}`"))
            }
            None => Err("the bus was closed before the job ended".to_owned()),
        }
    }

    async fn connect(&self) -> Result<Connection, Error> {
        let builder = match &self.bus {
            Some(address) => Builder::address(&**address),
            None => Builder::system(),
        };
        timeout(ANSWER_LIMIT, builder.build())
            .await
            .unwrap_or_else(|_| Err(Error::Failure(format!("no answer within {} s", ANSWER_LIMIT.as_secs()))))
    }

    async fn ask(&self, bus: &Connection, method: &str) -> Result<(OwnedObjectPath, MessageStream), Error> {
        let ended = MatchRule::builder()
            .msg_type(Type::Signal)
            .sender(SYSTEMD)
            .interface(MANAGER)
            .member("JobRemoved")
            .build()?;
        let signals = MessageStream::for_match_rule(ended, bus, None).await?;
        // Without it, systemd tells those about a job who asked for it. Not every version does.
        let _ = bus.call_method(Some(SYSTEMD), PATH, Some(MANAGER), "Subscribe", &()).await;
        let body = (&*self.name, "replace");
        let answer = bus.call_method(Some(SYSTEMD), PATH, Some(MANAGER), method, &body).await?;
        Ok((answer.body().deserialize()?, signals))
    }

    /// Why systemd does not do it, with the cure.
    fn refused(&self, error: &Error) -> String {
        let name = &self.name;
        let (kind, text) = parts(error);
        match kind.rsplit('.').next().unwrap_or_default() {
            "AccessDenied" | "InteractiveAuthorizationRequired" | "AuthFailed" => format!(
                "portway may not start or stop it: allow its user org.freedesktop.systemd1.manage-units \
                 by a polkit rule (README, \"Start a server when somebody comes\"), or run portway as root ({text})"
            ),
            "NoSuchUnit" => format!(
                "systemd knows no such unit: see `systemctl cat {name}`, and run `systemctl daemon-reload` \
                 after a change"
            ),
            "UnitMasked" => format!("the unit is masked: run `systemctl unmask {name}`"),
            "ServiceUnknown" | "NameHasNoOwner" => {
                "no systemd on the bus: use `command` or `docker` on this machine".to_owned()
            }
            _ if text.is_empty() => kind,
            _ => text,
        }
    }
}

/// Waits for the result of a job; `None` if the bus goes away.
async fn result_of(job: &OwnedObjectPath, signals: &mut MessageStream) -> Option<String> {
    loop {
        let message: Message = poll_fn(|cx| Pin::new(&mut *signals).poll_next(cx)).await?.ok()?;
        let body = message.body();
        let removed: Result<(u32, OwnedObjectPath, String, String), _> = body.deserialize();
        match removed {
            Ok((_, path, _, result)) if path == *job => return Some(result),
            _ => {}
        }
    }
}

/// The name of an error, and its text.
fn parts(error: &Error) -> (String, String) {
    match error {
        Error::MethodError(name, text, _) => (name.to_string(), text.clone().unwrap_or_default()),
        Error::FDO(error) => match &**error {
            fdo::Error::ZBus(error) => parts(error),
            error => {
                let text = error.to_string();
                let name = zbus::DBusError::name(error).to_string();
                (name, text)
            }
        },
        error => (String::new(), error.to_string()),
    }
}

fn no_bus(error: &Error) -> String {
    format!(
        "no way to the system bus ({error}): is dbus installed and running? In a container, mount \
         /run/dbus/system_bus_socket; elsewhere set DBUS_SYSTEM_BUS_ADDRESS"
    )
}
