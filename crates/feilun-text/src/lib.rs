//! Text and tokens: tokenizers, streaming detokenization, chat templates, and one typed chat format.
//!
//! | module | in | out |
//! |---|---|---|
//! | [`tokenizer`] | text | token ids, and back |
//! | [`stream`] | token ids, one at a time | text, never half a character |
//! | [`template`] | messages as JSON, a model's Jinja template | the text that transformers renders |
//! | [`chat`] | a [`Conversation`] | prompts for serving, ids with a loss mask for training |
//!
//! The crate knows no models and no file formats but `tokenizer.json`: GGUF metadata come as
//! a plain struct, [`GgufVocab`]. It reads no clock and no environment.
//!
//! Everything here comes from model files or from users, and neither is trusted: every length,
//! depth and amount of work has a bound, and what users write cannot become a control token.

pub mod chat;
pub mod stream;
pub mod template;
pub mod tokenizer;

pub use chat::{
    ChatError, ChatFormat, ChatOptions, ChatTokens, Conversation, Message, Role, ToolCall,
};
pub use stream::{StreamDecoder, Utf8Stream};
pub use template::{ChatTemplate, Moment, RenderInput, TemplateError};
pub use tokenizer::{
    EncodeOptions, GgufTexts, GgufVocab, Part, TokenKind, Tokenizer, TokenizerError, TokenizerFiles,
};
