//! The events of a daemon that serves, is reloaded and bans a client.

use super::*;

struct Told {
    handle: Handle,
    events: Events,
}

impl Told {
    async fn start(config: &Path) -> Self {
        let source = Source { file: Some(config.to_owned()), ..Source::default() };
        let loaded = config::load(&source, &System).unwrap();
        let events = Events::default();
        events.switch(true);
        let means = Means {
            budgets: Budgets::new(256, true),
            gate: Gate::telling(std::time::SystemTime::now, events.clone()),
            alarm: Alarm::default(),
            events: events.clone(),
            inherited: Inherited::default(),
        };
        let read: PlanSource = Arc::new(move || config::load(&source, &System));
        let handle = Handle::start(read, loaded, Tolerance::Nothing, means, &TaskTracker::new()).await;
        Self { handle: handle.unwrap(), events }
    }

    /// Waits for as many events, and returns for each its kind, mapping, reason, and whether it
    /// names a client and a session.
    async fn first(&self, count: usize) -> Vec<String> {
        let mut reader = self.events.subscribe(Some(0)).unwrap();
        let mut all = std::mem::take(&mut reader.recent);
        while all.len() < count {
            all.push(timeout(PATIENCE, reader.next.recv()).await.unwrap().unwrap());
        }
        let word = |event: &Arc<crate::events::Event>| {
            let named = event.mapping.as_ref().map_or("-", |name| name.as_str());
            let reason = event.reason.as_deref().unwrap_or("-");
            let (client, session) = (event.client.is_some(), event.session.is_some());
            format!("{} {named} {reason} {client} {session}", event.kind.as_str())
        };
        all.iter().map(word).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happens_is_told_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let (at, more) = (free_port(), free_port());
    let text = |deny: &str| {
        format!("[[mapping]]\nname = \"web\"\npublish = \"127.0.0.1:{at}:127.0.0.1:1\"\ndeny = {deny}\n")
    };
    let path = config(dir.path(), &text("[]"));
    let told = Told::start(&path).await;
    let visit = || async move {
        let mut client = TcpStream::connect(("127.0.0.1", at)).await.unwrap();
        let _ = client.read(&mut [0]).await;
    };
    visit().await;
    told.first(4).await;
    fs::write(&path, text("[\"127.0.0.1\"]") + &format!("[[mapping]]\npublish = \"127.0.0.1:{more}:9\"\n"))
        .unwrap();
    told.handle.reload().await.unwrap();
    visit().await;
    told.first(7).await;
    let client = "192.0.2.7".parse().unwrap();
    told.handle.gate().guard().ban(client, None, tokio::time::Instant::now());
    told.handle.gate().guard().unban(client);
    fs::write(&path, "nonsense = 1\n").unwrap();
    assert!(told.handle.reload().await.is_err());
    fs::write(&path, text("[]")).unwrap();
    told.handle.reload().await.unwrap();
    let other = format!("{more}/tcp");
    let expected = [
        "listening web - false false",
        "session-started web - true true",
        "target-down web - false false",
        "session-ended web unreachable true true",
        &format!("listening {other} - false false"),
        "reload-applied - - false false",
        "session-refused web denied true false",
        "banned - operator true false",
        "unbanned - - true false",
        "reload-refused - - false false",
        &format!("listener-closed {other} - false false"),
        "reload-applied - - false false",
    ];
    assert_eq!(told.first(expected.len()).await, expected);
    let totals = told.handle.totals().borrow().clone();
    let [(web, totals)] = &totals[..] else { panic!("{totals:?}") };
    let totals = totals.read(crate::mapping::Protocol::Tcp);
    let unreachable = totals.ended.iter().find(|(reason, _)| *reason == Ended::Unreachable);
    assert_eq!(web.to_string(), "web");
    assert_eq!((totals.sessions, unreachable), (1, Some(&(Ended::Unreachable, 1))), "over two reloads");
    fs::write(&path, text("[]") + "enabled = false\n").unwrap();
    told.handle.reload().await.unwrap();
    let sessions = || {
        let totals = told.handle.totals().borrow().clone();
        let all = totals.iter().map(|(_, totals)| totals.read(crate::mapping::Protocol::Tcp).sessions);
        all.collect::<Vec<_>>()
    };
    assert_eq!(sessions(), [1], "a closed mapping keeps its totals");
    fs::write(&path, text("[]")).unwrap();
    told.handle.reload().await.unwrap();
    assert_eq!(sessions(), [1], "and has them when it opens again");
    told.handle.stop_at_once();
    told.handle.stop().await;
}
