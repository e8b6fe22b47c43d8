//! The front door: the command line, and what each command answers.
//!
//! Exit codes: 0 done, 1 it failed, 2 wrong usage, 78 the configuration is wrong (`EX_CONFIG` of sysexits.h, by which
//! the systemd unit knows not to try again).

pub mod check;
mod demo;
mod usage;

use std::{
    ffi::OsString,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    time::SystemTime,
};

use clap::{
    Args, CommandFactory, Parser, Subcommand,
    builder::FalseyValueParser,
    error::{ContextKind, ContextValue, ErrorKind},
};

use crate::{
    config::{self, HostView, Loaded, Problems, Source, SpecsFrom, System},
    daemon::{self, StartError},
};

const FAILED: u8 = 1;
const BAD_CONFIG: u8 = 78;

/// Forwards ports: TCP and UDP, from a listen address to a target.
#[derive(Debug, Parser)]
#[command(name = "portway", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon in the foreground (also without the word: `portway -p 8080:80`)
    Run(RunArgs),
    /// Read the configuration and print the plan; binds nothing, changes nothing
    Check(CheckArgs),
    /// Run a complete example on loopback, with nothing set up
    Demo,
}

#[derive(Debug, Args)]
struct RunArgs {
    #[command(flatten)]
    plan: PlanArgs,
    /// Reload when a file of the configuration changes
    #[arg(long, env = "PORTWAY_WATCH", value_parser = FalseyValueParser::new(), action = clap::ArgAction::SetTrue)]
    watch: bool,
    /// Fail at the start where any listener cannot be opened, in place of waiting for its port or address
    #[arg(long, env = "PORTWAY_STRICT", value_parser = FalseyValueParser::new(), action = clap::ArgAction::SetTrue)]
    strict: bool,
}

#[derive(Debug, Args)]
struct CheckArgs {
    #[command(flatten)]
    plan: PlanArgs,
    /// Print JSON
    #[arg(long, env = "PORTWAY_JSON", value_parser = FalseyValueParser::new(), action = clap::ArgAction::SetTrue)]
    json: bool,
}

#[derive(Debug, Args)]
struct PlanArgs {
    /// The configuration file [env: PORTWAY_CONFIG] [default: /etc/portway/portway.toml, unless -p is given]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A mapping, [LISTEN_IP:]LISTEN_PORT:[TARGET_HOST:]TARGET_PORT[/PROTOCOL]; may be repeated
    /// [env: PORTWAY_PUBLISH, specs separated by commas or new lines]
    #[arg(short, long, value_name = "SPEC")]
    publish: Vec<String>,
    /// Open every listener on the home router whose mapping does not say `router = false`
    #[arg(long, env = "PORTWAY_ROUTER", value_parser = FalseyValueParser::new(), action = clap::ArgAction::SetTrue)]
    router: bool,
}

impl PlanArgs {
    /// What the arguments and, in their place, the variables name. An empty variable, as `docker run -e
    /// PORTWAY_CONFIG=` makes one, is none; an empty argument is a mistake, so clap does not read these two variables.
    ///
    /// # Errors
    /// A list of specs that is no text.
    fn source(self, variable: impl Fn(&str) -> Option<OsString>) -> Result<Source, clap::Error> {
        let variable = |name| variable(name).filter(|value| !value.is_empty());
        let (mut publish, mut publish_from) = (self.publish, SpecsFrom::Arguments);
        if publish.is_empty()
            && let Some(specs) = variable(SpecsFrom::VARIABLE)
        {
            publish = split_specs(specs.to_str().ok_or_else(not_text)?);
            publish_from = SpecsFrom::Variable;
        }
        let file = self.config.or_else(|| variable("PORTWAY_CONFIG").map(PathBuf::from));
        let file = file.or_else(|| publish.is_empty().then(|| PathBuf::from(config::DEFAULT_FILE)));
        Ok(Source { file, publish, publish_from, router: self.router })
    }

    /// The same with the variables of this process; wrong usage ends it.
    fn source_of_process(self) -> Source {
        self.source(|name| std::env::var_os(name)).unwrap_or_else(|error| error.exit())
    }
}

fn not_text() -> clap::Error {
    let message = format!("{} is not UTF-8 text", SpecsFrom::VARIABLE);
    Cli::command().error(ErrorKind::InvalidUtf8, message)
}

fn split_specs(text: &str) -> Vec<String> {
    text.split([',', '\n']).map(str::trim).filter(|spec| !spec.is_empty()).map(str::to_owned).collect()
}

/// Commands of the interface that this version does not have, with what does in their place.
const ABSENT: [(&str, Option<&str>); 13] = [
    ("status", None),
    ("sessions", None),
    ("events", Some("the log says what happens")),
    ("top", None),
    ("close", None),
    ("reload", Some("send the process SIGHUP, as `systemctl reload portway` does, or run it with --watch")),
    ("ban", Some("put the address into `deny`, or into a list file that `deny` names")),
    ("unban", Some("put the address into `exempt` of [guard], and reload")),
    ("bans", Some("the file `state` of [guard] has them")),
    ("router", Some("the log says what is open on the router")),
    ("doctor", Some("`portway check` finds what is wrong with a configuration")),
    ("completions", None),
    ("man", Some("`portway help`, and config/portway.toml with every key")),
];

