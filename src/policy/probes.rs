//! Datagrams that prove a way from outside: which ones are expected now.
//!
//! Owns their form and the ones that are expected, each for one listener. Touches no socket and
//! reads no clock.
//!
//! An operator asks another node to send a datagram with a number that nobody can guess. The
//! listener answers it, and no target sees it. A number is expected for [`TIME`] and answered
//! [`ANSWERS`] times, and [`MOST`] are expected at once. An answer is as long as its question, so a
//! forged source gains nothing. While none is expected, a datagram costs one load.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;

/// A number that is used once.
pub(crate) type Nonce = [u8; 16];

/// The bytes of a question, and of its answer.
pub(crate) const LENGTH: usize = 32;
/// How a question and an answer begin.
const QUESTION: [u8; 16] = *b"portway probe ?\n";
const ANSWER: [u8; 16] = *b"portway probe !\n";
/// How long a number is expected: longer than the other node tries.
const TIME: Duration = Duration::from_secs(20);
/// How often a number is answered: the other node repeats its question, as UDP may lose it.
const ANSWERS: u8 = 8;
/// How many numbers are expected at once.
const MOST: usize = 16;

/// The numbers that are expected.
#[derive(Debug, Default)]
pub(crate) struct Probes {
    /// Whether there may be any.
    any: AtomicBool,
    expected: Mutex<Vec<Expected>>,
}

#[derive(Debug)]
struct Expected {
    nonce: Nonce,
    /// The address and port of the listener that answers.
    listen: String,
    until: Instant,
    left: u8,
}

/// What becomes of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// It is answered with this.
    Answer([u8; LENGTH]),
    /// It is dropped: it came to another listener, or too often.
    Silence,
}

impl Probes {
    /// Expects a number at this listener for a while. Whether there was room for it.
    pub(crate) fn expect(&self, nonce: Nonce, listen: &str, now: Instant) -> bool {
        let mut expected = self.expected();
        expected.retain(|expected| expected.until > now);
        let has_room = expected.len() < MOST;
        if has_room {
            let listen = listen.to_owned();
            expected.push(Expected { nonce, listen, until: now + TIME, left: ANSWERS });
            self.any.store(true, Relaxed);
        }
        has_room
    }

    /// Whether any number may be expected.
    pub(crate) fn any(&self) -> bool {
        self.any.load(Relaxed)
    }

    /// What becomes of a datagram that has come to this listener; `None` where it is no question
    /// that is expected.
    pub(crate) fn take(
        &self,
        datagram: &[u8],
        listen: impl FnOnce() -> String,
        now: Instant,
    ) -> Option<Reply> {
        let nonce = nonce_of(datagram, QUESTION)?;
        let mut expected = self.expected();
        expected.retain(|expected| expected.until > now);
        self.any.store(!expected.is_empty(), Relaxed);
        let found = expected.iter_mut().find(|expected| expected.nonce == nonce)?;
        if found.left == 0 || found.listen != listen() {
            return Some(Reply::Silence);
        }
        found.left -= 1;
        Some(Reply::Answer(datagram_of(ANSWER, nonce)))
    }

    fn expected(&self) -> MutexGuard<'_, Vec<Expected>> {
        self.expected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The datagram that asks with this number.
#[cfg(feature = "api")]
pub(crate) fn question(nonce: Nonce) -> [u8; LENGTH] {
    datagram_of(QUESTION, nonce)
}

/// Whether a datagram is the answer to the question with this number.
#[cfg(feature = "api")]
pub(crate) fn is_answer(datagram: &[u8], nonce: Nonce) -> bool {
    nonce_of(datagram, ANSWER) == Some(nonce)
}

fn datagram_of(mark: [u8; 16], nonce: Nonce) -> [u8; LENGTH] {
    let mut datagram = [0; LENGTH];
    datagram[..mark.len()].copy_from_slice(&mark);
    datagram[mark.len()..].copy_from_slice(&nonce);
    datagram
}

fn nonce_of(datagram: &[u8], mark: [u8; 16]) -> Option<Nonce> {
    datagram.strip_prefix(&mark)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTEN: &str = "[::]:9080";
    const NONCE: Nonce = [7; 16];

    fn take(probes: &Probes, datagram: &[u8], listen: &str, now: Instant) -> Option<Reply> {
        probes.take(datagram, || listen.to_owned(), now)
    }

    #[test]
    fn a_question_is_answered_while_it_is_expected_and_by_its_listener_alone() {
        let (probes, now) = (Probes::default(), Instant::now());
        assert!(!probes.any() && take(&probes, &question(NONCE), LISTEN, now).is_none());
        assert!(probes.expect(NONCE, LISTEN, now) && probes.any());
        assert_eq!(take(&probes, &question([8; 16]), LISTEN, now), None);
        assert_eq!(take(&probes, &question(NONCE), "[::]:9081", now), Some(Reply::Silence));
        for _ in 0..ANSWERS {
            let Some(Reply::Answer(answer)) = take(&probes, &question(NONCE), LISTEN, now) else {
                panic!("no answer")
            };
            assert!(is_answer(&answer, NONCE) && !is_answer(&answer, [8; 16]));
            assert_eq!(take(&probes, &answer, LISTEN, now), None, "an answer is no question");
        }
        assert_eq!(take(&probes, &question(NONCE), LISTEN, now), Some(Reply::Silence), "too often");
        assert_eq!(take(&probes, &question(NONCE), LISTEN, now + TIME), None);
        assert!(!probes.any(), "the next datagram costs one load again");
    }

    #[test]
    fn what_is_not_whole_is_no_question() {
        let (probes, now) = (Probes::default(), Instant::now());
        probes.expect(NONCE, LISTEN, now);
        let whole = question(NONCE);
        let longer = [&whole[..], b"x"].concat();
        for datagram in [&b""[..], &whole[..16], &whole[..31], &whole[1..], &longer] {
            assert_eq!(take(&probes, datagram, LISTEN, now), None);
        }
    }

    #[test]
    fn there_is_room_for_a_few_and_again_when_their_time_is_over() {
        let (probes, now) = (Probes::default(), Instant::now());
        let number = |nth: usize| [u8::try_from(nth).unwrap(); 16];
        assert!((0..MOST).all(|nth| probes.expect(number(nth), LISTEN, now)));
        assert!(!probes.expect(number(MOST), LISTEN, now));
        assert!(probes.expect(number(MOST), LISTEN, now + TIME));
    }
}
