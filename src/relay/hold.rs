//! Stops what receives for a listener, an acceptor or the loop of a UDP listener, and lets it go
//! on. What arrives meanwhile waits in the kernel's queue.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Whether the acceptors of a listener may accept.
#[derive(Debug, Default)]
pub(crate) struct Hold {
    state: Mutex<State>,
    /// Told after each change. With the lock it needs a fifth of the memory of a watch channel, and
    /// each listener has one.
    changed: Notify,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    is_held: bool,
    /// The acceptors that there are, and those that stand still.
    acceptors: usize,
    stopped: usize,
}

impl Hold {
    /// Asks the acceptors to stop. One that comes later begins when it is released.
    pub(crate) fn hold(&self) {
        self.change(|state| state.is_held = true);
    }

    /// Lets the acceptors go on.
    pub(crate) fn release(&self) {
        self.change(|state| state.is_held = false);
    }

    /// Waits until all acceptors stand still.
    pub(crate) async fn stopped(&self) {
        self.until(|state| state.stopped >= state.acceptors).await;
    }

    /// Waits until the acceptors are asked to stop.
    pub(super) async fn asked(&self) {
        self.until(|state| state.is_held).await;
    }

    /// An acceptor begins.
    pub(super) fn begin(&self) -> Acceptors<'_> {
        self.change(|state| state.acceptors += 1);
        Acceptors(self)
    }

    async fn until(&self, is_so: impl Fn(&State) -> bool) {
        let changed = self.changed.notified();
        tokio::pin!(changed);
        loop {
            // Before the look, so that no change after it is missed.
            changed.as_mut().enable();
            if is_so(&self.state()) {
                return;
            }
            changed.as_mut().await;
            changed.set(self.changed.notified());
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_waiters();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in these sections panics half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An acceptor that is there.
#[derive(Debug)]
pub(super) struct Acceptors<'a>(&'a Hold);

impl Acceptors<'_> {
    /// Stands still until it may go on.
    pub(super) async fn stand_still(&self) {
        struct Still<'a>(&'a Hold);
        impl Drop for Still<'_> {
            fn drop(&mut self) {
                self.0.change(|state| state.stopped -= 1);
            }
        }
        self.0.change(|state| state.stopped += 1);
        let _still = Still(self.0);
        self.0.until(|state| !state.is_held).await;
    }
}

impl Drop for Acceptors<'_> {
    fn drop(&mut self) {
        self.0.change(|state| state.acceptors -= 1);
    }
}
