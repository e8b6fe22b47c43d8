//! The files that portway may use, by Landlock: the rest of the file system is closed.
//!
//! Rules are about directories and not about files: an editor, a package and a name service replace
//! a file by another one, which a rule about the old one does not know. So what lies beside the
//! configuration can be read as well, and the whole of `/etc`.
//!
//! - Read: the directories of the configuration with all that it names, what the C library and the
//!   resolver read, `/proc` and `/sys`.
//! - Execute: the directory of the program, for a hand-over to the one that replaces it, and the
//!   programs and libraries of the system. Nothing that it writes can be executed, unless the
//!   program lies in the root directory, as in an image.
//! - Write: the directories of the state, of the socket and of the log.
//!
//! Connections stay free: unix sockets (D-Bus, the journal, container engines), TCP and UDP. So do
//! signals and abstract sockets. A program that this process starts is restricted in the same way.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use landlock::{
    ABI, Access as _, AccessFs, BitFlags, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetError,
    RulesetStatus, make_bitflags, path_beneath_rules,
};
use rustix::fs::{Access, OFlags, access};

use crate::{
    config::{ApiSocket, Loaded, LogTarget},
    daemon::handover::Program,
    policy::ListSpec,
    state::Directories,
};

/// The newest rules that this module knows. Those of later kernels would close unix sockets.
const KNOWN: ABI = ABI::V7;

/// What programs need of a system. What is missing is passed over.
const OF_SYSTEM: [&str; 11] = [
    "/etc",
    "/proc",
    "/sys",
    "/dev/random",
    "/dev/urandom",
    // The name service, where /etc/resolv.conf is a link.
    "/run/systemd/resolve",
    "/run/resolvconf",
    "/run/NetworkManager",
    "/run/connman",
    "/run/netconfig",
    "/run/nscd",
];
/// Links there may lead to other places.
const LINKS: [&str; 5] =
    ["/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/localtime", "/etc/services"];
/// Programs and libraries: the installed program may be a script.
const PROGRAMS: [&str; 6] = ["/usr", "/bin", "/lib", "/lib64", "/nix/store", "/gnu/store"];
const NULL: &str = "/dev/null";

const READ: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | ReadDir});
const RUN: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | ReadDir | Execute});
const KEEP: BitFlags<AccessFs> = make_bitflags!(AccessFs::{
    ReadFile | ReadDir | WriteFile | Truncate | MakeReg | MakeSym | MakeDir | RemoveFile
});
const LISTEN: BitFlags<AccessFs> = make_bitflags!(AccessFs::{
    ReadFile | ReadDir | WriteFile | MakeReg | MakeSock | RemoveFile
});
const LOG: BitFlags<AccessFs> = make_bitflags!(AccessFs::{WriteFile | MakeReg});

/// A directory that is written in.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) path: PathBuf,
    rights: BitFlags<AccessFs>,
}

