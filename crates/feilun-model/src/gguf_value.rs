//! The typed values of GGUF metadata, read where they lie. Arrays may have 262,144 strings (a
//! vocabulary), so they are walked once to find their end and copied by nobody.

use std::ops::Range;

use crate::gguf_error::GgufError;

/// Arrays of arrays exist in the specification, not in models; a few levels are skipped kindly.
pub const MAX_ARRAY_DEPTH: u32 = 4;

/// The type of a value, numbered as in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are GGUF's own")]
pub enum ValueType {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    String,
    Array,
    U64,
    I64,
    F64,
}

impl ValueType {
    const BY_NUMBER: [ValueType; 13] = [
        ValueType::U8,
        ValueType::I8,
        ValueType::U16,
        ValueType::I16,
        ValueType::U32,
        ValueType::I32,
        ValueType::F32,
        ValueType::Bool,
        ValueType::String,
        ValueType::Array,
        ValueType::U64,
        ValueType::I64,
        ValueType::F64,
    ];

    pub(crate) fn read(cursor: &mut Cursor<'_>, key: &str) -> Result<ValueType, GgufError> {
        let found = cursor.u32("value type")?;
        ValueType::BY_NUMBER
            .get(found as usize)
            .copied()
            .ok_or_else(|| GgufError::ValueType { key: key.into(), found })
    }

    /// As in the file.
    pub(crate) fn number(self) -> u32 {
        self as u32
    }

    /// Bytes of one value, where that does not depend on the value.
    fn fixed_bytes(self) -> Option<u64> {
        match self {
            ValueType::U8 | ValueType::I8 | ValueType::Bool => Some(1),
            ValueType::U16 | ValueType::I16 => Some(2),
            ValueType::U32 | ValueType::I32 | ValueType::F32 => Some(4),
            ValueType::U64 | ValueType::I64 | ValueType::F64 => Some(8),
            ValueType::String | ValueType::Array => None,
        }
    }
}

/// A value. Integers and floats are widened: no caller cares about the width.
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Value<'a> {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
    String(&'a str),
    Array(Array<'a>),
}

impl<'a> Value<'a> {
    /// Kind and, where short, the value itself, for messages.
    pub fn describe(&self) -> String {
        match self {
            Value::Unsigned(number) => number.to_string(),
            Value::Signed(number) => number.to_string(),
            Value::Float(number) => format!("float {number}"),
            Value::Bool(truth) => truth.to_string(),
            Value::String(text) => {
                format!("string {:?}", text.chars().take(40).collect::<String>())
            }
            Value::Array(array) => format!("array of {} {:?}", array.len, array.element),
        }
    }

    pub(crate) fn read(
        cursor: &mut Cursor<'a>,
        value_type: ValueType,
        key: &str,
    ) -> Result<Value<'a>, GgufError> {
        Ok(match value_type {
            ValueType::U8 => Value::Unsigned(u8::from_le_bytes(cursor.array("u8")?).into()),
            ValueType::U16 => Value::Unsigned(u16::from_le_bytes(cursor.array("u16")?).into()),
            ValueType::U32 => Value::Unsigned(u32::from_le_bytes(cursor.array("u32")?).into()),
            ValueType::U64 => Value::Unsigned(u64::from_le_bytes(cursor.array("u64")?)),
            ValueType::I8 => Value::Signed(i8::from_le_bytes(cursor.array("i8")?).into()),
            ValueType::I16 => Value::Signed(i16::from_le_bytes(cursor.array("i16")?).into()),
            ValueType::I32 => Value::Signed(i32::from_le_bytes(cursor.array("i32")?).into()),
            ValueType::I64 => Value::Signed(i64::from_le_bytes(cursor.array("i64")?)),
            ValueType::F32 => Value::Float(f32::from_le_bytes(cursor.array("f32")?).into()),
            ValueType::F64 => Value::Float(f64::from_le_bytes(cursor.array("f64")?)),
            ValueType::Bool => Value::Bool(cursor.boolean(key)?),
            ValueType::String => {
                let at = cursor.at();
                let bytes = cursor.string("string")?;
                let text = std::str::from_utf8(bytes).map_err(|_| GgufError::NotUtf8 {
                    what: format!("the value of key {key:?}").into(),
                    at,
                })?;
                Value::String(text)
            }
            ValueType::Array => {
                let element = ValueType::read(cursor, key)?;
                let len = cursor.u64("array length")?;
                // An array's length was checked against the bytes behind it when it was skipped.
                let len = usize::try_from(len).unwrap_or(usize::MAX);
                Value::Array(Array { element, len, bytes: cursor.rest() })
            }
        })
    }
}

/// An array, as bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Array<'a> {
    element: ValueType,
    len: usize,
    bytes: &'a [u8],
}

