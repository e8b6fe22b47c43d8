//! Which sockets the API listens on.
//!
//! Owns the listening sockets, and what a change of the settings does to them. [`Doors::open`]
//! binds what the first configuration names, before anything serves. [`Keeper`] then serves them,
//! and follows the settings.
//!
//! - At the start, a socket that the configuration names and that cannot be bound is an error. The
//!   usual unix socket is not named: without it, the daemon runs and says so once.
//! - At a reload, a socket that cannot be bound leaves the old one of its kind in its place.
//! - The system may take its time over a path. So everything here is done on a thread that serves
//!   no session.

use std::{
    collections::{BTreeMap, HashMap},
    fmt, io,
    net::TcpListener,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixListener,
    },
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{
    entrance::Door,
    serve::{self, Hall, Listener},
    socket::{self, SocketError, SocketFile},
};
use crate::{
    config::{ApiSocket, Settings},
    mapping::{ListenAddr, Timeout},
    sock::{
        bind::{Overlap, bind_tcp},
        stream::limit_unsent,
    },
};

/// When the kernel looks whether a client of TCP is still there.
const KEEPALIVE: Timeout = Timeout::After(Duration::from_secs(30));

/// What the kernel keeps for a client of TCP that does not read; it doubles the number.
const MOST_UNSENT: usize = 128 * 1024;

/// A place where the API listens.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Unix(PathBuf),
    Tcp(ListenAddr),
}

impl Place {
    /// Whether a socket here is in the way of one there.
    fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tcp(one), Self::Tcp(other)) => one.collides_with(other),
            _ => false,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => path.display().fmt(f),
            Self::Tcp(addr) => addr.fmt(f),
        }
    }
}

impl Door {
    /// The key that names its place.
    const fn key(self) -> &'static str {
        match self {
            Self::Socket => "[api] socket",
            Self::Api => "[api] listen",
            Self::Metrics => "[metrics] listen",
        }
    }
}

/// Why a door cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("{} {place}: {cause}", .door.key())]
pub(crate) struct DoorError {
    door: Door,
    place: String,
    #[source]
    cause: Cause,
}

