//! What one supervisor hands over and another takes over, as JSON.

use std::{path::Path, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_util::task::TaskTracker;

use super::*;
use crate::{
    alarm::Alarm,
    config::{self, Source, System},
    fixture::{each_spoilt, free_port},
    mapping::MappingName,
    policy::{Gate, Refusal},
    supervisor::{Budgets, Inherited, Means, PlanSource, Tolerance},
    targets::{Leg, Sign},
};

/// A supervisor of one mapping, with its port.
struct Process {
    handle: Handle,
    events: Events,
    at: String,
    _dir: tempfile::TempDir,
}

async fn process(target: &str) -> Process {
    let (dir, at) = (tempfile::tempdir().unwrap(), format!("127.0.0.1:{}", free_port()));
    let text = format!(
        "[guard]\nrefusals = \"100/min\"\nban = \"1h\"\n[[mapping]]\nname = \"web\"\nlisten = [\"{at}\"]\n\
         targets = [\"{target}\", \"127.0.0.9:9\"]\nnew_sessions_per_client = \"3/h\"\nbalance = \"first\"\n"
    );
    let path = config_file(dir.path(), &text);
    let source = Source { file: Some(path), ..Source::default() };
    let loaded = config::load(&source, &System).unwrap();
    let read: PlanSource = Arc::new(move || config::load(&source, &System));
    let events = Events::default();
    events.switch(true);
    let means = Means {
        budgets: Budgets::new(64, true),
        gate: Gate::telling(std::time::SystemTime::now, events.clone()),
        alarm: Alarm::default(),
        events: events.clone(),
        inherited: Inherited::default(),
    };
    let handle = Handle::start(read, loaded, Tolerance::Nothing, means, &TaskTracker::new()).await;
    Process { handle: handle.unwrap(), events, at, _dir: dir }
}

fn config_file(dir: &Path, text: &str) -> std::path::PathBuf {
    let path = dir.join("portway.toml");
    std::fs::write(&path, text).unwrap();
    path
}

fn through_json(state: &SupervisorState) -> SupervisorState {
    serde_json::from_str(&serde_json::to_string(state).unwrap()).unwrap()
}

/// Opens a session, and asks once.
async fn session(at: &str, target: &TcpListener) -> (TcpStream, TcpStream) {
    let mut client = TcpStream::connect(at).await.unwrap();
    let (mut inside, _) = target.accept().await.unwrap();
    client.write_all(b"question").await.unwrap();
    inside.read_exact(&mut [0; 8]).await.unwrap();
    (client, inside)
}

async fn until(mut holds: impl FnMut() -> bool) {
    let turn = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), turn).await.expect("it happens in time");
}

fn totals(process: &Process) -> crate::meter::Totals {
    process.handle.totals.borrow()[0].1.read(Protocol::Tcp)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_that_an_operator_sees_goes_on_in_the_next_process() {
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let behind = target.local_addr().unwrap().to_string();
    let (old, new) = (process(&behind).await, process(&behind).await);
    let (ended, live) = (session(&old.at, &target).await, session(&old.at, &target).await);
    drop(ended);
    until(|| totals(&old).live == 1).await;
    let web = MappingName::new("web").unwrap();
    old.handle.gate.guard().ban([192, 0, 2, 7].into(), None, Instant::now());
    assert!(old.handle.pause_target(&web, "127.0.0.9:9", true));
    let down = Leg { mapping: web.clone(), protocol: Protocol::Tcp, target: behind.parse().unwrap() };
    old.handle.dialer.target_failed(&down, Sign::Clear, &"no route");

    let ahead = SupervisorState::ahead(&old.handle, &old.events);
    // What comes between the parts is in the second one.
    old.handle.gate.guard().ban([192, 0, 2, 8].into(), None, Instant::now());
    drop(session(&old.at, &target).await);
    until(|| totals(&old).live == 1 && totals(&old).sessions == 3).await;
    let mut refused = TcpStream::connect(&old.at).await.unwrap();
    assert_eq!(refused.read(&mut [0]).await.unwrap_or(0), 0);
    let last = SupervisorState::at_freeze(&old.handle, &old.events, Some(&ahead));
    let size = serde_json::to_string(&last).unwrap().len();
    assert!(size < 20_000, "the second part is small: {size} bytes");
    through_json(&ahead).take_over(&new.handle, &new.events).go_on(&new.handle);
    through_json(&last).take_over(&new.handle, &new.events).go_on(&new.handle);

    let bans = |process: &Process| process.handle.gate.guard().bans(Instant::now()).len();
    assert_eq!((bans(&old), bans(&new)), (2, 2));
    assert!(new.handle.pools.borrow()[0].1.is_paused(&"127.0.0.9:9".parse().unwrap()));
    assert_eq!(new.handle.dialer.down(&down).map(|down| down.error), Some("no route".into()));
    let admission = Arc::clone(&new.handle.admissions.borrow()[0].1);
    let refusals: Vec<_> = admission.refusals().filter(|(_, count)| *count > 0).collect();
    assert_eq!(refusals, [(Refusal::ClientRate, 1)]);
    let client = [127, 0, 0, 1].into();
    let admitted = admission.admit(client, Protocol::Tcp, Instant::now());
    // What was used when the first part was made: a rate may be a moment old.
    drop(admitted.unwrap());
    assert_eq!(admission.admit(client, Protocol::Tcp, Instant::now()).unwrap_err(), Refusal::ClientRate);
    let (was, is) = (totals(&old), totals(&new));
    assert_eq!((is.sessions, is.live, &is.ended, &is.dials), (3, 0, &was.ended, &was.dials));
    assert_eq!((was.moved.bytes_in, is.moved.bytes_in), (24, 16), "a live session has its own bytes");
    let (was, is) = (old.events.subscribe(Some(0)).unwrap(), new.events.subscribe(Some(0)).unwrap());
    let first = is.recent.iter().take(was.recent.len());
    assert!(first.zip(&was.recent).all(|(is, was)| is.id == was.id && is.message == was.message));
    assert_eq!(new.handle.ledger.last_id(), 3, "no number is given twice");
    drop(live);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spoilt_state_is_taken_as_far_as_it_can_be_and_never_panics() {
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let behind = target.local_addr().unwrap().to_string();
    let (old, new) = (process(&behind).await, process(&behind).await);
    let live = session(&old.at, &target).await;
    old.handle.gate.guard().ban([192, 0, 2, 7].into(), None, Instant::now());
    let state = SupervisorState::at_freeze(&old.handle, &old.events, None);
    each_spoilt(&state, |spoilt| {
        if let Ok(state) = serde_json::from_value::<SupervisorState>(spoilt) {
            state.take_over(&new.handle, &new.events).go_on(&new.handle);
        }
        let _ = SupervisorState::at_freeze(&new.handle, &new.events, None);
    });
    drop(live);
    let nothing = SupervisorState::default();
    assert_eq!(serde_json::to_string(&nothing).unwrap(), "{}");
    nothing.take_over(&new.handle, &new.events).go_on(&new.handle);
}
