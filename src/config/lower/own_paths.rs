//! The usual places of portway's own files: the socket of the API, the managed file, and files of
//! state.
//!
//! Only names them. A place may be missing, or not be usable.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt as _,
    path::PathBuf,
};

use crate::state::Directories;

/// The name of the socket in its directory.
const SOCKET: &str = "portway.sock";
/// The directory of the socket where the environment names none.
const RUNTIME_DIR: &str = "/run/portway";
/// The name of the managed file in the directory for state.
const MANAGED: &str = "managed.toml";

/// The usual socket of a daemon with this environment.
pub(crate) fn socket(env: impl Fn(&str) -> Option<OsString>) -> PathBuf {
    sockets(env).swap_remove(0)
}

/// Where the socket of a daemon may be, the likeliest place first; never empty. A client may have
/// another environment than the daemon.
pub(crate) fn sockets(env: impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    // systemd names several directories with colons between them.
    let first = |all: OsString| {
        let first = all.as_bytes().split(|byte| *byte == b':').find(|dir| !dir.is_empty())?;
        Some(PathBuf::from(OsStr::from_bytes(first)))
    };
    let of_service = env("RUNTIME_DIRECTORY").and_then(first);
    // The XDG base directory specification ignores a path that is not absolute.
    let of_user = env("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
    let mut all: Vec<PathBuf> = Vec::new();
    for dir in [of_service, of_user, Some(RUNTIME_DIR.into())].into_iter().flatten() {
        let socket = dir.join(SOCKET);
        if !all.contains(&socket) {
            all.push(socket);
        }
    }
    all
}

/// The usual place of a file of state. `None` where no service manager names one.
pub(crate) fn state(file: &str, env: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    Some(Directories::of_service(env)?.join(file))
}

/// The usual managed file. `None` where no directory can hold it.
pub(crate) fn managed(env: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    state(MANAGED, &env).or_else(|| Some(Directories::new(env).likely()?.join(MANAGED)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_where_systemd_or_the_session_says() {
        let with = |set: &[(&str, &str)]| {
            sockets(|name: &str| set.iter().find(|(n, _)| *n == name).map(|(_, value)| value.into()))
        };
        let paths = |paths: &[&str]| paths.iter().map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(with(&[]), paths(&["/run/portway/portway.sock"]));
        let service = [("RUNTIME_DIRECTORY", "/run/a:/run/b"), ("XDG_RUNTIME_DIR", "/run/user/1000")];
        let all = ["/run/a/portway.sock", "/run/user/1000/portway.sock", "/run/portway/portway.sock"];
        assert_eq!(with(&service), paths(&all));
        assert_eq!(with(&service[1..]), paths(&all[1..]));
        assert_eq!(with(&[("RUNTIME_DIRECTORY", ""), ("XDG_RUNTIME_DIR", "x")]), paths(&all[2..]));
        assert_eq!(with(&[("RUNTIME_DIRECTORY", "/run/portway")]), paths(&all[2..]));
    }

    #[test]
    fn the_managed_file_is_in_the_directory_of_the_service() {
        let env = |name: &str| (name == "STATE_DIRECTORY").then(|| "/srv/state:/other".into());
        assert_eq!(managed(env), Some("/srv/state/managed.toml".into()));
    }
}
