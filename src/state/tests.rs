use std::os::unix::{fs::PermissionsExt as _, net::UnixListener};

use super::*;

/// As the files of portway are.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Content {
    names: Vec<String>,
}

const FORMAT: Format = Format { version: 1, largest: 1 << 20 };

struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn holding(text: &str) -> Self {
        let dir = Self::new();
        fs::create_dir(dir.path().parent().unwrap()).unwrap();
        fs::write(dir.path(), text).unwrap();
        dir
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("portway/names.json")
    }

    fn open(&self) -> Opened<Content> {
        StateFile::open(self.path(), FORMAT).unwrap()
    }
}

fn content(name: &str) -> Content {
    Content { names: vec![name.to_owned()] }
}

#[test]
fn what_was_saved_is_read_by_the_next_process() {
    let dir = Dir::new();
    let Opened { mut file, content: none } = dir.open();
    assert_eq!(none.unwrap(), None);
    file.save(&content("a")).unwrap();
    file.save(&content("b")).unwrap();
    let path = dir.path();
    assert_eq!(fs::read_to_string(&path).unwrap(), "{\"version\":1,\"names\":[\"b\"]}\n");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    drop(file);
    assert_eq!(dir.open().content.unwrap(), Some(content("b")));
    assert_eq!(StateFile::peek(&path, FORMAT), Some(content("b")));
}

#[test]
fn an_old_file_without_a_version_is_read() {
    let dir = Dir::holding("{\n  \"names\": [\"old\"]\n}");
    assert_eq!(dir.open().content.unwrap(), Some(content("old")));
}

#[test]
fn a_file_in_use_is_neither_read_nor_written() {
    let dir = Dir::holding("{\"names\": [\"theirs\"]}");
    let theirs = dir.open().file;
    let error = StateFile::open::<Content>(dir.path(), FORMAT).unwrap_err();
    assert!(matches!(&error, StateError::InUse(path) if *path == dir.path()), "{error}");
    assert!(error.to_string().contains("in use by another portway"), "{error}");
    let mut late = StateFile { path: dir.path(), format: FORMAT, lock: None };
    assert!(matches!(late.save(&content("ours")), Err(StateError::InUse(_))));
    assert_eq!(StateFile::peek(&dir.path(), FORMAT), Some(content("theirs")));
    drop(theirs);
    late.save(&content("ours")).unwrap();
}

#[test]
fn a_file_that_cannot_be_understood_is_set_aside_and_said() {
    let future = "{\"version\": 7, \"names\": []}";
    for (text, why) in [
        ("", "EOF"),
        ("\0\0\0\0", "expected value"),
        ("{\"names\": [", "EOF"),
        ("[1, 2]", "trailing"),
        ("{}", "missing field"),
        (future, "version 7"),
    ] {
        let dir = Dir::holding(text);
        let aside = files::with_suffix(&dir.path(), ".broken");
        fs::write(&aside, "an older one").unwrap();
        let Opened { mut file, content: lost } = dir.open();
        let message = lost.unwrap_err().to_string();
        assert!(message.contains(why) && message.contains("kept as"), "{text}: {message}");
        assert!(message.ends_with("names.json.broken"), "{message}");
        assert_eq!(fs::read_to_string(&aside).unwrap(), text);
        assert!(!dir.path().exists());
        file.save(&content("new")).unwrap();
    }
}

#[test]
fn a_file_that_cannot_be_read_is_set_aside_before_another_takes_its_place() {
    let dir = Dir::holding("");
    fs::remove_file(dir.path()).unwrap();
    // A link to itself: not even root can read it.
    std::os::unix::fs::symlink(dir.path(), dir.path()).unwrap();
    let Opened { mut file, content: lost } = dir.open();
    let aside = files::with_suffix(&dir.path(), ".unreadable");
    let message = lost.unwrap_err().to_string();
    assert!(message.ends_with(&format!("is kept as {}", aside.display())), "{message}");
    file.save(&content("new")).unwrap();
    assert_eq!(fs::read_link(aside).unwrap(), dir.path());
}

#[test]
fn what_is_no_file_is_left_alone() {
    let dir = Dir::new();
    fs::create_dir_all(dir.path()).unwrap();
    let socket = dir.0.path().join("socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    for (path, what) in [
        (dir.path(), "it is a directory"),
        (socket, "it is not a file"),
        ("/dev/null".into(), "it is not a file"),
    ] {
        let Opened { mut file, content: lost } = StateFile::open::<Content>(path.clone(), FORMAT).unwrap();
        let read = lost.unwrap_err().to_string();
        assert!(read.contains(what) && read.contains("stays where it is"), "{read}");
        let saved = file.save(&content("new")).unwrap_err().to_string();
        assert!(saved.contains(what), "{saved}");
        assert!(!fs::symlink_metadata(&path).unwrap().is_file());
        assert!(!path.with_extension("lock").exists());
    }
}

#[test]
fn what_cannot_be_saved_leaves_the_old_file() {
    let dir = Dir::new();
    let deeper = dir.0.path().join("missing/portway/names.json");
    let mut file = StateFile::open::<Content>(deeper.clone(), FORMAT).unwrap().file;
    let error = file.save(&content("new")).unwrap_err().to_string();
    assert!(error.starts_with(&format!("write {}: ", deeper.display())), "{error}");

    let dir = Dir::holding("{\"names\": [\"old\"]}");
    fs::create_dir(files::with_suffix(&dir.path(), ".new")).unwrap();
    let mut file = dir.open().file;
    assert!(file.save(&content("new")).is_err());
    assert_eq!(StateFile::peek(&dir.path(), FORMAT), Some(content("old")));
}

#[test]
fn what_a_crash_left_beside_a_file_is_replaced() {
    let dir = Dir::holding("{\"names\": []}");
    fs::write(files::with_suffix(&dir.path(), ".new"), "left by a crash").unwrap();
    let mut file = dir.open().file;
    file.save(&content("new")).unwrap();
    let names = fs::read_dir(dir.path().parent().unwrap()).unwrap();
    let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["names.json", "names.lock"]);
}

#[test]
fn a_file_that_is_far_too_large_is_not_read_to_its_end() {
    let dir = Dir::holding("");
    fs::File::options().write(true).open(dir.path()).unwrap().set_len(FORMAT.largest << 20).unwrap();
    let message = dir.open().content.unwrap_err().to_string();
    assert!(message.contains("larger than 1 MiB"), "{message}");
}

#[test]
fn a_name_that_ends_like_a_lock_has_its_own_lock() {
    let dir = Dir::new();
    let path = dir.0.path().join("names.lock");
    let mut file = StateFile::open::<Content>(path.clone(), FORMAT).unwrap().file;
    file.save(&content("a")).unwrap();
    assert_eq!(StateFile::peek(&path, FORMAT), Some(content("a")));
}
