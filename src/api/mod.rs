//! The API: what runs, over HTTP, and requests to change it.
//!
//! [`client`] is the side that asks. The rest is the side that answers.
//!
//! It owns the sockets that it listens on (`doors`, `socket`), its clients (`serve`, `entrance`,
//! `stream`), the question who may do what (`auth`, `asker`, `site`), and the routes. It shows what
//! the [`Board`](crate::status::Board) makes, and passes requests on to the supervisor's
//! [`Handle`](crate::supervisor::Handle). It must not know how anything else works.
//!
//! ```text
//! doors ─► serve ─► app: host, site, role ─► routes ─► Board │ Handle
//! ```
//!
//! The relay does not pay for it. All of it runs on a thread of its own with a lower priority. Its
//! descriptors come out of a reserve, and it takes few clients. Each of them is bounded in bytes
//! and in time.
//!
//! It starts when the first plan runs, follows the settings, and ends last, so that the end of the
//! sessions can be watched. At its end, streams end, and an answer that is under way has a moment.

mod app;
mod asker;
mod auth;
pub(crate) mod client;
mod context;
mod cookie;
mod dashboard;
mod doors;
mod entrance;
mod failure;
mod input;
mod metrics;
mod prober;
mod routes;
mod serve;
mod site;
mod socket;
mod stream;

use std::{io, os::fd::OwnedFd, sync::Arc, time::Duration};

pub(crate) use context::Means;
pub(crate) use doors::Doors;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{alarm::Alarm, config::Settings, job};
use app::App;
use context::Context;
use doors::Keeper;
use entrance::Clients;
use serve::Hall;

/// How long the clients may take at the end.
const END: Duration = Duration::from_secs(3);
/// How much longer than its own limit the end may take.
const SLACK: Duration = Duration::from_millis(500);
/// The priority of the thread, as nice(1) has it: the relay comes first.
const NICE: i32 = 5;

/// The API that runs.
#[derive(Debug)]
pub(crate) struct Api {
    stop: CancellationToken,
    serves: watch::Receiver<bool>,
    ended: watch::Receiver<bool>,
    wishes: mpsc::Sender<Wish>,
}

/// What a hand-over wants of it.
#[derive(Debug)]
enum Wish {
    /// Duplicates of its sockets, with the names of their places.
    Sockets(oneshot::Sender<Vec<(String, OwnedFd)>>),
    /// To leave the files of its sockets where they are.
    Leave(oneshot::Sender<()>),
}

impl Api {
    /// Starts to serve `doors`, and to follow the settings. While there is no door, it costs one
    /// waiting task of `tasks`.
    pub(crate) fn start(doors: Doors, means: Means, alarm: Alarm, tasks: &TaskTracker) -> Self {
        let (ended_tx, ended) = watch::channel(false);
        let (serves_tx, serves) = watch::channel(doors.is_empty());
        let stop = CancellationToken::new();
        let settings = means.handle.settings();
        let (wishes, wanted) = mpsc::channel(1);
        let part = Part { doors, settings, means, serves: serves_tx, stop: stop.clone(), wishes: wanted };
        tasks.spawn(async move {
            alarm.guard("api", part.run(&alarm)).await;
            ended_tx.send_replace(true);
        });
        Self { stop, serves, ended, wishes }
    }

    /// Waits until its doors are served, or cannot be.
    pub(crate) async fn ready(&self) {
        // An error means that it does not come, which the log says.
        let _ = self.serves.clone().wait_for(|serves| *serves).await;
    }

    /// Duplicates of its sockets, with the names of their places, for another process.
    pub(crate) async fn sockets(&self) -> Vec<(String, OwnedFd)> {
        self.wish(Wish::Sockets).await.unwrap_or_default()
    }

    /// Ends it as [`Api::stop`] does, and leaves its sockets to another process.
    pub(crate) async fn leave(&self) {
        self.wish(Wish::Leave).await;
        self.stop().await;
    }

