//! What of the rates is handed to the next process, so that a graph has no hole.
//!
//! A point is three numbers: bytes a second in either direction, and sessions. The sum of all
//! mappings goes, and the first [`MOST`] mappings: 300 KB at most for each. The minute that is
//! under way begins again. What has moved is counted on by the next process, so its first rate is
//! right.

use std::{
    collections::VecDeque,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{MINUTES, Point, Reading, Record, SECONDS, Series};
use crate::{handover::lenient, mapping::MappingId};

/// The mappings whose points are handed over.
const MOST: usize = 16;

/// The points of the last 15 minutes and 24 hours.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct HistoryRecord {
    /// The dates of the points, in seconds since 1970.
    #[serde(deserialize_with = "lenient::each")]
    seconds: Vec<u64>,
    #[serde(deserialize_with = "lenient::each")]
    minutes: Vec<u64>,
    in_minute: u32,
    #[serde(deserialize_with = "lenient::some")]
    all: Option<SeriesRecord>,
    #[serde(deserialize_with = "lenient::each")]
    mappings: Vec<(MappingId, SeriesRecord)>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct SeriesRecord {
    seconds: Vec<(u64, u64, u32)>,
    minutes: Vec<(u64, u64, u32)>,
}

impl Record {
    pub(super) fn snapshot(&self) -> HistoryRecord {
        let dates = |dates: &VecDeque<SystemTime>| dates.iter().map(|date| unix(*date)).collect();
        let kept = self.mappings.iter().filter(|(_, series)| series.is_kept).take(MOST);
        HistoryRecord {
            seconds: dates(&self.seconds),
            minutes: dates(&self.minutes),
            in_minute: self.in_minute,
            all: Some(SeriesRecord::of(&self.all)),
            mappings: kept.map(|(id, series)| (id.clone(), SeriesRecord::of(series))).collect(),
        }
    }

    /// The record of another process, for the mappings that are there.
    pub(super) fn taken_over(record: &HistoryRecord, readings: &[Reading], now: Instant) -> Self {
        let dates = |seconds: &[u64], most| newest(seconds, most).map(|second| date(*second)).collect();
        let mut taken = Self::new(now);
        taken.seconds = dates(&record.seconds, SECONDS);
        taken.minutes = dates(&record.minutes, MINUTES);
        taken.in_minute = record.in_minute % 60;
        let room = (taken.seconds.len(), taken.minutes.len());
        if let Some(all) = &record.all {
            taken.all = all.series(room);
        }
        for (id, series) in record.mappings.iter().take(MOST) {
            if let Some(reading) = readings.iter().find(|reading| reading.mapping == *id) {
                let mut series = series.series(room);
                (series.is_kept, series.moved) = (true, (reading.moved.bytes_in, reading.moved.bytes_out));
                taken.mappings.insert(id.clone(), series);
            }
        }
        taken
    }
}

impl SeriesRecord {
    fn of(series: &Series) -> Self {
        let whole =
            |point: &Point| (super::whole(point.bytes_in), super::whole(point.bytes_out), point.sessions);
        Self {
            seconds: series.seconds.iter().map(whole).collect(),
            minutes: series.minutes.iter().map(whole).collect(),
        }
    }

    /// The series, with no more points than there are dates.
    fn series(&self, (seconds, minutes): (usize, usize)) -> Series {
        let point = |(bytes_in, bytes_out, sessions): &(u64, u64, u32)| Point {
            bytes_in: *bytes_in as f32,
            bytes_out: *bytes_out as f32,
            sessions: *sessions,
        };
        Series {
            seconds: newest(&self.seconds, seconds).map(point).collect(),
            minutes: newest(&self.minutes, minutes).map(point).collect(),
            ..Series::default()
        }
    }
}

/// The last `most` of them.
fn newest<T>(all: &[T], most: usize) -> std::slice::Iter<'_, T> {
    all[all.len().saturating_sub(most)..].iter()
}

fn unix(date: SystemTime) -> u64 {
    date.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A date of four digits for the year.
fn date(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.min(253_402_300_799))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{fixture::each_spoilt, mapping::MappingName, meter::Moved};

    fn reading(moved: u64) -> Reading {
        let mapping = MappingId { name: MappingName::new("web").unwrap(), nth: 0 };
        let moved = Moved { bytes_in: moved, ..Moved::default() };
        Reading { mapping, sessions: 1, moved }
    }

    /// A record of some hours, in which 1000 bytes move each second.
    fn measured(seconds: u64) -> (Record, SystemTime) {
        let (now, then) = (Instant::now(), date(1_800_000_000));
        let mut record = Record::new(now);
        for second in 0..=seconds {
            let at = Duration::from_secs(second);
            record.sample(now + at, then + at, vec![reading(second * 1000)]);
        }
        (record, then + Duration::from_secs(seconds))
    }

    #[tokio::test(start_paused = true)]
    async fn a_graph_has_no_hole_and_no_peak_where_the_process_changed() {
        let (before, date) = measured(2 * 3600);
        let json = serde_json::to_string(&before.snapshot()).unwrap();
        let (now, known) = (Instant::now(), reading(7_200_000));
        let record = serde_json::from_str(&json).unwrap();
        let mut next = Record::taken_over(&record, std::slice::from_ref(&known), now);
        for second in 0..=60 {
            let at = Duration::from_secs(second);
            next.sample(now + at, date + at, vec![reading(7_200_000 + second * 1000)]);
        }
        let end = date + Duration::from_secs(60);
        for id in [None, Some(&known.mapping)] {
            let fine = next.points(id, true, (Duration::from_secs(900), end));
            assert_eq!((fine.len(), fine.iter().filter(|point| point.bytes_in != 1000).count()), (900, 0));
            let coarse = next.points(id, false, (Duration::from_secs(3600), end));
            assert_eq!((coarse.len(), coarse.iter().filter(|point| point.sessions != 1).count()), (60, 0));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_spoilt_record_does_not_panic() {
        let (before, date) = measured(130);
        each_spoilt(&before.snapshot(), |spoilt| {
            let Ok(record) = serde_json::from_value::<HistoryRecord>(spoilt) else { return };
            let now = Instant::now();
            let mut next = Record::taken_over(&record, &[reading(0)], now);
            for second in 0..70 {
                next.sample(now + Duration::from_secs(second), date, vec![reading(1)]);
            }
            for is_fine in [true, false] {
                let _ = next.points(None, is_fine, (Duration::from_secs(900), date));
                let _ = next.points(Some(&reading(0).mapping), is_fine, (Duration::from_secs(900), date));
            }
        });
    }
}
