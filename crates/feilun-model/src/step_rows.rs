//! The rows of one step: which sequence, position and logits each token has, checked.

use feilun_kernels::attention::AttentionSegment;

use crate::{
    BlockId, ForwardError, KV_BLOCK_TOKENS, LogitRows, ModelConfig, Segment, SessionOptions,
};

/// The tokens of all segments in order, and the block table of each segment.
#[derive(Debug, Default)]
pub(crate) struct StepRows {
    positions: Vec<u32>,
    /// Per segment: rows, first position, and where its block table begins and ends in `blocks`.
    segments: Vec<(usize, usize, std::ops::Range<usize>)>,
    blocks: Vec<u32>,
    logit_rows: Vec<usize>,
    written: Vec<u32>,
}

impl StepRows {
    /// Takes the segments, or says what is wrong with them.
    pub(crate) fn plan(
        &mut self,
        config: &ModelConfig,
        options: &SessionOptions,
        segments: &[Segment<'_>],
    ) -> Result<(), ForwardError> {
        self.positions.clear();
        self.segments.clear();
        self.blocks.clear();
        self.logit_rows.clear();
        self.written.clear();
        let found = segments.iter().map(|segment| segment.tokens.len()).sum();
        if found > options.max_rows {
            return Err(ForwardError::TooManyRows { found, max: options.max_rows });
        }
        for (index, segment) in segments.iter().enumerate() {
            self.add(config, options, index, segment)?;
        }
        if self.logit_rows.len() > options.max_logit_rows {
            return Err(ForwardError::TooManyLogitRows {
                found: self.logit_rows.len(),
                max: options.max_logit_rows,
            });
        }
        // A block that two segments write would hold a mixture of both.
        self.written.sort_unstable();
        match self.written.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(ForwardError::BlockShared { block: pair[0] }),
            None => Ok(()),
        }
    }

    fn add(
        &mut self,
        config: &ModelConfig,
        options: &SessionOptions,
        index: usize,
        segment: &Segment<'_>,
    ) -> Result<(), ForwardError> {
        let count = segment.tokens.len();
        if count == 0 {
            return Err(ForwardError::EmptySegment { segment: index });
        }
        let vocab_size = config.vocab_size;
        if let Some(&token) = segment.tokens.iter().find(|&&token| token as usize >= vocab_size) {
            return Err(ForwardError::TokenOutOfRange { token, vocab_size });
        }
        let blocks = segment.blocks.len();
        let positions = segment.start.saturating_add(count);
        if positions > blocks.saturating_mul(KV_BLOCK_TOKENS) || u32::try_from(positions).is_err() {
            return Err(ForwardError::BlocksTooFew { segment: index, blocks, positions });
        }
        let num_blocks = options.num_blocks;
        if let Some(&BlockId(block)) =
            segment.blocks.iter().find(|block| block.0 as usize >= num_blocks)
        {
            return Err(ForwardError::BlockOutOfRange { block, num_blocks });
        }
        if let Some(adapter) = segment.adapter {
            adapter
                .check_fits(config)
                .map_err(|error| ForwardError::AdapterMismatch { reason: error.to_string() })?;
        }
        let first_row = self.positions.len();
        self.positions.extend((segment.start..positions).map(|position| position as u32));
        let first_block = self.blocks.len();
        self.blocks.extend(segment.blocks.iter().map(|block| block.0));
        self.segments.push((count, segment.start, first_block..self.blocks.len()));
        let written = segment.start / KV_BLOCK_TOKENS..positions.div_ceil(KV_BLOCK_TOKENS);
        self.written.extend(segment.blocks[written].iter().map(|block| block.0));
        match segment.logits {
            LogitRows::None => {}
            LogitRows::Last => self.logit_rows.push(first_row + count - 1),
            LogitRows::All => self.logit_rows.extend(first_row..first_row + count),
        }
        Ok(())
    }

    /// Number of rows.
    pub(crate) fn len(&self) -> usize {
        self.positions.len()
    }

    /// Position of each row in its sequence.
    pub(crate) fn positions(&self) -> &[u32] {
        &self.positions
    }

    /// One more than the highest position.
    pub(crate) fn num_positions(&self) -> usize {
        self.positions.iter().max().map_or(0, |&position| position as usize + 1)
    }

    /// The segments as attention takes them.
    pub(crate) fn segments(&self) -> impl Iterator<Item = AttentionSegment<'_>> {
        self.segments.iter().map(|(num_rows, start, table)| AttentionSegment {
            num_rows: *num_rows,
            start: *start,
            blocks: &self.blocks[table.clone()],
        })
    }

    /// The rows whose logits are wanted.
    pub(crate) fn logit_rows(&self) -> &[usize] {
        &self.logit_rows
    }
}
