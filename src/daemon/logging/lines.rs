//! Carries log lines to standard error: through a buffer, by a thread of its own.
//!
//! The data plane logs a line when a session ends, and the reader of the log may be slow, or stop
//! reading (a pager, a stopped container runtime). So logging never waits for the reader, and makes
//! no system call:
//!
//! - A line is copied into a buffer of [`CAPACITY`], under a lock that is held for the copy alone.
//!   A line without room is lost and counted. When there is room again, one line has the count.
//! - The thread sleeps until the first line, writes, and rests for [`REST`] while more lines
//!   gather. It is woken for the first line after a quiet time, and when the buffer is half full.
//! - It writes whole lines, as many at once as a pipe takes as a whole ([`AT_ONCE`]). So neither
//!   another writer nor the end of the program tears a line.
//! - A reader that has gone (`EPIPE`) or a full disk ends nothing: what cannot be written is
//!   dropped.
//!
//! It lives as long as the program. [`Lines::flush`] waits for what was logged before it, as long
//! as lines are written.
//!
//! Not `tracing-appender`, which does much of this: it allocates for each line, wakes its thread
//! for each line, writes each with a call of its own, bounds lines in place of bytes, and does not
//! report lost lines.

use std::{
    io::{self, Write},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
};

use crate::job;

/// The bytes that may wait; the thread may hold as many again.
const CAPACITY: usize = 1 << 20;
/// What the buffers keep when they are empty.
const KEPT: usize = 64 << 10;
/// What a pipe takes as a whole or not at all (`PIPE_BUF`, pipe(7)).
const AT_ONCE: usize = 4096;
/// For how long lines gather, at most.
const REST: Duration = Duration::from_millis(5);
/// A reader that has taken nothing for this long is not waited for at the end.
const GIVE_UP: Duration = Duration::from_secs(1);
const THREAD: &str = "portway-log";

/// Where lines go: what the loggers share with the thread.
#[derive(Debug, Default)]
pub(super) struct Lines {
    state: Mutex<State>,
    /// There is something to do for the thread.
    work: Condvar,
    /// Something was written.
    progress: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Whole lines.
    buffer: Vec<u8>,
    /// Lines that found no room, and of which nothing was said yet.
    lost: u64,
    /// The thread waits for a first line.
    asleep: bool,
    /// The thread must not rest.
    hurry: bool,
    /// All bytes that were ever taken into the buffer, and those that are done with.
    taken: u64,
    done: u64,
}

impl Lines {
    /// Starts the thread that writes to standard error.
    pub(super) fn start() -> io::Result<Arc<Self>> {
        Self::to(Stderr, |lines| {
            tracing::warn!(lines, "log lines lost: the reader of the log is too slow");
        })
    }

    /// Starts a thread that writes to `out`; `tell` logs how many lines were lost.
    fn to(out: impl Write + Send + 'static, tell: impl Fn(u64) + Send + 'static) -> io::Result<Arc<Self>> {
        let lines = Arc::<Self>::default();
        let scribe = Scribe { lines: Arc::clone(&lines), out, unwritten: 0 };
        job::thread(THREAD, move || scribe.run(tell)).map_err(|(error, _)| error)?;
        Ok(lines)
    }

    /// Waits until everything that was logged is written, or the reader takes nothing any more.
    pub(super) fn flush(&self) {
        if thread::current().name() == Some(THREAD) {
            return;
        }
        // The thread logs how many lines were lost before it writes the others: the second time,
        // that is written, too.
        for _ in 0..2 {
            self.settle();
        }
    }

