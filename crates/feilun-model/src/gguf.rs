//! GGUF, versions 2 and 3, little endian: metadata and tensor infos over bytes that stay where
//! they are (usually a memory map). It does not know what a Llama is; see `gguf_config`.
//!
//! A file is hostile until proven otherwise: every count, length, offset and product is checked
//! against the bytes that are really there before anything is allocated, and the work is linear
//! in the size of the file. Start at [`Gguf::parse`].
//!
//! Layout: magic, version, number of tensors, number of keys; the keys with typed values; the
//! tensor infos (name, dimensions, type, offset); padding; the data section.

use std::ops::Range;

use feilun_kernels::BlockType;

pub use crate::gguf_error::GgufError;
use crate::gguf_value::{Cursor, Value, ValueType};

/// Real files have about 40 keys.
pub const MAX_KEYS: u64 = 4_096;
/// 1,024 layers of 20 tensors, and some.
pub const MAX_TENSORS: u64 = 32_768;
/// Of a key or of a tensor's name; ggml itself stops at 64 for tensors.
pub const MAX_NAME_BYTES: u64 = 256;
/// ggml's `GGML_MAX_DIMS`.
pub const MAX_DIMS: u32 = 4;
/// Files use 32, sometimes a page; more would only be a way to waste an address space.
pub const MAX_ALIGNMENT: u64 = 65_536;

const DEFAULT_ALIGNMENT: u64 = 32;
const ALIGNMENT_KEY: &str = "general.alignment";

/// One parsed file over its bytes `B`: a slice, or a memory map.
#[derive(Debug)]
pub struct Gguf<B> {
    bytes: B,
    version: u32,
    /// Sorted by key.
    entries: Vec<Entry>,
    /// Sorted by name.
    tensors: Vec<GgufTensor>,
}

/// A key and where its type and value lie.
#[derive(Debug)]
struct Entry {
    key: Box<str>,
    value: Range<usize>,
}

/// One tensor: what the file says of it, with the range of its bytes checked.
#[derive(Clone, Debug)]
pub struct GgufTensor {
    /// As in the file.
    pub name: Box<str>,
    /// Storage of the weights.
    pub block_type: BlockType,
    /// Sizes as the file has them, contiguous dimension first: a matrix is `[cols, rows]`.
    pub dims: Vec<usize>,
    /// Where its bytes lie in the file.
    pub range: Range<usize>,
}

impl<B: AsRef<[u8]>> Gguf<B> {
    /// Reads keys and tensor infos. Values and weights stay in `bytes`.
    pub fn parse(bytes: B) -> Result<Gguf<B>, GgufError> {
        let mut cursor = Cursor::new(bytes.as_ref());
        let version = read_magic_and_version(&mut cursor)?;
        let num_tensors = read_count(&mut cursor, "tensors", MAX_TENSORS)?;
        let num_keys = read_count(&mut cursor, "keys", MAX_KEYS)?;
        let entries = read_entries(&mut cursor, num_keys)?;
        let alignment = alignment_of(&entries, bytes.as_ref())?;
        let tensors = read_tensors(&mut cursor, num_tensors, alignment)?;
        Ok(Gguf { bytes, version, entries, tensors })
    }

