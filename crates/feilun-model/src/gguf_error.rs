//! What can be wrong with a GGUF file. Names come from the file, so they are printed with
//! escapes: a terminal must not act on them.

use feilun_kernels::BlockType;

/// Why bytes are not a GGUF file that can be run.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum GgufError {
    #[error("not a GGUF file: it begins with {found:?}, expected \"GGUF\"")]
    NotGguf { found: [u8; 4] },
    #[error("a big-endian GGUF file; only little-endian files can be read")]
    BigEndian,
    #[error("GGUF version {found}, supported are 2 and 3")]
    Version { found: u32 },
    #[error("file ends inside {what} at byte {at}: {needed} bytes needed, {left} left")]
    Truncated { what: &'static str, at: usize, needed: u64, left: usize },
    #[error("{found} {what}, at most {max} are allowed")]
    TooMany { what: &'static str, found: u64, max: u64 },
    #[error("{what} at byte {at} has {found} bytes, expected 1 to {max}")]
    NameLength { what: &'static str, at: usize, found: u64, max: u64 },
    #[error("{what} at byte {at} is not UTF-8")]
    NotUtf8 { what: Box<str>, at: usize },
    #[error("key {key:?} appears twice")]
    DuplicateKey { key: Box<str> },
    #[error("tensor {name:?} appears twice")]
    DuplicateTensor { name: Box<str> },
    #[error("key {key:?}: unknown value type {found}, expected 0 to 12")]
    ValueType { key: Box<str>, found: u32 },
    #[error("key {key:?}: a bool is {found}, expected 0 or 1")]
    Bool { key: Box<str>, found: u8 },
    #[error("key {key:?}: arrays nested deeper than {max}")]
    ArrayDepth { key: Box<str>, max: u32 },
    #[error("key {key:?} is missing")]
    MissingKey { key: Box<str> },
    #[error("key {key:?}: expected {expected}, found {found}")]
    WrongType { key: Box<str>, found: String, expected: &'static str },
    #[error("general.alignment is {found}, expected a power of two from 8 to 65536")]
    Alignment { found: u64 },
    #[error("tensor {name:?} has {found} dimensions, expected 1 to {max}")]
    NumDims { name: Box<str>, found: u32, max: u32 },
    #[error("tensor {name:?}: shape {found:?} has a zero or is too large")]
    Shape { name: Box<str>, found: Vec<u64> },
    #[error(
        "tensor {name:?} has type {found} ({id}), supported are F32, F16, BF16, Q4_0, Q4_1, Q5_0, \
         Q5_1, Q8_0, Q4_K, Q5_K, Q6_K"
    )]
    TensorType { name: Box<str>, found: &'static str, id: u32 },
    #[error(
        "tensor {name:?}: rows of {cols} weights are no whole number of {block_type} blocks of {}",
        block_type.block_len()
    )]
    PartialBlock { name: Box<str>, block_type: BlockType, cols: usize },
    #[error("tensor {name:?} lies at offset {offset}, expected a multiple of {alignment}")]
    Misaligned { name: Box<str>, offset: u64, alignment: u64 },
    #[error(
        "tensor {name:?} ({num_bytes} bytes at offset {offset} of the data section, which begins \
         at {data_start}) does not fit the file of {file_bytes} bytes"
    )]
    Outside { name: Box<str>, offset: u64, num_bytes: u64, data_start: u64, file_bytes: u64 },
    #[error("tensors {first:?} and {second:?} overlap")]
    Overlap { first: Box<str>, second: Box<str> },
}