    async fn wish<T>(&self, wish: impl FnOnce(oneshot::Sender<T>) -> Wish) -> Option<T> {
        // Without a door there is nothing to wish for.
        if self.wishes.is_closed() || !*self.serves.borrow() {
            return None;
        }
        let (reply, answer) = oneshot::channel();
        self.wishes.send(wish(reply)).await.ok()?;
        answer.await.ok()
    }

    /// Ends it within about three seconds, whatever its clients do.
    pub(crate) async fn stop(&self) {
        self.stop.cancel();
        let mut ended = self.ended.clone();
        // An error means that the task is gone, which is an end as well.
        let _ = timeout(END + SLACK, ended.wait_for(|ended| *ended)).await;
    }
}

/// What the thread of the API works with.
struct Part {
    doors: Doors,
    settings: watch::Receiver<Settings>,
    means: Means,
    /// Told when the doors are served.
    serves: watch::Sender<bool>,
    stop: CancellationToken,
    wishes: mpsc::Receiver<Wish>,
}

impl Part {
    /// Waits until there is a door, has a thread serve it, and waits for its end.
    async fn run(mut self, alarm: &Alarm) {
        if self.doors.is_empty() {
            tokio::select! {
                () = self.stop.cancelled() => return,
                found = self.settings.wait_for(doors::are_wanted) => if found.is_err() { return },
                () = nothing_to_give(&mut self.wishes) => return,
            }
            self.settings.mark_changed();
        }
        match job::start("portway-api", move || self.on_this_thread()) {
            Ok(work) => match work.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "API not started"),
                Err(_panicked) => alarm.raise("api"),
            },
            Err(error) => tracing::error!(%error, "API not started"),
        }
    }

    fn on_this_thread(self) -> io::Result<()> {
        // On Linux this is about the calling thread alone. Where it is refused, the thread has the
        // priority of the others.
        let _ = rustix::process::setpriority_process(None, NICE);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(self.serve());
        runtime.shutdown_background();
        Ok(())
    }

    async fn serve(mut self) {
        let clients = self.means.handle.budgets().api_clients();
        let tasks = TaskTracker::new();
        let context = Arc::new(Context::new(self.means, &self.settings.borrow().api, tasks.clone()));
        let hall = Hall {
            app: Arc::new(App::new(Arc::clone(&context))),
            clients: Arc::new(Clients::new(clients)),
            tasks: tasks.clone(),
        };
        context.switch(true);
        let mut keeper = Keeper::new(hall, std::mem::take(&mut self.doors));
        self.serves.send_replace(true);
        loop {
            tokio::select! {
                () = self.stop.cancelled() => break,
                Some(wish) = self.wishes.recv() => answer(wish, &mut keeper),
                changed = self.settings.changed() => {
                    // The supervisor has stopped. The end of the sessions can still be watched.
                    if changed.is_err() {
                        until(&self.stop, &mut self.wishes, &mut keeper).await;
                        break;
                    }
                    let settings = self.settings.borrow_and_update().clone();
                    context.retune(&settings.api);
                    keeper.retune(&settings).await;
                }
            }
        }
        drop(keeper);
        context.switch(false);
        tasks.close();
        let _ = timeout(END, tasks.wait()).await;
    }
}

/// Waits for the stop alone.
async fn until(stop: &CancellationToken, wishes: &mut mpsc::Receiver<Wish>, keeper: &mut Keeper) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            Some(wish) = wishes.recv() => answer(wish, keeper),
        }
    }
}

fn answer(wish: Wish, keeper: &mut Keeper) {
    match wish {
        Wish::Sockets(reply) => drop(reply.send(keeper.sockets())),
        Wish::Leave(reply) => {
            keeper.leave();
            let _ = reply.send(());
        }
    }
}

/// Answers where there is no door. Returns when every handle is gone.
async fn nothing_to_give(wishes: &mut mpsc::Receiver<Wish>) {
    while let Some(wish) = wishes.recv().await {
        // What is dropped means nothing.
        drop(wish);
    }
}
