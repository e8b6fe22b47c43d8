//! The arguments of the command line, and the variables that stand in for them.
//!
//! Owns the flags of `run` and `check`, and the rule for their variables: an argument goes before
//! the variable, and an empty argument is a mistake. So clap reads no variable here.

#![allow(rustdoc::broken_intra_doc_links, reason = "a help text shows `[optional]` parts in brackets")]

use std::{ffi::OsString, path::PathBuf};

use clap::{
    Args, Parser, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
    error::ErrorKind,
};

#[cfg(feature = "api")]
use super::ctl::Ctl;
#[cfg(feature = "import")]
use super::import::Import;
#[cfg(feature = "man")]
use super::man::{Completions, Page};
#[cfg(feature = "top")]
use super::top::Top;
use super::{init::Init, refusal, variables::Variables};
#[cfg(feature = "knock")]
use super::{key::Key, knock::Knock};
#[cfg(feature = "api")]
use crate::{config::NodeUrl, text::escaped};
use crate::{
    config::{
        self, Containers, LogFormat, LogLevel, LogOverride, LogTarget, RunAs, Sandbox, Source, SpecsFrom,
        environment,
    },
    version,
};

/// Forwards ports: TCP and UDP, from a listen address to a target.
#[derive(Debug, Parser)]
#[command(name = "portway", version = version::LINE, args_conflicts_with_subcommands = true)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Option<Command>,
    #[command(flatten)]
    pub(super) run: RunArgs,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the daemon in the foreground (also without the word: `portway -p 8080:80`)
    Run(RunArgs),
    /// Read the configuration and print the plan; binds nothing, changes nothing
    Check(CheckArgs),
    /// Run a complete example on loopback, with nothing set up
    Demo,
    /// Make a first file from a few questions, or from flags
    Init(Init),
    /// Print the JSON schema of the configuration file, for editors
    Schema,
    /// Turn another tool's configuration into a file of portway, on standard output
    #[cfg(feature = "import")]
    Import(Import),
    /// Ask a server to be let in, by one datagram that no one can repeat
    #[cfg(feature = "knock")]
    Knock(Knock),
    /// Make the keys of knocks
    #[cfg(feature = "knock")]
    Key(Key),
    /// Find the hop where a mapping cannot be reached from the internet, and what helps
    #[cfg(feature = "api")]
    Doctor(DoctorArgs),
    #[cfg(feature = "api")]
    #[command(flatten)]
    Ctl(Ctl),
    /// Watch what runs, on the whole terminal
    #[cfg(feature = "top")]
    Top(Top),
    /// Print the man page about portway or about a command, for `man -l -`
    #[cfg(feature = "man")]
    Man(Page),
    /// Print the completions for a shell
    #[cfg(feature = "man")]
    Completions(Completions),
}

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    plan: PlanArgs,
    /// Reload when a file of the configuration changes [env: PORTWAY_WATCH]
    #[arg(long)]
    watch: bool,
    /// Fail at the start where any listener cannot be opened, in place of waiting for its port or
    /// address [env: PORTWAY_STRICT]
    #[arg(long)]
    strict: bool,
    /// Started as root: go on as this user, USER[:GROUP] by names or numbers, with the right
    /// to open ports below 1024 and no other [env: PORTWAY_USER]
    #[arg(long, value_name = "USER", value_parser = user)]
    user: Option<RunAs>,
    /// Whether portway gives up the files and system calls that it does not need, in place of
    /// [daemon] sandbox [env: PORTWAY_SANDBOX]
    #[arg(long, value_name = "WHEN", value_parser = sandbox_parser(), ignore_case = true)]
    sandbox: Option<Sandbox>,
}

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    plan: PlanArgs,
    /// Print JSON [env: PORTWAY_JSON]
    #[arg(long)]
    json: bool,
    /// Exit with 78 if there is a warning [env: PORTWAY_STRICT]
    #[arg(long)]
    strict: bool,
    /// Where relative paths of the main file begin [env: PORTWAY_BASE_DIR] [default: the directory
    /// of the file]
    #[arg(long, value_name = "DIR")]
    base_dir: Option<PathBuf>,
}

