//! What outlives the program: the openings that we may have on routers, in `router.json`.
//!
//! Owns the form of the file and what the log says of it; [`StateFile`] owns the rest. Knows
//! nothing of when an opening is wanted. Two programs never share a file: the second keeps its
//! openings in memory only. Otherwise each would close the other's openings as leftovers. The
//! directory is made when it is first needed, and not before.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    num::NonZeroU16,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{
    lease::{Habits, Mark},
    openings::{OpeningRecord, RouterRecord},
    want::{Key, Want},
};
use crate::{
    mapping::{ListenAddr, ListenerKey, MappingName, Protocol},
    state::{Format, Opened, StateFile},
};

const FILE: &str = "router.json";
const FORMAT: Format = Format { version: 1, largest: 1 << 20 };
/// How many routers are remembered: a laptop sees some.
const MOST_ROUTERS: usize = 8;
/// Ends of leases are kept in steps of so many seconds, rounded up, so that a check does not write
/// a file.
const STEP: u64 = 600;

/// Converts between the clock of timers and the calendar.
#[derive(Clone, Copy, Debug)]
pub(super) struct Calendar {
    mono: tokio::time::Instant,
    unix: u64,
}

impl Calendar {
    /// Two clocks, read at the same moment.
    pub(super) fn new(mono: tokio::time::Instant, unix: u64) -> Self {
        Self { mono, unix }
    }

    /// The calendar's clock, now.
    pub(super) fn now() -> Self {
        let unix = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Self::new(tokio::time::Instant::now(), unix.map_or(0, |since| since.as_secs()))
    }

    /// A time as seconds since 1970.
    pub(super) fn unix(&self, at: tokio::time::Instant) -> u64 {
        match at.checked_duration_since(self.mono) {
            Some(after) => self.unix + after.as_secs(),
            None => self.unix.saturating_sub((self.mono - at).as_secs()),
        }
    }

    /// Seconds since 1970 as a time; the past is now.
    fn instant(&self, unix: u64) -> tokio::time::Instant {
        // More than a year does not fit into every clock.
        self.mono + std::time::Duration::from_secs(unix.saturating_sub(self.unix).min(31_536_000))
    }
}

/// The file as it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Image {
    routers: Vec<SavedRouter>,
}

impl Image {
    /// Whether it remembers any opening.
    pub(super) fn has_openings(&self) -> bool {
        self.routers.iter().any(|router| !router.openings.is_empty())
    }

    /// No more routers than are remembered.
    pub(super) fn bounded(mut self) -> Self {
        self.routers.truncate(MOST_ROUTERS);
        self
    }
}

/// What is kept of one router.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SavedRouter {
    id: String,
    #[serde(flatten)]
    habits: Habits,
    #[serde(default)]
    former_addresses: Vec<IpAddr>,
    openings: Vec<SavedOpening>,
}

/// What is kept of one opening.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SavedOpening {
    mapping: String,
    udp: bool,
    listen: SocketAddr,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pinhole_for: Option<Ipv6Addr>,
    internal: SocketAddr,
    wanted_port: NonZeroU16,
    text: String,
    #[serde(flatten)]
    mark: Mark,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ends: Option<u64>,
}

/// What is remembered of routers.
#[derive(Debug)]
pub(super) struct Memory {
    image: Image,
    /// `None` where nothing outlives the program.
    file: Option<StateFile>,
    /// Told each time that something changes.
    told: watch::Sender<Image>,
    /// Whether the log says already that the file is not written.
    said: bool,
}

/// Whether a file in this directory remembers any opening. It is not locked, and nothing is
/// changed.
pub(super) fn remembers(dir: &Path) -> bool {
    let image: Option<Image> = StateFile::peek(&dir.join(FILE), FORMAT);
    image.is_some_and(|image| image.has_openings())
}

impl Memory {
    /// What the file in this directory remembers; without a directory, nothing outlives the
    /// program.
    #[cfg(test)]
    pub(super) fn open(dir: Option<PathBuf>) -> Self {
        Self::going_on(dir, Image::default(), watch::Sender::default())
    }

    /// What the file in this directory remembers, or what another process remembered, where no file
    /// does. `told` hears of all of it.
    pub(super) fn going_on(dir: Option<PathBuf>, before: Image, told: watch::Sender<Image>) -> Self {
        let memory = Self::read(dir, before, told);
        memory.told.send_replace(memory.image.clone());
        memory
    }

