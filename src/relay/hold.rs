//! Stops what receives for a listener, an acceptor or the loop of a UDP listener, and lets it go
//! on. What arrives meanwhile waits in the kernel's queue.

use tokio::sync::watch;

/// Whether the acceptors of a listener may accept.
#[derive(Debug, Default)]
pub(crate) struct Hold(watch::Sender<State>);

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
        self.0.send_modify(|state| state.is_held = true);
    }

    /// Lets the acceptors go on.
    pub(crate) fn release(&self) {
        self.0.send_modify(|state| state.is_held = false);
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
        self.0.send_modify(|state| state.acceptors += 1);
        Acceptors(self)
    }

    async fn until(&self, is_so: impl Fn(&State) -> bool) {
        // The sender is here, so this does not fail.
        let _ = self.0.subscribe().wait_for(|state| is_so(state)).await;
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
                self.0.0.send_modify(|state| state.stopped -= 1);
            }
        }
        self.0.0.send_modify(|state| state.stopped += 1);
        let _still = Still(self.0);
        self.0.until(|state| !state.is_held).await;
    }
}

impl Drop for Acceptors<'_> {
    fn drop(&mut self) {
        self.0.0.send_modify(|state| state.acceptors -= 1);
    }
}
