//! The program that is installed now: where it is, and how it is started.
//!
//! That is the path by which this process was started, as long as that path led to the running
//! program at the start. So a link that leads to another version is followed. Otherwise it is the
//! path that the kernel knows, although another file has it by now.

use std::{
    ffi::{CString, OsStr, OsString},
    fs, io,
    os::{
        fd::OwnedFd,
        unix::{
            ffi::{OsStrExt as _, OsStringExt as _},
            fs::MetadataExt as _,
            process::CommandExt as _,
        },
    },
    path::{Path, PathBuf},
    process::Command,
};

/// What the kernel adds to the path of a file that was replaced.
const DELETED: &[u8] = b" (deleted)";
const SELF: &str = "/proc/self/exe";
/// Variables that are about one process, and not about the next.
const OF_ONE_PROCESS: [&str; 4] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID"];

/// The program and its arguments.
#[derive(Clone, Debug)]
pub(in crate::daemon) struct Program {
    path: Option<PathBuf>,
    args: Vec<OsString>,
    /// Its configuration comes from a stream that no other process has.
    is_once_readable: bool,
    /// What the next process hears of the sandbox that it has from this one.
    confined: Option<(&'static str, String)>,
}

impl Program {
    /// That of this process. Called at the start, while the files are those that run.
    pub(in crate::daemon) fn of_this_process(
        is_once_readable: bool,
        confined: Option<(&'static str, String)>,
    ) -> Self {
        let args: Vec<OsString> = std::env::args_os().collect();
        let named = args.first().map(Path::new).and_then(found).filter(|path| is_running(path));
        Self { path: named.or_else(known_to_the_kernel), args, is_once_readable, confined }
    }

    /// Its path.
    ///
    /// # Errors
    /// The path is not known.
    pub(super) fn path(&self) -> Result<&Path, String> {
        self.path.as_deref().ok_or_else(|| format!("the path of this program is not known; is {SELF} there?"))
    }

    /// The directories of the program: where it was named, and where links lead.
    #[cfg(feature = "sandbox")]
    pub(in crate::daemon) fn directories(&self) -> impl Iterator<Item = PathBuf> + use<> {
        let led = self.path.as_deref().and_then(|path| fs::canonicalize(path).ok());
        let all = [self.path.clone(), led, known_to_the_kernel()].into_iter().flatten();
        all.filter_map(|path| path.parent().map(Path::to_owned))
    }

    /// Why it cannot be started again at all.
    pub(super) fn refusal(&self) -> Option<&'static str> {
        self.is_once_readable.then_some(
            "the configuration came from a stream such as /dev/stdin, which a new process cannot read; start portway \
             with a file",
        )
    }

    /// The command that starts it with the same arguments, as a successor.
    ///
    /// # Errors
    /// The path is not known.
    pub(super) fn command(&self, how: &str) -> Result<Command, String> {
        let mut command = Command::new(self.path()?);
        if let Some((name, args)) = self.args.split_first() {
            command.arg0(name).args(args);
        }
        for name in OF_ONE_PROCESS {
            command.env_remove(name);
        }
        command.env(super::VARIABLE, how).envs(self.confined.clone());
        Ok(command)
    }
}

impl Program {
    /// Executes it in the place of this process, with this as its standard input. Returns only
    /// where that fails; then standard input is what it was.
    ///
    /// The signals that this thread blocks stay blocked, and wait for the program to take them. The
    /// standard library would let them through, and process 1 would lose them.
    pub(super) fn execute(&self, how: &str, stdin: &OwnedFd) -> io::Error {
        let words = || -> io::Result<_> {
            let path = text(self.path().map_err(io::Error::other)?.as_os_str())?;
            let args = self.args.iter().map(|arg| text(arg)).collect::<io::Result<Vec<_>>>()?;
            let is_for_it = |name: &OsString| {
                !OF_ONE_PROCESS.iter().any(|one| name == one) && name.as_os_str() != super::VARIABLE
            };
            let own = std::env::vars_os().filter(|(name, _)| is_for_it(name));
            let variables = own.chain([(super::VARIABLE.into(), how.into())]).map(|(mut name, value)| {
                name.push("=");
                name.push(value);
                text(&name)
            });
            Ok((path, args, variables.collect::<io::Result<Vec<_>>>()?))
        };
        let (path, args, variables) = match words() {
            Ok(words) => words,
            Err(error) => return error,
        };
        let before = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3);
        if let Err(error) = rustix::stdio::dup2_stdin(stdin) {
            return error.into();
        }
        let Err(error) = nix::unistd::execve(&path, &args, &variables);
        if let Ok(before) = before {
            let _ = rustix::stdio::dup2_stdin(before);
        }
        error.into()
    }
}

fn text(text: &OsStr) -> io::Result<CString> {
    CString::new(text.as_bytes()).map_err(io::Error::other)
}

/// The absolute path of a program that was started by this name.
fn found(name: &Path) -> Option<PathBuf> {
    if name.components().count() > 1 || name.is_absolute() {
        return std::path::absolute(name).ok();
    }
    let paths = std::env::var_os("PATH")?;
    let there = std::env::split_paths(&paths).map(|dir| dir.join(name)).find(|path| path.is_file())?;
    std::path::absolute(there).ok()
}

/// Whether this file is the running program.
fn is_running(path: &Path) -> bool {
    let identity = |path: &Path| fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
    identity(path).is_some_and(|file| identity(Path::new(SELF)) == Some(file))
}

fn known_to_the_kernel() -> Option<PathBuf> {
    let mut path = fs::read_link(SELF).ok()?.into_os_string().into_vec();
    if path.ends_with(DELETED) {
        path.truncate(path.len() - DELETED.len());
    }
    Some(OsString::from_vec(path).into())
}
