//! The arithmetic of the benchmark: what its table says follows from what it measured.

#![allow(dead_code, reason = "the benchmark uses the rest")]

#[path = "../bench/cases.rs"]
mod cases;
#[path = "../bench/growth.rs"]
mod growth;
#[path = "../bench/stats.rs"]
mod stats;

use cases::{CASES, Goal, Growth, Load, goal};
use growth::{CURVES, Point, judge};
use stats::{Better, Ratio, best, human, median, percentile, ratio};

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
    assert_eq!(CASES.iter().map(goals).sum::<usize>(), 22);
}

#[test]
fn numbers_are_shown_with_three_digits() {
    let shown: Vec<String> =
        [0.0, 0.1234, 1.234, 12.34, 123.4, 1_234_567.0, -1234.0].into_iter().map(human).collect();
    assert_eq!(shown, ["0", "0.123", "1.23", "12.3", "123", "1,234,567", "-1,234"]);
}

fn points(costs: &[(f64, f64)]) -> Vec<Point> {
    costs.iter().map(|(size, cost)| Point { size: *size, cost: *cost, noise: 0.02 }).collect()
}

#[test]
fn what_grows_with_the_logarithm_passes_and_what_grows_faster_is_named() {
    let log = points(&[(10.0, 3.6), (1_000.0, 10.0), (100_000.0, 16.7)]);
    assert_eq!(judge(&log, 0).unwrap().beyond, None);
    let flat = judge(&points(&[(1.0, 5.0), (10_000.0, 5.0)]), 0).unwrap();
    assert!(flat.beyond.is_none() && flat.exponent.abs() < 1e-9);
    let proportional = judge(&points(&[(10.0, 1.0), (100.0, 10.0), (1_000.0, 100.0)]), 0).unwrap();
    assert_eq!(proportional.beyond, Some((10.0, 1_000.0, 100.0)));
    assert!((proportional.exponent - 1.0).abs() < 1e-9);
    // It stays flat for long and leaps at the end: the whole is within the logarithm, the leap is not.
    let leap = judge(&points(&[(1.0, 1.0), (1_000.0, 1.0), (10_000.0, 3.0)]), 0).unwrap();
    assert_eq!(leap.beyond, Some((1_000.0, 10_000.0, 3.0)));
}

#[test]
fn growth_within_the_noise_of_the_rounds_passes() {
    let of = |noise| [(100.0, 1.0), (1_000.0, 2.0)].map(|(size, cost)| Point { size, cost, noise });
    assert!(judge(&of(0.0), 0).unwrap().beyond.is_some());
    assert_eq!(judge(&of(0.3), 0).unwrap().beyond, None);
    assert_eq!(Point::of(5.0, &[9.0, 10.0, 12.0]), Some(Point { size: 5.0, cost: 10.0, noise: 0.2 }));
    assert_eq!(Point::of(5.0, &[]), None);
}

#[test]
fn a_curve_is_judged_from_where_the_work_is_the_same() {
    let all = points(&[(1.0, 1.0), (64.0, 50.0), (10_000.0, 60.0)]);
    assert!(judge(&all, 0).unwrap().beyond.is_some());
    assert_eq!(judge(&all, 64).unwrap().beyond, None);
    assert_eq!(judge(&all, 10_000), None);
}

#[test]
fn each_curve_has_points_that_grow() {
    for curve in CURVES {
        let sizes: Vec<usize> = CASES
            .iter()
            .filter_map(|case| match case.load {
                Load::Grow { by, size } if by == curve.by => Some(size),
                _ => None,
            })
            .collect();
        assert!(sizes.len() > 1 && sizes.is_sorted(), "{}: {sizes:?}", curve.title);
    }
}

#[test]
fn a_case_takes_no_more_descriptors_than_there_are() {
    let load = Load::Grow { by: Growth::Connections, size: 10_000 };
    assert_eq!(load.within(100_000), Ok(load));
    assert_eq!(load.within(20_000), Ok(Load::Grow { by: Growth::Connections, size: 9_250 }));
    let refused = load.within(8_192).unwrap_err();
    assert!(refused.contains("needs 21500 descriptors, and the limit is 8192"), "{refused}");
    let entries = Load::Grow { by: Growth::Entries, size: 1_000_000 };
    assert_eq!(entries.within(1_024), Ok(entries));
}

#[test]
fn a_ratio_has_moved_only_by_more_than_its_rounds_differ() {
    let peer = [10.0, 10.0, 10.0];
    let of = |ours: [f64; 3]| Ratio::of(&ours, &peer).unwrap();
    let (steady, noisy) = (of([10.0, 10.1, 9.9]), of([7.0, 10.0, 13.0]));
    assert_eq!(steady.moved(of([10.2, 10.0, 10.1])), None);
    assert!(steady.moved(of([12.0, 12.1, 11.9])).unwrap() > 1.0, "20 %, with a noise of 2 %");
    assert_eq!(noisy.moved(of([12.0, 12.1, 11.9])), None, "20 %, with a noise of 30 %");
    assert!(steady.moved(of([8.0, 8.0, 8.0])).is_some(), "in either direction");
}

#[test]
fn the_noise_of_both_ends_of_a_ratio_that_go_together_is_none() {
    let together = Ratio::of(&[10.0, 20.0, 30.0], &[5.0, 10.0, 15.0]).unwrap();
    assert!((together.value - 2.0).abs() < 1e-9);
    assert!(together.moved(Ratio::of(&[22.0, 22.0], &[10.0, 10.0]).unwrap()).is_some());
    // One round says nothing of its noise.
    let once = Ratio::of(&[1.0], &[1.0]).unwrap();
    assert_eq!(once.moved(Ratio::of(&[1.04], &[1.0]).unwrap()), None);
    assert!(Ratio::of(&[], &[1.0]).is_none() && Ratio::of(&[1.0], &[0.0]).is_none());
}

#[test]
fn a_change_is_called_better_or_worse_by_what_it_is_of() {
    assert_eq!(Better::Lower.word(0.8), "20 % better");
    assert_eq!(Better::Lower.word(1.25), "25 % worse");
    assert_eq!(Better::Higher.word(1.25), "25 % better");
}
