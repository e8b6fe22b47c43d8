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
