//! Containers that declare mappings, in a portway that was built to ask their engine; nothing in
//! another one.

use std::pin::Pin;

use crate::{
    config::{Containers, Loaded},
    supervisor::Handle,
};

/// The plan with the mappings of the containers, where the engine answers soon.
#[cfg(feature = "docker")]
pub(super) async fn first_look(loaded: Loaded) -> Loaded {
    crate::sources::docker::first_look(loaded).await
}

/// Keeps these mappings as the engine says, until the supervisor has stopped.
#[cfg(feature = "docker")]
pub(super) fn follow(handle: Handle, containers: Containers) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(crate::sources::docker::follow(handle, containers))
}

#[cfg(not(feature = "docker"))]
pub(super) async fn first_look(loaded: Loaded) -> Loaded {
    loaded
}

#[cfg(not(feature = "docker"))]
pub(super) fn follow(_: Handle, _: Containers) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(std::future::ready(()))
}
