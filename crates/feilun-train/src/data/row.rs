//! A packed row: several documents behind each other, with what the model learns from them.

/// What a document is to its objective.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// Learned for itself: a text, or a conversation with a loss mask.
    Whole,
    /// A prompt with the answer that was preferred; its partner is in the same row.
    Chosen,
    /// The same prompt with the other answer.
    Rejected,
    /// A prompt with an answer that was liked.
    Desirable,
    /// A prompt with an answer that was not.
    Undesirable,
    /// A prompt with the answer to another one: measured for the reference point of KTO, never
    /// learned.
    Mismatched,
}

/// Where a document of a row comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// The index of its example, or of its document in a token shard, in the order of the files.
    pub example: usize,
    /// What it is.
    pub part: Part,
}

/// Documents behind each other, each of which sees only itself.
///
/// It is what a [`Batch`](feilun_model::train::Batch) borrows:
///
/// ```
/// use feilun_train::data::{Origin, PackedRow, Part};
///
/// let mut row = PackedRow::default();
/// let origin = Origin { example: 7, part: Part::Whole };
/// row.push(&[1, 2, 3], &[false, false, true], origin);
/// row.push(&[4, 5], &[true, true], origin);
/// assert_eq!(row.documents, [3, 2]);
/// assert_eq!(row.learn, [false, false, true, false, true]); // nothing comes before token 4
/// assert_eq!(row.num_learned(), 2);
/// let batch = row.batch();
/// assert_eq!(batch.tokens, [1, 2, 3, 4, 5]);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackedRow {
    /// The tokens of all documents.
    pub tokens: Vec<u32>,
    /// Length of each document, none of them 0; together as many as there are tokens.
    pub documents: Vec<usize>,
    /// One per token: whether its log-probability counts. Never for a document's first, which
    /// has none.
    pub learn: Vec<bool>,
    /// One per document.
    pub origins: Vec<Origin>,
}

impl PackedRow {
    /// Adds a document, unless it is empty.
    pub fn push(&mut self, tokens: &[u32], learn: &[bool], origin: Origin) {
        debug_assert_eq!(tokens.len(), learn.len());
        if tokens.is_empty() {
            return;
        }
        self.tokens.extend_from_slice(tokens);
        self.learn.push(false);
        self.learn.extend_from_slice(&learn[1..]);
        self.documents.push(tokens.len());
        self.origins.push(origin);
    }

    /// What the model takes.
    pub fn batch(&self) -> feilun_model::train::Batch<'_> {
        feilun_model::train::Batch { tokens: &self.tokens, documents: &self.documents }
    }

    /// Whether it only comes beside rows that are learned, for KTO's reference point.
    pub fn is_measured_only(&self) -> bool {
        self.origins.iter().all(|origin| origin.part == Part::Mismatched)
    }

    /// How many tokens are learned.
    pub fn num_learned(&self) -> usize {
        self.learn.iter().filter(|&&learn| learn).count()
    }

    /// Each document: where it comes from, and the range of its tokens.
    pub fn sequences(&self) -> impl Iterator<Item = (Origin, std::ops::Range<usize>)> {
        let mut start = 0;
        self.origins.iter().zip(&self.documents).map(move |(&origin, &len)| {
            start += len;
            (origin, start - len..start)
        })
    }

    /// The sum of the learned log-probabilities of each document: how likely its answer is.
    ///
    /// `log_probs` has one entry per token of the row.
    pub fn document_log_probs(&self, log_probs: &[f32]) -> Vec<f64> {
        debug_assert_eq!(log_probs.len(), self.tokens.len());
        let sum = |range: std::ops::Range<usize>| {
            let learned = range.filter(|&token| self.learn[token]);
            learned.map(|token| f64::from(log_probs[token])).sum()
        };
        self.sequences().map(|(_, range)| sum(range)).collect()
    }
}
