//! The curves: which cases make one, and the rule that says when a cost grows too fast.
//!
//! Nothing may grow faster than the logarithm of its size: from one point to a greater one a cost may become as many
//! times as high as `log2(2 + size)` does, and not more. What the rounds differ by is allowed on top. A curve is judged
//! from the point on from which the work is the same: with one connection there is one request under way, with a
//! thousand there are 64, and their latency is mostly that of waiting for each other.

use super::{
    cases::{BUSY_CONNECTIONS, BUSY_FLOWS, Growth},
    stats::median,
};

/// A curve: what grows, and its names.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Curve {
    pub(crate) by: Growth,
    /// As shown.
    pub(crate) title: &'static str,
    /// What the axis counts.
    pub(crate) axis: &'static str,
    /// The size from which on all points do the same work.
    pub(crate) judged_from: usize,
}

/// What is shown of each point: the key of the metric, and whether the rule holds for it.
pub(crate) const SHOWN: [&str; 2] = ["cpu", "p99"];

/// All curves.
pub(crate) const CURVES: [Curve; 7] = [
    curve(Growth::Connections, "a request, among open connections", "connections", BUSY_CONNECTIONS),
    curve(Growth::Flows, "a datagram, among open flows", "flows", BUSY_FLOWS),
    curve(Growth::Mappings, "a connection, among mappings", "mappings", 0),
    curve(Growth::Entries, "a connection, beside list entries", "entries", 0),
    curve(Growth::Bans, "a connection, beside bans", "bans", 0),
    curve(Growth::CoresConnect, "a connection, with more cores", "cores", 0),
    curve(Growth::CoresPing, "a request, with more cores", "cores", 0),
];

const fn curve(by: Growth, title: &'static str, axis: &'static str, judged_from: usize) -> Curve {
    Curve { by, title, axis, judged_from }
}

/// A point of a program's curve.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Point {
    pub(crate) size: f64,
    /// The median of the rounds.
    pub(crate) cost: f64,
    /// How far the rounds lie from it, as a share of it.
    pub(crate) noise: f64,
}

impl Point {
    /// Of the values of the rounds.
    pub(crate) fn of(size: f64, rounds: &[f64]) -> Option<Self> {
        let cost = median(rounds)?;
        let far = rounds.iter().map(|value| (value - cost).abs()).fold(0.0, f64::max);
        (cost > 0.0).then_some(Self { size, cost, noise: far / cost })
    }
}

/// What a curve does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Verdict {
    /// The power of the size that fits best: 0 is flat, 1 is proportional.
    pub(crate) exponent: f64,
    /// The sizes between which it grew faster than the logarithm, and how many times the cost is there.
    pub(crate) beyond: Option<(f64, f64, f64)>,
}

/// Judges the points that do the same work, in the order of their sizes.
pub(crate) fn judge(points: &[Point], judged_from: usize) -> Option<Verdict> {
    #[expect(clippy::cast_precision_loss, reason = "a count, far below 2^52")]
    let judged: Vec<Point> =
        points.iter().copied().filter(|point| point.size >= judged_from as f64).collect();
    if judged.len() < 2 {
        return None;
    }
    let pairs = judged
        .iter()
        .enumerate()
        .flat_map(|(index, from)| judged[index + 1..].iter().map(move |to| (from, to, to.cost / from.cost)));
    let beyond = pairs
        .filter(|(from, to, times)| {
            *times > (reach(to.size) / reach(from.size)) * (1.0 + from.noise + to.noise)
        })
        .max_by(|(.., a), (.., b)| a.total_cmp(b))
        .map(|(from, to, times)| (from.size, to.size, times));
    Some(Verdict { exponent: slope(&judged), beyond })
}

/// The logarithm that a cost may follow.
fn reach(size: f64) -> f64 {
    (2.0 + size).log2()
}

/// The slope of the line through the logarithms, by least squares.
fn slope(points: &[Point]) -> f64 {
    let logs: Vec<(f64, f64)> = points.iter().map(|p| (p.size.max(1.0).ln(), p.cost.ln())).collect();
    #[expect(clippy::cast_precision_loss, reason = "a handful")]
    let count = logs.len() as f64;
    let (x, y) = logs.iter().fold((0.0, 0.0), |sum, log| (sum.0 + log.0 / count, sum.1 + log.1 / count));
    let (over, under) = logs
        .iter()
        .fold((0.0, 0.0), |sum, log| (sum.0 + (log.0 - x) * (log.1 - y), sum.1 + (log.0 - x) * (log.0 - x)));
    if under > 0.0 { over / under } else { 0.0 }
}
