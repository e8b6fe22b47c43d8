//! The results as a picture: what each relay costs in each case, the best peer being one.
//!
//! A row a case, a dot a relay, a logarithmic axis. The background is transparent and every colour a middle one, so
//! that the picture reads on a light page and on a dark one.

use std::{fmt::Display, path::Path};

use anyhow::{Result, anyhow};
use plotters::{
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use crate::{
    cases::best_peer,
    results::Results,
    stats::{human, ratio},
    table::cases,
};

const WIDTH: i32 = 860;
const ROW: i32 = 24;
/// Above the rows: legend and axis.
const TOP: i32 = 76;
const BOTTOM: i32 = 14;
/// Where the axis begins and ends.
const LEFT: i32 = 330;
const RIGHT: i32 = WIDTH - 70;
/// What the axis spans; a dot beyond it stands at its end, with its number.
const LEAST: f64 = 0.25;
const MOST: f64 = 8.0;
pub(crate) const TEXT: RGBColor = RGBColor(0x6e, 0x77, 0x81);
const OURS: [RGBColor; 3] =
    [RGBColor(0xe3, 0x62, 0x09), RGBColor(0xd6, 0x33, 0x84), RGBColor(0x9a, 0x6b, 0x00)];
const PEERS: [RGBColor; 5] = [
    RGBColor(0x2f, 0x81, 0xf7),
    RGBColor(0x2d, 0xa4, 0x4e),
    RGBColor(0x9a, 0x6d, 0xd7),
    RGBColor(0x8b, 0x94, 0x9e),
    RGBColor(0x1b, 0x9e, 0x9e),
];

const FLOORS: [RGBColor; 2] = [RGBColor(0x8a, 0x8f, 0x55), RGBColor(0x5f, 0x6b, 0x7a)];

/// A case: its name, and the cost of each relay that has one.
struct Row<'a> {
    title: String,
    dots: Vec<(&'a str, f64)>,
}

/// Draws into a file.
pub(crate) fn draw(results: &Results, path: &Path) -> Result<()> {
    let rows = rows(results);
    let height = TOP + ROW * i32::try_from(rows.len())? + BOTTOM;
    let area = SVGBackend::new(path, (u32::try_from(WIDTH)?, u32::try_from(height)?)).into_drawing_area();
    // A floor has no cost of its own, and so no dot.
    let mut colors = colors(results);
    colors.retain(|(name, ..)| !results.floors().any(|floor| floor == *name));
    let canvas = Canvas { area, colors };
    canvas.legend()?;
    canvas.axis(height)?;
    for (index, row) in rows.iter().enumerate() {
        canvas.row(row, TOP + ROW * i32::try_from(index)? + ROW / 2)?;
    }
    canvas.area.present().map_err(failed)
}

fn rows(results: &Results) -> Vec<Row<'_>> {
    let row = |(case, result): (&'static crate::cases::Case, &crate::results::CaseResult)| {
        let metric = case.load.metrics().first()?;
        let (_, best) = best_peer(metric, results.peers(result, metric.key))?;
        let names = results.names(false).chain(results.names(true));
        let dots = names.filter_map(|name| Some((name, ratio(result.median(name, metric.key)?, best)?)));
        Some((format!("{}: {}", case.title, metric.label), dots.collect::<Vec<_>>()))
    };
    cases(results)
        .filter(|(case, _)| !case.load.is_growth())
        .filter_map(row)
        .map(|(title, dots)| Row { title, dots })
        .collect()
}

pub(crate) fn colors(results: &Results) -> Vec<(&str, RGBColor, bool)> {
    let ours = results.names(true).zip(OURS.into_iter().cycle()).map(|(name, color)| (name, color, true));
    let peers = results.names(false).zip(PEERS.into_iter().cycle()).map(|(name, color)| (name, color, false));
    let floors = results.floors().zip(FLOORS.into_iter().cycle()).map(|(name, color)| (name, color, false));
    ours.chain(peers).chain(floors).collect()
}

struct Canvas<'a> {
    area: DrawingArea<SVGBackend<'a>, plotters::coord::Shift>,
    /// Of each relay, and whether it is one of ours.
    colors: Vec<(&'a str, RGBColor, bool)>,
}

impl Canvas<'_> {
    fn legend(&self) -> Result<()> {
        let title = "Cost, the best peer = 1 (less is better)";
        self.text(title, (10, 20), 15, TEXT, HPos::Left)?;
        let mut x = LEFT;
        for (name, color, ours) in &self.colors {
            self.dot((x, 20), *color, *ours)?;
            self.text(name, (x + 10, 20), 13, TEXT, HPos::Left)?;
            x += 26 + 8 * i32::try_from(name.len())?;
        }
        Ok(())
    }

    fn axis(&self, height: i32) -> Result<()> {
        for tick in [0.25, 0.5, 1.0, 2.0, 4.0, 8.0] {
            let x = place(tick);
            let style = if tick == 1.0 { TEXT.stroke_width(2) } else { TEXT.mix(0.3).stroke_width(1) };
            self.line((x, TOP - 10), (x, height - BOTTOM), style)?;
            self.text(&format!("{tick} ×"), (x, TOP - 22), 12, TEXT, HPos::Center)?;
        }
        Ok(())
    }

    fn row(&self, row: &Row<'_>, y: i32) -> Result<()> {
        self.text(&row.title, (10, y), 13, TEXT, HPos::Left)?;
        for (name, cost) in &row.dots {
            let Some((_, color, ours)) = self.colors.iter().find(|(known, ..)| known == name) else {
                continue;
            };
            let x = place(*cost);
            if *ours {
                self.line((place(1.0), y), (x, y), color.stroke_width(3))?;
            }
            self.dot((x, y), *color, *ours)?;
            if *cost > MOST {
                self.text(&format!("{} ×", human(*cost)), (x + 10, y), 11, *color, HPos::Left)?;
            }
        }
        Ok(())
    }

    fn dot(&self, at: (i32, i32), color: RGBColor, ours: bool) -> Result<()> {
        let size = if ours { 6 } else { 4 };
        self.area.draw(&Circle::new(at, size, color.filled())).map_err(failed)
    }

    fn line(&self, from: (i32, i32), to: (i32, i32), style: ShapeStyle) -> Result<()> {
        self.area.draw(&PathElement::new([from, to], style)).map_err(failed)
    }

    fn text(&self, text: &str, at: (i32, i32), size: i32, color: RGBColor, side: HPos) -> Result<()> {
        let style = ("sans-serif", size).into_font().color(&color).pos(Pos::new(side, VPos::Center));
        self.area.draw(&Text::new(text.to_owned(), at, style)).map_err(failed)
    }
}

/// Where a cost lies on the axis.
fn place(cost: f64) -> i32 {
    let share = (cost.clamp(LEAST, MOST) / LEAST).ln() / (MOST / LEAST).ln();
    #[expect(clippy::cast_possible_truncation, reason = "a pixel")]
    let offset = (share * f64::from(RIGHT - LEFT)).round() as i32;
    LEFT + offset
}

pub(crate) fn failed(error: impl Display) -> anyhow::Error {
    anyhow!("draw the plot: {error}")
}
