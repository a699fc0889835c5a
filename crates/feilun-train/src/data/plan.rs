//! The plan of a run: which rows each step is given, and what becomes of each token.

use super::epochs::Epochs;
use super::error::DataError;
use super::example_rows::{ExampleRows, part_name};
use super::examples::Examples;
use super::ledger::Ledger;
use super::row::PackedRow;
use super::shard::Shard;
use super::shard_rows::ShardRows;

/// Far above any model's context; sums of a few lengths still fit 32 bits.
const ROW_TOKENS_MAX: usize = 1 << 24;

/// What to do with an example that is longer than a row, or than the model's context.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LongExamples {
    /// Refuse the data, and say how many there are.
    #[default]
    Refuse,
    /// Train on its beginning, unless nothing to learn is left of it.
    Crop,
    /// Do without it.
    Drop,
}

/// How data become steps.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanOptions {
    /// Chooses the order.
    pub seed: u64,
    /// The most tokens in a row. Both documents of a preference pair share one.
    pub row_tokens: usize,
    /// The most tokens in a document: the model's context, or less.
    pub document_tokens_max: usize,
    /// The tokens of a step, in full rows; at least one row.
    pub tokens_per_step: usize,
    /// What to do with examples that do not fit.
    pub long_examples: LongExamples,
    /// The share of examples that is kept back to measure on, 0 for none. Chosen by a hash of the
    /// prompt (of the whole document in a shard), so equal ones stay together, and the choice
    /// depends on nothing else.
    pub held_out: f64,
    /// The most rows to measure on.
    pub held_out_rows_max: usize,
}

impl PlanOptions {
    /// Rows and documents of `row_tokens`, four rows a step, nothing held out.
    pub fn new(row_tokens: usize) -> PlanOptions {
        PlanOptions {
            seed: 0,
            row_tokens,
            document_tokens_max: row_tokens,
            tokens_per_step: row_tokens.saturating_mul(4),
            long_examples: LongExamples::Refuse,
            held_out: 0.0,
            held_out_rows_max: 64,
        }
    }

    fn check(&self) -> Result<(), DataError> {
        let setting = |name, found: &dyn ToString, expected| {
            Err(DataError::Setting { name, found: found.to_string(), expected })
        };
        if !(2..=ROW_TOKENS_MAX).contains(&self.row_tokens) {
            return setting("the length of rows", &self.row_tokens, "2 to 16777216 tokens");
        }
        if self.document_tokens_max < 2 {
            let found = &self.document_tokens_max;
            return setting("the length of documents", found, "at least 2 tokens");
        }
        if self.tokens_per_step == 0 {
            return setting("the number of tokens in a step", &0, "at least 1");
        }
        if !(0.0..1.0).contains(&self.held_out) {
            return setting("the held-out share", &self.held_out, "at least 0 and below 1");
        }
        Ok(())
    }

    /// Whether something with this hash is kept back.
    pub(crate) fn is_held_out(&self, hash: u64) -> bool {
        (hash as f64) < self.held_out * 2.0_f64.powi(64)
    }
}

/// Which rows each step is given: a pure function of the data, the options and the step.
///
/// Passes over the data follow each other without a gap, each in an order of its own, so a step
/// may have rows of two. Every step has the same number of rows.
#[derive(Debug)]
pub struct Plan {
    rows: Rows,
    options: PlanOptions,
    digest: blake3::Hash,
    held_out: Vec<PackedRow>,
    held_out_bytes: Option<u64>,
}

#[derive(Debug)]
enum Rows {
    Examples(Box<Epochs<ExampleRows>>),
    Shards(Box<Epochs<ShardRows>>),
}

impl Plan {
    /// Whole examples, several in a row.
    ///
    /// # Errors
    /// If an example is too long and that is not allowed, or nothing is left to train on.
    pub fn of_examples(examples: Examples, options: PlanOptions) -> Result<Plan, DataError> {
        options.check()?;
        let digest = examples.digest();
        let source = ExampleRows::new(examples, options)?;
        let mut held_out = source.held_out()?;
        held_out.extend(source.mismatched(&held_out)?);
        let rows = Rows::Examples(Box::new(Epochs::new(source, options.seed)));
        let digest = digest_of(digest, &options);
        Ok(Plan { rows, options, digest, held_out, held_out_bytes: None })
    }

    /// Documents of token shards, one after the other, split where a row ends.
    ///
    /// # Errors
    /// If nothing is left to train on.
    pub fn of_shards(shards: Vec<Shard>, options: PlanOptions) -> Result<Plan, DataError> {
        options.check()?;
        let source = ShardRows::new(shards, options)?;
        let digest = source.digest();
        let held_out = source.held_out()?;
        let rows = Rows::Shards(Box::new(Epochs::new(source, options.seed)));
        let digest = digest_of(digest, &options);
        Ok(Plan { rows, options, digest, held_out, held_out_bytes: None })
    }

