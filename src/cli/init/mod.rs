//! `portway init`: a first file, from a few answers or from flags.
//!
//! Owns the order of the questions, where the file goes, and what is said at the end. It sends
//! nothing and opens nothing. What it writes has passed the reader of portway, and no file is ever
//! overwritten.

mod ask;
mod file;
mod found;
mod presets;

use std::{
    ffi::OsString,
    io::{self, IsTerminal as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, builder::PossibleValuesParser, error::ErrorKind};
use file::{Answers, Who};
use found::Found;
use presets::Preset;

use super::{FAILED, answer, fresh, refusal, say, variables::Variables};
use crate::{
    config::{self, DEFAULT_FILE, HostView as _, System},
    mapping::{MappingName, publish::Publish},
};

/// The answers that are given beforehand.
#[derive(Debug, Args)]
pub(super) struct Init {
    /// What to expose [env: PORTWAY_INIT_PRESET]
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(presets::ALL.iter().map(|p| p.word)))]
    preset: Option<String>,
    /// Where it runs: an address or a name; with a port where it is not the usual one
    /// [env: PORTWAY_INIT_TARGET]
    #[arg(long, value_name = "HOST[:PORT]")]
    target: Option<String>,
    /// With `--preset other`: the port, as in 8080 or 5000-5010/udp [env: PORTWAY_INIT_PORT]
    #[arg(long, value_name = "PORT[/PROTOCOL]")]
    port: Option<String>,
    /// The name of the mapping [env: PORTWAY_INIT_NAME] [default: that of the preset]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Who may come: everyone, home, or addresses and networks, which are added to those at home;
    /// separated by commas, may be repeated [env: PORTWAY_INIT_ALLOW] [default: everyone; home for
    /// what attackers look for]
    #[arg(long, value_name = "CLIENT", value_delimiter = ',')]
    allow: Vec<String>,
    /// Open the port on the home router [env: PORTWAY_ROUTER]
    #[arg(long)]
    router: bool,
    /// The file to write, which must not exist [env: PORTWAY_INIT_OUTPUT] [default:
    /// /etc/portway/portway.toml if it can be made, or portway.toml here]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Why the file was not written.
enum Stopped {
    /// An argument is wrong, or is missing.
    Usage(Box<clap::Error>),
    /// The input ended.
    NoAnswer,
}

fn usage(message: &str, cure: Option<&str>) -> Stopped {
    Stopped::Usage(Box::new(refusal(ErrorKind::InvalidValue, message, cure)))
}

impl Init {
    /// The arguments with their variables.
    ///
    /// # Errors
    /// A variable with a value that it cannot have.
    pub(super) fn resolve<F: Fn(&str) -> Option<OsString>>(
        self,
        variables: &Variables<F>,
    ) -> Result<Self, clap::Error> {
        let words: Vec<&str> = presets::ALL.iter().map(|preset| preset.word).collect();
        let preset = variables.word("PORTWAY_INIT_PRESET", &words, presets::named)?;
        let allow = match variables.text("PORTWAY_INIT_ALLOW")? {
            Some(clients) if self.allow.is_empty() => clients.split(',').map(str::to_owned).collect(),
            _ => self.allow,
        };
        let output = variables.value("PORTWAY_INIT_OUTPUT").map(PathBuf::from);
        Ok(Self {
            preset: self.preset.or(preset.map(|preset| preset.word.to_owned())),
            target: self.target.or(variables.text("PORTWAY_INIT_TARGET")?),
            port: self.port.or(variables.text("PORTWAY_INIT_PORT")?),
            name: self.name.or(variables.text("PORTWAY_INIT_NAME")?),
            allow,
            router: self.router | variables.switch("PORTWAY_ROUTER")?,
            output: self.output.or(output),
        })
    }

    /// Asks what is missing, writes the file, and says what comes next.
    pub(super) fn run(&self) -> ExitCode {
        match self.answers() {
            Ok(answers) => self.write(&answers),
            Err(Stopped::Usage(error)) => answer(&error),
            Err(Stopped::NoAnswer) => {
                say("portway: no answer: nothing was written");
                ExitCode::from(FAILED)
            }
        }
    }

