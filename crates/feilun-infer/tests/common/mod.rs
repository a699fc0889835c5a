//! A model that is a hash, and a vocabulary of bytes: what the engine does with them can be
//! checked to the last bit.

#![allow(dead_code, unreachable_pub, reason = "a module of several test binaries")]

use std::sync::Arc;
use std::time::Duration;

use feilun_infer::decoder::{Decoder, LogitsView};
use feilun_infer::engine::{Engine, EngineConfig};
use feilun_infer::model_text::ModelText;
use feilun_infer::vocabulary::{TextStream, Vocabulary};
use feilun_model::config::{Activation, Architecture};
use feilun_model::{BatchMode, ForwardError, KV_BLOCK_TOKENS, LogitRows, ModelConfig, Segment};
use feilun_text::{GgufVocab, Tokenizer};

/// Ends an answer.
pub const END: u32 = 0;
/// The model cannot compute a step with this token.
pub const POISON: u32 = 1;
/// The logits after this token are NaN.
pub const BROKEN: u32 = 2;
/// The token of byte 0; others follow.
const FIRST_BYTE: u32 = 3;
/// Width of the fake model.
pub const HIDDEN_SIZE: usize = 8;
/// A step with these bytes in a row panics.
pub const PANIC: &str = "PANIC!";
const WORDS: [&str; 18] = [
    "{\"", "\":", "\",", "true", "false", "null", "}}", "12", "ab", "aba", "the ", "你好", "好",
    "  ", "\n\n", "name", "\": \"", "]}",
];
/// Tokens of the vocabulary; the model has some rows more.
pub const NUM_TOKENS: usize = FIRST_BYTE as usize + 256 + WORDS.len();
const MODEL_ROWS: usize = NUM_TOKENS + 13;

/// The token of one byte.
pub fn byte(byte: u8) -> u32 {
    FIRST_BYTE + u32::from(byte)
}

/// Text as single bytes.
pub fn bytes(text: &str) -> Vec<u32> {
    text.bytes().map(byte).collect()
}

pub fn token_bytes(token: u32) -> Option<Vec<u8>> {
    let index = token.checked_sub(FIRST_BYTE)?;
    match u8::try_from(index) {
        Ok(byte) => Some(vec![byte]),
        Err(_) => WORDS.get(index as usize - 256).map(|word| word.as_bytes().to_vec()),
    }
}

/// All bytes, some words, and three control tokens.
pub struct ToyVocabulary {
    /// Whether it can tokenize: then constraints force the longest tokens.
    pub canonical: bool,
}

impl Vocabulary for ToyVocabulary {
    fn num_tokens(&self) -> usize {
        NUM_TOKENS
    }

    fn end_tokens(&self) -> &[u32] {
        &[END]
    }

    fn token_bytes(&self, token: u32) -> Option<Vec<u8>> {
        token_bytes(token)
    }

    fn tokenize(&self, text: &str) -> Option<Vec<u32>> {
        if !self.canonical {
            return None;
        }
        let mut rest = text.as_bytes();
        let mut tokens = Vec::new();
        while let Some(&first) = rest.first() {
            let fits = |&i: &usize| rest.starts_with(WORDS[i].as_bytes());
            let longest = (0..WORDS.len()).filter(fits).max_by_key(|&i| WORDS[i].len());
            let (token, len) = match longest {
                Some(i) => (FIRST_BYTE + 256 + i as u32, WORDS[i].len()),
                None => (byte(first), 1),
            };
            rest = &rest[len..];
            tokens.push(token);
        }
        Some(tokens)
    }

    fn text_stream(&self) -> Box<dyn TextStream> {
        Box::new(Utf8Stream(Vec::new()))
    }
}

struct Utf8Stream(Vec<u8>);

impl TextStream for Utf8Stream {
    fn push(&mut self, token: u32) -> String {
        self.0.extend(token_bytes(token).unwrap_or_default());
        let mut text = String::new();
        loop {
            match std::str::from_utf8(&self.0) {
                Ok(whole) => {
                    text.push_str(whole);
                    self.0.clear();
                    return text;
                }
                Err(error) => {
                    let valid = error.valid_up_to();
                    text.push_str(&String::from_utf8_lossy(&self.0[..valid]));
                    let Some(bad) = error.error_len() else {
                        self.0.drain(..valid);
                        return text;
                    };
                    text.push('\u{fffd}');
                    self.0.drain(..valid + bad);
                }
            }
        }
    }

    fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.0)).into_owned()
    }
}

/// The logits after a sequence of tokens: a pure function of it.
pub fn logits_after(tokens: &[u32]) -> Vec<f32> {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for &token in tokens {
        hash = (hash ^ u64::from(token)).wrapping_mul(0x0100_0000_01b3).rotate_left(17);
    }
    if tokens.last() == Some(&BROKEN) {
        return vec![f32::NAN; MODEL_ROWS];
    }
    let logit = |row: u64| {
        let mut z = (hash ^ row).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        ((z >> 40) as f32 / (1u64 << 24) as f32) * 12.0 - 6.0
    };
    let mut row: Vec<f32> = (0..MODEL_ROWS as u64).map(logit).collect();
    // Answers of a dozen or two tokens.
    row[END as usize] += 3.0;
    row[POISON as usize] = -30.0;
    row[BROKEN as usize] = -30.0;
    row
}

/// The hidden state after a sequence of tokens: a pure function of it too.
pub fn hidden_after(tokens: &[u32]) -> [f32; HIDDEN_SIZE] {
    let logits = logits_after(tokens);
    std::array::from_fn(|i| logits[i + 10])
}

/// One position in the cache: the token, and by which kernels it was computed.
type Slot = Option<(u32, BatchMode)>;

/// A decoder whose cache holds tokens. Everything it knows of a sequence it reads through the
/// block table it is given, and it panics where that is inconsistent.
pub struct FakeDecoder {
    config: ModelConfig,
    blocks: Vec<[Slot; KV_BLOCK_TOKENS]>,
    max_rows: usize,
    /// Most rows of logits that a step may ask for.
    pub logit_rows_max: usize,
    /// Rows computed so far.
    pub num_rows: usize,
    pub num_forwards: usize,
}

pub struct FakeLogits {
    rows: Vec<Vec<f32>>,
    hidden: Vec<[f32; HIDDEN_SIZE]>,
}

impl LogitsView for FakeLogits {
    fn row(&self, index: usize) -> &[f32] {
        &self.rows[index]
    }

    fn num_rows(&self) -> usize {
        self.rows.len()
    }

    fn hidden(&self, token: usize, hidden_h: &mut [f32]) {
        hidden_h.copy_from_slice(&self.hidden[token]);
    }
}

impl FakeDecoder {
    pub fn new(num_blocks: usize, max_rows: usize) -> FakeDecoder {
        FakeDecoder {
            config: config(),
            blocks: vec![[None; KV_BLOCK_TOKENS]; num_blocks],
            max_rows,
            logit_rows_max: 64,
            num_rows: 0,
            num_forwards: 0,
        }
    }
}

fn config() -> ModelConfig {
    ModelConfig {
        architecture: Architecture::Llama,
        hidden_size: HIDDEN_SIZE,
        intermediate_size: 8,
        num_heads: 1,
        num_kv_heads: 1,
        head_dim: 8,
        vocab_size: MODEL_ROWS,
        context_length: 2000,
        norm_eps: 1e-5,
        activation: Activation::Silu,
        qk_norm: false,
        qkv_bias: false,
        output_bias: false,
        mlp_bias: false,
        post_norms: false,
        embedding_scale: 1.0,
        attention_scale: 1.0,
        logit_softcap: None,
        tied_embeddings: true,
        layers: Vec::new(),
    }
}

impl Decoder for FakeDecoder {
    type Logits<'a> = FakeLogits;

    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn num_blocks(&self) -> usize {
        self.blocks.len()
    }

    fn max_rows(&self) -> usize {
        self.max_rows
    }

    fn max_logit_rows(&self) -> usize {
        self.logit_rows_max
    }

