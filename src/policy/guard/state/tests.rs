use std::os::unix::fs::PermissionsExt as _;

use super::{
    super::{
        Ban,
        tests::{guard, ip},
    },
    *,
};

const HOUR: Duration = Duration::from_secs(3600);

struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("portway/bans.json")
    }

    fn holding(text: &str) -> Self {
        let dir = Self::new();
        fs::create_dir(dir.path().parent().unwrap()).unwrap();
        fs::write(dir.path(), text).unwrap();
        dir
    }

    fn load(&self) -> (Guard, Result<Restored, StateError>) {
        let guard = guard("");
        let result = guard.load(&self.path(), Instant::now());
        (guard, result)
    }
}

fn one_ban(until: &str, reason: &str) -> String {
    format!(
        r#"{{"version": 1, "past": [], "bans": [{{"client": "192.0.2.7", "since": "2025-01-01T00:00:00Z",
        "until": {until}, "reason": "{reason}", "repeats": 0}}]}}"#
    )
}

#[tokio::test(start_paused = true)]
async fn bans_and_the_memory_of_them_outlive_the_process() {
    let (dir, before) = (Dir::new(), guard(""));
    let now = Instant::now();
    before.trap(ip("192.0.2.7"), now);
    before.trap(ip("2001:db8:1:2::3"), now);
    before.ban(ip("192.0.2.8"), None, now);
    before.ban(ip("192.0.2.9"), Some(HOUR * 24 * 365), now);
    before.save(&dir.path()).unwrap();

    let (after, restored) = dir.load();
    assert_eq!(restored.unwrap(), Restored { bans: 4, expired: 0 });
    let told = |guard: &Guard| {
        let seconds = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let told = |ban: Ban| {
            (
                ban.client,
                seconds(ban.since),
                ban.until.map(|until| seconds(until) / 10),
                ban.reason,
                ban.repeats,
            )
        };
        let mut bans: Vec<_> = guard.bans(Instant::now()).into_iter().map(told).collect();
        bans.sort_by(|a, b| a.0.cmp(&b.0));
        bans
    };
    // The file has whole seconds, and a moment passes between writing and reading.
    let close = |a: Option<u64>, b: Option<u64>| a.zip(b).map_or(a == b, |(a, b)| a.abs_diff(b) <= 1);
    for (a, b) in told(&before).into_iter().zip(told(&after)) {
        assert!(a.0 == b.0 && a.1 == b.1 && close(a.2, b.2) && (a.3, a.4) == (b.3, b.4), "{a:?} {b:?}");
    }
    assert!(after.keeps_out(ip("2001:db8:1:2::4"), Instant::now()));
    tokio::time::advance(HOUR + Duration::from_secs(1)).await;
    assert!(!after.keeps_out(ip("192.0.2.7"), Instant::now()));
    assert_eq!(after.trap(ip("192.0.2.7"), Instant::now()).unwrap().repeats, 1);
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_read_later_adds_to_what_is_known() {
    let (dir, guard) = (Dir::new(), guard(""));
    let now = Instant::now();
    guard.trap(ip("192.0.2.7"), now);
    guard.trap(ip("192.0.2.8"), now);
    guard.save(&dir.path()).unwrap();
    let own = guard.ban(ip("192.0.2.7"), None, now);
    guard.unban(ip("192.0.2.8"));
    assert_eq!(guard.load(&dir.path(), now).unwrap(), Restored { bans: 1, expired: 0 });
    assert_eq!(guard.is_banned(ip("192.0.2.7"), now), Some(own));
    tokio::time::advance(HOUR).await;
    assert_eq!(guard.trap(ip("192.0.2.8"), Instant::now()).unwrap().repeats, 1);
}

#[test]
fn the_file_is_for_its_owner_alone_and_nothing_is_left_beside_it() {
    let (dir, guard) = (Dir::new(), guard(""));
    fs::create_dir(dir.path().parent().unwrap()).unwrap();
    fs::write(durable::with_suffix(&dir.path(), ".new"), "left by a crash").unwrap();
    for _ in 0..2 {
        guard.save(&dir.path()).unwrap();
        assert_eq!(fs::metadata(dir.path()).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path().parent().unwrap()).unwrap().count(), 1);
    }
}

#[test]
fn what_cannot_be_saved_is_told_and_leaves_the_old_file() {
    let dir = Dir::new();
    let deeper = dir.0.path().join("missing/portway/bans.json");
    let error = guard("").save(&deeper).unwrap_err().to_string();
    assert!(error.contains("missing/portway/bans.json") && error.contains("in memory only"), "{error}");

    let dir = Dir::holding("the old one");
    fs::create_dir(durable::with_suffix(&dir.path(), ".new")).unwrap();
    assert!(guard("").save(&dir.path()).is_err());
    assert_eq!(fs::read_to_string(dir.path()).unwrap(), "the old one");
}

#[test]
fn no_file_is_no_ban_and_no_error() {
    assert_eq!(Dir::new().load().1.unwrap(), Restored::default());
}

#[test]
fn a_file_that_cannot_be_read_is_set_aside_before_another_takes_its_place() {
    let dir = Dir::holding("");
    fs::remove_file(dir.path()).unwrap();
    // A link to itself: not even root can read it.
    std::os::unix::fs::symlink(dir.path(), dir.path()).unwrap();
    let (guard, result) = dir.load();
    let aside = durable::with_suffix(&dir.path(), ".unreadable");
    let message = result.unwrap_err().to_string();
    assert!(message.ends_with(&format!("is kept as {}", aside.display())), "{message}");
    guard.save(&dir.path()).unwrap();
    assert_eq!(fs::read_link(aside).unwrap(), dir.path());
    assert_eq!(dir.load().1.unwrap(), Restored::default());
}

