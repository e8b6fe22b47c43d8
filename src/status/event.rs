//! An event of the bus, as a view.

use super::{rfc3339, view};
use crate::events::Event;

impl From<&Event> for view::Event {
    fn from(event: &Event) -> Self {
        Self {
            id: event.id,
            at: rfc3339(event.at),
            kind: event.kind.as_str().to_owned(),
            mapping: event.mapping.as_ref().map(ToString::to_string),
            session: event.session,
            client: event.client.as_ref().map(ToString::to_string),
            reason: event.reason.as_deref().map(str::to_owned),
            message: event.message.to_string(),
        }
    }
}
