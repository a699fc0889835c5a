//! A `config.json` from any bytes.

#![no_main]

use feilun_model::hf_config::config_from_json;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(config) = config_from_json(data) else { return };
    assert!(config.q_size() > 0 && config.kv_size() > 0 && config.head_dim % 2 == 0);
    assert!((1..=1024).contains(&config.layers.len()));
    assert!(config.attention_scale.is_finite() && config.attention_scale > 0.0);
});
