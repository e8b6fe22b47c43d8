//! Notice of a part of the daemon that ended unexpectedly.
//!
//! A panic ends one task, and the process lives on without it: a daemon that hears no signal, or a
//! port that accepts no connection. So each long-lived task runs under [`Alarm::guard`], and the
//! daemon ends when one of them raises the alarm. Sessions and flows have none: the panic of one
//! ends that one alone.

use std::sync::Arc;

use tokio::sync::watch;

/// Raised by the first part that fails. Clones are one alarm.
#[derive(Clone, Debug, Default)]
pub struct Alarm(Arc<watch::Sender<Option<Arc<str>>>>);

impl Alarm {
    /// Runs `task`; where it panics, the alarm is raised with this name.
    pub async fn guard<F: Future>(&self, name: impl Into<Arc<str>>, task: F) -> F::Output {
        let _guard = Guard { alarm: self, name: name.into() };
        task.await
    }

    /// Raises the alarm for the part of this name. The first one counts.
    pub fn raise(&self, name: &str) {
        self.0.send_if_modified(|raised| {
            let first = raised.is_none();
            raised.get_or_insert_with(|| name.into());
            first
        });
    }

    /// Waits until it is raised: the name of the part that failed.
    pub async fn raised(&self) -> Arc<str> {
        let mut raised = self.0.subscribe();
        let name = raised.wait_for(Option::is_some).await.ok().and_then(|name| name.clone());
        name.unwrap_or_else(|| "unknown".into())
    }
}

struct Guard<'a> {
    alarm: &'a Alarm,
    name: Arc<str>,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        // A task that the end of the runtime drops does not panic.
        if std::thread::panicking() {
            self.alarm.raise(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinSet;

    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_raises_the_alarm_and_one_that_ends_or_is_dropped_does_not() {
        let (alarm, mut tasks) = (Alarm::default(), JoinSet::new());
        for name in ["ends", "is dropped", "panics"] {
            let alarm = alarm.clone();
            tasks.spawn(async move {
                let task = async {
                    match name {
                        "ends" => {}
                        "panics" => panic!("as the test wants"),
                        _ => std::future::pending().await,
                    }
                };
                alarm.guard(name, task).await;
            });
        }
        assert_eq!(&*alarm.raised().await, "panics");
        tasks.shutdown().await;
        assert_eq!(&*alarm.raised().await, "panics");
    }
}
