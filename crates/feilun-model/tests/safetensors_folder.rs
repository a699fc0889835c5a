//! Folders in the Hugging Face layout: whole, sharded, with and without their small files, wrong.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

mod support;

use std::fs;
use std::path::Path;

use feilun_model::safetensors_header::{SafetensorsError, parse_header};
use feilun_model::{
    LayerTensor, ModelFileError, ModelFiles, ModelFormat, RowOrder, TensorRole, TokenizerSource,
};
use serde_json::{Value, json};
use support::{Shapes, safetensors_bytes, tiny_shapes, write_tiny_folder};

const MODEL_TYPES: [&str; 5] = ["llama", "mistral", "qwen2", "qwen3", "gemma3_text"];

fn folder_of(model_type: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write_tiny_folder(folder.path(), model_type, json!({}));
    folder
}

fn open_error(path: &Path) -> ModelFileError {
    ModelFiles::open(path).expect_err("a wrong model was opened")
}

#[test]
fn every_architecture_opens() {
    for model_type in MODEL_TYPES {
        let folder = folder_of(model_type);
        for path in [folder.path().to_owned(), folder.path().join("model.safetensors")] {
            let files = ModelFiles::open(&path).unwrap();
            assert_eq!(files.format(), ModelFormat::Safetensors);
            let q = files.tensor(TensorRole::Layer(1, LayerTensor::AttnQ)).unwrap();
            assert_eq!((q.rows, q.cols, q.row_order), (32, 32, RowOrder::Canonical));
            assert_eq!(q.name, "model.layers.1.self_attn.q_proj.weight");
            assert_eq!(q.bytes.len(), 32 * 32 * 2);
            let norm = files.tensor(TensorRole::Layer(0, LayerTensor::MlpNorm)).unwrap();
            let is_gemma = model_type == "gemma3_text";
            assert_eq!(norm.offset, if is_gemma { 1.0 } else { 0.0 });
            assert_eq!(norm.name.contains("pre_feedforward"), is_gemma);
        }
    }
}

#[test]
fn each_missing_misshapen_or_extra_tensor_is_named() {
    for model_type in MODEL_TYPES {
        let folder = folder_of(model_type);
        let weights = folder.path().join("model.safetensors");
        let good = tiny_shapes(model_type);
        for missing in good.keys() {
            let mut shapes = good.clone();
            shapes.remove(missing);
            fs::write(&weights, safetensors_bytes(&shapes)).unwrap();
            match open_error(folder.path()) {
                ModelFileError::MissingTensor { name, .. } => assert_eq!(&name, missing),
                other => panic!("{other}"),
            }
            shapes.insert(missing.clone(), vec![3, 32]);
            fs::write(&weights, safetensors_bytes(&shapes)).unwrap();
            match open_error(folder.path()) {
                ModelFileError::TensorShape { name, found, .. } => {
                    assert_eq!((&name, found), (missing, vec![3, 32]));
                }
                other => panic!("{other}"),
            }
        }
        let mut shapes = good.clone();
        shapes.insert("model.layers.2.input_layernorm.weight".into(), vec![32]);
        fs::write(&weights, safetensors_bytes(&shapes)).unwrap();
        assert!(matches!(open_error(folder.path()), ModelFileError::UnusedTensor { .. }));
    }
}

#[test]
fn a_tied_head_may_be_stored_and_an_untied_one_must() {
    let folder = folder_of("llama");
    let mut shapes = tiny_shapes("llama");
    shapes.insert("lm_head.weight".into(), vec![5, 32]);
    fs::write(folder.path().join("model.safetensors"), safetensors_bytes(&shapes)).unwrap();
    let files = ModelFiles::open(folder.path()).unwrap();
    assert!(files.optional_tensor(TensorRole::OutputHead).is_none());
    write_tiny_folder(folder.path(), "llama", json!({"tie_word_embeddings": false}));
    match open_error(folder.path()) {
        ModelFileError::MissingTensor { name, .. } => assert_eq!(name, "lm_head.weight"),
        other => panic!("{other}"),
    }
    fs::write(folder.path().join("model.safetensors"), safetensors_bytes(&shapes)).unwrap();
    let files = ModelFiles::open(folder.path()).unwrap();
    assert_eq!(files.tensor(TensorRole::OutputHead).unwrap().name, "lm_head.weight");
}

