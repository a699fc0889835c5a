//! GGUF files that lie: cut off, with numbers near 2^63, overlapping, misaligned, repeated. Each
//! is an error with a name, and none is a panic, a hang or an allocation out of proportion
//! (`allocation.rs` counts bytes).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use feilun_model::gguf::{Gguf, GgufError, MAX_KEYS, MAX_TENSORS};
use feilun_model::gguf_config::config_from_gguf;
use feilun_model::gguf_vocabulary::GgufVocabulary;
use support::{F32, Field, GgufWriter, Q4_0, Value, tiny_gguf};

/// Everything that a model's metadata goes through.
fn read_all(bytes: &[u8]) -> Result<(), String> {
    let gguf = Gguf::parse(bytes).map_err(|error| error.to_string())?;
    for tensor in gguf.tensors() {
        assert!(bytes.get(tensor.range.clone()).is_some(), "{tensor:?} lies outside");
    }
    for key in gguf.keys() {
        let _ = gguf.value(key).map_err(|error| error.to_string())?;
    }
    config_from_gguf(&gguf).map_err(|error| error.to_string())?;
    GgufVocabulary::read(&gguf).map(drop).map_err(|error| error.to_string())
}

fn replaced(bytes: &[u8], field: &Field, number: u64) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[field.at..field.at + field.bytes].copy_from_slice(&number.to_le_bytes()[..field.bytes]);
    bytes
}

#[track_caller]
fn parse_error(file: &GgufWriter) -> GgufError {
    Gguf::parse(file.build()).expect_err("a wrong file was parsed")
}

#[test]
fn good_files_round_trip() {
    for version in [2, 3] {
        let mut file = tiny_gguf("llama");
        file.version = version;
        file.key("general.alignment", Value::U32(64));
        file.alignment = 64;
        file.key("test.truths", Value::Bools(vec![true, false]));
        let bytes = file.build();
        read_all(&bytes).unwrap();
        let gguf = Gguf::parse(bytes.as_slice()).unwrap();
        assert_eq!(gguf.version(), version);
        assert_eq!(gguf.tensors().len(), file.tensors.len());
        for tensor in &file.tensors {
            let found = gguf.tensor(&tensor.name).unwrap();
            assert!(found.range.start.is_multiple_of(64));
            assert!(bytes[found.range.clone()] == tensor.data, "{}", tensor.name);
        }
        assert_eq!(gguf.keys().count(), file.keys.len());
        let vocabulary = GgufVocabulary::read(&gguf).unwrap();
        assert_eq!(vocabulary.tokens, ["<unk>", "<s>", "</s>", "a", "猫"]);
        assert_eq!(vocabulary.scores, Some(vec![0.0, 0.0, 0.0, -1.0, -2.0]));
        assert_eq!(vocabulary.token_types, Some(vec![2, 3, 3, 1, 1]));
        assert_eq!((vocabulary.bos, vocabulary.eos, vocabulary.padding), (Some(1), Some(2), None));
    }
}

#[test]
fn every_truncation_is_an_error() {
    let bytes = tiny_gguf("gemma3").build();
    for len in 0..bytes.len() {
        assert!(Gguf::parse(&bytes[..len]).is_err(), "{len} of {} bytes", bytes.len());
    }
    Gguf::parse(bytes.as_slice()).unwrap();
}

/// Counts, lengths, sizes and offsets that no file of this size can have.
#[test]
fn each_number_near_an_edge_is_refused() {
    let (bytes, fields) = tiny_gguf("qwen2").build_with_fields();
    assert!(fields.len() > 150, "{} numbers", fields.len());
    for field in &fields {
        let original = bytes[field.at..field.at + field.bytes].to_vec();
        for number in [
            0,
            1,
            u64::from(u32::MAX),
            u64::from(u32::MAX) + 1,
            (1 << 63) - 1,
            1 << 63,
            u64::MAX - 31,
            u64::MAX - 7,
            u64::MAX,
        ] {
            let changed = replaced(&bytes, field, number);
            if changed[field.at..field.at + field.bytes] == original {
                continue;
            }
            let outcome = read_all(&changed);
            let is_large = field.bytes == 4 || number > u64::from(u32::MAX);
            if is_large && number >= u64::from(u32::MAX) {
                let low = &changed[field.at..field.at + field.bytes];
                // The low half of some of these numbers is 0 or 1: then the next case covers it.
                let is_small = field.bytes == 4 && matches!(low, [0 | 1, 0, 0, 0]);
                assert!(is_small || outcome.is_err(), "{} = {number} was accepted", field.what);
            }
        }
    }
}

