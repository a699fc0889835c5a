//! A model that learns: its values, their gradients, and the pass that computes them.

use std::sync::Arc;

use feilun_kernels::gemm::Precision;
use feilun_kernels::memory::OutOfMemory;
use feilun_kernels::{AlignedBytes, Isa, Pool};

use super::batch::{Batch, BatchError};
use super::compute::Compute;
use super::head::Head;
use super::linear::{LoraScratch, Step};
use super::parameters::{Parameter, ParameterInfo, ParameterTable};
use super::pass::Pass;
use super::read::Weights;
use super::workspace::{Plan, Workspace};
use crate::rope_tables::RopeTables;
use crate::tensor_names::{Shape, needed};
use crate::weights::{read_matrix, read_vector};
use crate::{Adapter, LayerTensor, LoadError, Model, ModelConfig, ModelFiles, TensorRole};

/// What is trained of a model.
#[derive(Clone, Debug, PartialEq)]
pub enum Method {
    /// All of it, in f32.
    Full,
    /// Thin matrices beside the linear layers of a frozen base.
    Lora(LoraOptions),
}

/// A low-rank adapter: `y += alpha / rank * B (A x)`.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraOptions {
    /// Width of the bottleneck, at least 1.
    pub rank: usize,
    /// Numerator of the factor on the result.
    pub alpha: f32,
    /// The linear layers that get one.
    pub targets: Vec<LayerTensor>,
}

impl LoraOptions {
    /// The seven linear layers of a decoder's layer.
    pub const ALL_LINEAR: [LayerTensor; 7] = [
        LayerTensor::AttnQ,
        LayerTensor::AttnK,
        LayerTensor::AttnV,
        LayerTensor::AttnOutput,
        LayerTensor::MlpGate,
        LayerTensor::MlpUp,
        LayerTensor::MlpDown,
    ];
}

/// What a trainee is planned for.
#[derive(Clone, Debug)]
pub struct TraineeOptions {
    /// What is trained.
    pub method: Method,
    /// Rounding of the operands of matrix products, and of what is kept between the passes.
    pub precision: Precision,
    /// Instruction path.
    pub isa: Isa,
    /// Most tokens in one batch.
    pub max_tokens: usize,
    /// Compute the first half of each MLP again in the backward pass, instead of keeping it.
    pub recompute_mlp: bool,
}

/// Why a trainee could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TraineeError {
    /// The base cannot be read.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// An adapter of another shape.
    #[error(
        "layer {layer}, {tensor:?}: the adapter's rank is {found:?}, expected {expected:?} (None: no \
         matrix)"
    )]
    #[expect(missing_docs, reason = "the message says what its fields are")]
    Adapter { layer: usize, tensor: LayerTensor, found: Option<usize>, expected: Option<usize> },
    /// No memory.
    #[error(transparent)]
    Memory(#[from] OutOfMemory),
}

/// Why a step was not computed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The batch does not fit.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// No memory.
    #[error(transparent)]
    Memory(#[from] OutOfMemory),
}

/// What [`Trainee::flops`] counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PassFlops {
    /// In the layers.
    pub per_token: f64,
    /// In the head, which is computed for tokens that are learned.
    pub per_learned_token: f64,
}

/// The derivative of the loss with respect to the log-probability of each token.
pub enum Coefficients<'a> {
    /// Known beforehand, one per token; tokens with 0 are not computed.
    Known {
        /// The coefficients. Those of a document's first token are not used.
        values: &'a [f32],
        /// Share of the target's probability that is spread over the whole vocabulary.
        label_smoothing: f32,
    },
    /// A function of the log-probabilities.
    Of {
        /// The tokens whose log-probability it takes; the others are given as 0.
        learn: &'a [bool],
        /// `(log-probabilities, coefficients)`, one per token; the coefficients come as 0.
        of: &'a mut dyn FnMut(&[f32], &mut [f32]),
    },
}

/// A model with the gradients of what is trained of it, and all memory that a step needs.
#[derive(Debug)]
pub struct Trainee {
    config: ModelConfig,
    frozen: Option<Arc<Model>>,
    lora_scale: f32,
    table: ParameterTable,
    values: AlignedBytes,
    gradients: AlignedBytes,
    compute: Compute,
    lora: LoraScratch,
    space: Workspace,
    head: Head,
    ropes: RopeTables,
    max_tokens: usize,
    positions: Vec<usize>,
    logprobs: Vec<f32>,
}

