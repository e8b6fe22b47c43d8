//! Edits of the text of the managed file. Pure: text in, text out.
//!
//! What an edit does not touch keeps its comments, its order and its layout. A comment behind a
//! value stays when the value changes.

use std::time::SystemTime;

use serde_json::{Map, Value as Json};
use toml_edit::{Array, ArrayOfTables, DocumentMut, InlineTable, Item, Table, Value};

use super::EditError;

/// The header of a new file.
const HEADER: &str = "# Mappings that were made while portway ran. portway keeps your comments when it changes this file.\n\
     # After an edit by hand: portway reload\n\n";

/// The lines of a table, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The line of its header.
    pub(super) first: usize,
    /// Its last line.
    pub(super) last: usize,
}

impl Place {
    /// Whether it has this line.
    pub(super) fn has_line(&self, line: usize) -> bool {
        (self.first..=self.last).contains(&line)
    }
}

/// Puts a mapping into the text, in the place of the one with this name.
pub(super) fn put(text: &str, name: &str, keys: &Map<String, Json>) -> Result<(String, Place), EditError> {
    let text = if text.trim().is_empty() { HEADER } else { text };
    let mut document = parse(text)?;
    // The comments of a text without any key stand at its end, behind the new table.
    let head = document.is_empty().then(|| document.trailing().as_str().unwrap_or_default().to_owned());
    if head.is_some() {
        document.set_trailing("");
    }
    if keys.get("name").is_some_and(|given| given.as_str() != Some(name)) {
        return Err(EditError::Shape(format!("`name` is not \"{name}\": leave it out")));
    }
    let mappings = mappings(&mut document)?;
    let index = mappings.iter().position(|table| is_named(table, name));
    let index = match index {
        Some(index) => index,
        None => {
            let mut table = Table::new();
            table.insert("name", Item::Value(name.into()));
            if let Some(head) = head {
                table.decor_mut().set_prefix(head);
            }
            mappings.push(table);
            mappings.len() - 1
        }
    };
    let table = mappings.get_mut(index).ok_or(EditError::Missing)?;
    let gone: Vec<String> =
        table.iter().map(|(key, _)| key.to_owned()).filter(|key| key != "name" && !has(keys, key)).collect();
    for key in gone {
        table.remove(&key);
    }
    for (key, json) in keys.iter().filter(|(key, json)| *key != "name" && !json.is_null()) {
        let mut value = value(json)?;
        if let Some(old) = table.get(key).and_then(Item::as_value) {
            *value.decor_mut() = old.decor().clone();
        }
        match table.get_mut(key) {
            Some(item) => *item = Item::Value(value),
            None => drop(table.insert(key, Item::Value(value))),
        }
    }
    let text = document.to_string();
    let place = place(&text, name).ok_or(EditError::Missing)?;
    Ok((text, place))
}

fn has(keys: &Map<String, Json>, key: &str) -> bool {
    keys.get(key).is_some_and(|json| !json.is_null())
}

/// Removes a mapping, and its pause.
pub(super) fn remove(text: &str, name: &str) -> Result<String, EditError> {
    let mut document = parse(text)?;
    let mappings = mappings(&mut document)?;
    let before = mappings.len();
    mappings.retain(|table| !is_named(table, name));
    if mappings.len() == before {
        return Err(EditError::Missing);
    }
    set_paused(&mut document, name, false)?;
    Ok(document.to_string())
}

/// Pauses a name, or resumes it.
pub(super) fn pause(text: &str, name: &str, paused: bool) -> Result<String, EditError> {
    let mut document = parse(text)?;
    set_paused(&mut document, name, paused)?;
    Ok(document.to_string())
}