#[test]
fn what_is_wrong_with_the_start_is_named() {
    for (bytes, expected) in [
        (b"".as_slice(), "file ends inside magic at byte 0: 4 bytes needed, 0 left"),
        (b"GGU", "file ends inside magic"),
        (b"GGML\x03\0\0\0", "it begins with [71, 71, 77, 76]"),
        (b"FUGG\0\0\0\x03", "big-endian"),
        (b"GGUF\0\0\0\x03", "big-endian"),
        (b"GGUF\x01\0\0\0", "GGUF version 1, supported are 2 and 3"),
        (b"GGUF\x04\0\0\0", "GGUF version 4"),
        (b"GGUF\0\0\0\0", "GGUF version 0"),
        (b"GGUF\x03\0\0\0\0", "file ends inside tensors"),
    ] {
        let error = Gguf::parse(bytes).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

/// The shape of a file that kept another reader busy for ever (43 bytes): one key, whose value is
/// an array of 2^63 of something.
#[test]
fn short_files_with_long_arrays_end_at_once() {
    let start = Instant::now();
    for element in 0..=13_u32 {
        for len in [1_u64 << 40, (1 << 63) - 1, 1 << 63, u64::MAX] {
            for tail in [0, 2, 1 << 20] {
                let mut bytes = b"GGUF\x03\0\0\0".to_vec();
                bytes.extend_from_slice(&0_u64.to_le_bytes());
                bytes.extend_from_slice(&1_u64.to_le_bytes());
                bytes.extend_from_slice(&3_u64.to_le_bytes());
                bytes.extend_from_slice(b"key");
                bytes.extend_from_slice(&9_u32.to_le_bytes());
                bytes.extend_from_slice(&element.to_le_bytes());
                bytes.extend_from_slice(&len.to_le_bytes());
                bytes.resize(bytes.len() + tail, 0);
                assert!(Gguf::parse(bytes).is_err());
            }
        }
    }
    assert!(start.elapsed() < Duration::from_secs(1));
}

#[test]
fn arrays_nest_a_little_and_no_more() {
    let nested = |depth: usize| {
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        bytes.extend_from_slice(&0_u64.to_le_bytes());
        bytes.extend_from_slice(&1_u64.to_le_bytes());
        bytes.extend_from_slice(&1_u64.to_le_bytes());
        bytes.extend_from_slice(b"k\x09\0\0\0");
        for _ in 1..depth {
            bytes.extend_from_slice(&9_u32.to_le_bytes());
            bytes.extend_from_slice(&1_u64.to_le_bytes());
        }
        bytes.extend_from_slice(&0_u32.to_le_bytes());
        bytes.extend_from_slice(&0_u64.to_le_bytes());
        bytes
    };
    Gguf::parse(nested(4)).unwrap();
    for depth in [5, 6, 100_000] {
        let error = Gguf::parse(nested(depth)).unwrap_err();
        assert!(matches!(error, GgufError::ArrayDepth { .. }), "{error}");
    }
}

#[test]
fn counts_are_bounded() {
    let (bytes, fields) = tiny_gguf("llama").build_with_fields();
    for (what, max) in [("number of tensors", MAX_TENSORS), ("number of keys", MAX_KEYS)] {
        let field = fields.iter().find(|field| field.what == what).unwrap();
        for number in [max + 1, 1 << 32, 1 << 63, u64::MAX] {
            let error = Gguf::parse(replaced(&bytes, field, number)).unwrap_err();
            assert!(matches!(error, GgufError::TooMany { found, .. } if found == number));
        }
        let error = Gguf::parse(replaced(&bytes, field, max)).unwrap_err();
        assert!(!matches!(error, GgufError::TooMany { .. }), "{error}");
    }
}

#[test]
fn repeated_and_empty_names_are_refused() {
    let mut file = tiny_gguf("llama");
    file.keys.push(("general.architecture".into(), Value::U32(1)));
    assert!(matches!(parse_error(&file), GgufError::DuplicateKey { .. }));
    let mut file = tiny_gguf("llama");
    file.tensor("output_norm.weight", &[32], F32);
    assert!(matches!(parse_error(&file), GgufError::DuplicateTensor { .. }));
    for name in [String::new(), "n".repeat(257)] {
        let mut file = tiny_gguf("llama");
        file.key(&name, Value::U32(1));
        assert!(matches!(parse_error(&file), GgufError::NameLength { .. }));
        let mut file = tiny_gguf("llama");
        file.tensor(&name, &[32], F32);
        assert!(matches!(parse_error(&file), GgufError::NameLength { .. }));
    }
}

#[test]
fn alignment_is_checked() {
    for (value, expected) in [
        (Value::U32(0), "general.alignment is 0"),
        (Value::U32(4), "general.alignment is 4"),
        (Value::U32(48), "general.alignment is 48"),
        (Value::U32(1 << 31), "general.alignment is 2147483648"),
        (Value::U32(u32::MAX), "general.alignment is 4294967295"),
        (Value::I32(32), "expected an unsigned integer, found 32"),
        (Value::Text("32".into()), "found string \"32\""),
    ] {
        let mut file = tiny_gguf("llama");
        file.key("general.alignment", value);
        let error = parse_error(&file).to_string();
        assert!(error.contains(expected), "{error}");
    }
    let mut file = tiny_gguf("llama");
    file.key("general.alignment", Value::U32(4096));
    let error = parse_error(&file);
    assert!(matches!(error, GgufError::Misaligned { alignment: 4096, .. }), "{error}");
}

/// Offsets of the second and later tensors, moved.
#[test]
fn tensors_that_overlap_or_stray_are_named() {
    let (bytes, fields) = tiny_gguf("llama").build_with_fields();
    let offsets: Vec<_> = fields.iter().filter(|field| field.what == "tensor offset").collect();
    let at = |field: &Field, number| Gguf::parse(replaced(&bytes, field, number)).unwrap_err();
    for field in &offsets[1..] {
        assert!(matches!(at(field, 0), GgufError::Overlap { .. }));
        assert!(matches!(at(field, 8), GgufError::Misaligned { alignment: 32, .. }));
        assert!(matches!(at(field, u64::MAX - 31), GgufError::Outside { .. }));
        assert!(matches!(at(field, 1 << 63), GgufError::Outside { .. }));
        assert!(matches!(at(field, bytes.len() as u64 / 32 * 32), GgufError::Outside { .. }));
    }
    let dims: Vec<_> = fields.iter().filter(|field| field.what == "dimension").collect();
    for field in dims {
        assert!(matches!(at(field, 0), GgufError::Shape { .. }));
        let huge = at(field, u64::MAX - 255);
        let is_named = matches!(
            huge,
            GgufError::Shape { .. } | GgufError::Outside { .. } | GgufError::PartialBlock { .. }
        );
        assert!(is_named, "{huge}");
    }
}

#[test]
fn products_of_dimensions_do_not_wrap() {
    for dims in [
        vec![1 << 32, 1 << 32],
        vec![1 << 62, 4],
        vec![1 << 16, 1 << 16, 1 << 16, 1 << 16],
        vec![(1 << 63) + 32, 2],
        vec![32, u64::MAX],
    ] {
        for (type_id, _, _) in [F32, Q4_0] {
            let mut file = tiny_gguf("llama");
            let tensor =
                support::Tensor { name: "x".into(), dims: dims.clone(), type_id, data: vec![] };
            file.tensors.push(tensor);
            let error = parse_error(&file);
            let is_named = matches!(error, GgufError::Shape { .. } | GgufError::Outside { .. });
            assert!(is_named, "{dims:?}: {error}");
        }
    }
}

#[test]
fn types_and_blocks_are_named() {
    let with_type = |type_id| {
        let mut file = tiny_gguf("llama");
        file.tensors[3].type_id = type_id;
        parse_error(&file).to_string()
    };
    let expected = r#"tensor "blk.0.attn_k.weight" has type Q2_K (10), supported are F32, F16"#;
    assert!(with_type(10).contains(expected));
    assert!(with_type(4).contains("has type unknown (4)"));
    assert!(with_type(u32::MAX).contains("has type unknown (4294967295)"));
    for num_dims in [0, 5, u32::MAX] {
        let (bytes, fields) = tiny_gguf("llama").build_with_fields();
        let field = fields.iter().find(|field| field.what == "number of dimensions").unwrap();
        let error = Gguf::parse(replaced(&bytes, field, num_dims.into())).unwrap_err();
        assert!(matches!(error, GgufError::NumDims { .. }), "{error}");
    }
    let mut file = tiny_gguf("llama");
    file.tensors[3].dims = vec![33, 16];
    assert!(matches!(parse_error(&file), GgufError::PartialBlock { cols: 33, .. }));
}

#[test]
fn vocabulary_fields_have_the_right_types_and_lengths() {
    for (key, value, expected) in [
        ("tokens", Value::Texts(vec![]), "at least one token"),
        ("tokens", Value::U8s(vec![1; 5]), "expected an array of strings, found array of 5 U8"),
        ("tokens", Value::Text("a".into()), "expected an array, found string"),
        ("scores", Value::U8s(vec![1; 5]), "found array of 5 U8"),
        ("scores", Value::F32s(vec![0.0; 4]), "expected one element per token"),
        ("scores", Value::I32s(vec![0; 5]), "found array of 5 I32"),
        ("token_type", Value::U8s(vec![1; 5]), "found array of 5 U8"),
        ("token_type", Value::I32s(vec![1; 6]), "expected one element per token"),
        ("merges", Value::F32s(vec![0.0; 4]), "expected an array of strings"),
        ("bos_token_id", Value::U32(5), "expected an id of the vocabulary"),
        ("eos_token_id", Value::I32(-1), "expected an integer of at least 0"),
        ("add_bos_token", Value::U32(1), "expected a bool, found 1"),
        ("model", Value::U32(1), "expected a string, found 1"),
    ] {
        let mut file = tiny_gguf("llama");
        file.key(&format!("tokenizer.ggml.{key}"), value);
        let error = read_all(&file.build()).expect_err(key);
        assert!(error.contains(expected), "{key}: {error}");
    }
    for key in ["tokens", "model"] {
        let mut file = tiny_gguf("llama");
        file.without_key(&format!("tokenizer.ggml.{key}"));
        assert!(read_all(&file.build()).unwrap_err().contains("is missing"));
    }
    let mut file = tiny_gguf("llama");
    file.key("tokenizer.ggml.padding_token_id", Value::U32(u32::MAX));
    read_all(&file.build()).unwrap();
}

#[test]
fn text_that_is_not_utf8_is_refused() {
    let bytes = tiny_gguf("llama").build();
    for text in ["general.architecture", "llama.block_count", "猫", "blk.0.attn_q.weight"] {
        let at = bytes.windows(text.len()).position(|window| window == text.as_bytes()).unwrap();
        let mut changed = bytes.clone();
        changed[at] = 0xff;
        let error = read_all(&changed).unwrap_err();
        assert!(error.contains("is not UTF-8"), "{text}: {error}");
    }
}

/// Names end up in messages and messages in terminals.
#[test]
fn names_are_printed_with_escapes() {
    let mut file = tiny_gguf("llama");
    let name = "\u{1b}[2Jgone";
    file.tensor(name, &[32], F32).tensor(name, &[32], F32);
    let error = parse_error(&file).to_string();
    assert!(!error.contains('\u{1b}') && error.contains("[2Jgone"), "{error}");
}

/// The fuzzer starts from these. `FEILUN_WRITE_SEEDS=1` writes them anew.
#[test]
fn fuzz_seeds_are_current() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/gguf");
    for architecture in ["llama", "gemma3"] {
        let (path, bytes) = (folder.join(architecture), tiny_gguf(architecture).build());
        if std::env::var_os("FEILUN_WRITE_SEEDS").is_some() {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&path, &bytes).unwrap();
        }
        assert!(std::fs::read(&path).unwrap() == bytes, "{}", path.display());
    }
}

proptest::proptest! {
    #[test]
    fn mutated_files_never_panic(
        edits in proptest::collection::vec((0_usize..6000, 0_u8..=255), 1..8),
        cut in 0_usize..20_000,
    ) {
        let mut bytes = tiny_gguf("gemma3").build();
        for (at, byte) in edits {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        bytes.truncate(cut.max(bytes.len() / 2));
        let _ = read_all(&bytes);
    }

    #[test]
    fn garbage_never_panics(tail in proptest::collection::vec(0_u8..=255, 0..600)) {
        let bytes = [b"GGUF\x03\0\0\0".as_slice(), &tail].concat();
        proptest::prop_assert!(Gguf::parse(bytes).is_err() || tail.len() >= 16);
    }
}
