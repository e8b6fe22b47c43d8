//! How the costs grow: as tables for people, and as curves.
//!
//! A panel for each curve and measure, both axes logarithmic, so that a straight line upwards is a power of the size.
//! Colours are those of the other plot.

use std::{fmt::Write as _, path::Path};

use anyhow::Result;
use plotters::prelude::*;

use crate::{
    cases::Load,
    growth::{CURVES, Curve, Point, SHOWN, Verdict, judge},
    plot::{TEXT, colors, failed},
    results::Results,
    stats::human,
    table::cases,
};

/// The size of a panel, and the panels beside each other.
const PANEL: (u32, u32) = (430, 240);
const COLUMNS: usize = 2;

/// All that was measured of a curve and a measure.
struct Family<'a> {
    curve: &'static Curve,
    metric: &'static str,
    label: &'static str,
    /// By program.
    lines: Vec<(&'a str, Vec<Point>)>,
}

/// The curves that the results have.
fn families(results: &Results) -> Vec<Family<'_>> {
    let mut all = Vec::new();
    for curve in &CURVES {
        for metric in SHOWN {
            let names = results.names(true).chain(results.names(false)).chain(results.floors());
            let lines = names.map(|name| (name, points(results, curve, name, metric)));
            let lines: Vec<_> = lines.filter(|(_, points)| !points.is_empty()).collect();
            let metrics = Load::Grow { by: curve.by, size: 1 }.metrics();
            if let Some(metric) = metrics.iter().find(|known| known.key == metric)
                && !lines.is_empty()
            {
                all.push(Family { curve, metric: metric.key, label: metric.label, lines });
            }
        }
    }
    all
}

/// A program's points in the order of their sizes.
fn points(results: &Results, curve: &Curve, program: &str, metric: &str) -> Vec<Point> {
    let of_curve =
        cases(results).filter(|(case, _)| matches!(case.load, Load::Grow { by, .. } if by == curve.by));
    of_curve
        .filter_map(|(_, result)| {
            let rounds = result.values.get(program)?.get(metric)?;
            Point::of(result.median(program, "size")?, rounds)
        })
        .collect()
}

/// The tables in Markdown; nothing when nothing grew.
pub(crate) fn markdown(results: &Results) -> String {
    let mut text = String::new();
    for family in families(results) {
        let Family { curve, metric, label, lines } = &family;
        let sizes = lines.iter().max_by_key(|(_, points)| points.len()).map(|(_, points)| points.as_slice());
        let sizes: Vec<f64> = sizes.unwrap_or_default().iter().map(|point| point.size).collect();
        let heads: Vec<String> = sizes.iter().map(|size| format!("{size:.0}")).collect();
        let _ = write!(
            text,
            "\n| {}: {label} by {} | {} | size^ | growth |\n|---|{}---|---|\n",
            curve.title,
            curve.axis,
            heads.join(" | "),
            "--:|".repeat(sizes.len())
        );
        for (name, points) in lines {
            let at = |size: &f64| points.iter().find(|point| (point.size - size).abs() < 0.5);
            let values =
                sizes.iter().map(|size| at(size).map_or("–".to_owned(), |point| human(point.cost)));
            let values: Vec<String> = values.collect();
            // The latency of one request among 64 is the same work only from 64 on; its CPU is never more.
            let judged = judge(points, if *metric == "cpu" { 0 } else { curve.judged_from });
            let [exponent, verdict] = judged.map_or(["–".to_owned(), String::new()], shown);
            let _ = writeln!(text, "| {name} | {} | {exponent} | {verdict} |", values.join(" | "));
        }
    }
    if text.is_empty() {
        text
    } else {
        format!("\nHow costs grow (size^: the power that fits; log: at most with the logarithm):\n{text}")
    }
}

fn shown(verdict: Verdict) -> [String; 2] {
    let growth = match verdict.beyond {
        None => "≤ log".to_owned(),
        Some((from, to, times)) => {
            format!("**beyond log**: {} × from {from:.0} to {to:.0}", human(times))
        }
    };
    [format!("{:.2}", verdict.exponent), growth]
}

/// Draws into a file; no file when nothing grew.
pub(crate) fn draw(results: &Results, path: &Path) -> Result<()> {
    let families = families(results);
    if families.is_empty() {
        return Ok(());
    }
    let rows = families.len().div_ceil(COLUMNS);
    let size = (PANEL.0 * u32::try_from(COLUMNS)?, PANEL.1 * u32::try_from(rows)?);
    let area = SVGBackend::new(path, size).into_drawing_area();
    for (panel, family) in area.split_evenly((rows, COLUMNS)).iter().zip(&families) {
        self::panel(results, family, panel)?;
    }
    area.present().map_err(failed)
}

fn panel(
    results: &Results,
    family: &Family<'_>,
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
) -> Result<()> {
    let all = || family.lines.iter().flat_map(|(_, points)| points);
    // A logarithmic axis has no place for nothing.
    let right = all().map(|point| point.size.max(1.0)).fold(2.0, f64::max);
    let (low, high) = all()
        .fold((f64::MAX, 0.0), |(low, high), point| (f64::min(low, point.cost), f64::max(high, point.cost)));
    let font = |size: i32| ("sans-serif", size).into_font().color(&TEXT);
    let mut chart = ChartBuilder::on(area)
        .caption(format!("{}: {}", family.curve.title, family.label), font(14))
        .margin(8)
        .x_label_area_size(34)
        .y_label_area_size(52)
        .build_cartesian_2d((1.0..right * 1.3).log_scale(), (low / 2.0..high * 2.0).log_scale())
        .map_err(failed)?;
    chart
        .configure_mesh()
        .label_style(font(11))
        .axis_style(TEXT)
        .bold_line_style(TEXT.mix(0.3))
        .light_line_style(TEXT.mix(0.0))
        .x_desc(family.curve.axis)
        .x_label_formatter(&|size| format!("{size:.0}"))
        .y_label_formatter(&|cost| human(*cost))
        .draw()
        .map_err(failed)?;
    let colors = colors(results);
    for (name, points) in &family.lines {
        let known = colors.iter().find(|(known, ..)| known == name);
        let (color, width) = known.map_or((TEXT, 1), |(_, color, ours)| (*color, if *ours { 3 } else { 1 }));
        let places: Vec<(f64, f64)> = points.iter().map(|point| (point.size.max(1.0), point.cost)).collect();
        let dots: Vec<_> = places.iter().map(|at| Circle::new(*at, 3, color.filled())).collect();
        let line = std::iter::once(PathElement::new(places, color.stroke_width(width)));
        chart.draw_series(dots).map_err(failed)?;
        let swatch = move |(x, y)| PathElement::new([(x, y), (x + 14, y)], color.stroke_width(width));
        chart.draw_series(line).map_err(failed)?.label(*name).legend(swatch);
    }
    chart
        .configure_series_labels()
        .label_font(font(11))
        .position(SeriesLabelPosition::UpperLeft)
        .draw()
        .map_err(failed)
}
