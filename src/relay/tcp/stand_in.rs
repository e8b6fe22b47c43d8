//! What a client gets in place of a target: the last words of a client that is turned away, and the
//! talk with a player whose server is not up.
//!
//! What is said comes from `crate::preface`, which is pure. Here it is sent, and the client heard
//! out for a moment: unread bytes would turn the close into a reset, which can eat what
//! was said last. All of it is bounded in time and bytes. From its first word on, such a session
//! does not freeze: it could not begin again.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::{Route, TcpSpec, direction::read_once, pump::ClientSide, said::Said};
use crate::{
    preface::{
        Spoken,
        answers::{Refused, refusal},
        minecraft::{Greeting, Notice, StandIn},
    },
    sock::{errno::is_transient, stream},
    text::clean,
    wake::State,
};

/// How long a client that got its last words is heard out.
const HEARD_OUT: Duration = Duration::from_secs(1);
/// How many bytes of it are thrown away.
const THROWN_AWAY: usize = 64 * 1024;

const STARTING: &str = "The server is starting. Try again in a moment.";
const STOPPING: &str = "The server is stopping. Try again in a moment.";
const FAILED: &str = "The server could not be started.";
const ASLEEP: &str = "The server is asleep. Join to start it.";

/// Tells a client in its protocol why it gets no further.
pub(super) async fn refuse(near: &ClientSide, spoken: Spoken, why: Refused) {
    let _stays = near.slot.sessions().stay(near.meter.live());
    say_last(near, &refusal(spoken, why)).await;
}

/// Tells a player that its name leads nowhere.
pub(super) async fn turn_away(
    near: &ClientSide,
    greeting: Greeting,
    name: Option<&str>,
    patience: Duration,
    said: &mut Said,
) {
    let text = match name {
        Some(name) => format!("There is no server with the name {name} here."),
        None => "There is no server without a name here.".to_owned(),
    };
    let notice = Notice { motd: &text, players: (0, 0), farewell: &text };
    talk(near, greeting, &notice, patience, said).await;
}

/// Tells a player that no target is up, where there is something to say. `state` is that of the
/// target where it can be started.
pub(super) async fn in_place_of_target(
    near: &ClientSide,
    player: Greeting,
    spec: &TcpSpec,
    state: Option<State>,
    said: &mut Said,
) {
    let asleep = match &spec.route {
        Route::Names(names) => names.asleep.as_deref(),
        Route::Targets(_) => None,
    };
    let text = match (&state, asleep) {
        (Some(State::Starting { .. } | State::Running), _) => STARTING,
        (Some(State::Stopping), _) => STOPPING,
        (_, Some(asleep)) => &asleep.motd,
        (Some(State::Failed { .. }), None) => FAILED,
        (Some(State::Asleep), None) => ASLEEP,
        (None, None) => return,
    };
    let players = asleep.map_or((0, 0), |asleep| asleep.players);
    let notice = Notice { motd: text, players, farewell: text };
    talk(near, player, &notice, spec.options.match_timeout, said).await;
}

/// Plays the server for a player, for `patience` at most.
pub(super) async fn talk(
    near: &ClientSide,
    greeting: Greeting,
    notice: &Notice<'_>,
    patience: Duration,
    said: &mut Said,
) {
    let _stays = near.slot.sessions().stay(near.meter.live());
    let mut stand_in = StandIn::new(greeting);
    let talk = async {
        loop {
            let turn = stand_in.hear(said.bytes(), notice);
            if turn.is_over {
                return turn.answer;
            }
            // So little always has room.
            let _ = stream::write(&near.client, &turn.answer);
            if !said.hear(&near.client).await.unwrap_or(false) {
                return Vec::new();
            }
        }
    };
    let last = timeout(patience, talk).await.unwrap_or_default();
    if let Some(player) = stand_in.player() {
        tracing::debug!(player = clean(player), "player told that it cannot join");
    }
    say_last(near, &last).await;
}

/// Sends the last words, ends the stream, and hears the client out.
async fn say_last(near: &ClientSide, words: &[u8]) {
    // So little always has room.
    let _ = stream::write(&near.client, words);
    let _ = stream::end(&near.client);
    let until = Instant::now() + HEARD_OUT;
    let mut left = THROWN_AWAY;
    let hear_out = async {
        while left > 0 && near.client.readable().await.is_ok() {
            match read_once(&near.client, left, |_| {}) {
                Ok(0) => return,
                Ok(bytes) => left = left.saturating_sub(bytes),
                Err(error) if is_transient(&error) => {}
                Err(_) => return,
            }
        }
    };
    let _ = tokio::time::timeout_at(until, hear_out).await;
}
