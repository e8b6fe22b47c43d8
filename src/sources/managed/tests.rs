use std::{net::TcpListener, time::Duration};

use serde_json::json;
use tempfile::TempDir;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::*;
use crate::{
    alarm::Alarm,
    config::{self, Source, System},
    fixture::free_port,
    policy::Gate,
    supervisor::{Budgets, Means, Roster, Tolerance},
};

const PATIENCE: Duration = Duration::from_secs(20);

/// A supervisor whose configuration has one mapping, and a managed file.
struct Rig {
    dir: TempDir,
    managed: Managed,
    source: Source,
    port: u16,
}

impl Rig {
    async fn start(managed: &str) -> Self {
        let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
        let text = format!(
            "[[mapping]]\nname = \"web\"\npublish = \"127.0.0.1:{port}:127.0.0.1:9\"\n[api]\nmanaged = \"m.toml\"\n"
        );
        fs::write(dir.path().join("portway.toml"), text).unwrap();
        if !managed.is_empty() {
            fs::write(dir.path().join("m.toml"), managed).unwrap();
        }
        let source = Source { file: Some(dir.path().join("portway.toml")), ..Source::default() };
        let handle = supervisor(&source).await;
        Self { dir, managed: Managed::new(handle, Events::default()), source, port }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("m.toml")
    }

    fn text(&self) -> String {
        fs::read_to_string(self.file()).unwrap_or_default()
    }

    async fn put(&self, name: &str, table: Value) -> Result<Applied, ManagedError> {
        self.managed.put(&named(name), table.as_object().unwrap().clone()).await
    }

    /// What of the plan is open.
    fn open(&self) -> Vec<String> {
        open(&self.managed.handle.roster().borrow())
    }
}

async fn supervisor(source: &Source) -> Handle {
    let loaded = config::load(source, &System).unwrap();
    let source = source.clone();
    let means = Means {
        budgets: Budgets::new(64, true),
        gate: Gate::new(SystemTime::now),
        alarm: Alarm::default(),
        events: Events::default(),
        inherited: crate::sock::inherited::Inherited::default(),
    };
    let read = Arc::new(move || config::load(&source, &System));
    Handle::start(read, loaded, Tolerance::AbsentOrTaken, means, &TaskTracker::new()).await.unwrap()
}

fn named(name: &str) -> MappingName {
    MappingName::new(name).unwrap()
}

fn open(roster: &Roster) -> Vec<String> {
    let open = roster.plan.about.iter().filter(|(_, about)| about.is_open());
    open.map(|(id, _)| id.name.to_string()).collect()
}

fn table(port: u16) -> Value {
    json!({ "publish": format!("127.0.0.1:{port}:127.0.0.1:9") })
}

#[tokio::test]
async fn a_mapping_is_made_changed_and_removed_and_the_comments_of_a_person_stay() {
    let rig = Rig::start("").await;
    rig.put("mc", table(free_port())).await.unwrap();
    assert_eq!(rig.open(), ["mc", "web"]);
    assert_eq!(fs::metadata(rig.file()).unwrap().permissions().mode() & 0o777, 0o600);
    let edited = rig.text().replace("[[mapping]]", "# the children play here\n[[mapping]]");
    fs::write(rig.file(), edited).unwrap();
    fs::set_permissions(rig.file(), Permissions::from_mode(0o640)).unwrap();
    rig.put("mc", table(free_port())).await.unwrap();
    rig.put("other", table(free_port())).await.unwrap();
    assert!(rig.text().contains("# the children play here"), "{}", rig.text());
    assert_eq!(fs::metadata(rig.file()).unwrap().permissions().mode() & 0o777, 0o640);
    rig.managed.remove(&named("other")).await.unwrap();
    assert_eq!(rig.open(), ["mc", "web"]);
    let missing = rig.managed.remove(&named("other")).await.unwrap_err();
    assert!(matches!(missing, ManagedError::Unknown(_)), "{missing}");
}

#[tokio::test]
async fn a_mapping_of_another_file_is_not_changed_and_can_be_paused_over_a_restart() {
    let rig = Rig::start("").await;
    for error in [
        rig.put("web", table(free_port())).await.unwrap_err(),
        rig.managed.remove(&named("web")).await.unwrap_err(),
    ] {
        let ManagedError::DeclaredElsewhere { place, .. } = error else { panic!("{error}") };
        assert!(place.ends_with("portway.toml:1:1"), "{place}");
    }
    rig.managed.pause(&named("web")).await.unwrap();
    assert!(rig.open().is_empty());
    TcpListener::bind(("127.0.0.1", rig.port)).unwrap();
    rig.managed.handle.reload().await.unwrap();
    let again = supervisor(&rig.source).await;
    assert!(open(&again.roster().borrow()).is_empty(), "a pause holds after a restart");
    rig.managed.resume(&named("web")).await.unwrap();
    assert_eq!(rig.open(), ["web"]);
    let unknown = rig.managed.pause(&named("nothing")).await.unwrap_err();
    assert!(matches!(unknown, ManagedError::Unknown(_)), "{unknown}");
}