impl Trainee {
    /// Reads a base model and plans the memory. An adapter's matrices are zero: see
    /// [`Trainee::initialize_adapter`].
    ///
    /// # Errors
    /// When the base cannot be read or memory is short.
    pub fn open(
        files: &ModelFiles,
        mut pool: Pool,
        options: &TraineeOptions,
    ) -> Result<Trainee, TraineeError> {
        let config = files.config();
        if let Method::Lora(_) = options.method {
            let model = Arc::new(Model::load(files, &mut pool)?);
            return Trainee::plan(config, Some(model), pool, options);
        }
        let mut trainee = Trainee::plan(config, None, pool, options)?;
        for tensor in needed(config) {
            let view = files.tensor(tensor.role).map_err(LoadError::from)?;
            let Some(range) = trainee.table.range(Parameter::Base(tensor.role)) else { continue };
            let values = &mut trainee.values.as_f32_mut()[range];
            match tensor.shape {
                Shape::Vector(_) => read_vector(&view, values)?,
                Shape::Matrix(..) => read_matrix(&view, &mut trainee.compute.pool, values)?,
            }
            files.advise_dont_need(tensor.role).map_err(LoadError::from)?;
        }
        Ok(trainee)
    }

    /// Plans for a model of this shape; all values are zero where they are trained.
    ///
    /// # Errors
    /// When memory is short.
    pub fn plan(
        config: &ModelConfig,
        frozen: Option<Arc<Model>>,
        pool: Pool,
        options: &TraineeOptions,
    ) -> Result<Trainee, TraineeError> {
        let (table, lora_scale) = match &options.method {
            Method::Full => (ParameterTable::full(config), 1.0),
            Method::Lora(lora) => {
                let table = ParameterTable::lora(config, lora.rank, &lora.targets);
                (table, lora.alpha / lora.rank.max(1) as f32)
            }
        };
        let max_tokens = options.max_tokens;
        let plan =
            Plan { max_tokens, precision: options.precision, keep_mlp: !options.recompute_mlp };
        let mut ropes = RopeTables::new(config);
        ropes.grow(max_tokens);
        let is_frozen = frozen.is_some();
        Ok(Trainee {
            config: config.clone(),
            frozen,
            lora_scale,
            values: AlignedBytes::zeroed(table.len() * 4)?,
            gradients: AlignedBytes::zeroed(table.len() * 4)?,
            table,
            compute: Compute::new(pool, options.isa, options.precision),
            lora: LoraScratch::default(),
            space: Workspace::new(config, plan)?,
            head: Head::new(config, max_tokens, is_frozen)?,
            ropes,
            max_tokens,
            positions: Vec::with_capacity(max_tokens),
            logprobs: Vec::with_capacity(max_tokens),
        })
    }

    /// Takes the values of an adapter.
    ///
    /// # Errors
    /// When it has another shape than the one that is trained.
    pub fn load_adapter(&mut self, adapter: &Adapter) -> Result<(), TraineeError> {
        for layer in 0..self.config.layers.len() {
            for tensor in LoraOptions::ALL_LINEAR {
                let ours = self.table.get(Parameter::LoraA(layer, tensor)).map(|a| a.shape[0]);
                let theirs = adapter.matrix(layer, tensor).map(|matrix| matrix.rank);
                if ours != theirs {
                    let (found, expected) = (theirs, ours);
                    return Err(TraineeError::Adapter { layer, tensor, found, expected });
                }
                let Some(matrix) = adapter.matrix(layer, tensor) else { continue };
                for (parameter, from) in [
                    (Parameter::LoraA(layer, tensor), &matrix.a),
                    (Parameter::LoraB(layer, tensor), &matrix.b),
                ] {
                    if let Some(range) = self.table.range(parameter) {
                        self.values.as_f32_mut()[range].copy_from_slice(from);
                    }
                }
            }
        }
        Ok(())
    }

    /// Shape and switches of the model.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// What is trained, in the order of the flat vectors.
    pub fn parameters(&self) -> &[ParameterInfo] {
        self.table.infos()
    }

    /// The values of all parameters.
    pub fn values(&self) -> &[f32] {
        self.values.as_f32()
    }

    /// The gradients of all parameters.
    pub fn gradients(&self) -> &[f32] {
        self.gradients.as_f32()
    }

    /// Each parameter with its values.
    pub(super) fn parameters_mut(&mut self) -> impl Iterator<Item = (&ParameterInfo, &mut [f32])> {
        let mut rest = self.values.as_f32_mut();
        self.table.infos().iter().map(move |info| {
            let (values, others) = std::mem::take(&mut rest).split_at_mut(info.range.len());
            rest = others;
            (info, values)
        })
    }

    /// Values and gradients, for an optimizer, with the threads to run it on.
    pub fn values_and_gradients_mut(&mut self) -> (&mut Pool, Isa, &mut [f32], &mut [f32]) {
        let Trainee { compute, values, gradients, .. } = self;
        (&mut compute.pool, compute.isa, values.as_f32_mut(), gradients.as_f32_mut())
    }

