//! The log messages that tests wait for, in one place.

use std::fs;

use super::{source::sources, src};

macro_rules! messages {
    ($($name:ident = $text:literal;)+) => {
        $(pub(crate) const $name: &str = $text;)+

        const ALL: &[&str] = &[$($name),+];
    };
}

messages! {
    API_HAS_NO_SOCKET = "API has no socket";
    API_LISTENER_NOT_MOVED = "API listener not moved";
    BANS_NOT_RESTORED = "bans not restored";
    BANS_NOT_SAVED = "bans not saved";
    BANS_RESTORED = "bans restored";
    BANS_SAVED_IN_THE_NEXT_DIRECTORY = "bans saved in the next directory";
    BEHIND_A_SECOND_NAT = "behind a second NAT";
    CLIENT_BANNED = "client banned";
    CLOSED_ON_THE_ROUTER = "closed on the router";
    CONFIGURATION = "configuration";
    CONTAINERS_APPLIED = "containers applied";
    CONTAINER_ENGINE_ANSWERS_AGAIN = "container engine answers again";
    COUNTRY_DATABASE_NOT_USABLE = "country database not usable; the last good one stays";
    DATAGRAMS_DROPPED = "datagrams dropped";
    DROPPED_CLIENTS_HEAR_A_RESET = "dropped clients of the same network hear a reset when they are let go";
    ENTRY_HAS_HOST_BITS = "list entry has bits beyond its prefix";
    EXTERNAL_ADDRESS_CHANGED = "external address changed";
    FAST_PATHS_ARE_OFF = "fast paths are off";
    HANDED_OVER = "handed over";
    HANDING_OVER = "handing over";
    HAND_OVER_FAILED = "hand-over failed; going on";
    HELD_BY_ANOTHER_MACHINE = "held by another machine";
    LIMIT_BEYOND_DESCRIPTORS = "limit beyond what the descriptors allow; raise LimitNOFILE=";
    LISTENER_WAITING = "listener waiting";
    LISTENING = "listening";
    LIST_NOT_USABLE = "list not usable; the last good one stays";
    LIST_RELOADED = "list reloaded";
    LOG_FILE_NOT_REOPENED = "log file not reopened";
    LOG_LINES_LOST = "log lines lost";
    LOG_TARGET_CHANGED = "log target changed";
    LOG_TARGET_NOT_CHANGED = "log target not changed";
    MORE_LISTENERS_COULD_NOT_BE_OPENED = "more listeners could not be opened";
    MORE_LISTENERS_LISTENING = "more listeners listening";
    MORE_LISTENERS_WAITING = "more listeners waiting";
    NAME_RESOLVES_TO_LOOPBACK = "name resolves to loopback; if this machine is meant, use 127.0.0.1 or localhost";
    NOT_OPEN_ON_THE_ROUTER = "not open on the router";
    NO_EXTERNAL_ADDRESS = "no external address: the router is offline, or behind a second NAT";
    NO_ROOM_FOR_MORE_SESSIONS = "no room for more sessions";
    NO_ROUTING_FOR_TRANSPARENT = "no routing for `transparent`: replies of targets go to the clients past portway; run the commands";
    NO_ROUTER_FOUND = "no router found";
    ROUTER_STATE_NOT_PERSISTED = "router state not persisted: no writable state directory";
    OPENINGS_BROKEN = "the list of openings on the router is broken; starting without it";
    OPENINGS_NOT_REMEMBERED_OVER_A_RESTART = "openings on the router are not remembered over a restart";
    OPEN_ON_THE_ROUTER = "open on the router";
    REACHABLE_FROM_THE_INTERNET_AGAIN = "reachable from the internet again";
    READY = "ready";
    RELOAD_APPLIED = "reload applied";
    RELOAD_REFUSED = "reload refused";
    ROUTER_ASKED = "router asked";
    ROUTER_FOUND = "router found";
    ROUTER_LOST = "router lost";
    ROUTER_REFUSES = "router refuses";
    ROUTER_RESTARTED = "router restarted";
    SANDBOX = "sandbox";
    SESSIONS_REFUSED = "sessions refused";
    SESSION_ENDED = "session ended";
    SESSION_LINES_LEFT_OUT = "session lines left out";
    SESSION_REFUSED = "session refused";
    STARTING_TARGET = "starting target";
    STATE_DIRECTORY_NOT_USABLE = "state directory not usable";
    STOPPED = "stopped";
    STOPPING = "stopping";
    TARGET_DOWN = "target down";
    TARGET_NOT_STARTED = "target not started";
    TARGET_STARTED = "target started";
    TARGET_STOPPED = "target stopped";
    TARGET_UP = "target up";
}

#[test]
fn the_program_has_every_message_that_tests_wait_for() {
    let program: String =
        sources(&src()).iter().map(|path| fs::read_to_string(path).expect("a source")).collect();
    for message in ALL {
        assert!(
            program.contains(&format!("\"{message}")),
            "{message:?} is not at the start of a text in src"
        );
    }
}