    fn forward(
        &mut self,
        segments: &[Segment<'_>],
        mode: BatchMode,
    ) -> Result<FakeLogits, ForwardError> {
        let num_rows: usize = segments.iter().map(|s| s.tokens.len()).sum();
        assert!(num_rows <= self.max_rows, "{num_rows} rows of {}", self.max_rows);
        assert!(segments.iter().all(|s| !s.tokens.is_empty()));
        self.num_forwards += 1;
        if segments.iter().any(|s| s.tokens.contains(&POISON)) {
            return Err(ForwardError::TokenOutOfRange { token: POISON, vocab_size: MODEL_ROWS });
        }
        let panics = |s: &Segment<'_>| s.tokens.windows(PANIC.len()).any(|t| t == bytes(PANIC));
        assert!(!segments.iter().any(panics), "the decoder was told to panic");
        self.num_rows += num_rows;
        self.check_writes(segments);
        let (mut rows, mut hidden) = (Vec::new(), Vec::new());
        for segment in segments {
            let mut prefix: Vec<u32> = (0..segment.start)
                .map(|position| {
                    let (block, slot) = locate(segment, position);
                    let (token, by) = self.blocks[block][slot].expect("a position without content");
                    assert_eq!(by, mode, "a block of the other mode");
                    token
                })
                .collect();
            for (offset, &token) in segment.tokens.iter().enumerate() {
                let (block, slot) = locate(segment, segment.start + offset);
                self.blocks[block][slot] = Some((token, mode));
                // What was there before is gone: nobody may rely on it.
                self.blocks[block][slot + 1..].fill(None);
                prefix.push(token);
                hidden.push(hidden_after(&prefix));
                let is_last = offset + 1 == segment.tokens.len();
                let wanted = match segment.logits {
                    LogitRows::None => false,
                    LogitRows::Last => is_last,
                    LogitRows::All => true,
                };
                if wanted {
                    rows.push(logits_after(&prefix));
                }
            }
        }
        assert!(rows.len() <= self.logit_rows_max, "{} rows of logits", rows.len());
        Ok(FakeLogits { rows, hidden })
    }
}

impl FakeDecoder {
    /// No block is written by one segment and read or written by another.
    fn check_writes(&self, segments: &[Segment<'_>]) {
        for (index, segment) in segments.iter().enumerate() {
            let first = segment.start / KV_BLOCK_TOKENS;
            let last = (segment.start + segment.tokens.len() - 1) / KV_BLOCK_TOKENS;
            for block in &segment.blocks[first..=last] {
                for (other_index, other) in segments.iter().enumerate() {
                    assert!(
                        other_index == index || !other.blocks.contains(block),
                        "block {block:?} is written by one segment and used by another"
                    );
                }
            }
        }
    }
}

fn locate(segment: &Segment<'_>, position: usize) -> (usize, usize) {
    (segment.blocks[position / KV_BLOCK_TOKENS].0 as usize, position % KV_BLOCK_TOKENS)
}

/// The same vocabulary as a tokenizer: SentencePiece with bytes.
pub fn toy_text() -> ModelText {
    let controls = ["<end>", "<poison>", "<broken>"].map(str::to_owned);
    let bytes = (0..=255u8).map(|byte| format!("<0x{byte:02X}>"));
    let words = WORDS.iter().map(|word| word.replace(' ', "\u{2581}"));
    let tokens: Vec<String> = controls.into_iter().chain(bytes).chain(words).collect();
    let mut types = vec![1; tokens.len()];
    types[..3].fill(3);
    types[3..259].fill(6);
    let vocab = GgufVocab {
        model: "llama",
        tokens: tokens.iter().map(String::as_str).collect(),
        token_types: Some(types),
        scores: Some(vec![0.0; tokens.len()]),
        add_bos: Some(false),
        add_space_prefix: Some(false),
        eos: Some(END),
        ..GgufVocab::default()
    };
    ModelText::new(Arc::new(Tokenizer::from_gguf(vocab).unwrap()), &[])
}

/// An engine over a fake decoder, with a clock that stands still.
pub fn engine(num_blocks: usize, max_rows: usize, config: EngineConfig) -> Engine<FakeDecoder> {
    let decoder = FakeDecoder::new(num_blocks, max_rows);
    let vocabulary = Arc::new(ToyVocabulary { canonical: true });
    Engine::new(decoder, vocabulary, config, Box::new(|| Duration::ZERO))
}
