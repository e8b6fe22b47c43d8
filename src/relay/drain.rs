//! Tasks that can be waited for, and the wish that they come to an end.
//!
//! A [`Drain`] belongs to the owner of the tasks, a [`DrainWatch`] to the tasks. This is the only
//! place that spawns, so that a graceful stop waits for every task.

use std::future::Future;

use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The owner's side. It closes, and waits for every task that was spawned on a watch of it.
#[derive(Debug, Default)]
pub(crate) struct Drain {
    watch: DrainWatch,
}

/// The tasks' end: cheap to clone, spawns more tasks on the same drain, tells when it closes.
#[derive(Clone, Debug, Default)]
pub(crate) struct DrainWatch {
    tasks: TaskTracker,
    closing: CancellationToken,
}

impl Drain {
    /// A drain with no tasks.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// The end that tasks hold.
    pub(crate) fn watch(&self) -> DrainWatch {
        self.watch.clone()
    }

    /// Asks for no new work: a listener stops to listen. Work under way goes on.
    pub(crate) fn close(&self) {
        self.watch.closing.cancel();
    }

    /// Waits until the drain is closed and the last task has ended.
    pub(crate) async fn finished(&self) {
        self.watch.closing.cancelled().await;
        self.watch.tasks.close();
        self.watch.tasks.wait().await;
    }

    /// How many tasks are running.
    #[cfg(test)]
    pub(crate) fn task_count(&self) -> usize {
        self.watch.tasks.len()
    }
}

impl DrainWatch {
    /// Runs `task`; the drain is not finished before it has ended.
    pub(crate) fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tasks.spawn(task);
    }

    /// Waits until the drain closes.
    pub(crate) async fn closing(&self) {
        self.closing.cancelled().await;
    }

    /// Whether the drain has closed.
    #[cfg(test)]
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.is_cancelled()
    }
}