    /// 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The whole file.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.as_ref()
    }

    /// What the file was parsed from.
    pub fn source(&self) -> &B {
        &self.bytes
    }

    /// All tensors, sorted by name.
    pub fn tensors(&self) -> &[GgufTensor] {
        &self.tensors
    }

    /// One tensor.
    pub fn tensor(&self, name: &str) -> Option<&GgufTensor> {
        let index = self.tensors.binary_search_by(|tensor| tensor.name.as_ref().cmp(name)).ok()?;
        self.tensors.get(index)
    }

    /// All keys, sorted.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|entry| entry.key.as_ref())
    }

    /// Each key with the bytes of its type and value, in the order of the file.
    pub(crate) fn raw_entries(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let mut entries: Vec<&Entry> = self.entries.iter().collect();
        entries.sort_by_key(|entry| entry.value.start);
        entries.into_iter().map(|entry| {
            let bytes = self.bytes().get(entry.value.clone()).unwrap_or_default();
            (entry.key.as_ref(), bytes)
        })
    }

    /// The value of a key.
    pub fn value(&self, key: &str) -> Result<Option<Value<'_>>, GgufError> {
        find_value(&self.entries, self.bytes.as_ref(), key)
    }

    /// A non-negative integer, whatever width the file chose.
    pub fn integer(&self, key: &str) -> Result<Option<u64>, GgufError> {
        self.typed(key, "an integer of at least 0", |value| match value {
            Value::Unsigned(number) => Some(number),
            Value::Signed(number) => u64::try_from(number).ok(),
            _ => None,
        })
    }

    /// A float.
    pub fn float(&self, key: &str) -> Result<Option<f32>, GgufError> {
        self.typed(key, "a float", |value| match value {
            Value::Float(number) => Some(number as f32),
            _ => None,
        })
    }

    /// A truth value.
    pub fn boolean(&self, key: &str) -> Result<Option<bool>, GgufError> {
        self.typed(key, "a bool", |value| match value {
            Value::Bool(truth) => Some(truth),
            _ => None,
        })
    }

    /// A string.
    pub fn string(&self, key: &str) -> Result<Option<&str>, GgufError> {
        self.typed(key, "a string", |value| match value {
            Value::String(text) => Some(text),
            _ => None,
        })
    }

    /// A string that must be there.
    pub fn required_string(&self, key: &str) -> Result<&str, GgufError> {
        self.string(key)?.ok_or_else(|| GgufError::MissingKey { key: key.into() })
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &'static str,
        convert: impl FnOnce(Value<'a>) -> Option<T>,
    ) -> Result<Option<T>, GgufError> {
        let Some(value) = self.value(key)? else { return Ok(None) };
        let found = value.describe();
        match convert(value) {
            Some(converted) => Ok(Some(converted)),
            None => Err(GgufError::WrongType { key: key.into(), found, expected }),
        }
    }
}

fn read_magic_and_version(cursor: &mut Cursor<'_>) -> Result<u32, GgufError> {
    let magic: [u8; 4] = cursor.array("magic")?;
    match &magic {
        b"GGUF" => {}
        b"FUGG" => return Err(GgufError::BigEndian),
        _ => return Err(GgufError::NotGguf { found: magic }),
    }
    let version = cursor.u32("version")?;
    match version {
        2 | 3 => Ok(version),
        // Versions are small, so a version without low bits was written by a big-endian machine.
        _ if version != 0 && version & 0xffff == 0 => Err(GgufError::BigEndian),
        _ => Err(GgufError::Version { found: version }),
    }
}

fn read_count(cursor: &mut Cursor<'_>, what: &'static str, max: u64) -> Result<u64, GgufError> {
    let found = cursor.u64(what)?;
    if found > max {
        return Err(GgufError::TooMany { what, found, max });
    }
    Ok(found)
}

fn read_entries(cursor: &mut Cursor<'_>, num_keys: u64) -> Result<Vec<Entry>, GgufError> {
    let mut entries = Vec::new();
    for _ in 0..num_keys {
        let key: Box<str> = read_name(cursor, "key")?.into();
        let start = cursor.at();
        let value_type = ValueType::read(cursor, &key)?;
        cursor.skip_value(value_type, &key)?;
        entries.push(Entry { key, value: start..cursor.at() });
    }
    entries.sort_by(|a, b| a.key.cmp(&b.key));
    for pair in entries.windows(2) {
        if let [a, b] = pair
            && a.key == b.key
        {
            return Err(GgufError::DuplicateKey { key: a.key.clone() });
        }
    }
    Ok(entries)
}