/// Closes all other files to this thread, to those that it makes later, and to programs that these
/// start.
///
/// # Errors
/// Why that is not possible.
pub(super) fn close_others(loaded: &Loaded) -> Result<(), String> {
    let written: Vec<_> = written(loaded).into_iter().chain(spare(loaded)).collect();
    written.iter().filter(|dir| dir.rights != LOG).for_each(Written::make);
    match restrict(loaded, written) {
        Ok(RulesetStatus::NotEnforced) => Err("this kernel has no Landlock, or it is switched off".into()),
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

fn restrict(loaded: &Loaded, written: Vec<Written>) -> Result<RulesetStatus, RulesetError> {
    let mut rules = Ruleset::default().handle_access(AccessFs::from_all(KNOWN))?.create()?;
    let read = OF_SYSTEM.map(PathBuf::from).into_iter().chain(LINKS.into_iter().filter_map(leads_to));
    let run =
        PROGRAMS.map(PathBuf::from).into_iter().chain(Program::of_this_process(false, None).directories());
    let all = [(READ, read.chain(read_by(loaded)).collect::<Vec<_>>()), (RUN, run.collect())];
    let written = written.into_iter().map(|Written { path, rights }| (rights, vec![path]));
    let null = (make_bitflags!(AccessFs::{ReadFile | WriteFile}), vec![NULL.into()]);
    for (rights, paths) in all.into_iter().chain(written).chain([null]) {
        rules = rules.add_rules(path_beneath_rules(paths, rights))?;
    }
    Ok(rules.restrict_self()?.ruleset)
}

/// The directories of what was read, and of what a reload may read.
fn read_by(loaded: &Loaded) -> impl Iterator<Item = PathBuf> {
    let lists = loaded.gate.spec.lists.values().filter_map(|list| match list {
        ListSpec::File(path) => Some(path.clone()),
        ListSpec::Inline(_) => None,
    });
    let api = &loaded.settings.api;
    let files = loaded.read.files.iter().chain(&api.token_files).chain(&api.managed).cloned();
    let files = files.chain(lists).chain(loaded.gate.spec.geoip.clone());
    let files = files.chain(loaded.gate.spec.knock.iter().flat_map(|knock| knock.files.clone()));
    let named = files.collect::<Vec<_>>().into_iter().flat_map(|file| {
        let led = fs::canonicalize(&file).ok();
        [Some(file), led].into_iter().flatten().map(|file| directory(&file))
    });
    let patterns: Vec<_> = loaded.read.patterns.iter().map(|pattern| before_wildcard(pattern)).collect();
    let given = ["CREDENTIALS_DIRECTORY", "CONFIGURATION_DIRECTORY"].into_iter().filter_map(std::env::var_os);
    named.chain(patterns).chain(given.map(PathBuf::from))
}

/// What this configuration has written, as directories.
pub(super) fn written(loaded: &Loaded) -> Vec<Written> {
    let api = &loaded.settings.api;
    let states = Directories::new(|name| std::env::var_os(name));
    let kept = [api.managed.as_deref(), bans(loaded), knocks(loaded)].into_iter().flatten().map(directory);
    let kept = kept.chain(states.likely().map(Path::to_owned)).map(|path| Written { path, rights: KEEP });
    let socket = api.socket.path().map(|path| Written { path: directory(path), rights: LISTEN });
    kept.chain(socket).chain(log(loaded)).collect()
}

/// Where else it may have to be written: bans go to the next directory where the first has no room.
fn spare(loaded: &Loaded) -> Vec<Written> {
    let states = Directories::new(|name| std::env::var_os(name));
    let used = |dir: &&Path| bans(loaded).is_some() || dir.exists();
    states.iter().filter(used).map(|path| Written { path: path.to_owned(), rights: KEEP }).collect()
}

fn bans(loaded: &Loaded) -> Option<&Path> {
    loaded.gate.spec.guard.as_ref().and_then(|guard| guard.state.as_deref())
}

fn knocks(loaded: &Loaded) -> Option<&Path> {
    loaded.gate.spec.knock.as_ref().and_then(|knock| knock.state.as_deref())
}

/// Where the log goes, if it is a file: its directory, where a new one is made after a rotation. A
/// pipe or a device is written alone.
fn log(loaded: &Loaded) -> Vec<Written> {
    let LogTarget::File(path) = &loaded.settings.log.target else { return Vec::new() };
    let is_special = fs::metadata(path).is_ok_and(|meta| !meta.is_file());
    let places = match (is_special, fs::canonicalize(path)) {
        (true, Ok(path)) => vec![path],
        (false, Ok(led)) => vec![directory(path), directory(&led)],
        (_, Err(_)) => vec![directory(path)],
    };
    places.into_iter().map(|path| Written { path, rights: LOG }).collect()
}

impl Written {
    /// Makes it, if it is missing: there can be a rule only about what exists. Where that fails, so
    /// does what needs it, and says so.
    fn make(&self) {
        let mode = if self.rights == LISTEN { ApiSocket::DIRECTORY_MODE } else { 0o700 };
        let _ = DirBuilder::new().recursive(true).mode(mode).create(&self.path);
    }

    /// Whether the sandbox keeps this process from writing there. Nothing is left behind.
    pub(super) fn is_closed(&self) -> bool {
        if self.rights == LOG && !self.path.exists() {
            // It is not made for the log, and opening the log says so.
            return false;
        }
        let existing = self.path.ancestors().find(|path| path.exists()).unwrap_or(&self.path);
        if access(existing, Access::WRITE_OK).is_err() {
            // Its own rights do.
            return false;
        }
        let nameless = OFlags::TMPFILE.bits().cast_signed();
        let is_refused = |error: io::Error| error.kind() == io::ErrorKind::PermissionDenied;
        let is_directory = existing.is_dir();
        let mut options = OpenOptions::new();
        options.write(true).custom_flags(if is_directory {
            nameless
        } else {
            OFlags::NONBLOCK.bits().cast_signed()
        });
        options.open(existing).is_err_and(is_refused)
    }
}

/// The directory of a file; a relative one begins where the process runs.
fn directory(file: &Path) -> PathBuf {
    let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    file.parent().map_or_else(|| file.clone(), Path::to_owned)
}

/// The directory of the file that a link leads to.
fn leads_to(link: &str) -> Option<PathBuf> {
    Some(directory(&fs::canonicalize(link).ok()?))
}

/// The directory above the first wildcard of a pattern.
fn before_wildcard(pattern: &str) -> PathBuf {
    let path = Path::new(pattern);
    let is_plain = |path: &&Path| !path.as_os_str().to_string_lossy().contains(['*', '?', '[']);
    path.ancestors().skip(1).find(is_plain).unwrap_or(path).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_read_from_above_its_first_wildcard() {
        for (pattern, above) in [("/etc/portway/conf.d/*.toml", "/etc/portway/conf.d"), ("/a/*/b.toml", "/a")]
        {
            assert_eq!(before_wildcard(pattern), Path::new(above));
        }
    }

    #[test]
    fn a_file_stands_for_its_directory() {
        assert_eq!(directory(Path::new("/a/b.toml")), Path::new("/a"));
        assert_eq!(directory(Path::new("b.toml")), std::env::current_dir().unwrap());
    }
}
