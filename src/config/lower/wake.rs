//! The key `wake`: what starts the target, and what stops it.

use std::{sync::Arc, time::Duration};

use toml::de::DeValue;

use crate::{
    config::{
        keys,
        text::{Code, Keys, Reader, Setting, Span, Text, Value, bounded::Bounds, table::truth},
    },
    wake::{Start, WakeSpec, is_built_in},
};

/// How long a client waits by default.
const WAIT: Duration = Duration::from_secs(60);
/// How long a target stays up without a session by default.
const STOP_AFTER: Duration = Duration::from_secs(15 * 60);
const FORMS: &str = "as in { docker = \"minecraft\" }, { unit = \"minecraft.service\" }, \
                     { command = [\"/usr/local/bin/start\"] } or { mac = \"aa:bb:cc:dd:ee:ff\" }";
/// The keys that say what starts it.
const STARTS: [&str; 4] = ["command", "unit", "docker", "mac"];

/// What `wake` says; nothing where it is `false`.
pub(crate) type Wish = Option<Arc<WakeSpec>>;

/// Reads `wake`: a table, or `false`.
pub(crate) fn wake(reader: &mut Reader<'_>, key: &str, value: &Value<'_>) -> Option<Wish> {
    let table = match value.get_ref() {
        DeValue::Table(table) => table,
        DeValue::Boolean(false) => return Some(None),
        other => {
            let is_off = other.as_str().and_then(truth) == Some(false);
            let hint = if is_off { "write false" } else { FORMS };
            reader.wrong_type(key, value, "a table, or false").hint(hint);
            return None;
        }
    };
    let span = reader.span(value.span());
    if !is_built_in() {
        reader
            .diagnostics
            .problem(Code::Unsupported, span, format!("`{key}` is not in this build"))
            .hint("build portway with the feature `wake`");
        return None;
    }
    let mut keys = Keys::of(table, &keys::WAKE);
    let given: Vec<&str> = STARTS.into_iter().filter(|key| table.contains_key(*key)).collect();
    let start = start(reader, &mut keys);
    let wait = keys.setting(reader, "wait", |reader, key, value| WAITS.read(reader, key, value));
    let stop_after = keys.setting(reader, "stop_after", |r, key, value| STOPS.read_or_never(r, key, value));
    keys.refuse_others(reader, "of `wake`");
    refuse_shape(reader, span, &given, keys.has_slip_of(reader, &STARTS))?;
    let start = start?;
    let stops = match &start {
        Start::Command { stop, .. } => stop.is_some(),
        Start::Unit(_) | Start::Container(_) => true,
        Start::Machine(_) => false,
    };
    if !stops && let Some(given) = stop_after.given().filter(|given| given.value.is_some()) {
        let hint = match start {
            Start::Machine(_) => "leave it out: a magic packet only wakes a machine",
            _ => "add a `stop_command`, or leave it out",
        };
        reader
            .diagnostics
            .warning(Code::NoEffect, given.span, "`stop_after` without anything that stops the target")
            .hint(hint);
    }
    if matches!(wait, Setting::Unreadable) || matches!(stop_after, Setting::Unreadable) {
        return None;
    }
    Some(Some(Arc::new(WakeSpec {
        start,
        wait: wait.resolve(&Setting::Unset, WAIT),
        stop_after: stop_after.resolve(&Setting::Unset, Some(STOP_AFTER)).filter(|_| stops),
    })))
}

/// Takes the keys that say what starts the target, and what stops it.
fn start(reader: &mut Reader<'_>, keys: &mut Keys<'_, '_>) -> Option<Start> {
    let words = keys.get("command").map(|v| command(reader, "command", v));
    let stop = keys.setting(reader, "stop_command", command);
    let unit = keys.get("unit").map(|v| unit(reader, v));
    let container = keys.get("docker").map(|v| container(reader, v));
    let machine = keys.get("mac").map(|v| machine(reader, v));
    if words.is_none()
        && let Some(stop) = stop.given()
    {
        reader
            .diagnostics
            .problem(Code::ConflictingKeys, stop.span, "`stop_command` goes with `command` alone")
            .hint("leave it out: portway stops a unit or a container by itself");
    }
    match (words, unit, container, machine) {
        (Some(start), ..) => {
            let stop = stop.given().map(|given| Arc::clone(&given.value));
            start.map(|start| Start::Command { start, stop })
        }
        (_, Some(unit), ..) => unit.map(Start::Unit),
        (_, _, Some(container), _) => container.map(Start::Container),
        (.., machine) => machine.flatten().map(Start::Machine),
    }
}

