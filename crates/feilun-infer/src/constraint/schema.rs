//! Checks a JSON schema before it is compiled: its size, and that every keyword is one that the
//! compiler enforces.
//!
//! llguidance passes over keywords that the schema's draft does not know, and lets the schema
//! itself relax it through `x-guidance`. Here a keyword is either enforced, or an annotation by
//! the standard, or an error that names it.

use serde_json::Value;

use super::{ConstraintError, ConstraintKind};

/// Keywords whose value is no schema, and which llguidance 1.9 enforces.
const ASSERTIONS: [&str; 18] = [
    "$ref",
    "const",
    "enum",
    "type",
    "minItems",
    "maxItems",
    "required",
    "minProperties",
    "maxProperties",
    "minLength",
    "maxLength",
    "pattern",
    "format",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
];

/// Keywords whose value is a schema.
const SUBSCHEMA: [&str; 3] = ["items", "additionalItems", "additionalProperties"];

/// Keywords whose value is a list of schemas (`items` may be, too).
const SUBSCHEMA_LISTS: [&str; 4] = ["anyOf", "oneOf", "allOf", "prefixItems"];

/// Keywords whose value maps names to schemas.
const SUBSCHEMA_MAPS: [&str; 4] = ["properties", "patternProperties", "$defs", "definitions"];

/// Annotations: JSON Schema 2020-12 core section 8.3 and validation sections 8 and 9. They assert
/// nothing.
const ANNOTATIONS: [&str; 10] = [
    "$comment",
    "title",
    "description",
    "default",
    "deprecated",
    "readOnly",
    "writeOnly",
    "examples",
    "contentEncoding",
    "contentMediaType",
];

/// Annotations that change the meaning of others where they stand deeper than the root.
const ROOT_ANNOTATIONS: [&str; 3] = ["$schema", "$id", "id"];

/// Largest magnitude of a number that constrains. llguidance calculates with i64, and negates.
const NUMBER_MAX: f64 = 1e18;

/// Bounds of a schema.
#[derive(Clone, Copy, Debug)]
pub(super) struct SchemaBounds {
    pub(super) depth_max: usize,
    pub(super) values_max: usize,
    /// Of all patterns together.
    pub(super) pattern_bytes_max: usize,
}

/// Walks the schema once.
pub(super) fn check(schema: &Value, bounds: SchemaBounds) -> Result<(), ConstraintError> {
    let mut walk =
        Walk { bounds, num_values: 0, num_pattern_bytes: 0, path: Vec::new(), old_draft: false };
    // Before the keywords: nothing else here is safe on a value of any size.
    walk.check_size(schema, 0)?;
    if let Some(draft) = schema.get("$schema").and_then(Value::as_str) {
        walk.old_draft = !draft.contains("2020-12");
    }
    walk.check_schema(schema)
}

struct Walk<'a> {
    bounds: SchemaBounds,
    num_values: usize,
    num_pattern_bytes: usize,
    path: Vec<&'a str>,
    old_draft: bool,
}

impl<'a> Walk<'a> {
    fn check_size(&mut self, value: &Value, depth: usize) -> Result<(), ConstraintError> {
        self.num_values += 1;
        if depth > self.bounds.depth_max {
            return Err(ConstraintError::SchemaTooDeep { max: self.bounds.depth_max });
        }
        if self.num_values > self.bounds.values_max {
            return Err(ConstraintError::SchemaTooLarge { max: self.bounds.values_max });
        }
        match value {
            Value::Array(items) => items.iter().try_for_each(|v| self.check_size(v, depth + 1)),
            Value::Object(map) => map.values().try_for_each(|v| self.check_size(v, depth + 1)),
            _ => Ok(()),
        }
    }

    fn check_schema(&mut self, schema: &'a Value) -> Result<(), ConstraintError> {
        let map = match schema {
            Value::Bool(_) => return Ok(()),
            Value::Object(map) => map,
            _ => return Err(ConstraintError::NotASchema { path: self.pointer() }),
        };
        for (keyword, value) in map {
            self.path.push(keyword);
            self.check_keyword(keyword, value)?;
            self.path.pop();
        }
        Ok(())
    }

    fn check_keyword(&mut self, keyword: &str, value: &'a Value) -> Result<(), ConstraintError> {
        let at_root = self.path.len() == 1;
        if let ("pattern", Value::String(pattern)) = (keyword, value) {
            self.check_pattern(pattern)?;
        }
        if let ("patternProperties", Value::Object(map)) = (keyword, value) {
            map.keys().try_for_each(|pattern| self.check_pattern(pattern))?;
        }
        if ASSERTIONS.contains(&keyword) {
            return self.check_numbers(value);
        }
        if ANNOTATIONS.contains(&keyword) || at_root && ROOT_ANNOTATIONS.contains(&keyword) {
            return Ok(());
        }
        // Drafts before 2020-12 do not know it, and llguidance would pass over it.
        if keyword == "prefixItems" && self.old_draft {
            return Err(self.unsupported(keyword));
        }
        let is_list = SUBSCHEMA_LISTS.contains(&keyword) || keyword == "items" && value.is_array();
        match value {
            Value::Array(items) if is_list => {
                items.iter().try_for_each(|item| self.check_schema(item))
            }
            Value::Object(map) if SUBSCHEMA_MAPS.contains(&keyword) => {
                for (name, subschema) in map {
                    self.path.push(name);
                    self.check_schema(subschema)?;
                    self.path.pop();
                }
                Ok(())
            }
            _ if SUBSCHEMA.contains(&keyword) => self.check_schema(value),
            _ if is_list || SUBSCHEMA_MAPS.contains(&keyword) => {
                Err(ConstraintError::NotASchema { path: self.pointer() })
            }
            _ => Err(self.unsupported(keyword)),
        }
    }

    fn check_numbers(&self, value: &Value) -> Result<(), ConstraintError> {
        match value {
            Value::Number(number) if !number.as_f64().is_some_and(|x| x.abs() <= NUMBER_MAX) => {
                let found = super::shorten(&number.to_string());
                Err(ConstraintError::NumberOutOfRange { found, path: self.pointer() })
            }
            Value::Array(items) => items.iter().try_for_each(|item| self.check_numbers(item)),
            Value::Object(map) => map.values().try_for_each(|item| self.check_numbers(item)),
            _ => Ok(()),
        }
    }

    fn check_pattern(&mut self, pattern: &str) -> Result<(), ConstraintError> {
        self.num_pattern_bytes += pattern.len();
        super::regex::check(pattern, self.bounds.depth_max)?;
        super::check_length(
            ConstraintKind::Regex,
            self.num_pattern_bytes,
            self.bounds.pattern_bytes_max,
        )
    }

    fn unsupported(&self, keyword: &str) -> ConstraintError {
        ConstraintError::UnsupportedKeyword {
            keyword: super::shorten(keyword),
            path: self.pointer(),
        }
    }

    /// Where the walk is, as a JSON pointer.
    fn pointer(&self) -> String {
        let escaped = self.path.iter().map(|name| name.replace('~', "~0").replace('/', "~1"));
        super::shorten(&escaped.fold(String::new(), |path, name| path + "/" + &name))
    }
}
