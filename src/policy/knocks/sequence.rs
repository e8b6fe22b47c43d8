//! The classic way to knock: ports in an order. Pure: times are arguments.
//!
//! A client touches the ports of the sequence one after the other, each within [`STEP`] of the one
//! before. A wrong port of the sequence begins again. Anyone who sees the touches can repeat them,
//! and the sender of a datagram may be forged: this keeps out scans and nothing more.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use crate::mapping::{ClientKey, Protocol};

/// How long a client may take for the next port.
const STEP: Duration = Duration::from_secs(10);
/// Clients that are under way at a time; the one that has the least time left makes room.
const MOST: usize = 4096;

/// A port of the sequence.
pub(crate) type Port = (Protocol, u16);

/// How far clients are.
#[derive(Debug, Default)]
pub(super) struct Progress(HashMap<ClientKey, (usize, Instant)>);

impl Progress {
    /// A client touches a port. Returns whether it has touched all of them in order.
    pub(super) fn touch(&mut self, sequence: &[Port], client: ClientKey, port: Port, now: Instant) -> bool {
        let before = self.0.remove(&client).filter(|(_, ends)| *ends > now).map_or(0, |(done, _)| done);
        // A repeated datagram of the last step changes nothing.
        let is_repeated = before > 0 && sequence.get(before - 1) == Some(&port);
        let done = match sequence.get(before) {
            Some(next) if *next == port => before + 1,
            _ if is_repeated => before,
            _ => usize::from(sequence.first() == Some(&port)),
        };
        if done == sequence.len() && done > 0 {
            return true;
        }
        if done > 0 {
            self.make_room(now);
            self.0.insert(client, (done, now + STEP));
        }
        false
    }

    /// Forgets everyone: the sequence has changed.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    fn make_room(&mut self, now: Instant) {
        if self.0.len() < MOST {
            return;
        }
        self.0.retain(|_, (_, ends)| *ends > now);
        if self.0.len() >= MOST
            && let Some(first) = self.0.iter().min_by_key(|(_, (_, ends))| *ends).map(|(client, _)| *client)
        {
            self.0.remove(&first);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const SEQUENCE: [Port; 3] = [(Protocol::Tcp, 7000), (Protocol::Udp, 8000), (Protocol::Tcp, 9000)];

    fn client(n: u32) -> ClientKey {
        ClientKey::of(Ipv4Addr::from(n).into())
    }

    /// Whether these touches of one client, a second apart, open.
    fn opens(touches: &[Port]) -> bool {
        let (mut progress, now) = (Progress::default(), Instant::now());
        let opened = touches
            .iter()
            .zip(0..)
            .map(|(port, n)| progress.touch(&SEQUENCE, client(1), *port, now + n * Duration::from_secs(1)));
        opened.last() == Some(true)
    }

    #[test]
    fn the_ports_in_order_open_and_in_no_other() {
        let [a, b, c] = SEQUENCE;
        assert!(opens(&[a, b, c]) && opens(&[c, a, b, c]) && opens(&[a, b, b, c]) && opens(&[a, c, a, b, c]));
        for wrong in [&[a, c, b][..], &[b, c], &[c], &[a, b, a, c], &[(Protocol::Udp, 7000), b, c]] {
            assert!(!opens(wrong), "{wrong:?}");
        }
    }

    #[test]
    fn each_client_goes_its_own_way_and_a_slow_one_begins_again() {
        let (mut progress, now, [a, b, c]) = (Progress::default(), Instant::now(), SEQUENCE);
        assert!(!progress.touch(&SEQUENCE, client(1), a, now));
        assert!(!progress.touch(&SEQUENCE, client(2), b, now));
        assert!(!progress.touch(&SEQUENCE, client(1), b, now + STEP / 2));
        assert!(!progress.touch(&SEQUENCE, client(2), c, now));
        assert!(!progress.touch(&SEQUENCE, client(1), c, now + 2 * STEP));
    }

    #[test]
    fn a_crowd_takes_bounded_memory() {
        let (mut progress, now) = (Progress::default(), Instant::now());
        for n in 0..20_000 {
            progress.touch(&SEQUENCE, client(n), SEQUENCE[0], now);
        }
        assert_eq!(progress.0.len(), MOST);
    }
}