/// Notes a table that says nothing of what starts the target, or two things.
fn refuse_shape(reader: &mut Reader<'_>, span: Span, given: &[&str], has_slip: bool) -> Option<()> {
    match given {
        [_] => Some(()),
        [] => {
            if !has_slip {
                let message = "`wake` does not say what starts the target";
                reader.diagnostics.problem(Code::MissingKey, span, message).hint(FORMS);
            }
            None
        }
        [one, other, ..] => {
            reader
                .diagnostics
                .problem(Code::ConflictingKeys, span, format!("`wake` has both `{one}` and `{other}`"))
                .hint("one of them starts the target: leave the other out");
            None
        }
    }
}

/// A program and its arguments. There is no shell.
fn command(reader: &mut Reader<'_>, key: &str, value: &Value<'_>) -> Option<Arc<[String]>> {
    if let DeValue::String(text) = value.get_ref() {
        let words: Vec<String> = text.split_whitespace().map(|word| format!("{word:?}")).collect();
        let hint = if words.is_empty() {
            "as in [\"/usr/local/bin/start\", \"minecraft\"]".to_owned()
        } else {
            format!("there is no shell: write [{}]", words.join(", "))
        };
        reader.wrong_type(key, value, "a list of words, the program first").hint(hint);
        return None;
    }
    let at = reader.span(value.span());
    let texts = reader.texts(key, at, value);
    let words: Vec<String> = texts.items.into_iter().map(|text: Text| text.value).collect();
    if texts.is_whole && words.first().is_none_or(String::is_empty) {
        reader
            .diagnostics
            .problem(Code::Empty, at, format!("`{key}` is empty"))
            .hint("name a program, as in [\"/usr/local/bin/start\"]");
        return None;
    }
    if let Some(program) = words.first()
        && !program.starts_with('/')
    {
        reader
            .diagnostics
            .warning(Code::UnwiseValue, at, format!("the program `{program}` is looked for in $PATH"))
            .hint("name it with its whole path, as in \"/usr/bin/virsh\"");
    }
    texts.is_whole.then(|| words.into())
}

/// The name of a unit of systemd, with its kind.
fn unit(reader: &mut Reader<'_>, value: &Value<'_>) -> Option<Arc<str>> {
    let text = reader.text("unit", value)?;
    let plain = |c: u8| c.is_ascii_alphanumeric() || b":-_.\\@".contains(&c);
    if text.value.is_empty() || text.value.len() > 255 || !text.value.bytes().all(plain) {
        return reader.refuse_text(
            "the unit",
            &text,
            "is not the name of one",
            "as in \"minecraft.service\"",
        );
    }
    if text.value.rsplit_once('.').is_none_or(|(name, kind)| name.is_empty() || kind.is_empty()) {
        let hint = format!("write \"{}.service\"", text.value.trim_matches('.'));
        return reader.refuse_text("the unit", &text, "has no kind", hint);
    }
    Some(text.value.into())
}

/// The name or the id of a container.
fn container(reader: &mut Reader<'_>, value: &Value<'_>) -> Option<Arc<str>> {
    let text = reader.text("docker", value)?;
    let plain = |c: u8| c.is_ascii_alphanumeric() || b"-_.".contains(&c);
    if text.value.is_empty() || text.value.len() > 255 || !text.value.bytes().all(plain) {
        let hint = "as `docker ps` shows it, such as \"minecraft\"";
        return reader.refuse_text("the container", &text, "is not the name of one", hint);
    }
    Some(text.value.into())
}

/// The hardware address of a network card.
fn machine(reader: &mut Reader<'_>, value: &Value<'_>) -> Option<[u8; 6]> {
    let text = reader.text("mac", value)?;
    let digits: String = text.value.chars().filter(|c| !matches!(c, ':' | '-' | '.')).collect();
    let byte = |i: usize| u8::from_str_radix(digits.get(2 * i..2 * i + 2)?, 16).ok();
    let is_hex = digits.len() == 12 && digits.bytes().all(|c| c.is_ascii_hexdigit());
    let mac: Option<Vec<u8>> = (0..6).map(byte).collect();
    let Some(mac) = mac.filter(|_| is_hex).and_then(|mac| <[u8; 6]>::try_from(mac).ok()) else {
        let hint = "as `ip link` shows it behind link/ether, such as \"aa:bb:cc:dd:ee:ff\"";
        return reader.refuse_text("the address", &text, "is not that of a network card", hint);
    };
    if mac[0] & 1 == 1 || mac == [0; 6] {
        let hint = "use the address of the machine's own network card";
        return reader.refuse_text("the address", &text, "is not that of one network card", hint);
    }
    Some(mac)
}

const WAITS: Bounds = Bounds {
    least: Duration::from_secs(1),
    sensible: Duration::ZERO,
    most: Duration::from_secs(3600),
    words: "use a time from \"1s\" to \"1h\", as in \"60s\"",
    warning: None,
};
const STOPS: Bounds = Bounds {
    least: Duration::from_secs(1),
    sensible: Duration::ZERO,
    most: Duration::from_secs(365 * 86_400),
    words: "use a time from \"1s\" to \"365d\", as in \"15m\", or \"never\"",
    warning: None,
};
