//! The date that a template may ask for. It is given by the caller: rendering reads no clock, so
//! the same input always gives the same text.

use std::fmt::Write;
use std::str::FromStr;

/// A date and time of day, without a time zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    year: u32,
    month: u32,
    day: u32,
    hour: u32,
    minute: u32,
    second: u32,
}

/// A text that is no date.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is not a date such as 2026-11-03 or 2026-11-03T09:05:07")]
pub struct MomentError {
    /// The text, shortened.
    pub found: String,
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] =
    ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

impl FromStr for Moment {
    type Err = MomentError;

    fn from_str(text: &str) -> Result<Moment, MomentError> {
        let error = || MomentError { found: text.chars().take(40).collect() };
        let (date, time) = text.split_once(['T', ' ']).unwrap_or((text, "00:00:00"));
        let [year, month, day] = numbers(date, '-', [4, 2, 2]).ok_or_else(error)?;
        let [hour, minute, second] = numbers(time, ':', [2, 2, 2]).ok_or_else(error)?;
        let moment = Moment { year, month, day, hour, minute, second };
        let valid = (1..=12).contains(&month)
            && (1..=days_in_month(year, month)).contains(&day)
            && hour < 24
            && minute < 60
            && second < 60;
        if valid { Ok(moment) } else { Err(error()) }
    }
}

/// Three numbers of fixed widths.
fn numbers(text: &str, separator: char, widths: [usize; 3]) -> Option<[u32; 3]> {
    let mut parts = text.split(separator);
    let mut values = [0; 3];
    for (value, width) in values.iter_mut().zip(widths) {
        let part = parts.next()?;
        let digits = part.len() == width && part.bytes().all(|byte| byte.is_ascii_digit());
        *value = part.parse().ok().filter(|_| digits)?;
    }
    parts.next().is_none().then_some(values)
}

fn is_leap(year: u32) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_in_month(year: u32, month: u32) -> u32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if is_leap(year) => 29,
        2 => 28,
        _ => 31,
    }
}

impl Moment {
    fn day_of_year(&self) -> u32 {
        (1..self.month).map(|month| days_in_month(self.year, month)).sum::<u32>() + self.day
    }

    /// Days since Monday.
    fn weekday(&self) -> usize {
        // Day 1 of year 1 of the Gregorian calendar was a Monday.
        let years = self.year.saturating_sub(1);
        let days = years * 365 + years / 4 - years / 100 + years / 400 + self.day_of_year() - 1;
        (days % 7) as usize
    }

    /// Formats as Python's `strftime` does. An unknown directive stays as it is.
    pub fn format(&self, format: &str) -> String {
        let mut out = String::new();
        let mut rest = format.chars();
        while let Some(character) = rest.next() {
            if character != '%' {
                out.push(character);
                continue;
            }
            let (padded, directive) = match rest.next() {
                Some('-') => (false, rest.next()),
                other => (true, other),
            };
            let twelve = (self.hour + 11) % 12 + 1;
            let name =
                |names: &[&str], index: usize| names.get(index).copied().unwrap_or("").to_string();
            let month = name(&MONTHS, self.month as usize - 1);
            let weekday = name(&WEEKDAYS, self.weekday());
            let number = |value: u32, width: usize| match padded {
                true => format!("{value:0width$}"),
                false => value.to_string(),
            };
            let text = match directive {
                Some('Y') => number(self.year, 4),
                Some('y') => number(self.year % 100, 2),
                Some('m') => number(self.month, 2),
                Some('d') => number(self.day, 2),
                Some('e') => format!("{:>2}", self.day),
                Some('j') => number(self.day_of_year(), 3),
                Some('H') => number(self.hour, 2),
                Some('I') => number(twelve, 2),
                Some('M') => number(self.minute, 2),
                Some('S') => number(self.second, 2),
                Some('p') => if self.hour < 12 { "AM" } else { "PM" }.into(),
                Some('B') => month,
                Some('b' | 'h') => month.chars().take(3).collect(),
                Some('A') => weekday,
                Some('a') => weekday.chars().take(3).collect(),
                Some('F') => self.format("%Y-%m-%d"),
                Some('T') => self.format("%H:%M:%S"),
                Some('D') => self.format("%m/%d/%y"),
                Some('%') => "%".into(),
                Some(other) => format!("%{}{other}", if padded { "" } else { "-" }),
                None => "%".into(),
            };
            // Writing to a String cannot fail.
            let _ = out.write_str(&text);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_formatted_as_python_does() {
        // Expected values are from Python's datetime.strftime.
        let moment: Moment = "2026-11-03T09:05:07".parse().unwrap();
        assert_eq!(moment.format("%d %b %Y"), "03 Nov 2026");
        assert_eq!(moment.format("%A, %B %-d, %y, day %j"), "Tuesday, November 3, 26, day 307");
        assert_eq!(moment.format("%F %T %I %p %%"), "2026-11-03 09:05:07 09 AM %");
        let leap: Moment = "2024-02-29".parse().unwrap();
        assert_eq!(leap.format("%a %e %I%p"), "Thu 29 12AM");
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "2026",
            "2026-13-01",
            "2026-02-29",
            "2026-1-1",
            "2026-01-01T24:00:00",
            "+026-01-01",
            "2026-01-01-01",
        ] {
            text.parse::<Moment>().unwrap_err();
        }
    }
}