#[derive(Debug, thiserror::Error)]
enum Cause {
    #[error(transparent)]
    Socket(#[from] SocketError),
    #[error("{0}")]
    Tcp(#[from] io::Error),
}

/// The places that the settings name.
fn wanted(settings: &Settings) -> BTreeMap<Door, Place> {
    let mut wanted = BTreeMap::new();
    if let Some(path) = settings.api.socket.path() {
        wanted.insert(Door::Socket, Place::Unix(path.to_owned()));
    }
    let listens = [(Door::Api, &settings.api.listen), (Door::Metrics, &settings.metrics.listen)];
    for (door, listen) in listens {
        if let Some(listen) = listen {
            wanted.insert(door, Place::Tcp(listen.clone()));
        }
    }
    wanted
}

/// Whether the settings name a place.
pub(super) fn are_wanted(settings: &Settings) -> bool {
    !wanted(settings).is_empty()
}

/// A socket that listens, and that no task serves yet.
#[derive(Debug)]
struct Bound {
    place: Place,
    socket: Socket,
}

#[derive(Debug)]
enum Socket {
    Unix(UnixListener, SocketFile),
    Tcp(TcpListener),
}

impl Bound {
    /// The socket that another process handed over, where it is the one for this place.
    fn adopted(door: Door, place: &Place, passed: &mut Passed) -> Option<Self> {
        let socket = passed.remove(&name(door, place))?;
        let socket = match place {
            Place::Unix(path) => {
                let listener = UnixListener::from(socket);
                let file = SocketFile::of(path, &listener)?;
                Socket::Unix(listener, file)
            }
            Place::Tcp(_) => Socket::Tcp(socket.into()),
        };
        tracing::info!(listen = %place, key = door.key(), "API listening");
        Some(Self { place: place.clone(), socket })
    }

    fn open(door: Door, place: &Place) -> Result<Self, DoorError> {
        let socket = match place {
            Place::Unix(path) => open_unix(path).map_err(Cause::from),
            Place::Tcp(addr) => open_tcp(addr).map_err(Cause::from),
        };
        match socket {
            Ok(socket) => {
                tracing::info!(listen = %place, key = door.key(), "API listening");
                Ok(Self { place: place.clone(), socket })
            }
            Err(cause) => Err(DoorError { door, place: place.to_string(), cause }),
        }
    }
}

/// Sockets that another process handed over, by their [`name`].
pub(crate) type Passed = HashMap<String, OwnedFd>;

/// The key and the place.
fn name(door: Door, place: &Place) -> String {
    format!("{} {place}", door.key())
}

fn open_unix(path: &Path) -> Result<Socket, SocketError> {
    socket::open(path).map(|(listener, file)| Socket::Unix(listener, file))
}

fn open_tcp(addr: &ListenAddr) -> io::Result<Socket> {
    let bound = bind_tcp(addr, KEEPALIVE, Overlap::Nothing)?;
    limit_unsent(&bound.socket, MOST_UNSENT)?;
    Ok(Socket::Tcp(bound.socket.into()))
}

/// The sockets of the first configuration, bound.
#[derive(Debug, Default)]
pub(crate) struct Doors(BTreeMap<Door, Bound>);

impl Doors {
    /// Binds what the settings name, but for what was passed to this process. It blocks.
    ///
    /// # Errors
    /// The first socket that is named and cannot be bound; then none is.
    pub(crate) fn open(settings: &Settings, mut passed: Passed) -> Result<Self, DoorError> {
        let mut doors = BTreeMap::new();
        for (door, place) in wanted(settings) {
            let adopted = Bound::adopted(door, &place, &mut passed).map(Ok);
            match adopted.unwrap_or_else(|| Bound::open(door, &place)) {
                Ok(bound) => drop(doors.insert(door, bound)),
                Err(error) if door == Door::Socket && is_usual(settings) => {
                    tracing::warn!(%error, "API has no socket");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Self(doors))
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn is_usual(settings: &Settings) -> bool {
    matches!(settings.api.socket, ApiSocket::Usual(_))
}

/// A door that is served.
#[derive(Debug)]
struct Open {
    place: Place,
    closing: CancellationToken,
    accepting: JoinHandle<()>,
    socket: Weak<Listener>,
    /// Removed when the door closes.
    file: Option<SocketFile>,
}

impl Open {
    /// Closes the door, and waits until its socket is closed. Clients inside get their answers.
    async fn close(mut self) -> Place {
        self.closing.cancel();
        // It ends at once. A panic in it has ended it, too.
        let _ = (&mut self.accepting).await;
        self.place.clone()
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.closing.cancel();
    }
}

/// Serves the doors, and keeps them as the settings say.
#[derive(Debug)]
pub(super) struct Keeper {
    hall: Hall,
    open: BTreeMap<Door, Open>,
}

impl Keeper {
    /// Begins to serve what is bound.
    pub(super) fn new(hall: Hall, doors: Doors) -> Self {
        let mut keeper = Self { hall, open: BTreeMap::new() };
        for (door, bound) in doors.0 {
            keeper.serve(door, bound);
        }
        keeper
    }

    /// Opens and closes what other settings ask for. What they do not change is not touched.
    pub(super) async fn retune(&mut self, settings: &Settings) {
        let wanted = wanted(settings);
        self.open.retain(|door, _| wanted.contains_key(door));
        for (door, place) in wanted {
            if self.open.get(&door).is_none_or(|open| open.place != place) {
                self.replace(door, &place).await;
            }
        }
    }

    /// Opens a door in the place of the one of its kind.
    async fn replace(&mut self, door: Door, place: &Place) {
        match Bound::open(door, place) {
            Ok(bound) => self.serve(door, bound),
            Err(error) => match self.open.remove(&door) {
                Some(old) if old.place.overlaps(place) => self.swap(door, place, old).await,
                Some(old) => {
                    tracing::warn!(%error, stays = %old.place, "API listener not moved");
                    self.open.insert(door, old);
                }
                None => tracing::warn!(%error, "API listener not opened"),
            },
        }
    }

    /// The same where the old one may be in the way: it closes first.
    async fn swap(&mut self, door: Door, place: &Place, old: Open) {
        let old_place = old.close().await;
        let bound = Bound::open(door, place).or_else(|error| {
            tracing::warn!(%error, stays = %old_place, "API listener not moved");
            Bound::open(door, &old_place)
        });
        match bound {
            Ok(bound) => self.serve(door, bound),
            Err(error) => tracing::warn!(%error, "API listener not opened"),
        }
    }

    fn serve(&mut self, door: Door, Bound { place, socket }: Bound) {
        let (listener, file) = match socket {
            Socket::Unix(listener, mut file) => {
                file.is_served();
                (tokio::net::UnixListener::from_std(listener).map(Listener::Unix), Some(file))
            }
            Socket::Tcp(listener) => (tokio::net::TcpListener::from_std(listener).map(Listener::Tcp), None),
        };
        let listener = match listener {
            Ok(listener) => listener,
            Err(error) => {
                tracing::warn!(%error, listen = %place, "API listener not opened");
                return;
            }
        };
        let closing = CancellationToken::new();
        let listener = Arc::new(listener);
        let socket = Arc::downgrade(&listener);
        let accepting = serve::accept(listener, door, self.hall.clone(), closing.clone());
        let accepting = self.hall.tasks.spawn(accepting);
        self.open.insert(door, Open { place, closing, accepting, socket, file });
    }

    /// Duplicates of the sockets, for another process.
    pub(super) fn sockets(&self) -> Vec<(String, OwnedFd)> {
        let twin = |(door, open): (&Door, &Open)| {
            let socket = open.socket.upgrade()?.as_fd().try_clone_to_owned().ok()?;
            Some((name(*door, &open.place), socket))
        };
        self.open.iter().filter_map(twin).collect()
    }

    /// Leaves the files of the sockets to another process.
    pub(super) fn leave(&mut self) {
        let files = self.open.values_mut().filter_map(|open| open.file.take());
        files.for_each(SocketFile::leave);
    }
}
