//! Files that a command writes for a person: never over one that is there, and with nothing of
//! another's text but strings.

use std::{fmt::Write as _, fs::OpenOptions, io::Write as _, path::Path};

/// Where a package has the schema.
const PACKAGED: &str = "/usr/share/portway/portway.schema.json";

/// The lines by which an editor finds the schema.
pub(super) fn schema_lines() -> String {
    if Path::new(PACKAGED).exists() {
        return format!("#:schema {PACKAGED}\n");
    }
    "#:schema ./portway.schema.json\n# For an editor that knows the keys: portway schema > portway.schema.json\n".to_owned()
}

/// A string of TOML in which portway sees no variable.
pub(super) fn quoted(text: &str) -> String {
    quoted_key(&text.replace('$', "$$"))
}

/// A string of TOML.
pub(super) fn quoted_key(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                quoted.push('\\');
                quoted.push(c);
            }
            c if c.is_control() => {
                let _ = write!(quoted, "\\u{:04X}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// Why a file was not written.
#[derive(Debug, thiserror::Error)]
pub(super) enum FreshError {
    /// It is there.
    #[error("{0} exists, and is never overwritten; name another file by -o")]
    Exists(String),
    /// The system refused.
    #[error("write {0}: {1}")]
    Failed(String, std::io::Error),
}

/// Writes a file that does not exist yet.
///
/// # Errors
/// It exists, or what the system said. Half a file is removed.
pub(super) fn write(path: &Path, text: &str) -> Result<(), FreshError> {
    let shown = path.display().to_string();
    let mut file = match OpenOptions::new().write(true).create_new(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(FreshError::Exists(shown));
        }
        Err(error) => return Err(FreshError::Failed(shown, error)),
    };
    file.write_all(text.as_bytes()).map_err(|error| {
        // This program made it. What is left of it is of no use.
        let _ = std::fs::remove_file(path);
        FreshError::Failed(shown, error)
    })
}
