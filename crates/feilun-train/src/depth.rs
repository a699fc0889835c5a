//! The one dial of pretraining: from a depth follow the model's shape, how long it is trained,
//! and how. This file is the place of the rules and their sources.
//!
//! | what | rule | source |
//! |---|---|---|
//! | layers | the depth | |
//! | width | 64 a layer, in heads of 64 | nanochat's aspect ratio |
//! | MLP | 8/3 of the width, to a multiple of 64 | SwiGLU with the parameters of 4 x (Shazeer 2020) |
//! | context | 128 tokens a layer, 256 to 2,048 | twice the width, so that attention has the same share of the work at each depth |
//! | tokens | 10.5 for each parameter of matrices and head | nanochat's fit on its own runs; more is spent on a larger model instead |
//! | | at most 4 passes over the data | later ones teach little (Muennighoff et al. 2023) |
//! | batch | 0.2920 C^0.3271 tokens, to a power of two | DeepSeek LLM 2024, with C as there: 6 x parameters of matrices x tokens, and attention |
//! | learning rate | 0.3118 C^-0.1250, at most 5e-3 | the same. It was fitted from 1e17 FLOPs on, and small runs have less: hence the limit |
//! | warm-up | 3 % of the steps, at least 10 | |
//! | then | half a cosine to a tenth | Hoffmann et al. 2022 |
//! | Muon | 0.2 sqrt(width) times AdamW's rate | updates of the same size, so that its rate and decay hold (Liu et al. 2025) |
//!
//! The decoder is a Llama with tied embeddings: every other program can run it.

use feilun_model::ModelConfig;
use feilun_model::config::{Activation, Architecture, LayerConfig, RopeConfig, RopeScaling};
use serde::{Deserialize, Serialize};

/// The deepest model that the dial makes: 1.7 thousand million parameters, more than a machine
/// without accelerators trains in a month.
pub const MAX_DEPTH: usize = 32;
/// Passes over the data after which more tokens are of little use.
pub const MAX_PASSES: u64 = 4;

const WIDTH_PER_LAYER: usize = 64;
const HEAD_DIM: usize = 64;
const CONTEXT_PER_LAYER: usize = 128;
const TOKENS_PER_PARAMETER: f64 = 10.5;
const MAX_LEARNING_RATE: f64 = 5e-3;
/// Tokens that are computed together. Shorter contexts share a row.
const ROW_TOKENS: usize = 2048;

/// A decoder of some depth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// Layers.
    pub depth: usize,
    /// Width of the residual stream.
    pub width: usize,
    /// Width of the MLP.
    pub intermediate: usize,
    /// Longest sequence, in tokens.
    pub context: usize,
    /// Rows of the embedding.
    pub vocab_size: usize,
}

/// How a shape is trained.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recipe {
    /// Tokens of the whole run.
    pub tokens: u64,
    /// Tokens of a step.
    pub batch_tokens: usize,
    /// The highest learning rate of AdamW.
    pub learning_rate: f64,
}

impl Shape {
    /// The shape that a depth stands for.
    ///
    /// ```
    /// let shape = feilun_train::depth::Shape::of_depth(4, 49_152);
    /// assert_eq!((shape.width, shape.intermediate, shape.context), (256, 704, 512));
    /// assert_eq!(shape.num_parameters(), 15_796_480);
    /// ```
    pub fn of_depth(depth: usize, vocab_size: usize) -> Shape {
        let width = WIDTH_PER_LAYER * depth;
        Shape {
            depth,
            width,
            intermediate: (8 * width).div_ceil(3).next_multiple_of(64),
            context: (CONTEXT_PER_LAYER * depth).clamp(256, 2048),
            vocab_size,
        }
    }

    /// The configuration of the model.
    pub fn config(&self) -> ModelConfig {
        let rope = RopeConfig { theta: 10_000.0, scaling: RopeScaling::Plain };
        ModelConfig {
            architecture: Architecture::Llama,
            hidden_size: self.width,
            intermediate_size: self.intermediate,
            num_heads: self.width / HEAD_DIM,
            num_kv_heads: self.width / HEAD_DIM,
            head_dim: HEAD_DIM,
            vocab_size: self.vocab_size,
            context_length: self.context,
            norm_eps: 1e-5,
            activation: Activation::Silu,
            qk_norm: false,
            qkv_bias: false,
            output_bias: false,
            mlp_bias: false,
            post_norms: false,
            embedding_scale: 1.0,
            attention_scale: (HEAD_DIM as f32).sqrt().recip(),
            logit_softcap: None,
            tied_embeddings: true,
            layers: vec![LayerConfig { window: None, rope }; self.depth],
        }
    }

    /// All parameters: matrices, norms, and the embedding, which is also the head.
    pub fn num_parameters(&self) -> u64 {
        let norms = (2 * self.depth + 1) * self.width;
        self.matrix_parameters() + self.head_parameters() + norms as u64
    }

    fn matrix_parameters(&self) -> u64 {
        let layer = 4 * self.width * self.width + 3 * self.width * self.intermediate;
        (self.depth * layer) as u64
    }

    fn head_parameters(&self) -> u64 {
        (self.vocab_size * self.width) as u64
    }

    /// Work of training on one token: two operations for each parameter that it meets, and twice
    /// as many backward. A token sees half the context.
    pub fn flops_per_token(&self) -> f64 {
        let attention = self.depth * self.width * self.context;
        6.0 * (self.matrix_parameters() + self.head_parameters() + attention as u64) as f64
    }

