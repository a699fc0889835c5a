//! `config.json` by example: what each key and each missing key means, and what is refused.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

mod support;

use feilun_model::ModelConfig;
use feilun_model::config::{Activation, Architecture, RopeConfig, RopeScaling};
use feilun_model::hf_config::config_from_json;
use serde_json::{Value, json};
use support::tiny_config;

fn read(model_type: &str, changes: Value) -> ModelConfig {
    let config = tiny_config(model_type, changes).to_string();
    config_from_json(config.as_bytes()).unwrap_or_else(|error| panic!("{config}: {error}"))
}

#[track_caller]
fn check_error(model_type: &str, changes: Value, expected: &str) {
    let config = tiny_config(model_type, changes).to_string();
    let error = config_from_json(config.as_bytes()).expect_err(&config).to_string();
    assert!(error.contains(expected), "{config}: {error}");
}

/// Without a key, which is not the same as with the value null.
fn read_without(model_type: &str, keys: &[&str]) -> ModelConfig {
    let mut config = tiny_config(model_type, json!({}));
    for key in keys {
        config.as_object_mut().unwrap().remove(*key);
    }
    config_from_json(config.to_string().as_bytes()).unwrap()
}

fn windows(config: &ModelConfig) -> Vec<Option<usize>> {
    config.layers.iter().map(|layer| layer.window).collect()
}

fn rope(config: &ModelConfig) -> &RopeConfig {
    &config.layers.last().unwrap().rope
}

#[test]
fn the_switches_of_each_class() {
    let llama = read("llama", json!({}));
    assert_eq!(llama.architecture, Architecture::Llama);
    assert_eq!(
        (llama.activation, llama.qk_norm, llama.post_norms),
        (Activation::Silu, false, false)
    );
    assert_eq!((llama.qkv_bias, llama.output_bias, llama.mlp_bias), (false, false, false));
    assert_eq!((llama.embedding_scale, llama.attention_scale), (1.0, 0.25));

    let qwen2 = read("qwen2", json!({}));
    assert_eq!((qwen2.architecture, qwen2.qkv_bias), (Architecture::Qwen2, true));
    assert_eq!((qwen2.output_bias, qwen2.qk_norm), (false, false));
    let qwen3 = read("qwen3", json!({}));
    assert_eq!((qwen3.architecture, qwen3.qkv_bias), (Architecture::Qwen3, false));
    assert_eq!((qwen3.qk_norm, qwen3.post_norms), (true, false));

    let gemma = read("gemma3_text", json!({"sliding_window": 8, "query_pre_attn_scalar": 168}));
    assert_eq!(gemma.architecture, Architecture::Gemma3);
    assert_eq!(
        (gemma.activation, gemma.qk_norm, gemma.post_norms),
        (Activation::GeluTanh, true, true)
    );
    assert_eq!(gemma.embedding_scale, 32f32.sqrt());
    assert_eq!(gemma.attention_scale, (1.0 / 168f64.sqrt()) as f32);
    assert_eq!(read("gemma3_text", json!({})).attention_scale, 0.0625, "the default is 256");
    assert_eq!(gemma.logit_softcap, None);
    let capped = read("gemma3_text", json!({"final_logit_softcapping": 30.0}));
    assert_eq!(capped.logit_softcap, Some(30.0));
}

#[test]
fn biases() {
    let llama = read("llama", json!({"attention_bias": true, "mlp_bias": true}));
    assert_eq!((llama.qkv_bias, llama.output_bias, llama.mlp_bias), (true, true, true));
    let qwen3 = read("qwen3", json!({"attention_bias": true}));
    assert_eq!((qwen3.qkv_bias, qwen3.output_bias), (true, true));
    let mistral = read("mistral", json!({"attention_bias": true}));
    assert_eq!((mistral.qkv_bias, mistral.output_bias), (false, false), "the class has none");
}

