//! What `top` shows, and what a key or news of the daemon changes in it.
//!
//! Pure: no clock, no terminal, no socket. [`State::take`] brings news in, [`State::key`] a key,
//! which may give an [`Action`]. Knows nothing of widths and colours.
//!
//! Invariants: memory is bounded, as events and rates are. A selection holds on to its row by
//! identity, so that a refresh between two keys cannot put another row in its place. Nothing is
//! ended without a question that names it.

mod rates;
mod sort;

use std::collections::{BTreeMap, HashMap, VecDeque};

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
pub(super) use rates::{Rates, SECONDS};
pub(super) use sort::{Column, Row};

use crate::status::view::{Ban, Event, History, Mapping, Opening, Router, Session, Status};

/// How many events are kept.
pub(super) const EVENTS: usize = 1000;
/// How far a page goes.
const PAGE: usize = 10;
/// The longest filter.
const FILTER: usize = 60;

/// A part of the picture, of which one is shown at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Tab {
    /// What runs, with rates.
    #[default]
    Mappings,
    /// Live sessions and flows.
    Sessions,
    /// What happened, the newest first.
    Events,
    /// The home router.
    Router,
    /// Clients that are kept out.
    Bans,
}

impl Tab {
    pub(super) const ALL: [Self; 5] =
        [Self::Mappings, Self::Sessions, Self::Events, Self::Router, Self::Bans];

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Mappings => "Mappings",
            Self::Sessions => "Sessions",
            Self::Events => "Events",
            Self::Router => "Router",
            Self::Bans => "Bans",
        }
    }

    /// The tab so many places further, in a circle.
    fn step(self, by: usize) -> Self {
        Self::ALL[(self as usize + by) % Self::ALL.len()]
    }
}

/// What the daemon says at one moment. What was not asked is absent.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Picture {
    pub(super) status: Status,
    pub(super) mappings: Vec<Mapping>,
    pub(super) sessions: Option<Vec<Session>>,
    pub(super) router: Option<Router>,
    pub(super) bans: Option<Vec<Ban>>,
}

/// What comes from the daemon.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum News {
    /// How it is now.
    Picture(Box<Picture>),
    /// How fast it was.
    History(Box<History>),
    /// It happened.
    Event(Box<Event>),
    /// So many events came too fast to be kept.
    Lost(u64),
    /// The daemon does not answer.
    Gone(String),
    /// What was asked is done.
    Done(String),
    /// What was asked failed.
    Failed(String),
}

/// Whether the daemon answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Link {
    /// It was not heard of yet.
    #[default]
    Asking,
    /// The picture is fresh.
    Live,
    /// It does not answer, for this reason. The picture is old.
    Gone(String),
}

/// What is done at the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    /// Ends a session by its number.
    EndSession(u64),
    /// Ends the ban of a client.
    Unban(String),
}

/// What a key makes the program do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Quit,
    Do(Deed),
}

/// What the keys mean now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Mode {
    /// They move in the table.
    #[default]
    Table,
    /// They write the filter.
    Filter,
    /// They answer.
    Question {
        /// What is asked.
        text: String,
        /// What a yes does.
        deed: Deed,
    },
    /// The next one closes the list of keys.
    Help,
}

/// A line about what was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Notice {
    pub(super) text: String,
    pub(super) is_bad: bool,
}

/// An event, or a gap between two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Happened {
    Event(Box<Event>),
    Lost(u64),
}

/// What a tab remembers while another one is shown.
#[derive(Clone, Debug, Default)]
struct Place {
    /// The selected row by identity; nothing while the selection stays at the first row.
    picked: Option<String>,
    filter: String,
}