    /// Runs one batch forward and backward, and adds the gradients of the loss. Returns the
    /// log-probability of each token given its document before it; 0 for a document's first and
    /// for those that nobody asked for.
    ///
    /// # Errors
    /// When the batch does not fit the model or the plan, nothing was computed; when memory is
    /// short, gradients may be those of half a batch.
    pub fn accumulate(
        &mut self,
        batch: Batch<'_>,
        coefficients: Coefficients<'_>,
    ) -> Result<&[f32], StepError> {
        let expected = batch.tokens.len();
        let found = match &coefficients {
            Coefficients::Known { values, .. } => values.len(),
            Coefficients::Of { learn, .. } => learn.len(),
        };
        if found != expected {
            return Err(BatchError::Coefficients { found, expected }.into());
        }
        let mut pass = self.pass(batch, true)?;
        pass.forward()?;
        pass.backward(coefficients)?;
        Ok(&self.logprobs)
    }

    /// The log-probability of each token given its document before it; 0 for a document's first,
    /// and for those that are not marked in `learn`, where it is given.
    ///
    /// # Errors
    /// As [`Trainee::accumulate`].
    pub fn score(&mut self, batch: Batch<'_>, learn: Option<&[bool]>) -> Result<&[f32], StepError> {
        self.forward_only(batch, learn, true)
    }

    /// [`Trainee::score`] of the frozen base, without the adapter that is trained.
    ///
    /// # Errors
    /// As [`Trainee::accumulate`].
    pub fn score_base(
        &mut self,
        batch: Batch<'_>,
        learn: Option<&[bool]>,
    ) -> Result<&[f32], StepError> {
        self.forward_only(batch, learn, false)
    }

    fn forward_only(
        &mut self,
        batch: Batch<'_>,
        learn: Option<&[bool]>,
        is_adapted: bool,
    ) -> Result<&[f32], StepError> {
        let expected = batch.tokens.len();
        if let Some(found) = learn.map(<[bool]>::len).filter(|&found| found != expected) {
            return Err(BatchError::Coefficients { found, expected }.into());
        }
        let mut pass = self.pass(batch, is_adapted)?;
        pass.forward()?;
        pass.score(learn);
        Ok(&self.logprobs)
    }

    /// The rounding of matrix work.
    pub fn precision(&self) -> Precision {
        self.compute.precision
    }

    /// Work of the matrix products of a pass forward and backward; attention is not counted.
    pub fn flops(&self) -> PassFlops {
        // Forward, to the inputs and to the weights; a frozen matrix has no gradient.
        let per_weight = if self.frozen.is_some() { 4.0 } else { 6.0 };
        let weights = |role: TensorRole, shape: Shape| match (role, shape) {
            (TensorRole::Layer(..), Shape::Matrix(rows, cols)) => (rows * cols) as f64,
            _ => 0.0,
        };
        let needed = needed(&self.config);
        let layers: f64 = needed.iter().map(|tensor| weights(tensor.role, tensor.shape)).sum();
        let adapter = self.frozen.as_ref().map_or(0.0, |_| 6.0 * self.table.len() as f64);
        let head = (self.config.vocab_size * self.config.hidden_size) as f64;
        PassFlops { per_token: per_weight * layers + adapter, per_learned_token: per_weight * head }
    }

    /// Memory beside values and gradients: the frozen base, and what steps so far needed.
    pub fn other_bytes(&self) -> usize {
        let frozen = self.frozen.as_ref().map_or(0, |model| model.weight_bytes());
        frozen + self.space.bytes() + self.head.bytes() + self.compute.bytes()
    }

    /// Checks a batch, and hands out what it needs.
    fn pass<'t>(&'t mut self, batch: Batch<'t>, is_adapted: bool) -> Result<Pass<'t>, BatchError> {
        batch.check(self.max_tokens, &self.config)?;
        self.positions.clear();
        self.positions.extend(batch.documents.iter().flat_map(|&len| 0..len));
        self.logprobs.clear();
        self.logprobs.resize(batch.tokens.len(), 0.0);
        let weights = Weights {
            table: &self.table,
            values: self.values.as_f32(),
            frozen: self.frozen.as_deref(),
            lora_scale: self.lora_scale,
            is_adapted,
        };
        let gradients = self.gradients.as_f32_mut();
        Ok(Pass {
            config: &self.config,
            batch,
            step: Step { compute: &mut self.compute, weights, gradients, lora: &mut self.lora },
            space: &mut self.space,
            head: &mut self.head,
            ropes: &self.ropes,
            positions: &self.positions,
            logprobs: &mut self.logprobs,
        })
    }
}
