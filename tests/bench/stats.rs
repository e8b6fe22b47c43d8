//! The arithmetic of the results: medians, percentiles, ratios, and numbers as a reader wants them.

/// The middle of the values: of an even number of them, the mean of the middle two. Nothing of nothing.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(*upper);
    }
    Some(f64::midpoint(*upper, sorted[sorted.len() / 2 - 1]))
}

/// The smallest value that at least `share` (0 to 1) of all values do not exceed. Sorts what it is given.
pub(crate) fn percentile(values: &mut [u32], share: f64) -> Option<u32> {
    values.sort_unstable();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank within the slice")]
    let rank = (values.len() as f64 * share).ceil() as usize;
    values.get(rank.max(1) - 1).copied()
}

/// Which of two values is the better one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Better {
    /// A cost, a time.
    Lower,
    /// A rate, a share given back.
    Higher,
}

impl Better {
    /// What a change by so many times is.
    pub(crate) fn word(self, times: f64) -> String {
        let is_better = (times < 1.0) == (self == Self::Lower);
        format!("{:.0} % {}", 100.0 * (times - 1.0).abs(), if is_better { "better" } else { "worse" })
    }
}

/// A ratio of two programs that were measured round by round.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ratio {
    /// That of the medians.
    pub(crate) value: f64,
    /// How far the ratio of a single round lies from it: the greatest distance of the logarithms.
    noise: f64,
}

/// The noise of a ratio whose rounds say less, or nothing, of it.
const LEAST_NOISE: f64 = 0.02;
const UNKNOWN_NOISE: f64 = 0.05;

impl Ratio {
    /// Of the rounds of two programs.
    pub(crate) fn of(ours: &[f64], peer: &[f64]) -> Option<Self> {
        let value = ratio(median(ours)?, median(peer)?).filter(|value| *value > 0.0)?;
        let rounds = ours.iter().zip(peer).filter(|(ours, peer)| **ours > 0.0 && **peer > 0.0);
        let far: Vec<f64> = rounds.map(|(ours, peer)| (ours / peer / value).ln().abs()).collect();
        let noise = if far.len() < 2 { UNKNOWN_NOISE } else { far.into_iter().fold(LEAST_NOISE, f64::max) };
        Some(Self { value, noise })
    }

    /// The noise of a change between two.
    pub(crate) fn noise_with(self, other: Self) -> f64 {
        self.noise.hypot(other.noise)
    }

    /// How many times the noise the change to `other` is, if it is more than that.
    pub(crate) fn moved(self, other: Self) -> Option<f64> {
        let weight = (other.value / self.value).ln().abs() / self.noise_with(other);
        (weight > 1.0).then_some(weight)
    }
}

/// The name and value of the best of several.
pub(crate) fn best<'a>(
    values: impl IntoIterator<Item = (&'a str, f64)>,
    better: Better,
) -> Option<(&'a str, f64)> {
    let pick = |a: &(&str, f64), b: &(&str, f64)| a.1.total_cmp(&b.1);
    match better {
        Better::Lower => values.into_iter().min_by(pick),
        Better::Higher => values.into_iter().max_by(pick),
    }
}

/// How many times `reference` the value is. Nothing when there is nothing to compare with.
pub(crate) fn ratio(value: f64, reference: f64) -> Option<f64> {
    (reference > 0.0 && value.is_finite()).then(|| value / reference)
}

/// Three significant digits; thousands apart, as in `12,300`.
pub(crate) fn human(value: f64) -> String {
    let size = value.abs();
    match size {
        _ if size < 0.0005 => "0".to_owned(),
        _ if size < 1.0 => format!("{value:.3}"),
        _ if size < 10.0 => format!("{value:.2}"),
        _ if size < 100.0 => format!("{value:.1}"),
        _ => thousands(value),
    }
}

fn thousands(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0.0 { format!("-{text}") } else { text }
}