/// All that is shown.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) tab: Tab,
    pub(super) link: Link,
    pub(super) mode: Mode,
    pub(super) notice: Option<Notice>,
    pub(super) picture: Picture,
    pub(super) sessions: Vec<Row>,
    /// Whether the daemon was asked for them.
    pub(super) sessions_known: bool,
    pub(super) events: VecDeque<(u64, Happened)>,
    pub(super) column: Column,
    pub(super) reversed: bool,
    rates: BTreeMap<String, Rates>,
    places: [Place; Tab::ALL.len()],
    /// The rows of this tab, by their index, in the order in which they are shown.
    order: Vec<usize>,
    /// The selected one of these.
    at: usize,
    /// The identity of the next event.
    next_event: u64,
}

impl State {
    /// The rows of this tab, by their index, in the order in which they are shown.
    pub(super) fn order(&self) -> &[usize] {
        &self.order
    }

    /// The selected one of [`State::order`].
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// What a row of this tab has to contain.
    pub(super) fn filter(&self) -> &str {
        &self.places[self.tab as usize].filter
    }

    /// How fast a mapping was.
    pub(super) fn rates(&self, mapping: &str) -> Option<&Rates> {
        self.rates.get(mapping)
    }

    /// The mapping that is selected.
    pub(super) fn mapping(&self) -> Option<&Mapping> {
        let index = *self.order.get(self.at)?;
        self.picture.mappings.get(index).filter(|_| self.tab == Tab::Mappings)
    }

    /// The openings of the router.
    pub(super) fn openings(&self) -> &[Opening] {
        self.picture.router.as_ref().map_or(&[], |router| &*router.leases)
    }

    /// The clients that are kept out.
    pub(super) fn bans(&self) -> &[Ban] {
        self.picture.bans.as_deref().unwrap_or_default()
    }

    /// Takes news in.
    pub(super) fn take(&mut self, news: News) {
        match news {
            News::Picture(picture) => self.see(*picture),
            News::History(history) => {
                if let Some(mapping) = &history.mapping {
                    self.rates.insert(mapping.clone(), Rates::of(&history.points));
                }
            }
            News::Event(event) => return self.happened(Happened::Event(event)),
            News::Lost(count) => return self.happened(Happened::Lost(count)),
            News::Gone(why) => {
                self.link = Link::Gone(why);
                // The rates of the time that is missed are not known.
                self.rates.clear();
            }
            News::Done(text) => self.notice = Some(Notice { text, is_bad: false }),
            News::Failed(text) => self.notice = Some(Notice { text, is_bad: true }),
        }
        self.settle();
    }

    fn see(&mut self, mut picture: Picture) {
        self.link = Link::Live;
        let old = std::mem::take(&mut self.picture);
        let is_same = old.status.pid == picture.status.pid && old.status.started == picture.status.started;
        if !is_same {
            // Another run: its numbers begin again.
            (self.sessions, self.rates) = (Vec::new(), BTreeMap::new());
            self.sessions_known = false;
        }
        if let Some(sessions) = picture.sessions.take() {
            self.sessions_known = true;
            let before: HashMap<u64, Row> =
                self.sessions.drain(..).map(|row| (row.session.id, row)).collect();
            self.sessions =
                sessions.into_iter().map(|session| Row::new(before.get(&session.id), session)).collect();
        }
        picture.router = picture.router.or(old.router.filter(|_| is_same));
        picture.bans = picture.bans.or(old.bans.filter(|_| is_same));
        let elapsed = picture.status.uptime_ms.saturating_sub(old.status.uptime_ms);
        let mut before = std::mem::take(&mut self.rates);
        for mapping in &mut picture.mappings {
            let mut rates = before.remove(&mapping.name).unwrap_or_default();
            if mapping.rate_in.is_none() && is_same && elapsed > 0 {
                measure(mapping, &old.mappings, elapsed);
            }
            if let Some(rate) = mapping.rate_in.zip(mapping.rate_out) {
                rates.push(rate);
            }
            self.rates.insert(mapping.name.clone(), rates);
        }
        self.picture = picture;
    }

    fn happened(&mut self, happened: Happened) {
        self.events.push_front((self.next_event, happened));
        self.next_event += 1;
        self.events.truncate(EVENTS);
        if self.tab == Tab::Events {
            self.settle();
        }
    }