#[cfg(feature = "api")]
#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// The mapping; all of them without it
    name: Option<String>,
    /// Another portway that tries the ports from outside: https://HOST, http://HOST:PORT or
    /// unix:/PATH, in place of [probe] from [env: PORTWAY_FROM]
    #[arg(long, value_name = "URL")]
    from: Option<String>,
    /// The file with the token of that portway, in place of [probe] token_file
    /// [env: PORTWAY_TOKEN_FILE]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    plan: PlanArgs,
    /// Print JSON [env: PORTWAY_JSON]
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct PlanArgs {
    /// The configuration file; for `check`, - is standard input
    /// [env: PORTWAY_CONFIG] [default: /etc/portway/portway.toml, unless -p is given]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A mapping, [LISTEN_IP:]LISTEN_PORT:[TARGET_HOST:]TARGET_PORT[/PROTOCOL]; may be repeated
    /// [env: PORTWAY_PUBLISH, specs separated by commas or new lines]
    #[arg(short, long, value_name = "SPEC")]
    publish: Vec<String>,
    /// Open every listener on the home router whose mapping does not say `router = false` [env:
    /// PORTWAY_ROUTER]
    #[arg(long)]
    router: bool,
    /// The unix socket of the API, in place of [api] socket; off is none [env: PORTWAY_SOCKET]
    /// [default: portway.sock in $RUNTIME_DIRECTORY, $XDG_RUNTIME_DIR or /run/portway]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// The least important log line that is written, in place of [log] level [env:
    /// PORTWAY_LOG_LEVEL]
    #[arg(long, value_name = "LEVEL", value_parser = level_parser(), ignore_case = true)]
    log_level: Option<LogLevel>,
    /// The form of a log line, in place of [log] format [env: PORTWAY_LOG_FORMAT]
    #[arg(long, value_name = "FORMAT", value_parser = format_parser(), ignore_case = true)]
    log_format: Option<LogFormat>,
    /// Where log lines go, in place of [log] target: stderr, journald, syslog,
    /// syslog:udp://HOST:PORT, syslog:tcp://HOST:PORT or file:/PATH [env: PORTWAY_LOG_TARGET]
    #[arg(long, value_name = "TARGET", value_parser = log_target)]
    log_target: Option<LogTarget>,
}

fn log_target(text: &str) -> Result<LogTarget, String> {
    LogTarget::parse(text).map_err(|refusal| format!("{refusal}; {}", refusal.hint))
}

fn user(text: &str) -> Result<RunAs, String> {
    RunAs::parse(text).map_err(|refusal| format!("{refusal}; {}", refusal.hint))
}

fn level_parser() -> impl TypedValueParser<Value = LogLevel> {
    PossibleValuesParser::new(LogLevel::ALL.map(LogLevel::as_str))
        .map(|word| LogLevel::named(&word).unwrap_or_default())
}

fn format_parser() -> impl TypedValueParser<Value = LogFormat> {
    PossibleValuesParser::new(LogFormat::ALL.map(LogFormat::as_str))
        .map(|word| LogFormat::named(&word).unwrap_or_default())
}

fn sandbox_parser() -> impl TypedValueParser<Value = Sandbox> {
    PossibleValuesParser::new(Sandbox::ALL.map(Sandbox::as_str))
        .map(|word| Sandbox::named(&word).unwrap_or(Sandbox::Auto))
}

/// What `run` does.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) source: Source,
    pub(super) watch: bool,
    pub(super) strict: bool,
}

/// What `check` does.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Check {
    pub(super) source: Source,
    pub(super) json: bool,
    pub(super) strict: bool,
}

impl RunArgs {
    /// The arguments with their variables.
    ///
    /// # Errors
    /// A variable with a value that it cannot have, and standard input as the file.
    pub(super) fn resolve<F: Fn(&str) -> Option<OsString>>(
        self,
        variables: &Variables<F>,
    ) -> Result<Run, clap::Error> {
        let watch = self.watch | variables.switch("PORTWAY_WATCH")?;
        let strict = self.strict | variables.switch("PORTWAY_STRICT")?;
        let user = self.user.map_or_else(|| variables.user("PORTWAY_USER"), |user| Ok(Some(user)))?;
        let sandbox =
            variables.word("PORTWAY_SANDBOX", &Sandbox::ALL.map(Sandbox::as_str), Sandbox::named)?;
        let sandbox = self.sandbox.or(sandbox);
        let source = Source { user, sandbox, ..self.plan.source(variables)? };
        if source.file.as_deref() == Some(config::STDIN.as_ref()) {
            let message = "the configuration of `run` cannot be `-`";
            return Err(refusal(ErrorKind::InvalidValue, message, Some("name a file, or /dev/stdin")));
        }
        Ok(Run { source, watch, strict })
    }
}

impl CheckArgs {
    /// The arguments with their variables.
    ///
    /// # Errors
    /// A variable with a value that it cannot have.
    pub(super) fn resolve<F: Fn(&str) -> Option<OsString>>(
        self,
        variables: &Variables<F>,
    ) -> Result<Check, clap::Error> {
        let (json, strict) = (
            self.json | variables.switch("PORTWAY_JSON")?,
            self.strict | variables.switch("PORTWAY_STRICT")?,
        );
        let base = self.base_dir.or_else(|| variables.value("PORTWAY_BASE_DIR").map(PathBuf::from));
        Ok(Check { source: Source { base, ..self.plan.source(variables)? }, json, strict })
    }
}

