//! The variables that stand in for arguments.
//!
//! An empty variable, as `docker run -e PORTWAY_CONFIG=` makes one, counts as unset.

use std::ffi::{OsStr, OsString};

use clap::error::ErrorKind;

use super::refusal;
use crate::config::{LogTarget, RunAs, environment};

/// The variables of the environment.
pub(super) struct Variables<F> {
    pub(super) value: F,
    /// Those that look like portway's and are not.
    pub(super) strays: Vec<String>,
}

impl Variables<fn(&str) -> Option<OsString>> {
    /// Those of this process.
    pub(super) fn of_process() -> Self {
        Self { value: |name| std::env::var_os(name), strays: environment::strays(std::env::vars_os()) }
    }
}

impl<F: Fn(&str) -> Option<OsString>> Variables<F> {
    /// The value of a variable, unless it is empty.
    pub(super) fn value(&self, name: &str) -> Option<OsString> {
        (self.value)(name).filter(|value| !value.is_empty())
    }

    /// A value that is text.
    pub(super) fn text(&self, name: &str) -> Result<Option<String>, clap::Error> {
        let text = self.value(name).map(OsString::into_string).transpose();
        text.map_err(|_| refusal(ErrorKind::InvalidUtf8, &format!("{name} is not UTF-8 text"), None))
    }

    /// A value that is one of a few words.
    pub(super) fn word<T>(
        &self,
        name: &str,
        words: &[&str],
        named: fn(&str) -> Option<T>,
    ) -> Result<Option<T>, clap::Error> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let word = value.to_str().and_then(named);
        word.map(Some).ok_or_else(|| refused(name, &value, &format!("use one of {}", words.join(", "))))
    }

    /// A value that is a log target.
    pub(super) fn log_target(&self, name: &str) -> Result<Option<LogTarget>, clap::Error> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let target = value
            .to_str()
            .ok_or_else(|| "use UTF-8 text".into())
            .and_then(|text| LogTarget::parse(text).map_err(|refusal| refusal.hint));
        target.map(Some).map_err(|cure| refused(name, &value, &cure))
    }

    /// A value that is a user.
    pub(super) fn user(&self, name: &str) -> Result<Option<RunAs>, clap::Error> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let user = value
            .to_str()
            .ok_or_else(|| "use UTF-8 text".into())
            .and_then(|text| RunAs::parse(text).map_err(|refusal| refusal.hint));
        user.map(Some).map_err(|cure| refused(name, &value, &cure))
    }

    /// Whether a switch is on.
    pub(super) fn switch(&self, name: &str) -> Result<bool, clap::Error> {
        let Some(value) = self.value(name) else { return Ok(false) };
        let on = value.to_str().and_then(environment::switch);
        on.ok_or_else(|| refused(name, &value, "use true, 1, yes or on; or false, 0, no or off"))
    }
}

fn refused(name: &str, value: &OsStr, cure: &str) -> clap::Error {
    const SHOWN: usize = 60;
    let value: String = value.to_string_lossy().chars().take(SHOWN).collect();
    // Quotes and control characters are shown escaped.
    refusal(ErrorKind::InvalidValue, &format!("the variable {name} is {value:?}"), Some(cure))
}