#[test]
fn keys_that_are_left_out() {
    for (model_type, tied) in [
        ("llama", false),
        ("mistral", false),
        ("qwen2", false),
        ("qwen3", false),
        ("gemma3_text", true),
    ] {
        let config = read_without(model_type, &["tie_word_embeddings", "rms_norm_eps"]);
        assert_eq!((config.tied_embeddings, config.norm_eps), (tied, 1e-6), "{model_type}");
        let head_dim = match model_type {
            "qwen3" => 128,
            "gemma3_text" => 256,
            _ => 16,
        };
        assert_eq!(read_without(model_type, &["head_dim"]).head_dim, head_dim, "{model_type}");
        read_without(model_type, &["architectures"]);
        check_error(model_type, json!({"hidden_size": null}), r#""hidden_size" is missing"#);
        let heads = read(model_type, json!({"num_key_value_heads": null}));
        assert_eq!(heads.num_kv_heads, 2, "{model_type}");
    }
    assert_eq!(read_without("llama", &["num_key_value_heads"]).num_kv_heads, 2);
}

#[test]
fn sliding_windows() {
    let four = |model_type: &str, mut changes: Value| {
        changes["num_hidden_layers"] = 4.into();
        windows(&read(model_type, changes))
    };
    assert_eq!(four("llama", json!({"sliding_window": 8})), [None; 4]);
    assert_eq!(four("mistral", json!({"sliding_window": 8})), [Some(8); 4]);
    assert_eq!(four("mistral", json!({"sliding_window": null})), [None; 4]);
    assert_eq!(four("mistral", json!({})), [Some(4096); 4], "the default of the class");
    for qwen in ["qwen2", "qwen3"] {
        assert_eq!(four(qwen, json!({"sliding_window": 8})), [None; 4]);
        let some = json!({"sliding_window": 8, "use_sliding_window": true, "max_window_layers": 3});
        assert_eq!(four(qwen, some), [None, None, None, Some(8)]);
        let all = json!({"sliding_window": 8, "use_sliding_window": true, "max_window_layers": 0});
        assert_eq!(four(qwen, all), [Some(8); 4]);
        let none = json!({"sliding_window": 8, "use_sliding_window": true});
        assert_eq!(four(qwen, none), [None; 4], "the first 28 layers have none");
    }
    let types = json!(["full_attention", "sliding_attention", "full_attention", "full_attention"]);
    let listed = json!({"sliding_window": 8, "use_sliding_window": true, "layer_types": types});
    assert_eq!(four("qwen2", listed.clone()), [None, Some(8), None, None]);
    assert_eq!(four("gemma3_text", listed), [None, Some(8), None, None]);

    let gemma = read("gemma3_text", json!({"num_hidden_layers": 8, "sliding_window": 8}));
    let w = Some(8);
    assert_eq!(windows(&gemma), [w, w, w, w, w, None, w, w]);
    let pattern = json!({"sliding_window": 8, "sliding_window_pattern": 2});
    assert_eq!(four("gemma3_text", pattern), [w, None, w, None]);
    check_error("gemma3_text", json!({"layer_types": ["full_attention"]}), "an array of 1");
    let chunked = json!({"layer_types": ["full_attention", "chunked_attention"]});
    check_error("gemma3_text", chunked, "\"chunked_attention\", which is not supported");
}

#[test]
fn rope_of_transformers_4_and_5() {
    let llama3 = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 8192});
    let expected = RopeConfig {
        theta: 500_000.0,
        scaling: RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_context: 8192.0,
        },
    };
    let old = read("llama", json!({"rope_theta": 500000.0, "rope_scaling": llama3}));
    assert_eq!(rope(&old), &expected);
    let mut parameters = llama3;
    parameters["rope_theta"] = 500_000.0.into();
    assert_eq!(rope(&read("llama", json!({"rope_parameters": parameters}))), &expected);

    let plain = RopeConfig { theta: 10_000.0, scaling: RopeScaling::Plain };
    for changes in [
        json!({}),
        json!({"rope_scaling": null}),
        json!({"rope_scaling": {}}),
        json!({"rope_parameters": {"rope_type": "default", "rope_theta": 10000}}),
        json!({"rope_scaling": {"type": "linear", "factor": 1.0}}),
    ] {
        assert_eq!(rope(&read("llama", changes)), &plain);
    }
    let linear = read("qwen2", json!({"rope_scaling": {"type": "linear", "factor": 4.0}}));
    assert_eq!(rope(&linear).scaling, RopeScaling::Linear { factor: 4.0 });
}