#[test]
fn what_is_no_file_is_left_alone() {
    let dir = Dir::new();
    fs::create_dir_all(dir.path()).unwrap();
    let socket = dir.0.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    for (path, what) in [
        (dir.path(), "it is a directory"),
        (socket, "it is not a file"),
        ("/dev/null".into(), "it is not a file"),
    ] {
        let guard = guard("");
        let loaded = guard.load(&path, Instant::now()).unwrap_err().to_string();
        assert!(loaded.contains(what) && loaded.contains("stays where it is"), "{loaded}");
        let saved = guard.save(&path).unwrap_err().to_string();
        assert!(saved.contains(what), "{saved}");
        assert!(!fs::symlink_metadata(&path).unwrap().is_file());
    }
}

#[test]
fn a_file_that_cannot_be_understood_is_set_aside_and_told() {
    let good = one_ban("null", "operator");
    let version = good.replace("\"version\": 1", "\"version\": 7");
    let many_fields = good.replace("\"past\"", "\"future\"");
    for (text, why) in [
        ("", "EOF"),
        ("\0\0\0\0", "expected value"),
        (&good[..good.len() / 2], "EOF"),
        ("[1, 2]", "invalid"),
        (&version, "version 7"),
        (&many_fields, "unknown field"),
        (&good.replace("192.0.2.7", "home.example"), "an address or an IPv6 /64"),
        (&good.replace("192.0.2.7", "2001:db8::/32"), "an address or an IPv6 /64"),
        (&good.replace("2025-01-01T00:00:00Z", "tomorrow"), "timestamp"),
        (&one_ban("\"99999-01-01T00:00:00Z\"", "trap"), "timestamp"),
    ] {
        let dir = Dir::holding(text);
        let aside = durable::with_suffix(&dir.path(), ".broken");
        fs::write(&aside, "an older one").unwrap();
        let (guard, result) = dir.load();
        let message = result.unwrap_err().to_string();
        assert!(message.contains(why) && message.contains("bans.json.broken"), "{text}: {message}");
        assert_eq!(fs::read_to_string(&aside).unwrap(), text);
        assert!(!dir.path().exists() && guard.bans(Instant::now()).is_empty());
        guard.save(&dir.path()).unwrap();
    }
}

#[test]
fn a_file_that_is_far_too_large_is_not_read_to_its_end() {
    let dir = Dir::holding("");
    fs::File::options().write(true).open(dir.path()).unwrap().set_len(LARGEST * 1000).unwrap();
    let message = dir.load().1.unwrap_err().to_string();
    assert!(message.contains("larger than 64 MiB"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn what_has_ended_is_dropped_and_what_ends_too_late_is_cut() {
    let (guard, restored) = Dir::holding(&one_ban("\"2025-01-02T00:00:00Z\"", "trap")).load();
    assert_eq!(restored.unwrap(), Restored { bans: 0, expired: 1 });
    assert!(guard.bans(Instant::now()).is_empty());

    for (until, reason, ends) in [
        ("\"9999-12-31T23:59:59Z\"", "refusals", true),
        ("null", "trap", true),
        ("\"9999-12-31T23:59:59Z\"", "operator", false),
        ("null", "operator", false),
    ] {
        let (guard, restored) = Dir::holding(&one_ban(until, reason)).load();
        assert_eq!(restored.unwrap().bans, 1);
        assert!(guard.keeps_out(ip("192.0.2.7"), Instant::now()));
        let later = Instant::now() + LONGEST + Duration::from_secs(1);
        assert_eq!(guard.keeps_out(ip("192.0.2.7"), later), !ends, "{until} {reason}");
        guard.save(&Dir::new().path()).unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_ban_does_not_grow_on_a_machine_whose_clock_is_slow() {
    // The file is of a day that this machine has not reached: its clock began anew at its start.
    for reason in ["trap", "refusals", "operator"] {
        let file = one_ban("\"2999-01-01T01:00:00Z\"", reason).replace("2025-01-01", "2999-01-01");
        let (guard, restored) = Dir::holding(&file).load();
        assert_eq!(restored.unwrap(), Restored { bans: 1, expired: 0 });
        let now = Instant::now();
        assert!(guard.keeps_out(ip("192.0.2.7"), now + HOUR - Duration::from_secs(1)), "{reason}");
        assert!(!guard.keeps_out(ip("192.0.2.7"), now + HOUR), "{reason}");
        let again = Dir::new();
        guard.save(&again.path()).unwrap();
        let text = fs::read_to_string(again.path()).unwrap();
        assert!(text.contains("2999-01-01T01:00:00Z"), "its dates are right where the clock is: {text}");
    }
}

#[test]
fn a_file_of_many_bans_is_compact() {
    let (dir, guard) = (Dir::new(), guard(""));
    guard.ban(ip("192.0.2.7"), None, Instant::now());
    guard.save(&dir.path()).unwrap();
    let text = fs::read_to_string(dir.path()).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
}

#[tokio::test(start_paused = true)]
async fn as_many_bans_as_there_can_be_fit_into_the_file() {
    let (dir, before) = (Dir::new(), guard(""));
    let now = Instant::now();
    for n in 0..70_000_u64 {
        let client = std::net::Ipv6Addr::from(u128::from(0x2001_0db8_0000_0000 + n) << 64);
        before.trap(client.into(), now);
    }
    before.save(&dir.path()).unwrap();
    assert!(fs::metadata(dir.path()).unwrap().len() < LARGEST / 2);
    assert_eq!(dir.load().1.unwrap().bans, CLIENTS);
}
