//! What starts a target, and stops it: a command, a unit, a container, or a packet for a machine.
//!
//! Each kind has a file. All of them say what they do in the words of an operator, and each error
//! has a cure where there is one.

#[cfg(feature = "wake")]
mod child;
#[cfg(feature = "wake")]
mod command;
#[cfg(feature = "wake")]
mod container;
#[cfg(feature = "wake")]
mod machine;
#[cfg(feature = "wake")]
mod unit;

#[cfg(test)]
#[cfg(feature = "wake")]
mod tests;

use std::sync::Arc;

use tokio_util::task::TaskTracker;

use super::{Start, StartError};
use crate::mapping::MappingName;

/// For whom something is started.
#[derive(Clone, Debug)]
pub(super) struct Call {
    /// The mapping.
    pub(super) mapping: MappingName,
    /// The host name of its table.
    pub(super) host: Option<Arc<str>>,
    /// The first target.
    pub(super) target: Arc<str>,
}

/// What starts a target, and stops it.
#[derive(Debug)]
pub(super) struct Starter {
    /// `unit minecraft.service`, for lines and errors.
    what: Arc<str>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    #[cfg(feature = "wake")]
    Command(command::Command),
    #[cfg(feature = "wake")]
    Unit(unit::Unit),
    #[cfg(feature = "wake")]
    Container(container::Container),
    #[cfg(feature = "wake")]
    Machine([u8; 6]),
    /// A kind that this build does not have.
    #[cfg(not(feature = "wake"))]
    Missing,
    #[cfg(test)]
    Fake(Arc<super::tests::Fake>),
}

impl Starter {
    pub(super) fn of(start: &Start, tasks: &TaskTracker) -> Self {
        let what = match start {
            Start::Command { start, .. } => format!("command {}", start.first().map_or("", String::as_str)),
            Start::Unit(name) => format!("unit {name}"),
            Start::Container(name) => format!("container {name}"),
            Start::Machine([a, b, c, d, e, f]) => {
                format!("machine {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
            }
        };
        Self { what: what.into(), kind: Kind::of(start, tasks) }
    }

    #[cfg(test)]
    pub(super) fn fake(fake: Arc<super::tests::Fake>) -> Self {
        Self { what: "fake".into(), kind: Kind::Fake(fake) }
    }

    pub(super) fn what(&self) -> &Arc<str> {
        &self.what
    }

    /// Starts the target. A target that runs already is left as it is.
    ///
    /// # Errors
    /// Why that failed.
    pub(super) async fn start(&self, call: &Call) -> Result<(), StartError> {
        let done = match &self.kind {
            #[cfg(feature = "wake")]
            Kind::Command(command) => command.start(call).await,
            #[cfg(feature = "wake")]
            Kind::Unit(unit) => unit.start().await,
            #[cfg(feature = "wake")]
            Kind::Container(container) => container.start().await,
            #[cfg(feature = "wake")]
            Kind::Machine(mac) => machine::start(*mac).await,
            #[cfg(not(feature = "wake"))]
            Kind::Missing => {
                let _ = call;
                Err(MISSING.to_owned())
            }
            #[cfg(test)]
            Kind::Fake(fake) => fake.start(call).await,
        };
        done.map_err(|why| StartError::failed(&self.what, why))
    }

    /// Stops it.
    ///
    /// # Errors
    /// Why that failed.
    pub(super) async fn stop(&self, call: &Call) -> Result<(), StartError> {
        let done = match &self.kind {
            #[cfg(feature = "wake")]
            Kind::Command(command) => command.stop(call).await,
            #[cfg(feature = "wake")]
            Kind::Unit(unit) => unit.stop().await,
            #[cfg(feature = "wake")]
            Kind::Container(container) => container.stop().await,
            #[cfg(feature = "wake")]
            Kind::Machine(_) => Ok(()),
            #[cfg(not(feature = "wake"))]
            Kind::Missing => {
                let _ = call;
                Err(MISSING.to_owned())
            }
            #[cfg(test)]
            Kind::Fake(fake) => fake.stop().await,
        };
        done.map_err(|why| StartError::failed(&self.what, why))
    }
}

/// Why a build without the feature `wake` starts nothing.
#[cfg(not(feature = "wake"))]
const MISSING: &str = "this build of portway cannot start targets (feature `wake`)";

impl Kind {
    #[cfg(feature = "wake")]
    fn of(start: &Start, tasks: &TaskTracker) -> Self {
        match start {
            Start::Command { start, stop } => {
                Self::Command(command::Command::new(start, stop.as_ref(), tasks))
            }
            Start::Unit(name) => Self::Unit(unit::Unit::new(name)),
            Start::Container(name) => Self::Container(container::Container::new(name)),
            Start::Machine(mac) => Self::Machine(*mac),
        }
    }

    #[cfg(not(feature = "wake"))]
    fn of(_: &Start, _: &TaskTracker) -> Self {
        Self::Missing
    }
}
