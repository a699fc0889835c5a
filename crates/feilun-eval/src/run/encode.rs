//! Prompts, continuations and texts as tokens, cut where lm-eval cuts them.
//!
//! What is equal to lm-eval 0.4 is named after what it is there: `_encode_pair` is
//! [`Encoder::pair`], `get_rolling_token_windows` is [`windows`]. A model's own wish decides
//! whether a text begins with BOS, as `add_bos_token` does there where nobody sets it. One thing
//! is different on purpose: a whole text is not given a second BOS to be predicted.

use std::sync::Arc;

use feilun_infer::ModelText;
use feilun_text::{ChatFormat, ChatOptions, EncodeOptions, Message, Role, Tokenizer};

use super::error::AskProblem;
use crate::suite::{ChatMessage, ChatRole, Prompt, conversation};

/// Tokens of which the last ones are scored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scored {
    pub(super) tokens: Vec<u32>,
    /// Index of the first token whose log-probability counts; at least 1.
    pub(super) from: usize,
}

/// A model's tokenizer and chat format at work for suites.
#[derive(Clone, Debug)]
pub struct Encoder {
    text: ModelText,
    chat: Arc<ChatFormat>,
    /// Most tokens that a prediction sees.
    window: usize,
}

impl Encoder {
    /// For a model that predicts a token from at most `window` tokens before it.
    pub fn new(text: ModelText, chat: Arc<ChatFormat>, window: usize) -> Encoder {
        Encoder { text, chat, window: window.max(1) }
    }

    /// Most tokens that a prediction sees.
    pub fn window(&self) -> usize {
        self.window
    }

    fn tokenizer(&self) -> &Tokenizer {
        &self.text.tokenizer
    }

    /// What stands before a text that nothing stands before.
    fn prefix_token(&self) -> Result<u32, AskProblem> {
        let tokenizer = self.tokenizer();
        tokenizer.bos().or(tokenizer.eos()).ok_or(AskProblem::NoPrefixToken)
    }

    /// A text without the BOS that a model may want.
    fn bare(&self, text: &str) -> Result<Vec<u32>, AskProblem> {
        Ok(self.tokenizer().encode(text, EncodeOptions::default())?)
    }

    /// The tokens after which an answer is written.
    pub(super) fn prompt(&self, prompt: &Prompt) -> Result<Vec<u32>, AskProblem> {
        match prompt {
            Prompt::Text(text) => Ok(self.text.encode(text)?),
            Prompt::Chat { messages, tools } => {
                let conversation = conversation(messages, tools.as_ref())?;
                Ok(self.chat.render_for_generation(&conversation, &ChatOptions::default())?)
            }
        }
    }

    /// A prompt with one of several continuations: of a text as lm-eval encodes it, after
    /// messages the continuation by itself.
    pub(super) fn continuation(
        &self,
        prompt: &Prompt,
        delimiter: &str,
        continuation: &str,
    ) -> Result<Scored, AskProblem> {
        let scored = match prompt {
            Prompt::Text(text) => self.pair(text, &format!("{delimiter}{continuation}"))?,
            Prompt::Chat { .. } => {
                let mut tokens = self.prompt(prompt)?;
                let from = tokens.len();
                tokens.extend(self.bare(continuation)?);
                Scored { tokens, from }
            }
        };
        self.check(scored)
    }

    /// Context and continuation, encoded together and cut after as many tokens as the context
    /// has alone. Spaces at the context's end go with the continuation: that is where tokenizers
    /// put them.
    fn pair(&self, context: &str, continuation: &str) -> Result<Scored, AskProblem> {
        let kept = context.trim_end_matches(is_space);
        let context_tokens = self.text.encode(kept)?;
        if context_tokens.is_empty() {
            let mut tokens = self.bare(&format!("{context}{continuation}"))?;
            let prefix = self.prefix_token()?;
            if tokens.first() != Some(&prefix) {
                tokens.insert(0, prefix);
            }
            return Ok(Scored { tokens, from: 1 });
        }
        let tokens = self.text.encode(&format!("{context}{continuation}"))?;
        Ok(Scored { tokens, from: context_tokens.len() })
    }

