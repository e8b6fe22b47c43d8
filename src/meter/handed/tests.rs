//! A session that goes from one process to another: here from one account to another.

use std::{num::NonZeroU16, time::Duration};

use super::*;
use crate::{
    fixture::LogCatcher,
    mapping::{ListenAddr, MappingName, Protocol},
    meter::{Asked, MappingTotals, SessionLines, SessionLog},
};

fn process() -> (Arc<ListenerMeter>, Arc<MappingTotals>) {
    let listen = ListenAddr::every(NonZeroU16::MIN);
    let name = MappingName::new("web").unwrap();
    let listener = ListenerMeter::new(name, Protocol::Tcp, listen, Ledger::default());
    let totals = Arc::<MappingTotals>::default();
    listener.join(&SessionLog::new(SessionLines::All, Arc::default()), &totals);
    (listener, totals)
}

fn client() -> SocketAddr {
    "203.0.113.9:50312".parse().unwrap()
}

/// The record as it arrives.
fn sent<T: Serialize + for<'a> Deserialize<'a>>(record: &T) -> T {
    serde_json::from_str(&serde_json::to_string(record).unwrap()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn sums_are_exact_in_both_processes_and_a_session_has_one_line() {
    let log = LogCatcher::start();
    let ((old, old_totals), (new, new_totals)) = (process(), process());
    for _ in 0..3 {
        let ended = old.open(client());
        ended.add_in(7);
        ended.end(Ended::Idle);
    }
    let session = old.open(client());
    session.live().asks_for("mc.example.org");
    session.reached("192.0.2.1:80".parse().unwrap(), Place::default());
    session.add_in(100);
    session.add_out(1000);
    tokio::time::advance(Duration::from_secs(90)).await;
    log.lines();

    let now = Instant::now();
    let before = old_totals.read(Protocol::Tcp);
    new_totals.take_over(Protocol::Tcp, &sent(&old_totals.record(Protocol::Tcp)));
    let taken = new.take_over(&sent(&session.live().record(now)), Place::default(), now).unwrap();
    assert_eq!(new_totals.read(Protocol::Tcp), before);
    session.let_go();
    assert_eq!(log.lines(), [""; 0]);
    let after = old_totals.read(Protocol::Tcp);
    assert_eq!((after.live, after.moved, &after.ended), (0, before.moved, &before.ended));

    assert_eq!(taken.live().record(now), LiveRecord { id: 4, ..taken.live().record(now) });
    assert_eq!(taken.live().name(), Some("mc.example.org"));
    assert_eq!(taken.live().target_text().as_deref(), Some("192.0.2.1:80"));
    assert_eq!(now - taken.live().started, Duration::from_secs(90));
    taken.add_in(1);
    taken.end(Ended::ClientClosed);
    let lines = log.lines().join("\n");
    assert_eq!(lines.matches("session ended").count(), 1, "{lines}");
    assert!(lines.contains("session.id=4") && lines.contains("bytes.in=101"), "{lines}");
    let end = new_totals.read(Protocol::Tcp);
    assert_eq!((end.live, end.sessions, end.moved.bytes_in, end.moved.bytes_out), (0, 4, 122, 1000));
    assert_eq!(new.open(client()).live().id, 5, "no number is given twice");
}

#[tokio::test]
async fn a_session_of_a_mapping_that_it_was_moved_to_counts_there_what_it_moves_there() {
    let ((old, _first), (new, new_totals)) = (process(), process());
    let session = old.open(client());
    session.add_in(100);
    // Another mapping has the listener now. What was moved before stays with the first one.
    let other = Arc::<MappingTotals>::default();
    old.join(&SessionLog::new(SessionLines::All, Arc::default()), &other);
    session.add_in(5);
    assert_eq!(other.read(Protocol::Tcp).moved.bytes_in, 5);
    new_totals.take_over(Protocol::Tcp, &sent(&other.record(Protocol::Tcp)));
    let now = Instant::now();
    let taken = new.take_over(&sent(&session.live().record(now)), Place::default(), now).unwrap();
    assert_eq!(new_totals.read(Protocol::Tcp).moved.bytes_in, 5);
    taken.end(Ended::Idle);
    assert_eq!(new_totals.read(Protocol::Tcp).moved.bytes_in, 5);
}

#[tokio::test]
async fn requests_reach_a_session_in_order_and_a_freeze_is_taken_back() {
    let (listener, _) = process();
    let session = listener.open(client());
    let asked = async |what| assert_eq!(session.live().wait_asked().await, what);
    listener.freeze();
    asked(Asked::Freeze).await;
    session.live().ask_to_show();
    asked(Asked::Show).await;
    asked(Asked::Freeze).await;
    let late = listener.open(client());
    assert_eq!(late.live().wait_asked().await, Asked::Freeze);
    listener.thaw();
    let wait = tokio::time::timeout(Duration::from_millis(5), session.live().wait_asked());
    assert!(wait.await.is_err());
    listener.freeze();
    session.live().cut(Ended::Policy);
    session.live().cut(Ended::Reload);
    asked(Asked::End(Ended::Policy)).await;
    let record = session.live().record(Instant::now());
    let taken = process().0.take_over(&sent(&record), Place::default(), Instant::now()).unwrap();
    assert_eq!(taken.live().wait_asked().await, Asked::End(Ended::Policy), "it goes along");
}

#[tokio::test]
async fn a_record_of_no_session_is_refused() {
    let (listener, totals) = process();
    let good = LiveRecord { id: 1, client: Some(client()), ..LiveRecord::default() };
    let now = Instant::now();
    for bad in [
        LiveRecord { id: 0, ..good.clone() },
        LiveRecord { id: u64::MAX, ..good.clone() },
        LiveRecord { client: None, ..good.clone() },
        LiveRecord { name: Some("x".repeat(1000)), ..good },
    ] {
        assert!(listener.take_over(&bad, Place::default(), now).is_err(), "{bad:?}");
    }
    let old: LiveRecord =
        serde_json::from_str(r#"{"age_us": 18446744073709551615, "to_come": [1]}"#).unwrap();
    let old = LiveRecord { id: 1, client: Some(client()), ..old };
    drop(listener.take_over(&old, Place::default(), now).unwrap());
    let strange = r#"{"sessions": 18446744073709551615, "ended": {"nothing": 3}, "dials": {"counts": [1]}}"#;
    for _ in 0..2 {
        totals.take_over(Protocol::Tcp, &serde_json::from_str(strange).unwrap());
    }
    assert_eq!(totals.read(Protocol::Tcp).dials.count(), 0);
}
