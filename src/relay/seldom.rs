//! Futures that are seldom ready, beside one that is ready all the time.
//!
//! The loop of a listener waits for clients, and for a handful of other things that happen a few
//! times in its life. To poll each of those at every wake-up takes a lock each. Here they have a
//! waker of their own, and are polled only after one of them has called it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
};

use atomic_waker::AtomicWaker;
use tokio::sync::watch;

/// Whether one of them has called, and who is to hear it.
#[derive(Debug)]
struct Bell {
    has_rung: AtomicBool,
    task: AtomicWaker,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.has_rung.store(true, SeqCst);
        self.task.wake();
    }
}

/// Polls futures only after one of them has called.
#[derive(Debug)]
pub(super) struct Seldom {
    bell: Arc<Bell>,
    waker: Waker,
}

impl Seldom {
    /// Nothing was polled yet.
    pub(super) fn new() -> Self {
        let bell = Arc::new(Bell { has_rung: AtomicBool::new(true), task: AtomicWaker::new() });
        Self { waker: Arc::clone(&bell).into(), bell }
    }

    /// Polls by `all`, if that is worth it: it polls every one that may be ready, with the context
    /// that it is given, until one is. Which ones those are may change only when one was ready.
    pub(super) fn poll<T>(&self, cx: &Context<'_>, all: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        // Before the look, so that no call after it is missed.
        self.bell.task.register(cx.waker());
        if !self.bell.has_rung.load(SeqCst) {
            return Poll::Pending;
        }
        self.bell.has_rung.store(false, SeqCst);
        let polled = all(&mut Context::from_waker(&self.waker));
        if polled.is_ready() {
            // Those behind it were not polled, and the next one in its place was not either.
            self.bell.has_rung.store(true, SeqCst);
        }
        polled
    }
}

/// Waits for another value, and gives its receiver back; nothing where there will be none.
pub(super) async fn changed<T>(mut receiver: watch::Receiver<T>) -> Option<watch::Receiver<T>> {
    receiver.changed().await.ok().map(|()| receiver)
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, pin::pin, time::Duration};

    use tokio::{sync::Notify, time::timeout};

    use super::*;

    #[tokio::test]
    async fn all_are_polled_at_first_and_then_only_after_a_call() {
        let (seldom, one, other) = (Seldom::new(), Notify::new(), Notify::new());
        let (mut one_called, mut other_called) = (pin!(one.notified()), pin!(other.notified()));
        let mut polls = 0;
        let mut wait = async || {
            let called = poll_fn(|cx| {
                seldom.poll(cx, |cx| {
                    polls += 1;
                    if one_called.as_mut().poll(cx).is_ready() {
                        one_called.set(one.notified());
                        return Poll::Ready("one");
                    }
                    other_called.as_mut().poll(cx).map(|()| {
                        other_called.set(other.notified());
                        "other"
                    })
                })
            });
            (timeout(Duration::from_millis(5), called).await.ok(), polls)
        };
        assert_eq!(wait().await, (None, 1));
        assert_eq!(wait().await, (None, 1), "nothing has called");
        other.notify_waiters();
        assert_eq!(wait().await, (Some("other"), 2));
        assert_eq!(wait().await, (None, 3), "the next one in its place is polled");
        one.notify_waiters();
        other.notify_waiters();
        assert_eq!(wait().await, (Some("one"), 4));
        assert_eq!(wait().await, (Some("other"), 5), "what called at the same time is not lost");
        assert_eq!(wait().await, (None, 6));
    }

    #[tokio::test]
    async fn no_call_of_another_thread_is_missed() {
        for _ in 0..500 {
            let notify = Arc::new(Notify::new());
            let seldom = Seldom::new();
            let mut called = pin!(notify.notified());
            let other = Arc::clone(&notify);
            let caller = std::thread::spawn(move || other.notify_one());
            poll_fn(|cx| seldom.poll(cx, |cx| called.as_mut().poll(cx))).await;
            caller.join().unwrap();
        }
    }

    #[tokio::test]
    async fn a_change_gives_the_receiver_back_until_there_will_be_none() {
        let (sender, receiver) = watch::channel(1);
        sender.send_replace(2);
        let mut receiver = changed(receiver).await.unwrap();
        assert_eq!(*receiver.borrow_and_update(), 2);
        drop(sender);
        assert!(changed(receiver).await.is_none());
    }
}
