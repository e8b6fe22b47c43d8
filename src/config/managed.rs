//! Reads the managed file: the mappings that were made at run time, and what is paused.
//!
//! `sources::managed` writes it; a person may edit it, too. The file stands alone: a mistake in it
//! keeps its mappings out of the plan with a warning, and no other mapping. A missing file is an
//! empty one. It is not among the files that `--watch` follows: its writer asks for the reload.

use std::{io, path::Path};

use crate::config::{
    fragment::Fragments,
    host::HostView,
    source::Origin,
    text::{Code, Diagnostics, ReadError, read::read as read_file},
};

/// The largest managed file.
pub(crate) const MOST: u64 = 1 << 20;
const TOO_LARGE: &str = "more than 1 MiB";

/// Takes in the managed file.
pub(super) fn read(
    path: &Path,
    host: &dyn HostView,
    fragments: &mut Fragments,
    diagnostics: &mut Diagnostics,
) {
    let origin = Origin::Managed(path.display().to_string());
    let text = match read_file(path, MOST, TOO_LARGE).map(String::from_utf8) {
        Ok(Ok(text)) => Ok(text),
        Ok(Err(_)) => Err(("it is not UTF-8 text".to_owned(), None)),
        Err(ReadError::Io(error)) if error.kind() == io::ErrorKind::NotFound => return,
        // Above it there may be a file.
        Err(ReadError::Io(error)) if error.kind() == io::ErrorKind::NotADirectory => return,
        Err(error) => Err((error.to_string(), error.hint())),
    };
    match text {
        Ok(text) => {
            let span = fragments.sources.add(origin, text);
            let directory = path.parent().unwrap_or(Path::new(""));
            fragments.text((span, directory, false), host, diagnostics);
        }
        Err((message, hint)) => {
            let span = fragments.sources.add(origin, String::new());
            let mut notes = Diagnostics::default();
            let message = format!("the managed file cannot be read: {message}");
            let note = notes.problem(Code::UnreadableFile, span, message).whole_file();
            note.hint(hint.unwrap_or("mend it, or move it away to begin with an empty one"));
            diagnostics.absorb(notes, &fragments.sources);
        }
    }
}
