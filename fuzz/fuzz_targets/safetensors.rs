//! The header of a safetensors file from any bytes.

#![no_main]

use feilun_model::safetensors_header::parse_header;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(tensors) = parse_header(data) else { return };
    let mut end = None;
    for tensor in tensors {
        let weights: usize = tensor.shape.iter().product();
        assert_eq!(tensor.range.len(), weights * tensor.block_type.block_bytes());
        assert!(end.is_none_or(|end| end == tensor.range.start) && tensor.range.end <= data.len());
        end = Some(tensor.range.end);
    }
    assert!(end.is_none_or(|end| end == data.len()));
});
