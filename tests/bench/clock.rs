//! Real time: the one place where the benchmark reads the clock and pauses.
//!
//! The rest of the project runs under a clock that tests can stop. Here real time is the thing measured.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};

/// Between two looks at something that cannot wake us: another program's state.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// This instant.
#[expect(clippy::disallowed_methods, reason = "real time is what a benchmark measures")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Waits until `look` finds what it looks for, which another program brings about.
#[expect(clippy::disallowed_methods, reason = "nothing wakes us when another program's state changes")]
pub(crate) fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = now() + limit;
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if now() > deadline {
            bail!("waited {limit:?} for {what}");
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Today in UTC, as `2025-01-31`.
pub(crate) fn today() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (year, month, day) = civil(seconds / 86_400);
    format!("{year:04}-{month:02}-{day:02}")
}

/// Days since 1970 as year, month and day: years that begin in March put the leap day last.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}
