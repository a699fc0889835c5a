//! Numbers that know their range: what is outside of it never becomes a value of these types.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error as _};
use serde_json::{Number, Value};

/// A whole number from `MIN` to `MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Whole<const MIN: i64, const MAX: i64>(i64);

impl<const MIN: i64, const MAX: i64> Whole<MIN, MAX> {
    pub(crate) fn get(self) -> i64 {
        self.0
    }

    /// As a size; types with a negative `MIN` have no business here.
    pub(crate) fn size(self) -> usize {
        usize::try_from(self.0).unwrap_or(0)
    }
}

impl<'de, const MIN: i64, const MAX: i64> Deserialize<'de> for Whole<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let found = Value::deserialize(deserializer)?;
        let number = whole(&found).filter(|number| (MIN..=MAX).contains(number));
        let expected =
            |found| format!("expected a whole number from {MIN} to {MAX}, found {found}");
        number.map(Whole).ok_or_else(|| D::Error::custom(expected(shown(&found))))
    }
}

/// A whole number, also one that is written as `3.0`: to JSON Schema they are one.
fn whole(found: &Value) -> Option<i64> {
    // Beyond this not every whole number is a float.
    const FLOAT_MAX: f64 = (1u64 << 53) as f64;
    let of_float = |number: f64| {
        let fits = number.fract() == 0.0 && number.abs() <= FLOAT_MAX;
        fits.then_some(number as i64)
    };
    found.as_i64().or_else(|| found.as_f64().and_then(of_float))
}

impl<const MIN: i64, const MAX: i64> JsonSchema for Whole<MIN, MAX> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Whole".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "integer", "minimum": MIN, "maximum": MAX})
    }
}

/// A number from `MIN` to `MAX`, never NaN or infinite.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub(crate) struct Real<const MIN: i64, const MAX: i64>(f64);

impl<const MIN: i64, const MAX: i64> Real<MIN, MAX> {
    pub(crate) fn get(self) -> f32 {
        self.0 as f32
    }

    /// As it was written.
    pub(crate) fn wide(self) -> f64 {
        self.0
    }
}

impl<'de, const MIN: i64, const MAX: i64> Deserialize<'de> for Real<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let found = Value::deserialize(deserializer)?;
        let number = found.as_f64().filter(|number| (MIN as f64..=MAX as f64).contains(number));
        let expected = |found| format!("expected a number from {MIN} to {MAX}, found {found}");
        number.map(Real).ok_or_else(|| D::Error::custom(expected(shown(&found))))
    }
}

impl<const MIN: i64, const MAX: i64> JsonSchema for Real<MIN, MAX> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Real".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "number", "minimum": MIN, "maximum": MAX})
    }
}

/// The number found, or what stands in its place.
fn shown(found: &Value) -> String {
    match found {
        Value::Number(number) => shown_number(number),
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "a boolean".to_owned(),
        Value::String(_) => "a string".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

fn shown_number(number: &Number) -> String {
    number.to_string().chars().take(32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbers_of_the_range_pass() {
        let whole = |text: &str| serde_json::from_str::<Whole<1, 8>>(text).map(Whole::get).ok();
        assert_eq!((whole("1"), whole("8"), whole("3.0")), (Some(1), Some(8), Some(3)));
        for bad in
            ["0", "9", "-1", "8.5", "1.5", "1e300", "\"3\"", "null", "true", "9223372036854775808"]
        {
            assert_eq!(whole(bad), None, "{bad}");
        }
        let real = |text: &str| serde_json::from_str::<Real<-2, 2>>(text).map(Real::get).ok();
        assert_eq!((real("-2"), real("0.5")), (Some(-2.0), Some(0.5)));
        for bad in ["2.0001", "-1e308", "1e308", "\"1\"", "null", "[1]"] {
            assert_eq!(real(bad), None, "{bad}");
        }
    }
}