#[test]
fn rope_of_gemma3() {
    let local = |config: &ModelConfig| config.layers.first().unwrap().rope.clone();
    let types = json!(["sliding_attention", "full_attention"]);
    let old = json!({"layer_types": types, "rope_theta": 2e6, "rope_local_base_freq": 5000.0,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0}});
    let config = read("gemma3_text", old);
    assert_eq!(local(&config), RopeConfig { theta: 5000.0, scaling: RopeScaling::Plain });
    let linear = RopeScaling::Linear { factor: 8.0 };
    assert_eq!(rope(&config), &RopeConfig { theta: 2e6, scaling: linear.clone() });

    let new = json!({"layer_types": types, "rope_parameters": {
        "sliding_attention": {"rope_type": "default", "rope_theta": 5000.0},
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 2e6}}});
    let config = read("gemma3_text", new);
    assert_eq!(local(&config).theta, 5000.0);
    assert_eq!(rope(&config), &RopeConfig { theta: 2e6, scaling: linear });

    let config = read("gemma3_text", json!({"layer_types": types}));
    assert_eq!((local(&config).theta, rope(&config).theta), (10_000.0, 1_000_000.0));
    let flat = json!({"rope_parameters": {"rope_type": "default"}});
    check_error("gemma3_text", flat, "supported: full_attention and sliding_attention");
    let nested = json!({"rope_parameters": {"full_attention": {"rope_type": "default"}}});
    check_error("llama", nested, "supported: one object for all layers");
}

