//! What the bus keeps, drops and tells.

use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use super::*;

fn bus() -> Events {
    let events = Events::default();
    events.switch(true);
    events
}

fn say(events: &Events, kind: EventKind, count: usize) {
    (0..count).for_each(|n| events.emit(kind, || Draft::new(n)));
}

fn ids(subscription: &Subscription) -> Vec<u64> {
    subscription.recent.iter().map(|event| event.id).collect()
}

#[tokio::test]
async fn a_bus_that_is_off_asks_for_no_event_and_keeps_none() {
    let events = Events::default();
    assert_eq!(events.emit_numbered(EventKind::SessionStarted, || unreachable!("the bus is off")), None);
    assert_eq!(events.emit_numbered(EventKind::Stopping, || Draft::new("is recorded")), None);
    assert!(events.subscribe(Some(0)).is_none());
    assert_eq!(events.recorder(None).notes().len(), 1);
    events.switch(true);
    say(&events, EventKind::Listening, 2);
    let mut reader = events.subscribe(None).unwrap();
    events.switch(false);
    events.switch(true);
    say(&events, EventKind::Listening, 1);
    assert_eq!(reader.next.recv().await.unwrap_err(), RecvError::Closed);
    let after = events.subscribe(Some(0)).unwrap();
    assert_eq!((ids(&after), after.lost), (vec![3], 2), "the numbers go on");
}

#[tokio::test]
async fn a_reader_gets_what_is_known_and_then_what_comes_without_a_gap() {
    let events = bus();
    say(&events, EventKind::Listening, 3);
    let mut reader = events.subscribe(Some(1)).unwrap();
    say(&events, EventKind::SessionEnded, 2);
    assert_eq!((ids(&reader), reader.lost), (vec![2, 3], 0));
    assert_eq!(reader.next.recv().await.unwrap().id, 4);
    assert_eq!(reader.next.recv().await.unwrap().id, 5);
    assert_eq!(reader.next.try_recv().unwrap_err(), TryRecvError::Empty);
    assert_eq!(ids(&events.subscribe(None).unwrap()), [0; 0]);
    assert_eq!(ids(&events.subscribe(Some(5)).unwrap()), [0; 0]);
    let of_an_earlier_run = events.subscribe(Some(70)).unwrap();
    assert_eq!((ids(&of_an_earlier_run), of_an_earlier_run.lost), (vec![1, 2, 3, 4, 5], 0));
}