/// Removes the mappings that have ended.
pub(super) fn prune(text: &str, now: SystemTime) -> Result<String, EditError> {
    let mut document = parse(text)?;
    let has_ended = |table: &Table| {
        let until = match table.get("until").and_then(Item::as_value) {
            Some(Value::String(text)) => text.value().clone(),
            Some(Value::Datetime(time)) => time.value().to_string(),
            _ => return false,
        };
        humantime::parse_rfc3339(&until).is_ok_and(|until| until <= now)
    };
    let mappings = mappings(&mut document)?;
    let ended: Vec<String> = mappings
        .iter()
        .filter(|table| has_ended(table))
        .filter_map(|table| table.get("name").and_then(Item::as_str).map(str::to_owned))
        .collect();
    mappings.retain(|table| !has_ended(table));
    for name in ended {
        set_paused(&mut document, &name, false)?;
    }
    Ok(document.to_string())
}

fn parse(text: &str) -> Result<DocumentMut, EditError> {
    text.parse::<DocumentMut>().map_err(|error| {
        let line = error.span().map_or(1, |span| line_of(text, span.start));
        EditError::Broken(format!("line {line}: {}", error.message()))
    })
}

/// The tables `[[mapping]]`.
fn mappings(document: &mut DocumentMut) -> Result<&mut ArrayOfTables, EditError> {
    let item = document.entry("mapping").or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()));
    item.as_array_of_tables_mut()
        .ok_or_else(|| EditError::Broken("`mapping` is not written as [[mapping]]".to_owned()))
}

fn is_named(table: &Table, name: &str) -> bool {
    table.get("name").and_then(Item::as_str) == Some(name)
}

fn set_paused(document: &mut DocumentMut, name: &str, paused: bool) -> Result<(), EditError> {
    if !paused && document.get("paused").is_none() {
        return Ok(());
    }
    let item = document.entry("paused").or_insert_with(|| Item::Value(Array::new().into()));
    // One name may stand there without a list.
    if let Some(single) = item.as_str().map(str::to_owned) {
        *item = Item::Value(Array::from_iter([single]).into());
    }
    let list =
        item.as_array_mut().ok_or_else(|| EditError::Broken("`paused` is not a list of names".to_owned()))?;
    let at = list.iter().position(|value| value.as_str() == Some(name));
    match (paused, at) {
        (true, None) => list.push(name),
        (false, Some(at)) => drop(list.remove(at)),
        _ => {}
    }
    Ok(())
}

/// The value of a key, as TOML has it.
fn value(json: &Json) -> Result<Value, EditError> {
    Ok(match json {
        Json::Null => {
            return Err(EditError::Shape("null stands in a list: TOML has no such value".to_owned()));
        }
        Json::Bool(flag) => (*flag).into(),
        Json::String(text) => text.as_str().into(),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(number), _) => number.into(),
            (None, Some(number)) => number.into(),
            (None, None) => return Err(EditError::Shape(format!("{number} is too large a number"))),
        },
        Json::Array(items) => items.iter().map(value).collect::<Result<Array, _>>()?.into(),
        Json::Object(keys) => {
            let mut table = InlineTable::new();
            for (key, json) in keys.iter().filter(|(_, json)| !json.is_null()) {
                table.insert(key, value(json)?);
            }
            table.into()
        }
    })
}

/// The lines of the mapping with this name.
fn place(text: &str, name: &str) -> Option<Place> {
    let document = toml_edit::Document::parse(text).ok()?;
    let tables = document.get("mapping")?.as_array_of_tables()?;
    let index = tables.iter().position(|table| is_named(table, name))?;
    let line = |table: &Table| Some(line_of(text, table.span()?.start));
    let first = line(tables.get(index)?)?;
    let last = tables.get(index + 1).and_then(line).map_or(usize::MAX, |next| next - 1);
    Some(Place { first, last })
}

