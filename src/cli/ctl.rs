//! The commands that talk to a running daemon: a file a family.
//!
//! Owns where the daemon is (`--socket`), the form of the outcome (`--json`), and the exit code: 0
//! done, 1 it failed, 2 what was asked is wrong. A command makes one request or a few, and gives
//! its [`Outcome`]. Only [`events`] prints while it runs.
//!
//! Text of the daemon came from strangers in part: a client names itself, a router has a model. So
//! each such text is escaped where it is put into an outcome.

mod bans;
mod dump;
pub(super) mod events;
mod grants;
mod health;
pub(super) mod human;
mod log_level;
mod mappings;
mod reload;
pub(super) mod router;
mod sessions;
pub(super) mod status;
mod upgrade;

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand, error::ErrorKind};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{FAILED, answer, printed, refusal, say, table::Terminal, variables::Variables};
use crate::{
    api::client::{Answer, Ask, Client, ClientError},
    config, help,
    status::view::Problem,
    text::{escaped_json, escaped_lines},
};

const WRONG_USAGE: u8 = 2;
/// The status of HTTP for a request that is wrong itself.
const BAD_REQUEST: u16 = 400;

/// The commands.
#[derive(Debug, Subcommand)]
pub(super) enum Ctl {
    /// Show what runs; with a NAME, everything about that mapping
    Status(Told<status::Status>),
    /// List live sessions and flows
    Sessions(Told<sessions::Sessions>),
    /// Show what happened; with -f, what happens
    Events(Told<events::Events>),
    /// Print everything for a report of a fault as JSON, with placeholders for addresses
    Dump(Told<dump::Dump>),
    /// End live sessions
    Close(Told<sessions::Close>),
    /// Apply the changed configuration, and wait for the outcome
    Reload(Told<reload::Reload>),
    /// Hand over to the program that is installed now, without dropping a session
    Upgrade(Told<upgrade::Upgrade>),
    /// Keep a client out of every mapping, and end its sessions
    Ban(Told<bans::Ban>),
    /// End a ban
    Unban(Told<bans::Unban>),
    /// List the clients that are banned
    Bans(Told<bans::Bans>),
    /// End the grant of a client that knocked; its sessions go on
    Revoke(Told<grants::Revoke>),
    /// Show the home router, and what is open on it
    Router(Told<router::Router>),
    /// Exit with 0 if every listener listens, otherwise with 1 and the reason
    Health(Told<health::Health>),
    /// Make a mapping while the daemon runs; it stays after a restart
    Add(Told<mappings::Add>),
    /// Remove a mapping that was made by `add`
    Remove(Told<mappings::Remove>),
    /// Close the listeners of a mapping; its sessions go on
    Pause(Told<mappings::Pause>),
    /// Open the listeners of a paused mapping
    Resume(Told<mappings::Resume>),
    /// Change the level of the log, until the next reload
    LogLevel(Told<log_level::LogLevel>),
}

/// A command, its socket and its form of output.
#[derive(Debug, Args)]
pub(super) struct Told<C: Args> {
    #[command(flatten)]
    command: C,
    /// The unix socket of the daemon [env: PORTWAY_SOCKET] [default: portway.sock in
    /// $RUNTIME_DIRECTORY, $XDG_RUNTIME_DIR or /run/portway]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Print JSON, as the API gives it [env: PORTWAY_JSON]
    #[arg(long)]
    json: bool,
}

impl Ctl {
    /// Runs the command to its end.
    pub(super) fn run<F: Fn(&str) -> Option<OsString>>(self, variables: &Variables<F>) -> ExitCode {
        match self {
            Self::Status(told) => told.run(variables, status::status),
            Self::Sessions(told) => told.run(variables, sessions::sessions),
            Self::Events(told) => told.run(variables, events::events),
            Self::Dump(told) => told.run(variables, dump::dump),
            Self::Close(told) => told.run(variables, sessions::close),
            Self::Reload(told) => told.run(variables, reload::reload),
            Self::Upgrade(told) => told.run(variables, upgrade::upgrade),
            Self::Ban(told) => told.run(variables, bans::ban),
            Self::Unban(told) => told.run(variables, bans::unban),
            Self::Bans(told) => told.run(variables, bans::bans),
            Self::Revoke(told) => told.run(variables, grants::revoke),
            Self::Router(told) => told.run(variables, router::router),
            Self::Health(told) => told.run(variables, health::health),
            Self::Add(told) => told.run(variables, mappings::add),
            Self::Remove(told) => told.run(variables, mappings::remove),
            Self::Pause(told) => told.run(variables, mappings::pause),
            Self::Resume(told) => told.run(variables, mappings::resume),
            Self::LogLevel(told) => told.run(variables, log_level::log_level),
        }
    }
}

impl<C: Args> Told<C> {
    fn run<F, R>(self, variables: &Variables<F>, command: R) -> ExitCode
    where
        F: Fn(&str) -> Option<OsString>,
        R: AsyncFnOnce(C, &Daemon) -> Result<Outcome, Failed>,
    {
        let daemon = match Daemon::of(self.socket, self.json, variables) {
            Ok(daemon) => daemon,
            Err(error) => return answer(&error),
        };
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                say(&format!("portway: start: {error}"));
                return ExitCode::from(FAILED);
            }
        };
        match runtime.block_on(command(self.command, &daemon)) {
            Ok(Outcome { text, .. }) if text.is_empty() => ExitCode::SUCCESS,
            Ok(Outcome { text, code }) => printed(&text, ExitCode::from(code)),
            Err(failed) => failed.shown(daemon.json),
        }
    }
}

