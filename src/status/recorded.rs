//! What the flight recorder holds, as values for the windows.

use super::{millis, rfc3339, view};
use crate::{
    events::{Events, Note, OtherNote, RefusalNote, SessionNote, Step},
    mapping::MappingName,
};

/// What the recorder of a mapping holds, or that of everything without a mapping; the oldest first.
pub(crate) fn recorded(events: &Events, mapping: Option<&MappingName>) -> Vec<view::Recorded> {
    let name = mapping.map(ToString::to_string);
    events.recorder(mapping).notes().iter().map(|note| of(note, name.as_deref())).collect()
}

/// A note as a value.
pub(super) fn of(note: &Note, mapping: Option<&str>) -> view::Recorded {
    let recorded = match note {
        Note::Session(note) => of_session(note),
        Note::Refusal(note) => of_refusal(note),
        Note::Other(note) => of_other(note),
    };
    view::Recorded { mapping: mapping.map(str::to_owned), ..recorded }
}

fn of_session(note: &SessionNote) -> view::Recorded {
    let SessionNote { at, id, protocol, session, client, step } = *note;
    let recorded = view::Recorded {
        id,
        at: rfc3339(at),
        session: Some(session),
        client: Some(client.to_string()),
        ..view::Recorded::default()
    };
    match step {
        Step::Started => view::Recorded {
            kind: "session-started".into(),
            message: format!("{protocol} session from {client} started"),
            ..recorded
        },
        Step::Connected { target, took } => view::Recorded {
            kind: "session-connected".into(),
            target: Some(target.to_string()),
            took_ms: took.map(millis),
            message: match took {
                Some(took) => format!("{protocol} session from {client} reached {target} in {took:.1?}"),
                None => format!("{protocol} session from {client} leads to {target}"),
            },
            ..recorded
        },
        Step::Ended { reason, lasted, bytes_in, bytes_out } => view::Recorded {
            kind: "session-ended".into(),
            reason: Some(reason.into()),
            took_ms: Some(millis(lasted)),
            bytes_in: Some(bytes_in),
            bytes_out: Some(bytes_out),
            message: format!(
                "{protocol} session from {client} ended: {reason}, {bytes_in} bytes in, {bytes_out} bytes out, {:.1} s",
                lasted.as_secs_f64()
            ),
            ..recorded
        },
    }
}

fn of_refusal(note: &RefusalNote) -> view::Recorded {
    let RefusalNote { since, at, protocol, client, reason, count } = *note;
    let message = match count {
        1 => format!("{protocol} client {client} refused: {reason}"),
        _ => format!(
            "{protocol} client {} refused {count} times since {}: {reason}",
            client.ip(),
            rfc3339(since)
        ),
    };
    view::Recorded {
        at: rfc3339(at),
        kind: "session-refused".into(),
        client: Some(client.to_string()),
        reason: Some(reason.into()),
        count: Some(count),
        since: Some(rfc3339(since)),
        message,
        ..view::Recorded::default()
    }
}

fn of_other(note: &OtherNote) -> view::Recorded {
    view::Recorded {
        id: note.id,
        at: rfc3339(note.at),
        kind: note.kind.as_str().into(),
        client: note.client.as_ref().map(ToString::to_string),
        reason: note.reason.as_deref().map(str::to_owned),
        message: note.message.to_string(),
        ..view::Recorded::default()
    }
}
