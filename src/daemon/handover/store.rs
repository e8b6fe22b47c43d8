//! The hand-over through the store of the service manager, over a restart of the service.
//!
//! ```text
//! old: SIGPWR ─► freezes everything ─► state, snapshot and sockets to the store ─► ends with 0
//! new: takes them out of the store ─► checks them ─► serves as a successor does
//! ```
//!
//! For new this is a hand-over in place (`in_place`): there is no old process that could hear an
//! answer or take anything back. So a session that new cannot take ends, and all end where new does
//! not start. What is in the store is used once: it is taken out before it is read.
//!
//! Where the store has no room, or the manager does not answer, all thaws, and the caller stops as
//! on any other day. The API's sockets are not stored: systemd removes the directory of the unix
//! socket over a restart. Nor are the listeners' sockets that systemd itself opened (a socket
//! unit): it passes them again. In the store they would keep the port in use, so that the socket
//! unit could not be started again.

use std::{
    collections::HashSet,
    fs::File,
    io::Seek as _,
    os::fd::{AsFd as _, OwnedFd},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    Line, Successor,
    messages::{FromOld, Listen, send, send_with},
    state::{Known, StateRecord},
};
use crate::{
    daemon::systemd::{Stored, store},
    handover::{Frame, Packer, SocketId, Unpacker, Upgrades, Wire, WireError},
    job,
    supervisor::Frozen,
};

/// How long the manager may take to hear everything.
const PUT: Duration = Duration::from_secs(15);
/// How long two messages to this process itself may take.
const FILL: Duration = Duration::from_secs(2);

/// Freezes everything and puts it into the store. Then another process goes on with it, and nothing
/// is left here. Returns how many sockets that are.
///
/// # Errors
/// Why not. Then everything goes on.
pub(in crate::daemon) async fn put_aside(known: &Known, upgrades: &Upgrades) -> Result<usize, String> {
    let room = store::room();
    if room == 0 {
        return Err("no service manager keeps descriptors (FileDescriptorStoreMax= in the unit)".into());
    }
    let begun = known.handle.hand_over().await;
    let (hand, mut listeners) = begun.ok_or("the daemon is stopping, or is handing over")?;
    let passed = hand.staying();
    listeners.retain(|socket| SocketId::of(socket).is_ok_and(|id| !passed.contains(&id)));
    let listen = Listen::of(&hand, &listeners, &[]);
    upgrades.stand_still(true);
    let frozen = hand.freeze().await.ok_or("the daemon is stopping")?;
    let state = known.whole();
    let put = job::run_within(PUT, "portway-store", move || {
        let done = put(&frozen, (listen, state), &listeners, room);
        (frozen, done)
    });
    match put.await {
        Ok((frozen, Ok(count))) => {
            hand.let_go(frozen, HashSet::new()).await;
            Ok(count)
        }
        Ok((frozen, Err(error))) => {
            hand.thaw(frozen).await;
            upgrades.stand_still(false);
            Err(error)
        }
        // It is not known what the thread still does with them.
        Err(error) => Err(error.to_string()),
    }
}

fn put(
    frozen: &Frozen,
    (listen, state): (Listen, StateRecord),
    listeners: &[OwnedFd],
    room: usize,
) -> Result<usize, String> {
    let mut packer = Packer::default();
    let snapshot = frozen.pack(&frozen.whole(), &mut packer).map_err(|error| error.to_string())?;
    let (sockets, bytes) = packer.into_parts();
    let count = sockets.len() + listeners.len();
    if count >= room {
        return Err(format!(
            "{count} sockets do not fit into the {room} of the store (FileDescriptorStoreMax= in the unit)"
        ));
    }
    let messages = [
        (FromOld::Listen(listen), Vec::new()),
        (FromOld::State(Box::new(state)), Vec::new()),
        (FromOld::Snapshot(Box::new(snapshot)), bytes),
    ];
    let file = file_of(messages).map_err(|error| error.to_string())?;
    let all = listeners.iter().map(|socket| socket.as_fd()).chain(sockets.into_values());
    let put = store::put(file.as_fd(), all);
    put.map_err(|error| {
        // What is there would be found by the next start, and must not be used: it goes on here.
        if let Err(error) = store::clear() {
            tracing::error!(%error, "the store of the service manager cannot be cleared");
        }
        format!("tell the service manager: {error}")
    })?;
    Ok(count)
}

