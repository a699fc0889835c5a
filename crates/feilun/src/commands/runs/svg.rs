//! The same chart as a file.

use std::error::Error;

use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

use super::chart::{Frame, Series};
use crate::failure::{Failure, Outcome};

const SIZE: (u32, u32) = (900, 540);
/// Told apart by eyes that see colours (Okabe and Ito's palette); dashes are for the others.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
];

/// The text of an SVG file; nothing without points.
pub(super) fn draw(title: &str, series: &[Series]) -> Option<Outcome<String>> {
    let frame = Frame::around(series)?;
    let mut text = String::new();
    let drawn = draw_into(&mut text, title, series, &frame);
    let failed = |error| Failure::failed(format!("cannot draw the chart: {error}"));
    Some(drawn.map(|()| text).map_err(failed))
}

fn draw_into(
    text: &mut String,
    title: &str,
    series: &[Series],
    frame: &Frame,
) -> Result<(), Box<dyn Error>> {
    let root = SVGBackend::with_string(text, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let margin = (frame.high - frame.low) * 0.04;
    let losses = frame.low - margin..frame.high + margin;
    let mut chart = ChartBuilder::on(&root)
        .margin(16)
        .caption(title, ("sans-serif", 22))
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..frame.last_step, losses)?;
    chart.configure_mesh().x_desc("step").y_desc("loss").light_line_style(WHITE).draw()?;
    for (index, series) in series.iter().enumerate() {
        draw_series(&mut chart, series, index)?;
    }
    chart.configure_series_labels().border_style(BLACK).background_style(WHITE).draw()?;
    root.present()?;
    Ok(())
}

type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

fn draw_series(
    chart: &mut Chart<'_, '_>,
    series: &Series,
    index: usize,
) -> Result<(), Box<dyn Error>> {
    let style = COLOURS[index % COLOURS.len()].stroke_width(2);
    let points = series.points.iter().copied();
    let points = points.filter(|(step, loss)| step.is_finite() && loss.is_finite());
    let gap = 4 * index as i32;
    let annotation = if index == 0 {
        chart.draw_series(LineSeries::new(points, style))?
    } else {
        chart.draw_series(DashedLineSeries::new(points, 8, gap, style))?
    };
    annotation.label(series.name.as_str()).legend(move |(x, y)| {
        let end = if index == 0 { x + 20 } else { x + 8 };
        PathElement::new(vec![(x, y), (end, y)], style)
    });
    Ok(())
}
