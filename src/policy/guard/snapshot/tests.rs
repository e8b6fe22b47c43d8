use std::time::UNIX_EPOCH;

use super::{
    super::tests::{guard, ip},
    *,
};
use crate::events::Events;

const HOUR: Duration = Duration::from_secs(3600);

/// A snapshot as it was saved.
fn saved(text: &str) -> Result<GuardSnapshot, serde_json::Error> {
    serde_json::from_str(text)
}

fn one_ban(until: &str, reason: &str) -> String {
    format!(
        r#"{{"past": [], "bans": [{{"client": "192.0.2.7", "since": "2025-01-01T00:00:00Z",
        "until": {until}, "reason": "{reason}", "repeats": 0}}]}}"#
    )
}

/// A new guard that has taken a snapshot.
fn restored(snapshot: GuardSnapshot) -> (Guard, Restored) {
    let guard = guard("");
    let restored = guard.restore(snapshot, Instant::now());
    (guard, restored)
}

/// The snapshot that comes out of a file with this one.
fn through_a_file(snapshot: &GuardSnapshot) -> GuardSnapshot {
    saved(&serde_json::to_string(snapshot).unwrap()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn bans_and_the_memory_of_them_outlive_the_process() {
    let before = guard("");
    let now = Instant::now();
    before.trap(ip("192.0.2.7"), now);
    before.trap(ip("2001:db8:1:2::3"), now);
    before.ban(ip("192.0.2.8"), None, now);
    before.ban(ip("192.0.2.9"), Some(HOUR * 24 * 365), now);
    let (after, restored) = restored(through_a_file(&before.snapshot(now)));
    assert_eq!(restored, Restored { bans: 4, expired: 0 });
    // A file has whole seconds.
    let seconds = |date: SystemTime| date.duration_since(UNIX_EPOCH).unwrap().as_secs();
    let told = |guard: &Guard| {
        let told =
            |ban: Ban| (ban.client, seconds(ban.since), ban.until.map(seconds), ban.reason, ban.repeats);
        let mut bans: Vec<_> = guard.bans(Instant::now()).into_iter().map(told).collect();
        bans.sort_by_key(|ban| ban.0);
        bans
    };
    assert_eq!(told(&before), told(&after));
    assert!(after.keeps_out(ip("2001:db8:1:2::4"), Instant::now()));
    tokio::time::advance(HOUR + Duration::from_secs(1)).await;
    assert!(!after.keeps_out(ip("192.0.2.7"), Instant::now()));
    assert_eq!(after.trap(ip("192.0.2.7"), Instant::now()).unwrap().repeats, 1);
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_that_comes_later_adds_to_what_is_known() {
    let guard = guard("");
    let now = Instant::now();
    guard.trap(ip("192.0.2.7"), now);
    guard.trap(ip("192.0.2.8"), now);
    let snapshot = guard.snapshot(now);
    let own = guard.ban(ip("192.0.2.7"), None, now);
    guard.unban(ip("192.0.2.8"));
    assert_eq!(guard.restore(snapshot, now), Restored { bans: 1, expired: 0 });
    assert_eq!(guard.is_banned(ip("192.0.2.7"), now), Some(own));
    tokio::time::advance(HOUR).await;
    assert_eq!(guard.trap(ip("192.0.2.8"), Instant::now()).unwrap().repeats, 1);
}

#[test]
fn what_is_no_snapshot_is_refused_with_the_reason() {
    let good = one_ban("null", "operator");
    assert!(saved(&good).is_ok());
    for (text, why) in [
        (&good.replace("\"past\"", "\"future\""), "past"),
        (&good.replace("\"repeats\"", "\"again\""), "unknown field"),
        (&good.replace("192.0.2.7", "home.example"), "is not an address"),
        (&good.replace("2025-01-01T00:00:00Z", "tomorrow"), "timestamp"),
        (&one_ban("\"99999-01-01T00:00:00Z\"", "trap"), "timestamp"),
    ] {
        let message = saved(text).unwrap_err().to_string();
        assert!(message.contains(why), "{text}: {message}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_has_ended_is_dropped_and_what_ends_too_late_is_cut() {
    let (guard, found) = restored(saved(&one_ban("\"2025-01-02T00:00:00Z\"", "trap")).unwrap());
    assert_eq!(found, Restored { bans: 0, expired: 1 });
    assert!(guard.bans(Instant::now()).is_empty());

    for (until, reason, ends) in [
        ("\"9999-12-31T23:59:59Z\"", "refusals", true),
        ("null", "trap", true),
        ("\"9999-12-31T23:59:59Z\"", "operator", false),
        ("null", "operator", false),
    ] {
        let (guard, found) = restored(saved(&one_ban(until, reason)).unwrap());
        assert_eq!(found.bans, 1);
        assert!(guard.keeps_out(ip("192.0.2.7"), Instant::now()));
        let later = Instant::now() + LONGEST + Duration::from_secs(1);
        assert_eq!(guard.keeps_out(ip("192.0.2.7"), later), !ends, "{until} {reason}");
        through_a_file(&guard.snapshot(Instant::now()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_ban_does_not_grow_on_a_machine_whose_clock_is_slow() {
    // The snapshot is of a day that this machine has not reached: its clock started again from the
    // beginning.
    for reason in ["trap", "refusals", "operator"] {
        let text = one_ban("\"2999-01-01T01:00:00Z\"", reason).replace("2025-01-01", "2999-01-01");
        let (guard, found) = restored(saved(&text).unwrap());
        assert_eq!(found, Restored { bans: 1, expired: 0 });
        let now = Instant::now();
        assert!(guard.keeps_out(ip("192.0.2.7"), now + HOUR - Duration::from_secs(1)), "{reason}");
        assert!(!guard.keeps_out(ip("192.0.2.7"), now + HOUR), "{reason}");
        let text = serde_json::to_string(&guard.snapshot(now)).unwrap();
        assert!(text.contains("2999-01-01T01:00:00Z"), "its dates are right where the clock is: {text}");
    }
}

#[test]
fn the_dates_of_a_ban_are_those_that_the_guard_was_given() {
    let guard = Guard::new(tokio::sync::watch::Sender::new(0), || UNIX_EPOCH + HOUR, Events::default());
    let ban = guard.ban(ip("192.0.2.7"), Some(HOUR), Instant::now());
    assert_eq!((ban.since, ban.until), (UNIX_EPOCH + HOUR, Some(UNIX_EPOCH + 2 * HOUR)));
}

#[tokio::test(start_paused = true)]
async fn as_many_bans_as_there_can_be_are_taken_back() {
    let before = guard("");
    let now = Instant::now();
    for n in 0..70_000_u64 {
        let client = std::net::Ipv6Addr::from(u128::from(0x2001_0db8_0000_0000 + n) << 64);
        before.trap(client.into(), now);
    }
    assert_eq!(restored(before.snapshot(now)).1.bans, CLIENTS);
}

impl GuardSnapshot {
    /// How many bans there are.
    pub(crate) fn len(&self) -> usize {
        self.bans.len()
    }
}