/// Splits the tiny model over two files, and lets the caller spoil the index.
fn write_sharded(folder: &Path, spoil: impl FnOnce(&mut Value)) {
    write_tiny_folder(folder, "llama", json!({}));
    fs::remove_file(folder.join("model.safetensors")).unwrap();
    let mut weight_map = serde_json::Map::new();
    let mut halves = [Shapes::new(), Shapes::new()];
    for (index, (name, shape)) in tiny_shapes("llama").into_iter().enumerate() {
        let file = format!("model-0000{}-of-00002.safetensors", index % 2 + 1);
        weight_map.insert(name.clone(), file.into());
        halves[index % 2].insert(name, shape);
    }
    for (index, half) in halves.iter().enumerate() {
        let name = format!("model-0000{}-of-00002.safetensors", index + 1);
        fs::write(folder.join(name), safetensors_bytes(half)).unwrap();
    }
    let mut index = json!({"metadata": {"total_size": 1}, "weight_map": weight_map});
    spoil(&mut index);
    fs::write(folder.join("model.safetensors.index.json"), index.to_string()).unwrap();
}

#[test]
fn shards_open() {
    let folder = tempfile::tempdir().unwrap();
    write_sharded(folder.path(), |_| {});
    let files = ModelFiles::open(folder.path()).unwrap();
    for layer in 0..2 {
        let down = files.tensor(TensorRole::Layer(layer, LayerTensor::MlpDown)).unwrap();
        assert_eq!((down.rows, down.cols), (32, 64));
        files.advise_dont_need(TensorRole::Layer(layer, LayerTensor::MlpDown)).unwrap();
    }
    assert!(files.file_bytes() > 30_000);
}

#[test]
fn a_lying_index_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let name = "model.norm.weight";
    for outside in ["../evil.safetensors", "/etc/passwd", "a/b.safetensors", ".safetensors", ""] {
        write_sharded(folder.path(), |index| index["weight_map"][name] = outside.into());
        let error = open_error(folder.path());
        assert!(matches!(error, ModelFileError::ShardName { .. }), "{outside}: {error}");
    }
    write_sharded(folder.path(), |index| {
        let other = index["weight_map"]["model.embed_tokens.weight"].clone();
        index["weight_map"][name] = match other.as_str().unwrap().contains("00001") {
            true => "model-00002-of-00002.safetensors".into(),
            false => "model-00001-of-00002.safetensors".into(),
        };
        index["weight_map"]["model.embed_tokens.weight"] = index["weight_map"][name].clone();
    });
    assert!(matches!(open_error(folder.path()), ModelFileError::ShardIndex { .. }));
    write_sharded(folder.path(), |index| {
        index["weight_map"]["ghost"] = "model-00001-of-00002.safetensors".into();
    });
    match open_error(folder.path()) {
        ModelFileError::MissingTensor { name, .. } => assert_eq!(name, "ghost"),
        other => panic!("{other}"),
    }
    write_sharded(folder.path(), |index| index["weight_map"] = json!({}));
    assert!(matches!(open_error(folder.path()), ModelFileError::TooManyShards { .. }));
    write_sharded(folder.path(), |index| {
        index["weight_map"][name] = "missing.safetensors".into();
    });
    assert!(matches!(open_error(folder.path()), ModelFileError::Io { .. }));
}