    fn read(dir: Option<PathBuf>, before: Image, told: watch::Sender<Image>) -> Self {
        let mut memory = Self { image: before, file: None, told, said: false };
        let Some(dir) = dir else {
            tracing::info!("router state not persisted: no writable state directory");
            return memory;
        };
        match StateFile::open(dir.join(FILE), FORMAT) {
            Ok(Opened { file, content }) => {
                memory.file = Some(file);
                let content = content.unwrap_or_else(|error| {
                    tracing::warn!(
                        %error,
                        "the list of openings on the router is broken; starting without it"
                    );
                    None
                });
                if let Some(image) = content {
                    memory.image = image;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "openings on the router are not remembered over a restart");
            }
        }
        memory
    }

    /// What is known of the router with this id.
    pub(super) fn of(&self, id: &str, calendar: &Calendar) -> RouterRecord {
        let Some(router) = self.image.routers.iter().find(|router| router.id == id) else {
            return RouterRecord::default();
        };
        RouterRecord {
            openings: router.openings.iter().filter_map(|opening| opening.record(calendar)).collect(),
            habits: router.habits,
            formers: router.former_addresses.clone(),
        }
    }

    /// Remembers what is known of a router now. Writes the file where that changed.
    pub(super) fn keep(&mut self, id: &str, known: RouterRecord, calendar: &Calendar) {
        let router = SavedRouter {
            id: id.to_owned(),
            habits: known.habits,
            former_addresses: known.formers,
            openings: known.openings.into_iter().map(|opening| SavedOpening::of(opening, calendar)).collect(),
        };
        if self.image.routers.first() == Some(&router) {
            return;
        }
        let now = calendar.unix(tokio::time::Instant::now());
        self.image.routers.retain(|other| other.id != id && !other.is_over(now));
        self.image.routers.insert(0, router);
        self.image.routers.truncate(MOST_ROUTERS);
        self.write();
    }

    fn write(&mut self) {
        self.told.send_replace(self.image.clone());
        let Some(file) = &mut self.file else { return };
        let outcome = file.save(&self.image);
        if let Err(error) = &outcome
            && !self.said
        {
            tracing::warn!(%error, "openings on the router could not be noted");
        }
        self.said = outcome.is_err();
    }
}

impl SavedRouter {
    /// Whether nothing of ours can be there any more.
    fn is_over(&self, now: u64) -> bool {
        self.openings.iter().all(|opening| opening.ends.is_some_and(|ends| ends <= now))
    }
}

impl SavedOpening {
    fn of(OpeningRecord { want, mark, ends }: OpeningRecord, calendar: &Calendar) -> Self {
        Self {
            mapping: want.mapping.to_string(),
            udp: want.protocol() == Protocol::Udp,
            listen: want.key.listener.addr.into(),
            pinhole_for: want.key.pinhole,
            internal: want.internal,
            wanted_port: want.external_port,
            text: want.text,
            mark,
            ends: ends.map(|ends| calendar.unix(ends).div_ceil(STEP) * STEP),
        }
    }

    fn record(&self, calendar: &Calendar) -> Option<OpeningRecord> {
        let protocol = if self.udp { Protocol::Udp } else { Protocol::Tcp };
        let port = NonZeroU16::new(self.listen.port())?;
        let addr = ListenAddr { ip: self.listen.ip(), zone: None, port };
        let want = Want {
            key: Key { listener: ListenerKey { protocol, addr }, pinhole: self.pinhole_for },
            mapping: MappingName::new(&self.mapping).ok()?,
            internal: self.internal,
            external_port: self.wanted_port,
            text: self.text.clone(),
        };
        let ends = self.ends.map(|ends| calendar.instant(ends));
        Some(OpeningRecord { want, mark: self.mark.clone(), ends })
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use super::*;
    use crate::gateway::lease::{Habits, Sight};

    fn record(port: u16) -> OpeningRecord {
        let port = NonZeroU16::new(port).unwrap();
        let addr = ListenAddr::every(port);
        let listener = ListenerKey { protocol: Protocol::Udp, addr };
        let want = Want {
            key: Key { listener, pinhole: None },
            mapping: MappingName::new("game").unwrap(),
            internal: SocketAddr::new([192, 168, 77, 2].into(), port.get()),
            external_port: port,
            text: "portway:game@nas".to_owned(),
        };
        let text = "portway".to_owned();
        let (nonce, pinhole, sight) = ([7; 12], Some(3), Sight::Hidden);
        OpeningRecord { want, mark: Mark { external_port: port, nonce, pinhole, text, sight }, ends: None }
    }

    fn known(openings: Vec<OpeningRecord>) -> RouterRecord {
        let habits = Habits { permanent_only: true, hides_leases: false };
        RouterRecord { openings, habits, formers: vec![[192, 168, 77, 9].into()] }
    }

    #[test]
    fn what_was_kept_is_known_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let calendar = Calendar::now();
        let mut memory = Memory::open(Some(dir.path().to_owned()));
        memory.keep("uuid:1", known(vec![record(80), record(81)]), &calendar);
        drop(memory);
        let known = Memory::open(Some(dir.path().to_owned())).of("uuid:1", &calendar);
        assert_eq!(known.openings, [record(80), record(81)]);
        assert!(known.habits.permanent_only && known.formers.len() == 1);
        assert!(remembers(dir.path()));
    }

