//! The header of one safetensors file: which tensors, of what type and shape, and where.
//!
//! The checks are our own and not the `safetensors` crate's: the crate lets a header be 100 MB
//! (whose table takes several times that), keeps the last of two tensors of one name, and its
//! errors do not say what was found. The crate writes the files of our tests, so that both agree
//! on good files.
//!
//! Layout: length of the header (u64), header (JSON: name → dtype, shape, data_offsets), data.

use std::fmt;
use std::ops::Range;

use feilun_kernels::BlockType;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::gguf::{MAX_NAME_BYTES, MAX_TENSORS};

/// About 150 bytes for each of the 20,480 tensors of the deepest model that is allowed.
pub const MAX_HEADER_BYTES: u64 = 4 << 20;
/// Dimensions of one tensor.
const MAX_DIMS: usize = 8;
const LENGTH_BYTES: usize = 8;

/// Why bytes are not a safetensors file that can be run.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum SafetensorsError {
    #[error("file ends inside the length of the header: {found} bytes, expected at least 8")]
    NoHeader { found: usize },
    #[error("the header claims {found} bytes, {left} are left in the file, at most {max} allowed")]
    HeaderLength { found: u64, left: usize, max: u64 },
    #[error("the header begins with {found:?}, expected '{{'")]
    HeaderStart { found: char },
    #[error("the header is not the expected JSON: {source}")]
    Json { source: serde_json::Error },
    #[error("tensor {name:?} has type {found:?}, supported are F32, F16, BF16")]
    TensorType { name: String, found: String },
    #[error("tensor {name:?}: data_offsets {found:?} do not lie in the {data_bytes} bytes of data")]
    Outside { name: String, found: [u64; 2], data_bytes: usize },
    #[error("tensor {name:?}: shape {shape:?} needs {expected:?} bytes, data_offsets give {found}")]
    Size { name: String, shape: Vec<usize>, expected: Option<usize>, found: usize },
    #[error("tensor {name:?} begins at {found}, expected {expected}: overlap or hole")]
    NotContiguous { name: String, found: usize, expected: usize },
    #[error("{found} bytes of data behind the last tensor")]
    Trailing { found: usize },
}

/// One tensor of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderTensor {
    /// As in the file.
    pub name: String,
    /// F32, F16 or BF16.
    pub block_type: BlockType,
    /// Outermost dimension first.
    pub shape: Vec<usize>,
    /// Where its bytes lie in the file.
    pub range: Range<usize>,
}

/// Reads and checks the header of a whole file. The tensors come in the order of their data,
/// which they cover without overlap and without holes.
pub fn parse_header(bytes: &[u8]) -> Result<Vec<HeaderTensor>, SafetensorsError> {
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else {
        return Err(SafetensorsError::NoHeader { found: bytes.len() });
    };
    let found = u64::from_le_bytes(*length);
    let split = usize::try_from(found).ok().filter(|_| found <= MAX_HEADER_BYTES);
    let Some((header, data)) = split.and_then(|length| rest.split_at_checked(length)) else {
        let (left, max) = (rest.len(), MAX_HEADER_BYTES);
        return Err(SafetensorsError::HeaderLength { found, left, max });
    };
    if let Some(&first) = header.first()
        && first != b'{'
    {
        return Err(SafetensorsError::HeaderStart { found: char::from(first) });
    }
    let Header(entries) =
        serde_json::from_slice(header).map_err(|source| SafetensorsError::Json { source })?;
    let data_start = LENGTH_BYTES + header.len();
    let mut tensors = Vec::with_capacity(entries.len());
    for (name, entry) in entries {
        tensors.push(place(name, &entry, data_start, data.len())?);
    }
    tensors.sort_by_key(|tensor| (tensor.range.start, tensor.range.end));
    check_contiguous(&tensors, data_start, bytes.len())?;
    Ok(tensors)
}

fn place(
    name: String,
    entry: &Entry<'_>,
    data_start: usize,
    data_bytes: usize,
) -> Result<HeaderTensor, SafetensorsError> {
    let block_type = match entry.dtype.as_ref() {
        "F32" => BlockType::F32,
        "F16" => BlockType::F16,
        "BF16" => BlockType::Bf16,
        found => return Err(SafetensorsError::TensorType { name, found: found.into() }),
    };
    let [start, end] = entry.data_offsets;
    if start > end || end > data_bytes as u64 {
        return Err(SafetensorsError::Outside { name, found: [start, end], data_bytes });
    }
    // Both fit `usize`, since they are at most the length of a slice.
    let (start, end) = (start as usize, end as usize);
    let shape = entry.shape.0.clone();
    let expected = shape
        .iter()
        .try_fold(block_type.block_bytes(), |bytes, &dimension| bytes.checked_mul(dimension));
    if expected != Some(end - start) {
        return Err(SafetensorsError::Size { name, shape, expected, found: end - start });
    }
    Ok(HeaderTensor { name, block_type, shape, range: data_start + start..data_start + end })
}

fn check_contiguous(
    tensors: &[HeaderTensor],
    data_start: usize,
    file_bytes: usize,
) -> Result<(), SafetensorsError> {
    let mut expected = data_start;
    for tensor in tensors {
        if tensor.range.start != expected {
            return Err(SafetensorsError::NotContiguous {
                name: tensor.name.clone(),
                found: tensor.range.start - data_start,
                expected: expected - data_start,
            });
        }
        expected = tensor.range.end;
    }
    match file_bytes - expected {
        0 => Ok(()),
        found => Err(SafetensorsError::Trailing { found }),
    }
}

/// The JSON object, without `__metadata__`, which is free text.
struct Header<'a>(Vec<(String, Entry<'a>)>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry<'a> {
    #[serde(borrow)]
    dtype: std::borrow::Cow<'a, str>,
    shape: Dims,
    data_offsets: [u64; 2],
}

struct Dims(Vec<usize>);

impl<'de> Deserialize<'de> for Header<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object of at most {MAX_TENSORS} tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        let mut names = std::collections::HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            if name.len() as u64 > MAX_NAME_BYTES {
                let message = format!("a tensor name of {} bytes", name.len());
                return Err(A::Error::custom(message));
            }
            if !names.insert(name.clone()) {
                return Err(A::Error::custom(format!("{name:?} appears twice")));
            }
            if name == "__metadata__" {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            if entries.len() as u64 >= MAX_TENSORS {
                return Err(A::Error::custom(format!("more than {MAX_TENSORS} tensors")));
            }
            entries.push((name, map.next_value()?));
        }
        Ok(Header(entries))
    }
}

impl<'de> Deserialize<'de> for Dims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(DimsVisitor)
    }
}

struct DimsVisitor;

impl<'de> Visitor<'de> for DimsVisitor {
    type Value = Dims;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at most {MAX_DIMS} sizes")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut dims = Vec::new();
        while let Some(dimension) = seq.next_element()? {
            if dims.len() == MAX_DIMS {
                return Err(A::Error::custom(format!("more than {MAX_DIMS} dimensions")));
            }
            dims.push(dimension);
        }
        Ok(Dims(dims))
    }
}