#[tokio::test]
async fn what_is_refused_leaves_the_file_and_the_plan_as_they_were() {
    let rig = Rig::start("# mine\n").await;
    let port = free_port();
    rig.put("a", table(port)).await.unwrap();
    let before = rig.text();
    let bad = json!({ "publish": "1:2:3:4:5", "max_sesions": 3 });
    let ManagedError::Body(problems) = rig.put("b", bad).await.unwrap_err() else { panic!("a body") };
    let places: Vec<_> = problems.iter().map(|p| (&*p.file, p.line, p.code.as_str())).collect();
    assert_eq!(places, [("body", 3, "unknown-key")]);
    let clash = rig.put("b", table(port)).await.unwrap_err();
    assert!(matches!(&clash, ManagedError::Body(problems) if problems.len() == 1), "{clash}");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let refused = rig.put("b", table(taken.local_addr().unwrap().port())).await.unwrap_err();
    let ManagedError::Refused(error) = &refused else { panic!("{refused}") };
    assert!(matches!(&**error, ReloadError::Bind(_)), "{error}");
    let shape = rig.put("b", json!({ "publish": [null] })).await.unwrap_err();
    assert!(matches!(shape, ManagedError::Shape(_)), "{shape}");
    assert_eq!((rig.text(), rig.open()), (before, vec!["a".to_owned(), "web".to_owned()]));
    let fresh = Rig::start("").await;
    fresh.put("b", json!({ "publish": "x" })).await.unwrap_err();
    assert!(!fresh.file().exists());
}

#[tokio::test]
async fn a_file_that_is_read_only_or_broken_is_left_alone_with_a_cure() {
    let rig = Rig::start("").await;
    rig.put("a", table(free_port())).await.unwrap();
    let before = rig.text();
    fs::set_permissions(rig.file(), Permissions::from_mode(0o400)).unwrap();
    let error = rig.managed.pause(&named("a")).await.unwrap_err();
    assert!(matches!(error, ManagedError::Unwritable { .. }), "{error}");
    assert!(error.to_string().contains("m.toml cannot be written: it is read-only; let portway"), "{error}");
    assert_eq!(rig.text(), before);
    fs::set_permissions(rig.file(), Permissions::from_mode(0o600)).unwrap();
    let broken = before + "[[mapping]\n";
    fs::write(rig.file(), &broken).unwrap();
    let error = rig.put("b", table(free_port())).await.unwrap_err();
    assert!(matches!(error, ManagedError::Broken { .. }), "{error}");
    let reload = rig.managed.handle.reload().await.unwrap_err();
    assert!(matches!(&*reload, ReloadError::Config(_)), "{reload}");
    assert_eq!((rig.text(), rig.open()), (broken, vec!["a".to_owned(), "web".to_owned()]));
}

#[tokio::test]
async fn two_changes_at_once_are_both_made() {
    let rig = Rig::start("").await;
    let names = ["a", "b", "c", "d"];
    let ports = names.map(|_| free_port());
    let put = |i: usize| rig.put(names[i], table(ports[i]));
    let all = tokio::join!(put(0), put(1), put(2), put(3));
    assert!(all.0.is_ok() && all.1.is_ok() && all.2.is_ok() && all.3.is_ok(), "{all:?}");
    assert_eq!(rig.open(), ["a", "b", "c", "d", "web"]);
}

#[tokio::test]
async fn a_mapping_ends_at_its_time_and_leaves_the_file() {
    let rig = Rig::start("").await;
    let mut roster = rig.managed.handle.roster();
    let until = humantime::format_rfc3339_millis(SystemTime::now() + Duration::from_millis(300)).to_string();
    let mut keys = table(free_port());
    keys["until"] = until.into();
    rig.put("short", keys).await.unwrap();
    let ended = async {
        roster.wait_for(|roster| open(roster) == ["web"]).await.unwrap();
    };
    tokio::select! {
        () = rig.managed.clone().follow() => panic!("the supervisor runs"),
        ended = timeout(PATIENCE, ended) => ended.unwrap(),
    }
    assert!(!rig.text().contains("short"), "{}", rig.text());
}
