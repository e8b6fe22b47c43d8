//! The guard that a session carries.

use std::{net::SocketAddr, sync::Arc, sync::atomic::Ordering::Relaxed, time::Duration};

use tokio::time::Instant;

use super::{
    Ended, ListenerMeter, Moved,
    live::LiveSession,
    reached::{Reached, Shown, Whole},
    told::{Led, Over},
};
use crate::{
    events::{Draft, EventKind, Step},
    mapping::{MappingName, Protocol, TargetAddr},
    targets::Place,
};

/// The guard of one session: it counts, and it settles the account exactly once.
#[derive(Debug)]
#[must_use = "a session that is dropped at once ends at once"]
pub(crate) struct SessionMeter {
    pub(super) listener: Arc<ListenerMeter>,
    pub(super) live: Arc<LiveSession>,
    pub(super) slot: usize,
    pub(super) settled: bool,
}

impl SessionMeter {
    /// What others see of this session.
    pub(crate) fn live(&self) -> &Arc<LiveSession> {
        &self.live
    }

    /// The mapping of the session's listener.
    pub(crate) fn mapping(&self) -> MappingName {
        self.listener.mapping()
    }

    /// Notes the address the session was connected to, and its place at the target. The last ones
    /// stand.
    pub(crate) fn reached(&self, target: SocketAddr, place: Place) {
        let before = self.live.target().replace(Reached::Address(target, place));
        // A flow needs no answer to be connected, and it can be connected again.
        let took = (before.is_none() && self.listener.protocol == Protocol::Tcp).then(|| {
            let took = Instant::now().saturating_duration_since(self.live.started);
            self.listener.table().account.reached(took);
            took
        });
        self.listener.record(&self.live, None, Step::Connected { target, took });
    }

    /// Notes the target that could not be reached, for a session that has reached none.
    pub(crate) fn missed(&self, target: &TargetAddr) {
        self.live.target().get_or_insert_with(|| Reached::Named(target.clone()));
    }

    /// Counts bytes that were delivered to the target.
    pub(crate) fn add_in(&self, bytes: u64) {
        self.live.bytes_in.fetch_add(bytes, Relaxed);
    }

    /// Counts bytes that were delivered to the client.
    pub(crate) fn add_out(&self, bytes: u64) {
        self.live.bytes_out.fetch_add(bytes, Relaxed);
    }

    /// Counts datagrams that were sent to the target.
    pub(crate) fn add_datagrams_in(&self, datagrams: u64) {
        self.live.datagrams_in.fetch_add(datagrams, Relaxed);
    }

    /// Counts datagrams that were sent to the client.
    pub(crate) fn add_datagrams_out(&self, datagrams: u64) {
        self.live.datagrams_out.fetch_add(datagrams, Relaxed);
    }

    /// Settles the account: the session ended for `reason`.
    pub(crate) fn end(mut self, reason: Ended) {
        self.settle(reason, None);
    }

    /// Settles the account: the session ended for `reason`, and this is what the system said.
    pub(crate) fn end_with(mut self, reason: Ended, error: &dyn std::fmt::Display) {
        self.settle(reason, Some(error));
    }

    fn settle(&mut self, reason: Ended, error: Option<&dyn std::fmt::Display>) {
        if std::mem::replace(&mut self.settled, true) {
            return;
        }
        let ListenerMeter { protocol, listen, .. } = &*self.listener;
        let moved = self.live.moved();
        let Moved { bytes_in, bytes_out, .. } = moved;
        let now = Instant::now();
        let duration = now.saturating_duration_since(self.live.started);
        self.live.leave();
        {
            let mut table = self.listener.table();
            table.live.remove(self.slot);
            table.account.ended(reason, moved, duration);
        }
        let id = self.tell_end(reason, duration, error);
        let ended = Step::Ended { reason: reason.as_str(), lasted: duration, bytes_in, bytes_out };
        self.listener.record(&self.live, id, ended);
        // Where the level hides the lines, none of them is missed.
        if !tracing::enabled!(tracing::Level::INFO)
            || !self.listener.log().takes(reason, (bytes_in, bytes_out), now)
        {
            return;
        }
        tracing::info!(
            session.id = self.live.id,
            mapping = %self.listener.mapping(),
            protocol = protocol.as_str(),
            client.addr = %Whole(self.live.client),
            listen.addr = %listen,
            target.addr = %Shown(self.live.target().as_ref()),
            "bytes.in" = bytes_in,
            "bytes.out" = bytes_out,
            duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
            reason = reason.as_str(),
            error = error.map(tracing::field::display),
            "session ended"
        );
    }

    fn tell_end(
        &self,
        reason: Ended,
        duration: Duration,
        error: Option<&dyn std::fmt::Display>,
    ) -> Option<u64> {
        let Self { listener, live, .. } = self;
        listener.events().emit_numbered(EventKind::SessionEnded, || {
            let led = match &*live.target() {
                Some(Reached::Address(addr, _)) => Led::To(*addr),
                Some(Reached::Named(target)) => Led::Toward(target.clone()),
                None => Led::Nowhere,
            };
            let (protocol, client, moved) = (listener.protocol, live.client, live.moved());
            let error = error.map(ToString::to_string);
            let message = Over { protocol, client, led, reason, moved, duration, error };
            let draft = Draft::later(message).mapping(listener.mapping());
            draft.session(live.id).client_at(client).reason(reason.as_str())
        })
    }
}

impl Drop for SessionMeter {
    /// A session whose task is dropped unfinished: the runtime is going away, or the task panicked.
    fn drop(&mut self) {
        self.settle(Ended::Shutdown, None);
    }
}
