//! Why a request got no answer that can be used.

use std::{
    fmt::Display,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;

use crate::{
    status::view::Failure,
    text::{Escaped, clean},
};

/// The groups of the system.
const GROUPS: &str = "/etc/group";

/// Why a request got no answer that can be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// There is no socket, or nothing listens on it.
    #[error("no portway daemon answers at {}", places(.0))]
    NoDaemon(Vec<PathBuf>),
    /// The mode of the socket, or of its directory, keeps this user out.
    #[error("the socket {} may not be opened: permission denied", Escaped(.socket.display()))]
    Denied {
        /// Where it is.
        socket: PathBuf,
        /// The group that may open it, where it is one of more than the administrator.
        group: Option<String>,
    },
    /// The socket cannot be used.
    #[error("connect to {}: {error}", Escaped(.socket.display()))]
    Connect {
        /// Where it is.
        socket: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The connection closed before the answer was whole.
    #[error("the portway daemon at {} ended in the middle", Escaped(.0.display()))]
    Ended(PathBuf),
    /// The daemon takes too long.
    #[error("the portway daemon at {} has not answered for {} s", Escaped(.socket.display()), .limit.as_secs())]
    Slow {
        /// Where it is.
        socket: PathBuf,
        /// How long it may take.
        limit: Duration,
    },
    /// Another program answers.
    #[error("what answers at {} is not this version of portway: {what}", Escaped(.socket.display()))]
    Stranger {
        /// Where it is.
        socket: PathBuf,
        /// What shows that.
        what: String,
    },
    /// The daemon refuses the request.
    #[error("{}", .failure.error)]
    Refused {
        /// The status of HTTP.
        status: u16,
        /// Why.
        failure: Failure,
        /// The same as it came.
        json: Value,
    },
}

impl ClientError {
    /// The socket may not be opened.
    pub(super) fn denied(socket: &Path) -> Self {
        Self::Denied { socket: socket.to_owned(), group: group(socket, GROUPS) }
    }

    /// What answers is not portway.
    pub(super) fn stranger(socket: &Path, what: impl Display) -> Self {
        Self::Stranger { socket: socket.to_owned(), what: clean(&what.to_string()) }
    }

    /// What an error of the connection means.
    pub(super) fn of_http(socket: &Path, error: &hyper::Error) -> Self {
        if error.is_parse() {
            return Self::stranger(socket, "it does not speak HTTP");
        }
        Self::Ended(socket.to_owned())
    }

    /// What the person can do.
    pub(crate) fn help(&self) -> Option<String> {
        Some(match self {
            Self::NoDaemon(_) => {
                "is it running? start it with `portway run` or `systemctl start portway`; for a daemon with \
                 another socket add `--socket PATH`, or set PORTWAY_SOCKET"
                    .to_owned()
            }
            Self::Denied { group: Some(group), .. } => format!(
                "use sudo, or join the group `{group}`: `sudo usermod -aG {group} USER`, and log in again"
            ),
            Self::Denied { group: None, .. } => "use sudo".to_owned(),
            Self::Connect { error, .. } if error.kind() == io::ErrorKind::WouldBlock => {
                "it has too many clients; try again".to_owned()
            }
            Self::Connect { .. } => "name the socket of a daemon with `--socket PATH`".to_owned(),
            Self::Ended(_) => "its log has the reason".to_owned(),
            Self::Slow { .. } => "is the machine overloaded? its log may have the reason".to_owned(),
            Self::Stranger { .. } => {
                "name the socket of a daemon with `--socket PATH`; if portway was updated, restart the daemon"
                    .to_owned()
            }
            Self::Refused { .. } => return None,
        })
    }
}

/// `A`, or `A or B`.
fn places(sockets: &[PathBuf]) -> String {
    let sockets: Vec<_> = sockets.iter().map(|socket| Escaped(socket.display()).to_string()).collect();
    sockets.join(" or ")
}

/// The name of the group that may open the socket; nothing where that is the administrator's, or
/// where it is not known.
fn group(socket: &Path, groups: &str) -> Option<String> {
    const GROUP_MAY: u32 = 0o060;
    let meta = fs::metadata(socket).ok().filter(|meta| meta.mode() & GROUP_MAY == GROUP_MAY)?;
    if meta.gid() == 0 {
        return None;
    }
    let id = meta.gid().to_string();
    let groups = fs::read_to_string(groups).ok()?;
    // NAME:PASSWORD:ID:MEMBERS
    let name = groups.lines().find_map(|line| {
        let mut parts = line.split(':');
        let name = parts.next()?;
        (parts.nth(1)? == id).then(|| clean(name))
    });
    name.filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, chown};

    use super::*;

    #[test]
    fn the_group_that_may_open_a_socket_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let (socket, groups) = (dir.path().join("socket"), dir.path().join("group"));
        fs::write(&socket, "").unwrap();
        let id = fs::metadata(&socket).unwrap().gid();
        let id = if id == 0 && chown(&socket, None, Some(4321)).is_ok() { 4321 } else { id };
        fs::write(&groups, format!("root:x:0:\nportway:x:{id}:anna\n")).unwrap();
        let named = || group(&socket, groups.to_str().unwrap());
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o660)).unwrap();
        assert_eq!(named().as_deref(), (id != 0).then_some("portway"));
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(named(), None);
    }
}
