//! Tokens of several documents in one row, which see only their own document.

/// One packed row of documents.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// The tokens of all documents, one document after the other.
    pub tokens: &'a [u32],
    /// Length of each document; together as many as there are tokens.
    pub documents: &'a [usize],
}

/// Why a batch cannot be trained on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum BatchError {
    #[error("the documents have {found} tokens together, the batch has {expected}")]
    Lengths { found: usize, expected: usize },
    #[error("{found} coefficients for {expected} tokens")]
    Coefficients { found: usize, expected: usize },
    #[error("{found} tokens in a batch, planned for {expected}")]
    TooLong { found: usize, expected: usize },
    #[error("token {index} is {found}, the vocabulary has {vocab_size}")]
    Token { index: usize, found: u32, vocab_size: usize },
    #[error("document {index} has {found} tokens, the model's context is {expected}")]
    Document { index: usize, found: usize, expected: usize },
}

impl Batch<'_> {
    /// Checks lengths and tokens.
    ///
    /// # Errors
    /// Naming what does not fit.
    pub fn check(&self, max_tokens: usize, config: &crate::ModelConfig) -> Result<(), BatchError> {
        let expected = self.tokens.len();
        let found = self.documents.iter().fold(0, |sum: usize, &len| sum.saturating_add(len));
        if found != expected {
            return Err(BatchError::Lengths { found, expected });
        }
        if expected > max_tokens {
            return Err(BatchError::TooLong { found: expected, expected: max_tokens });
        }
        let vocab_size = config.vocab_size;
        if let Some(index) = self.tokens.iter().position(|&token| token as usize >= vocab_size) {
            return Err(BatchError::Token { index, found: self.tokens[index], vocab_size });
        }
        let expected = config.context_length;
        match self.documents.iter().position(|&len| len > expected) {
            Some(index) => {
                Err(BatchError::Document { index, found: self.documents[index], expected })
            }
            None => Ok(()),
        }
    }

    /// For each token, the one it predicts: the next of its document, if there is one.
    pub fn targets(&self) -> impl Iterator<Item = Option<u32>> {
        let mut start = 0;
        self.documents.iter().flat_map(move |&len| {
            let document = &self.tokens[start..start + len];
            start += len;
            let next = document.iter().skip(1).map(|&token| Some(token));
            next.chain(std::iter::once(None)).take(len)
        })
    }
}
