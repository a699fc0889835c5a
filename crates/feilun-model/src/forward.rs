//! The decoder: tokens of several sequences in, logits out.
//!
//! A [`Session`] is one model with its paged KV cache, its threads and all the memory that a
//! step needs. One forward pass serves every architecture; what differs is data in
//! [`ModelConfig`]. A step computes, for each layer,
//!
//! ```text
//! x += output(attend(rope(norm_q(q(h))), rope(norm_k(k(h))), v(h)))     h = norm(x)
//! x += down(act(gate(h)) * up(h))                                      h = norm(x)
//! ```
//!
//! with Gemma's further norms before each `+=`. Rows (tokens) never mix but in attention.
//!
//! Shapes: R = rows of the step, H = hidden size, Q and K = widths of q and of k, I = width of
//! the MLP. Everything is row-major f32 between the kernels.

use std::sync::{Arc, Mutex, PoisonError};

use feilun_kernels::attention::AttentionSegment;
use feilun_kernels::kv::{KvKind, KvLayout};
use feilun_kernels::matmul::{self, Epilogue, Job, Numerics};
use feilun_kernels::rows::{RowForms, RowTiles};
use feilun_kernels::{Isa, KernelTable, PackedMatrix, Pool, activation, norm};

use crate::config::Activation;
use crate::kv_cache::{KvCache, SessionError};
use crate::rope_tables::RopeTables;
use crate::step_rows::StepRows;
use crate::weights::{LayerWeights, Linear};
use crate::{
    BatchMode, ForwardError, KV_BLOCK_TOKENS, LayerTensor, Model, ModelConfig, Segment, adapt,
};

/// What a session is planned for.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// Instruction paths: one for everything, or a measured choice.
    pub kernels: KernelTable,
    /// How quantized weights are multiplied.
    pub numerics: Numerics,
    /// Most tokens in one step.
    pub max_rows: usize,
    /// Most rows of logits in one step.
    pub max_logit_rows: usize,
    /// Storage of keys and values.
    pub kv_kind: KvKind,
    /// Blocks in the KV cache, of [`KV_BLOCK_TOKENS`] tokens each.
    pub num_blocks: usize,
}

impl SessionOptions {
    /// The defaults for one user: the fastest path, 512 tokens a step, a whole context of cache.
    pub fn new(config: &ModelConfig) -> SessionOptions {
        SessionOptions {
            kernels: Isa::best().into(),
            numerics: Numerics::Native,
            max_rows: 512,
            max_logit_rows: 64,
            kv_kind: KvKind::Bf16,
            num_blocks: config.context_length.div_ceil(KV_BLOCK_TOKENS),
        }
    }

    /// Memory of a session beside the model's weights, once everything in it is in use: the KV
    /// cache exactly, the memory of a step nearly. `None` if it cannot be counted.
    pub fn memory_bytes(&self, config: &ModelConfig) -> Option<usize> {
        let layout = KvLayout::new(self.kv_kind, config.num_kv_heads, config.head_dim).ok()?;
        let cache = self.num_blocks.checked_mul(layout.block_bytes())?;
        let cache = cache.checked_mul(config.layers.len())?;
        let widest = config.hidden_size.max(config.q_size()).max(config.intermediate_size);
        // Three rows as wide as the model, two of queries, two of keys; the tiles hold the
        // widest row as f32 and as digits, which takes twice as much.
        let row = (3 * config.hidden_size + 2 * config.q_size() + 2 * config.kv_size())
            .checked_add(config.intermediate_size.checked_add(2 * widest)?)?;
        let rows = self.max_rows.checked_mul(row.checked_mul(4)?)?;
        let logits = self.max_logit_rows.checked_mul(config.vocab_size.checked_mul(4)?)?;
        cache.checked_add(rows)?.checked_add(logits)
    }
}

/// Threads that several sessions compute with, one step at a time: two models that each had
/// their own would fight for the cores.
pub type SharedPool = Arc<Mutex<Pool>>;

/// One model ready to run: its KV cache, planned memory and threads.
#[derive(Debug)]
pub struct Session {
    model: Arc<Model>,
    options: SessionOptions,
    pool: SharedPool,
    cache: KvCache,
    ropes: RopeTables,
    scratch: Scratch,
}

