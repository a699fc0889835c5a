//! GGUF from any bytes: metadata, tensor infos, configuration, vocabulary.

#![no_main]

use feilun_model::gguf::Gguf;
use feilun_model::gguf_config::config_from_gguf;
use feilun_model::gguf_vocabulary::GgufVocabulary;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(gguf) = Gguf::parse(data) else { return };
    let mut end = 0;
    let mut ranges: Vec<_> = gguf.tensors().iter().map(|tensor| tensor.range.clone()).collect();
    ranges.sort_by_key(|range| range.start);
    for range in ranges {
        assert!(end <= range.start && range.start < range.end && range.end <= data.len());
        end = range.end;
    }
    for key in gguf.keys() {
        if let Ok(value) = gguf.value(key) {
            assert!(value.is_some());
        }
    }
    if let Ok(config) = config_from_gguf(&gguf) {
        assert!(config.q_size() > 0 && config.kv_size() > 0);
    }
    if let Ok(vocabulary) = GgufVocabulary::read(&gguf) {
        let len = vocabulary.tokens.len();
        assert!(vocabulary.scores.is_none_or(|scores| scores.len() == len));
        assert!(vocabulary.token_types.is_none_or(|types| types.len() == len));
    }
});