/// The daemon that is talked to, and how the outcome is shown.
#[derive(Debug)]
struct Daemon {
    client: Client,
    json: bool,
    terminal: Terminal,
}

impl Daemon {
    fn of<F: Fn(&str) -> Option<OsString>>(
        socket: Option<PathBuf>,
        json: bool,
        variables: &Variables<F>,
    ) -> Result<Self, clap::Error> {
        let json = json | variables.switch("PORTWAY_JSON")?;
        let client = client(socket, variables)?;
        Ok(Self { client, json, terminal: Terminal::of_stdout() })
    }

    /// Asks, and shows the value of the answer, or its JSON.
    async fn show<T: DeserializeOwned>(
        &self,
        ask: &Ask,
        shown: impl FnOnce(&T) -> String,
    ) -> Result<Outcome, Failed> {
        let answer = self.client.ask(ask).await?;
        self.shown(&answer, shown)
    }

    /// Shows the value of an answer, or its JSON.
    fn shown<T: DeserializeOwned>(
        &self,
        answer: &Answer,
        shown: impl FnOnce(&T) -> String,
    ) -> Result<Outcome, Failed> {
        let value = answer.read()?;
        Ok(Outcome::done(if self.json { pretty(&answer.json) } else { shown(&value) }))
    }
}

/// The daemon at this socket, at the one that `PORTWAY_SOCKET` names, or at a usual place.
pub(super) fn client<F: Fn(&str) -> Option<OsString>>(
    socket: Option<PathBuf>,
    variables: &Variables<F>,
) -> Result<Client, clap::Error> {
    let said = match socket {
        Some(socket) => Some(socket),
        None => variables.value("PORTWAY_SOCKET").map(PathBuf::from),
    };
    let sockets = match said {
        Some(path) if path == *config::OFF || path.as_os_str().is_empty() => {
            let message = format!("the socket is `{}`: there is no daemon to talk to", path.display());
            let help = Some("name the socket of a daemon with `--socket PATH`");
            return Err(refusal(ErrorKind::InvalidValue, &message, help));
        }
        Some(path) => vec![path],
        None => config::sockets(|name| variables.value(name)),
    };
    Ok(Client::new(sockets))
}

/// JSON for a person and for a program, safe on a terminal.
fn pretty(json: &Value) -> String {
    escaped_json(&serde_json::to_string_pretty(json).expect("a JSON value has a text"))
}

/// What a command prints on standard output, and its exit code.
#[derive(Debug)]
struct Outcome {
    text: String,
    code: u8,
}

impl Outcome {
    fn done(text: String) -> Self {
        Self { text, code: 0 }
    }
}

/// Why a command failed.
#[derive(Debug)]
enum Failed {
    /// The daemon did not answer, or refused.
    Client(ClientError),
    /// Something else, with what helps.
    Other(String, Option<String>),
    /// Standard output takes nothing.
    Output(std::io::Error),
}

impl From<ClientError> for Failed {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

impl Failed {
    /// Prints it: for people on standard error, for programs on standard output.
    fn shown(self, json: bool) -> ExitCode {
        let (message, help, code) = match &self {
            Self::Output(error) => {
                return super::code_of(Err(error.kind().into()), ExitCode::SUCCESS);
            }
            Self::Other(message, help) => (message.clone(), help.clone(), FAILED),
            Self::Client(error) => {
                let is_usage = matches!(error, ClientError::Refused { status: BAD_REQUEST, .. });
                (error.to_string(), error.help(), if is_usage { WRONG_USAGE } else { FAILED })
            }
        };
        let code = ExitCode::from(code);
        let problems = match &self {
            Self::Client(ClientError::Refused { failure, .. }) => &*failure.problems,
            _ => &[],
        };
        if json {
            let value = match &self {
                Self::Client(ClientError::Refused { json, .. }) => json.clone(),
                _ => json!({ "error": message, "help": help }),
            };
            // One line, also behind those of `events`.
            return printed(&escaped_json(&value.to_string()), code);
        }
        // A single problem often says the same as the message.
        let says_the_same = |problem: &Problem| message.contains(&problem.message);
        let text = match problems {
            [one] if says_the_same(one) => help::below(&message, one.help.as_deref().or(help.as_deref()), 2),
            _ => {
                let blocks = problems.iter().map(|problem| format!("\n\n{}", explained(problem)));
                help::below(&message, help.as_deref(), 2) + &blocks.collect::<String>()
            }
        };
        say(&escaped_lines(&format!("portway: {text}")));
        code
    }
}

/// The place and the message of a problem, as `check` has them.
fn summary(problem: &Problem) -> String {
    let Problem { file, line, column, message, .. } = problem;
    let place = match (file, line, column) {
        (Some(file), Some(line), Some(column)) => format!("{file}:{line}:{column}: "),
        (Some(file), Some(line), None) => format!("{file}:{line}: "),
        (Some(file), ..) => format!("{file}: "),
        _ => String::new(),
    };
    format!("{place}{message}")
}

/// A problem for a person; no line break at the end.
fn explained(problem: &Problem) -> String {
    help::below(&summary(problem), problem.help.as_deref(), 2)
}

/// Warnings for a person, each a paragraph.
fn warned(warnings: &[Problem]) -> String {
    let warned = |warning| format!("\nwarning: {}\n", explained(warning));
    escaped_lines(&warnings.iter().map(warned).collect::<String>())
}