    /// A prompt with an answer as a model would learn it: after messages with the token that
    /// ends the turn.
    pub(super) fn answer(
        &self,
        prompt: &Prompt,
        delimiter: &str,
        answer: &str,
    ) -> Result<Scored, AskProblem> {
        let Prompt::Chat { messages, tools } = prompt else {
            return self.continuation(prompt, delimiter, answer);
        };
        let mut messages = messages.clone();
        messages.push(ChatMessage::new(ChatRole::Assistant, answer));
        let conversation = conversation(&messages, tools.as_ref())?;
        let rendered = self.chat.render_for_training(&conversation, &ChatOptions::default())?;
        let mut tokens = rendered.ids;
        // The last turn is the answer; those of the prompt are not what is compared.
        let end =
            rendered.loss_mask.iter().rposition(|&learned| learned).map_or(0, |last| last + 1);
        let from = rendered.loss_mask[..end].iter().rposition(|&learned| !learned);
        tokens.truncate(end);
        self.check(Scored { tokens, from: from.map_or(0, |before| before + 1) })
    }

    /// The parts of a text, each token scored in one of them.
    pub(super) fn whole_text(&self, text: &str) -> Result<Vec<Scored>, AskProblem> {
        let tokens = self.bare(text)?;
        Ok(windows(&tokens, self.prefix_token()?, self.window))
    }

    /// What is asked of a judge, as a message.
    pub(super) fn message(&self, text: &str) -> Result<Vec<u32>, AskProblem> {
        let messages = vec![Message::new(Role::User, text)];
        let conversation = feilun_text::Conversation::new(messages)?;
        Ok(self.chat.render_for_generation(&conversation, &ChatOptions::default())?)
    }

    /// A prompt in words, for a judge.
    pub(super) fn words(&self, prompt: &Prompt) -> String {
        match prompt {
            Prompt::Text(text) => text.clone(),
            Prompt::Chat { messages, .. } => {
                let line = |message: &ChatMessage| {
                    let role = match message.role {
                        ChatRole::System => "System",
                        ChatRole::User => "User",
                        ChatRole::Assistant => "Assistant",
                        ChatRole::Tool => "Tool",
                    };
                    format!("{role}: {}", message.content)
                };
                messages.iter().map(line).collect::<Vec<_>>().join("\n")
            }
        }
    }

    fn check(&self, scored: Scored) -> Result<Scored, AskProblem> {
        let (found, max) = (scored.tokens.len(), self.window + 1);
        if found > max {
            return Err(AskProblem::TooLong { found, max });
        }
        if scored.from == 0 || scored.from >= found {
            return Err(AskProblem::NothingScored);
        }
        Ok(scored)
    }
}

/// Python's `str.isspace`, by which lm-eval finds the end of a context.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// Windows over a text such that each token is predicted once, from at most `len` tokens; the
/// last window reaches back as far as it can.
///
/// The first token is predicted from `prefix` alone, and the first of each further full window
/// from the token before it alone: lm-eval's rule, which favours speed over context.
fn windows(tokens: &[u32], prefix: u32, len: usize) -> Vec<Scored> {
    let first = tokens.len().min(len);
    if first == 0 {
        return Vec::new();
    }
    let mut windows = vec![Scored { tokens: [&[prefix], &tokens[..first]].concat(), from: 1 }];
    let mut predicted = first;
    while predicted < tokens.len() {
        let num_predicted = (tokens.len() - predicted).min(len);
        let end = predicted + num_predicted;
        // More than `len` tokens were predicted before: `end` is beyond `len`.
        let tokens = tokens[end - len - 1..end].to_vec();
        let from = tokens.len() - num_predicted;
        windows.push(Scored { tokens, from });
        predicted = end;
    }
    windows
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of lm-eval's own documentation of `loglikelihood_rolling`, and its borders.
    #[test]
    fn windows_are_those_of_lm_eval() {
        let check = |num_tokens: u32, len, expected: &[(&[u32], usize)]| {
            let tokens: Vec<u32> = (0..num_tokens).collect();
            let found = windows(&tokens, 99, len);
            let found: Vec<_> = found.iter().map(|w| (&w.tokens[..], w.from)).collect();
            assert_eq!(found, expected, "{num_tokens} tokens in windows of {len}");
        };
        check(0, 4, &[]);
        check(1, 4, &[(&[99, 0], 1)]);
        check(4, 4, &[(&[99, 0, 1, 2, 3], 1)]);
        check(5, 4, &[(&[99, 0, 1, 2, 3], 1), (&[0, 1, 2, 3, 4], 4)]);
        check(10, 4, &[(&[99, 0, 1, 2, 3], 1), (&[3, 4, 5, 6, 7], 1), (&[5, 6, 7, 8, 9], 3)]);
    }

    #[test]
    fn spaces_are_those_of_python() {
        let spaces = "\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f \u{85}\u{a0}\u{2003}\u{3000}";
        assert!(spaces.chars().all(is_space));
        assert!("a\u{200b}\u{feff}\x1b".chars().all(|c| !is_space(c)));
    }
}
