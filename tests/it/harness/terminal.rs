//! A real terminal with a shell in it: tmux with a server of its own, which ends with the test.

use std::process::{Command, Stdio};

use super::{Ran, eventually, portway_program};

/// The terminal. Its programs see nothing of the caller's environment that portway listens to.
#[derive(Debug)]
pub(crate) struct RealTerminal {
    dir: tempfile::TempDir,
}

impl RealTerminal {
    /// What it needs.
    pub(crate) const TOOLS: [&str; 3] = ["tmux", "sh", "stty"];

    /// Opens one of this size, in which `sh` waits for a line.
    #[track_caller]
    pub(crate) fn open(columns: u16, lines: u16) -> Self {
        let terminal = Self { dir: tempfile::tempdir().expect("a temporary directory") };
        let (columns, lines) = (columns.to_string(), lines.to_string());
        terminal
            .tmux(&["new-session", "-d", "-x", &columns, "-y", &lines, "env", "PS1=here> ", "sh"])
            .exits(0);
        terminal.wait_screen("here>");
        terminal
    }

    /// Starts `portway` with arguments, from its shell, with these variables. Afterwards the shell says `code=N`.
    #[track_caller]
    pub(crate) fn start_portway(&self, variables: &str, arguments: &str) {
        let pid = self.dir.path().join("pid");
        let program = portway_program();
        let inner = format!("echo $$ >{}; exec {} {arguments}", pid.display(), program.display());
        self.writes(&format!("clear; {variables} sh -c '{inner}'; echo code=$?"));
        self.key("Enter");
    }

    /// The process id of what [`RealTerminal::start_portway`] started.
    #[track_caller]
    pub(crate) fn portway_pid(&self) -> rustix::process::Pid {
        let pid = eventually("the shell has written a process id", || {
            std::fs::read_to_string(self.dir.path().join("pid")).ok()?.trim().parse().ok()
        });
        rustix::process::Pid::from_raw(pid).expect("a process id")
    }

    /// Types a text.
    #[track_caller]
    pub(crate) fn writes(&self, text: &str) {
        self.tmux(&["send-keys", "-l", text]).exits(0);
    }

    /// Presses a key by its name.
    #[track_caller]
    pub(crate) fn key(&self, name: &str) {
        self.tmux(&["send-keys", name]).exits(0);
    }

    /// Gives it another size.
    #[track_caller]
    pub(crate) fn resize(&self, columns: u16, lines: u16) {
        self.tmux(&["resize-window", "-x", &columns.to_string(), "-y", &lines.to_string()]).exits(0);
    }

    /// What it shows.
    #[track_caller]
    pub(crate) fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"]).exits(0).out
    }

    /// What it shows, with the sequences of its colours.
    #[track_caller]
    pub(crate) fn coloured_screen(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-e"]).exits(0).out
    }

    /// Whether a program has the whole screen.
    #[track_caller]
    pub(crate) fn is_full_screen(&self) -> bool {
        self.tmux(&["display-message", "-p", "#{alternate_on}"]).exits(0).out.trim() == "1"
    }

    /// Waits until it shows `text`, and gives all that it shows.
    #[track_caller]
    pub(crate) fn wait_screen(&self, text: &str) -> String {
        let mut last = String::new();
        eventually(&format!("the terminal shows {text:?}"), || {
            let screen = self.screen();
            if screen != last {
                // A test that fails shows it.
                eprintln!("{screen}");
                last.clone_from(&screen);
            }
            screen.contains(text).then_some(screen)
        })
    }

    fn tmux(&self, arguments: &[&str]) -> Ran {
        let mut command = Command::new("tmux");
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PORTWAY_") || name == "NO_COLOR" || name == "TMUX" {
                command.env_remove(name);
            }
        }
        command.env("TMUX_TMPDIR", self.dir.path()).env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
        Ran::of(command.args(["-u", "-L", "test", "-f", "/dev/null"]).args(arguments))
    }
}

impl Drop for RealTerminal {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}
