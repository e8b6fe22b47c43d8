//! The hand-over of process 1, which executes the new program in its own place.
//!
//! A child checks the configuration with the new program first, and ends. Then everything is frozen
//! and put into a socket whose other end becomes standard input: the snapshot as a file without a
//! name, and the sockets in flight, where the kernel keeps them over the exec. So no descriptor has
//! to be known by its number. Where the exec fails, all is thawed.
//!
//! A session that the new program cannot take ends: there is no old process to drain it.
//!
//! Signals are held from the freeze on, and wait for the new program: the kernel keeps those that
//! are blocked over an exec, and throws away what process 1 has no handler for. A stop that came
//! before ends the hand-over.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    FOR_A_CHECK, FOR_GOOD,
    child::Heir,
    give::{Giver, refusal},
    messages::{FromOld, Listen, send, send_sockets, send_with},
    program::Program,
    state::StateRecord,
};
use crate::{
    daemon::signals,
    handover::{Frame, Packer, Refusal, Wire, WireError},
    job,
    supervisor::{Frozen, HandOver},
};

/// How long the kernel may take to hold everything: it waits for nothing but room.
const FILL: Duration = Duration::from_secs(2);
/// How long that and the exec may take.
const EXEC: Duration = Duration::from_secs(10);
/// The room in the socket that is asked for.
const ROOM: usize = 4 << 20;

/// Executes the installed program in the place of this one. Returns only where that fails.
pub(super) async fn hand_over(giver: Giver<'_>) -> Refusal {
    let (hand, listeners) = match giver.begin().await {
        Ok(begun) => begun,
        Err(refusal) => return refusal,
    };
    let giver = &giver;
    if let Err(refusal) = check(giver).await {
        return refusal;
    }
    let doors = giver.windows.sockets().await;
    let listen = Listen::of(&hand, &listeners, &doors);
    if let Err(error) = signals::hold() {
        return Refusal::new(format!("hold signals: {error}"));
    }
    let refusal = replace(giver, &hand, (listeners, doors, listen)).await;
    if let Err(error) = signals::release() {
        tracing::error!(%error, "signals do not come through any more");
    }
    refusal
}

/// What is open before the freeze: the sockets of listeners and of the API, and what is said of
/// them.
type Open = (Vec<OwnedFd>, Vec<(String, OwnedFd)>, Listen);

/// Freezes everything and executes the program. Returns only where that fails; then all goes on.
async fn replace(giver: &Giver<'_>, hand: &HandOver, (listeners, doors, listen): Open) -> Refusal {
    giver.upgrades.stand_still(true);
    let Some(frozen) = hand.freeze().await else { return Refusal::new("the daemon is stopping") };
    let (known, program, abort) = (giver.known.whole(), giver.program.clone(), giver.abort.clone());
    let run = job::run_within(EXEC, "portway-exec", move || {
        let sockets = listeners.iter().chain(doors.iter().map(|(_, socket)| socket));
        let error = match fill(&frozen, (listen, known), sockets) {
            // What came before signals were held.
            Ok(_) if abort.is_cancelled() => "a stop was asked for".to_owned(),
            Ok(theirs) => exec(&program, theirs),
            Err(error) => error.to_string(),
        };
        (frozen, error)
    });
    let error = match run.await {
        Ok((frozen, error)) => {
            hand.thaw(frozen).await;
            error
        }
        // It is not known what the thread still does with them.
        Err(error) => error.to_string(),
    };
    giver.upgrades.stand_still(false);
    let path = giver.program.path().map(|path| path.display().to_string()).unwrap_or_default();
    Refusal::new(format!("execute {path}: {error}"))
}

/// Has a child read the configuration with the new program.
async fn check(giver: &Giver<'_>) -> Result<(), Refusal> {
    let (mut heir, mut line) = Heir::start(giver.program, FOR_A_CHECK).await.map_err(Refusal::new)?;
    let outcome = match giver.greeted(&heir, &mut line).await {
        Ok(_) => Ok(()),
        Err(cause) => Err(refusal(cause, &mut heir).await),
    };
    heir.end().await;
    outcome
}

/// Puts everything into a socket; its other end.
fn fill<'a>(
    frozen: &Frozen,
    (listen, known): (Listen, StateRecord),
    sockets: impl Iterator<Item = &'a OwnedFd>,
) -> Result<Wire, WireError> {
    let until = Instant::now() + FILL;
    let (mut ours, theirs) = Wire::pair()?;
    // The kernel gives what it may.
    let _ = rustix::net::sockopt::set_socket_send_buffer_size(&ours, ROOM);
    send_sockets(&mut ours, sockets.map(OwnedFd::as_fd), until)?;
    send(&mut ours, &FromOld::Listen(listen), until)?;
    let mut packer = Packer::default();
    let snapshot = frozen.pack(&frozen.whole(), &mut packer)?;
    let (sockets, bytes) = packer.into_parts();
    send_sockets(&mut ours, sockets.into_values(), until)?;
    // Both may be larger than a socket has room for.
    let messages =
        [(FromOld::State(Box::new(known)), Vec::new()), (FromOld::Snapshot(Box::new(snapshot)), bytes)];
    for (message, bytes) in messages {
        let file = Frame { record: serde_json::to_vec(&message)?, bytes }.into_memory()?;
        send_with(&mut ours, &FromOld::Memory {}, Vec::new(), &[file.as_fd()], until)?;
    }
    Ok(theirs)
}

/// Becomes the new program. Returns only where that fails.
fn exec(program: &Program, theirs: Wire) -> String {
    match signals::hold() {
        Ok(()) => program.execute(FOR_GOOD, &theirs.into_socket()).to_string(),
        Err(error) => format!("hold signals: {error}"),
    }
}
