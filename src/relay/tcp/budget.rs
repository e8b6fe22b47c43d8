//! How many TCP sessions the daemon may have, over all its listeners, and the pipes they share.
//!
//! A session costs two descriptors. The budget keeps their number within what the descriptor limit
//! allows. A client without a slot waits for a session to end. A lowered limit ends no session:
//! released slots make up the difference first. The guards of the slots are in `sessions`.

use std::{
    future::poll_fn,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use tokio::sync::{Semaphore, SemaphorePermit};
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

    /// Takes a slot for one more session, if one is free now.
    #[must_use]
    pub(super) fn try_take(&self) -> bool {
        self.0.free.try_acquire().map(SemaphorePermit::forget).is_ok()
    }

    /// Takes a slot, above the limit if none is free.
    pub(super) fn take(&self) {
        if !self.try_take() {
            self.0.owed.fetch_add(1, Relaxed);
        }
    }

    /// Gives a slot back.
    pub(super) fn give_back(&self) {
        if self.0.owed.fetch_update(Relaxed, Relaxed, |owed| owed.checked_sub(1)).is_err() {
            self.0.free.add_permits(1);
        }
    }

    /// The pipes that sessions share.
    pub(super) fn pipes(&self) -> &Pipes {
        &self.0.pipes
    }

    /// A place in the queue for a slot.
    pub(super) fn queue(&self) -> Queue {
        Queue(PollSemaphore::new(Arc::clone(&self.0.free)))
    }
}

/// A place in the queue. It is kept between calls.
#[derive(Debug)]
pub(super) struct Queue(PollSemaphore);

impl Queue {
    /// Waits until a slot is taken. May be dropped at any time, and keeps its place then.
    pub(super) async fn taken(&mut self) {
        match poll_fn(|cx| self.0.poll_acquire(cx)).await {
            Some(taken) => taken.forget(),
            None => unreachable!("the semaphore is never closed"),
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
        let give_back = |slots| (0..slots).for_each(|_| budget.give_back());
        assert!((0..4).all(|_| budget.try_take()));
        budget.set_limit(2);
        assert_eq!((budget.used(), budget.limit()), (4, 2));
        assert!(!budget.try_take());
        give_back(2);
        assert!(!budget.try_take(), "two are still there");
        give_back(1);
        assert!(budget.try_take() && !budget.try_take());
        budget.set_limit(1);
        budget.set_limit(3);
        assert!(budget.try_take() && !budget.try_take());
        give_back(3);
        let all = (0..10).filter(|_| budget.try_take()).count();
        assert_eq!((all, budget.used(), budget.limit()), (3, 3, 3));
        give_back(3);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn slots_above_the_limit_free_no_room_when_they_are_given_back() {
        let budget = SessionBudget::new(2, 0);
        (0..5).for_each(|_| budget.take());
        assert_eq!((budget.used(), budget.try_take()), (5, false));
        (0..3).for_each(|_| budget.give_back());
        assert_eq!((budget.used(), budget.try_take()), (2, false));
        budget.give_back();
        assert_eq!((budget.used(), budget.try_take()), (1, true));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_keeps_the_place_while_nobody_asks() {
        let budget = SessionBudget::new(1, 0);
        assert!(budget.try_take());
        let (mut early, mut late) = (budget.queue(), budget.queue());
        let moment = Duration::from_millis(1);
        assert!(timeout(moment, early.taken()).await.is_err());
        assert!(timeout(moment, late.taken()).await.is_err());
        budget.give_back();
        assert!(timeout(moment, late.taken()).await.is_err(), "the other one came first");
        timeout(moment, early.taken()).await.unwrap();
        budget.give_back();
        timeout(moment, late.taken()).await.unwrap();
    }
}
