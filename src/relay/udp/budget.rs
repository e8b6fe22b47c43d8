//! How many flows the daemon may have, over all its listeners.
//!
//! A flow costs a descriptor, and a datagram with a forged source is enough to ask for one. The
//! budget keeps UDP from taking the descriptors that TCP and the control plane need. A
//! [`FlowPermit`] is one flow's share: it cannot be copied, and it goes back when it is dropped,
//! once.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

/// The flows that all listeners of the daemon may have together. Clones share one count.
#[derive(Clone, Debug)]
pub(crate) struct FlowBudget {
    count: Arc<Count>,
}

#[derive(Debug)]
struct Count {
    limit: AtomicUsize,
    used: AtomicUsize,
}

impl FlowBudget {
    /// A budget of `limit` flows, none of them taken.
    pub(crate) fn new(limit: usize) -> Self {
        Self { count: Arc::new(Count { limit: AtomicUsize::new(limit), used: AtomicUsize::new(0) }) }
    }

    /// Changes the limit. Flows above a lowered limit go on; there are no new ones until enough of
    /// them have ended.
    pub(crate) fn set_limit(&self, limit: usize) {
        self.count.limit.store(limit, Relaxed);
    }

    /// The limit.
    pub(crate) fn limit(&self) -> usize {
        self.count.limit.load(Relaxed)
    }

    /// How many flows there are; more than the limit after it was lowered.
    pub(crate) fn used(&self) -> usize {
        self.count.used.load(Relaxed)
    }

    /// The share of a flow that another process admitted, also above the limit.
    pub(super) fn take_over(&self) -> FlowPermit {
        self.count.used.fetch_add(1, Relaxed);
        FlowPermit { count: Arc::clone(&self.count) }
    }

    /// One flow's share, or `None` when the budget is spent.
    pub(super) fn take(&self) -> Option<FlowPermit> {
        let limit = self.limit();
        let taken =
            self.count.used.fetch_update(Relaxed, Relaxed, |used| (used < limit).then_some(used + 1)).is_ok();
        taken.then(|| FlowPermit { count: Arc::clone(&self.count) })
    }
}

/// One flow's share of a [`FlowBudget`]; dropping it gives it back.
#[derive(Debug)]
#[must_use = "a permit that is dropped is given back"]
pub(super) struct FlowPermit {
    count: Arc<Count>,
}

impl Drop for FlowPermit {
    fn drop(&mut self) {
        self.count.used.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permit_is_given_back_once_and_the_limit_holds() {
        let budget = FlowBudget::new(2);
        let (first, second) = (budget.take().unwrap(), budget.take().unwrap());
        assert!(budget.take().is_none());
        drop(first);
        assert_eq!(budget.used(), 1);
        let third = budget.take().unwrap();
        assert!(budget.take().is_none());
        drop((second, third));
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_lowered_limit_takes_no_permit_away() {
        let budget = FlowBudget::new(2);
        let (first, second) = (budget.take().unwrap(), budget.take().unwrap());
        budget.set_limit(1);
        assert_eq!(budget.used(), 2);
        drop(first);
        assert!(budget.take().is_none());
        drop(second);
        assert!(budget.take().is_some());
    }

    #[test]
    fn threads_that_race_never_take_more_than_the_limit() {
        let budget = FlowBudget::new(8);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        let held: Vec<_> = std::iter::repeat_with(|| budget.take()).take(4).collect();
                        assert!(budget.used() <= 8);
                        drop(held);
                    }
                });
            }
        });
        assert_eq!(budget.used(), 0);
    }
}
