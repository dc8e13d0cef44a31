//! Line plots as SVG files, small enough to be committed with the documentation.

use std::ops::Range;
use std::path::Path;

use anyhow::{Context as _, Result};
use plotters::prelude::*;

/// A named line.
#[derive(Debug, Clone)]
pub struct Line {
    /// What the legend says.
    pub name: String,
    /// Its points, in drawing order.
    pub points: Vec<(f64, f64)>,
    /// Whether each point is marked and the points are not connected.
    pub is_scatter: bool,
}

/// Lines of so few points show each of them.
const MARKED: usize = 12;

/// What stands around the lines.
#[derive(Debug, Clone)]
pub struct Frame<'a> {
    /// Above the plot.
    pub title: &'a str,
    /// Below the horizontal axis, with its unit.
    pub x: &'a str,
    /// Beside the vertical axis, with its unit.
    pub y: &'a str,
    /// Whether the vertical axis starts at zero (a plot of attainment would hide its differences).
    pub from_zero: bool,
}

/// Colours that colour-blind readers can tell apart (Okabe and Ito), black last.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
];

/// Draws `lines` into the SVG file `path`.
pub fn draw(path: &Path, frame: &Frame<'_>, lines: &[Line]) -> Result<()> {
    let root = SVGBackend::new(path, (820, 420)).into_drawing_area();
    paint(&root, frame, lines)
        .and_then(|()| root.present().map_err(|source| source.to_string()))
        .map_err(anyhow::Error::msg)
        .with_context(|| format!("draw {}", path.display()))
}

fn paint(
    root: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    frame: &Frame<'_>,
    lines: &[Line],
) -> Result<(), String> {
    let text = |source: DrawingAreaErrorKind<_>| source.to_string();
    root.fill(&WHITE).map_err(text)?;
    let (x, y) = (range(lines, |point| point.0, false), range(lines, |point| point.1, frame.from_zero));
    let mut chart = ChartBuilder::on(root)
        .caption(frame.title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(56)
        .build_cartesian_2d(x.clone(), y.clone())
        .map_err(text)?;
    chart.configure_mesh().max_light_lines(0).x_desc(frame.x).y_desc(frame.y).draw().map_err(text)?;
    for (line, colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        let style = colour.stroke_width(2);
        let points = line.points.iter().copied();
        if !line.is_scatter && line.points.len() <= MARKED {
            chart
                .draw_series(points.clone().map(|point| Circle::new(point, 3, colour.filled())))
                .map_err(text)?;
        }
        let series = if line.is_scatter {
            chart.draw_series(points.map(|point| Circle::new(point, 4, colour.filled()))).map_err(text)?
        } else {
            chart.draw_series(LineSeries::new(points, style)).map_err(text)?
        };
        series.label(line.name.clone()).legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
    }
    chart
        .configure_series_labels()
        .position(emptiest(lines, &x, &y))
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.3))
        .draw()
        .map_err(text)
}

/// The corner that the fewest pieces of line run through, for the legend.
fn emptiest(lines: &[Line], x: &Range<f64>, y: &Range<f64>) -> SeriesLabelPosition {
    let place = |value: f64, range: &Range<f64>| (value - range.start) / (range.end - range.start);
    let crowd = |is_right: bool, is_upper: bool| {
        let pieces = lines.iter().flat_map(|line| line.points.windows(2)).flat_map(|pair| {
            (0..=20).map(|part| {
                let share = f64::from(part) / 20.0;
                let between = |from: f64, to: f64| from + share * (to - from);
                (place(between(pair[0].0, pair[1].0), x), place(between(pair[0].1, pair[1].1), y))
            })
        });
        let points =
            lines.iter().flat_map(|line| &line.points).map(|point| (place(point.0, x), place(point.1, y)));
        let is_near = |(x, y): &(f64, f64)| {
            (if is_right { *x > 0.7 } else { *x < 0.3 }) && (if is_upper { *y > 0.6 } else { *y < 0.4 })
        };
        pieces.chain(points).filter(is_near).count()
    };
    let corners = [
        (SeriesLabelPosition::UpperLeft, crowd(false, true)),
        (SeriesLabelPosition::UpperRight, crowd(true, true)),
        (SeriesLabelPosition::LowerRight, crowd(true, false)),
        (SeriesLabelPosition::LowerLeft, crowd(false, false)),
    ];
    let [first, rest @ ..] = corners;
    rest.into_iter().fold(first, |best, corner| if corner.1 < best.1 { corner } else { best }).0
}

/// The span of one coordinate with a margin of 4 %; never empty.
fn range(lines: &[Line], coordinate: fn(&(f64, f64)) -> f64, from_zero: bool) -> Range<f64> {
    let values = || lines.iter().flat_map(|line| &line.points).map(coordinate);
    let low = if from_zero { 0.0 } else { values().fold(f64::INFINITY, f64::min) };
    let high = values().fold(f64::NEG_INFINITY, f64::max);
    if !(low.is_finite() && high > low) {
        return 0.0..1.0;
    }
    let margin = 0.04 * (high - low);
    if from_zero { 0.0..high + margin } else { low - margin..high + margin }
}
