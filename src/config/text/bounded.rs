//! Times that must be within bounds.

use std::time::Duration;

use super::{Code, Kind, Reader, Refusal, Value};
use crate::{
    config::text::{
        cure,
        duration::{self, DURATION},
    },
    mapping::Timeout,
};

/// From where to where a time may go.
pub(crate) struct Bounds {
    /// The shortest.
    pub(crate) least: Duration,
    /// Below this it is allowed, and unwise.
    pub(crate) sensible: Duration,
    /// The longest.
    pub(crate) most: Duration,
    /// What would be right.
    pub(crate) words: &'static str,
    /// What is unwise about it.
    pub(crate) warning: Option<&'static str>,
}

impl Bounds {
    /// A time within these bounds.
    pub(crate) fn read(&self, reader: &mut Reader<'_>, key: &str, value: &Value<'_>) -> Option<Duration> {
        let never = || Err(Refusal::new(format!("`{key}` cannot be \"never\""), self.words));
        let time = self.parse(reader, key, value, |limit| match limit {
            Timeout::After(time) => Ok(time),
            Timeout::Never => never(),
        })?;
        if let Some(warning) = self.warning
            && time < self.sensible
        {
            let span = reader.inner_span(value);
            reader.diagnostics.warning(Code::UnwiseValue, span, warning);
        }
        Some(time)
    }

    /// A time within these bounds, or nothing for `"never"`.
    pub(crate) fn read_or_never(
        &self,
        reader: &mut Reader<'_>,
        key: &str,
        value: &Value<'_>,
    ) -> Option<Option<Duration>> {
        self.parse(reader, key, value, |limit| match limit {
            Timeout::After(time) => Ok(Some(time)),
            Timeout::Never => Ok(None),
        })
    }

    fn parse<T>(
        &self,
        reader: &mut Reader<'_>,
        key: &str,
        value: &Value<'_>,
        take: impl Fn(Timeout) -> Result<T, Refusal>,
    ) -> Option<T> {
        let kind = Kind { forms: self.words, ..DURATION };
        cure::read(reader, key, value, &kind, |text| match duration::parse(text) {
            Ok(Timeout::After(time)) if !(self.least..=self.most).contains(&time) => {
                let way = if time < self.least { "short" } else { "long" };
                Err(Refusal::new(format!("`{key}` is too {way}"), self.words))
            }
            Ok(limit) => take(limit),
            Err(refusal) => Err(Refusal { hint: self.words.into(), ..refusal }),
        })
    }
}
