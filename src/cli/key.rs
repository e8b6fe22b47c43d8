//! `portway key`: makes the keys of knocks.
//!
//! Owns which files there are, with which rights, and what is printed. No file is ever written
//! over. The server's own key is made beside the first key of a client.

use std::{
    fmt::Write as _,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Subcommand};
use qrcode::{EcLevel, QrCode, render::unicode::Dense1x2};

use super::{FAILED, help, printed, say, table::Terminal};
use crate::{
    knock::keys::{self, ClientKey, SERVER_KEY},
    text::escaped_lines,
};

/// Keys.
#[derive(Debug, Args)]
pub(super) struct Key {
    #[command(subcommand)]
    command: KeyCommand,
}

/// What to do with keys.
#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Make a key for a person or a device, and the server's own key if there is none
    New(New),
}

/// A new key.
#[derive(Debug, Args)]
struct New {
    /// Whose it is: letters, digits, `.`, `_` and `-`
    name: String,
    /// Show the client's half as a QR code, too
    #[arg(long)]
    qr: bool,
    /// The directory of the keys
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    output: PathBuf,
}

/// Why a key was not made.
#[derive(Debug, thiserror::Error)]
enum NewError {
    #[error("the key cannot be named `{0}`: {1}")]
    Name(String, keys::KeyError),
    #[error("{} is there already; nothing was written over", .0.display())]
    There(PathBuf),
    #[error("write {path}: {1}", path = .0.display())]
    Write(PathBuf, io::Error),
    #[error("read {path}: {1}", path = .0.display())]
    Server(PathBuf, String),
    #[error("the system gives no random numbers: {0}")]
    Random(io::Error),
}

impl NewError {
    fn cure(&self) -> Option<&'static str> {
        match self {
            Self::There(_) => Some("choose another name, or move the old key away"),
            Self::Write(_, error) if error.kind() == io::ErrorKind::NotFound => {
                Some("make the directory first")
            }
            Self::Write(..) => Some("use `sudo`, or name a directory of your own with `-o`"),
            Self::Server(..) => Some("use `sudo`; all keys of a directory are for one server"),
            _ => None,
        }
    }
}

impl Key {
    /// Runs the command.
    pub(super) fn run(&self) -> ExitCode {
        let KeyCommand::New(new) = &self.command;
        match new.make() {
            Ok(text) => printed(&text, ExitCode::SUCCESS),
            Err(error) => {
                say(&escaped_lines(&format!(
                    "portway: {}",
                    help::below(&error.to_string(), error.cure(), 2)
                )));
                ExitCode::from(FAILED)
            }
        }
    }
}

impl New {
    /// Writes the files; what is printed.
    fn make(&self) -> Result<String, NewError> {
        let dir = std::path::absolute(&self.output).unwrap_or_else(|_| self.output.clone());
        if !keys::is_name(&self.name) || format!("{}.key", self.name) == SERVER_KEY {
            return Err(NewError::Name(self.name.clone(), keys::KeyError::Name));
        }
        let (key_file, public_file) =
            (dir.join(format!("{}.key", self.name)), dir.join(format!("{}.pub", self.name)));
        if let Some(there) =
            [&key_file, &public_file].into_iter().find(|path| path.symlink_metadata().is_ok())
        {
            return Err(NewError::There(there.clone()));
        }
        let (server, is_new) = server(&dir)?;
        let key = ClientKey::new(&self.name, random()?, keys::server_public(&server))
            .map_err(|error| NewError::Name(self.name.clone(), error))?;
        write(&key_file, &key.line(), 0o600)?;
        write(&public_file, &key.public_line(), 0o644).inspect_err(|_| {
            // Half a key is none.
            let _ = fs::remove_file(&key_file);
        })?;
        Ok(self.told(&key, &dir, is_new))
    }

