//! What old does while all stands still, on one thread: it packs the sessions, sends them, waits
//! for the receipt, and lets new serve.
//!
//! One thread, because each change of threads is a wait, and every session waits with it. The
//! thread is there before anything is frozen.
//!
//! A stop that is asked for and `Go` exclude each other ([`Turn`]): the first one wins. The thread
//! has let go of what is frozen when it ends, whatever comes of it.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU8, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::{sync::oneshot, time::Instant};

use super::{
    super::{
        LAST_WORDS, RECEIPT, SERVING,
        messages::{FromNew, FromOld, Receipt, receive, send, send_sockets, send_with},
        notify,
        state::{Known, StateRecord},
    },
    Cause, refused,
};
use crate::{
    handover::{Packer, SocketId, Wire, WireError},
    supervisor::{Frozen, Part, Snapshot},
};

/// The step that the sessions are sent in, as people hear of it.
pub(super) const TAKE: (&str, Duration) = ("take the sessions", RECEIPT);

/// How many parts the sessions go in: new takes one while the next one is packed.
const PARTS: usize = 8;
/// The smallest part. Each one costs a message.
const PART: usize = 128;

/// What is frozen, shared with the thread that sends it.
#[derive(Clone, Debug)]
pub(super) struct Still {
    frozen: Arc<Mutex<Frozen>>,
    /// When the freeze began.
    since: Instant,
    /// How long it took.
    frozen_after: Duration,
}

impl Still {
    /// What is frozen since then.
    pub(super) fn new(frozen: Frozen, since: Instant) -> Self {
        Self { frozen: Arc::new(Mutex::new(frozen)), since, frozen_after: since.elapsed() }
    }

    /// What is frozen, where the thread has let go of it.
    pub(super) fn into_frozen(self) -> Option<Frozen> {
        Some(Arc::into_inner(self.frozen)?.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Whether new may serve, or a stop came first.
#[derive(Clone, Debug, Default)]
pub(super) struct Turn(Arc<AtomicU8>);

impl Turn {
    const OPEN: u8 = 0;
    const STOPPED: u8 = 1;
    const GONE: u8 = 2;

    /// A stop: whether it comes in time.
    pub(super) fn stop(&self) -> bool {
        self.take(Self::STOPPED)
    }

    /// `Go`: whether no stop came before.
    fn go(&self) -> bool {
        self.take(Self::GONE)
    }

    /// Whether new may have heard `Go`.
    pub(super) fn has_gone(&self) -> bool {
        self.0.load(SeqCst) == Self::GONE
    }

    fn take(&self, what: u8) -> bool {
        self.0.compare_exchange(Self::OPEN, what, SeqCst, SeqCst).is_ok()
    }
}

/// What the thread works with.
pub(super) struct Carrier {
    pub(super) known: Known,
    /// What was told of it before.
    pub(super) ahead: StateRecord,
    /// The sockets that new has.
    pub(super) sent: HashSet<SocketId>,
    /// Whether new takes sessions in several parts.
    pub(super) takes_parts: bool,
    /// The process that is to be the main one.
    pub(super) pid: u32,
    pub(super) reload_was_asked: Arc<AtomicBool>,
    pub(super) turn: Turn,
}

/// What came of it, where new has given a receipt and heard `Go`.
#[derive(Debug)]
pub(super) struct Carried {
    pub(super) receipt: Receipt,
    /// How long all stood still, where new serves.
    pub(super) pause: Result<Duration, WireError>,
}

impl Carrier {
    /// Waits for what is frozen, and carries it over.
    ///
    /// # Errors
    /// Why new has not heard `Go`.
    pub(super) fn carry(self, wire: &mut Wire, frozen: oneshot::Receiver<Still>) -> Result<Carried, Cause> {
        // What is not sent means that the supervisor is gone.
        let still = frozen.blocking_recv().map_err(|_| Cause::Stopping)?;
        let until = Instant::now() + RECEIPT;
        let said = self.send_all(&still, wire, until).map_err(|error| Cause::of(TAKE, error.into()))?;
        let FromNew::Receipt(receipt) = refused(said)? else {
            return Err(Cause::OutOfStep { step: TAKE.0 });
        };
        if !self.turn.go() {
            return Err(Cause::Aborted);
        }
        notify::is_main(self.pid);
        Ok(Carried { receipt, pause: self.go(&still, wire) })
    }

    fn send_all(&self, still: &Still, wire: &mut Wire, until: Instant) -> Result<FromNew, WireError> {
        let frozen = still.frozen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut parts = match self.takes_parts {
            true => frozen.parts(PARTS, PART),
            false => vec![frozen.whole()],
        };
        let last = parts.pop().unwrap_or_default();
        let mut packer = Packer::default();
        for part in &parts {
            self.send_part((&*frozen, part), (&mut packer, FromOld::Part), wire, until)?;
        }
        // New is busy with the last part meanwhile.
        let rest = self.known.at_freeze(&self.ahead);
        send(wire, &FromOld::State(Box::new(rest)), until)?;
        self.send_part((&*frozen, &last), (&mut packer, FromOld::Snapshot), wire, until)?;
        let sent = still.since.elapsed();
        let said = receive::<FromNew>(wire, until)?.0;
        let (froze, receipt) = (still.frozen_after, still.since.elapsed());
        tracing::debug!(?froze, ?sent, ?receipt, "sessions stand still");
        Ok(said)
    }

    /// Sends a part, after the sockets that new does not have yet.
    fn send_part<'a>(
        &self,
        (frozen, part): (&'a Frozen, &Part),
        (packer, message): (&mut Packer<'a>, fn(Box<Snapshot>) -> FromOld),
        wire: &mut Wire,
        until: Instant,
    ) -> Result<(), WireError> {
        let snapshot = frozen.pack(part, packer)?;
        let (sockets, bytes) = packer.take_part();
        let news = sockets.into_iter().filter(|(id, _)| !self.sent.contains(id)).map(|(_, socket)| socket);
        send_sockets(wire, news, until)?;
        send_with(wire, &message(Box::new(snapshot)), bytes, &[], until)
    }

    /// Lets new serve; how long all stood still.
    fn go(&self, still: &Still, wire: &mut Wire) -> Result<Duration, WireError> {
        let until = Instant::now() + SERVING;
        send(wire, &FromOld::Go { reload: self.reload_was_asked.load(SeqCst) }, until)?;
        let FromNew::Serving {} = receive(wire, until)?.0 else {
            return Err(WireError::Broken("it does not say that it serves"));
        };
        let stood = still.since.elapsed();
        let resumed = match receive(wire, Instant::now() + LAST_WORDS) {
            Ok((FromNew::Moved { us }, _)) => Duration::from_micros(us),
            // It serves, whatever it says then.
            _ => Duration::ZERO,
        };
        tracing::debug!(?stood, ?resumed, "sessions move");
        Ok(stood + resumed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_and_go_exclude_each_other() {
        let (first, second) = (Turn::default(), Turn::default());
        assert!(first.stop() && !first.go() && !first.has_gone());
        assert!(second.go() && !second.stop() && second.has_gone());
    }
}
