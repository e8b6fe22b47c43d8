//! The arithmetic of the benchmark: what its table says follows from what it measured.

#![allow(dead_code, reason = "the benchmark uses the rest")]

#[path = "../bench/cases.rs"]
mod cases;
#[path = "../bench/stats.rs"]
mod stats;

use cases::{CASES, Goal, goal};
use stats::{Better, best, human, median, percentile, ratio};

#[test]
fn the_median_is_the_middle_or_between_the_middle_two() {
    assert_eq!(median(&[]), None);
    assert_eq!(median(&[7.0]), Some(7.0));
    assert_eq!(median(&[9.0, 1.0, 5.0]), Some(5.0));
    assert_eq!(median(&[4.0, 1.0, 2.0, 100.0]), Some(3.0));
}

#[test]
fn a_percentile_is_a_value_that_was_measured() {
    let mut values: Vec<u32> = (1..=1000).rev().collect();
    assert_eq!(percentile(&mut values, 0.5), Some(500));
    assert_eq!(percentile(&mut values, 0.99), Some(990));
    assert_eq!(percentile(&mut values, 0.999), Some(999));
    assert_eq!(percentile(&mut [3], 0.999), Some(3));
    assert_eq!(percentile(&mut [], 0.5), None);
}

#[test]
fn the_best_is_the_lowest_cost_or_the_highest_rate() {
    let values = [("a", 3.0), ("b", 1.0), ("c", 2.0)];
    assert_eq!(best(values, Better::Lower), Some(("b", 1.0)));
    assert_eq!(best(values, Better::Higher), Some(("a", 3.0)));
    assert_eq!(best([], Better::Lower), None);
}

#[test]
fn there_is_no_ratio_to_nothing() {
    assert_eq!(ratio(3.0, 2.0), Some(1.5));
    assert_eq!(ratio(3.0, 0.0), None);
    assert_eq!(ratio(f64::NAN, 2.0), None);
}

#[test]
fn a_goal_is_kept_up_to_its_limit_and_unknown_without_a_peer() {
    assert_eq!(Goal::BelowBest(0.9).met(0.9, Some(1.0)), Some(true));
    assert_eq!(Goal::BelowBest(0.9).met(0.91, Some(1.0)), Some(false));
    assert_eq!(Goal::AboveBest(2.0).met(9.0, Some(5.0)), Some(false));
    assert_eq!(Goal::AboveBest(2.0).met(9.0, None), None);
    assert_eq!(Goal::Below(1.5).met(1.5, None), Some(true));
    assert_eq!(Goal::Above(90.0).met(89.0, None), Some(false));
}

#[test]
fn every_goal_belongs_to_a_case_and_a_metric_that_it_measures() {
    let goals = |case: &cases::Case| {
        case.load.metrics().iter().filter(|metric| goal(case.name, metric.key).is_some()).count()
    };
    assert_eq!(CASES.iter().map(goals).sum::<usize>(), 14);
}

#[test]
fn numbers_are_shown_with_three_digits() {
    let shown: Vec<String> =
        [0.0, 0.1234, 1.234, 12.34, 123.4, 1_234_567.0, -1234.0].into_iter().map(human).collect();
    assert_eq!(shown, ["0", "0.123", "1.23", "12.3", "123", "1,234,567", "-1,234"]);
}