/// Says what was meant: a command that is only unknown to this version, a mapping without `-p`, a file without `-c`.
fn explained(error: clap::Error) -> clap::Error {
    if let Some(meant) = meant(&error) {
        let words = error.to_string();
        let first = words.lines().next().unwrap_or_default();
        let message = format!("{}\n\n  tip: write {meant}", first.trim_start_matches("error: "));
        return Cli::command().error(error.kind(), message);
    }
    let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidSubcommand) else { return error };
    let Some((command, instead)) = ABSENT.iter().find(|(command, _)| command == word) else { return error };
    let instead = instead.map(|instead| format!("; instead: {instead}")).unwrap_or_default();
    let message = format!("`{command}` is not in this version{instead}");
    Cli::command().error(ErrorKind::InvalidSubcommand, message)
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
    match cli.command.unwrap_or(Command::Run(cli.run)) {
        Command::Run(args) => run(args),
        Command::Check(args) => check(args),
        Command::Demo => demo::run(),
    }
}

fn run(args: RunArgs) -> ExitCode {
    let source = args.plan.source_of_process();
    let options = daemon::Options { watch: args.watch.then(SystemTime::now), strict: args.strict };
    let read = source.clone();
    start(source, move || config::load(&read, &System), options)
}

fn start<L>(source: Source, load: L, options: daemon::Options) -> ExitCode
where
    L: FnOnce() -> Result<Loaded, Problems> + Send + 'static,
{
    match daemon::run(source, load, options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(StartError::Config(problems)) => refuse(&problems),
        Err(error) => {
            if !error.is_told() {
                say(&format!("portway: {error}"));
            }
            ExitCode::from(FAILED)
        }
    }
}

fn check(args: CheckArgs) -> ExitCode {
    let result = config::load(&args.plan.source_of_process(), &System);
    if args.json {
        let code = if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(BAD_CONFIG) };
        return printed(&check::json(&result), code);
    }
    match result {
        Ok(loaded) => printed(&check::table(&loaded), ExitCode::SUCCESS),
        Err(problems) => refuse(&problems),
    }
}

fn refuse(problems: &Problems) -> ExitCode {
    say(&problems.to_string());
    ExitCode::from(BAD_CONFIG)
}

/// Writes to standard output: `code`, or that of a failure where the text did not arrive (a full disk).
fn printed(text: &str, code: ExitCode) -> ExitCode {
    code_of(print(text), code)
}

fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", text.trim_end())?;
    out.flush()
}

/// `code`, unless standard output took nothing. A reader that has gone (`portway check | head -1`) is no failure.
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
    code_of(error.print().and_then(|()| io::stdout().flush()), ExitCode::from(code))
}

/// Writes to standard error, for a person.
fn say(text: &str) {
    // There is no other place to say that this fails, and the exit code says the rest.
    let _ = writeln!(io::stderr(), "{}", text.trim_end());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(config: Option<&str>, publish: &[&str], variables: &[(&str, &str)]) -> Source {
        let publish = publish.iter().map(|spec| (*spec).to_owned()).collect();
        let args = PlanArgs { config: config.map(PathBuf::from), publish, router: false };
        let value = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| value.into());
        args.source(value).unwrap()
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn specs_in_a_variable_stand_between_commas_or_new_lines() {
        assert_eq!(split_specs("8080:80, 53:53/udp\n\n9000:90,"), ["8080:80", "53:53/udp", "9000:90"]);
    }

    #[test]
    fn a_spec_alone_reads_no_default_file() {
        assert_eq!(source(None, &["8080:80"], &[]).file, None);
        assert_eq!(source(None, &[], &[("PORTWAY_PUBLISH", "8080:80")]).file, None);
        assert_eq!(source(None, &[], &[]).file, Some(config::DEFAULT_FILE.into()));
    }

    #[test]
    fn an_argument_goes_before_its_variable_and_an_empty_variable_is_none() {
        let both = [("PORTWAY_CONFIG", "b.toml"), ("PORTWAY_PUBLISH", "9:90")];
        let said = source(Some("a.toml"), &["8:80"], &both);
        assert_eq!((said.file, said.publish_from), (Some("a.toml".into()), SpecsFrom::Arguments));
        assert_eq!(said.publish, ["8:80"]);
        let unsaid = source(None, &[], &both);
        assert_eq!((unsaid.file, unsaid.publish_from), (Some("b.toml".into()), SpecsFrom::Variable));
        assert_eq!(unsaid.publish, ["9:90"]);
        let empty = [("PORTWAY_CONFIG", ""), ("PORTWAY_PUBLISH", "")];
        assert_eq!(source(None, &["8:80"], &empty).file, None);
        assert_eq!(source(None, &[], &empty).file, Some(config::DEFAULT_FILE.into()));
    }
}
