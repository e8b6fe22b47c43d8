//! Man pages and completions, from the description of the command line itself.
//!
//! Pure but for `--all`, which writes the pages of a package. A page has what the help texts have;
//! the page of the program itself adds what belongs to no option: files, signals, exit codes.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Command, error::ErrorKind};
use clap_complete::Shell;
use clap_mangen::{
    Man,
    roff::{Inline, Roff, bold, italic, roman},
};

use super::{FAILED, answer, printed, refusal, say};
use crate::{config, version};

/// Pages of programs for administrators.
const SECTION: &str = "8";
const PROGRAM: &str = "portway";

/// The page that is wanted.
#[derive(Debug, Args)]
pub(super) struct Page {
    /// The command that the page is about; without one, the program
    #[arg(value_name = "COMMAND", conflicts_with = "all")]
    command: Option<String>,
    /// Write every page into this directory, as a package has them
    #[arg(long, value_name = "DIR")]
    all: Option<PathBuf>,
}

/// The shell that is to complete.
#[derive(Debug, Args)]
pub(super) struct Completions {
    /// The shell
    shell: Shell,
}

impl Page {
    /// Prints the page, or writes all of them.
    pub(super) fn run(&self, command: Command) -> ExitCode {
        let command = whole(command);
        if let Some(dir) = &self.all {
            return match write_all(&command, dir) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    say(&format!("portway: write the pages to {}: {error}", dir.display()));
                    ExitCode::from(FAILED)
                }
            };
        }
        let Some(name) = self.command.as_deref().filter(|name| *name != PROGRAM) else {
            return printed(&page(&command), ExitCode::SUCCESS);
        };
        let Some(found) = command.get_subcommands().find(|command| command.get_name() == name) else {
            let message = format!("no page is about {name:?}");
            return answer(&refusal(
                ErrorKind::InvalidValue,
                &message,
                Some("`portway help` lists the commands"),
            ));
        };
        printed(&page(found), ExitCode::SUCCESS)
    }
}

impl Completions {
    /// Prints what the shell has to load.
    pub(super) fn run(&self, mut command: Command) -> ExitCode {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, PROGRAM, &mut script);
        printed(&String::from_utf8_lossy(&script), ExitCode::SUCCESS)
    }
}

/// The whole command line, with the full name of every command in it.
fn whole(command: Command) -> Command {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    command
}

fn write_all(command: &Command, dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    for command in std::iter::once(command).chain(command.get_subcommands()) {
        let name = command.get_display_name().unwrap_or_else(|| command.get_name());
        fs::write(dir.join(format!("{name}.{SECTION}")), page(command))?;
    }
    Ok(())
}

/// The page about a command.
fn page(command: &Command) -> String {
    let man = Man::new(command.clone())
        .section(SECTION)
        .source(format!("{PROGRAM} {}", version::VERSION))
        .manual("System administration");
    let mut page = Vec::new();
    // A list of bytes takes everything.
    let _ = man.render(&mut page);
    let mut page = String::from_utf8_lossy(&page).into_owned();
    page.push_str(&more(command.get_name() == PROGRAM));
    page
}

/// What no option says.
fn more(is_program: bool) -> String {
    let mut roff = Roff::new();
    if is_program {
        files(&mut roff);
        environment(&mut roff);
        signals(&mut roff);
    }
    roff.control("SH", ["EXIT STATUS"]);
    for (code, meaning) in [
        ("0", "It is done."),
        ("1", "It failed; standard error says why."),
        ("2", "The arguments are wrong."),
        ("78", "The configuration is wrong. A service manager should not try again."),
    ] {
        entry(&mut roff, bold(code), meaning);
    }
    if is_program {
        examples(&mut roff);
    }
    roff.control("SH", ["SEE ALSO"]);
    let first = if is_program { [bold("systemctl"), roman("(1)")] } else { [bold(PROGRAM), roman("(8)")] };
    roff.text([&first[..], &[roman(", /usr/share/doc/portway/README.md")]].concat());
    // Only the body: the page before it has set up the rest.
    roff.to_roff()
}

fn entry(roff: &mut Roff, name: Inline, meaning: &str) {
    roff.control("TP", []).text([name]).text([roman(meaning)]);
}

fn files(roff: &mut Roff) {
    roff.control("SH", ["FILES"]);
    for (file, meaning) in [
        (
            config::DEFAULT_FILE,
            "The configuration. The one that comes with portway names every key, and opens nothing.",
        ),
        ("/run/portway/portway.sock", "The socket by which the commands reach the daemon."),
        (
            "/var/lib/portway",
            "What outlives a restart: bans, openings on the router, mappings made by `add`.",
        ),
    ] {
        entry(roff, italic(file), meaning);
    }
}

fn environment(roff: &mut Roff) {
    roff.control("SH", ["ENVIRONMENT"]);
    roff.text([
        roman("Every option of "),
        bold("run"),
        roman(" and "),
        bold("check"),
        roman(" has a variable, named at the option. An option goes before its variable. "),
    ]);
    for (name, meaning) in [
        ("PORTWAY_SOCKET", "The socket of the daemon, for every command."),
        ("PORTWAY_JSON", "Commands print JSON."),
        ("NO_COLOR", "No colours, also on a terminal."),
        ("RUNTIME_DIRECTORY, XDG_RUNTIME_DIR", "Where the socket is, in place of /run/portway."),
        ("STATE_DIRECTORY", "Where the state is, in place of /var/lib/portway."),
    ] {
        entry(roff, bold(name), meaning);
    }
}

fn signals(roff: &mut Roff) {
    roff.control("SH", ["SIGNALS"]);
    for (name, meaning) in [
        ("SIGHUP", "Apply the changed configuration. If it is wrong, the old one stays in force."),
        (
            "SIGTERM, SIGINT",
            "Stop: no new sessions, and the grace of [shutdown] for the live ones. A second one: at once.",
        ),
        ("SIGUSR1", "Open the log files again."),
        ("SIGQUIT", "Write a dump for a report of a fault into the state directory."),
        ("SIGUSR2", "Hand over to the program that is installed now."),
    ] {
        entry(roff, bold(name), meaning);
    }
}

fn examples(roff: &mut Roff) {
    roff.control("SH", ["EXAMPLES"]);
    for (line, meaning) in [
        ("portway -p 8080:80", "Forward port 8080 to port 80 of this machine."),
        ("portway check", "Show what the configuration would do, or all that is wrong with it."),
        ("portway man status | man -l -", "Read the page about a command."),
    ] {
        entry(roff, bold(line), meaning);
    }
}