fn read_name<'a>(cursor: &mut Cursor<'a>, what: &'static str) -> Result<&'a str, GgufError> {
    let at = cursor.at();
    let len = cursor.u64(what)?;
    if len == 0 || len > MAX_NAME_BYTES {
        return Err(GgufError::NameLength { what, at, found: len, max: MAX_NAME_BYTES });
    }
    let bytes = cursor.take(len, what)?;
    std::str::from_utf8(bytes).map_err(|_| GgufError::NotUtf8 { what: what.into(), at })
}

fn find_value<'a>(
    entries: &[Entry],
    bytes: &'a [u8],
    key: &str,
) -> Result<Option<Value<'a>>, GgufError> {
    let found = entries.binary_search_by(|entry| entry.key.as_ref().cmp(key));
    let Some(entry) = found.ok().and_then(|index| entries.get(index)) else { return Ok(None) };
    // The map may change under us (it is a file), so this reads with the same checks again.
    let mut cursor = Cursor::within(bytes, entry.value.clone());
    let value_type = ValueType::read(&mut cursor, key)?;
    Value::read(&mut cursor, value_type, key).map(Some)
}

fn alignment_of(entries: &[Entry], bytes: &[u8]) -> Result<u64, GgufError> {
    let alignment = match find_value(entries, bytes, ALIGNMENT_KEY)? {
        None => return Ok(DEFAULT_ALIGNMENT),
        Some(Value::Unsigned(alignment)) => alignment,
        Some(other) => {
            return Err(GgufError::WrongType {
                key: ALIGNMENT_KEY.into(),
                found: other.describe(),
                expected: "an unsigned integer",
            });
        }
    };
    if !alignment.is_power_of_two() || !(8..=MAX_ALIGNMENT).contains(&alignment) {
        return Err(GgufError::Alignment { found: alignment });
    }
    Ok(alignment)
}

/// A tensor info whose place in the file is not known yet.
struct PendingTensor {
    name: Box<str>,
    block_type: BlockType,
    dims: Vec<usize>,
    /// From the start of the data section.
    offset: u64,
    num_bytes: u64,
}

fn read_tensors(
    cursor: &mut Cursor<'_>,
    num_tensors: u64,
    alignment: u64,
) -> Result<Vec<GgufTensor>, GgufError> {
    let mut pending = Vec::new();
    for _ in 0..num_tensors {
        pending.push(read_tensor_info(cursor, alignment)?);
    }
    let file_bytes = cursor.len() as u64;
    // Cannot overflow: `at` is inside a slice, and the alignment is small.
    let data_start = (cursor.at() as u64).next_multiple_of(alignment);
    let mut tensors = place_tensors(pending, data_start, file_bytes)?;
    refuse_overlaps(&mut tensors)?;
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    for pair in tensors.windows(2) {
        if let [a, b] = pair
            && a.name == b.name
        {
            return Err(GgufError::DuplicateTensor { name: a.name.clone() });
        }
    }
    Ok(tensors)
}

fn read_tensor_info(cursor: &mut Cursor<'_>, alignment: u64) -> Result<PendingTensor, GgufError> {
    let name: Box<str> = read_name(cursor, "tensor name")?.into();
    let num_dims = cursor.u32("number of dimensions")?;
    if num_dims == 0 || num_dims > MAX_DIMS {
        return Err(GgufError::NumDims { name, found: num_dims, max: MAX_DIMS });
    }
    let mut dims_u64 = Vec::new();
    for _ in 0..num_dims {
        dims_u64.push(cursor.u64("dimension")?);
    }
    let type_id = cursor.u32("tensor type")?;
    let Some(block_type) = block_type_of(type_id) else {
        let found = ggml_type_name(type_id);
        return Err(GgufError::TensorType { name, found, id: type_id });
    };
    let offset = cursor.u64("tensor offset")?;
    if !offset.is_multiple_of(alignment) {
        return Err(GgufError::Misaligned { name, offset, alignment });
    }
    let (dims, num_bytes) = checked_size(&name, block_type, &dims_u64)?;
    Ok(PendingTensor { name, block_type, dims, offset, num_bytes })
}

