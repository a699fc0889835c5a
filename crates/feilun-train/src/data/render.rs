//! Examples to tokens, with the server's own renderer.

use std::sync::Arc;

use serde_json::Value;

use feilun_text::{ChatFormat, ChatOptions, Conversation, Moment, Role};

use super::error::LineProblem;
use super::example::{Answer, Example};
use super::row::Part;

/// Turns examples into tokens as the server turns requests into them.
///
/// What a template may ask for besides the messages is fixed here, so that a run that is resumed
/// on another day sees the same tokens.
#[derive(Clone, Debug)]
pub struct Renderer {
    /// The model's template and tokenizer.
    pub format: Arc<ChatFormat>,
    /// The date that a template may print.
    pub date: Option<Moment>,
    /// Further variables by name; an object.
    pub variables: Option<Value>,
}

/// Tokens with what is learned of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// All tokens.
    pub tokens: Vec<u32>,
    /// One per token. The first is never learned, because nothing comes before it.
    pub learn: Vec<bool>,
    /// What it is to the objective.
    pub part: Part,
}

impl Document {
    /// How many tokens are learned.
    pub fn num_learned(&self) -> usize {
        self.learn.iter().filter(|&&learn| learn).count()
    }

    /// Leaves only the first tokens.
    pub fn crop(&mut self, len: usize) {
        self.tokens.truncate(len);
        self.learn.truncate(len);
    }
}

impl Renderer {
    /// A renderer without a date and without variables.
    pub fn new(format: Arc<ChatFormat>) -> Renderer {
        Renderer { format, date: None, variables: None }
    }

    /// What the tokens of an example depend on besides the example.
    pub fn digest(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        hasher.update(super::shard::tokenizer_digest(self.format.tokenizer()).as_bytes());
        hasher.update(blake3::hash(self.format.template().as_bytes()).as_bytes());
        let rest = format!("{:?} {:?}", self.date, self.variables);
        hasher.update(blake3::hash(rest.as_bytes()).as_bytes());
        hasher.finalize()
    }

    /// The documents of an example, one for each answer.
    pub(crate) fn render(&self, example: &Example) -> Result<Vec<Document>, LineProblem> {
        example.answers.iter().map(|answer| self.answer(example, answer, answer.part)).collect()
    }

    /// A prompt with the answer to another one.
    pub(crate) fn render_mismatched(
        &self,
        example: &Example,
        other: &Example,
    ) -> Result<Vec<Document>, LineProblem> {
        let answers = other.answers.iter();
        answers.map(|answer| self.answer(example, answer, Part::Mismatched)).collect()
    }

    fn answer(
        &self,
        example: &Example,
        answer: &Answer,
        part: Part,
    ) -> Result<Document, LineProblem> {
        let messages = example.prompt.iter().chain(&answer.messages).cloned().collect();
        let conversation = Conversation::with_tools(messages, example.tools.clone())?;
        let options = ChatOptions { date: self.date, variables: self.variables.as_ref() };
        let tokens = self.format.render_for_training(&conversation, &options)?;
        let mut learn = tokens.loss_mask;
        let in_prompt = example.prompt.iter().filter(|m| m.role == Role::Assistant).count();
        let mut turns = vec![false; in_prompt];
        turns.extend_from_slice(&answer.learn);
        keep_turns(&mut learn, &turns)?;
        if let Some(first) = learn.first_mut() {
            *first = false;
        }
        let document = Document { tokens: tokens.ids, learn, part };
        if document.num_learned() == 0 {
            let reason = "the assistant's turns have no tokens";
            return Err(LineProblem::NothingLearned { reason });
        }
        Ok(document)
    }
}

/// Unmarks the turns that are not learned; `keep` has one for each turn. Each turn is one stretch
/// of marks, because the next one's header comes between.
fn keep_turns(learn: &mut [bool], keep: &[bool]) -> Result<(), LineProblem> {
    if !keep.contains(&false) {
        return Ok(());
    }
    let is_start = |learn: &[bool], i: usize| learn[i] && (i == 0 || !learn[i - 1]);
    let found = (0..learn.len()).filter(|&i| is_start(learn, i)).count();
    if found != keep.len() {
        return Err(LineProblem::Turns { found, expected: keep.len() });
    }
    let mut turn = 0;
    let mut was_learned = false;
    for mark in learn {
        turn += usize::from(*mark && !was_learned);
        was_learned = *mark;
        *mark = *mark && keep[turn - 1];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_kept_by_number() {
        let marks = [false, true, true, false, true, false, false, true];
        let kept = |keep: &[bool]| {
            let mut marks = marks;
            keep_turns(&mut marks, keep).map(|()| marks)
        };
        assert_eq!(kept(&[true; 3]).unwrap(), marks);
        let last = [false, false, false, false, false, false, false, true];
        assert_eq!(kept(&[false, false, true]).unwrap(), last);
        let outer = [false, true, true, false, false, false, false, true];
        assert_eq!(kept(&[true, false, true]).unwrap(), outer);
        let error = kept(&[true, false]).unwrap_err();
        assert!(matches!(error, LineProblem::Turns { found: 3, expected: 2 }));
    }
}