    /// The rows of a step, counted from 0, ready to be computed. For KTO, rows of
    /// [`Part::Mismatched`](super::Part::Mismatched) documents follow those that are learned.
    ///
    /// # Errors
    /// If the files have changed since they were opened.
    pub fn rows(&self, step: u64) -> Result<Vec<PackedRow>, DataError> {
        let num_rows = self.rows_per_step();
        let places = step * num_rows..(step + 1) * num_rows;
        match &self.rows {
            Rows::Examples(epochs) => {
                let mut rows: Vec<_> =
                    places.map(|place| epochs.row(place)).collect::<Result<_, _>>()?;
                let mismatched = epochs.source.mismatched(&rows)?;
                rows.extend(mismatched);
                Ok(rows)
            }
            Rows::Shards(epochs) => places.map(|place| epochs.row(place)).collect(),
        }
    }

    /// How many rows are learned in a step.
    pub fn rows_per_step(&self) -> u64 {
        self.options.tokens_per_step.div_ceil(self.options.row_tokens) as u64
    }

    /// How many rows the first passes over the data have.
    pub fn num_rows(&self, num_epochs: u64) -> u64 {
        match &self.rows {
            Rows::Examples(epochs) => epochs.num_rows(num_epochs),
            Rows::Shards(epochs) => epochs.num_rows(num_epochs),
        }
    }

    /// How many steps it takes to see everything so many times. The last step may begin the next
    /// pass.
    pub fn num_steps(&self, num_epochs: u64) -> u64 {
        self.num_rows(num_epochs).div_ceil(self.rows_per_step())
    }

    /// The pass, counted from 0, in which a step begins.
    pub fn epoch(&self, step: u64) -> u64 {
        let place = step * self.rows_per_step();
        match &self.rows {
            Rows::Examples(epochs) => epochs.epoch_of(place).0,
            Rows::Shards(epochs) => epochs.epoch_of(place).0,
        }
    }

    /// Rows to measure on, never trained.
    pub fn held_out(&self) -> &[PackedRow] {
        &self.held_out
    }

    /// Counts the bytes of the held-out text, so that a loss can be told in bits per byte. Tokens
    /// that stand for no text, such as the end of a document, have none; their loss counts.
    pub fn count_bytes(&mut self, bytes_of: impl Fn(u32) -> usize) {
        let bytes_of_row = |row: &PackedRow| -> usize {
            let learned = row.tokens.iter().zip(&row.learn).filter(|&(_, &learn)| learn);
            learned.map(|(&token, _)| bytes_of(token)).sum()
        };
        let sum: usize = self.held_out.iter().map(bytes_of_row).sum();
        self.held_out_bytes = Some(sum as u64).filter(|&bytes| bytes > 0);
    }

    /// What [`Plan::count_bytes`] found.
    pub fn held_out_bytes(&self) -> Option<u64> {
        self.held_out_bytes
    }

    /// What becomes of each token in one pass.
    pub fn ledger(&self) -> &Ledger {
        match &self.rows {
            Rows::Examples(epochs) => &epochs.source.ledger,
            Rows::Shards(epochs) => &epochs.source.ledger,
        }
    }

    /// The examples, if that is what is trained on.
    pub fn examples(&self) -> Option<&Examples> {
        match &self.rows {
            Rows::Examples(epochs) => Some(&epochs.source.examples),
            Rows::Shards(_) => None,
        }
    }

    /// How it was made.
    pub fn options(&self) -> &PlanOptions {
        &self.options
    }

    /// Names the data and their order: two plans with one digest have the same rows.
    pub fn digest(&self) -> blake3::Hash {
        self.digest
    }

    /// Names the examples of a row, for messages.
    pub fn describe(&self, row: &PackedRow) -> String {
        let name = |(origin, _): (super::Origin, _)| match &self.rows {
            Rows::Shards(epochs) => epochs.source.describe(origin.example),
            Rows::Examples(epochs) => {
                let (path, line) = epochs.source.examples.location(origin.example);
                format!("{} line {line}{}", path.display(), part_name(origin.part))
            }
        };
        row.sequences().map(name).collect::<Vec<_>>().join(", ")
    }
}

fn digest_of(data: blake3::Hash, options: &PlanOptions) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"feilun plan 1");
    hasher.update(data.as_bytes());
    hasher.update(format!("{options:?}").as_bytes());
    hasher.finalize()
}
