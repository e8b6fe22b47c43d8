//! The command line, and what each command prints.
//!
//! Exit codes: 0 done, 1 it failed, 2 wrong usage, 78 the configuration is wrong (`EX_CONFIG` of
//! sysexits.h, by which the systemd unit knows not to try again).

mod args;
pub mod check;
#[cfg(feature = "api")]
mod ctl;
mod demo;
#[cfg(feature = "api")]
mod doctor;
mod fresh;
#[cfg(feature = "import")]
mod import;
mod init;
#[cfg(feature = "knock")]
mod key;
#[cfg(feature = "knock")]
mod knock;
#[cfg(feature = "man")]
mod man;
mod table;
#[cfg(feature = "top")]
mod top;
mod usage;
mod variables;

use std::{
    io::{self, Write},
    path::Path,
    process::ExitCode,
    sync::Arc,
    time::SystemTime,
};

use args::{Check, Cli, Command, Run};
use clap::{
    CommandFactory, Parser,
    error::{ContextKind, ContextValue, ErrorKind},
};
use table::Terminal;
use variables::Variables;

use crate::{
    config::{self, HostView, Problem, Problems, System},
    daemon::{self, StartError},
    help,
    supervisor::PlanSource,
    text::{escaped, escaped_lines, is_plain},
};

const FAILED: u8 = 1;
const BAD_CONFIG: u8 = 78;

/// Commands that talk to a running daemon, in a program that was built without them.
#[cfg(not(feature = "api"))]
const OF_API: [&str; 19] = [
    "doctor",
    "status",
    "sessions",
    "events",
    "dump",
    "close",
    "reload",
    "upgrade",
    "ban",
    "unban",
    "bans",
    "revoke",
    "router",
    "health",
    "add",
    "remove",
    "pause",
    "resume",
    "log-level",
];
#[cfg(feature = "api")]
const OF_API: [&str; 0] = [];

/// The live view, in a program that was built without it.
const OF_TOP: &[&str] = if cfg!(feature = "top") { &[] } else { &["top"] };

/// The pages and completions, in a program that was built without them.
const OF_MAN: &[&str] = if cfg!(feature = "man") { &[] } else { &["man", "completions"] };

/// The readers of other tools, in a program that was built without them.
const OF_IMPORT: &[&str] = if cfg!(feature = "import") { &[] } else { &["import"] };

/// Knocks and their keys, in a program that was built without them.
const OF_KNOCK: &[&str] = if cfg!(feature = "knock") { &[] } else { &["knock", "key"] };

/// Says what was meant: a command that this program was built without, a mapping without `-p`, a
/// file without `-c`.
fn explained(error: clap::Error) -> clap::Error {
    if let Some(meant) = meant(&error) {
        let words = error.to_string();
        let first = words.lines().next().unwrap_or_default();
        return refusal(error.kind(), first.trim_start_matches("error: "), Some(&format!("write {meant}")));
    }
    let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidSubcommand) else { return error };
    if OF_API.contains(&&**word) {
        let message = format!("`{word}` needs the API, and this portway was built without it");
        return refusal(ErrorKind::InvalidSubcommand, &message, Some("build it with `--features api`"));
    }
    for (commands, feature) in [(OF_TOP, "top"), (OF_MAN, "man"), (OF_IMPORT, "import"), (OF_KNOCK, "knock")]
    {
        if commands.contains(&&**word) {
            let message = format!("this portway was built without `{word}`");
            let cure = format!("build it with `--features {feature}`");
            return refusal(ErrorKind::InvalidSubcommand, &message, Some(&cure));
        }
    }
    error
}

/// An error of the command line, with what would help.
fn refusal(kind: ErrorKind, message: &str, help: Option<&str>) -> clap::Error {
    Cli::command().error(kind, help::below(message, help, 2))
}

/// The command that was meant by the arguments of the process.
fn meant(error: &clap::Error) -> Option<String> {
    if !matches!(error.kind(), ErrorKind::UnknownArgument | ErrorKind::InvalidSubcommand) {
        return None;
    }
    let args: Vec<String> =
        std::env::args_os().skip(1).map(|arg| arg.into_string().ok()).collect::<Option<_>>()?;
    let command = Cli::command();
    let commands: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
    let services = |name: &str, protocol| System.service(name, protocol);
    let takes = |args: &[String]| {
        let program = std::iter::once("portway".to_owned());
        Cli::try_parse_from(program.chain(args.iter().cloned())).is_ok()
    };
    usage::command_meant(&args, &commands, &services, takes)
}

/// Runs the program with the arguments of the process.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return answer(&explained(error)),
    };
    let variables = Variables::of_process();
    match cli.command.unwrap_or(Command::Run(cli.run)) {
        Command::Run(args) => args.resolve(&variables).map_or_else(|error| answer(&error), run),
        Command::Check(args) => {
            args.resolve(&variables).map_or_else(|error| answer(&error), |args| check(&args))
        }
        Command::Demo => demo::run(),
        Command::Init(args) => {
            args.resolve(&variables).map_or_else(|error| answer(&error), |init| init.run())
        }
        Command::Schema => printed(&schema(), ExitCode::SUCCESS),
        #[cfg(feature = "import")]
        Command::Import(args) => {
            args.resolve(&variables).map_or_else(|error| answer(&error), |import| import.run())
        }
        #[cfg(feature = "knock")]
        Command::Knock(knock) => knock.run(),
        #[cfg(feature = "knock")]
        Command::Key(key) => key.run(),
        #[cfg(feature = "api")]
        Command::Doctor(args) => args
            .resolve(&variables)
            .map_or_else(|error| answer(&error), |args| doctor::run(&args, &variables)),
        #[cfg(feature = "man")]
        Command::Man(page) => page.run(Cli::command()),
        #[cfg(feature = "man")]
        Command::Completions(completions) => completions.run(Cli::command()),
        #[cfg(feature = "top")]
        Command::Top(top) => top.run(&variables),
        #[cfg(feature = "api")]
        Command::Ctl(command) => command.run(&variables),
    }
}