    fn answers(&self) -> Result<Answers, Stopped> {
        let asks = io::stdin().is_terminal() && (self.preset.is_none() || self.target.is_none());
        if !asks && (self.preset.is_none() || self.target.is_none()) {
            let message = "standard input is not a terminal: name what to expose, and where it runs";
            let cure = "as in portway init --preset minecraft --target 10.0.0.20";
            return Err(Stopped::Usage(Box::new(refusal(
                ErrorKind::MissingRequiredArgument,
                message,
                Some(cure),
            ))));
        }
        let given = self.preset.as_deref().and_then(presets::named);
        let preset: &'static Preset = given.or_else(ask::preset).ok_or(Stopped::NoAnswer)?;
        let ports = match &self.port {
            Some(text) => {
                Some(port(text).map_err(|cure| usage(&format!("--port {text} is not a port"), Some(&cure)))?)
            }
            None if preset.ports.is_empty() && asks => Some(ask::port().ok_or(Stopped::NoAnswer)?),
            None if preset.ports.is_empty() => {
                return Err(usage(
                    "--preset other needs a port",
                    Some("as in --port 8080 or --port 5000/udp"),
                ));
            }
            None => None,
        };
        let (host, own_port) = self.target(preset)?;
        let protocol = ports.as_ref().map_or_else(|| "tcp".to_owned(), |(_, protocol)| protocol.clone());
        let name = self.name.clone().unwrap_or_else(|| preset.word.to_owned());
        if let Err(error) = MappingName::new(&name) {
            return Err(usage(&format!("--name {name} is not a name"), Some(&error.to_string())));
        }
        let port = own_port.or(ports.map(|(port, _)| port));
        let who = if preset.is_delicate { Who::Home } else { Who::Everyone };
        let mut answers = Answers { preset, name, host, port, protocol, who, router: self.router };
        if !self.allow.is_empty() {
            answers.who = self.who()?;
        } else if asks {
            answers.who = ask::who(preset).ok_or(Stopped::NoAnswer)?;
        }
        if asks && !self.router {
            answers.router = ask::router(&answers).ok_or(Stopped::NoAnswer)?;
        }
        Ok(answers)
    }

    /// Where it runs.
    fn target(&self, preset: &Preset) -> Result<(String, Option<String>), Stopped> {
        let Some(text) = &self.target else {
            return ask::host(preset, &Found::look()).map(|host| (host, None)).ok_or(Stopped::NoAnswer);
        };
        let refused = |cure: String| usage(&format!("--target {text} is not a host"), Some(&cure));
        let is_v6 = text.matches(':').count() > 1 && !text.starts_with('[');
        match text.rsplit_once(':').filter(|(_, port)| !is_v6 && !port.ends_with(']')) {
            Some((name, own)) => {
                let (own, _) = port(own).map_err(refused)?;
                Ok((host(name).map_err(refused)?, Some(own)))
            }
            None => Ok((host(text).map_err(refused)?, None)),
        }
    }

    fn who(&self) -> Result<Who, Stopped> {
        match &*self.allow {
            [word] if word == "everyone" => Ok(Who::Everyone),
            [word] if word == "home" => Ok(Who::Home),
            all => {
                let clients = ask::clients(all.iter().map(|client| client.trim()));
                clients.map(Who::These).map_err(|error| {
                    usage(&format!("--allow: {error}"), Some("use everyone, home, or addresses and networks"))
                })
            }
        }
    }

    fn write(&self, answers: &Answers) -> ExitCode {
        let text = format!("{}{}", fresh::schema_lines(), answers.file());
        let path = self.output.clone().unwrap_or_else(default_file);
        if let Err(problems) = config::load_text(&path, text.clone(), &System) {
            let problem = problems.iter().next().map(config::Problem::one_line).unwrap_or_default();
            say(&format!("portway: these answers make no good file: {problem}"));
            return ExitCode::from(FAILED);
        }
        if let Err(error) = fresh::write(&path, &text) {
            say(&format!("portway: {error}"));
            return ExitCode::from(FAILED);
        }
        super::printed(&next(&path, answers), ExitCode::SUCCESS)
    }
}

/// What comes next.
fn next(path: &Path, answers: &Answers) -> String {
    let file = path.display();
    let option = if path == Path::new(DEFAULT_FILE) { String::new() } else { format!(" -c {file}") };
    let mut text = format!("{file} is written. Next:\n\n");
    text += &format!("  portway check{option}    what it does, and what to be careful with\n");
    text += &format!("  portway run{option}      run it; Ctrl-C ends it\n");
    if answers.router {
        text += "  portway router    while it runs: whether the router opened the port, and its address\n";
    }
    text += "  portway doctor    while it runs: whether clients from outside reach it, and what helps\n";
    text
}

/// Where the file goes by default.
fn default_file() -> PathBuf {
    let default = Path::new(DEFAULT_FILE);
    let directory = default.parent().unwrap_or(Path::new("/"));
    let may_write = rustix::fs::access(directory, rustix::fs::Access::WRITE_OK).is_ok();
    let is_free = default.try_exists().is_ok_and(|exists| !exists);
    if may_write && is_free { default.to_owned() } else { PathBuf::from("portway.toml") }
}

/// A port or a range, and the protocol behind it.
fn port(text: &str) -> Result<(String, String), String> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let spec = format!("{ports}:127.0.0.1:{ports}/{protocol}");
    let services = |name: &str, protocol| System.service(name, protocol);
    match Publish::parse(&spec, &services) {
        Ok(spec) => Ok((spec.listen.ports.to_string(), spec.protocols.to_string())),
        Err(error) => Err(error.to_string()),
    }
}

/// A host: an address or a name.
fn host(text: &str) -> Result<String, String> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    let host = if bare.contains(':') { format!("[{bare}]") } else { bare.to_owned() };
    let services = |name: &str, protocol| System.service(name, protocol);
    match Publish::parse(&format!("80:{host}:80"), &services) {
        Ok(_) => Ok(host),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests;
