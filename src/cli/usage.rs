//! Wrong usage: what was meant by arguments that the command line cannot take.
//!
//! Pure. Invariant: a command is offered only after the parser of the command line took it.

use std::path::Path;

use crate::{
    mapping::publish::{Publish, Services, meant},
    text,
};

/// A longer command is not a slip.
const MOST: usize = 40;
/// Options that other programs have for `--config`.
const OTHER_CONFIG: [&str; 5] = ["-f", "--file", "-C", "--conf", "--config-file"];
/// Options that take the next argument.
const WITH_VALUE: [&str; 8] =
    ["-c", "--config", "-p", "--publish", "--base-dir", "--log-level", "--log-format", "--log-target"];

/// The command that was meant by `args` (without the program), if `takes` takes it.
pub(super) fn command_meant(
    args: &[String],
    commands: &[&str],
    services: Services<'_>,
    takes: impl Fn(&[String]) -> bool,
) -> Option<String> {
    if args.len() > MOST || !args.iter().flat_map(|arg| arg.chars()).all(text::is_plain) {
        return None;
    }
    let mut meant = Vec::with_capacity(args.len() + 4);
    let mut is_value = false;
    let mut has_command = false;
    for arg in args {
        let option = OTHER_CONFIG.contains(&&**arg).then_some("-c");
        if is_value || arg.starts_with('-') {
            meant.push(option.unwrap_or(arg).to_owned());
        } else if !has_command && commands.contains(&&**arg) {
            has_command = true;
            meant.push(arg.clone());
        } else if let Some(specs) = specs(arg, services) {
            meant.extend(specs.into_iter().flat_map(|spec| ["-p".to_owned(), spec]));
        } else if has_command || is_file(arg) {
            meant.extend(["-c".to_owned(), arg.clone()]);
        } else {
            return None;
        }
        is_value = !is_value && meant.last().is_some_and(|last| WITH_VALUE.contains(&&**last));
    }
    let is_other = meant != args && takes(&meant);
    is_other.then(|| {
        meant.iter().map(|arg| quoted(arg)).fold("portway".to_owned(), |line, arg| line + " " + &arg)
    })
}

/// The specs that a word is, or was meant to be.
fn specs(word: &str, services: Services<'_>) -> Option<Vec<String>> {
    if Publish::parse(word, services).is_ok() {
        return Some(vec![word.to_owned()]);
    }
    let starts_as_one = word.starts_with(|c: char| c.is_ascii_digit() || c == '[');
    if starts_as_one { meant::publish(word, services).into_iter().next() } else { None }
}

fn is_file(word: &str) -> bool {
    word.contains('/') || Path::new(word).extension().is_some_and(|extension| extension == "toml")
}

/// An argument as a shell takes it.
fn quoted(arg: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:,%+=@".contains(c);
    if !arg.is_empty() && arg.chars().all(is_plain) {
        arg.to_owned()
    } else {
        format!("'{}'", arg.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_was_meant_is_offered_when_it_is_taken() {
        let meant = |args: &[&str]| {
            let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
            command_meant(&args, &["run", "check"], &|_, _| None, |_| true)
        };
        for (args, command) in [
            (&["8080:80"][..], Some("portway -p 8080:80")),
            (&["run", "8080:80"], Some("portway run -p 8080:80")),
            (&["run", "-p", "8080:80", "9000:90"], Some("portway run -p 8080:80 -p 9000:90")),
            (&["check", "my file"], Some("portway check -c 'my file'")),
            (&["portway.toml"], Some("portway -c portway.toml")),
            (&["run", "-f", "x.toml"], Some("portway run -c x.toml")),
            (&["10.0.0.20:25565"], Some("portway -p 25565:10.0.0.20:25565")),
            (&["strat"], None),
            (&["run", "-p", "8080:80"], None),
            (&["check", "a\nb"], None),
            (&["check", "a\u{202e}b"], None),
        ] {
            assert_eq!(meant(args).as_deref(), command, "{args:?}");
        }
    }
}
