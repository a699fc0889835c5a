//! Speed of a model on this machine: prompts, decoding, batches, depth.

use std::time::Instant;

use crate::{BatchMode, BlockId, ForwardError, KV_BLOCK_TOKENS, LogitRows, Segment, Session};

/// What to measure, in the terms of llama.cpp's `llama-bench` and `llama-batched-bench`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InferTest {
    /// Tokens of the prompt of each sequence; timed where nothing is generated.
    pub prompt_tokens: usize,
    /// Tokens to generate for each sequence; timed where there are any.
    pub generate_tokens: usize,
    /// Sequences together.
    pub sequences: usize,
    /// Tokens in the cache before the clock starts, besides the prompt.
    pub depth: usize,
}

/// Runs one test and returns its seconds; the cache's former content is lost.
///
/// # Errors
/// When the session was planned for less.
pub fn infer_seconds(session: &mut Session, test: &InferTest) -> Result<f64, ForwardError> {
    let vocab_size = session.config().vocab_size;
    let token = |sequence: usize, position: usize| {
        // Any tokens do; these are spread over the embedding table.
        ((sequence * 7919 + position * 104_729 + 11) % vocab_size) as u32
    };
    let before = test.depth + if test.generate_tokens > 0 { test.prompt_tokens } else { 0 };
    let total = test.depth + test.prompt_tokens + test.generate_tokens;
    let blocks_each = total.div_ceil(KV_BLOCK_TOKENS);
    let tables: Vec<Vec<BlockId>> = (0..test.sequences)
        .map(|sequence| {
            (0..blocks_each).map(|i| BlockId((sequence * blocks_each + i) as u32)).collect()
        })
        .collect();
    let prefill = |session: &mut Session, range: std::ops::Range<usize>, logits| {
        let chunk = session.max_rows();
        for (sequence, blocks) in tables.iter().enumerate() {
            for start in range.clone().step_by(chunk) {
                let tokens: Vec<u32> = (start..range.end.min(start + chunk))
                    .map(|position| token(sequence, position))
                    .collect();
                let segment = Segment { tokens: &tokens, start, blocks, logits, adapter: None };
                session.forward(&[segment], BatchMode::Fast)?;
            }
        }
        Ok(())
    };
    prefill(session, 0..before, LogitRows::None)?;
    if test.generate_tokens == 0 {
        let clock = Instant::now();
        prefill(session, before..total, LogitRows::Last)?;
        return Ok(clock.elapsed().as_secs_f64());
    }
    let clock = Instant::now();
    for start in before..total {
        let tokens: Vec<[u32; 1]> =
            (0..test.sequences).map(|sequence| [token(sequence, start)]).collect();
        let segments: Vec<Segment<'_>> = tokens
            .iter()
            .zip(&tables)
            .map(|(tokens, blocks)| Segment {
                tokens,
                start,
                blocks,
                logits: LogitRows::Last,
                adapter: None,
            })
            .collect();
        session.forward(&segments, BatchMode::Fast)?;
    }
    Ok(clock.elapsed().as_secs_f64())
}

impl InferTest {
    /// Tokens that the timed part handles.
    pub fn timed_tokens(&self) -> usize {
        let each = if self.generate_tokens > 0 { self.generate_tokens } else { self.prompt_tokens };
        each * self.sequences
    }

    /// Blocks of KV cache that the test needs.
    pub fn num_blocks(&self) -> usize {
        let each = self.depth + self.prompt_tokens + self.generate_tokens;
        each.div_ceil(KV_BLOCK_TOKENS) * self.sequences
    }
}