#[test]
fn small_files_are_read() {
    let folder = folder_of("llama");
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    let files = ModelFiles::open(folder.path()).unwrap();
    assert!(files.tokenizer().is_err());
    assert_eq!(files.chat_template().unwrap(), None);
    let special = files.special_tokens().unwrap();
    assert_eq!((special.bos, special.eos), (Some(1), vec![2]));
    let bare = files.digest().unwrap();
    assert_eq!(files.digest().unwrap(), bare);

    write("tokenizer.json", "{}");
    assert_eq!(files.tokenizer().unwrap(), TokenizerSource::TokenizerJson(b"{}".to_vec()));
    assert_ne!(files.digest().unwrap(), bare, "the tokenizer is part of the model");
    write("generation_config.json", r#"{"eos_token_id": [3, 2, 3], "temperature": 0.6}"#);
    let special = files.special_tokens().unwrap();
    assert_eq!((special.bos, special.eos), (Some(1), vec![3, 2]));
    write("generation_config.json", r#"{"eos_token_id": 5}"#);
    let error = files.special_tokens().unwrap_err().to_string();
    assert!(error.contains("eos_token_id is 5, expected an id below 5"), "{error}");

    write("tokenizer_config.json", r#"{"added": [{"a": 1}], "chat_template": "one"}"#);
    assert_eq!(files.chat_template().unwrap().as_deref(), Some("one"));
    let list = json!({"chat_template": [
        {"name": "tool_use", "template": "tools"}, {"name": "default", "template": "two"}]});
    write("tokenizer_config.json", &list.to_string());
    assert_eq!(files.chat_template().unwrap().as_deref(), Some("two"));
    write("tokenizer_config.json", r#"{"chat_template": null}"#);
    assert_eq!(files.chat_template().unwrap(), None);
    write("tokenizer_config.json", r#"{"chat_template": 3}"#);
    assert!(matches!(files.chat_template().unwrap_err(), ModelFileError::Json { .. }));
    write("chat_template.jinja", "three");
    assert_eq!(files.chat_template().unwrap().as_deref(), Some("three"));
}

#[test]
fn paths_that_are_no_models() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    assert!(matches!(open_error(folder.path()), ModelFileError::Io { .. }));
    assert!(matches!(open_error(&path("missing.gguf")), ModelFileError::Io { .. }));
    assert!(matches!(open_error(&path("missing")), ModelFileError::Io { .. }));
    fs::write(path("notes.txt"), "hello").unwrap();
    assert!(matches!(open_error(&path("notes.txt")), ModelFileError::UnknownKind { .. }));
    for name in ["empty.gguf", "empty.safetensors"] {
        fs::write(path(name), "").unwrap();
        let error = open_error(&path(name)).to_string();
        assert!(error.contains(name), "{error}");
    }
    fs::write(path("config.json"), vec![b' '; 300 << 10]).unwrap();
    fs::write(path("model.safetensors"), safetensors_bytes(&tiny_shapes("llama"))).unwrap();
    assert!(matches!(open_error(folder.path()), ModelFileError::TooLarge { .. }));
}

/// A file with the given header over `data_bytes` zeros.
fn with_header(header: &str, data_bytes: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.resize(bytes.len() + data_bytes, 0);
    bytes
}

#[track_caller]
fn check_header(header: &str, data_bytes: usize, expected: &str) {
    let error = parse_header(&with_header(header, data_bytes)).expect_err(header).to_string();
    assert!(error.contains(expected), "{header}: {error}");
}

#[test]
fn lying_headers_are_named() {
    let one = |entry: &str| format!(r#"{{"a":{entry}}}"#);
    let f32 = |shape: &str, offsets: &str| {
        one(&format!(r#"{{"dtype":"F32","shape":{shape},"data_offsets":{offsets}}}"#))
    };
    assert_eq!(parse_header(&with_header(&f32("[2,3]", "[0,24]"), 24)).unwrap().len(), 1);
    check_header(&f32("[2,3]", "[0,24]"), 23, "do not lie in the 23 bytes");
    check_header(&f32("[2,3]", "[0,24]"), 25, "1 bytes of data behind");
    check_header(&f32("[2,3]", "[0,20]"), 24, "needs Some(24) bytes, data_offsets give 20");
    check_header(&f32("[2,3]", "[24,0]"), 24, "do not lie in");
    check_header(&f32("[2,3]", "[4,28]"), 28, "begins at 4, expected 0");
    check_header(&f32("[2,3]", "[0,18446744073709551615]"), 24, "do not lie in");
    check_header(&f32("[2,3]", "[-1,24]"), 24, "not the expected JSON");
    check_header(&f32("[9223372036854775807,9]", "[0,24]"), 24, "needs None bytes");
    check_header(&f32("[4611686018427387904,4]", "[0,0]"), 0, "needs None bytes");
    check_header(&f32("[1,1,1,1,1,1,1,1,1]", "[0,4]"), 4, "more than 8 dimensions");
    check_header(&f32("[2,-3]", "[0,24]"), 24, "not the expected JSON");
    check_header(
        &one(r#"{"dtype":"I64","shape":[1],"data_offsets":[0,8]}"#),
        8,
        r#"type "I64", supported are F32"#,
    );
    check_header(
        r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#,
        12,
        r#""b" begins at 4, expected 8"#,
    );
    check_header(
        r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#,
        8,
        "appears twice",
    );
    check_header(&one(r#"{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1}"#), 4, "unknown");
    check_header(&one(r#"{"dtype":"F32","shape":[1]}"#), 4, "data_offsets");
    check_header(" {}", 0, "begins with ' '");
    check_header("[]", 0, "begins with '['");
    check_header(&format!("{{\"{}\":1}}", "n".repeat(300)), 0, "name of 300 bytes");
    check_header(&"[".repeat(100_000).replacen('[', "{\"a\":", 1), 0, "not the expected JSON");
    assert!(parse_header(&with_header("{}", 0)).unwrap().is_empty());
    let metadata = r#"{"__metadata__":{"format":"pt"}}"#;
    assert!(parse_header(&with_header(metadata, 0)).unwrap().is_empty());
}

/// An end so large that adding the length of the header to it wraps around.
#[test]
fn sums_that_wrap_are_refused() {
    for end in [u64::MAX - 1, u64::MAX - 7, u64::MAX - 99, 1 << 63] {
        let shape = end / 2;
        let entry = format!(r#"{{"dtype":"F16","shape":[{shape}],"data_offsets":[0,{end}]}}"#);
        check_header(&format!(r#"{{"a":{entry}}}"#), 0, "do not lie in the 0 bytes");
    }
}

#[test]
fn header_lengths_are_bounded() {
    for length in [1_u64, 5 << 20, 1 << 40, i64::MAX as u64, u64::MAX - 7, u64::MAX] {
        let bytes = [length.to_le_bytes().as_slice(), b"x"].concat();
        let error = parse_header(&bytes).unwrap_err();
        let is_right = match length {
            1 => matches!(error, SafetensorsError::HeaderStart { found: 'x' }),
            _ => matches!(error, SafetensorsError::HeaderLength { .. }),
        };
        assert!(is_right, "{length}: {error}");
    }
}

#[test]
fn every_truncation_is_an_error() {
    let bytes = safetensors_bytes(&tiny_shapes("qwen2"));
    for len in 0..bytes.len() {
        assert!(parse_header(&bytes[..len]).is_err(), "{len} of {} bytes", bytes.len());
    }
    assert_eq!(parse_header(&bytes).unwrap().len(), tiny_shapes("qwen2").len());
}

proptest::proptest! {
    #[test]
    fn mutated_headers_never_panic(edits in proptest::collection::vec((0_usize..4096, 0_u8..=255), 1..8)) {
        let mut bytes = safetensors_bytes(&tiny_shapes("llama"));
        for (at, byte) in edits {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        if let Ok(tensors) = parse_header(&bytes) {
            for tensor in tensors {
                proptest::prop_assert!(bytes.get(tensor.range).is_some());
            }
        }
    }
}
