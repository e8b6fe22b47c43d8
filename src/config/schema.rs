//! The JSON schema of the configuration file, for editors: draft 7, which Taplo and Even Better
//! TOML read.
//!
//! Made of `keys` alone. It refuses unknown keys, wrong types and wrong words. It is never stricter
//! than the reader: what needs more than a look at one value is left to `check`. A string with a
//! variable (`${NAME}`) may stand for any string.

use serde_json::{Map, Value, json};

use super::{
    keys,
    text::shape::{Form, Key, Shape},
};

const DURATION: &str = r"^(never|([0-9]+(\.[0-9]+)? *[a-z]+ *)+)$|\$";
const RATE: &str = r"^(unlimited|[0-9]+ ?/ ?[0-9]*[a-z]+)$|\$";
const SIZE: &str = r"^(unlimited|[0-9]+(\.[0-9]+)? ?[A-Za-z]+)$|\$";

/// The schema.
pub(crate) fn schema() -> Value {
    let mut schema = table(&keys::TOP);
    schema["$schema"] = json!("http://json-schema.org/draft-07/schema#");
    schema["title"] = json!("The configuration of portway");
    schema
}

fn table(shape: &Shape) -> Value {
    let properties: Map<String, Value> =
        shape.all().map(|key| (key.name.to_owned(), property(key))).collect();
    let mut table = json!({ "type": "object", "properties": properties, "additionalProperties": false });
    if !shape.required.is_empty() {
        table["required"] = json!(shape.required);
    }
    table
}

fn property(key: &Key) -> Value {
    let mut property = value(&key.form);
    property["description"] = json!(key.about);
    if let Ok(default) = serde_json::from_str::<Value>(key.default) {
        property["default"] = default;
    }
    property
}

fn value(form: &Form) -> Value {
    let text = |pattern: &str| json!({ "type": "string", "pattern": pattern });
    match form {
        Form::Text => json!({ "type": "string" }),
        Form::Like(start) => text(&format!("^{start}")),
        Form::Flag => json!({ "type": "boolean" }),
        Form::Off => json!({ "const": false }),
        Form::Number(least, most) => json!({ "type": "integer", "minimum": least, "maximum": most }),
        Form::Word(words) => json!({ "anyOf": [{ "enum": words }, text(r"\$")] }),
        Form::Duration => text(DURATION),
        Form::Rate => text(RATE),
        Form::Size => text(SIZE),
        Form::Any(forms) => json!({ "anyOf": forms.iter().map(value).collect::<Vec<_>>() }),
        Form::List(item) => json!({ "type": "array", "items": value(item) }),
        Form::Some(item) => json!({ "anyOf": [value(item), { "type": "array", "items": value(item) }] }),
        Form::Table(shape) => table(shape),
        Form::Names(item) => json!({ "type": "object", "additionalProperties": value(item) }),
    }
}
