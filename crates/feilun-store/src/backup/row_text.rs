//! A row as one line of JSON: an array, in which bytes are hexadecimal digits.

use serde_json::Value as Json;

use crate::db::{Kind, Row, Value};
use crate::error::StoreError;

/// The line of a row, without its end.
pub(super) fn write(row: &Row, columns: &[(String, Kind)]) -> Result<String, StoreError> {
    let mut fields = Vec::with_capacity(columns.len());
    for (index, (_, kind)) in columns.iter().enumerate() {
        fields.push(match row.value(index, *kind)? {
            Value::Integer(number) => number.into(),
            Value::Real(number) => number.into(),
            Value::Text(text) => text.into(),
            Value::Bytes(bytes) => bytes.map(|bytes| hex(&bytes)).into(),
        });
    }
    Ok(Json::Array(fields).to_string())
}

/// The values of a line.
pub(super) fn read(line: &str, columns: &[(String, Kind)]) -> Result<Vec<Value>, StoreError> {
    let damaged = || StoreError::damaged("a line of the backup is no row of its table");
    let fields: Vec<Json> = serde_json::from_str(line).map_err(|_| damaged())?;
    if fields.len() != columns.len() {
        return Err(damaged());
    }
    let values = fields.into_iter().zip(columns).map(|(field, (_, kind))| value(field, *kind));
    values.collect::<Option<_>>().ok_or_else(damaged)
}

fn value(field: Json, kind: Kind) -> Option<Value> {
    Some(match (kind, field) {
        (Kind::Integer, Json::Null) => Value::Integer(None),
        (Kind::Real, Json::Null) => Value::Real(None),
        (Kind::Text, Json::Null) => Value::Text(None),
        (Kind::Bytes, Json::Null) => Value::Bytes(None),
        (Kind::Integer, field) => Value::Integer(Some(field.as_i64()?)),
        (Kind::Real, field) => Value::Real(Some(field.as_f64()?)),
        (Kind::Text, Json::String(text)) => Value::Text(Some(text)),
        (Kind::Bytes, Json::String(digits)) => Value::Bytes(Some(unhex(&digits)?)),
        _ => return None,
    })
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |half: u8| char::from(DIGITS[usize::from(half & 15)]);
    bytes.iter().flat_map(|&byte| [digit(byte >> 4), digit(byte)]).collect()
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    let half = |digit: u8| char::from(digit).to_digit(16).map(|half| half as u8);
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|&[high, low]| Some(half(high)? << 4 | half(low)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive_and_other_texts_are_refused() {
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(unhex(&hex(&bytes)), Some(bytes));
        for text in ["0", "0g", "é0", "0x"] {
            assert_eq!(unhex(text), None, "{text}");
        }
    }

    #[test]
    fn a_line_must_fit_its_table() {
        let columns = [("a".to_owned(), Kind::Integer), ("b".to_owned(), Kind::Bytes)];
        let values = [Value::Integer(Some(-1)), Value::Bytes(None)];
        assert_eq!(read("[-1, null]", &columns).unwrap(), values);
        for line in ["", "[]", "[1]", "[1, \"00\", 2]", "[1.5, null]", "[1, \"0\"]", "{}"] {
            assert!(matches!(read(line, &columns), Err(StoreError::Damaged { .. })), "{line}");
        }
    }
}
