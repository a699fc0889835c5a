//! The part of a URL behind the question mark, checked like a body: what nobody knows is refused
//! by name.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::{ApiError, ErrorKind};
use crate::wire::strict;

/// Parameters in one of our shapes.
pub(crate) trait WireQuery: DeserializeOwned + JsonSchema {
    /// Those that are numbers, or true and false; all others are texts.
    const LITERALS: &'static [&'static str] = &[];
}

/// Checked parameters.
#[derive(Debug)]
pub(crate) struct Query<T>(pub(crate) T);

impl<T: WireQuery, S: Sync> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        parse(parts.uri.query().unwrap_or_default()).map(Query)
    }
}

fn parse<T: WireQuery>(text: &str) -> Result<T, ApiError> {
    let mut map = Map::new();
    for (name, value) in form_urlencoded::parse(text.as_bytes()) {
        let literal = || {
            serde_json::from_str(&value)
                .ok()
                .filter(|value: &Value| value.is_number() || value.is_boolean())
        };
        let value = match T::LITERALS.contains(&&*name) {
            true => literal().unwrap_or_else(|| Value::from(&*value)),
            false => Value::from(&*value),
        };
        if map.insert(name.to_string(), value).is_some() {
            let shown: String = name.chars().take(100).collect();
            let message = format!("the parameter `{shown}` is there twice");
            return Err(ApiError::new(ErrorKind::InvalidValue, message).param(shown));
        }
    }
    strict::check(Value::Object(map))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::wire::number::Whole;

    #[derive(Debug, PartialEq, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Probe {
        after: Option<String>,
        limit: Option<Whole<1, 100>>,
        stream: Option<bool>,
    }

    impl WireQuery for Probe {
        const LITERALS: &'static [&'static str] = &["limit", "stream"];
    }

    #[test]
    fn parameters_are_read_as_what_they_are() {
        let probe: Probe = parse("after=12&limit=7&stream=true").unwrap();
        assert_eq!((probe.after.as_deref(), probe.stream), (Some("12"), Some(true)));
        assert_eq!(probe.limit.map(Whole::get), Some(7));
        assert_eq!(parse::<Probe>("").unwrap().after, None);
        assert_eq!(parse::<Probe>("after=%66+ile").unwrap().after.as_deref(), Some("f ile"));
        for (text, code) in [
            ("limit=0", "invalid_value"),
            ("limit=ten", "invalid_value"),
            ("stream=1", "invalid_value"),
            ("limit=1&limit=1", "invalid_value"),
            ("offset=1", "unknown_parameter"),
        ] {
            assert_eq!(parse::<Probe>(text).unwrap_err().kind().code(), code, "{text}");
        }
    }
}