impl<'a> Array<'a> {
    /// Type of each element.
    pub fn element(&self) -> ValueType {
        self.element
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The strings, as bytes; `None` for an array of another type.
    pub fn strings(&self) -> Option<impl Iterator<Item = &'a [u8]> + use<'a>> {
        if self.element != ValueType::String {
            return None;
        }
        let mut cursor = Cursor::new(self.bytes);
        // It ends early only if somebody rewrote the file since it was checked.
        Some((0..self.len).map_while(move |_| cursor.string("string").ok()))
    }

    /// 32-bit floats; `None` for an array of another type.
    pub fn floats(&self) -> Option<impl Iterator<Item = f32> + use<'a>> {
        self.words(ValueType::F32).map(|words| words.map(f32::from_le_bytes))
    }

    /// 32-bit integers, signed or not (as bits); `None` for an array of another type.
    pub fn integers(&self) -> Option<impl Iterator<Item = i32> + use<'a>> {
        let words = self.words(ValueType::I32).or_else(|| self.words(ValueType::U32))?;
        Some(words.map(i32::from_le_bytes))
    }

    /// Truth values; `None` for an array of another type.
    pub fn booleans(&self) -> Option<impl Iterator<Item = bool> + use<'a>> {
        (self.element == ValueType::Bool)
            .then(|| self.bytes.iter().take(self.len).map(|&byte| byte != 0))
    }

    fn words(&self, element: ValueType) -> Option<impl Iterator<Item = [u8; 4]> + use<'a>> {
        (self.element == element).then(|| self.bytes.as_chunks().0.iter().take(self.len).copied())
    }
}

/// A place in the bytes, from which everything is read with a check.
#[derive(Clone, Debug)]
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Cursor<'a> {
        Cursor { bytes, at: 0 }
    }

    /// Reads from `range` and no further; an empty cursor if the range is not there.
    pub(crate) fn within(bytes: &'a [u8], range: Range<usize>) -> Cursor<'a> {
        Cursor { bytes: bytes.get(..range.end).unwrap_or_default(), at: range.start }
    }

    pub(crate) fn at(&self) -> usize {
        self.at
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    pub(crate) fn take(&mut self, len: u64, what: &'static str) -> Result<&'a [u8], GgufError> {
        let rest = self.rest();
        let taken = usize::try_from(len).ok().and_then(|len| rest.get(..len));
        let taken = taken.ok_or(GgufError::Truncated {
            what,
            at: self.at,
            needed: len,
            left: rest.len(),
        })?;
        self.at += taken.len();
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(
        &mut self,
        what: &'static str,
    ) -> Result<[u8; N], GgufError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N as u64, what)?);
        Ok(array)
    }

    pub(crate) fn u32(&mut self, what: &'static str) -> Result<u32, GgufError> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self, what: &'static str) -> Result<u64, GgufError> {
        self.array(what).map(u64::from_le_bytes)
    }

    fn string(&mut self, what: &'static str) -> Result<&'a [u8], GgufError> {
        let len = self.u64(what)?;
        self.take(len, what)
    }

    fn boolean(&mut self, key: &str) -> Result<bool, GgufError> {
        match self.array::<1>("bool")? {
            [0] => Ok(false),
            [1] => Ok(true),
            [found] => Err(GgufError::Bool { key: key.into(), found }),
        }
    }

    /// Moves behind a value, and makes sure that all of it is there.
    pub(crate) fn skip_value(&mut self, value_type: ValueType, key: &str) -> Result<(), GgufError> {
        self.skip_nested(value_type, key, 0)
    }

    fn skip_nested(
        &mut self,
        value_type: ValueType,
        key: &str,
        depth: u32,
    ) -> Result<(), GgufError> {
        match value_type {
            ValueType::Bool => self.boolean(key).map(drop),
            ValueType::String => self.string("string").map(drop),
            ValueType::Array => self.skip_array(key, depth + 1),
            fixed => self.take(fixed.fixed_bytes().unwrap_or(0), "value").map(drop),
        }
    }

    fn skip_array(&mut self, key: &str, depth: u32) -> Result<(), GgufError> {
        if depth > MAX_ARRAY_DEPTH {
            return Err(GgufError::ArrayDepth { key: key.into(), max: MAX_ARRAY_DEPTH });
        }
        let element = ValueType::read(self, key)?;
        let len = self.u64("array length")?;
        if let Some(bytes) = element.fixed_bytes() {
            let needed = len.saturating_mul(bytes);
            return self.take(needed, "array").map(drop);
        }
        // Each string or array takes at least its own length, 8 bytes: without this check a
        // length of 2^63 would still end, but only at the end of the file.
        let least = len.saturating_mul(8);
        if least > self.rest().len() as u64 {
            let left = self.rest().len();
            return Err(GgufError::Truncated { what: "array", at: self.at, needed: least, left });
        }
        for _ in 0..len {
            self.skip_nested(element, key, depth)?;
        }
        Ok(())
    }
}