/// What `doctor` does.
#[cfg(feature = "api")]
#[derive(Debug)]
pub(super) struct Doctor {
    pub(super) name: Option<String>,
    pub(super) source: Source,
    /// What tries the ports from outside.
    pub(super) from: Option<NodeUrl>,
    /// The file with its token.
    pub(super) token_file: Option<PathBuf>,
    /// The file or the specs are named, in place of the default file.
    pub(super) is_named: bool,
    pub(super) json: bool,
}

#[cfg(feature = "api")]
impl DoctorArgs {
    /// The arguments with their variables.
    ///
    /// # Errors
    /// A variable with a value that it cannot have.
    pub(super) fn resolve<F: Fn(&str) -> Option<OsString>>(
        self,
        variables: &Variables<F>,
    ) -> Result<Doctor, clap::Error> {
        let json = self.json | variables.switch("PORTWAY_JSON")?;
        let source = self.plan.source(variables)?;
        let is_named = source.file.as_deref() != Some(config::DEFAULT_FILE.as_ref());
        let from = self.from.map_or_else(|| variables.text("PORTWAY_FROM"), |from| Ok(Some(from)))?;
        let from = from.map(|from| node(&from)).transpose()?;
        let token_file = self.token_file.or_else(|| variables.value("PORTWAY_TOKEN_FILE").map(PathBuf::from));
        Ok(Doctor { name: self.name, source, from, token_file, is_named, json })
    }
}

#[cfg(feature = "api")]
fn node(text: &str) -> Result<NodeUrl, clap::Error> {
    NodeUrl::parse(text).map_err(|why| {
        let message = format!("{} cannot be asked: {why}", escaped(text));
        refusal(ErrorKind::InvalidValue, &message, Some(&format!("write it {}", config::NODE_FORMS)))
    })
}

impl PlanArgs {
    fn source<F: Fn(&str) -> Option<OsString>>(
        self,
        variables: &Variables<F>,
    ) -> Result<Source, clap::Error> {
        // Also those that another command reads: `check` finds what `run` would refuse.
        for name in environment::SWITCHES {
            variables.switch(name)?;
        }
        let (mut publish, mut publish_from) = (self.publish, SpecsFrom::Arguments);
        if publish.is_empty()
            && let Some(specs) = variables.text(SpecsFrom::VARIABLE)?
        {
            publish = split_specs(&specs);
            publish_from = SpecsFrom::Variable;
        }
        let file = self.config.or_else(|| variables.value("PORTWAY_CONFIG").map(PathBuf::from));
        let default = || Some(PathBuf::from(config::DEFAULT_FILE));
        let (file, passed_over) = match file {
            Some(file) => (Some(file), None),
            None if publish.is_empty() => (default(), None),
            None => (None, default()),
        };
        let level =
            variables.word("PORTWAY_LOG_LEVEL", &LogLevel::ALL.map(LogLevel::as_str), LogLevel::named)?;
        let format =
            variables.word("PORTWAY_LOG_FORMAT", &LogFormat::ALL.map(LogFormat::as_str), LogFormat::named)?;
        let target = variables.log_target("PORTWAY_LOG_TARGET")?;
        let log = LogOverride {
            level: self.log_level.or(level),
            format: self.log_format.or(format),
            target: self.log_target.or(target),
        };
        Ok(Source {
            file,
            base: None,
            passed_over,
            publish,
            publish_from,
            router: self.router | variables.switch("PORTWAY_ROUTER")?,
            log,
            socket: self.socket.or_else(|| variables.value("PORTWAY_SOCKET").map(PathBuf::from)),
            user: None,
            sandbox: None,
            strays: variables.strays.clone(),
            containers: Containers::default(),
        })
    }
}

