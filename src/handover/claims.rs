//! What must hold for any bytes of another process: the claims of the tests, and of the fuzz
//! target.
#![allow(unreachable_pub, reason = "the fuzz targets are outside of the library")]
#![allow(clippy::missing_panics_doc, reason = "a claim that does not hold panics, and that is its use")]

use super::frame::{Frame, LARGEST_RECORD, MOST_BYTES, WireError};

/// Any bytes as a frame, as the parts of a true one, and as a change of that.
pub fn frame(bytes: &[u8]) {
    // What was read is within the limits, and is written as it was.
    if let Ok(read) = Frame::read_from(bytes) {
        assert!(read.record.len() <= LARGEST_RECORD && read.bytes.len() <= MOST_BYTES);
        let again = written(&read);
        assert!(bytes[6..].starts_with(&again[6..]), "all but the format is the same");
        record(&read);
    }
    let (first, second) = bytes.split_at(bytes.len() / 3);
    let frame = Frame { record: first.to_vec(), bytes: second.to_vec() };
    let whole = written(&frame);
    assert_eq!(Frame::read_from(&whole[..]).ok(), Some(frame), "a true frame comes back");
    let end = usize::from(*bytes.first().unwrap_or(&0)) % whole.len();
    let cut_off = Frame::read_from(&whole[..end]);
    assert!(matches!(cut_off, Err(WireError::Closed)), "a frame that is cut off is an error");
    let mut changed = whole;
    changed.iter_mut().zip(bytes).for_each(|(byte, change)| *byte ^= change);
    if let Ok(read) = Frame::read_from(&changed[..]) {
        record(&read);
    }
}

fn written(frame: &Frame) -> Vec<u8> {
    let mut whole = Vec::new();
    frame.write_to(&mut whole).expect("memory takes it, and it is small");
    whole
}

/// A record is JSON of any form: reading it ends, whatever it holds.
fn record(frame: &Frame) {
    let _ = serde_json::from_slice::<serde_json::Value>(&frame.record);
}
