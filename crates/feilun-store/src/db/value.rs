//! The four kinds of values that both databases have, and what Rust types become of them.

use serde_json::Value as Json;

use crate::digest::{BlobDigest, ConfigHash, ModelDigest, TemplateHash};
use crate::error::StoreError;
use crate::id::{
    AliasMoveId, AuditId, ConversationId, EventId, FeedbackId, FileId, KeyId, RunEventId, RunId,
    TurnId, UserId,
};
use crate::timestamp::Timestamp;

/// A value of a statement or a row. A NULL has a kind too: PostgreSQL asks for it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Integer(Option<i64>),
    Real(Option<f64>),
    Text(Option<String>),
    Bytes(Option<Vec<u8>>),
}

/// The kind of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Integer,
    Real,
    Text,
    Bytes,
}

impl Kind {
    fn null(self) -> Value {
        match self {
            Kind::Integer => Value::Integer(None),
            Kind::Real => Value::Real(None),
            Kind::Text => Value::Text(None),
            Kind::Bytes => Value::Bytes(None),
        }
    }
}

impl Value {
    fn is_null(&self) -> bool {
        matches!(
            self,
            Value::Integer(None) | Value::Real(None) | Value::Text(None) | Value::Bytes(None)
        )
    }
}

/// What can stand in a column.
pub(crate) trait Column: Sized {
    /// Of the column.
    const KIND: Kind;
    /// For the database.
    fn encode(self) -> Value;
    /// From the database; `value` is of this type's kind.
    fn decode(value: Value) -> Result<Self, StoreError>;
}

/// `values![a, b]`: values for a statement.
macro_rules! values {
    ($($value:expr),* $(,)?) => {
        vec![$($crate::db::Column::encode($value)),*]
    };
}
pub(crate) use values;

fn unexpected<T>(value: &Value) -> Result<T, StoreError> {
    Err(StoreError::damaged(format!("a column holds {value:?}")))
}

impl<T: Column> Column for Option<T> {
    const KIND: Kind = T::KIND;

    fn encode(self) -> Value {
        self.map_or_else(|| T::KIND.null(), T::encode)
    }

    fn decode(value: Value) -> Result<Self, StoreError> {
        if value.is_null() { Ok(None) } else { T::decode(value).map(Some) }
    }
}

macro_rules! plain_columns {
    ($($type:ty => $kind:ident),+ $(,)?) => {$(
        impl Column for $type {
            const KIND: Kind = Kind::$kind;

            fn encode(self) -> Value {
                Value::$kind(Some(self))
            }

            fn decode(value: Value) -> Result<Self, StoreError> {
                match value {
                    Value::$kind(Some(found)) => Ok(found),
                    other => unexpected(&other),
                }
            }
        }
    )+};
}

plain_columns! { i64 => Integer, f64 => Real, String => Text, Vec<u8> => Bytes }

/// Only ever written; read as `String`.
impl Column for &str {
    const KIND: Kind = Kind::Text;

    fn encode(self) -> Value {
        Value::Text(Some(self.to_owned()))
    }

    fn decode(value: Value) -> Result<Self, StoreError> {
        unexpected(&value)
    }
}

/// Types that are written as another column type.
macro_rules! columns_as {
    ($($type:ty as $inner:ty: $encode:expr, $decode:expr;)+) => {$(
        impl Column for $type {
            const KIND: Kind = <$inner as Column>::KIND;

            fn encode(self) -> Value {
                let encode: fn($type) -> $inner = $encode;
                encode(self).encode()
            }

            fn decode(value: Value) -> Result<Self, StoreError> {
                let decode: fn($inner) -> Option<$type> = $decode;
                let copy = <$inner>::decode(value)?;
                decode(copy).ok_or_else(|| {
                    StoreError::damaged(concat!("a column holds no ", stringify!($type)))
                })
            }
        }
    )+};
}

/// A double bit pattern survives: the seed of a generation uses all 64 bits.
fn signed(bits: u64) -> i64 {
    i64::from_ne_bytes(bits.to_ne_bytes())
}

fn unsigned(bits: i64) -> Option<u64> {
    Some(u64::from_ne_bytes(bits.to_ne_bytes()))
}

columns_as! {
    bool as i64: i64::from, |number| matches!(number, 0 | 1).then_some(number == 1);
    u32 as i64: i64::from, |number| u32::try_from(number).ok();
    u64 as i64: signed, unsigned;
    [u8; 32] as Vec<u8>: |bytes| bytes.to_vec(), |bytes| bytes.try_into().ok();
    Timestamp as i64: Timestamp::as_micros, |micros| Some(Timestamp::from_micros(micros));
    Json as String: |json| json.to_string(), |text| serde_json::from_str(&text).ok();
    Vec<u32> as Vec<u8>: |tokens| tokens.iter().flat_map(|token| token.to_le_bytes()).collect(),
        |bytes| four_bytes_each(&bytes).map(|all| all.map(u32::from_le_bytes).collect());
    Vec<f32> as Vec<u8>: |numbers| numbers.iter().flat_map(|number| number.to_le_bytes()).collect(),
        |bytes| four_bytes_each(&bytes).map(|all| all.map(f32::from_le_bytes).collect());
}

fn four_bytes_each(bytes: &[u8]) -> Option<impl Iterator<Item = [u8; 4]> + '_> {
    let (chunks, rest) = bytes.as_chunks::<4>();
    rest.is_empty().then(|| chunks.iter().copied())
}

macro_rules! fixed_bytes_columns {
    ($($type:ident),+ $(,)?) => {$(
        impl Column for $type {
            const KIND: Kind = Kind::Bytes;

            fn encode(self) -> Value {
                Value::Bytes(Some(self.as_bytes().to_vec()))
            }

            fn decode(value: Value) -> Result<Self, StoreError> {
                let bytes = Vec::<u8>::decode(value)?;
                let length = bytes.len();
                bytes.try_into().map($type::from_bytes).map_err(|_| {
                    let name = stringify!($type);
                    StoreError::damaged(format!("a {name} has {length} bytes"))
                })
            }
        }
    )+};
}

fixed_bytes_columns! {
    TurnId, ConversationId, FeedbackId, EventId, KeyId, UserId, RunId, RunEventId, FileId,
    AliasMoveId, AuditId, ModelDigest, ConfigHash, TemplateHash, BlobDigest,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_survive() {
        assert_eq!(u64::decode(u64::MAX.encode()).unwrap(), u64::MAX);
        assert_eq!(Vec::<u32>::decode(vec![0, 1, u32::MAX].encode()).unwrap(), [0, 1, u32::MAX]);
        let nan = f32::from_bits(0x7fc0_1234);
        let back = Vec::<f32>::decode(vec![nan, f32::NEG_INFINITY, -0.0].encode()).unwrap();
        assert_eq!(back[0].to_bits(), nan.to_bits());
        assert_eq!(back[1..], [f32::NEG_INFINITY, -0.0]);
        assert_eq!(Option::<i64>::decode(Value::Integer(None)).unwrap(), None);
    }

    #[test]
    fn damage_is_noticed() {
        assert!(bool::decode(2_i64.encode()).is_err());
        assert!(u32::decode((-1_i64).encode()).is_err());
        assert!(Vec::<u32>::decode(vec![1_u8, 2, 3].encode()).is_err());
        assert!(TurnId::decode(vec![0_u8; 15].encode()).is_err());
        assert!(Json::decode("{".to_owned().encode()).is_err());
    }
}