    fn told(&self, key: &ClientKey, dir: &Path, is_new: bool) -> String {
        let (dir, name) = (dir.display(), &self.name);
        let mut text = String::new();
        // A string takes everything, here and below.
        if is_new {
            let _ = writeln!(text, "made {dir}/{SERVER_KEY}, the server's own key: it stays here");
        }
        let _ = writeln!(text, "made {dir}/{name}.pub, for the server. In its configuration:\n");
        let _ = writeln!(text, "    [knock]\n    listen = \"62201\"");
        let _ = writeln!(text, "    keys = [{{ name = \"{name}\", key_file = \"{dir}/{name}.pub\" }}]\n");
        let _ = writeln!(text, "made {dir}/{name}.key, for the client, and secret. There:\n");
        let _ = writeln!(text, "    portway knock HOST --key {name}.key\n");
        let _ = writeln!(text, "The same as a line:\n\n{}", key.line());
        if self.qr {
            let _ = write!(text, "\n{}", picture(&key.line(), Terminal::of_stdout().colour));
        }
        text
    }
}

/// The server's key in this directory, made where there is none; and whether it was made.
fn server(dir: &Path) -> Result<([u8; 32], bool), NewError> {
    let path = dir.join(SERVER_KEY);
    match fs::read_to_string(&path) {
        Ok(text) => keys::parse_server(&text)
            .map(|secret| (secret, false))
            .map_err(|error| NewError::Server(path, error.to_string())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let secret = random()?;
            let file = write(&path, &keys::server_line(&secret), 0o600)?;
            share_with_group(&file, dir);
            Ok((secret, true))
        }
        Err(error) => Err(NewError::Server(path, error.to_string())),
    }
}

/// Lets the group of the directory read the server's key, where that is not the group of root: the
/// service runs as a user of its own.
fn share_with_group(file: &File, dir: &Path) {
    let Ok(metadata) = fs::metadata(dir) else { return };
    if rustix::process::geteuid().is_root()
        && metadata.gid() != 0
        && fchown(file, None, Some(metadata.gid())).is_ok()
    {
        // What cannot be shared stays with its owner.
        let _ = file.set_permissions(fs::Permissions::from_mode(0o640));
    }
}

/// Writes a new file.
fn write(path: &Path, line: &str, mode: u32) -> Result<File, NewError> {
    let mut options = OpenOptions::new();
    let opened = options.write(true).create_new(true).mode(mode).open(path);
    let written = opened.and_then(|mut file| {
        file.write_all(format!("{line}\n").as_bytes())?;
        file.sync_all()?;
        Ok(file)
    });
    written.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => NewError::There(path.to_owned()),
        _ => NewError::Write(path.to_owned(), error),
    })
}

/// Numbers that no one can guess.
fn random() -> Result<[u8; 32], NewError> {
    super::random().map_err(NewError::Random)
}

/// A QR code. With colour it is black on white. Without, it suits a dark terminal, as most are.
fn picture(line: &str, has_colour: bool) -> String {
    let Ok(code) = QrCode::with_error_correction_level(line, EcLevel::L) else { return String::new() };
    let mut renderer = code.render::<Dense1x2>();
    renderer.quiet_zone(true);
    if !has_colour {
        return renderer.dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build() + "\n";
    }
    let drawn = renderer.build();
    drawn.lines().map(|line| format!("\u{1b}[30;107m{line}\u{1b}[0m\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_has_a_quiet_zone_and_fits_a_terminal_of_eighty_columns() {
        let line = ClientKey::new("anna", [1; 32], [2; 32]).unwrap().line();
        let plain = picture(&line, false);
        let width = plain.lines().map(|line| line.chars().count()).max().unwrap();
        assert!(width < 80, "{width}");
        let rows: Vec<_> = plain.lines().collect();
        assert!(
            rows[..2].iter().all(|row| row.chars().all(|c| c == '█')),
            "light, as a dark terminal shows it"
        );
        assert!(picture(&line, true).lines().all(|row| row.starts_with("\u{1b}[30;107m")));
    }
}