fn run(args: Run) -> ExitCode {
    let names_a_user = args.source.may_name_a_user();
    let once_readable = args.source.file.as_deref().is_some_and(is_stream);
    let watch = args.watch.then(SystemTime::now);
    let source: PlanSource = Arc::new(move || config::load(&args.source, &System));
    // Before there is a thread, and before what was passed by number is taken.
    if names_a_user && let Err(error) = daemon::give_up_root(&source) {
        return failed(&error.into());
    }
    let (source, confined) = match daemon::enter_sandbox(source) {
        Ok(entered) => entered,
        Err(error) => return failed(&error.into()),
    };
    let options = daemon::Options { watch, strict: args.strict, once_readable, confined };
    // Before anything is opened.
    let given = daemon::Given::take();
    start(source, options, given)
}

/// Whether the file is one of this process alone: another one finds something else there.
fn is_stream(file: &Path) -> bool {
    ["/dev/stdin", "/dev/fd", "/proc/self/fd"].iter().any(|stream| file.starts_with(stream))
}

fn start(source: PlanSource, options: daemon::Options, given: daemon::Given) -> ExitCode {
    match daemon::run(source, options, given) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

/// Says why the daemon did not come up, or came down.
fn failed(error: &StartError) -> ExitCode {
    if let StartError::Config(problems) = error {
        return refuse(problems);
    }
    if !error.is_told() {
        say(&escaped_lines(&format!("portway: {error}")));
    }
    ExitCode::from(if error.is_of_config() { BAD_CONFIG } else { FAILED })
}

fn check(args: &Check) -> ExitCode {
    let result = config::load(&args.source, &System);
    let is_good = result.as_ref().is_ok_and(|loaded| !args.strict || loaded.warnings.is_empty());
    let code = if is_good { ExitCode::SUCCESS } else { ExitCode::from(BAD_CONFIG) };
    match &result {
        result if args.json => printed(&check::json(result), code),
        Ok(loaded) => printed(&check::table(loaded, Terminal::of_stdout()), code),
        Err(problems) => refuse(problems),
    }
}

/// The schema of the file, for editors.
fn schema() -> String {
    serde_json::to_string_pretty(&config::schema()).expect("a value of JSON is written without failure")
}

fn refuse(problems: &Problems) -> ExitCode {
    for warning in &problems.warnings {
        say(&warned(warning));
    }
    say(&problems.to_string());
    ExitCode::from(BAD_CONFIG)
}

/// Says that the runtime did not start.
#[cfg(feature = "api")]
fn failure_of_start(error: &io::Error) -> ExitCode {
    say(&format!("portway: start: {error}"));
    ExitCode::from(FAILED)
}

/// Writes to standard output: `code`, or that of a failure where the text did not arrive (a full
/// disk).
fn printed(text: &str, code: ExitCode) -> ExitCode {
    code_of(print(text), code)
}

fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", text.trim_end())?;
    out.flush()
}

/// `code`, unless standard output took nothing. A reader that has gone (`portway check | head -1`)
/// is not a failure.
fn code_of(written: io::Result<()>, code: ExitCode) -> ExitCode {
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            say(&format!("portway: write to standard output: {error}"));
            ExitCode::from(FAILED)
        }
        _ => code,
    }
}

/// Prints help, the version, or what is wrong with the arguments.
fn answer(error: &clap::Error) -> ExitCode {
    let code = u8::try_from(error.exit_code()).unwrap_or(FAILED);
    let odd = odd_input();
    if !odd.is_empty() {
        let text = odd.iter().fold(error.to_string(), |text, odd| text.replace(&**odd, &escaped(odd)));
        say(&escaped_lines(&text));
        return ExitCode::from(code);
    }
    code_of(error.print().and_then(|()| io::stdout().flush()), ExitCode::from(code))
}

/// The arguments and variables that hold what a terminal obeys: an error that repeats one shows it
/// escaped.
fn odd_input() -> Vec<String> {
    let variables = std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PORTWAY_"));
    let parts = variables.flat_map(|(name, value)| [name, value]).chain(std::env::args_os());
    let texts = parts.map(|part| part.to_string_lossy().into_owned());
    texts.filter(|text| !text.chars().all(is_plain)).collect()
}

/// A warning for a person; no line break at the end.
fn warned(warning: &Problem) -> String {
    format!("warning: {}", help::below(&warning.summary(), warning.help.as_deref(), 2))
}

/// Numbers that no one can guess.
#[cfg(feature = "knock")]
fn random() -> io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    // So few bytes come whole.
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(bytes)
}

/// Writes to standard error, for a person.
fn say(text: &str) {
    // One write: another process may write there, too, while it hands over to this one.
    let line = format!("{}\n", daemon::for_stderr(text.trim_end()));
    // This failure cannot be reported anywhere else. The exit code says it.
    let _ = io::stderr().write_all(line.as_bytes());
}