/// The line of an offset, from 1.
fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn keys(json: &Json) -> Map<String, Json> {
        json.as_object().unwrap().clone()
    }

    const TEXT: &str = "# mine\npaused = [\"web\"] # why\n\n# first\n[[mapping]]\nname = \"a\"\n\
                        publish = \"80:9\" # behind\nmax_sessions = 3\n\n# second\n[[mapping]]\nname = \"b\" # b\n\
                        publish = \"81:9\"\nuntil = \"2026-01-01T00:00:00Z\"\n";

    #[test]
    fn a_changed_mapping_keeps_its_place_and_all_comments() {
        let (text, place) = put(TEXT, "a", &keys(&json!({ "publish": "82:9", "router": true }))).unwrap();
        let old = "publish = \"80:9\" # behind\nmax_sessions = 3\n";
        assert_eq!(text, TEXT.replace(old, "publish = \"82:9\" # behind\nrouter = true\n"));
        assert_eq!(place, Place { first: 5, last: 10 });
    }

    #[test]
    fn a_new_mapping_comes_last_and_its_values_are_those_of_toml() {
        let table = json!({
            "listen": ["1", "2"], "targets": [{ "address": "x:1", "weight": null }], "burst": 7,
            "router": { "ipv6": true },
        });
        let (text, place) = put(TEXT, "c", &keys(&table)).unwrap();
        let added = text.strip_prefix(TEXT).unwrap();
        assert_eq!(
            added,
            "\n[[mapping]]\nname = \"c\"\nburst = 7\nlisten = [\"1\", \"2\"]\nrouter = { ipv6 = true }\n\
             targets = [{ address = \"x:1\" }]\n"
        );
        assert_eq!(place.first, 16);
        let (text, _) = put("", "c", &keys(&json!({ "publish": "1:2" }))).unwrap();
        assert!(text.starts_with("# Mappings that were made"), "{text}");
        assert!(text.contains("\n[[mapping]]\nname = \"c\"\n"), "{text}");
    }

    #[test]
    fn pausing_and_resuming_leave_the_rest_as_it_is() {
        let both = pause(TEXT, "c", true).unwrap();
        assert_eq!(both, TEXT.replace("[\"web\"] # why", "[\"web\", \"c\"] # why"));
        assert_eq!(pause(&both, "c", true).unwrap(), both);
        assert_eq!(pause(&both, "c", false).unwrap(), TEXT);
        assert_eq!(pause("", "c", false).unwrap(), "");
        let first = pause("# x\n[[mapping]]\nname = \"a\"\n", "a", true).unwrap();
        assert_eq!(first.parse::<DocumentMut>().unwrap()["paused"].as_array().unwrap().len(), 1, "{first}");
        assert!(pause("paused = \"web\"\n", "c", true).unwrap().contains("\"web\", \"c\""));
    }

    #[test]
    fn what_is_removed_or_has_ended_is_gone_and_no_longer_paused() {
        let gone = remove(&TEXT.replace("web", "a"), "a").unwrap();
        assert!(!gone.contains("\"a\"") && gone.contains("name = \"b\" # b"), "{gone}");
        assert!(matches!(remove(TEXT, "x"), Err(EditError::Missing)));
        let time = humantime::parse_rfc3339("2026-01-01T00:00:00Z").unwrap();
        let pruned = prune(TEXT, time).unwrap();
        assert!(!pruned.contains("\"b\"") && pruned.contains("name = \"a\""), "{pruned}");
        assert_eq!(prune(TEXT, time - std::time::Duration::from_secs(1)).unwrap(), TEXT);
    }

    #[test]
    fn a_text_that_cannot_be_edited_is_left_alone() {
        for (text, why) in [
            ("a = 1\nb = \n", "line 2: "),
            ("mapping = []\n", "not written as [[mapping]]"),
            ("paused = 1\n[[mapping]]\nname = \"a\"\n", "not a list"),
        ] {
            let errors = [put(text, "a", &Map::new()).map(drop), pause(text, "a", true).map(drop)];
            let said: String =
                errors.iter().filter_map(|e| e.as_ref().err()).map(ToString::to_string).collect();
            assert!(said.contains(why), "{said}");
        }
        let shape = put("", "a", &keys(&json!({ "x": [null] }))).unwrap_err();
        assert!(matches!(shape, EditError::Shape(_)));
        assert!(matches!(put("", "a", &keys(&json!({ "name": "b" }))), Err(EditError::Shape(_))));
    }
}