    fn add(&self, line: &[u8]) {
        let mut state = self.state();
        let before = state.buffer.len();
        if before + line.len() > CAPACITY {
            state.lost += 1;
        } else {
            state.buffer.extend_from_slice(line);
            state.taken += line.len() as u64;
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

    /// Waits until the lines so far are written or dropped, and lost lines are reported, as long as
    /// lines are written.
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

    /// Waits for lines and puts them in the place of the empty `batch`; says how many were lost
    /// after them.
    fn next(&self, batch: &mut Vec<u8>) -> u64 {
        let mut state = self.state();
        while state.buffer.is_empty() && state.lost == 0 {
            state.asleep = true;
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.asleep = false;
        std::mem::swap(&mut state.buffer, batch);
        state.lost
    }

    /// Notes that it is logged how many lines were lost.
    fn told(&self, lost: u64) {
        self.state().lost -= lost;
        self.progress.notify_all();
    }

    /// Lets lines gather.
    fn rest(&self) {
        let rested = self.work.wait_timeout_while(self.state(), REST, |state| !state.hurry);
        rested.unwrap_or_else(PoisonError::into_inner).0.hurry = false;
    }
}

/// Every write is a whole line, as the formatter makes it.
impl Write for &Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.add(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The thread that writes.
struct Scribe<W> {
    lines: Arc<Lines>,
    out: W,
    /// Lines that could not be written, since the last one that could.
    unwritten: u64,
}

impl<W: Write> Scribe<W> {
    fn run(mut self, tell: impl Fn(u64)) {
        let mut batch = Vec::new();
        loop {
            let lost = self.lines.next(&mut batch);
            if lost > 0 {
                tell(lost);
                self.lines.told(lost);
            }
            self.write(&batch);
            batch.clear();
            batch.shrink_to(KEPT);
            self.lines.rest();
        }
    }

    fn write(&mut self, mut lines: &[u8]) {
        while !lines.is_empty() {
            let (piece, rest) = lines.split_at(piece(lines));
            let written = self.out.write_all(piece).is_ok();
            let mut state = self.lines.state();
            state.done += piece.len() as u64;
            if written {
                state.lost += std::mem::take(&mut self.unwritten);
            } else {
                self.unwritten += piece.iter().filter(|byte| **byte == b'\n').count() as u64;
            }
            drop(state);
            self.lines.progress.notify_all();
            lines = rest;
        }
    }
}

/// How many of these bytes are written at once: whole lines, and more than [`AT_ONCE`] only where
/// one line has more.
fn piece(lines: &[u8]) -> usize {
    let is_end = |byte: &u8| *byte == b'\n';
    let within = lines.len().min(AT_ONCE);
    let last = lines[..within].iter().rposition(is_end);
    last.or_else(|| lines.iter().position(is_end)).map_or(lines.len(), |end| end + 1)
}

/// Standard error without the lock that the rest of the program would wait for, and also where
/// someone has made it non-blocking: it may be shared with other programs.
struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let stderr = io::stderr();
        loop {
            match rustix::io::write(&stderr, bytes) {
                Err(Errno::AGAIN) => drop(poll(&mut [PollFd::new(&stderr, PollFlags::OUT)], None)),
                written => return Ok(written?),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        OnceLock,
        mpsc::{Receiver, Sender, channel},
    };

    use super::*;

    type Written = Arc<Mutex<Vec<Vec<u8>>>>;

    /// Takes one piece for each word of the test, and every piece once the test has hung up.
    struct Reader {
        may: Receiver<io::Result<()>>,
        written: Written,
    }

    impl Write for Reader {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let word = self.may.recv().unwrap_or(Ok(()));
            self.written.lock().unwrap().push(bytes.to_vec());
            word.map(|()| bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn lines() -> (Arc<Lines>, Sender<io::Result<()>>, Written) {
        let ((word, may), written) = (channel(), Written::default());
        let reader = Reader { may, written: Arc::clone(&written) };
        let own = Arc::new(OnceLock::<Arc<Lines>>::new());
        let teller = Arc::clone(&own);
        let tell = move |lost: u64| teller.wait().add(format!("lost {lost}\n").as_bytes());
        let lines = Lines::to(reader, tell).unwrap();
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
                        lines.add(format!("{name} {n} {}\n", "x".repeat(n % 100)).as_bytes());
                    }
                });
            }
        });
        lines.add(format!("{}\n", "long".repeat(AT_ONCE)).as_bytes());
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
        let line = format!("{}\n", "x".repeat(1023));
        let total = 3 * CAPACITY / line.len();
        (0..total).for_each(|_| lines.add(line.as_bytes()));
        assert!(lines.state().buffer.len() <= CAPACITY);
        drop(word);
        lines.flush();
        let text = text(&written);
        let kept = text.lines().filter(|said| said.starts_with('x')).count();
        let lost =
            text.lines().filter_map(|said| said.strip_prefix("lost ")).map(|n| n.parse::<usize>().unwrap());
        assert_eq!(kept + lost.sum::<usize>(), total);
        assert!((CAPACITY / line.len()..=2 * CAPACITY / line.len()).contains(&kept), "{kept} kept");
        lines.add(b"after\n");
        lines.flush();
        assert!(self::text(&written).ends_with("after\n"));
    }

    #[test]
    fn a_flush_gives_up_on_a_reader_that_takes_nothing() {
        let (lines, word, written) = lines();
        lines.add(b"one\n");
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
            lines.add(b"lost\n");
            lines.flush();
        }
        assert_eq!(text(&written), "lost\nlost\n", "each was tried once");
        drop(word);
        lines.add(b"kept\n");
        lines.flush();
        assert_eq!(text(&written), "lost\nlost\nkept\nlost 2\n");
    }
}
