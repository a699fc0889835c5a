//! Models written out and read back: adapters, GGUF files, Hugging Face folders.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests"
)]

mod reference;
mod support;

use std::fs;
use std::path::{Path, PathBuf};

use feilun_kernels::matmul::Numerics;
use feilun_kernels::{BlockType, Pool};
use feilun_model::gguf_vocabulary::GgufVocabulary;
use feilun_model::save::{
    AdapterInfo, Companions, FileWeights, FlatWeights, GgufMetadata, Job, MergedWeights,
    NamedTensor, SaveError, Storage, WeightSource, save_adapter, save_folder, save_gguf,
};
use feilun_model::train::{ParameterInfo, ParameterKind};
use feilun_model::{
    Adapter, KvKind, LayerTensor, ModelConfig, ModelFiles, TensorRole, TokenizerSource,
};
use reference::{Goldens, check_f32, session};
use serde_json::json;

const FIXTURES: [&str; 10] = [
    "llama",
    "llama-bias-f32",
    "llama-linear",
    "llama-yarn",
    "mistral",
    "qwen2",
    "qwen2-window",
    "qwen3",
    "gemma3",
    "gemma3-linear",
];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn with_job<T>(run: impl FnOnce(&mut Job<'_>) -> T) -> T {
    let mut pool = Pool::new(2).unwrap();
    let mut last = (0, 0);
    let mut progress = |done, total| {
        assert!(done > last.0 && done <= total, "{done} of {total} after {}", last.0);
        last = (done, total);
    };
    let result = run(&mut Job { pool: &mut pool, progress: &mut progress });
    assert_eq!(last.0, last.1);
    result
}

/// A tensor, canonical; and whether it is a vector.
fn values(source: &dyn WeightSource, files: &ModelFiles, role: TensorRole) -> (Vec<f32>, bool) {
    let view = files.tensor(role).unwrap();
    let mut values = vec![0.0; view.rows * view.cols];
    for (row, out) in values.chunks_exact_mut(view.cols).enumerate() {
        source.row(role, row, out);
    }
    (values, view.rows == 1)
}

/// The largest difference between two models, of matrices and of vectors.
fn differences(a: &ModelFiles, b: &ModelFiles) -> (f32, f32) {
    assert_eq!(a.config(), b.config());
    let (weights_a, weights_b) = (FileWeights::new(a), FileWeights::new(b));
    let (mut of_matrices, mut of_vectors) = (0.0_f32, 0.0_f32);
    for role in a.tensor_roles() {
        let (values_a, is_vector) = values(&weights_a, a, role);
        let (values_b, _) = values(&weights_b, b, role);
        assert_eq!(values_a.len(), values_b.len(), "{role:?}");
        let largest = if is_vector { &mut of_vectors } else { &mut of_matrices };
        for (a, b) in values_a.iter().zip(&values_b) {
            *largest = largest.max((a - b).abs());
        }
    }
    (of_matrices, of_vectors)
}

fn export_folder(source: &dyn WeightSource, base: &ModelFiles, to: &Path, block_type: BlockType) {
    let special_tokens = base.special_tokens().unwrap();
    let companions = Companions::of_folder(base).unwrap();
    let companions = companions.unwrap_or(Companions { files: Vec::new(), special_tokens });
    with_job(|job| save_folder(to, &companions, source, block_type, job)).unwrap();
}

fn export_gguf(source: &dyn WeightSource, base: &ModelFiles, to: &Path, block_type: BlockType) {
    let metadata = GgufMetadata::of_file(base).unwrap().unwrap();
    with_job(|job| save_gguf(to, &metadata, source, Storage::new(block_type), job)).unwrap();
}

#[test]
fn folders_of_every_family_come_back() {
    for name in FIXTURES {
        let place = tempfile::tempdir().unwrap();
        let files = ModelFiles::open(fixture(name)).unwrap();
        for (block_type, most) in [(BlockType::F32, 2e-7), (BlockType::Bf16, 0.016)] {
            let to = place.path().join(block_type.name());
            export_folder(&FileWeights::new(&files), &files, &to, block_type);
            let back = ModelFiles::open(&to).unwrap();
            assert_eq!(back.special_tokens().unwrap(), files.special_tokens().unwrap());
            let (of_matrices, of_vectors) = differences(&files, &back);
            // What is bf16 already loses nothing; Gemma's norms lose and get back a one.
            let stored = files.tensor(TensorRole::TokenEmbedding).unwrap().block_type;
            let is_exact = block_type == BlockType::F32 || stored == block_type;
            let of_matrices_most = if is_exact { 0.0 } else { 0.016 };
            assert!(of_matrices <= of_matrices_most, "{name}: {of_matrices} in {block_type}");
            assert!(of_vectors <= most, "{name}: {of_vectors} in {block_type}");
        }
    }
}

#[test]
fn a_folder_scores_as_its_model() {
    for name in ["qwen2-window", "gemma3-linear"] {
        let place = tempfile::tempdir().unwrap();
        let files = ModelFiles::open(fixture(name)).unwrap();
        let to = place.path().join("out");
        export_folder(&FileWeights::new(&files), &files, &to, BlockType::F32);
        let goldens = Goldens::read(&fixture(name).join("goldens.json"));
        check_f32(name, &mut session(&to, Numerics::F32, KvKind::F32), &goldens, None);
    }
}

#[test]
fn a_merged_adapter_scores_as_peft_says() {
    for base in ["llama", "gemma3"] {
        let place = tempfile::tempdir().unwrap();
        let files = ModelFiles::open(fixture(base)).unwrap();
        let name = format!("{base}-lora");
        let adapter = Adapter::open(fixture(&name), files.config()).unwrap();
        let weights = FileWeights::new(&files);
        let merged = MergedWeights::new(&weights, &adapter).unwrap();
        let to = place.path().join("merged");
        export_folder(&merged, &files, &to, BlockType::F32);
        let goldens = Goldens::read(&fixture(&name).join("goldens.json"));
        check_f32(&name, &mut session(&to, Numerics::F32, KvKind::F32), &goldens, None);
        let other = if base == "llama" { "gemma3" } else { "llama" };
        let other = ModelFiles::open(fixture(other)).unwrap();
        assert!(MergedWeights::new(&FileWeights::new(&other), &adapter).is_err());
    }
}

fn tiny_gguf(folder: &Path, architecture: &str) -> ModelFiles {
    let path = folder.join(format!("{architecture}.gguf"));
    let mut file = support::tiny_gguf(architecture);
    file.key("quantize.imatrix.file", support::Value::Text("of the base".into()));
    if architecture == "llama" {
        // Llama 3's frequencies: what is stretched by 1 and by 8, and some between.
        let divisors = [1.0f32, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0, 8.0];
        file.tensor("rope_freqs.weight", &[8], support::F32);
        let data = divisors.iter().flat_map(|value| value.to_le_bytes()).collect();
        file.tensors.last_mut().unwrap().data = data;
    }
    for tensor in &mut file.tensors {
        if tensor.name.contains("norm") || tensor.name.contains("bias") {
            let ramp = (0..tensor.data.len() / 4).map(|i| i as f32 / 7.0);
            tensor.data = ramp.flat_map(f32::to_le_bytes).collect();
        } else if tensor.type_id == 2 || tensor.type_id == 8 {
            // Scales that are numbers, and quants that differ from row to row.
            let block_bytes = if tensor.type_id == 2 { 18 } else { 34 };
            for (index, block) in tensor.data.chunks_exact_mut(block_bytes).enumerate() {
                block[..2].copy_from_slice(&[index as u8, 0x2c]);
                block[2] = index as u8;
            }
        }
    }
    fs::write(&path, file.build()).unwrap();
    ModelFiles::open(&path).unwrap()
}

#[test]
fn gguf_files_of_every_family_come_back() {
    for architecture in ["llama", "qwen2", "qwen3", "gemma3"] {
        let place = tempfile::tempdir().unwrap();
        let files = tiny_gguf(place.path(), architecture);
        let weights = FileWeights::new(&files);
        // The quants of Q4_0 are already on Q8_0's grid but for the rounding of its scale.
        for (block_type, most) in
            [(BlockType::F32, 0.0), (BlockType::F16, 0.0005), (BlockType::Q8_0, 0.006)]
        {
            let to = place.path().join(format!("{architecture}-{block_type}.gguf"));
            export_gguf(&weights, &files, &to, block_type);
            let back = ModelFiles::open(&to).unwrap();
            let (of_matrices, of_vectors) = differences(&files, &back);
            assert_eq!(of_vectors, 0.0, "{architecture} in {block_type}");
            assert!(of_matrices <= most, "{architecture}: {of_matrices} in {block_type}");
            assert_eq!(back.tokenizer().unwrap(), files.tokenizer().unwrap());
            let text = String::from_utf8_lossy(&fs::read(&to).unwrap()).into_owned();
            assert!(!text.contains("imatrix"));
            // Once more gives the same bytes.
            let again = place.path().join("again.gguf");
            export_gguf(&FileWeights::new(&back), &back, &again, BlockType::F32);
            let and_again = place.path().join("and-again.gguf");
            let again_files = ModelFiles::open(&again).unwrap();
            export_gguf(&FileWeights::new(&again_files), &again_files, &and_again, BlockType::F32);
            assert!(fs::read(&again).unwrap() == fs::read(&and_again).unwrap());
            fs::remove_file(again).unwrap();
            fs::remove_file(and_again).unwrap();
        }
    }
}

#[test]
fn folders_of_every_family_become_gguf() {
    for name in FIXTURES {
        let place = tempfile::tempdir().unwrap();
        let files = ModelFiles::open(fixture(name)).unwrap();
        let tokens: Vec<String> =
            (0..files.config().vocab_size).map(|id| format!("token {id}")).collect();
        let vocabulary = GgufVocabulary {
            token_types: Some(vec![1; tokens.len()]),
            merges: Some(vec![]),
            bos: Some(1),
            eos: Some(2),
            add_bos: Some(true),
            ..GgufVocabulary::of_tokens("gpt2", tokens.iter().map(String::as_str).collect())
        };
        let metadata = GgufMetadata::new(name, files.config(), &vocabulary, Some("{{ 1 }}"));
        let to = place.path().join("model.gguf");
        let weights = FileWeights::new(&files);
        let written =
            with_job(|job| save_gguf(&to, &metadata, &weights, Storage::new(BlockType::F32), job));
        // Readers derive these, and come to something else: which layers of a Qwen have a window,
        // and the scale of a Gemma that is not its head's.
        let refusal = match name {
            "qwen2-window" => Some("layer"),
            _ if name.starts_with("gemma3") => {
                let of_head = (files.config().head_dim as f32).sqrt().recip();
                (files.config().attention_scale != of_head).then_some("attention_scale")
            }
            _ => None,
        };
        if let Some(what) = refusal {
            let error = written.unwrap_err().to_string();
            assert!(error.contains(&format!("GGUF cannot express {what}")), "{name}: {error}");
            assert!(!to.exists());
            continue;
        }
        written.unwrap();
        let back = ModelFiles::open(&to).unwrap();
        assert_eq!(back.tokenizer().unwrap(), TokenizerSource::Gguf(vocabulary));
        assert_eq!(back.chat_template().unwrap().unwrap(), "{{ 1 }}");
        let goldens = Goldens::read(&fixture(name).join("goldens.json"));
        check_f32(name, &mut session(&to, Numerics::F32, KvKind::F32), &goldens, None);
    }
}

#[test]
fn a_gguf_file_becomes_a_folder() {
    for architecture in ["qwen2", "qwen3", "gemma3"] {
        let place = tempfile::tempdir().unwrap();
        let files = tiny_gguf(place.path(), architecture);
        let to = place.path().join("folder");
        export_folder(&FileWeights::new(&files), &files, &to, BlockType::F32);
        let back = ModelFiles::open(&to).unwrap();
        let (of_matrices, of_vectors) = differences(&files, &back);
        assert!(of_matrices == 0.0 && of_vectors <= 2e-7, "{architecture}");
        assert_eq!(back.special_tokens().unwrap(), files.special_tokens().unwrap());
    }
    // Frequencies that no published model has.
    let place = tempfile::tempdir().unwrap();
    let files = tiny_gguf(place.path(), "llama");
    let to = place.path().join("folder");
    let companions = Companions::default();
    let mut pool = Pool::new(1).unwrap();
    let mut job = Job { pool: &mut pool, progress: &mut |_, _| () };
    let weights = FileWeights::new(&files);
    let error = save_folder(&to, &companions, &weights, BlockType::F32, &mut job).unwrap_err();
    assert!(error.to_string().contains("config.json cannot express layer 0"), "{error}");
    assert!(!to.exists());
}

#[test]
fn adapters_come_back() {
    let config = {
        let config = support::tiny_config("llama", json!({})).to_string();
        feilun_model::hf_config::config_from_json(config.as_bytes()).unwrap()
    };
    let name =
        |half| format!("base_model.model.model.layers.1.self_attn.q_proj.lora_{half}.weight");
    let ramp: Vec<f32> = (0..64).map(|index| index as f32 / 8.0 - 3.0).collect();
    let (a, b) = (name("A"), name("B"));
    let tensors = [
        NamedTensor { name: &a, shape: &[2, 32], values: &ramp },
        NamedTensor { name: &b, shape: &[32, 2], values: &ramp },
    ];
    let targets = [LayerTensor::AttnQ];
    let info = AdapterInfo { rank: 2, alpha: 3.0, targets: &targets, base: "tiny" };
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("adapter");
    save_adapter(&folder, &info, tensors).unwrap();
    let adapter = Adapter::open(&folder, &config).unwrap();
    let q = adapter.matrix(1, LayerTensor::AttnQ).unwrap();
    assert_eq!((q.rank, q.scale, &q.a, &q.b), (2, 1.5, &ramp, &ramp));
    assert!(matches!(save_adapter(&folder, &info, tensors), Err(SaveError::Exists { .. })));
    let again = place.path().join("again");
    save_adapter(&again, &info, tensors).unwrap();
    assert_eq!(Adapter::open(&again, &config).unwrap().digest, adapter.digest);

    let mut bad = ramp.clone();
    bad[7] = f32::NAN;
    let tensors = [NamedTensor { name: &a, shape: &[2, 32], values: &bad }];
    let error = save_adapter(&place.path().join("nan"), &info, tensors).unwrap_err();
    assert!(error.to_string().contains("value 7 is NaN"), "{error}");
    assert!(!place.path().join("nan").exists());
}

/// Parameters as a trainee has them.
fn parameters(config: &ModelConfig, files: &ModelFiles) -> (Vec<ParameterInfo>, Vec<f32>) {
    let weights = FileWeights::new(files);
    let mut infos = Vec::new();
    let mut flat = Vec::new();
    for role in files.tensor_roles() {
        let (values, _) = values(&weights, files, role);
        let name = files.tensor(role).unwrap().name.to_owned();
        let range = flat.len()..flat.len() + values.len();
        flat.extend(values);
        let (shape, kind) = (vec![range.len()], ParameterKind::Matrix);
        infos.push(ParameterInfo { name, shape, kind, range });
    }
    assert_eq!(weights.config(), config);
    (infos, flat)
}

#[test]
fn a_trained_vector_is_written_as_a_model() {
    let files = ModelFiles::open(fixture("qwen3")).unwrap();
    let (infos, mut flat) = parameters(files.config(), &files);
    let place = tempfile::tempdir().unwrap();
    let to = place.path().join("trained");
    let weights = FlatWeights::new(files.config(), &infos, &flat).unwrap();
    export_folder(&weights, &files, &to, BlockType::F32);
    assert_eq!(differences(&files, &ModelFiles::open(&to).unwrap()), (0.0, 0.0));

    let error = FlatWeights::new(files.config(), &infos[1..], &flat).unwrap_err().to_string();
    assert!(error.contains("model.embed_tokens.weight\" has 0 values"), "{error}");

    let at = infos[5].range.start + 3;
    flat[at] = f32::INFINITY;
    let weights = FlatWeights::new(files.config(), &infos, &flat).unwrap();
    let mut pool = Pool::new(1).unwrap();
    let mut job = Job { pool: &mut pool, progress: &mut |_, _| () };
    let to = place.path().join("broken");
    let companions = Companions::default();
    let error = save_folder(&to, &companions, &weights, BlockType::F32, &mut job).unwrap_err();
    let expected = format!("{:?}: value 3 is inf", infos[5].name);
    assert!(error.to_string().contains(&expected), "{error}");
    assert!(fs::read_dir(place.path()).unwrap().count() == 1);
}