#[test]
fn yarn() {
    let yarn = |mut parameters: Value| {
        parameters["rope_type"] = "yarn".into();
        rope(&read("qwen2", json!({"rope_scaling": parameters}))).scaling.clone()
    };
    let expected = |factor: f32, original_context, attention_factor| RopeScaling::Yarn {
        factor,
        original_context,
        beta_slow: 1.0,
        beta_fast: 32.0,
        attention_factor,
    };
    let temperature = 0.1 * 4f32.ln() + 1.0;
    assert_eq!(yarn(json!({"factor": 4.0})), expected(4.0, 64.0, temperature));
    assert_eq!(
        yarn(json!({"factor": 4.0, "original_max_position_embeddings": 32})),
        expected(4.0, 32.0, temperature)
    );
    assert_eq!(
        yarn(json!({"original_max_position_embeddings": 16})),
        expected(4.0, 16.0, temperature)
    );
    assert_eq!(yarn(json!({"factor": 4.0, "attention_factor": 1.5})), expected(4.0, 64.0, 1.5));
    let deepseek = json!({"factor": 4.0, "mscale": 1.0, "mscale_all_dim": 1.0});
    assert_eq!(yarn(deepseek), expected(4.0, 64.0, 1.0));
    let truncate = json!({"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "truncate": false}});
    check_error("qwen2", truncate, r#""truncate" is false"#);
}

#[test]
fn what_is_not_supported_is_named() {
    for (changes, expected) in [
        (
            json!({"architectures": ["MixtralForCausalLM"]}),
            r#""architectures" is "MixtralForCausalLM""#,
        ),
        (json!({"architectures": ["A", "B"]}), r#""architectures" is an array of 2"#),
        (json!({"architectures": null, "model_type": "gemma3"}), r#""model_type" is "gemma3""#),
        (json!({"architectures": null, "model_type": null}), r#""architectures" is missing"#),
        (json!({"attn_logit_softcapping": 50.0}), r#""attn_logit_softcapping" is 50"#),
        (json!({"partial_rotary_factor": 0.5}), r#""partial_rotary_factor" is 0.5"#),
        (json!({"rope_scaling": {"rope_type": "longrope"}}), r#""rope_type" is "longrope""#),
        (json!({"rope_scaling": {"rope_type": "dynamic"}}), r#""rope_type" is "dynamic""#),
        (json!({"rope_scaling": {"rope_type": "linear"}}), r#""factor" is missing"#),
        (json!({"rope_scaling": 3}), r#""rope_scaling": expected an object, found 3"#),
        (json!({"hidden_act": "relu"}), r#""hidden_act" is "relu""#),
        (json!({"rope_interleaved": true}), r#""rope_interleaved" is true"#),
        (json!({"quantization_config": {"bits": 4}}), r#""quantization_config" is an object"#),
    ] {
        check_error("llama", changes, expected);
    }
    let bidirectional = json!({"use_bidirectional_attention": true});
    check_error("gemma3_text", bidirectional, r#""use_bidirectional_attention" is true"#);
}

#[test]
fn sizes_are_bounded() {
    for (changes, expected) in [
        (json!({"hidden_size": 0}), "hidden_size is 0, expected 1 to 1048576"),
        (json!({"hidden_size": (1 << 20) + 1}), "hidden_size is 1048577"),
        (json!({"hidden_size": u64::MAX}), "hidden_size is 18446744073709551615"),
        (json!({"hidden_size": -32}), "expected an integer of at least 0, found -32"),
        (json!({"hidden_size": 32.5}), "expected an integer of at least 0, found 32.5"),
        (json!({"hidden_size": "32"}), r#"expected an integer of at least 0, found "32""#),
        (json!({"num_hidden_layers": 1u64 << 62}), "num_hidden_layers is 4611686018427387904"),
        (json!({"num_hidden_layers": 1025}), "num_hidden_layers is 1025, expected 1 to 1024"),
        (json!({"vocab_size": 1u64 << 32}), "vocab_size is 4294967296"),
        (json!({"num_attention_heads": 3}), "key/value heads"),
        (json!({"num_attention_heads": 0}), "num_attention_heads is 0"),
        (
            json!({"num_attention_heads": 3, "head_dim": null}),
            "num_attention_heads is 3, expected a divisor",
        ),
        (json!({"num_attention_heads": 1 << 20, "head_dim": 1024}), "width of q is 1073741824"),
        (json!({"head_dim": 15}), "head dimension is 15, expected an even number"),
        (json!({"head_dim": 0}), "head_dim is 0"),
        (json!({"rms_norm_eps": -1.0}), "RMSNorm epsilon is -1"),
        (json!({"rms_norm_eps": 1e300}), "RMSNorm epsilon is inf"),
        (json!({"rope_theta": 0}), "rope base is 0, expected a positive number"),
        (json!({"rope_scaling": {"type": "linear", "factor": 0.0}}), "rope factor is 0"),
        (json!({"max_position_embeddings": 1u64 << 40}), "max_position_embeddings is"),
    ] {
        let mut changes = changes;
        if changes.get("num_key_value_heads").is_none() && changes["num_attention_heads"] == 3 {
            changes["num_key_value_heads"] = 2.into();
        }
        check_error("llama", changes, expected);
    }
    let zero = json!({"query_pre_attn_scalar": 0});
    check_error("gemma3_text", zero, "attention scale is inf, expected a positive number");
    check_error("mistral", json!({"sliding_window": 0}), "sliding_window is 0, expected 1 to");
}

#[test]
fn other_json_is_an_error() {
    for text in
        ["", "{", "[]", "3", "null", "\"a\"", &"[".repeat(200_000), &"{\"a\":".repeat(200_000)]
    {
        assert!(config_from_json(text.as_bytes()).is_err());
    }
    assert!(config_from_json(b"{\"hidden_size\": \xff}").is_err());
}
