//! Lines on a terminal: plain characters, so that they survive any font, log and colour setting.

/// One line of a chart.
#[derive(Clone, Debug)]
pub(super) struct Series {
    pub(super) name: String,
    /// Steps and losses.
    pub(super) points: Vec<(f64, f64)>,
}

/// One for each line; no chart has more.
pub(super) const MARKS: [char; 6] = ['*', 'o', '+', 'x', '#', '@'];

/// The smallest rectangle around all points, with some height; nothing without points.
pub(super) struct Frame {
    pub(super) last_step: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

impl Frame {
    pub(super) fn around(series: &[Series]) -> Option<Frame> {
        let points = || series.iter().flat_map(|series| &series.points);
        let is_finite = |&&(step, loss): &&(f64, f64)| step.is_finite() && loss.is_finite();
        let losses = || points().filter(is_finite).map(|&(_, loss)| loss);
        let last_step = points().filter(is_finite).map(|&(step, _)| step).reduce(f64::max)?;
        let (low, high) = (losses().reduce(f64::min)?, losses().reduce(f64::max)?);
        // A line at one height would divide by zero.
        let room = if high > low { 0.0 } else { (high.abs() * 0.01).max(1e-6) };
        Some(Frame { last_step: last_step.max(1.0), low: low - room, high: high + room })
    }
}

/// A chart of so many columns and rows, axes not counted.
pub(super) fn draw(series: &[Series], columns: usize, rows: usize) -> Option<String> {
    let columns_of: Vec<Vec<Option<f64>>> = {
        let last_step = Frame::around(series)?.last_step;
        series.iter().map(|series| column_means(&series.points, last_step, columns)).collect()
    };
    // Means reach less far than points: framed anew.
    let means: Vec<Series> = columns_of
        .iter()
        .map(|means| Series {
            name: String::new(),
            points: means.iter().flatten().map(|&mean| (0.0, mean)).collect(),
        })
        .collect();
    let Frame { low, high, .. } = Frame::around(&means)?;
    let last_step = Frame::around(series)?.last_step;
    let mut cells = vec![vec![' '; columns]; rows];
    for (means, mark) in columns_of.iter().zip(MARKS).rev() {
        for (column, mean) in means.iter().enumerate() {
            let Some(mean) = mean else { continue };
            let height = (high - mean) / (high - low) * (rows - 1) as f64;
            cells[(height.round() as usize).min(rows - 1)][column] = mark;
        }
    }
    let mut text = String::new();
    for (row, cells) in cells.iter().enumerate() {
        let value = high - (high - low) * row as f64 / (rows - 1) as f64;
        let line: String = cells.iter().collect();
        text.push_str(&format!("{value:>10.4} |{}\n", line.trim_end()));
    }
    text.push_str(&format!("{:>10} +{}\n", "", "-".repeat(columns)));
    let end = format!("step {last_step}");
    text.push_str(&format!("{:>10}  0{end:>width$}\n", "", width = columns - 1));
    let legend: Vec<String> =
        series.iter().zip(MARKS).map(|(series, mark)| format!("{mark} {}", series.name)).collect();
    text.push_str(&format!("{:>10}  {}\n", "", legend.join("   ")));
    Some(text)
}

/// The mean of the points in each column.
fn column_means(points: &[(f64, f64)], last_step: f64, columns: usize) -> Vec<Option<f64>> {
    let mut sums = vec![(0.0, 0_usize); columns];
    for &(step, loss) in points.iter().filter(|(_, loss)| loss.is_finite()) {
        let column = (step / last_step * (columns - 1) as f64).round() as usize;
        let (sum, count) = &mut sums[column.min(columns - 1)];
        *sum += loss;
        *count += 1;
    }
    sums.into_iter().map(|(sum, count)| (count > 0).then(|| sum / count as f64)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(name: &str, points: &[(f64, f64)]) -> Series {
        Series { name: name.to_owned(), points: points.to_vec() }
    }

    #[test]
    fn lines_go_where_their_values_are() {
        let falling: Vec<(f64, f64)> =
            (0..=10).map(|i| (f64::from(i), 3.0 - 0.2 * f64::from(i))).collect();
        let chart = draw(&[series("loss", &falling), series("held-out", &[(10.0, 3.0)])], 11, 3);
        let expected = "
    3.0000 |***       o
    2.0000 |   *****
    1.0000 |        ***
           +-----------
            0   step 10
            * loss   o held-out
";
        assert_eq!(chart.unwrap(), expected[1..]);
    }

    #[test]
    fn nothing_one_point_and_damage_are_no_trouble() {
        assert_eq!(draw(&[series("loss", &[])], 10, 3), None);
        assert_eq!(draw(&[series("loss", &[(1.0, f64::NAN)])], 10, 3), None);
        let chart = draw(&[series("loss", &[(1.0, 2.0)])], 10, 3).unwrap();
        assert!(chart.contains("    2.0000 |         *\n"), "{chart}");
        let huge = draw(&[series("loss", &[(1.0, 2.0), (1e18, 1e300)])], 10, 3).unwrap();
        assert_eq!(huge.lines().count(), 6);
    }
}
