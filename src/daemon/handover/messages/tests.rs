//! The messages of a hand-over as they were recorded: what an earlier program has written is read,
//! and what is written changes on purpose alone.
//!
//! A change of what is written, other than a new field that is left out where it has its default,
//! is a new format: raise `FORMAT`, keep the files of the one before, and record the new one.

use super::*;
use crate::handover::FORMAT;

/// A recorded side of a hand-over; `None` where there is no file of this format.
fn recorded(format: u16, side: &str) -> Option<Vec<u8>> {
    let path = format!("{}/tests/it/handover/format-{format}.{side}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(path).ok()
}

/// Its frames.
fn frames(mut recorded: &[u8]) -> Vec<Frame> {
    let mut frames = Vec::new();
    while !recorded.is_empty() {
        frames.push(Frame::read_from(&mut recorded).unwrap());
    }
    frames
}

/// The names of the messages, where each can be read; and what this program writes for them.
fn read_and_written<T: Serialize + DeserializeOwned>(frames: Vec<Frame>) -> (Vec<String>, Vec<u8>) {
    let (mut names, mut written) = (Vec::new(), Vec::new());
    for Frame { record, bytes } in frames {
        let text = String::from_utf8_lossy(&record).into_owned();
        let message: T = serde_json::from_slice(&record).unwrap_or_else(|error| panic!("{error}: {text}"));
        let again = serde_json::to_string(&message).unwrap();
        if again != text {
            println!("recorded {text}\n written {again}");
        }
        names.push(text.split('"').nth(1).unwrap().to_owned());
        Frame { record: again.into_bytes(), bytes }.write_to(&mut written).unwrap();
    }
    (names, written)
}

const OLD: [&str; 8] = ["listen", "state", "part", "snapshot", "sockets", "memory", "go", "released"];
const NEW: [&str; 7] = ["hello", "refused", "ready", "staged", "receipt", "serving", "moved"];

#[test]
fn messages_of_the_formats_that_count_are_read() {
    for format in [FORMAT - 1, FORMAT] {
        let (Some(old), Some(new)) = (recorded(format, "old"), recorded(format, "new")) else {
            assert_eq!(format, 0, "the files of format {format} are missing");
            continue;
        };
        assert_eq!(read_and_written::<FromOld>(frames(&old)).0, OLD);
        assert_eq!(read_and_written::<FromNew>(frames(&new)).0, NEW);
    }
}

#[test]
fn what_is_written_is_what_was_recorded_byte_for_byte() {
    let [old, new] = ["old", "new"].map(|side| recorded(FORMAT, side).unwrap());
    assert!(read_and_written::<FromOld>(frames(&old)).1 == old, "the format has changed: see above");
    assert!(read_and_written::<FromNew>(frames(&new)).1 == new, "the format has changed: see above");
}