/// The memory of a step. Named by content; suffixes are shapes.
#[derive(Debug)]
struct Scratch {
    x_rh: Vec<f32>,
    q_rq: Vec<f32>,
    k_rk: Vec<f32>,
    v_rk: Vec<f32>,
    attended_rq: Vec<f32>,
    gated_ri: Vec<f32>,
    /// A block's result before its post-norm.
    block_rh: Vec<f32>,
    logits: Vec<f32>,
    tiles: RowTiles,
    rows: StepRows,
}

/// The results of a step, in the order of the segments and their tokens.
#[derive(Clone, Copy, Debug)]
pub struct Logits<'a> {
    values: &'a [f32],
    vocab_size: usize,
    /// The residual stream of all rows after the last layer.
    x_rh: &'a [f32],
    model: &'a Model,
    isa: Isa,
}

impl<'a> Logits<'a> {
    /// Number of rows.
    pub fn num_rows(&self) -> usize {
        self.values.len() / self.vocab_size
    }

    /// The logits of row `row`, one per token of the vocabulary.
    pub fn row(&self, row: usize) -> &'a [f32] {
        &self.values[row * self.vocab_size..][..self.vocab_size]
    }

    /// What the model makes of a token, before it becomes logits: the last layer's result for
    /// token `token` of the step (whether or not its logits were wanted), through the final norm.
    /// `hidden_h` is as wide as the model.
    pub fn hidden(&self, token: usize, hidden_h: &mut [f32]) {
        let config = self.model.config();
        let x_h = &self.x_rh[token * config.hidden_size..][..config.hidden_size];
        norm::rms_norm(self.isa, x_h, &self.model.output_norm, config.norm_eps, hidden_h);
    }
}

impl Session {
    /// Plans the memory of a session with threads of its own.
    ///
    /// # Errors
    /// When the memory is not there, or the model's heads are beyond the kernels.
    pub fn new(
        model: Arc<Model>,
        pool: Pool,
        options: SessionOptions,
    ) -> Result<Session, SessionError> {
        Session::sharing(model, Arc::new(Mutex::new(pool)), options)
    }

