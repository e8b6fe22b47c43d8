//! Reading a record of which a part may be wrong: the rest of it counts.
//!
//! What cannot be read is left out, with a debug line. For serde's `deserialize_with`, beside
//! `default`.

use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::Value;

/// A value that is `None` where it cannot be read.
pub(crate) fn some<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    Ok(read(Value::deserialize(deserializer)?))
}

/// A list without the entries that cannot be read; empty where the value is not a list.
pub(crate) fn each<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    Ok(match Value::deserialize(deserializer)? {
        Value::Array(entries) => entries.into_iter().filter_map(read).collect(),
        other => {
            read::<Vec<()>>(other);
            Vec::new()
        }
    })
}

fn read<T: DeserializeOwned>(value: Value) -> Option<T> {
    if value.is_null() {
        return None;
    }
    serde_json::from_value(value)
        .inspect_err(|error| tracing::debug!(%error, "left out of what was handed over"))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Record {
        #[serde(default, deserialize_with = "some")]
        one: Option<u8>,
        #[serde(default, deserialize_with = "each")]
        many: Vec<u8>,
    }

    #[test]
    fn what_cannot_be_read_costs_nothing_else() {
        for (text, one, many) in [
            ("{}", None, vec![]),
            (r#"{"one": 7, "many": [1, 2]}"#, Some(7), vec![1, 2]),
            (r#"{"one": 700, "many": [1, "x", null, 900, 2], "new": 5}"#, None, vec![1, 2]),
            (r#"{"one": null, "many": 3}"#, None, vec![]),
        ] {
            assert_eq!(serde_json::from_str::<Record>(text).unwrap(), Record { one, many }, "{text}");
        }
    }
}