/// A file without a name, with these messages.
fn file_of(messages: impl IntoIterator<Item = (FromOld, Vec<u8>)>) -> Result<File, WireError> {
    let mut file = File::from(rustix::fs::memfd_create("portway-handover", rustix::fs::MemfdFlags::CLOEXEC)?);
    for (message, bytes) in messages {
        Frame { record: serde_json::to_vec(&message)?, bytes }.write_to(&mut file)?;
    }
    Ok(file)
}

/// A successor of the process before this one, by what was in the store. `None` where nothing was.
/// The store is empty after this.
///
/// # Errors
/// What is wrong with it. Then all that was in it is gone.
pub(in crate::daemon) fn successor(stored: Stored) -> Result<Option<Successor>, String> {
    if stored.is_empty() {
        return Ok(None);
    }
    store::clear().map_err(|error| format!("clear the store of the service manager: {error}"))?;
    let Some(file) = stored.snapshot.map(File::from) else {
        return Err("the snapshot is missing".into());
    };
    read(file, stored.sockets).map(Some).map_err(|error| format!("read the snapshot: {error}"))
}

fn read(mut file: File, sockets: Vec<OwnedFd>) -> Result<Successor, WireError> {
    file.rewind()?;
    let listen: FromOld = serde_json::from_slice(&Frame::read_from(&mut file)?.record)?;
    in_place(&listen, rest(&mut file)?, sockets)
}

/// What comes after the listening sockets: the state, and the sessions at the end. Only what can be
/// read is offered. A version that knew no state has none.
fn rest(file: &mut File) -> Result<Vec<Frame>, WireError> {
    let mut frames = Vec::new();
    loop {
        let frame = Frame::read_from(&mut *file)?;
        let message: FromOld = serde_json::from_slice(&frame.record)?;
        frames.push(frame);
        match message {
            FromOld::State(_) if frames.len() == 1 => {}
            FromOld::Snapshot(_) => return Ok(frames),
            _ => return Err(WireError::Broken("it has no snapshot")),
        }
    }
}

/// A successor that hears these messages from itself.
fn in_place(listen: &FromOld, rest: Vec<Frame>, sockets: Vec<OwnedFd>) -> Result<Successor, WireError> {
    let until = Instant::now() + FILL;
    let (mut ours, theirs) = Wire::pair()?;
    send(&mut ours, listen, until)?;
    for frame in rest {
        let file = frame.into_memory()?;
        send_with(&mut ours, &FromOld::Memory {}, Vec::new(), &[file.as_fd()], until)?;
    }
    let mut unpacker = Unpacker::default();
    sockets.into_iter().for_each(|socket| unpacker.add(socket));
    Ok(Successor::in_place(Line::new(theirs), unpacker))
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    fn stored(file: Option<File>) -> Stored {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        Stored { snapshot: file.map(OwnedFd::from), sockets: vec![socket.into()] }
    }

    #[test]
    fn what_was_put_aside_is_read_again_and_what_is_broken_is_an_error() {
        let listen = || (FromOld::Listen(Listen::default()), Vec::new());
        let state = || (FromOld::State(Box::default()), Vec::new());
        let snapshot = || (FromOld::Snapshot(Box::default()), b"held".to_vec());
        let whole = || file_of([listen(), state(), snapshot()]).unwrap();
        assert!(successor(stored(Some(whole()))).unwrap().is_some());
        let of_before = file_of([listen(), snapshot()]).unwrap();
        assert!(successor(stored(Some(of_before))).unwrap().is_some(), "a version without state");
        let cut = whole();
        cut.set_len(cut.metadata().unwrap().len() - 1).unwrap();
        assert!(successor(stored(Some(cut))).is_err());
        for wrong in [
            file_of([snapshot(), listen()]),
            file_of([listen(), state()]),
            file_of([listen(), state(), state(), snapshot()]),
        ] {
            assert!(successor(stored(Some(wrong.unwrap()))).is_err());
        }
        assert!(successor(stored(None)).unwrap_err().contains("missing"));
        assert!(successor(Stored::default()).unwrap().is_none(), "an ordinary start");
    }
}
