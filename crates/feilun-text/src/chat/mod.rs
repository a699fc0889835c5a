//! One typed chat format: messages in, token ids out, for training and for serving alike.
//!
//! ```text
//! Conversation ── ChatFormat (template + tokenizer) ──┬─ render_for_generation → ids
//!                                                     └─ render_for_training  → ids + loss mask
//! ```
//!
//! # What users write stays text
//!
//! A template prints control tokens (`<|im_start|>`) and contents into one text, and a tokenizer
//! that searches this text for control tokens finds those of the template and those that a user
//! typed alike. Here it does not search. Before a template is compiled, each control token in its
//! source, and in `bos_token` and `eos_token`, is replaced by a private character that occurs in no
//! message; after rendering, these characters are the control tokens, and all else is plain text.
//! So nothing that a template does with a content (trim, split, replace, join with another) can
//! make a control token of it. Written out again, the text is what transformers renders; where no
//! content spells a control token, the ids are those of transformers too, with one exception below.
//!
//! A template that computes with the spelling of its control tokens, or puts them together from
//! parts (`'<|' + role + '|>'`), would render otherwise this way. [`ChatFormat::new`] renders a few
//! short conversations both ways and refuses such a template. Words of a token's name do no harm:
//! only tokens with a character such as `<`, `[` or `|` are replaced.
//!
//! # What is learned
//!
//! The loss mask covers what the model writes when it serves: everything from the end of the
//! generation prompt up to and including the token that ends the turn, in every assistant turn, and
//! nothing else. A turn starts where the template's generation prompt ends; that prompt holds
//! control tokens, which contents cannot forge. Templates whose prompt is plain text are asked
//! again for each turn what the prompt before it was.
//!
//! At the start of an assistant's turn the text is always cut, as it is cut between prompt and
//! answer when the model serves, so no token spans both. That is the exception mentioned above: an
//! answer that begins with a line break keeps it apart from the line break of the prompt.

mod conversation;
mod format;
mod marks;

pub use self::conversation::{
    CONTENT_BYTES_MAX, ChatError, Conversation, Message, NUM_MESSAGES_MAX, Role, ToolCall,
};
pub use self::format::{ChatFormat, ChatOptions, ChatTokens};
