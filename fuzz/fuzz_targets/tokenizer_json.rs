//! `tokenizer.json` from any bytes and, behind a NUL byte, a text to encode with it.

#![no_main]

use feilun_text::{EncodeOptions, Tokenizer};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (json, text) = match data.iter().position(|&byte| byte == 0) {
        Some(end) => (&data[..end], &data[end + 1..]),
        None => (data, &data[..data.len().min(256)]),
    };
    let Ok(tokenizer) = Tokenizer::from_json(json, Some(json)) else { return };
    let text = String::from_utf8_lossy(text);
    for parse_special in [false, true] {
        let options = EncodeOptions { add_bos: false, parse_special };
        let Ok(ids) = tokenizer.encode(&text, options) else { continue };
        for &id in &ids {
            assert!((id as usize) < tokenizer.vocab_size());
            // Plain text becomes no control token, whatever the file says.
            let unknown = Some(id) == tokenizer.unknown();
            assert!(parse_special || unknown || !tokenizer.is_special(id));
        }
        let whole = tokenizer.decode(&ids, true);
        assert!(whole.len() <= ids.iter().map(|&id| tokenizer.token_bytes(id).len() * 3).sum());
    }
});
