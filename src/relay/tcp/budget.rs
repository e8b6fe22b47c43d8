//! How many TCP sessions the daemon may have, over all its listeners, and the pipes they share.
//!
//! A session costs two descriptors. The budget keeps their number within what the descriptor limit
//! allows. A client without a [`SessionSlot`] waits for a session to end. A lowered limit ends no
//! session: released slots make up the difference first.

use std::{
    future::poll_fn,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use tokio::sync::Semaphore;
use tokio_util::sync::PollSemaphore;

use super::pipe::Pipes;

/// The TCP sessions that all listeners of the daemon may have at once. Clones share one count.
#[derive(Clone, Debug)]
pub(crate) struct SessionBudget(Arc<Count>);

#[derive(Debug)]
struct Count {
    free: Arc<Semaphore>,
    limit: Mutex<usize>,
    /// Sessions above a lowered limit: so many that end free no room.
    owed: AtomicUsize,
    pipes: Pipes,
}

impl SessionBudget {
    /// Slots for `sessions`, with up to `pipes` pipes for bulk; 0 turns splicing off.
    pub(crate) fn new(sessions: usize, pipes: usize) -> Self {
        let limit = sessions.min(Semaphore::MAX_PERMITS);
        let (free, owed) = (Arc::new(Semaphore::new(limit)), AtomicUsize::new(0));
        Self(Arc::new(Count { free, limit: limit.into(), owed, pipes: Pipes::new(pipes) }))
    }

    /// Changes the limit. Sessions above a lowered limit go on; there are no new ones until enough
    /// of them have ended.
    pub(crate) fn set_limit(&self, sessions: usize) {
        let mut limit = self.0.limit.lock().unwrap_or_else(PoisonError::into_inner);
        let sessions = sessions.min(Semaphore::MAX_PERMITS);
        let (more, less) = (sessions.saturating_sub(*limit), limit.saturating_sub(sessions));
        let forgotten = self.0.free.forget_permits(less);
        self.0.owed.fetch_add(less - forgotten, Relaxed);
        let forgive = |owed: usize| Some(owed.saturating_sub(more));
        let owed = self.0.owed.fetch_update(Relaxed, Relaxed, forgive).unwrap_or_default();
        self.0.free.add_permits(more.saturating_sub(owed));
        *limit = sessions;
    }

    /// The limit.
    pub(crate) fn limit(&self) -> usize {
        *self.0.limit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many slots are taken; more than the limit after it was lowered.
    pub(crate) fn used(&self) -> usize {
        let limit = self.0.limit.lock().unwrap_or_else(PoisonError::into_inner);
        (*limit + self.0.owed.load(Relaxed)).saturating_sub(self.0.free.available_permits())
    }

    /// A slot for one more session, if one is free now.
    pub(super) fn try_take(&self) -> Option<SessionSlot> {
        self.0.free.try_acquire().ok()?.forget();
        Some(SessionSlot(Arc::clone(&self.0)))
    }

    /// A place in the queue for a slot.
    pub(super) fn queue(&self) -> Queue {
        Queue { free: PollSemaphore::new(Arc::clone(&self.0.free)), count: Arc::clone(&self.0) }
    }
}

/// A place in the queue. It is kept between calls.
#[derive(Debug)]
pub(super) struct Queue {
    free: PollSemaphore,
    count: Arc<Count>,
}

impl Queue {
    /// Waits for a slot. May be dropped at any time, and keeps its place then.
    pub(super) async fn slot(&mut self) -> SessionSlot {
        match poll_fn(|cx| self.free.poll_acquire(cx)).await {
            Some(taken) => taken.forget(),
            None => unreachable!("the semaphore is never closed"),
        }
        SessionSlot(Arc::clone(&self.count))
    }
}

/// One session's share of the budget. Dropping it releases it.
#[derive(Debug)]
#[must_use = "a slot that is dropped is released"]
pub(super) struct SessionSlot(Arc<Count>);

impl SessionSlot {
    /// The pipes that its session may take bulk through.
    pub(super) fn pipes(&self) -> &Pipes {
        &self.0.pipes
    }
}

impl Drop for SessionSlot {
    fn drop(&mut self) {
        if self.0.owed.fetch_update(Relaxed, Relaxed, |owed| owed.checked_sub(1)).is_err() {
            self.0.free.add_permits(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[test]
    fn a_lowered_limit_takes_nothing_away_and_a_raised_one_forgives() {
        let budget = SessionBudget::new(4, 0);
        let mut rooms: Vec<_> = (0..4).map(|_| budget.try_take().unwrap()).collect();
        budget.set_limit(2);
        assert_eq!((budget.used(), budget.limit()), (4, 2));
        assert!(budget.try_take().is_none());
        rooms.truncate(2);
        assert!(budget.try_take().is_none(), "two are still there");
        rooms.truncate(1);
        let second = budget.try_take().unwrap();
        assert!(budget.try_take().is_none());
        budget.set_limit(1);
        budget.set_limit(3);
        let third = budget.try_take().unwrap();
        assert!(budget.try_take().is_none());
        drop((rooms, second, third));
        let all: Vec<_> = std::iter::from_fn(|| budget.try_take()).collect();
        assert_eq!((all.len(), budget.used(), budget.limit()), (3, 3, 3));
        drop(all);
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_keeps_the_place_while_nobody_asks() {
        let budget = SessionBudget::new(1, 0);
        let first = budget.try_take().unwrap();
        let (mut early, mut late) = (budget.queue(), budget.queue());
        let moment = Duration::from_millis(1);
        assert!(timeout(moment, early.slot()).await.is_err());
        assert!(timeout(moment, late.slot()).await.is_err());
        drop(first);
        assert!(timeout(moment, late.slot()).await.is_err(), "the other one came first");
        let slot = timeout(moment, early.slot()).await.unwrap();
        drop(slot);
        drop(timeout(moment, late.slot()).await.unwrap());
    }
}
