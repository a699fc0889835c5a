//! The header of a safetensors file: JSON, padded; the tensors' bytes follow.

use std::io::Write;

use feilun_kernels::BlockType;
use serde_json::{Map, Value, json};

use super::atomic::WriteError;

/// Name, type (F32, F16 or BF16), and shape, outermost dimension first.
pub(super) type Announced<'a> = (&'a str, BlockType, Vec<usize>);

/// Writes the header; the tensors' bytes must follow in the same order.
pub(super) fn write_header<'a>(
    tensors: impl Iterator<Item = Announced<'a>>,
    out: &mut dyn Write,
) -> Result<(), WriteError> {
    let mut header = Map::new();
    // Transformers refuses files that do not say so.
    header.insert("__metadata__".into(), json!({ "format": "pt" }));
    let mut start = 0;
    for (name, block_type, shape) in tensors {
        let end = start + shape.iter().product::<usize>() * block_type.block_bytes();
        let entry = json!({
            "dtype": block_type.name(),
            "shape": shape,
            "data_offsets": [start, end],
        });
        header.insert(name.to_owned(), entry);
        start = end;
    }
    let mut text = Value::Object(header).to_string().into_bytes();
    // The data begins at a multiple of 8, as the format's own library writes it.
    text.resize(text.len().next_multiple_of(8), b' ');
    out.write_all(&(text.len() as u64).to_le_bytes())?;
    out.write_all(&text)?;
    Ok(())
}