#[tokio::test]
async fn sessions_do_not_push_out_what_an_operator_must_see() {
    let events = bus();
    say(&events, EventKind::TargetDown, 1);
    say(&events, EventKind::SessionStarted, 5 * RECENT_SESSIONS);
    let reader = events.subscribe(Some(0)).unwrap();
    assert_eq!(reader.recent[0].kind, EventKind::TargetDown);
    assert_eq!(reader.recent.len(), 1 + RECENT_SESSIONS);
    assert_eq!(reader.lost, 4 * RECENT_SESSIONS as u64);
    assert!(reader.recent.is_sorted_by_key(|event| event.id));
    say(&events, EventKind::Listening, 2 * RECENT_OTHERS);
    assert_eq!(events.subscribe(Some(0)).unwrap().recent.len(), RECENT_SESSIONS + RECENT_OTHERS);
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_refusals_is_twenty_events_a_second() {
    let events = bus();
    let mut drafted = 0;
    for _ in 0..10 {
        for _ in 0..1_000 {
            events.emit(EventKind::SessionRefused, || {
                drafted += 1;
                Draft::new("refused")
            });
        }
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    assert_eq!(drafted, 10 * REFUSALS);
    assert_eq!(events.subscribe(Some(0)).unwrap().lost, 0, "what is left out has no number");
}

/// The bus of the next process, which has told `own` events by the time of the hand-over.
fn next(before: &Events, own: usize) -> Events {
    let next = bus();
    let json = serde_json::to_string(&before.snapshot(0)).unwrap();
    say(&next, EventKind::Listening, own);
    next.take_over(&serde_json::from_str(&json).unwrap());
    next
}

#[tokio::test]
async fn numbers_and_recent_events_go_on_in_the_next_process() {
    let before = bus();
    say(&before, EventKind::Banned, 3);
    say(&before, EventKind::SessionEnded, 2);
    let next = next(&before, 2);
    let ahead = before.snapshot(0).last;
    say(&before, EventKind::Banned, 1);
    next.take_over(&before.snapshot(ahead));
    next.take_over(&before.snapshot(ahead));
    let reader = next.subscribe(Some(2)).unwrap();
    assert_eq!((ids(&reader), reader.lost), (vec![3, 4, 5, 6, 7, 8], 0));
    let kinds: Vec<_> = reader.recent.iter().map(|event| event.kind).collect();
    let (banned, ended, own) = (EventKind::Banned, EventKind::SessionEnded, EventKind::Listening);
    assert_eq!(kinds, [banned, ended, ended, banned, own, own]);
    assert_eq!(reader.recent[0].message.to_string(), "2");
    let mut reader = next.subscribe(None).unwrap();
    say(&next, EventKind::Listening, 1);
    assert_eq!(reader.next.recv().await.unwrap().id, 9);
    let third = self::next(&next, 0);
    assert_eq!(ids(&third.subscribe(Some(0)).unwrap()), (1..=9).collect::<Vec<_>>());
}

#[tokio::test]
async fn every_kind_of_event_is_read_back() {
    let (before, mut words) = (bus(), std::collections::BTreeSet::new());
    for kind in EventKind::ALL {
        before.emit(kind, || Draft::new("x").client("192.0.2.1").reason("idle").session(7));
        words.insert(kind.as_str());
    }
    let next = next(&before, 0);
    let (was, is) = (before.subscribe(Some(0)).unwrap().recent, next.subscribe(Some(0)).unwrap().recent);
    assert_eq!((is.len(), words.len()), (EventKind::ALL.len(), EventKind::ALL.len()));
    for (was, is) in was.iter().zip(&is) {
        assert_eq!(
            (was.kind, &was.client, &was.reason, was.session),
            (is.kind, &is.client, &is.reason, is.session)
        );
    }
}

#[test]
fn a_spoilt_record_does_not_panic_and_leaves_room_for_numbers() {
    let before = bus();
    say(&before, EventKind::Banned, 2);
    say(&before, EventKind::SessionEnded, 2);
    crate::fixture::each_spoilt(&before.snapshot(0), |spoilt| {
        let Ok(record) = serde_json::from_value::<EventsRecord>(spoilt) else { return };
        let next = bus();
        say(&next, EventKind::Listening, 2);
        next.take_over(&record);
        say(&next, EventKind::Listening, 1);
        let all = next.subscribe(Some(0)).unwrap();
        assert!(all.recent.is_sorted_by(|a, b| a.id < b.id) && all.recent.len() >= 3);
    });
}

#[tokio::test]
async fn a_slow_reader_learns_how_many_events_it_lost() {
    let events = bus();
    let mut reader = events.subscribe(None).unwrap();
    say(&events, EventKind::SessionEnded, AHEAD + 7);
    assert_eq!(reader.next.recv().await.unwrap_err(), RecvError::Lagged(7));
    assert_eq!(reader.next.recv().await.unwrap().id, 8);
}

#[test]
fn an_event_has_a_bounded_size_and_one_line() {
    let long = "é".repeat(100_000);
    let text = format!("a\nb{long}");
    for draft in [Draft::new(&text), Draft::later(text)] {
        let draft = draft.client(&long).reason(long.clone());
        let message = draft.message.to_string();
        assert!(message.starts_with("a.bé") && message.len() < 1_000);
        assert!(draft.client.unwrap().to_string().len() < 200 && draft.reason.unwrap().len() < 200);
    }
}
