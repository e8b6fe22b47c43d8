//! How fast a mapping was, second by second, in bounded memory.

use std::collections::VecDeque;

use crate::status::view::Point;

/// How many seconds are kept.
pub(in crate::cli::top) const SECONDS: usize = 15 * 60;

/// Bytes a second: from clients, and to them. The newest is the last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::cli::top) struct Rates {
    seconds: VecDeque<(u64, u64)>,
    /// How many there were, also those that are not kept.
    count: usize,
}

impl Rates {
    /// The rates of these points.
    pub(super) fn of(points: &[Point]) -> Self {
        let last = points.len().saturating_sub(SECONDS);
        let seconds = points[last..].iter().map(|point| (point.bytes_in, point.bytes_out)).collect();
        Self { seconds, count: points.len() }
    }

    /// Adds those of the last second.
    pub(super) fn push(&mut self, rate: (u64, u64)) {
        self.seconds.push_back(rate);
        self.count += 1;
        if self.seconds.len() > SECONDS {
            self.seconds.pop_front();
        }
    }

    /// The last `seconds` in so many cells, each with the highest value of its part. The newest is
    /// at the end. A cell from before the first value is empty.
    ///
    /// A value stays in its cell until the whole row moves, so that the graph does not flicker.
    pub(in crate::cli::top) fn cells(
        &self,
        seconds: usize,
        cells: usize,
        value: impl Fn((u64, u64)) -> u64,
    ) -> Vec<Option<u64>> {
        let part = seconds.div_ceil(cells.max(1)).max(1);
        let mut found = vec![None; cells];
        // The newest cell has what came since the last whole part.
        let begun = self.count.next_multiple_of(part) - self.count;
        for (age, rate) in self.seconds.iter().rev().enumerate() {
            let back = (age + begun) / part;
            let Some(cell) = cells.checked_sub(back + 1) else { break };
            found[cell] = found[cell].max(Some(value(*rate)));
        }
        found
    }
}
