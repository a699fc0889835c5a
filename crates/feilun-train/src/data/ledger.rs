//! The ledger: what becomes of each token of each source in one pass over the data.

/// What becomes of tokens. Every token is in exactly one of these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenCounts {
    /// Learned.
    pub trained: u64,
    /// Seen and not learned: prompts, other speakers, and the first token of a document, which
    /// nothing comes before.
    pub masked: u64,
    /// Cut off, because the document is longer than a row takes.
    pub cropped: u64,
    /// Of documents that are not used at all.
    pub dropped: u64,
    /// Kept back to measure on.
    pub held_out: u64,
}

impl TokenCounts {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.trained + self.masked + self.cropped + self.dropped + self.held_out
    }
}

impl std::ops::AddAssign for TokenCounts {
    fn add_assign(&mut self, other: TokenCounts) {
        self.trained += other.trained;
        self.masked += other.masked;
        self.cropped += other.cropped;
        self.dropped += other.dropped;
        self.held_out += other.held_out;
    }
}

/// What becomes of examples. Every example is in exactly one of these but the second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExampleCounts {
    /// Trained on, whole or in part.
    pub trained: u64,
    /// Those of them that are trained on in part.
    pub cropped: u64,
    /// Not used.
    pub dropped: u64,
    /// Kept back to measure on.
    pub held_out: u64,
    /// Lines that are no examples.
    pub bad_lines: u64,
}

/// One file of data.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceLedger {
    /// Its path, as it was given.
    pub source: String,
    /// BLAKE3 of its contents.
    pub digest: String,
    /// Tokens that it has, counted when it was read.
    pub num_tokens: u64,
    /// What becomes of them.
    pub tokens: TokenCounts,
    /// What becomes of its examples.
    pub examples: ExampleCounts,
}

/// All sources.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ledger {
    /// In the order in which they were given.
    pub sources: Vec<SourceLedger>,
}

/// A source whose sums do not agree.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("ledger: {found} tokens of `{name}` are accounted for, it has {expected}")]
pub struct LedgerError {
    /// The source.
    pub name: String,
    /// The sum over what became of its tokens.
    pub found: u64,
    /// How many it has.
    pub expected: u64,
}

impl Ledger {
    /// The sum over all sources.
    pub fn tokens(&self) -> TokenCounts {
        let mut sum = TokenCounts::default();
        self.sources.iter().for_each(|source| sum += source.tokens);
        sum
    }

    /// Whether every token of every source is accounted for.
    ///
    /// # Errors
    /// Naming the first source whose sums do not agree.
    pub fn check(&self) -> Result<(), LedgerError> {
        match self.sources.iter().find(|source| source.tokens.total() != source.num_tokens) {
            None => Ok(()),
            Some(source) => Err(LedgerError {
                name: source.source.clone(),
                found: source.tokens.total(),
                expected: source.num_tokens,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_token_is_found() {
        let tokens = TokenCounts { trained: 5, masked: 3, cropped: 2, dropped: 1, held_out: 4 };
        let source =
            SourceLedger { source: "a".into(), num_tokens: 15, tokens, ..SourceLedger::default() };
        let mut ledger = Ledger { sources: vec![source.clone(), source] };
        ledger.check().unwrap();
        assert_eq!(ledger.tokens().total(), 30);
        let text = serde_json::to_string(&ledger).unwrap();
        assert_eq!(serde_json::from_str::<Ledger>(&text).unwrap(), ledger);
        ledger.sources[1].tokens.cropped = 1;
        let error = ledger.check().unwrap_err();
        assert_eq!((error.found, error.expected), (14, 15));
    }
}
