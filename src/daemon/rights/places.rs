//! What the user needs before the rights are gone: directories to write in, and the log file.
//!
//! A directory that is missing is made for the user. One that exists is given to it only where
//! root has it and its name is `portway`, with the files of an earlier run as root: `/run` and
//! `/var/log` belong to others. Links are never followed, and a file with a second name is left
//! alone: the user could have put it there.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown},
    path::{Path, PathBuf},
};

use rustix::fs::{Access, OFlags, access};

use super::identity::Identity;
use crate::{
    config::{Loaded, LogTarget},
    state::Directories,
};

/// Of a directory: for the user, and to be looked into by its group.
const MODE: u32 = 0o750;
/// The name of directories that are portway's alone.
const OWN: &str = "portway";

/// What these settings write.
#[derive(Debug)]
pub(super) struct Places {
    directories: BTreeSet<PathBuf>,
    log: Option<PathBuf>,
}

impl Places {
    /// Those of a configuration.
    pub(super) fn of(loaded: &Loaded) -> Self {
        let api = &loaded.settings.api;
        let guard = loaded.gate.spec.guard.as_ref().and_then(|guard| guard.state.as_deref());
        let files = [api.socket.path(), api.managed.as_deref(), guard];
        let state = Directories::new(|name| std::env::var_os(name));
        let directories = files.into_iter().flatten().filter_map(Path::parent).chain(state.likely());
        let directories = directories.filter(|dir| !dir.as_os_str().is_empty()).map(Path::to_owned).collect();
        let log = match &loaded.settings.log.target {
            LogTarget::File(path) => Some(path.clone()),
            _ => None,
        };
        Self { directories, log }
    }

    /// Makes what is missing, and gives the user what is portway's. Returns what failed.
    pub(super) fn prepare(&self, user: &Identity) -> Vec<String> {
        let dirs = self.directories.iter().map(|dir| (dir, directory(dir, user)));
        let own =
            |path: &Path| path.parent().is_some_and(|dir| dir.file_name().is_some_and(|name| name == OWN));
        let of_log = self.log.as_deref().filter(|path| own(path)).and_then(Path::parent).map(Path::to_owned);
        let of_log = of_log.iter().map(|dir| (dir, directory(dir, user))).collect::<Vec<_>>();
        let log = self.log.iter().map(|path| (path, log_file(path, user)));
        let all = dirs.chain(of_log).chain(log);
        all.filter_map(|(path, done)| Some(format!("prepare {}: {}", path.display(), done.err()?))).collect()
    }

    /// What this process, by now the user, may not write in.
    pub(super) fn troubles(&self, user: &Identity) -> Vec<String> {
        let closed = |dir: &&PathBuf| access(dir.as_path(), Access::WRITE_OK | Access::EXEC_OK).is_err();
        let uid = user.uid.as_raw();
        let say = |dir: &PathBuf| {
            let dir = dir.display();
            format!("the user {uid} may not write in {dir}: `chown {uid} {dir}`, or name another directory")
        };
        self.directories.iter().filter(closed).map(say).collect()
    }
}

/// Makes a directory for the user, or gives it to the user.
fn directory(path: &Path, user: &Identity) -> io::Result<()> {
    let is_new = !path.exists();
    if is_new {
        fs::create_dir_all(path)?;
    }
    let flags = (OFlags::DIRECTORY | OFlags::NOFOLLOW).bits().cast_signed();
    let dir = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(dir) => dir,
        // A link leads to a place that has its own rules.
        Err(_) if !is_new => return Ok(()),
        Err(error) => return Err(error),
    };
    if is_new {
        dir.set_permissions(fs::Permissions::from_mode(MODE))?;
        return give(&dir, user);
    }
    if dir.metadata()?.uid() != 0 || path.file_name().is_none_or(|name| name != OWN) {
        return Ok(());
    }
    for entry in fs::read_dir(path)? {
        give_file(&entry?.path(), user)?;
    }
    give(&dir, user)
}

/// Makes the log file, and gives it to the user where root has it.
fn log_file(path: &Path, user: &Identity) -> io::Result<()> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    let made = OpenOptions::new().append(true).create_new(true).mode(0o640).custom_flags(flags).open(path);
    match made {
        Ok(file) => give(&file, user),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => give_file(path, user),
        Err(error) => Err(error),
    }
}

/// Gives the user a regular file of root that has this name and no other.
fn give_file(path: &Path, user: &Identity) -> io::Result<()> {
    let is_ours = |meta: &fs::Metadata| meta.is_file() && meta.uid() == 0 && meta.nlink() == 1;
    if !fs::symlink_metadata(path).is_ok_and(|meta| is_ours(&meta)) {
        return Ok(());
    }
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if is_ours(&file.metadata()?) { give(&file, user) } else { Ok(()) }
}

fn give(file: &File, user: &Identity) -> io::Result<()> {
    fchown(file, Some(user.uid.as_raw()), Some(user.gid.as_raw()))
}
