//! A target as it is written: its address, or a table that holds it with a weight.

use std::num::NonZeroU16;

use toml::{Spanned, de::DeValue};

use crate::{
    config::{
        keys,
        text::{Code, Keys, Reader, Text, Value, amount},
    },
    targets::Target,
};

/// A target as it is written.
#[derive(Clone, Debug)]
pub(crate) struct TargetText {
    /// Its address.
    pub(crate) address: Text,
    /// Its share of the sessions.
    pub(crate) weight: NonZeroU16,
    /// It waits until no other target works.
    pub(crate) backup: bool,
}

/// Reads a target. `key` is where the list of targets stands.
pub(crate) fn target(reader: &mut Reader<'_>, key: &str, value: &Spanned<DeValue<'_>>) -> Option<TargetText> {
    let alone = |address: Text| TargetText { address, weight: NonZeroU16::MIN, backup: false };
    match value.get_ref() {
        DeValue::Table(table) => {
            let mut keys = Keys::of(table, &keys::TARGET);
            let address = keys.get("address");
            let weight = keys.get("weight").map(|v| weight(reader, "weight", v));
            let backup = keys.get("backup").map(|v| reader.flag("backup", v));
            let has_slip = keys.has_slip_of(reader, &["address"]);
            keys.refuse_others(reader, "of a target");
            if address.is_none() && !has_slip {
                let span = reader.span(value.span());
                reader
                    .diagnostics
                    .problem(Code::MissingKey, span, "a target without an `address`")
                    .hint("as in { address = \"10.0.0.7:3389\" }");
            }
            let target = alone(reader.text("address", address?)?);
            Some(TargetText {
                weight: weight.flatten().unwrap_or(target.weight),
                backup: backup.flatten().unwrap_or_default(),
                ..target
            })
        }
        DeValue::String(_) => reader.text(key, value).map(alone),
        _ => {
            reader.wrong_type(key, value, "a list of strings or of tables { address = \"...\" }");
            None
        }
    }
}

/// A weight: a number from 1.
fn weight(reader: &mut Reader<'_>, key: &str, value: &Value<'_>) -> Option<NonZeroU16> {
    const MOST: u16 = Target::MAX_WEIGHT;
    let count = amount::positive(reader, key, value, None)?;
    let weight = NonZeroU16::try_from(count).ok().filter(|weight| weight.get() <= MOST);
    if weight.is_none() {
        let span = reader.span(value.span());
        reader
            .diagnostics
            .problem(Code::InvalidValue, span, format!("`{key}` is more than {MOST}"))
            .hint("weights are shares: 4 and 1 are the same as 1000 and 250");
    }
    weight
}
