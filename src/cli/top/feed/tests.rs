//! The feed against a small server that answers as the API does.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
};

use serde_json::json;

use super::*;
use crate::api::client::tests::Served;

/// A daemon with two mappings and a list of what it was asked.
struct Daemon {
    served: Served,
    asked: Arc<Mutex<Vec<String>>>,
    is_broken: Arc<AtomicBool>,
    pid: Arc<AtomicU32>,
}

impl Daemon {
    fn start() -> Self {
        let (asked, is_broken, pid) =
            (Arc::<Mutex<Vec<String>>>::default(), Arc::<AtomicBool>::default(), Arc::new(AtomicU32::new(7)));
        let (list, broken, process) = (Arc::clone(&asked), Arc::clone(&is_broken), Arc::clone(&pid));
        let served = Served::with(move |method, path, _| {
            list.lock().unwrap().push(format!("{method} {path}"));
            if broken.load(Relaxed) {
                return (503, json!({ "error": "too many clients" }).to_string());
            }
            let session = |id: u32| json!({ "id": id, "mapping": "web" });
            let (status, json) = match (method, path) {
                ("GET", "/v1/status") => (200, json!({ "version": "1", "pid": process.load(Relaxed) })),
                ("GET", "/v1/mappings") => {
                    (200, json!({ "mappings": [{ "name": "mc" }, { "name": "80/tcp" }] }))
                }
                ("GET", "/v1/sessions?limit=5000") => {
                    (200, json!({ "sessions": [session(1), session(2)], "next": "2" }))
                }
                ("GET", "/v1/sessions?limit=5000&after=2") => (200, json!({ "sessions": [session(3)] })),
                ("GET", "/v1/router") => (200, json!({ "state": "off" })),
                ("GET", "/v1/bans") => (200, json!({ "bans": [{ "client": "203.0.113.9" }] })),
                ("GET", "/v1/history?mapping=mc&minutes=15") => {
                    (200, json!({ "interval_ms": 1000, "points": [{ "bytes_in": 5 }] }))
                }
                ("DELETE", "/v1/sessions/3") => (200, json!({ "closed": 1 })),
                ("DELETE", "/v1/bans?client=2001%3Adb8%3A%3A%2F64") => (204, json!({})),
                ("DELETE", "/v1/bans?client=a") => (500, json!({ "error": "the disk is full" })),
                _ => (404, json!({ "error": "not there" })),
            };
            (status, json.to_string())
        });
        Self { served, asked, is_broken, pid }
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

/// Waits for the next picture.
async fn picture(news: &mut mpsc::Receiver<News>) -> Picture {
    loop {
        if let Some(News::Picture(picture)) = news.recv().await {
            return *picture;
        }
    }
}

#[tokio::test]
async fn the_shown_tab_alone_is_asked_for_and_a_change_of_tab_at_once() {
    let daemon = Daemon::start();
    let feed = Feed::new(daemon.served.client());
    let (news, mut heard) = mpsc::channel(64);
    let (tab, shown) = watch::channel(Tab::Mappings);
    let asks = async {
        let first = picture(&mut heard).await;
        assert_eq!((first.mappings.len(), &first.sessions, &first.bans), (2, &None, &None));
        let Some(News::History(history)) = heard.recv().await else { panic!("the history of mc comes") };
        assert_eq!((history.mapping.as_deref(), history.points[0].bytes_in), (Some("mc"), 5));
        tab.send(Tab::Sessions).unwrap();
        let ids = |picture: &Picture| {
            picture.sessions.iter().flatten().map(|session| session.id).collect::<Vec<_>>()
        };
        let mut next = picture(&mut heard).await;
        while ids(&next).is_empty() {
            next = picture(&mut heard).await;
        }
        assert_eq!(ids(&next), [1, 2, 3]);
        tab.send(Tab::Bans).unwrap();
        while picture(&mut heard).await.bans.is_none() {}
        tab.send(Tab::Router).unwrap();
        while picture(&mut heard).await.router.is_none() {}
    };
    tokio::select! {
        () = asks => {}
        () = feed.pictures(&news, shown) => panic!("it goes on while the screen is open"),
    }
    let asked = daemon.asked();
    let count = |what: &str| asked.iter().filter(|ask| ask.contains(what)).count();
    assert_eq!((count("history?mapping=mc"), count("history?mapping=80%2Ftcp")), (1, 1), "{asked:?}");
}

#[tokio::test]
async fn a_daemon_that_fails_is_said_and_its_return_is_noticed() {
    let daemon = Daemon::start();
    let feed = Feed::new(daemon.served.client());
    let (news, mut heard) = mpsc::channel(64);
    let (_tab, shown) = watch::channel(Tab::Mappings);
    let asks = async {
        picture(&mut heard).await;
        daemon.is_broken.store(true, Relaxed);
        let why = loop {
            if let Some(News::Gone(why)) = heard.recv().await {
                break why;
            }
        };
        assert_eq!(why, "too many clients");
        daemon.is_broken.store(false, Relaxed);
        daemon.pid.store(8, Relaxed);
        assert_eq!(picture(&mut heard).await.status.pid, 8);
        // Its history is read again.
        let Some(News::History(history)) = heard.recv().await else { panic!("the history of mc comes") };
        assert_eq!(history.mapping.as_deref(), Some("mc"));
    };
    tokio::select! {
        () = asks => {}
        () = feed.pictures(&news, shown) => panic!("it goes on while the screen is open"),
    }
}

#[tokio::test]
async fn a_deed_is_done_and_its_outcome_is_said() {
    let daemon = Daemon::start();
    let feed = Feed::new(daemon.served.client());
    let unban = |client: &str| Deed::Unban(client.to_owned());
    for (deed, said) in [
        (Deed::EndSession(3), Ok("ended session 3")),
        (Deed::EndSession(4), Ok("session 4 had ended already")),
        (unban("2001:db8::/64"), Ok("unbanned 2001:db8::/64")),
        (unban("b"), Ok("b was not banned any more")),
        (unban("a"), Err("the disk is full")),
    ] {
        let outcome = feed.act(&deed).await.map_err(|error| error.to_string());
        assert_eq!(outcome.as_deref().map_err(|error| &**error), said, "{deed:?}");
    }
}