    /// Work as DeepSeek counts it: without the head, and attention without its mask.
    fn body_flops_per_token(&self) -> f64 {
        let attention = 12 * self.depth * self.width * self.context;
        6.0 * self.matrix_parameters() as f64 + attention as f64
    }

    /// How long to train: what the shape can use, or what the data have to give.
    pub fn tokens(&self, data_tokens: u64) -> u64 {
        let parameters = (self.matrix_parameters() + self.head_parameters()) as f64;
        let useful = (TOKENS_PER_PARAMETER * parameters) as u64;
        useful.min(data_tokens.saturating_mul(MAX_PASSES)).max(1)
    }

    /// How to train on so many tokens.
    pub fn recipe(&self, tokens: u64) -> Recipe {
        let work = self.body_flops_per_token() * tokens.max(1) as f64;
        let batch = 0.2920 * work.powf(0.3271);
        let batch_tokens = 1 << batch.log2().round().clamp(8.0, 22.0) as u32;
        let learning_rate = (0.3118 * work.powf(-0.125)).min(MAX_LEARNING_RATE);
        // Two digits are what the rule is worth, and people read them.
        let learning_rate = format!("{learning_rate:.1e}").parse().unwrap_or(learning_rate);
        Recipe { tokens, batch_tokens, learning_rate }
    }

    /// The tokens of a row: as many contexts as make a matrix product worth its while, and no
    /// more than a batch.
    pub fn row_tokens(&self, batch_tokens: usize) -> usize {
        let together = ROW_TOKENS.min(batch_tokens) / self.context;
        self.context * together.max(1)
    }
}

/// The deepest shape that has its tokens within a time, on a machine of this speed; at least one
/// layer.
pub fn deepest(vocab_size: usize, data_tokens: u64, seconds: f64, flops_per_second: f64) -> usize {
    let fits = |&depth: &usize| {
        let shape = Shape::of_depth(depth, vocab_size);
        let work = shape.flops_per_token() * shape.tokens(data_tokens) as f64;
        work <= seconds * flops_per_second
    };
    (1..=MAX_DEPTH).take_while(fits).last().unwrap_or(1)
}

/// Muon's learning rate over AdamW's, for matrices of this width.
pub fn muon_rate(width: usize) -> f64 {
    0.2 * (width as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_depth_makes_a_model_that_can_be_written_and_opened() {
        use feilun_kernels::BlockType;
        use feilun_model::SpecialTokens;
        use feilun_model::save::config_json;
        for depth in 1..=MAX_DEPTH {
            let shape = Shape::of_depth(depth, 49_152);
            config_json(&shape.config(), &SpecialTokens::default(), BlockType::Bf16).unwrap();
            assert!(shape.row_tokens(1 << 16).is_multiple_of(shape.context));
        }
    }

    #[test]
    fn parameters_are_those_of_the_model() {
        use feilun_kernels::gemm::Precision;
        use feilun_kernels::{Isa, Pool};
        use feilun_model::train::{Method, Trainee, TraineeOptions};
        let shape = Shape { vocab_size: 100, ..Shape::of_depth(3, 100) };
        let options = TraineeOptions {
            method: Method::Full,
            precision: Precision::F32,
            isa: Isa::Portable,
            max_tokens: 8,
            recompute_mlp: false,
        };
        let pool = Pool::new(1).unwrap();
        let trainee = Trainee::plan(&shape.config(), None, pool, &options).unwrap();
        assert_eq!(trainee.values().len() as u64, shape.num_parameters());
    }

    #[test]
    fn tokens_follow_the_parameters_until_the_data_give_no_more() {
        let shape = Shape::of_depth(4, 49_152);
        let plenty = shape.tokens(u64::MAX);
        assert!((1.6e8..1.7e8).contains(&(plenty as f64)), "{plenty}");
        assert_eq!(shape.tokens(5_000_000), 20_000_000);
        assert_eq!(shape.tokens(0), 1);
    }

    #[test]
    fn larger_runs_have_larger_batches_and_lower_rates() {
        let small = Shape::of_depth(4, 49_152).recipe(20_000_000);
        assert_eq!((small.batch_tokens, small.learning_rate), (16_384, 0.0045));
        let large = Shape::of_depth(12, 49_152).recipe(1_300_000_000);
        assert!(large.batch_tokens > 4 * small.batch_tokens, "{large:?}");
        assert!(large.learning_rate < 0.5 * small.learning_rate, "{large:?}");
        let tiny = Shape::of_depth(1, 300).recipe(1000);
        assert_eq!(tiny.learning_rate, MAX_LEARNING_RATE);
    }

    #[test]
    fn more_time_makes_deeper_models() {
        let depth = |hours: f64| deepest(49_152, 1 << 40, hours * 3600.0, 3e11);
        assert_eq!(depth(0.001), 1);
        let depths = [1.0, 10.0, 100.0].map(depth);
        assert!(depths.is_sorted() && depths[0] < depths[2] && depths[2] < MAX_DEPTH, "{depths:?}");
        let shape = Shape::of_depth(depths[1], 49_152);
        let seconds = shape.flops_per_token() * shape.tokens(1 << 40) as f64 / 3e11;
        assert!(seconds <= 36_000.0, "{seconds}");
    }
}
