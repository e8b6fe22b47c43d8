//! Entries of the journal of systemd, by its own protocol.
//!
//! Owns the form of an entry, in which each field of an event is a field of the journal. The values
//! are whole and not escaped: what shows them has to do that, as journalctl does.

use super::{
    journal::prefix,
    record::{FieldOf, Record},
    text,
};

/// Appends the entry of a record in the journal's own protocol (systemd's "Journal Native
/// Protocol"): fields in lines, a value with line ends behind its length.
pub(super) fn entry(out: &mut Vec<u8>, record: Record<'_>) {
    let priority = &prefix(record.level)[1..2];
    field(out, "PRIORITY", priority);
    field(out, "SYSLOG_IDENTIFIER", "portway");
    field(out, "SYSLOG_FACILITY", "3");
    // An entry that waited for the journal has a later time there.
    out.extend_from_slice(b"TIMESTAMP=");
    text::stamp(out, record.at);
    out.push(b'\n');
    field(out, "MESSAGE", record.message());
    for FieldOf { name, value, .. } in record.fields().filter(|field| field.name != "message") {
        field(out, &field_name(name), value);
    }
}

fn field(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        out.push(b'\n');
        out.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        out.push(b'=');
    }
    out.extend_from_slice(value.as_bytes());
    out.push(b'\n');
}

/// The name as the journal takes one: letters in upper case, digits and `_`, a letter first, 64 at
/// most.
fn field_name(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    let name: String = name.chars().map(plain).skip_while(|c| !c.is_ascii_uppercase()).take(64).collect();
    if name.is_empty() { "FIELD".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::logging::record::{Records, tests::records_of};

    #[test]
    fn an_entry_has_the_fields_in_upper_case_and_those_with_line_ends_by_length() {
        let records = records_of(|| {
            tracing::warn!(session.id = 7, client.addr = %"127.0.0.1:9", "_9 odd" = "a\nb\u{0}", "session ended");
            tracing::info!("two\nlines");
        });
        let entry = |record| {
            let mut out = Vec::new();
            entry(&mut out, record);
            let text = String::from_utf8(out).unwrap();
            let (head, rest) = text.split_once("TIMESTAMP=").unwrap();
            let (stamp, rest) = rest.split_once('\n').unwrap();
            assert!(stamp.len() == 27 && stamp.ends_with('Z'), "{stamp}");
            head.to_owned() + rest
        };
        let entries: Vec<String> = Records::of(&records).map(entry).collect();
        assert_eq!(
            entries,
            [
                "PRIORITY=4\nSYSLOG_IDENTIFIER=portway\nSYSLOG_FACILITY=3\nMESSAGE=session ended\n\
                 SESSION_ID=7\nCLIENT_ADDR=127.0.0.1:9\nODD\n\u{4}\0\0\0\0\0\0\0a\nb\0\n",
                "PRIORITY=6\nSYSLOG_IDENTIFIER=portway\nSYSLOG_FACILITY=3\n\
                 MESSAGE\n\u{9}\0\0\0\0\0\0\0two\nlines\n",
            ]
        );
    }

    #[test]
    fn a_name_is_one_that_the_journal_takes() {
        for (name, taken) in
            [("bytes.in", "BYTES_IN"), ("__x", "X"), ("9", "FIELD"), (&"a".repeat(99), &"A".repeat(64))]
        {
            assert_eq!(field_name(name), taken);
        }
    }
}
