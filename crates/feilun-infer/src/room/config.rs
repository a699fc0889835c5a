//! What a room is told: its sizes, which models to load, who asks.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use feilun_kernels::{Isa, KernelTable};

use crate::constraint::ConstraintLimits;
use crate::kv::prefix::Namespace;

/// Sizes and limits of a room.
#[derive(Clone, Debug)]
pub struct RoomConfig {
    /// Threads that compute, all models together.
    pub threads: usize,
    /// Instruction paths.
    pub kernels: KernelTable,
    /// Most memory of all models: weights, KV caches, caches of constraints, adapters.
    pub memory_bytes_max: usize,
    /// Most requests that wait, over all models and tenants.
    pub waiting_max: usize,
    /// Most requests of one model that are computed together.
    pub running_max: usize,
    /// Most tokens of one step.
    pub step_rows_max: usize,
    /// While anybody waits for the next token of an answer, a step takes on no more prompt than
    /// fits into this time,
    pub inter_token_target: Duration,
    /// or into so many times what the step takes without prompts, whichever is longer.
    pub slowdown_max: f64,
    /// Bounds on constraints, the size of each model's cache of them included.
    pub constraints: ConstraintLimits,
}

impl RoomConfig {
    /// The defaults, for so many threads and so much memory.
    pub fn new(threads: usize, memory_bytes_max: usize) -> RoomConfig {
        RoomConfig {
            threads,
            kernels: Isa::best().into(),
            memory_bytes_max,
            waiting_max: 1024,
            running_max: 64,
            // Larger steps are hardly faster, and a request that comes in waits for the step.
            step_rows_max: 256,
            // A hundred tokens a second: faster than anybody reads.
            inter_token_target: Duration::from_millis(10),
            slowdown_max: 1.75,
            constraints: ConstraintLimits::default(),
        }
    }
}

/// Names a model by its content: BLAKE3, as `ModelFiles::digest` computes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelDigest(pub [u8; 32]);

/// The kind of digest, before the hexadecimal digits.
const PREFIX: &str = "blake3:";

impl fmt::Display for ModelDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PREFIX)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A text that is no digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a digest: expected `blake3:` and 64 hexadecimal digits, found {found:?}")]
pub struct DigestParseError {
    /// The beginning of the text.
    pub found: String,
}

impl FromStr for ModelDigest {
    type Err = DigestParseError;

    /// Reads what [`Display`](fmt::Display) writes; `blake3:` may be missing.
    ///
    /// ```
    /// use feilun_infer::room::ModelDigest;
    /// let digest = ModelDigest([0xa5; 32]);
    /// assert_eq!(digest.to_string().parse(), Ok(digest));
    /// assert!("blake3:a5".parse::<ModelDigest>().is_err());
    /// ```
    fn from_str(text: &str) -> Result<ModelDigest, DigestParseError> {
        let error = || DigestParseError { found: text.chars().take(100).collect() };
        let digits = text.strip_prefix(PREFIX).unwrap_or(text).as_bytes();
        let mut digest = [0; 32];
        if digits.len() != 2 * digest.len() {
            return Err(error());
        }
        for (byte, pair) in digest.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |c: u8| char::from(c).to_digit(16);
            let (Some(high), Some(low)) = (digit(pair[0]), digit(pair[1])) else {
                return Err(error());
            };
            *byte = (high * 16 + low) as u8;
        }
        Ok(ModelDigest(digest))
    }
}

/// Which model to load, and with how much memory.
#[derive(Clone, Debug)]
pub struct ModelSource {
    /// A GGUF file, or the folder of a safetensors model.
    pub path: PathBuf,
    /// The content's digest, if it is known; else it is computed, which reads the whole file.
    pub digest: Option<ModelDigest>,
    /// Most bytes of KV cache; less where the model's context for every running request takes
    /// less.
    pub kv_bytes_max: usize,
    /// Where memory is short, unload models that nobody uses, the least recently used first.
    pub evict_idle: bool,
}

impl ModelSource {
    /// A model with up to 1 GiB of KV cache, for which no other is unloaded.
    pub fn new(path: impl Into<PathBuf>) -> ModelSource {
        ModelSource { path: path.into(), digest: None, kv_bytes_max: 1 << 30, evict_idle: false }
    }
}

/// Whose request it is, and what that entitles it to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// Nobody shares prefixes with another tenant, nor can tell by timing what another asked.
    pub id: [u8; 16],
    /// How much it gets compared with others while many wait; at least 1.
    pub weight: u32,
    /// Most of its requests that wait.
    pub waiting_max: usize,
}

impl Tenant {
    /// A tenant like any other.
    pub fn new(id: [u8; 16]) -> Tenant {
        Tenant { id, weight: 1, waiting_max: 128 }
    }

    pub(super) fn namespace(&self) -> Namespace {
        let mut namespace = [0; 32];
        namespace[..16].copy_from_slice(&self.id);
        Namespace(namespace)
    }
}
