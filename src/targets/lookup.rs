//! Lookups by the system resolver, each on a thread of its own.
//!
//! `getaddrinfo` blocks, for half a minute where a name server is silent, and longer where a module
//! of the system hangs. So lookups must not wait for each other, and their threads must not become
//! many:
//!
//! - A lookup takes one of [`QUICK`] places. After [`SLOW_AFTER`] it moves to one of [`SLOW`] other
//!   places, and the place is free for the next name. A name whose last lookup was slow starts
//!   there.
//! - Each place stands for one thread, until that thread ends. When all slow places are taken, slow
//!   lookups keep the quick ones. So there are never more than [`QUICK`] + [`SLOW`] threads.
//! - [`GIVE_UP`] ends the wait for a thread, though not the thread. One name has at most
//!   [`THREADS_A_NAME`] threads.
//!
//! The number also bounds the descriptors that lookups use.

use std::{
    net::{IpAddr, ToSocketAddrs},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};

use crate::job::{self, JobError};

/// Lookups under way at once, less the slow ones.
const QUICK: usize = 32;
/// Slow lookups under way at once.
const SLOW: usize = 96;
/// A lookup is slow after so long.
const SLOW_AFTER: Duration = Duration::from_millis(500);
/// A lookup that takes longer has failed.
const GIVE_UP: Duration = Duration::from_secs(60);
/// The threads that may hang for one name.
const THREADS_A_NAME: usize = 2;

/// How a lookup came out.
pub(super) type LookupResult = Result<Arc<[IpAddr]>, Arc<str>>;

/// What is remembered of a name's lookups from one to the next.
#[derive(Clone, Debug, Default)]
pub(super) struct Past {
    /// The last one was slow.
    pub(super) was_slow: bool,
    /// Each thread that still runs holds one.
    threads: Arc<()>,
}

/// The places of lookups.
#[derive(Debug)]
pub(super) struct Lookups {
    quick: Arc<Semaphore>,
    slow: Arc<Semaphore>,
}

impl Default for Lookups {
    fn default() -> Self {
        Self { quick: Arc::new(Semaphore::new(QUICK)), slow: Arc::new(Semaphore::new(SLOW)) }
    }
}

impl Lookups {
    /// The addresses of `name`, each once, and whether it took long to find them.
    pub(super) async fn ask(&self, name: &Arc<str>, past: Past) -> (LookupResult, bool) {
        let name = Arc::clone(name);
        self.run(past, move || system(&name)).await
    }

    async fn run(
        &self,
        past: Past,
        work: impl FnOnce() -> LookupResult + Send + 'static,
    ) -> (LookupResult, bool) {
        let was_slow = past.was_slow;
        // This past is one, and the name's entry has the other.
        if Arc::strong_count(&past.threads) >= THREADS_A_NAME + 2 {
            return (Err("earlier lookups of the name still hang".into()), true);
        }
        let places = if was_slow { &self.slow } else { &self.quick };
        let Ok(place) = Arc::clone(places).acquire_owned().await else {
            return (Err("the lookup was given up".into()), was_slow);
        };
        // The thread frees the place, and it may have moved by then.
        let place = Arc::new(Mutex::new(place));
        let held = (Arc::clone(&place), past);
        let started = job::start("portway-name", move || {
            let answer = work();
            drop(held);
            answer
        });
        let mut answer = match started {
            Ok(job) => job,
            Err(error) => return (Err(error.to_string().into()), was_slow),
        };
        if let Ok(answer) = timeout(SLOW_AFTER, &mut answer).await {
            return (flat(answer), false);
        }
        let waited = async {
            if was_slow {
                return flat(answer.await);
            }
            tokio::select! {
                answer = &mut answer => return flat(answer),
                Ok(slow) = Arc::clone(&self.slow).acquire_owned() => move_to(&place, slow),
            }
            flat(answer.await)
        };
        tokio::select! {
            answer = waited => (answer, true),
            () = sleep(GIVE_UP) => (Err(format!("no answer within {} s", GIVE_UP.as_secs()).into()), true),
        }
    }
}

fn move_to(place: &Mutex<OwnedSemaphorePermit>, to: OwnedSemaphorePermit) {
    *place.lock().unwrap_or_else(PoisonError::into_inner) = to;
}

fn flat(answer: Result<LookupResult, JobError>) -> LookupResult {
    answer.unwrap_or_else(|error| Err(error.to_string().into()))
}

fn system(name: &str) -> LookupResult {
    // The port plays no part in the lookup; getaddrinfo wants one.
    let found = (name, 0).to_socket_addrs().map_err(|e| Arc::from(e.to_string()))?;
    let mut ips: Vec<IpAddr> = Vec::new();
    for addr in found {
        if !ips.contains(&addr.ip()) {
            ips.push(addr.ip());
        }
    }
    Ok(ips.into())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tokio::task::{JoinSet, yield_now};

    use super::*;

    /// So many lookups that hang until the sender is dropped.
    fn hang(
        lookups: &Arc<Lookups>,
        count: usize,
        tasks: &mut JoinSet<(LookupResult, bool)>,
    ) -> Vec<mpsc::Sender<()>> {
        let mut ends = Vec::new();
        for _ in 0..count {
            let (end, until) = mpsc::channel::<()>();
            ends.push(end);
            let lookups = Arc::clone(lookups);
            let work = move || {
                let _ = until.recv();
                Ok([].into())
            };
            tasks.spawn(async move { lookups.run(Past::default(), work).await });
        }
        ends
    }

    #[tokio::test]
    async fn lookups_that_hang_hold_up_no_other_name() {
        let (lookups, mut tasks) = (Arc::new(Lookups::default()), JoinSet::new());
        let ends = hang(&lookups, QUICK + 30, &mut tasks);
        while lookups.quick.available_permits() > 0 {
            yield_now().await;
        }
        let (answer, slow) = lookups.run(Past::default(), || Ok([].into())).await;
        assert!(answer.is_ok() && !slow);
        drop(ends);
        while let Some(done) = tasks.join_next().await {
            assert!(done.unwrap().0.is_ok());
        }
        assert_eq!((lookups.quick.available_permits(), lookups.slow.available_permits()), (QUICK, SLOW));
    }

    #[tokio::test]
    async fn the_threads_of_a_name_are_bounded() {
        let (lookups, past) = (Lookups::default(), Past::default());
        let (end, until) = mpsc::channel::<()>();
        let until = Arc::new(Mutex::new(until));
        let hang = || {
            let until = Arc::clone(&until);
            move || {
                let _ = until.lock().unwrap().recv();
                Ok([].into())
            }
        };
        // The wait of a caller ends, and the thread stays.
        for _ in 0..THREADS_A_NAME {
            let wait = timeout(Duration::from_millis(1), lookups.run(past.clone(), hang())).await;
            assert!(wait.is_err());
        }
        let (answer, slow) = lookups.run(past.clone(), hang()).await;
        assert!(answer.is_err_and(|e| e.contains("hang")) && slow);
        drop(end);
        while Arc::strong_count(&past.threads) > 1 {
            yield_now().await;
        }
        assert!(lookups.run(past, || Ok([].into())).await.0.is_ok());
    }
}
