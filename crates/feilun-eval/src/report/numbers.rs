//! Numbers as people read them.

use crate::gate::Unit;

use super::Language;

impl Unit {
    /// What a number of the metric is multiplied with to be shown.
    pub(super) fn factor(self) -> f64 {
        match self {
            Unit::Share => 100.0,
            Unit::Points | Unit::Plain => 1.0,
        }
    }

    /// A value of the metric: `81.3 %`.
    pub(super) fn value(self, value: f64) -> String {
        match self {
            Unit::Share => format!("{:.1} %", 100.0 * value),
            Unit::Points => format!("{value:.1}"),
            Unit::Plain => format!("{value:.4}"),
        }
    }

    /// A difference, with its sign: `+4.2`.
    pub(super) fn difference(self, difference: f64) -> String {
        let shown = match self {
            Unit::Share | Unit::Points => format!("{:+.1}", self.factor() * difference),
            Unit::Plain => format!("{difference:+.4}"),
        };
        // A minus before nothing but zeros is no direction.
        let is_zero = shown.bytes().all(|byte| matches!(byte, b'+' | b'-' | b'0' | b'.'));
        if is_zero { shown.replace(['+', '-'], "±") } else { shown.replace('-', "−") }
    }

    /// A size with its unit, without a sign: `11 points`.
    pub(super) fn size(self, size: f64, language: Language) -> String {
        let shown = self.factor() * size.abs();
        let digits = match self {
            Unit::Plain => 4,
            // Sizes are limits and forecasts: a digit behind the point only where it counts.
            _ if shown >= 9.95 || (shown - shown.round()).abs() < 0.05 => 0,
            _ => 1,
        };
        let unit = match self {
            Unit::Plain => "",
            // chrF has points, but not of a hundred.
            Unit::Points if language == Language::Chinese => " 点",
            _ if language == Language::Chinese => " 个百分点",
            _ if format!("{shown:.digits$}") == "1" => " point",
            _ => " points",
        };
        format!("{shown:.digits$}{unit}")
    }
}

/// A probability: `2.5 %`, `0.04 %`.
pub(super) fn percent(share: f64) -> String {
    let shown = 100.0 * share;
    let digits = match shown {
        shown if (shown - shown.round()).abs() < 1e-9 => 0,
        shown if shown >= 0.95 => 1,
        _ => 2,
    };
    format!("{shown:.digits$} %")
}

/// A p-value: never so small that it reads as impossible.
pub(super) fn p_value(p: f64) -> String {
    if p < 0.0001 { "< 0.01 %".to_owned() } else { percent(p) }
}

/// A count with thin spaces between thousands, as both languages can read it.
pub(super) fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut shown = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            shown.push('\u{202f}');
        }
        shown.push(digit);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_signed() {
        assert_eq!(Unit::Share.value(0.8125), "81.2 %");
        assert_eq!(Unit::Share.difference(0.042), "+4.2");
        assert_eq!(Unit::Points.difference(-0.31), "−0.3");
        assert_eq!(Unit::Share.difference(-0.0001), "±0.0");
        assert_eq!(Unit::Plain.difference(-0.0123), "−0.0123");
        assert_eq!(Unit::Share.size(0.1098, Language::English), "11 points");
        assert_eq!(Unit::Share.size(-0.01, Language::English), "1 point");
        assert_eq!(Unit::Share.size(0.015, Language::Chinese), "1.5 个百分点");
        assert_eq!(Unit::Points.size(2.0, Language::Chinese), "2 点");
        assert_eq!(Unit::Plain.size(0.02, Language::English), "0.0200");
        assert_eq!(percent(0.025), "2.5 %");
        assert_eq!(percent(0.0004), "0.04 %");
        assert_eq!(percent(0.95), "95 %");
        assert_eq!(p_value(1e-9), "< 0.01 %");
        assert_eq!(p_value(0.119), "11.9 %");
        assert_eq!(count(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(count(999), "999");
    }
}
