//! Listeners without a socket: those that could not be bound yet, and those whose socket died.

use super::Listeners;
use crate::{
    mapping::ListenerKey,
    sock::bind::Overlap,
    supervisor::{
        bind::{BindError, Place, Staged, Tolerance, explained, say_ipv4_only, say_waiting, stage},
        running::Running,
        shared::Failed,
    },
};

impl Listeners {
    /// Binds the socket of a listener that has none. If that fails, the listener waits. The error
    /// is returned if its cause is a new one.
    fn bind_again(&mut self, key: &ListenerKey) -> Option<BindError> {
        let (running, plan) = (self.running.get_mut(key)?, self.plan.listeners.get(key)?);
        if !running.is_waiting() {
            return None;
        }
        let place = Place { overlap: Overlap::Nothing, inherited: &self.shared.inherited };
        match stage(place, key, plan, Tolerance::Nothing) {
            Ok(Staged::Bound(bound)) => {
                say_ipv4_only(key, &bound, &mut self.said_ipv4_only);
                self.shared.inherited.note_used(&bound.socket);
                running.serve(bound.socket, true);
                self.note_listening(std::iter::empty());
                self.revision += 1;
                None
            }
            Ok(Staged::Waiting(error)) | Err(error) => running.waits_for(error.errno()).then_some(error),
        }
    }

    /// The next socket that died.
    pub(in crate::supervisor) async fn next_failed(&mut self) -> Failed {
        match self.failed.recv().await {
            Some(failed) => failed,
            None => unreachable!("the sender is kept in `shared`"),
        }
    }

    /// Notes that a listener's socket died. The next [`Listeners::retry`] binds it again.
    pub(in crate::supervisor) fn suspend(&mut self, failed: &Failed) {
        if let Some(running) = self.running.get_mut(&failed.key) {
            running.failed(failed);
            self.revision += 1;
            self.note_listening(std::iter::empty());
        }
    }

    /// Whether a listener has no socket.
    pub(in crate::supervisor) fn any_waiting(&self) -> bool {
        self.running.values().any(Running::is_waiting)
    }

    /// Tries to bind every listener that has no socket, and logs new causes.
    pub(in crate::supervisor) async fn retry(&mut self) {
        let waiting: Vec<_> =
            self.running.values().filter(|r| r.is_waiting()).map(|r| r.key().clone()).collect();
        let news: Vec<_> = waiting.iter().filter_map(|key| self.bind_again(key)).collect();
        self.say_waiting(news).await;
    }

    /// Notes and logs why listeners wait.
    pub(super) async fn say_waiting(&mut self, errors: Vec<BindError>) {
        if errors.is_empty() {
            return;
        }
        let errors = explained(errors).await;
        for error in &errors {
            if let Some(running) = self.running.get_mut(&error.key) {
                running.is_in_trouble(error.trouble());
            }
        }
        self.revision += 1;
        say_waiting(&errors, &self.plan, &self.events);
    }
}
