//! Standard error as the journal of systemd.
//!
//! Owns the question whether standard error is the journal, and the prefix `<3>` to `<7>` by which
//! the journal takes the priority of a line (sd-daemon(3)). The journal takes it away again, and
//! notes the time itself. Without a prefix every line has the same priority, and `journalctl -p
//! warning` shows nothing.

use rustix::fs::fstat;
use tracing::Level;

/// Where systemd says which stream the journal is: its device and inode, in decimal
/// (systemd.exec(5)). A program that was started with another standard error inherits the variable,
/// so the stream has to be compared.
const VARIABLE: &str = "JOURNAL_STREAM";

/// Whether standard error is the journal.
pub(super) fn is_stderr() -> bool {
    let Ok(stream) = std::env::var(VARIABLE) else { return false };
    fstat(std::io::stderr()).is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// The prefix of a line.
pub(super) fn prefix(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        Level::DEBUG | Level::TRACE => "<7>",
    }
}

/// A text for standard error beside the log. Where that is the journal, each line has the priority
/// of an error.
pub(crate) fn for_stderr(text: &str) -> String {
    if !is_stderr() {
        return text.to_owned();
    }
    let prefix = prefix(Level::ERROR);
    text.lines().map(|line| format!("{prefix}{line}")).collect::<Vec<_>>().join("\n")
}
