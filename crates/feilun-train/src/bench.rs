//! Speed of whole training steps: forward, backward, clipping, AdamW.

use std::time::Instant;

use feilun_model::train::{Batch, Coefficients, StepError, Trainee};

use crate::optimizer::{
    AdamWSettings, Optimizer, OptimizerSettings, UpdateStep, clip_scale, gradient_norm,
};

/// What is measured: steps on made-up tokens.
#[derive(Clone, Copy, Debug)]
pub struct TrainTest {
    /// Sequences of a step, all in one row.
    pub sequences: usize,
    /// Tokens of a sequence.
    pub tokens: usize,
    /// Steps, after one that warms up.
    pub steps: usize,
}

/// Times of single steps.
#[derive(Clone, Copy, Debug)]
pub struct StepSeconds {
    /// Everything.
    pub total: f64,
    /// Clipping and AdamW.
    pub optimizer: f64,
}

/// Trains for some steps, and measures each.
///
/// # Errors
/// When the trainee cannot take the batch, or the optimizer's state finds no memory.
pub fn train_seconds(
    trainee: &mut Trainee,
    test: TrainTest,
) -> Result<Vec<StepSeconds>, StepError> {
    let len = test.sequences * test.tokens;
    let vocab_size = trainee.config().vocab_size;
    // Any tokens do; these repeat late, and reach the whole vocabulary.
    let tokens: Vec<u32> = (0..len).map(|i| (i * 7919 % vocab_size.min(1 << 24)) as u32).collect();
    let documents = vec![test.tokens; test.sequences];
    let num_predicted = (len - test.sequences).max(1);
    let values = vec![-1.0 / num_predicted as f32; len];
    let settings = OptimizerSettings::AdamW(AdamWSettings::default());
    let mut optimizer = Optimizer::new(settings, trainee.parameters())?;
    let mut seconds = Vec::new();
    for step in 0..=test.steps {
        let start = Instant::now();
        let batch = Batch { tokens: &tokens, documents: &documents };
        trainee.accumulate(batch, Coefficients::Known { values: &values, label_smoothing: 0.0 })?;
        let computed = start.elapsed().as_secs_f64();
        let (pool, isa, values, gradients) = trainee.values_and_gradients_mut();
        let update = UpdateStep {
            learning_rate: 1e-5,
            gradient_scale: clip_scale(gradient_norm(pool, isa, gradients), 1.0),
            num_updates: step as u64 + 1,
        };
        optimizer.update(pool, isa, values, gradients, &update)?;
        let total = start.elapsed().as_secs_f64();
        if step > 0 {
            seconds.push(StepSeconds { total, optimizer: total - computed });
        }
    }
    Ok(seconds)
}
