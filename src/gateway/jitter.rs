//! Waits that vary, so that many machines do not ask one router at the same moment. Pure: the
//! caller owns the generator.

use std::time::Duration;

use fastrand::Rng;

const FIRST_WAIT: Duration = Duration::from_secs(5);
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// `time`, plus or minus up to `percent`.
pub(super) fn about(rng: &mut Rng, time: Duration, percent: u32) -> Duration {
    time * (100 - percent + rng.u32(0..=2 * percent)) / 100
}

/// The wait after so many failures in a row: 5 s, doubled for each, at most 10 minutes, ±20 %.
pub(super) fn wait_after(rng: &mut Rng, failures: u32) -> Duration {
    let doubled = FIRST_WAIT.saturating_mul(1 << failures.saturating_sub(1).min(10));
    about(rng, doubled.min(LONGEST_WAIT), 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_ten_minutes_and_stray_by_a_fifth() {
        let mut rng = Rng::with_seed(1);
        for _ in 0..1000 {
            for (failures, middle) in [(1, 5), (2, 10), (4, 40), (8, 600), (100, 600)] {
                let wait = wait_after(&mut rng, failures).as_secs_f64();
                let middle = f64::from(middle);
                assert!((middle * 0.8..=middle * 1.2).contains(&wait), "{failures}: {wait}");
            }
        }
    }
}