fn split_specs(text: &str) -> Vec<String> {
    text.split([',', '\n']).map(str::trim).filter(|spec| !spec.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn variables(values: &[(&str, &str)]) -> Variables<impl Fn(&str) -> Option<OsString>> {
        Variables {
            value: |name: &str| values.iter().find(|(n, _)| *n == name).map(|(_, value)| value.into()),
            strays: Vec::new(),
        }
    }

    fn resolved(args: &[&str], values: &[(&str, &str)]) -> Result<Check, clap::Error> {
        let cli = Cli::try_parse_from([&["portway", "check"], args].concat()).unwrap();
        let Some(Command::Check(check)) = cli.command else { panic!("it is check") };
        check.resolve(&variables(values))
    }

    fn source(args: &[&str], values: &[(&str, &str)]) -> Source {
        resolved(args, values).unwrap().source
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_has_a_variable_that_is_known_and_named_in_its_help() {
        for command in ["run", "check"] {
            let cli = Cli::command();
            let command = cli.find_subcommand(command).expect("it exists");
            for arg in
                command.get_arguments().filter(|arg| !["help", "version"].contains(&arg.get_id().as_str()))
            {
                let long = arg.get_long().expect("every argument has a long name");
                let name = format!("PORTWAY_{}", long.to_ascii_uppercase().replace('-', "_"));
                let mut known = environment::SWITCHES.iter().chain(&environment::VALUES);
                assert!(known.any(|known| *known == name), "{name} is missing");
                let help = arg.get_help().expect("every argument has a help text").to_string();
                assert!(help.contains(&format!("[env: {name}")), "--{long}: {help}");
            }
        }
    }

    #[test]
    fn every_flag_of_a_command_that_writes_a_file_has_a_variable_that_is_known_and_named_in_its_help() {
        let mut named = 0;
        for command in ["init", "import"] {
            let cli = Cli::command();
            // `import` can be left out of a build.
            let Some(found) = cli.find_subcommand(command) else { continue };
            for arg in found.get_arguments() {
                let Some(long) = arg.get_long().filter(|long| *long != "help") else { continue };
                let name = match long {
                    "router" => "PORTWAY_ROUTER".to_owned(),
                    _ => format!("PORTWAY_{command}_{long}").to_ascii_uppercase(),
                };
                let mut known = environment::SWITCHES.iter().chain(&environment::OF_WRITERS);
                assert!(known.any(|known| *known == name), "{name} is missing");
                let help = arg.get_help().expect("every argument has a help text").to_string();
                assert!(help.contains(&format!("[env: {name}")), "--{long}: {help}");
                named += 1;
            }
        }
        assert!(named >= 7, "{named}");
    }

    #[test]
    fn specs_in_a_variable_stand_between_commas_or_new_lines() {
        assert_eq!(split_specs("8080:80, 53:53/udp\n\n9000:90,"), ["8080:80", "53:53/udp", "9000:90"]);
    }

    #[test]
    fn a_spec_alone_reads_no_default_file() {
        let default = Some(config::DEFAULT_FILE.into());
        for source in [source(&["-p", "8080:80"], &[]), source(&[], &[("PORTWAY_PUBLISH", "8080:80")])] {
            assert_eq!((&source.file, &source.passed_over), (&None, &default));
        }
        let source = source(&[], &[]);
        assert_eq!((source.file, source.passed_over), (default, None));
    }

    #[test]
    fn an_argument_goes_before_its_variable_and_an_empty_variable_is_none() {
        let both = [("PORTWAY_CONFIG", "b.toml"), ("PORTWAY_PUBLISH", "9:90"), ("PORTWAY_LOG_LEVEL", "warn")];
        let said = source(&["-c", "a.toml", "-p", "8:80", "--log-level", "debug"], &both);
        assert_eq!((said.file, said.publish_from), (Some("a.toml".into()), SpecsFrom::Arguments));
        assert_eq!((said.publish, said.log.level), (vec!["8:80".into()], Some(LogLevel::Debug)));
        assert_eq!(said.passed_over, None);
        let unsaid = source(&[], &both);
        assert_eq!((unsaid.file, unsaid.publish_from), (Some("b.toml".into()), SpecsFrom::Variable));
        assert_eq!((unsaid.publish, unsaid.log.level), (vec!["9:90".into()], Some(LogLevel::Warn)));
        let empty = [
            ("PORTWAY_CONFIG", ""),
            ("PORTWAY_PUBLISH", ""),
            ("PORTWAY_ROUTER", ""),
            ("PORTWAY_LOG_LEVEL", ""),
        ];
        assert_eq!(source(&["-p", "8:80"], &empty).file, None);
        let none = source(&[], &empty);
        assert_eq!(
            (none.file, none.router, none.log),
            (Some(config::DEFAULT_FILE.into()), false, LogOverride::default())
        );
    }

    #[test]
    fn a_value_that_a_variable_cannot_have_is_refused_and_shown_escaped() {
        for (name, value, shown) in [
            ("PORTWAY_ROUTER", "disabled", "PORTWAY_ROUTER is \"disabled\""),
            ("PORTWAY_WATCH", "true\r", "PORTWAY_WATCH is \"true\\r\""),
            ("PORTWAY_JSON", "\"true\"", "PORTWAY_JSON is \"\\\"true\\\"\""),
            ("PORTWAY_LOG_LEVEL", "loud", "PORTWAY_LOG_LEVEL is \"loud\""),
            ("PORTWAY_LOG_FORMAT", "xml", "PORTWAY_LOG_FORMAT is \"xml\""),
            ("PORTWAY_LOG_TARGET", "file:x", "PORTWAY_LOG_TARGET is \"file:x\""),
        ] {
            let error = resolved(&[], &[(name, value)]).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(shown), "{error}");
        }
    }
}
