//! What all listeners share, and how one of them reports that its socket died.

use std::sync::{Arc, atomic::AtomicU64};

use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use super::Budgets;
use crate::{
    alarm::Alarm, mapping::ListenerKey, meter::Ledger, policy::Gate, sock::inherited::Inherited,
    targets::Dialer, wake::Wakers,
};

/// What every listener shares.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) dialer: Dialer,
    /// What starts targets. It outlives a reload.
    pub(super) wakers: Wakers,
    pub(super) budgets: Budgets,
    /// Numbers the sessions, and leads to the event bus.
    pub(super) ledger: Ledger,
    pub(super) gate: Arc<Gate>,
    /// Notified after each refusal.
    pub(super) refused: Arc<Notify>,
    /// Raised by a listener that panics.
    pub(super) alarm: Alarm,
    /// Where a listener reports that its socket died.
    pub(super) failed: mpsc::UnboundedSender<Failed>,
    /// The number of the next socket that is served.
    pub(super) next: Arc<AtomicU64>,
    /// Sockets that were passed to this process.
    pub(super) inherited: Inherited,
    /// Cancelled when the listeners may take clients: at once, but for a process that takes over.
    pub(super) serves: CancellationToken,
}

/// A socket that died. Its listener may have another one by now, or its place may be another
/// listener's: its number tells.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) key: ListenerKey,
    pub(super) number: u64,
    /// What the system said.
    pub(super) error: String,
}
