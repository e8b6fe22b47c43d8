//! The daemon as `top` sees it: pictures each second, events as they come, and what it is told to
//! do.
//!
//! Owns the requests. It asks for what the shown tab needs, and for no more: 10,000 sessions are
//! read only while someone looks at them. It knows nothing of the screen.
//!
//! It never ends by itself. What fails becomes [`News::Gone`], and is tried again.

use std::{collections::BTreeSet, time::Duration};

use serde::de::DeserializeOwned;
use tokio::{
    sync::{Notify, mpsc, watch},
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use super::state::{Deed, News, Picture, Tab};
use crate::{
    api::client::{Ask, Client, ClientError, Received},
    status::view,
};

/// From one picture to the next.
const REFRESH: Duration = Duration::from_secs(1);
/// How long the daemon may take for a picture. It has longer for a deed.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many sessions are read at most.
const SESSIONS: usize = 20_000;
/// The sessions of one answer.
const PART: &str = "5000";
/// The histories that are read after one picture.
const HISTORIES: usize = 20;
/// The status of HTTP for what is not there.
const NOT_FOUND: u16 = 404;

/// The daemon.
#[derive(Debug)]
pub(super) struct Feed {
    client: Client,
    /// A picture is wanted at once.
    wake: Notify,
}

impl Feed {
    pub(super) fn new(client: Client) -> Self {
        Self { client, wake: Notify::new() }
    }

    /// Brings news, for the tab that is shown, and carries out its requests. It ends with the
    /// screen.
    pub(super) async fn run(
        &self,
        news: &mpsc::Sender<News>,
        tab: watch::Receiver<Tab>,
        deeds: mpsc::Receiver<Deed>,
    ) {
        tokio::select! {
            () = self.pictures(news, tab) => {}
            () = self.events(news) => {}
            () = self.deeds(news, deeds) => {}
        }
    }

    async fn pictures(&self, news: &mpsc::Sender<News>, mut tab: watch::Receiver<Tab>) {
        let mut ticks = interval(REFRESH);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The mappings whose history is known, of this run of the daemon.
        let mut known = BTreeSet::new();
        let mut run = None;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.wake.notified() => {}
                changed = tab.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
            let shown = *tab.borrow_and_update();
            let picture = match timeout(PATIENCE, self.picture(shown)).await {
                Ok(Ok(picture)) => picture,
                failed => {
                    known.clear();
                    let late = |_| format!("the daemon has not answered for {} s", PATIENCE.as_secs());
                    let why = failed
                        .map_or_else(late, |failed| failed.map_or_else(|e| e.to_string(), |_| String::new()));
                    if news.send(News::Gone(why)).await.is_err() {
                        return;
                    }
                    continue;
                }
            };
            if run.replace(run_of(&picture.status)) != Some(run_of(&picture.status)) {
                known.clear();
            }
            let names: Vec<String> = picture.mappings.iter().map(|mapping| mapping.name.clone()).collect();
            known.retain(|name| names.contains(name));
            if news.send(News::Picture(Box::new(picture))).await.is_err() {
                return;
            }
            let new: Vec<String> =
                names.into_iter().filter(|name| !known.contains(name)).take(HISTORIES).collect();
            for name in new {
                if let Ok(Ok(history)) = timeout(PATIENCE, self.history(&name)).await
                    && news.send(News::History(Box::new(history))).await.is_err()
                {
                    return;
                }
                known.insert(name);
            }
        }
    }

    async fn get<T: DeserializeOwned>(&self, ask: Ask) -> Result<T, ClientError> {
        self.client.ask(&ask).await?.read()
    }

    async fn picture(&self, tab: Tab) -> Result<Picture, ClientError> {
        let status = self.get(Ask::get("/v1/status")).await?;
        let view::Mappings { mappings } = self.get(Ask::get("/v1/mappings")).await?;
        let mut picture = Picture { status, mappings, ..Picture::default() };
        match tab {
            Tab::Mappings | Tab::Events => {}
            Tab::Sessions => picture.sessions = Some(self.sessions().await?),
            Tab::Router => picture.router = Some(self.get(Ask::get("/v1/router")).await?),
            Tab::Bans => {
                let view::Bans { bans } = self.get(Ask::get("/v1/bans")).await?;
                picture.bans = Some(bans);
            }
        }
        Ok(picture)
    }

    async fn sessions(&self) -> Result<Vec<view::Session>, ClientError> {
        let mut all = Vec::new();
        let mut after = None;
        loop {
            let ask = Ask::get("/v1/sessions").with("limit", Some(PART)).with("after", after.as_deref());
            let view::Sessions { sessions, next } = self.get(ask).await?;
            let is_empty = sessions.is_empty();
            all.extend(sessions);
            after = next;
            if after.is_none() || is_empty || all.len() >= SESSIONS {
                return Ok(all);
            }
        }
    }

    async fn history(&self, mapping: &str) -> Result<view::History, ClientError> {
        let ask = Ask::get("/v1/history").with("mapping", Some(mapping)).with("minutes", Some("15"));
        let history: view::History = self.get(ask).await?;
        Ok(view::History { mapping: Some(mapping.to_owned()), ..history })
    }

    async fn events(&self, news: &mpsc::Sender<News>) {
        // The last event, and the run of the daemon that numbered it.
        let mut last = None;
        loop {
            if self.follow(news, &mut last).await.is_err() {
                return;
            }
            sleep(REFRESH).await;
        }
    }

    /// Follows one stream to its end: what the daemon remembers, without what is known already, and
    /// then what happens.
    ///
    /// # Errors
    /// The screen is closed.
    async fn follow(&self, news: &mpsc::Sender<News>, last: &mut Option<(Run, u64)>) -> Result<(), Closed> {
        let Ok(status) = self.get::<view::Status>(Ask::get("/v1/status")).await else { return Ok(()) };
        let run = run_of(&status);
        let after = last.as_ref().filter(|(of, _)| *of == run).map_or(0, |(_, id)| *id);
        let Ok(mut stream) = self.client.follow(Ask::get("/v1/events"), Some(after)).await else {
            return Ok(());
        };
        while let Ok(Some(received)) = stream.next().await {
            let next = match received {
                Received::Event { event, .. } => {
                    *last = Some((run.clone(), event.id));
                    News::Event(event)
                }
                Received::Lost(count) => News::Lost(count),
            };
            news.send(next).await.map_err(|_| Closed)?;
        }
        Ok(())
    }

    async fn deeds(&self, news: &mpsc::Sender<News>, mut deeds: mpsc::Receiver<Deed>) {
        while let Some(deed) = deeds.recv().await {
            let next = match self.act(&deed).await {
                Ok(done) => News::Done(done),
                Err(error) => News::Failed(error.to_string()),
            };
            if news.send(next).await.is_err() {
                return;
            }
            self.wake.notify_one();
        }
    }

    async fn act(&self, deed: &Deed) -> Result<String, ClientError> {
        let (ask, done, missing) = match deed {
            Deed::EndSession(id) => (
                Ask::delete("/v1/sessions").step(&id.to_string()),
                format!("ended session {id}"),
                format!("session {id} had ended already"),
            ),
            Deed::Unban(client) => (
                Ask::delete("/v1/bans").with("client", Some(client)),
                format!("unbanned {client}"),
                format!("{client} was not banned any more"),
            ),
        };
        match self.client.ask(&ask).await {
            Ok(_) => Ok(done),
            Err(ClientError::Refused { status: NOT_FOUND, .. }) => Ok(missing),
            Err(error) => Err(error),
        }
    }
}

/// The screen is closed.
struct Closed;

/// What tells one run of the daemon from another.
type Run = (u32, String);

fn run_of(status: &view::Status) -> Run {
    (status.pid, status.started.clone())
}

#[cfg(test)]
mod tests;
