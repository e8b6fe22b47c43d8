//! Carries the log from those who log to its sink: through a buffer, by a thread of its own.
//!
//! The data plane logs a line when a session ends, and the sink may be slow, or take nothing (a
//! pager, a stopped container runtime, a syslog server that is down). So logging never waits for
//! the sink, and makes no system call:
//!
//! - A record is copied into a buffer of [`CAPACITY`], under a lock that is held for the copy
//!   alone. A record without room is lost and counted. When there is room again, one line has the
//!   count.
//! - The thread sleeps until the first record, writes, and rests for [`REST`] while more gather. It
//!   is woken for the first record after a quiet time, and when the buffer is half full.
//! - It gives records the form of the sink, and sends whole ones, as many at once as the sink takes
//!   as a whole. So neither another writer nor the end of the program tears a line.
//! - A sink that is away holds the records back, until the buffer is full. What a sink cannot take
//!   (a reader that has gone, a full disk) is dropped and counted. Neither ends anything. The first
//!   failure of a run is reported on standard error, unless that is the sink.
//! - An [`Order`] replaces the sink, also while the old one takes nothing: what it has not taken
//!   goes to the next one. A sink that cannot be opened is refused, and the old one stays.
//!
//! It lives as long as the program. [`Lines::flush`] waits for what was logged before it, as long
//! as records are sent.
//!
//! Not `tracing-appender`, which does some of this: it allocates for each line, wakes its thread
//! for each line, writes each with a call of its own, bounds lines in place of bytes, and does not
//! report lost lines.

