//! Notices changes on disk.
//!
//! Owns what tells one content of a file from another ([`FileStamp`]) and when a change counts
//! ([`FileWatch`]). Files are looked at by name, following links. That misses no change: an editor
//! that saves by rename or by truncation, a link that is swapped (as Kubernetes does it), a bind
//! mount or a network file system, where notifications do not arrive. The caller decides when to
//! look. Only [`FileStamp::of`] reads the disk, and it blocks.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::Path,
    time::{Duration, SystemTime},
};

/// The kernel stamps files by a clock that may be a tick behind.
const CLOCK_TICK: Duration = Duration::from_millis(10);

/// What tells one content of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileStamp {
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds since 1970, of the content.
    modified: (i64, i64),
    /// The same, of the content, the name or the rights.
    changed: (i64, i64),
}

impl FileStamp {
    /// The stamp of the file with this name; `None` where there is none.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let data = fs::metadata(path).ok()?;
        Some(Self {
            device: data.dev(),
            inode: data.ino(),
            size: data.len(),
            modified: (data.mtime(), data.mtime_nsec()),
            changed: (data.ctime(), data.ctime_nsec()),
        })
    }

    /// Whether the file was written, or put in its place, between two times. A time of the future
    /// (another machine's clock wrote it) is not: otherwise the file would count as changed at
    /// every look.
    pub(crate) fn changed_within(&self, from: SystemTime, to: SystemTime) -> bool {
        let (seconds, nanos) = self.changed;
        let since = Duration::new(seconds.unsigned_abs(), u32::try_from(nanos).unwrap_or(0));
        let changed = SystemTime::UNIX_EPOCH + since;
        changed + CLOCK_TICK >= from && changed <= to
    }
}

/// What several looks at something on disk have found: `S` is a stamp, or the stamps of several
/// files.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FileWatch<S> {
    /// What was found when the content was last read; `None` where that is not known.
    taken: Option<S>,
    /// What the last look found.
    seen: S,
    /// How many looks in a row have found it.
    looks: u32,
}

impl<S: Clone + PartialEq> FileWatch<S> {
    /// A watch after its first look. `is_taken` says that this content was read before.
    pub(crate) fn new(seen: S, is_taken: bool) -> Self {
        Self { taken: is_taken.then(|| seen.clone()), seen, looks: 1 }
    }

    /// Notes one more look.
    pub(crate) fn note(&mut self, now: S) {
        self.looks = if self.seen == now { self.looks.saturating_add(1) } else { 1 };
        self.seen = now;
    }

    /// Whether there is a content that was not read yet.
    pub(crate) fn has_changed(&self) -> bool {
        self.taken.as_ref() != Some(&self.seen)
    }

    /// The same, and at least `looks` looks in a row have found it, so that it is not half written.
    pub(crate) fn has_settled(&self, looks: u32) -> bool {
        self.has_changed() && self.looks >= looks
    }

    /// Whether it is not known which content was read last.
    pub(crate) fn is_unsure(&self) -> bool {
        self.taken.is_none()
    }

    /// Notes that the content of the last look was read.
    pub(crate) fn take(&mut self) {
        self.taken = Some(self.seen.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_counts_when_it_stands_still_and_once() {
        let mut watch = FileWatch::new(1, true);
        assert!(!watch.has_changed());
        for now in [2, 3] {
            watch.note(now);
            assert!(watch.has_changed() && !watch.has_settled(2));
        }
        watch.note(3);
        assert!(watch.has_settled(2) && !watch.has_settled(3));
        watch.take();
        watch.note(3);
        assert!(!watch.has_changed());
        let unsure = FileWatch::new(1, false);
        assert!(unsure.is_unsure() && unsure.has_changed());
    }

    #[test]
    fn a_stamp_tells_contents_apart_and_when_they_came() {
        let dir = tempfile::tempdir().unwrap();
        let (path, start) = (dir.path().join("a"), SystemTime::now());
        assert_eq!(FileStamp::of(&path), None);
        fs::write(&path, "one").unwrap();
        let one = FileStamp::of(&path).unwrap();
        assert_eq!(FileStamp::of(&path), Some(one));
        fs::write(&path, "three").unwrap();
        assert_ne!(FileStamp::of(&path), Some(one));
        let hour = Duration::from_secs(3600);
        assert!(one.changed_within(start, start + hour));
        assert!(!one.changed_within(start + hour, start + 2 * hour), "too early");
        assert!(!one.changed_within(start - 2 * hour, start - hour), "of the future");
    }
}
