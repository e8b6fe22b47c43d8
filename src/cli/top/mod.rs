//! `portway top`: what runs, on the whole terminal, refreshed each second.
//!
//! Owns the terminal while it runs, and gives it back in any case: at the end, after an error, on
//! SIGINT, SIGTERM and SIGHUP, and on a panic. Three things run side by side on one thread, and end
//! together: the loop of the screen, the [`feed`] that asks the daemon, and what it was told to do.
//! A second thread waits for keys, as a read from a terminal blocks; it ends with the process.
//!
//! [`state`] has what is shown and what a key means, [`draw`] how it looks. Neither knows a clock,
//! a terminal or a socket.
//!
//! A daemon that does not answer ends nothing: the picture is greyed until it is back.

mod draw;
mod feed;
mod state;

use std::{
    ffi::OsString,
    io::{self, IsTerminal as _},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use clap::Args;
use draw::Theme;
use feed::Feed;
use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event},
};
use state::{Action, Deed, Link, News, Notice, State, Tab};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

use super::{FAILED, answer, ctl, say, table::Terminal, variables::Variables};
use crate::help;

/// News that wait to be shown. Beyond, the daemon waits, and says how many events it dropped.
const NEWS: usize = 64;
/// Deeds that wait to be done.
const DEEDS: usize = 8;
/// Keys that wait.
const KEYS: usize = 64;
/// News draw the screen at most once in this time. Keys draw it at once.
const PACE: Duration = Duration::from_millis(50);

/// Where the daemon is.
#[derive(Debug, Args)]
pub(super) struct Top {
    /// The unix socket of the daemon [env: PORTWAY_SOCKET] [default: portway.sock in
    /// $RUNTIME_DIRECTORY, $XDG_RUNTIME_DIR or /run/portway]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

impl Top {
    /// Shows the daemon until the person has seen enough.
    pub(super) fn run<F: Fn(&str) -> Option<OsString>>(self, variables: &Variables<F>) -> ExitCode {
        let client = match ctl::client(self.socket, variables) {
            Ok(client) => client,
            Err(error) => return answer(&error),
        };
        if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
            let help = "`portway status`, `portway sessions` and `portway events -f` print lines";
            say(&format!("portway: {}", help::below("`top` needs a terminal", Some(help), 2)));
            return ExitCode::from(FAILED);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let outcome = runtime.and_then(|runtime| {
            let outcome = runtime.block_on(show(Feed::new(client)));
            // A request that is under way is not waited for.
            runtime.shutdown_background();
            outcome
        });
        match outcome {
            Ok(None) => ExitCode::SUCCESS,
            Ok(Some(why)) => {
                say(&format!("portway: {why}"));
                ExitCode::from(FAILED)
            }
            Err(error) => {
                say(&format!("portway: the terminal: {error}"));
                ExitCode::from(FAILED)
            }
        }
    }
}

/// The terminal in its full-screen mode. Dropped, it is what it was before.
#[derive(Debug)]
struct Screen;

impl Screen {
    fn open() -> io::Result<(Self, DefaultTerminal)> {
        let screen = Self;
        // It also has a panic give the terminal back before its message is written.
        let terminal = ratatui::try_init()?;
        Ok((screen, terminal))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone cannot be restored.
        let _ = ratatui::try_restore();
    }
}

/// The signals that end the program.
struct Ends([Signal; 3]);

impl Ends {
    fn new() -> io::Result<Self> {
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let [interrupt, terminate, hangup] = kinds.map(signal);
        Ok(Self([interrupt?, terminate?, hangup?]))
    }

    async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// Shows the daemon; gives the reason where it never answered.
async fn show(feed: Feed) -> io::Result<Option<String>> {
    let mut ends = Ends::new()?;
    let (screen, terminal) = Screen::open()?;
    let keys = keys()?;
    let (news, heard) = mpsc::channel(NEWS);
    let (tab, shown) = watch::channel(Tab::default());
    let (deeds, told) = mpsc::channel(DEEDS);
    let view = View { terminal, theme: Theme { colour: Terminal::of_stdout().colour }, tab, deeds };
    let mut state = State::default();
    let outcome = tokio::select! {
        outcome = view.run(&mut state, keys, heard) => outcome,
        () = feed.run(&news, shown, told) => Ok(()),
        () = ends.next() => Ok(()),
    };
    drop(screen);
    outcome?;
    Ok(match state.link {
        Link::Gone(why) if state.picture.status.version.is_empty() => Some(why),
        _ => None,
    })
}

/// The keys and the changes of size, from a thread that waits for them.
fn keys() -> io::Result<mpsc::Receiver<io::Result<Event>>> {
    let (sender, keys) = mpsc::channel(KEYS);
    std::thread::Builder::new().name("keys".to_owned()).spawn(move || {
        loop {
            let event = event::read();
            let is_over = event.is_err();
            if sender.blocking_send(event).is_err() || is_over {
                return;
            }
        }
    })?;
    Ok(keys)
}

/// The screen, and what it tells the feed.
struct View {
    terminal: DefaultTerminal,
    theme: Theme,
    /// The tab that is shown, so that its values are asked for.
    tab: watch::Sender<Tab>,
    deeds: mpsc::Sender<Deed>,
}

impl View {
    /// Draws, and waits for keys and news, until a key ends it.
    async fn run(
        mut self,
        state: &mut State,
        mut keys: mpsc::Receiver<io::Result<Event>>,
        mut news: mpsc::Receiver<News>,
    ) -> io::Result<()> {
        loop {
            self.terminal.draw(|frame| draw::draw(state, self.theme, frame))?;
            let drawn = Instant::now();
            let paced = async {
                sleep_until(drawn + PACE).await;
                news.recv().await
            };
            tokio::select! {
                biased;
                event = keys.recv() => {
                    let Some(event) = event else { return Err(io::ErrorKind::UnexpectedEof.into()) };
                    // Another event is a change of size: drawing sees it.
                    if let Event::Key(key) = event? {
                        match state.key(key) {
                            Some(Action::Quit) => return Ok(()),
                            Some(Action::Do(deed)) => self.tell(deed, state),
                            None => {}
                        }
                    }
                }
                Some(first) = paced => {
                    state.take(first);
                    while let Ok(next) = news.try_recv() {
                        state.take(next);
                    }
                }
            }
            self.tab.send_if_modified(|tab| std::mem::replace(tab, state.tab) != state.tab);
        }
    }

    fn tell(&self, deed: Deed, state: &mut State) {
        if self.deeds.try_send(deed).is_err() {
            let text = "the daemon has not answered to the last requests yet".to_owned();
            state.notice = Some(Notice { text, is_bad: true });
        }
    }
}