use std::{
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use tokio::time::Instant;

use super::{
    record::Records,
    sink::{Sent, Sink, warn_on_stderr},
};
use crate::{
    config::{LogFormat, LogTarget},
    job,
};

/// The bytes that may wait; the thread may hold as many again.
const CAPACITY: usize = 1 << 20;
/// What the buffers keep when they are empty.
const KEPT: usize = 64 << 10;
/// For how long records gather, at most.
const REST: Duration = Duration::from_millis(5);
/// How long the thread waits for a sink before it looks for orders.
const SLICE: Duration = Duration::from_millis(100);
/// A sink that has taken nothing for this long is not waited for at the end.
const GIVE_UP: Duration = Duration::from_secs(1);
/// How often standard error hears of a sink that fails again and again.
const QUIET: Duration = Duration::from_secs(60);
const THREAD: &str = "portway-log";

/// A change of the sink.
#[derive(Clone, Debug)]
pub(super) enum Order {
    /// Open the file again.
    Reopen,
    /// Write to this target, in this format.
    Use(LogTarget, LogFormat),
}

/// Where records go: what the loggers share with the thread.
#[derive(Debug, Default)]
pub(super) struct Lines {
    state: Mutex<State>,
    /// There is something to do for the thread.
    work: Condvar,
    /// Something was sent.
    progress: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Whole records.
    buffer: Vec<u8>,
    /// Records that found no room, and of which nothing was said yet.
    lost: u64,
    /// The thread waits for a first record.
    asleep: bool,
    /// The thread must not rest.
    hurry: bool,
    /// All bytes that were ever taken into the buffer, and those that are done with.
    taken: u64,
    done: u64,
    /// What was not done yet. A later order of the same kind replaces an earlier one, so there are
    /// few.
    orders: Vec<Order>,
}

impl Lines {
    /// Starts the thread that sends to `sink`.
    pub(super) fn start(sink: Sink) -> io::Result<Arc<Self>> {
        Self::to(sink, |lines| {
            tracing::warn!(lines, "log lines lost: the log target was too slow, away or full");
        })
    }

    /// Starts a thread that sends to `sink`; `tell` logs how many records were lost.
    fn to(sink: Sink, tell: impl Fn(u64) + Send + 'static) -> io::Result<Arc<Self>> {
        let lines = Arc::<Self>::default();
        let scribe = Scribe::new(Arc::clone(&lines), sink);
        job::thread(THREAD, move || scribe.run(tell)).map_err(|(error, _)| error)?;
        Ok(lines)
    }

    /// Gives an order to the thread, which does it at once.
    pub(super) fn order(&self, order: Order) {
        let mut state = self.state();
        state.orders.retain(|other| std::mem::discriminant(other) != std::mem::discriminant(&order));
        state.orders.push(order);
        (state.asleep, state.hurry) = (false, true);
        drop(state);
        self.work.notify_one();
    }

    /// Waits until everything that was logged is sent, or the sink takes nothing any more.
    pub(super) fn flush(&self) {
        if thread::current().name() == Some(THREAD) {
            return;
        }
        // The thread logs how many records were lost before it sends the others: the second time,
        // that is sent, too.
        for _ in 0..2 {
            self.settle();
        }
    }

    /// Takes a record.
    pub(super) fn add(&self, record: &[u8]) {
        let mut state = self.state();
        let before = state.buffer.len();
        if before + record.len() > CAPACITY {
            state.lost += 1;
        } else {
            state.buffer.extend_from_slice(record);
            state.taken += record.len() as u64;
        }
        let is_half_full = before < CAPACITY / 2 && state.buffer.len() >= CAPACITY / 2;
        state.hurry |= is_half_full;
        let wake = std::mem::take(&mut state.asleep) || is_half_full;
        drop(state);
        if wake {
            self.work.notify_one();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the records so far are sent or dropped, and lost records are reported, as long
    /// as records are sent.
    fn settle(&self) {
        let mut state = self.state();
        let goal = state.taken;
        let is_settled = |state: &State| state.done >= goal && state.lost == 0;
        while !is_settled(&state) {
            let before = state.done;
            state.hurry = true;
            self.work.notify_one();
            let stands = |state: &mut State| state.done == before && !is_settled(state);
            let waited = self.progress.wait_timeout_while(state, GIVE_UP, stands);
            let (after, waited) = waited.unwrap_or_else(PoisonError::into_inner);
            if waited.timed_out() {
                return;
            }
            state = after;
        }
    }

    /// Waits for records or orders, and puts the records in the place of the empty `batch`; says
    /// how many were lost after them.
    fn next(&self, batch: &mut Vec<u8>) -> u64 {
        let mut state = self.state();
        while state.buffer.is_empty() && state.lost == 0 && state.orders.is_empty() {
            state.asleep = true;
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.asleep = false;
        std::mem::swap(&mut state.buffer, batch);
        state.lost
    }

    /// Notes that it is logged how many records were lost.
    fn told(&self, lost: u64) {
        self.state().lost -= lost;
        self.progress.notify_all();
    }

    /// Lets records gather.
    fn rest(&self) {
        let rested = self.work.wait_timeout_while(self.state(), REST, |state| !state.hurry);
        rested.unwrap_or_else(PoisonError::into_inner).0.hurry = false;
    }
}

/// The thread that sends.
struct Scribe {
    lines: Arc<Lines>,
    sink: Sink,
    /// Records that could not be sent, since the last one that could.
    unsent: u64,
    /// The last record was begun and not ended.
    is_torn: bool,
    /// The sink fails since its last success.
    fails: bool,
    /// When standard error heard of it.
    reported: Option<Instant>,
    piece: Piece,
}

/// Records in the form of the sink.
#[derive(Debug, Default)]
struct Piece {
    bytes: Vec<u8>,
    /// Where each record ends: in `bytes`, and in the batch.
    ends: Vec<(usize, usize)>,
}

impl Piece {
    /// How many records are whole in so many bytes.
    fn whole_in(&self, bytes: usize) -> usize {
        self.ends.partition_point(|(end, _)| *end <= bytes)
    }

    /// Takes records from the start of `batch`: as many as the sink takes at once, but one at
    /// least.
    fn fill(&mut self, sink: &Sink, batch: &[u8]) {
        self.ends.clear();
        let mut records = Records::of(batch);
        while let Some(record) = records.next() {
            let before = self.bytes.len();
            if before >= sink.room() && !self.ends.is_empty() {
                return;
            }
            sink.shape(&mut self.bytes, record);
            if self.bytes.len() > sink.room() && !self.ends.is_empty() {
                self.bytes.truncate(before);
                return;
            }
            self.ends.push((self.bytes.len(), batch.len() - records.left()));
        }
    }
}

impl Scribe {
    fn new(lines: Arc<Lines>, sink: Sink) -> Self {
        let piece = Piece::default();
        Self { lines, sink, unsent: 0, is_torn: false, fails: false, reported: None, piece }
    }

    fn run(mut self, tell: impl Fn(u64)) {
        let mut batch = Vec::new();
        loop {
            let lost = self.lines.next(&mut batch);
            if lost > 0 {
                tell(lost);
                self.lines.told(lost);
            }
            self.write(&batch);
            // What was logged before an order goes to the old sink, if that takes it.
            self.obey();
            batch.clear();
            batch.shrink_to(KEPT);
            self.lines.rest();
        }
    }

    fn write(&mut self, mut batch: &[u8]) {
        while !batch.is_empty() {
            let mut piece = std::mem::take(&mut self.piece);
            piece.bytes.clear();
            if std::mem::take(&mut self.is_torn) {
                piece.bytes.extend_from_slice(self.sink.mend());
            }
            piece.fill(&self.sink, batch);
            let done = self.deliver(&piece);
            // What is no record would be an error of this program; it is dropped.
            let bytes = if piece.ends.is_empty() { batch.len() } else { done };
            self.lines.state().done += bytes as u64;
            self.lines.progress.notify_all();
            piece.bytes.shrink_to(KEPT);
            self.piece = piece;
            batch = &batch[bytes..];
        }
    }

    /// Sends a piece, and says how many bytes of the batch are done with. Where these are not all,
    /// the rest has to get its form once more.
    fn deliver(&mut self, piece: &Piece) -> usize {
        let Piece { bytes, ends } = piece;
        let done = |records: usize| records.checked_sub(1).map_or(0, |last| ends[last].1);
        let whole = |sent| piece.whole_in(sent);
        let mut sent = 0;
        while sent < bytes.len() {
            match self.sink.send(&bytes[sent..]) {
                Sent::Bytes(more) => {
                    sent += more;
                    self.succeeded();
                }
                Sent::Restarted => return done(whole(sent)),
                Sent::Failed(error) => {
                    self.report(&error);
                    self.is_torn = ends.iter().all(|(end, _)| *end != sent) && sent > 0;
                    self.unsent += (ends.len() - whole(sent)) as u64;
                    return done(ends.len());
                }
                waits => {
                    if let Sent::Away(error) = waits {
                        self.report(&error);
                    }
                    if self.obey() {
                        return done(whole(sent));
                    }
                    self.sink.wait(SLICE);
                }
            }
        }
        done(ends.len())
    }

    /// Notes that the sink takes something, and how many records were lost before.
    fn succeeded(&mut self) {
        self.fails = false;
        let lost = std::mem::take(&mut self.unsent) + self.sink.missed();
        if lost > 0 {
            self.lines.state().lost += lost;
        }
    }

    /// Reports the first failure of a run on standard error.
    fn report(&mut self, error: &io::Error) {
        let is_first = !std::mem::replace(&mut self.fails, true);
        let is_quiet = self.reported.is_none_or(|at| at.elapsed() >= QUIET);
        if is_first && is_quiet && *self.sink.target() != LogTarget::Stderr {
            self.reported = Some(Instant::now());
            let target = self.sink.target();
            warn_on_stderr(&format!(
                "portway: the log target {target} takes no lines: {error}; lines may be lost until it does"
            ));
        }
    }

    /// Does what was ordered. Says whether another sink is there now.
    fn obey(&mut self) -> bool {
        let orders = std::mem::take(&mut self.lines.state().orders);
        let mut replaced = false;
        for order in orders {
            replaced |= match order {
                Order::Reopen => self.reopen(),
                Order::Use(target, format) => self.change(&target, format),
            };
        }
        if replaced {
            (self.is_torn, self.fails, self.reported) = (false, false, None);
        }
        self.lines.progress.notify_all();
        replaced
    }

    fn reopen(&mut self) -> bool {
        match self.sink.reopen() {
            Ok(reopened) => reopened,
            Err(error) => {
                tracing::warn!(target = %self.sink.target(), %error, "log file not reopened; the old one stays");
                false
            }
        }
    }

    fn change(&mut self, target: &LogTarget, format: LogFormat) -> bool {
        if target == self.sink.target() {
            self.sink.set_format(format);
            return false;
        }
        let opened = Sink::open(target, format).and_then(|mut sink| sink.reach().map(|()| sink));
        match opened {
            Ok(sink) => {
                let old = std::mem::replace(&mut self.sink, sink);
                tracing::info!(target = %target, old = %old.target(), "log target changed");
                true
            }
            Err(error) => {
                let old = self.sink.target();
                tracing::warn!(%target, %old, %error, "log target not changed: the new one cannot be opened");
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        OnceLock,
        mpsc::{Receiver, Sender, channel},
    };

    use rustix::io::Errno;

    use super::*;
    use crate::daemon::logging::{
        record::tests::record_of,
        sink::tests::{AT_ONCE, sink},
    };

    type Written = Arc<Mutex<Vec<Vec<u8>>>>;

    /// Takes one piece for each word of the test, and every piece once the test has hung up.
    struct Reader {
        may: Receiver<io::Result<()>>,
        written: Written,
    }

    impl io::Write for Reader {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let word = self.may.recv().unwrap_or(Ok(()));
            self.written.lock().unwrap().push(bytes.to_vec());
            word.map(|()| bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Logs a line.
    fn say(lines: &Lines, text: &str) {
        lines.add(&record_of(text));
    }

    fn lines() -> (Arc<Lines>, Sender<io::Result<()>>, Written) {
        let ((word, may), written) = (channel(), Written::default());
        let reader = Reader { may, written: Arc::clone(&written) };
        let own = Arc::new(OnceLock::<Arc<Lines>>::new());
        let teller = Arc::clone(&own);
        let tell = move |lost: u64| say(teller.wait(), &format!("lost {lost}"));
        let lines = Lines::to(sink(Box::new(reader)), tell).unwrap();
        own.set(lines.clone()).unwrap();
        (lines, word, written)
    }

    /// All that was written, with every piece checked.
    fn text(written: &Written) -> String {
        let pieces = written.lock().unwrap().clone();
        for piece in &pieces {
            assert!(piece.ends_with(b"\n"), "a torn line");
            let count = piece.iter().filter(|byte| **byte == b'\n').count();
            assert!(piece.len() <= AT_ONCE || count == 1, "{} bytes at once", piece.len());
        }
        String::from_utf8(pieces.concat()).unwrap()
    }

    #[test]
    fn lines_of_many_threads_are_whole_and_each_threads_are_in_order() {
        let (lines, word, written) = lines();
        drop(word);
        thread::scope(|scope| {
            for name in ["a", "b", "c"] {
                let lines = &lines;
                scope.spawn(move || {
                    for n in 0..2_000 {
                        say(lines, &format!("{name} {n} {}", "x".repeat(n % 100)));
                    }
                });
            }
        });
        say(&lines, &"long".repeat(AT_ONCE));
        lines.flush();
        let text = text(&written);
        for name in ["a", "b", "c"] {
            let said = text.lines().filter_map(|line| line.strip_prefix(name)?.split(' ').nth(1));
            assert!(said.eq((0..2_000).map(|n| n.to_string())), "those of {name}");
        }
        assert_eq!(text.lines().count(), 6_001);
        let calls = written.lock().unwrap().len();
        assert!(calls < 1_000, "{calls} calls for 6001 lines");
    }

    #[test]
    fn a_reader_that_does_not_read_stops_nobody_and_what_is_lost_is_counted() {
        let (lines, word, written) = lines();
        let line = record_of(&"x".repeat(1023));
        let total = 3 * CAPACITY / line.len();
        (0..total).for_each(|_| lines.add(&line));
        assert!(lines.state().buffer.len() <= CAPACITY);
        drop(word);
        lines.flush();
        let text = text(&written);
        let kept = text.lines().filter(|said| said.starts_with('x')).count();
        let lost =
            text.lines().filter_map(|said| said.strip_prefix("lost ")).map(|n| n.parse::<usize>().unwrap());
        assert_eq!(kept + lost.sum::<usize>(), total);
        assert!((CAPACITY / line.len()..=2 * CAPACITY / line.len()).contains(&kept), "{kept} kept");
        say(&lines, "after");
        lines.flush();
        assert!(self::text(&written).ends_with("after\n"));
    }

    #[test]
    fn a_flush_gives_up_on_a_reader_that_takes_nothing() {
        let (lines, word, written) = lines();
        say(&lines, "one");
        lines.flush();
        assert_eq!(text(&written), "");
        drop(word);
        lines.flush();
        assert_eq!(text(&written), "one\n");
    }

    #[test]
    fn what_cannot_be_written_is_let_go_and_told_when_something_can_be() {
        let (lines, word, written) = lines();
        for error in [Errno::PIPE, Errno::NOSPC] {
            word.send(Err(error.into())).unwrap();
            say(&lines, "lost");
            lines.flush();
        }
        assert_eq!(text(&written), "lost\nlost\n", "each was tried once");
        drop(word);
        say(&lines, "kept");
        lines.flush();
        assert_eq!(text(&written), "lost\nlost\nkept\nlost 2\n");
    }
}
