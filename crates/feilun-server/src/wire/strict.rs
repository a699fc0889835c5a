//! From the bytes of a body to a checked request.
//!
//! The JSON is bounded in depth and in number of values while it is read, and an object that has
//! a key twice is refused: two parsers could read two different requests in it. Then the
//! request's own type decides; a field that it does not know is an error that names it, unless
//! it is one that OpenAI knows and that has no effect here: those are reported.

use std::cell::Cell;
use std::fmt;

use schemars::JsonSchema;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor,
};
use serde_json::{Map, Number, Value};

use crate::error::{ApiError, ErrorKind};

/// Deepest nesting of a body. Schemas have a bound of their own.
pub(crate) const DEPTH_MAX: usize = 96;
/// Most values in a body. A value takes up to some 100 bytes of memory, whatever it took in the
/// body; prompts of token ids need one for each token.
pub(crate) const VALUES_MAX: usize = 400_000;

/// A request in one of our shapes.
pub(crate) trait WireRequest: DeserializeOwned + JsonSchema {
    /// Fields that OpenAI knows and that have no effect here.
    const IGNORED: &'static [&'static str] = &[];
}

/// A request, and what of it had no effect.
#[derive(Debug)]
pub(crate) struct Parsed<T> {
    pub(crate) request: T,
    pub(crate) ignored: Vec<&'static str>,
    /// As it came.
    pub(crate) original: Value,
}

/// Reads and checks a body.
pub(crate) fn parse<T: WireRequest>(body: &[u8]) -> Result<Parsed<T>, ApiError> {
    let original = read_json(body)?;
    let mut value = original.clone();
    let Value::Object(map) = &mut value else {
        return Err(ApiError::new(ErrorKind::InvalidJson, "the body must be a JSON object"));
    };
    let mut ignored = Vec::new();
    for &name in T::IGNORED {
        // A null is what clients send for fields that were not set.
        if map.remove(name).is_some_and(|value| !value.is_null()) {
            ignored.push(name);
        }
    }
    Ok(Parsed { request: check(value)?, ignored, original })
}

/// A value as one of our types, or what is wrong with it and where.
pub(crate) fn check<T: DeserializeOwned>(value: Value) -> Result<T, ApiError> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        refused(&error.into_inner().to_string(), &path)
    })
}

/// What serde says, in our words.
fn refused(message: &str, path: &str) -> ApiError {
    if message.starts_with("unknown field") {
        // The list of what would have been right is long and stands in the OpenAPI document.
        let field = message.split('`').nth(1).unwrap_or("?");
        // Where a type is chosen by a field of it, the path ends before the unknown one.
        let named = if path == field || path.ends_with(&format!(".{field}")) {
            path.to_owned()
        } else if path == "." {
            field.to_owned()
        } else {
            format!("{path}.{field}")
        };
        let message = format!("unknown field `{named}`");
        return ApiError::new(ErrorKind::UnknownField, message).param(named);
    }
    if path == "." {
        return ApiError::new(ErrorKind::InvalidValue, message.to_owned());
    }
    ApiError::new(ErrorKind::InvalidValue, format!("{path}: {message}")).param(path)
}

/// Reads one JSON value within the bounds.
pub(crate) fn read_json(body: &[u8]) -> Result<Value, ApiError> {
    let num_left = Cell::new(VALUES_MAX);
    let bounds = Bounds { num_left: &num_left, depth: 0 };
    let mut reader = serde_json::Deserializer::from_slice(body);
    bounds.deserialize(&mut reader).and_then(|value| reader.end().map(|()| value)).map_err(
        |error| {
            ApiError::new(
                ErrorKind::InvalidJson,
                format!("the body is not acceptable JSON: {error}"),
            )
        },
    )
}

#[derive(Clone, Copy)]
struct Bounds<'a> {
    num_left: &'a Cell<usize>,
    depth: usize,
}

impl Bounds<'_> {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth >= DEPTH_MAX {
            return Err(E::custom(format_args!("nested more than {DEPTH_MAX} levels deep")));
        }
        Ok(Bounds { depth: self.depth + 1, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Bounds<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        let Some(left) = self.num_left.get().checked_sub(1) else {
            return Err(D::Error::custom(format_args!("more than {VALUES_MAX} values")));
        };
        self.num_left.set(left);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Bounds<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut items = Vec::new();
        while let Some(item) = access.next_element_seed(inner)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            let value = access.next_value_seed(inner)?;
            if map.insert(key, value).is_some() {
                return Err(A::Error::custom("an object has the same key twice"));
            }
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::wire::number::Whole;

    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Probe {
        #[serde(default)]
        inner: Vec<Inner>,
    }

    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        #[expect(dead_code, reason = "its range alone is tested")]
        count: Whole<0, 9>,
    }

    impl WireRequest for Probe {
        const IGNORED: &'static [&'static str] = &["service_tier"];
    }

    #[track_caller]
    fn refusal(body: &str) -> (&'static str, String) {
        let error = parse::<Probe>(body.as_bytes()).unwrap_err();
        (error.kind().code(), error.to_string())
    }

    #[test]
    fn faults_are_named() {
        assert_eq!(refusal(r#"{"x":1}"#), ("unknown_parameter", "unknown field `x`".into()));
        let (code, message) = refusal(r#"{"inner":[{"count":3},{"count":12}]}"#);
        assert_eq!(code, "invalid_value");
        assert_eq!(message, "inner[1].count: expected a whole number from 0 to 9, found 12");
        assert_eq!(refusal(r#"{"inner":[{"count":3,"y":1}]}"#).1, "unknown field `inner[0].y`");
        assert_eq!(refusal("[]").0, "invalid_json");
        assert_eq!(refusal("{} {}").0, "invalid_json");
        assert_eq!(refusal("{\"inner\":[").0, "invalid_json");
        assert!(refusal(r#"{"inner":[],"inner":[]}"#).1.contains("same key twice"));
        assert_eq!(refusal("{\"inner\":\"\u{0}\"}").0, "invalid_json");
        assert_eq!(refusal(r#"{"inner":1e999}"#).0, "invalid_json");
    }

    #[test]
    fn depth_and_number_of_values_are_bounded() {
        let deep = format!("{{\"inner\":{}{}}}", "[".repeat(200_000), "]".repeat(200_000));
        assert!(refusal(&deep).1.contains("levels deep"));
        let wide = format!("{{\"inner\":[{}0]}}", "0,".repeat(VALUES_MAX));
        assert!(refusal(&wide).1.contains("more than"));
    }

    #[test]
    fn fields_without_effect_are_reported_where_they_are_set() {
        let parsed: Parsed<Probe> = parse(br#"{"service_tier":"auto"}"#).unwrap();
        assert_eq!(parsed.ignored, ["service_tier"]);
        let parsed: Parsed<Probe> = parse(br#"{"service_tier":null}"#).unwrap();
        assert!(parsed.ignored.is_empty() && parsed.request.inner.is_empty());
    }
}
