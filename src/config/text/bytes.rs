//! Bytes as they are written: a text with escapes, or `{ hex = "…" }`.
//!
//! In a text `\xNN` is any byte, and `\r`, `\n`, `\t`, `\0` and `\\` are what they are everywhere.
//! TOML has escapes of its own in double quotes, and its `\xNN` is a character. So single quotes
//! are what a person wants, and a byte that TOML made a character of is refused.

use std::{fmt::Write as _, sync::Arc};

use serde_json::{Value as Json, json};
use toml::de::DeValue;

use super::{
    Code, Keys, Reader, Value,
    shape::{Form, Key, Shape},
};

/// The most bytes that one value may have.
const MOST: usize = 4096;
/// What a value looks like.
const FORMS: &str = r#"use single quotes, as in 'PING\r\n' or '\x00\x01', or { hex = "0001" }"#;

/// The form without escapes.
pub(crate) const HEX: Shape = Shape {
    keys: &[Key::new("hex", Form::Text, "The bytes as hexadecimal digits, as in \"0001ff\".")],
    more: None,
    required: &["hex"],
};

/// Reads bytes, at least one.
pub(crate) fn bytes(reader: &mut Reader<'_>, key: &str, value: &Value<'_>) -> Option<Arc<[u8]>> {
    let (decoded, at) = match value.get_ref() {
        DeValue::String(_) => {
            let text = reader.text(key, value)?;
            let raw = reader.text.get(value.span()).unwrap_or_default();
            let is_made = raw.starts_with('"') && raw.contains(r"\x");
            let decoded = if is_made && text.value.chars().any(|c| ('\u{80}'..='\u{ff}').contains(&c)) {
                Err(r"in double quotes `\x` makes a character, not a byte".to_owned())
            } else {
                unescaped(&text.value)
            };
            (decoded, text.span())
        }
        DeValue::Table(table) => {
            let mut keys = Keys::of(table, &HEX);
            let hex = keys.get("hex");
            keys.refuse_others(reader, &format!("of `{key}`"));
            let Some(hex) = hex else {
                let span = reader.span(value.span());
                reader
                    .diagnostics
                    .problem(Code::MissingKey, span, format!("`{key}` is a table without `hex`"))
                    .hint(FORMS);
                return None;
            };
            let text = reader.text("hex", hex)?;
            (from_hex(&text.value), text.span())
        }
        _ => {
            reader.wrong_type(key, value, "a string, or a table { hex = \"...\" }").hint(FORMS);
            return None;
        }
    };
    let refused = match decoded {
        Ok(bytes) if bytes.is_empty() => format!("`{key}` is empty"),
        Ok(bytes) if bytes.len() > MOST => format!("`{key}` has more than {MOST} bytes"),
        Ok(bytes) => return Some(bytes.into()),
        Err(message) => message,
    };
    reader.diagnostics.problem(Code::InvalidValue, at, refused).hint(FORMS);
    None
}

/// The bytes of a text with escapes.
fn unescaped(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let escape = &rest[at + 1..];
        let (byte, len) = match escape.as_bytes() {
            [b'r', ..] => (b'\r', 1),
            [b'n', ..] => (b'\n', 1),
            [b't', ..] => (b'\t', 1),
            [b'0', ..] => (0, 1),
            [b'\\', ..] => (b'\\', 1),
            [b'x', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                (16 * digit(*high) + digit(*low), 3)
            }
            _ => {
                let shown: String = escape.chars().take(3).collect();
                return Err(format!(r"`\{shown}` is not an escape"));
            }
        };
        bytes.push(byte);
        rest = &escape[len..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    Ok(bytes)
}

/// The bytes of hexadecimal digits, which may have spaces and colons between bytes.
fn from_hex(text: &str) -> Result<Vec<u8>, String> {
    let digits: Vec<u8> = text.bytes().filter(|c| !matches!(c, b' ' | b':')).collect();
    if !digits.len().is_multiple_of(2) || !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err("`hex` is pairs of the digits 0-9 a-f".to_owned());
    }
    Ok(digits.chunks(2).map(|pair| 16 * digit(pair[0]) + digit(pair[1])).collect())
}

/// The value of a hexadecimal digit.
fn digit(c: u8) -> u8 {
    match c {
        b'0'..=b'9' => c - b'0',
        _ => (c.to_ascii_lowercase() - b'a') + 10,
    }
}

/// Bytes as a value that [`bytes`] reads: a text where they are one, otherwise digits.
pub(crate) fn spelled(bytes: &[u8]) -> Json {
    let is_shown = |c: char| !c.is_control() || matches!(c, '\r' | '\n' | '\t');
    match std::str::from_utf8(bytes).ok().filter(|text| text.chars().all(is_shown)) {
        Some(text) => {
            text.replace('\\', r"\\").replace('\r', r"\r").replace('\n', r"\n").replace('\t', r"\t").into()
        }
        None => {
            let mut hex = String::with_capacity(2 * bytes.len());
            for byte in bytes {
                let _ = write!(hex, "{byte:02x}");
            }
            json!({ "hex": hex })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_bytes_and_everything_else_is_itself() {
        for (text, bytes) in [
            (r"PING\r\n", &b"PING\r\n"[..]),
            (r"\x00\xfF\\x", b"\x00\xff\\x"),
            (r"a\tb\0", b"a\tb\0"),
            ("ü", "ü".as_bytes()),
        ] {
            assert_eq!(unescaped(text).as_deref(), Ok(bytes), "{text}");
        }
        for text in [r"\", r"\x", r"\x1", r"\xü1", r"\q", r"\é"] {
            assert!(unescaped(text).is_err(), "{text}");
        }
    }

    #[test]
    fn digits_are_pairs() {
        assert_eq!(from_hex("00 fF:7a").as_deref(), Ok(&[0, 255, 0x7a][..]));
        assert!(from_hex("0").is_err() && from_hex("0g").is_err() && from_hex("üü").is_err());
    }

    #[test]
    fn what_is_spelled_reads_back() {
        for bytes in [&b"GET / HTTP/1.0\r\n\r\n"[..], b"a\\b\tc", b"\x00\xff", "ü".as_bytes(), b"\x1b["] {
            let back = match spelled(bytes) {
                Json::String(text) => unescaped(&text),
                hex => from_hex(hex["hex"].as_str().unwrap()),
            };
            assert_eq!(back.as_deref(), Ok(bytes));
        }
    }
}
