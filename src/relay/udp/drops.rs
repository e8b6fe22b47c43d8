//! Counts the datagrams that were not forwarded, by reason.
//!
//! A dropped datagram is a counter and a debug line. A warning sums them up, at most once a minute
//! for each listener, so that strangers cannot fill a disk.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::{Deserialize, Serialize};

use crate::handover::lenient;

/// Why a datagram was not forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum DropReason {
    /// It would have started a flow, and the daemon has as many as it may.
    FlowLimit,
    /// It would have started a flow, and the listener takes no new ones.
    Draining,
    /// Its flow's target is still being looked up, and as much is held for it as may be.
    EarlyLimit,
    /// No target could be reached, for its flow or for one a moment ago.
    Unreachable,
    /// The machine has no descriptor, port or memory for the flow's socket.
    NoSocket,
    /// The flow ended while the datagram was held for it.
    FlowEnded,
    /// The way to the target takes no more at the moment.
    TargetBusy,
    /// The target's machine or the network refused it: an ICMP error, or an error of the send.
    TargetRefused,
    /// The way to the clients takes no more at the moment, and as much is held for it as may be.
    ClientBusy,
    /// The system would not send it to the client.
    ClientRefused,
    /// Its flow has used up its bandwidth for the moment.
    Bandwidth,
    /// It came from a peer that has to say who its client is, and did not.
    NoHeader,
    /// With the PROXY header that its target gets, it would be too long.
    TooLong,
}

impl DropReason {
    /// Every reason.
    pub(crate) const ALL: [Self; 13] = [
        Self::FlowLimit,
        Self::Draining,
        Self::EarlyLimit,
        Self::Unreachable,
        Self::NoSocket,
        Self::FlowEnded,
        Self::TargetBusy,
        Self::TargetRefused,
        Self::ClientBusy,
        Self::ClientRefused,
        Self::Bandwidth,
        Self::NoHeader,
        Self::TooLong,
    ];

    /// The word of metric labels and log lines.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::FlowLimit => "flow-limit",
            Self::Draining => "draining",
            Self::EarlyLimit => "early-limit",
            Self::Unreachable => "unreachable",
            Self::NoSocket => "no-socket",
            Self::FlowEnded => "flow-ended",
            Self::TargetBusy => "target-busy",
            Self::TargetRefused => "target-refused",
            Self::ClientBusy => "client-busy",
            Self::ClientRefused => "client-refused",
            Self::Bandwidth => "bandwidth",
            Self::NoHeader => "no-header",
            Self::TooLong => "too-long",
        }
    }
}

/// The datagrams that one listener did not forward.
#[derive(Debug, Default)]
pub(crate) struct UdpDrops {
    counts: [AtomicU64; DropReason::ALL.len()],
    /// Those that a line has told.
    told: AtomicU64,
}

/// The counts as they are handed to the next process, by the word of the reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct DropsRecord {
    #[serde(deserialize_with = "lenient::each")]
    counts: Vec<(String, u64)>,
    told: u64,
}

impl UdpDrops {
    /// How many were dropped for `reason`.
    pub(crate) fn count(&self, reason: DropReason) -> u64 {
        self.counts[reason as usize].load(Relaxed)
    }

    /// How many were dropped.
    pub(crate) fn total(&self) -> u64 {
        self.counts.iter().fold(0, |sum: u64, count| sum.wrapping_add(count.load(Relaxed)))
    }

    /// How many of them a line has told.
    pub(super) fn told(&self) -> u64 {
        self.told.load(Relaxed)
    }

    /// Notes that a line has told so many.
    pub(super) fn tell(&self, total: u64) {
        self.told.store(total, Relaxed);
    }

    /// What is handed to the next process.
    pub(super) fn snapshot(&self) -> DropsRecord {
        let counts = DropReason::ALL.into_iter().map(|reason| (reason, self.count(reason)));
        let counts = counts.filter(|(_, count)| *count > 0);
        let counts = counts.map(|(reason, count)| (reason.as_str().to_owned(), count)).collect();
        DropsRecord { counts, told: self.told() }
    }

    /// Adds what an earlier process has dropped.
    pub(super) fn take_over(&self, record: &DropsRecord) {
        for (reason, count) in &record.counts {
            match DropReason::ALL.into_iter().find(|known| known.as_str() == reason) {
                // A sum of so many datagrams cannot be true, and stays below the end of the
                // numbers.
                Some(known) => {
                    self.counts[known as usize].fetch_add((*count).min(u64::MAX >> 8), Relaxed);
                }
                None => tracing::debug!(reason, "unknown drops were handed over"),
            }
        }
        self.told.fetch_add(record.told.min(self.total()), Relaxed);
    }

    pub(super) fn add(&self, reason: DropReason, datagrams: u64) {
        if datagrams > 0 {
            self.counts[reason as usize].fetch_add(datagrams, Relaxed);
            tracing::debug!(reason = reason.as_str(), datagrams, "datagrams dropped");
        }
    }

    /// The reasons that occurred and how often, as a log line shows them.
    pub(super) fn summary(&self) -> String {
        let counted =
            |reason: &DropReason| Some((reason.as_str(), self.count(*reason))).filter(|(_, n)| *n > 0);
        let words: Vec<_> =
            DropReason::ALL.iter().filter_map(counted).map(|(word, n)| format!("{word}={n}")).collect();
        words.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_counter_and_word() {
        let drops = UdpDrops::default();
        for (i, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, i, "{reason:?} stands at its own place in ALL");
            drops.add(reason, i as u64 + 1);
        }
        for (i, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(drops.count(reason), i as u64 + 1);
        }
        assert_eq!(drops.total(), 91);
        let words: std::collections::BTreeSet<_> = DropReason::ALL.map(DropReason::as_str).into();
        assert_eq!(words.len(), DropReason::ALL.len());
    }
}