    /// Plans the memory of a session that takes turns with others on the same threads.
    ///
    /// # Errors
    /// As [`Session::new`].
    pub fn sharing(
        model: Arc<Model>,
        pool: SharedPool,
        options: SessionOptions,
    ) -> Result<Session, SessionError> {
        let config = model.config();
        let rows = options.max_rows;
        let widest = config.hidden_size.max(config.q_size()).max(config.intermediate_size);
        let scratch = Scratch {
            x_rh: vec![0.0; rows * config.hidden_size],
            q_rq: vec![0.0; rows * config.q_size()],
            k_rk: vec![0.0; rows * config.kv_size()],
            v_rk: vec![0.0; rows * config.kv_size()],
            attended_rq: vec![0.0; rows * config.q_size()],
            gated_ri: vec![0.0; rows * config.intermediate_size],
            block_rh: vec![0.0; if config.post_norms { rows * config.hidden_size } else { 0 }],
            logits: vec![0.0; options.max_logit_rows * config.vocab_size],
            tiles: RowTiles::new(rows, widest)?,
            rows: StepRows::default(),
        };
        let num_threads = pool.lock().unwrap_or_else(PoisonError::into_inner).num_threads();
        let cache = KvCache::new(config, options.kv_kind, options.num_blocks, rows, num_threads)?;
        let ropes = RopeTables::new(config);
        Ok(Session { model, options, pool, cache, ropes, scratch })
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Shape and switches of the model.
    pub fn config(&self) -> &ModelConfig {
        self.model.config()
    }

    /// What the session was planned for.
    pub fn options(&self) -> &SessionOptions {
        &self.options
    }

    /// Blocks in the KV cache.
    pub fn num_blocks(&self) -> usize {
        self.options.num_blocks
    }

    /// Most tokens in one step.
    pub fn max_rows(&self) -> usize {
        self.options.max_rows
    }

    /// Most rows of logits in one step.
    pub fn max_logit_rows(&self) -> usize {
        self.options.max_logit_rows
    }

    /// Memory of the KV cache when it is full.
    pub fn cache_bytes(&self) -> usize {
        self.cache.bytes()
    }

    /// Computes one step and returns the wanted logits.
    ///
    /// # Errors
    /// When the segments do not fit the model, the cache or the plan; nothing was computed then.
    pub fn forward(
        &mut self,
        segments: &[Segment<'_>],
        mode: BatchMode,
    ) -> Result<Logits<'_>, ForwardError> {
        // Every kernel of this session has one arithmetic for all numbers of rows, so there is
        // nothing to give up for exactness.
        let _ = mode;
        let vocab_size = self.config().vocab_size;
        self.scratch.rows.plan(self.model.config(), &self.options, segments)?;
        self.ropes.grow(self.scratch.rows.num_positions().next_multiple_of(256));
        self.cache.place(&self.scratch.rows);
        self.embed(segments);
        let pool = Arc::clone(&self.pool);
        // A pool survives a job that panicked, so its lock says nothing about it.
        let pool = &mut *pool.lock().unwrap_or_else(PoisonError::into_inner);
        for layer in 0..self.model.layers.len() {
            self.attention_block(pool, layer, segments);
            self.mlp_block(pool, layer, segments);
        }
        let num_rows = self.logits(pool);
        let values = &self.scratch.logits[..num_rows * vocab_size];
        let x_rh = &self.scratch.x_rh[..self.scratch.rows.len() * self.config().hidden_size];
        Ok(Logits { values, vocab_size, x_rh, model: &self.model, isa: self.options.kernels.isa() })
    }

    fn embed(&mut self, segments: &[Segment<'_>]) {
        let (model, hidden) = (&*self.model, self.model.config().hidden_size);
        let scale = model.config().embedding_scale;
        let tokens = segments.iter().flat_map(|segment| segment.tokens);
        for (x_h, &token) in self.scratch.x_rh.chunks_exact_mut(hidden).zip(tokens) {
            model.embedding.row(token as usize, x_h);
            if scale != 1.0 {
                activation::scale(self.options.kernels.isa(), x_h, scale);
            }
        }
    }

    fn attention_block(&mut self, pool: &mut Pool, layer: usize, segments: &[Segment<'_>]) {
        let Session { model, options, cache, ropes, scratch, .. } = self;
        let (isa, config, weights) = (options.kernels.isa(), model.config(), &model.layers[layer]);
        let num_rows = scratch.rows.len();
        let (hidden, q_size, kv_size) = (config.hidden_size, config.q_size(), config.kv_size());
        let (kernels, numerics) = (options.kernels, options.numerics);
        let mut linears = Linears { pool, kernels, numerics, segments, layer };

        let inputs = [&weights.q, &weights.k, &weights.v];
        let x_rh = &scratch.x_rh;
        linears.fill(&mut scratch.tiles, &inputs, num_rows, hidden, |row, out| {
            let x_h = &x_rh[row * hidden..][..hidden];
            norm::rms_norm(isa, x_h, &weights.attn_norm, config.norm_eps, out);
        });
        let q_rq = &mut scratch.q_rq[..num_rows * q_size];
        let k_rk = &mut scratch.k_rk[..num_rows * kv_size];
        let v_rk = &mut scratch.v_rk[..num_rows * kv_size];
        linears.multiply(
            &scratch.tiles,
            &mut [
                (&weights.q, LayerTensor::AttnQ, Epilogue::Store, &mut *q_rq),
                (&weights.k, LayerTensor::AttnK, Epilogue::Store, &mut *k_rk),
                (&weights.v, LayerTensor::AttnV, Epilogue::Store, v_rk),
            ],
        );

        let rope = ropes.of_layer(layer);
        let positions = scratch.rows.positions();
        let finish_heads = |heads: &mut [f32], norm_weight: &Option<Vec<f32>>, row: usize| {
            if let Some(weight) = norm_weight {
                for head in heads.chunks_exact_mut(config.head_dim) {
                    norm::rms_norm_in_place(isa, head, weight, config.norm_eps);
                }
            }
            rope.apply(isa, heads, positions[row] as usize);
        };
        for_each_row(linears.pool, q_rq, q_size, |row, q| finish_heads(q, &weights.q_norm, row));
        for_each_row(linears.pool, k_rk, kv_size, |row, k| finish_heads(k, &weights.k_norm, row));

        let out = &mut scratch.attended_rq[..num_rows * q_size];
        cache.write(linears.pool, isa, layer, k_rk, &scratch.v_rk);
        let rows: Vec<AttentionSegment<'_>> = scratch.rows.segments().collect();
        cache.attend(linears.pool, isa, layer, &rows, q_rq, out);

        let attended_rq = &scratch.attended_rq;
        linears.fill(&mut scratch.tiles, &[&weights.output], num_rows, q_size, |row, out| {
            out.copy_from_slice(&attended_rq[row * q_size..][..q_size]);
        });
        let linear = (&weights.output, LayerTensor::AttnOutput);
        add_block(&mut linears, scratch, config, linear, weights.post_attn_norm.as_deref());
    }

    fn mlp_block(&mut self, pool: &mut Pool, layer: usize, segments: &[Segment<'_>]) {
        let Session { model, options, scratch, .. } = self;
        let (isa, config, weights) = (options.kernels.isa(), model.config(), &model.layers[layer]);
        let num_rows = scratch.rows.len();
        let (hidden, intermediate) = (config.hidden_size, config.intermediate_size);
        let (kernels, numerics) = (options.kernels, options.numerics);
        let mut linears = Linears { pool, kernels, numerics, segments, layer };

        let x_rh = &scratch.x_rh;
        let inputs = [&weights.gate, &weights.up];
        linears.fill(&mut scratch.tiles, &inputs, num_rows, hidden, |row, out| {
            let x_h = &x_rh[row * hidden..][..hidden];
            norm::rms_norm(isa, x_h, &weights.mlp_norm, config.norm_eps, out);
        });
        let gated_ri = &mut scratch.gated_ri[..num_rows * intermediate];
        linears.multiply_gated(&scratch.tiles, weights, config.activation, gated_ri);
        let gated_ri = &scratch.gated_ri;
        linears.fill(&mut scratch.tiles, &[&weights.down], num_rows, intermediate, |row, out| {
            out.copy_from_slice(&gated_ri[row * intermediate..][..intermediate]);
        });
        let linear = (&weights.down, LayerTensor::MlpDown);
        add_block(&mut linears, scratch, config, linear, weights.post_mlp_norm.as_deref());
    }

    /// The logits of the wanted rows; returns their number.
    fn logits(&mut self, pool: &mut Pool) -> usize {
        let Session { model, options, scratch, .. } = self;
        let (isa, config) = (options.kernels.isa(), model.config());
        let wanted = scratch.rows.logit_rows();
        let hidden = config.hidden_size;
        if wanted.is_empty() {
            return 0;
        }
        let forms = options.numerics.forms(model.head());
        scratch.tiles.fill(pool, isa, forms, wanted.len(), hidden, |i, out| {
            let x_h = &scratch.x_rh[wanted[i] * hidden..][..hidden];
            norm::rms_norm(isa, x_h, &model.output_norm, config.norm_eps, out);
        });
        let out = &mut scratch.logits[..wanted.len() * config.vocab_size];
        let (weights, epilogue) = (model.head(), Epilogue::Store);
        let jobs = &mut [Job { weights, bias: None, epilogue, out: &mut *out }];
        matmul::multiply(pool, options.kernels, options.numerics, &scratch.tiles, jobs);
        if let Some(cap) = config.logit_softcap {
            activation::softcap(isa, out, cap);
        }
        wanted.len()
    }
}

/// Multiplies the tiles with a block's last matrix and adds the result to the residual stream,
/// through the block's post-norm where it has one.
fn add_block(
    linears: &mut Linears<'_>,
    scratch: &mut Scratch,
    config: &ModelConfig,
    (linear, tensor): (&Linear, LayerTensor),
    post_norm: Option<&[f32]>,
) {
    let (isa, hidden) = (linears.kernels.isa(), config.hidden_size);
    let x_rh = &mut scratch.x_rh[..scratch.rows.len() * hidden];
    let Some(weight) = post_norm else {
        return linears.multiply(&scratch.tiles, &mut [(linear, tensor, Epilogue::Add, x_rh)]);
    };
    let block_rh = &mut scratch.block_rh[..x_rh.len()];
    linears.multiply(&scratch.tiles, &mut [(linear, tensor, Epilogue::Store, block_rh)]);
    for_each_row(linears.pool, block_rh, hidden, |_, block_h| {
        norm::rms_norm_in_place(isa, block_h, weight, config.norm_eps);
    });
    let block_rh = &scratch.block_rh;
    for_each_row(linears.pool, x_rh, hidden, |row, x_h| {
        activation::add_assign(isa, x_h, &block_rh[row * hidden..][..hidden]);
    });
}

/// Calls `body(row, values)` for each row, in parallel when there are many.
fn for_each_row(
    pool: &mut Pool,
    values: &mut [f32],
    width: usize,
    body: impl Fn(usize, &mut [f32]) + Sync,
) {
    const FEW: usize = 8;
    if values.len() <= FEW * width {
        values.chunks_exact_mut(width).enumerate().for_each(|(row, values)| body(row, values));
    } else {
        pool.for_each_chunk(values, width, FEW, body);
    }
}

/// The linear layers of one layer: the base matrices and the adapters of the segments.
struct Linears<'a> {
    pool: &'a mut Pool,
    kernels: KernelTable,
    numerics: Numerics,
    segments: &'a [Segment<'a>],
    layer: usize,
}

impl Linears<'_> {
    /// Writes rows into the tiles in the forms that the matrices and adapters take.
    fn fill(
        &mut self,
        tiles: &mut RowTiles,
        linears: &[&Linear],
        num_rows: usize,
        cols: usize,
        row: impl Fn(usize, &mut [f32]) + Sync,
    ) {
        let adapted = self.segments.iter().any(|segment| segment.adapter.is_some());
        let mut forms = RowForms { float: adapted, quantized: false };
        for linear in linears {
            let wanted = self.numerics.forms(&linear.weights);
            forms.float |= wanted.float;
            forms.quantized |= wanted.quantized;
        }
        tiles.fill(self.pool, self.kernels.isa(), forms, num_rows, cols, row);
    }

    fn multiply(
        &mut self,
        tiles: &RowTiles,
        products: &mut [(&Linear, LayerTensor, Epilogue, &mut [f32])],
    ) {
        let mut jobs: Vec<Job<'_>> = products
            .iter_mut()
            .map(|(linear, _, epilogue, out)| Job {
                weights: &linear.weights,
                bias: linear.bias.as_deref(),
                epilogue: *epilogue,
                out,
            })
            .collect();
        matmul::multiply(self.pool, self.kernels, self.numerics, tiles, &mut jobs);
        for (_, tensor, _, out) in products {
            adapt::add_all(self.pool, tiles, self.segments, self.layer, *tensor, out);
        }
    }

    fn multiply_gated(
        &mut self,
        tiles: &RowTiles,
        weights: &LayerWeights,
        activation: Activation,
        out: &mut [f32],
    ) {
        let act = match activation {
            Activation::Silu => activation::silu_mul,
            Activation::GeluTanh => activation::gelu_tanh_mul,
        };
        let (gate, up) = (&weights.gate, &weights.up);
        let plain = gate.bias.is_none()
            && up.bias.is_none()
            && !adapt::touches(
                self.segments,
                self.layer,
                &[LayerTensor::MlpGate, LayerTensor::MlpUp],
            );
        if plain {
            let (gate, up): (&PackedMatrix, &PackedMatrix) = (&gate.weights, &up.weights);
            let (pool, kernels) = (&mut *self.pool, self.kernels);
            matmul::multiply_gated(pool, kernels, self.numerics, tiles, gate, up, act, out);
            return;
        }
        // What is added to gate and up must be there before the activation: two products, with
        // memory of their own, since adapters on the MLP are the rare case.
        let mut gates = vec![0.0; out.len()];
        let mut ups = vec![0.0; out.len()];
        self.multiply(
            tiles,
            &mut [
                (gate, LayerTensor::MlpGate, Epilogue::Store, &mut gates),
                (up, LayerTensor::MlpUp, Epilogue::Store, &mut ups),
            ],
        );
        act(self.kernels.isa(), &gates, &ups, out);
    }
}
