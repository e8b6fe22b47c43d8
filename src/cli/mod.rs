//! The front door: the command line, and what each command answers.
//!
//! Exit codes: 0 done, 1 it failed, 2 wrong usage, 78 the configuration is wrong (`EX_CONFIG` of sysexits.h, by which
//! the systemd unit knows not to try again).

pub mod check;
mod demo;

use std::{io::Write, path::PathBuf, process::ExitCode, time::SystemTime};

use clap::{Args, Parser, Subcommand, builder::FalseyValueParser};

use crate::{
    config::{self, Loaded, Problems, Source, System},
    daemon::{self, StartError},
};

/// Where the configuration is, when nothing else is said.
const DEFAULT_CONFIG: &str = "/etc/portway/portway.toml";
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
    /// The configuration file [default: /etc/portway/portway.toml, unless -p is given]
    #[arg(short, long, value_name = "FILE", env = "PORTWAY_CONFIG")]
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
    fn source(self) -> Source {
        let mut publish = self.publish;
        if publish.is_empty()
            && let Ok(specs) = std::env::var("PORTWAY_PUBLISH")
        {
            publish = split_specs(&specs);
        }
        // An empty variable, as `docker run -e PORTWAY_CONFIG=` makes one, is none.
        let file = self.config.filter(|file| !file.as_os_str().is_empty());
        let file = file.or_else(|| publish.is_empty().then(|| PathBuf::from(DEFAULT_CONFIG)));
        Source { file, publish, router: self.router }
    }
}

fn split_specs(text: &str) -> Vec<String> {
    text.split([',', '\n']).map(str::trim).filter(|spec| !spec.is_empty()).map(str::to_owned).collect()
}

/// Runs the program with the arguments of the process.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command.unwrap_or(Command::Run(cli.run)) {
        Command::Run(args) => run(args),
        Command::Check(args) => check(args),
        Command::Demo => demo::run(),
    }
}

fn run(args: RunArgs) -> ExitCode {
    let source = args.plan.source();
    let watch = args.watch.then(SystemTime::now);
    let read = source.clone();
    start(source, move || config::load(&read, &System), watch)
}

fn start<L>(source: Source, load: L, watch: Option<SystemTime>) -> ExitCode
where
    L: FnOnce() -> Result<Loaded, Problems> + Send + 'static,
{
    match daemon::run(source, load, watch) {
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
    let result = config::load(&args.plan.source(), &System);
    if args.json {
        print(&check::json(&result));
        return if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(BAD_CONFIG) };
    }
    match result {
        Ok(loaded) => {
            print(&check::table(&loaded));
            ExitCode::SUCCESS
        }
        Err(problems) => refuse(&problems),
    }
}

fn refuse(problems: &Problems) -> ExitCode {
    say(&problems.to_string());
    ExitCode::from(BAD_CONFIG)
}

/// Writes to standard output; a reader that has gone (`portway check | head -1`) is no failure.
fn print(text: &str) {
    let _ = writeln!(std::io::stdout(), "{}", text.trim_end());
}

/// Writes to standard error, for a person.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{}", text.trim_end());
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn specs_in_a_variable_stand_between_commas_or_new_lines() {
        assert_eq!(split_specs("8080:80, 53:53/udp\n\n9000:90,"), ["8080:80", "53:53/udp", "9000:90"]);
    }

    #[test]
    fn a_publish_flag_alone_reads_no_default_file() {
        let args = PlanArgs { config: None, publish: vec!["8080:80".into()], router: false };
        assert_eq!(args.source().file, None);
    }
}
