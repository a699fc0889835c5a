//! What generation needs to know of a tokenizer.

/// Token ids, their bytes and their text.
pub trait Vocabulary: Send + Sync {
    /// Ids are below this.
    fn num_tokens(&self) -> usize;

    /// The tokens that end an answer: end of text, end of turn.
    fn end_tokens(&self) -> &[u32];

    /// The bytes that a token stands for in running text; `None` for control tokens and for ids
    /// that are not in use. A constraint can match only tokens that have bytes.
    fn token_bytes(&self, token: u32) -> Option<Vec<u8>>;

    /// The tokens that the tokenizer would make of text in the middle of a document. A
    /// constraint uses it to write text that it forces the way the model would; without it
    /// (`None`) every spelling is allowed.
    fn tokenize(&self, text: &str) -> Option<Vec<u32>>;

    /// A decoder for one stream of tokens.
    fn text_stream(&self) -> Box<dyn TextStream>;
}

/// Turns a stream of tokens into text, a piece at a time.
pub trait TextStream: Send {
    /// The characters that `token` completes; those it leaves unfinished are kept for later.
    fn push(&mut self, token: u32) -> String;

    /// What was kept when the stream ends, with � in place of broken characters.
    fn finish(&mut self) -> String;
}