/// The sizes as `usize` and the bytes that they take together.
fn checked_size(
    name: &str,
    block_type: BlockType,
    dims_u64: &[u64],
) -> Result<(Vec<usize>, u64), GgufError> {
    let bad_shape = || GgufError::Shape { name: name.into(), found: dims_u64.to_vec() };
    let mut dims = Vec::with_capacity(dims_u64.len());
    for &dim in dims_u64 {
        dims.push(usize::try_from(dim).ok().filter(|&dim| dim > 0).ok_or_else(bad_shape)?);
    }
    let (&cols, outer) = dims.split_first().ok_or_else(bad_shape)?;
    if !cols.is_multiple_of(block_type.block_len()) {
        return Err(GgufError::PartialBlock { name: name.into(), block_type, cols });
    }
    let num_bytes = outer
        .iter()
        .try_fold(block_type.row_bytes(cols).ok_or_else(bad_shape)?, |bytes, &dim| {
            bytes.checked_mul(dim)
        })
        .ok_or_else(bad_shape)?;
    Ok((dims, num_bytes as u64))
}

fn place_tensors(
    pending: Vec<PendingTensor>,
    data_start: u64,
    file_bytes: u64,
) -> Result<Vec<GgufTensor>, GgufError> {
    let mut tensors = Vec::with_capacity(pending.len());
    for PendingTensor { name, block_type, dims, offset, num_bytes } in pending {
        let start = data_start.checked_add(offset);
        let end = start.and_then(|start| start.checked_add(num_bytes));
        let (Some(start), Some(end)) = (start, end) else {
            return Err(GgufError::Outside { name, offset, num_bytes, data_start, file_bytes });
        };
        if end > file_bytes {
            return Err(GgufError::Outside { name, offset, num_bytes, data_start, file_bytes });
        }
        // Both fit `usize`, since they are at most the length of a slice.
        tensors.push(GgufTensor { name, block_type, dims, range: start as usize..end as usize });
    }
    Ok(tensors)
}

fn refuse_overlaps(tensors: &mut [GgufTensor]) -> Result<(), GgufError> {
    tensors.sort_by_key(|tensor| tensor.range.start);
    for pair in tensors.windows(2) {
        if let [a, b] = pair
            && b.range.start < a.range.end
        {
            return Err(GgufError::Overlap { first: a.name.clone(), second: b.name.clone() });
        }
    }
    Ok(())
}

/// ggml's type numbers that the kernels can run.
fn block_type_of(type_id: u32) -> Option<BlockType> {
    Some(match type_id {
        0 => BlockType::F32,
        1 => BlockType::F16,
        2 => BlockType::Q4_0,
        3 => BlockType::Q4_1,
        6 => BlockType::Q5_0,
        7 => BlockType::Q5_1,
        8 => BlockType::Q8_0,
        12 => BlockType::Q4K,
        13 => BlockType::Q5K,
        14 => BlockType::Q6K,
        30 => BlockType::Bf16,
        _ => return None,
    })
}

/// ggml's number of a type.
pub(crate) fn type_id_of(block_type: BlockType) -> u32 {
    match block_type {
        BlockType::F32 => 0,
        BlockType::F16 => 1,
        BlockType::Q4_0 => 2,
        BlockType::Q4_1 => 3,
        BlockType::Q5_0 => 6,
        BlockType::Q5_1 => 7,
        BlockType::Q8_0 => 8,
        BlockType::Q4K => 12,
        BlockType::Q5K => 13,
        BlockType::Q6K => 14,
        BlockType::Bf16 => 30,
    }
}

/// The name of a ggml type that the kernels cannot run, for messages.
fn ggml_type_name(type_id: u32) -> &'static str {
    match type_id {
        9 => "Q8_1",
        10 => "Q2_K",
        11 => "Q3_K",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        20 => "IQ4_NL",
        21 => "IQ3_S",
        22 => "IQ2_S",
        23 => "IQ4_XS",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        29 => "IQ1_M",
        34 => "TQ1_0",
        35 => "TQ2_0",
        39 => "MXFP4",
        _ => "unknown",
    }
}
