//! The flows of one listener, over all its sockets: where they are found, and where they hand
//! themselves in when the listener freezes.
//!
//! The tray is open only during a freeze: a flow that comes late goes on by itself.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use tokio::sync::{Notify, watch};

use super::{ListenerShared, stopped::StoppedFlow};
use crate::{meter::LiveSession, relay::Hold};

/// The flows of one listener.
#[derive(Debug, Default)]
pub(crate) struct Flows {
    /// Stops the loop of the listener.
    pub(super) hold: Hold,
    /// The socket that they answer through now.
    current: Mutex<Weak<ListenerShared>>,
    tray: Mutex<Tray>,
    /// Rung when the tray may be complete.
    bell: Notify,
    /// Another process has the listener.
    is_let_go: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Tray {
    is_open: bool,
    stopped: Vec<StoppedFlow>,
}

impl Flows {
    /// The flows answer through this socket from now on.
    pub(super) fn are_of(&self, listener: &Arc<ListenerShared>) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(listener);
    }

    /// The socket that they answer through.
    pub(super) fn listener(&self) -> Option<Arc<ListenerShared>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).upgrade()
    }

    /// Copies of the target sockets of these flows, to be sent before a freeze.
    pub(crate) fn ahead(&self, live: &[Arc<LiveSession>]) -> Vec<OwnedFd> {
        let Some(listener) = self.listener() else { return Vec::new() };
        let wanted: std::collections::HashSet<u64> = live.iter().map(|live| live.id).collect();
        // The lock is not held for system calls.
        let targets: Vec<_> = {
            let table = listener.table();
            let wanted = table.all().filter(|flow| wanted.contains(&flow.live().id));
            wanted.filter_map(|flow| flow.target()).collect()
        };
        // One that cannot be copied goes with the others later.
        targets.iter().filter_map(|target| target.socket.as_fd().try_clone_to_owned().ok()).collect()
    }

    /// Opens the tray for the flows that are asked to freeze from now on.
    pub(super) fn await_flows(&self) {
        self.tray().is_open = true;
    }

    /// Waits until all flows have handed themselves in.
    pub(super) async fn complete(&self) {
        let Some(listener) = self.listener() else { return };
        loop {
            let rung = self.bell.notified();
            tokio::pin!(rung);
            rung.as_mut().enable();
            if self.tray().stopped.len() >= listener.table().len() {
                return;
            }
            rung.await;
        }
    }

    /// Closes the tray: what was handed in, and how many flows were not.
    pub(super) fn close_tray(&self) -> (Vec<StoppedFlow>, usize) {
        let stopped = {
            let mut tray = self.tray();
            tray.is_open = false;
            std::mem::take(&mut tray.stopped)
        };
        let all = self.listener().map_or(0, |listener| listener.table().len());
        let left = all.saturating_sub(stopped.len());
        (stopped, left)
    }

    /// Takes a flow that stopped where it was. Where it comes too late, it goes on.
    pub(super) fn hand_in(&self, flow: StoppedFlow) {
        {
            let mut tray = self.tray();
            if tray.is_open {
                tray.stopped.push(flow);
                drop(tray);
                return self.ring();
            }
        }
        flow.resume(self);
    }

    /// A flow has stopped or ended.
    pub(super) fn ring(&self) {
        self.bell.notify_waiters();
    }

    /// Ends the loop of the listener, which another process has.
    pub(super) fn let_go(&self) {
        self.is_let_go.send_replace(true);
    }

    /// Waits until another process has the listener.
    pub(super) async fn gone(&self) {
        // The sender is here.
        let _ = self.is_let_go.subscribe().wait_for(|is_let_go| *is_let_go).await;
    }

    fn tray(&self) -> MutexGuard<'_, Tray> {
        self.tray.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
