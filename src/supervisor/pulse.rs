//! A sign of life of the supervisor, for a reader outside its runtime.
//!
//! A loop that hangs cannot say so. So another thread asks, and the loop answers in its next turn,
//! also during the grace of a stop.

use std::sync::{
    Arc, Weak,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use tokio::sync::Notify;

#[derive(Debug, Default)]
struct Shared {
    unanswered: AtomicBool,
    asked: Notify,
}

/// The supervisor's side. It is dropped with the supervisor.
#[derive(Debug)]
pub(super) struct Beat(Arc<Shared>);

/// The side that asks. Clones ask the same supervisor.
#[derive(Clone, Debug)]
pub struct Pulse(Weak<Shared>);

/// Both sides.
pub(super) fn pair() -> (Beat, Pulse) {
    let shared = Arc::<Shared>::default();
    let pulse = Pulse(Arc::downgrade(&shared));
    (Beat(shared), pulse)
}

impl Beat {
    /// Waits for a question. May be dropped at any time.
    pub(super) async fn asked(&self) {
        self.0.asked.notified().await;
    }

    /// Answers.
    pub(super) fn answer(&self) {
        self.0.unanswered.store(false, Relaxed);
    }
}

impl Pulse {
    /// Asks for a sign of life. Returns whether there is still a supervisor.
    pub fn ask(&self) -> bool {
        let Some(shared) = self.0.upgrade() else { return false };
        shared.unanswered.store(true, Relaxed);
        shared.asked.notify_one();
        true
    }

    /// Whether the last question was answered, or the supervisor has ended.
    pub fn has_answered(&self) -> bool {
        self.0.upgrade().is_none_or(|shared| !shared.unanswered.load(Relaxed))
    }
}