    /// Does what a key means.
    pub(super) fn key(&mut self, key: KeyEvent) -> Option<Action> {
        if key.kind == KeyEventKind::Release {
            return None;
        }
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        if is_control && matches!(key.code, KeyCode::Char('c' | 'C')) {
            return Some(Action::Quit);
        }
        self.notice = None;
        let action = match std::mem::take(&mut self.mode) {
            _ if is_control || key.modifiers.contains(KeyModifiers::ALT) => None,
            Mode::Table => self.table_key(key.code),
            Mode::Filter => {
                self.filter_key(key.code);
                None
            }
            Mode::Question { deed, .. } => {
                matches!(key.code, KeyCode::Char('y' | 'Y')).then_some(Action::Do(deed))
            }
            Mode::Help => None,
        };
        self.settle();
        action
    }

    fn table_key(&mut self, key: KeyCode) -> Option<Action> {
        let last = self.order.len().saturating_sub(1);
        match key {
            KeyCode::Char('q') => return Some(Action::Quit),
            KeyCode::Char('?') | KeyCode::F(1) => self.mode = Mode::Help,
            KeyCode::Char('/') => self.mode = Mode::Filter,
            KeyCode::Esc => self.places[self.tab as usize].filter.clear(),
            KeyCode::Char(digit @ '1'..='5') => self.tab = Tab::ALL[digit as usize - '1' as usize],
            KeyCode::Tab | KeyCode::Right => self.tab = self.tab.step(1),
            KeyCode::BackTab | KeyCode::Left => self.tab = self.tab.step(Tab::ALL.len() - 1),
            KeyCode::Up | KeyCode::Char('k') => self.pick(self.at.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.pick((self.at + 1).min(last)),
            KeyCode::PageUp => self.pick(self.at.saturating_sub(PAGE)),
            KeyCode::PageDown => self.pick((self.at + PAGE).min(last)),
            KeyCode::Home | KeyCode::Char('g') => self.pick(0),
            KeyCode::End | KeyCode::Char('G') => self.pick(last),
            KeyCode::Char(key) if self.tab == Tab::Sessions => self.sessions_key(key),
            KeyCode::Char('u' | 'x') if self.tab == Tab::Bans => self.ask_unban(),
            _ => {}
        }
        None
    }

    fn sessions_key(&mut self, key: char) {
        match key {
            's' => self.sort(self.column.step(1)),
            'S' => self.sort(self.column.step(Column::ALL.len() - 1)),
            'r' => self.reversed = !self.reversed,
            'x' => self.ask_end(),
            _ => {
                if let Some(column) = Column::ALL.into_iter().find(|column| column.key() == key) {
                    self.sort(column);
                }
            }
        }
    }

    fn sort(&mut self, column: Column) {
        self.column = column;
        self.reversed = false;
    }

    fn ask_end(&mut self) {
        let Some(row) = self.order.get(self.at).and_then(|index| self.sessions.get(*index)) else { return };
        let Session { id, mapping, client, .. } = &row.session;
        let text = format!("End session {id} of {mapping}, client {client}?");
        self.mode = Mode::Question { text, deed: Deed::EndSession(*id) };
    }

    fn ask_unban(&mut self) {
        let Some(ban) = self.order.get(self.at).and_then(|index| self.bans().get(*index)) else { return };
        let client = ban.client.clone();
        self.mode = Mode::Question { text: format!("End the ban of {client}?"), deed: Deed::Unban(client) };
    }

    fn filter_key(&mut self, key: KeyCode) {
        let filter = &mut self.places[self.tab as usize].filter;
        match key {
            KeyCode::Enter => return,
            KeyCode::Esc => {
                filter.clear();
                return;
            }
            KeyCode::Backspace => {
                filter.pop();
            }
            KeyCode::Char(c) if filter.chars().count() < FILTER => filter.push(c),
            _ => {}
        }
        self.mode = Mode::Filter;
    }

    /// Selects a row. At the first one, the selection stays there while the rows change.
    fn pick(&mut self, at: usize) {
        let picked = self.order.get(at).filter(|_| at > 0).map(|index| self.identity(*index));
        self.places[self.tab as usize].picked = picked;
    }

    /// What a row is, whatever its place.
    fn identity(&self, index: usize) -> String {
        match self.tab {
            Tab::Mappings => self.picture.mappings[index].name.clone(),
            Tab::Sessions => self.sessions[index].session.id.to_string(),
            Tab::Events => self.events[index].0.to_string(),
            Tab::Router => {
                let opening = &self.openings()[index];
                format!("{} {:?}", opening.listen, opening.protocol)
            }
            Tab::Bans => self.bans()[index].client.clone(),
        }
    }

    /// Orders the rows of this tab again, and finds the selected one.
    fn settle(&mut self) {
        let words: Vec<String> = self.filter().to_lowercase().split_whitespace().map(str::to_owned).collect();
        let rows = match self.tab {
            Tab::Mappings => self.picture.mappings.len(),
            Tab::Sessions => self.sessions.len(),
            Tab::Events => self.events.len(),
            Tab::Router => self.openings().len(),
            Tab::Bans => self.bans().len(),
        };
        let fits = |index: &usize| {
            words.is_empty() || {
                let text = self.text(*index).to_lowercase();
                words.iter().all(|word| text.contains(word))
            }
        };
        let mut order: Vec<usize> = (0..rows).filter(fits).collect();
        if self.tab == Tab::Sessions {
            self.column.sort(&mut order, &self.sessions, self.reversed);
        }
        let before = self.at;
        let picked = self.places[self.tab as usize].picked.as_ref();
        let found = picked.map(|picked| order.iter().position(|index| self.identity(*index) == *picked));
        (self.order, self.at) = (order, 0);
        match found {
            None => {}
            Some(Some(at)) => self.at = at,
            // It has ended. Its neighbour takes its place.
            Some(None) if !self.order.is_empty() => {
                self.at = before.min(self.order.len() - 1);
                self.pick(self.at);
            }
            Some(None) => self.places[self.tab as usize].picked = None,
        }
    }

    /// The text of a row in which the filter looks.
    fn text(&self, index: usize) -> String {
        match self.tab {
            Tab::Mappings => {
                let mapping = &self.picture.mappings[index];
                let listeners = mapping.listeners.iter().map(|listener| &*listener.listen);
                let targets = mapping.targets.iter().map(|target| &*target.address);
                listeners.chain(targets).fold(mapping.name.clone(), |text, part| text + " " + part)
            }
            Tab::Sessions => self.sessions[index].text(),
            Tab::Events => match &self.events[index].1 {
                Happened::Lost(_) => String::new(),
                Happened::Event(event) => {
                    let parts = [&event.mapping, &event.client, &event.reason].into_iter().flatten();
                    parts.fold(format!("{} {}", event.kind, event.message), |text, part| text + " " + part)
                }
            },
            Tab::Router => {
                let opening = &self.openings()[index];
                format!("{} {} {} {}", opening.mapping, opening.listen, opening.state, opening.external_port)
            }
            Tab::Bans => format!("{} {}", self.bans()[index].client, self.bans()[index].reason),
        }
    }
}

/// Where the daemon measures no rates: what moved since the last picture.
fn measure(mapping: &mut Mapping, before: &[Mapping], elapsed_ms: u64) {
    let Some(old) = before.iter().find(|old| old.name == mapping.name) else { return };
    let rate = |new: u64, old: u64| {
        let moved = u128::from(new.saturating_sub(old)) * 1000 / u128::from(elapsed_ms);
        Some(u64::try_from(moved).unwrap_or(u64::MAX))
    };
    (mapping.rate_in, mapping.rate_out) =
        (rate(mapping.bytes_in, old.bytes_in), rate(mapping.bytes_out, old.bytes_out));
}

#[cfg(test)]
pub(super) mod tests;
