//! One number as a picture: a dot for the estimate, a bar for its interval, upright lines for the
//! marks that it is held against.

use std::error::Error;

use plotters::prelude::*;

use super::ReportError;

const SIZE: (u32, u32) = (720, 132);
/// Blue and vermilion of Okabe and Ito, whom eyes that see fewer colours can tell apart too.
const ESTIMATE: RGBColor = RGBColor(0, 114, 178);
const MARK: RGBColor = RGBColor(213, 94, 0);
const ZERO: RGBColor = RGBColor(90, 90, 90);

/// What is drawn, in the units that are shown.
pub(super) struct Picture<'a> {
    /// For errors and for those who cannot see it.
    pub(super) name: &'a str,
    pub(super) estimate: f64,
    pub(super) low: f64,
    pub(super) high: f64,
    /// Where to draw upright lines, with a word below each. At zero it is grey and whole, else
    /// coloured and dashed.
    pub(super) marks: &'a [(f64, &'a str)],
    /// The ends of the scale where the metric has some.
    pub(super) scale: Option<(f64, f64)>,
}

impl Picture<'_> {
    /// The text of an SVG element.
    pub(super) fn svg(&self) -> Result<String, ReportError> {
        let mut text = String::new();
        self.draw(&mut text).map_err(|error| ReportError::Picture {
            name: self.name.to_owned(),
            reason: error.to_string(),
        })?;
        Ok(text)
    }

    /// The same in characters, for Markdown: `[` and `]` are the ends of the interval, `o` is the
    /// estimate, `|` are the marks, with their words below.
    pub(super) fn text(&self) -> String {
        const COLUMNS: usize = 65;
        let (low, high) = self.range();
        let column = |place: f64| {
            let part = ((place - low) / (high - low)).clamp(0.0, 1.0);
            (part * (COLUMNS - 1) as f64).round() as usize
        };
        let mut cells = ['-'; COLUMNS];
        cells[column(self.low)..=column(self.high)].fill('=');
        for &(place, _) in self.marks {
            cells[column(place)] = '|';
        }
        cells[column(self.low)] = '[';
        cells[column(self.high)] = ']';
        cells[column(self.estimate)] = 'o';
        let mut text: String = cells.iter().collect();
        for &(place, word) in self.marks {
            text.push_str(&format!("\n{:width$}^ {word}", "", width = column(place)));
        }
        text
    }

    /// From the smallest to the largest thing to be seen, with some room.
    fn range(&self) -> (f64, f64) {
        if let Some(scale) = self.scale {
            return scale;
        }
        let places = self.marks.iter().map(|&(place, _)| place).chain([self.low, self.high]);
        let (low, high) =
            places.fold((self.estimate, self.estimate), |(low, high), x| (low.min(x), high.max(x)));
        let room = (0.08 * (high - low)).max(1e-9 * (1.0 + high.abs()));
        (low - room, high + room)
    }

    fn draw(&self, text: &mut String) -> Result<(), Box<dyn Error>> {
        let root = SVGBackend::with_string(text, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let (low, high) = self.range();
        let mut chart = ChartBuilder::on(&root)
            .margin_left(12)
            .margin_right(12)
            .margin_top(22)
            .x_label_area_size(30)
            .build_cartesian_2d(low..high, 0.0..1.0)?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .disable_y_axis()
            .x_labels(9)
            .max_light_lines(0)
            .bold_line_style(RGBColor(225, 225, 225))
            .label_style(("sans-serif", 14))
            .draw()?;
        for &(place, word) in self.marks {
            self.draw_mark(&mut chart, (low, high), place, word)?;
        }
        let bar = [(self.low.clamp(low, high), 0.45), (self.high.clamp(low, high), 0.45)];
        chart.draw_series(std::iter::once(PathElement::new(bar, ESTIMATE.stroke_width(9))))?;
        let dot = Circle::new((self.estimate.clamp(low, high), 0.45), 9, BLACK.filled());
        chart.draw_series(std::iter::once(dot))?;
        root.present()?;
        Ok(())
    }

    fn draw_mark(
        &self,
        chart: &mut Chart<'_, '_>,
        (low, high): (f64, f64),
        place: f64,
        word: &str,
    ) -> Result<(), Box<dyn Error>> {
        use plotters::style::text_anchor::{HPos, Pos, VPos};
        let line = [(place, 0.0), (place, 1.0)];
        let colour = if place == 0.0 { ZERO } else { MARK };
        if place == 0.0 {
            let path = PathElement::new(line, colour.stroke_width(2));
            chart.draw_series(std::iter::once(path))?;
        } else {
            chart.draw_series(DashedLineSeries::new(line, 6, 4, colour.stroke_width(2)))?;
        }
        // Words stay within the picture: near an end they point inwards.
        let part = (place - low) / (high - low);
        let towards = match part {
            part if part < 0.25 => HPos::Left,
            part if part > 0.75 => HPos::Right,
            _ => HPos::Center,
        };
        let style =
            ("sans-serif", 14).into_font().color(&colour).pos(Pos::new(towards, VPos::Bottom));
        chart.draw_series(std::iter::once(Text::new(word.to_owned(), (place, 1.0), style)))?;
        Ok(())
    }
}

type Chart<'a, 'b> = ChartContext<
    'a,
    SVGBackend<'b>,
    Cartesian2d<plotters::coord::types::RangedCoordf64, plotters::coord::types::RangedCoordf64>,
>;