    #[test]
    fn without_a_file_what_another_process_remembered_counts() {
        let (dir, calendar) = (tempfile::tempdir().unwrap(), Calendar::now());
        let told = watch::Sender::default();
        let mut before = Memory::going_on(None, Image::default(), told.clone());
        before.keep("r", known(vec![record(80)]), &calendar);
        let json = serde_json::to_string(&*told.borrow()).unwrap();
        let image = || serde_json::from_str::<Image>(&json).unwrap();
        let next = Memory::going_on(None, image(), watch::Sender::default());
        assert_eq!(next.of("r", &calendar).openings, [record(80)]);
        let mut with_file = Memory::going_on(Some(dir.path().to_owned()), image(), watch::Sender::default());
        assert_eq!(with_file.of("r", &calendar).openings, [record(80)], "it is empty as yet");
        with_file.keep("r", known(vec![record(81)]), &calendar);
        drop(with_file);
        let third = Memory::going_on(Some(dir.path().to_owned()), image(), watch::Sender::default());
        assert_eq!(third.of("r", &calendar).openings, [record(81)], "a file counts for more");
    }

    #[test]
    fn an_old_file_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let old = r#"{
  "routers": [{"id": "uuid:1", "permanent_only": true, "hides_leases": false,
    "former_addresses": ["192.168.77.9"],
    "openings": [{"mapping": "game", "udp": true, "listen": "[::]:80", "internal": "192.168.77.2:80",
      "wanted_port": 80, "external_port": 80, "text": "portway:game@nas", "shown": "portway",
      "nonce": [7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7], "pinhole": 3, "hidden": true}]}]
}"#;
        fs::write(dir.path().join(FILE), old).unwrap();
        let known = Memory::open(Some(dir.path().to_owned())).of("uuid:1", &Calendar::now());
        assert_eq!(known.openings, [record(80)]);
        assert!(known.habits.permanent_only && known.formers.len() == 1);
    }

    #[test]
    fn the_end_of_a_lease_outlives_a_restart_within_ten_minutes() {
        let dir = tempfile::tempdir().unwrap();
        let now = tokio::time::Instant::now();
        let (then, later) = (Calendar::new(now, 1_000_000), Calendar::new(now, 1_001_000));
        let ending = OpeningRecord { ends: Some(now + Duration::from_secs(3600)), ..record(80) };
        Memory::open(Some(dir.path().to_owned())).keep("r", known(vec![ending]), &then);
        let known = Memory::open(Some(dir.path().to_owned())).of("r", &later);
        let left = known.openings[0].ends.unwrap() - now;
        assert!((2600..3200).contains(&left.as_secs()), "{left:?}");
    }

    #[test]
    fn a_broken_file_is_set_aside_and_replaced_by_a_good_one() {
        let dir = tempfile::tempdir().unwrap();
        let calendar = Calendar::now();
        for broken in ["", "{", "{\"routers\": 7}", "\u{0}\u{1}"] {
            fs::write(dir.path().join(FILE), broken).unwrap();
            let mut memory = Memory::open(Some(dir.path().to_owned()));
            assert!(memory.of("r", &calendar).openings.is_empty());
            assert_eq!(fs::read_to_string(dir.path().join("router.json.broken")).unwrap(), broken);
            memory.keep("r", known(vec![record(80)]), &calendar);
            assert!(remembers(dir.path()));
        }
    }

    #[test]
    fn a_second_program_gets_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let calendar = Calendar::now();
        let mut first = Memory::open(Some(dir.path().to_owned()));
        first.keep("r", known(vec![record(80)]), &calendar);
        let mut second = Memory::open(Some(dir.path().to_owned()));
        assert!(second.of("r", &calendar).openings.is_empty());
        second.keep("r", known(vec![]), &calendar);
        assert!(remembers(dir.path()), "the second one wrote over the first one's file");
    }

    #[test]
    fn the_least_used_router_is_forgotten_first() {
        let calendar = Calendar::now();
        let mut memory = Memory::open(None);
        for nth in 0..20 {
            memory.keep(&format!("r{nth}"), known(vec![record(80)]), &calendar);
        }
        assert!(memory.of("r11", &calendar).openings.is_empty());
        assert_eq!(memory.of("r12", &calendar).openings.len(), 1);
        assert_eq!(memory.of("r19", &calendar).openings.len(), 1);
    }
}
