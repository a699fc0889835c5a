//! A chat template and a tokenizer together.

use std::ops::Range;
use std::sync::Arc;

use serde_json::Value;

use super::conversation::{ChatError, Conversation, Message, Role};
use super::marks::{Marks, Texts};
use crate::template::{ChatTemplate, Moment, RenderInput};
use crate::tokenizer::{Part, Tokenizer};

/// For models without a template, if the caller wants it; see [`ChatFormat::plain`].
const PLAIN: &str = "\
{%- if plain_bos %}{{ bos_token }}{% endif %}
{%- for message in messages %}
{{- {'system': 'System', 'user': 'User', 'assistant': 'Assistant', 'tool': 'Tool'}[message.role] }}: \
{{- ' ' ~ message.content -}}
{%- if message.role == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}Assistant:{% endif %}";

/// What a template may ask for besides the messages.
#[derive(Clone, Copy, Debug, Default)]
pub struct ChatOptions<'a> {
    /// The date that a template may print.
    pub date: Option<Moment>,
    /// Further variables by name, such as `enable_thinking`; an object.
    pub variables: Option<&'a Value>,
}

/// A conversation to learn from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatTokens {
    /// All tokens.
    pub ids: Vec<u32>,
    /// One per token: whether the model is to learn to write it.
    pub loss_mask: Vec<bool>,
}

/// Turns conversations into token ids, the same way for training and for serving.
#[derive(Debug)]
pub struct ChatFormat {
    tokenizer: Arc<Tokenizer>,
    source: Box<str>,
    marks: Marks,
    marked: ChatTemplate,
    plain_bos: bool,
    /// What stands before each assistant's turn and ends with it, if it has a mark.
    header: Option<String>,
}

/// Rendered text with marks, and where the assistants' turns start in it.
struct Rendered {
    text: String,
    marks: Marks,
    /// One per assistant's message, in rising order, as far as they were found.
    turns: Result<Vec<usize>, ChatError>,
}

impl ChatFormat {
    /// A format with the template of a model.
    pub fn new(tokenizer: Arc<Tokenizer>, template: &str) -> Result<ChatFormat, ChatError> {
        ChatFormat::build(tokenizer, template, false)
    }

    /// A format without control tokens but EOS, for models without a template:
    ///
    /// ```text
    /// System: Be brief.
    /// User: Hello!
    /// Assistant: Hi.<eos>
    /// User: …
    /// Assistant:
    /// ```
    ///
    /// BOS comes first if the model wants one. As roles are plain words here, a message can imitate
    /// another turn; what it cannot do is end the text.
    pub fn plain(tokenizer: Arc<Tokenizer>) -> Result<ChatFormat, ChatError> {
        let plain_bos = tokenizer.adds_bos();
        ChatFormat::build(tokenizer, PLAIN, plain_bos)
    }

    fn build(
        tokenizer: Arc<Tokenizer>,
        source: &str,
        plain_bos: bool,
    ) -> Result<ChatFormat, ChatError> {
        let original = ChatTemplate::new(source)?;
        let more: Vec<u32> = tokenizer.bos().into_iter().chain(tokenizer.eos()).collect();
        let marks = Marks::of(&tokenizer, source, &more);
        let mut texts = Texts::default();
        texts.add(source);
        let marks = marks.moved_away(&texts)?.unwrap_or(marks);
        let marked = ChatTemplate::new(&marks.replace(&tokenizer, source))?;
        let source = source.into();
        let mut format = ChatFormat { tokenizer, source, marks, marked, plain_bos, header: None };
        format.check_against(&original)?;
        format.header = format.find_header();
        Ok(format)
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    /// The template's source.
    pub fn template(&self) -> &str {
        &self.source
    }

    /// The tokens that end an answer.
    pub fn end_of_turn(&self) -> &[u32] {
        self.tokenizer.end_of_turn()
    }

    /// The prompt for the assistant's next turn.
    pub fn render_for_generation(
        &self,
        conversation: &Conversation,
        options: &ChatOptions<'_>,
    ) -> Result<Vec<u32>, ChatError> {
        let rendered = self.render(conversation, options, true)?;
        // Turns that are not found only miss their cuts.
        let turns = rendered.turns.unwrap_or_default();
        let parts = rendered.marks.parts(&rendered.text, &turns);
        let parts: Vec<Part<'_>> = parts.into_iter().map(|(part, _)| part).collect();
        Ok(self.tokenizer.encode_parts(&parts)?)
    }

    /// The whole conversation, with what the model is to learn: every assistant's turn with the
    /// token that ends it.
    pub fn render_for_training(
        &self,
        conversation: &Conversation,
        options: &ChatOptions<'_>,
    ) -> Result<ChatTokens, ChatError> {
        let Rendered { text, marks, turns } = self.render(conversation, options, false)?;
        let turns = turns?;
        let learned = self.learned(conversation, &text, &marks, &turns)?;
        let parts = marks.parts(&text, &turns);
        let only_parts: Vec<Part<'_>> = parts.iter().map(|&(part, _)| part).collect();
        let (ids, ends) = self.tokenizer.encode_parts_with_ends(&only_parts)?;
        let mut loss_mask = Vec::with_capacity(ids.len());
        for ((_, start), end) in parts.into_iter().zip(ends) {
            loss_mask.resize(end, learned.iter().any(|range| range.contains(&start)));
        }
        Ok(ChatTokens { ids, loss_mask })
    }

    /// The text that the tokens stand for.
    pub fn render_text(
        &self,
        conversation: &Conversation,
        options: &ChatOptions<'_>,
        add_generation_prompt: bool,
    ) -> Result<String, ChatError> {
        let (text, marks) = self.render_marked(
            conversation,
            conversation.messages(),
            options,
            add_generation_prompt,
        )?;
        Ok(marks.written_out(&self.tokenizer, &text))
    }

    fn render(
        &self,
        conversation: &Conversation,
        options: &ChatOptions<'_>,
        add_generation_prompt: bool,
    ) -> Result<Rendered, ChatError> {
        let messages = conversation.messages();
        let (text, marks) =
            self.render_marked(conversation, messages, options, add_generation_prompt)?;
        let turns = self.turns(conversation, options, &text, &marks);
        Ok(Rendered { text, marks, turns })
    }

    /// Renders some of the messages of a conversation, with marks.
    fn render_marked(
        &self,
        conversation: &Conversation,
        messages: &[Message],
        options: &ChatOptions<'_>,
        add_generation_prompt: bool,
    ) -> Result<(String, Marks), ChatError> {
        let mut json = conversation.to_json();
        // Marks are chosen for all messages, so that they are the same for some of them.
        let mut texts = Texts::default();
        texts.add(&self.source);
        texts.add_json(&json);
        conversation.tools().into_iter().chain(options.variables).for_each(|v| texts.add_json(v));
        if let Some(list) = json.as_array_mut() {
            list.truncate(messages.len());
        }
        match self.marks.moved_away(&texts)? {
            None => {
                let marks = self.marks.clone();
                let text = self.run(
                    &self.marked,
                    &marks,
                    &json,
                    conversation.tools(),
                    options,
                    add_generation_prompt,
                )?;
                Ok((text, marks))
            }
            Some(marks) => {
                let template = ChatTemplate::new(&marks.replace(&self.tokenizer, &self.source))?;
                let text = self.run(
                    &template,
                    &marks,
                    &json,
                    conversation.tools(),
                    options,
                    add_generation_prompt,
                )?;
                Ok((text, marks))
            }
        }
    }

    fn run(
        &self,
        template: &ChatTemplate,
        marks: &Marks,
        messages: &Value,
        tools: Option<&Value>,
        options: &ChatOptions<'_>,
        add_generation_prompt: bool,
    ) -> Result<String, ChatError> {
        let mark = |id: Option<u32>| id.and_then(|id| marks.mark(id)).map(String::from);
        let (bos, eos) = (mark(self.tokenizer.bos()), mark(self.tokenizer.eos()));
        let plain = serde_json::json!({"plain_bos": self.plain_bos});
        let variables = if *self.source == *PLAIN { Some(&plain) } else { options.variables };
        Ok(template.render(&RenderInput {
            messages,
            tools,
            add_generation_prompt,
            bos_token: bos.as_deref(),
            eos_token: eos.as_deref(),
            date: options.date,
            variables,
        })?)
    }

    /// Where each assistant's turn starts: behind the prompt for it.
    fn turns(
        &self,
        conversation: &Conversation,
        options: &ChatOptions<'_>,
        text: &str,
        marks: &Marks,
    ) -> Result<Vec<usize>, ChatError> {
        let messages = conversation.messages();
        let assistants: Vec<usize> =
            (0..messages.len()).filter(|&i| messages[i].role == Role::Assistant).collect();
        if let Some(header) = &self.header {
            let header = self.remarked(header, marks);
            // The last one may be the prompt for a turn that is not there yet.
            let turns: Vec<usize> = text
                .match_indices(&header)
                .map(|(start, found)| start + found.len())
                .filter(|&end| end < text.len())
                .collect();
            if turns.len() == assistants.len() {
                return Ok(turns);
            }
        }
        // Ask for the prompt of each turn.
        let mut turns = Vec::with_capacity(assistants.len());
        for index in assistants {
            let before = &messages[..index];
            if before.is_empty() {
                return Err(ChatError::TurnNotFound { index });
            }
            let prompt = self.render_marked(conversation, before, options, true);
            match prompt {
                Ok((prompt, _)) if text.starts_with(&prompt) => turns.push(prompt.len()),
                _ => return Err(ChatError::TurnNotFound { index }),
            }
        }
        Ok(turns)
    }

    /// The stretches of the text that the model is to learn: each turn up to its stop token.
    fn learned(
        &self,
        conversation: &Conversation,
        text: &str,
        marks: &Marks,
        turns: &[usize],
    ) -> Result<Vec<Range<usize>>, ChatError> {
        let is_assistant = |message: &&Message| message.role == Role::Assistant;
        let mut learned = Vec::with_capacity(turns.len());
        for (turn, &start) in turns.iter().enumerate() {
            let limit = turns.get(turn + 1).copied().unwrap_or(text.len());
            let stop = text[start..limit].char_indices().find(|&(_, character)| {
                marks.id(character).is_some_and(|id| self.tokenizer.is_end_of_turn(id))
            });
            let Some((offset, character)) = stop else {
                let messages = conversation.messages().iter().enumerate();
                let mut assistants = messages.filter(|(_, message)| is_assistant(message));
                let index = assistants.nth(turn).map_or(0, |(index, _)| index);
                return Err(ChatError::NoStopToken { index });
            };
            learned.push(start..start + offset + character.len_utf8());
        }
        Ok(learned)
    }

    /// A text with our marks, written with others.
    fn remarked(&self, text: &str, marks: &Marks) -> String {
        let other = |character| self.marks.id(character).and_then(|id| marks.mark(id));
        text.chars().map(|character| other(character).unwrap_or(character)).collect()
    }

    /// Short conversations of the shapes that templates accept.
    fn probes() -> impl Iterator<Item = Conversation> {
        use Role::{Assistant, System, User};
        [&[User][..], &[System, User], &[User, Assistant, User], &[System, User, Assistant]]
            .into_iter()
            .filter_map(|roles| {
                Conversation::new(roles.iter().map(|&role| Message::new(role, "x")).collect()).ok()
            })
    }

    /// Compares the text with marks, written out, to that of the template as it was given.
    fn check_against(&self, original: &ChatTemplate) -> Result<(), ChatError> {
        let text = |id: Option<u32>| id.map(|id| self.tokenizer.token_text(id).into_owned());
        let (bos, eos) = (text(self.tokenizer.bos()), text(self.tokenizer.eos()));
        let plain = serde_json::json!({"plain_bos": self.plain_bos});
        // A template may want more than a probe has; then it is judged when it is used.
        for probe in ChatFormat::probes() {
            let messages = probe.to_json();
            let input = RenderInput {
                messages: &messages,
                bos_token: bos.as_deref(),
                eos_token: eos.as_deref(),
                date: "2026-01-01".parse().ok(),
                variables: Some(&plain),
                ..RenderInput::default()
            };
            let options = ChatOptions { date: input.date, variables: Some(&plain) };
            let (Ok(expected), Ok((marked, marks))) = (
                original.render(&input),
                self.render_marked(&probe, probe.messages(), &options, false),
            ) else {
                continue;
            };
            let unsupported = |reason| Err(ChatError::UnsupportedTemplate { reason });
            if marks.written_out(&self.tokenizer, &marked) != expected {
                return unsupported("it computes with the spelling of control tokens".into());
            }
            let controls = |parts: Vec<Part<'_>>| -> Vec<u32> {
                let id = |part| match part {
                    Part::Control(id) => Some(id),
                    Part::Text(_) => None,
                };
                parts.into_iter().filter_map(id).collect()
            };
            let marked = marks.parts(&marked, &[]).into_iter().map(|(part, _)| part).collect();
            let (found, given) =
                (controls(self.tokenizer.find_controls(&expected)), controls(marked));
            if found != given {
                let odd = found.iter().find(|id| !given.contains(id)).copied();
                let name = odd.map_or_else(String::new, |id| self.tokenizer.token_text(id).into());
                return unsupported(format!("it puts control tokens together from parts: {name}"));
            }
        }
        Ok(())
    }

    /// What stands before each assistant's turn: what `add_generation_prompt` adds, or, where it
    /// adds nothing (Mistral), the last control token of a prompt.
    fn find_header(&self) -> Option<String> {
        let probe = Conversation::new(vec![Message::new(Role::User, "x")]).ok()?;
        let options = ChatOptions { date: "2026-01-01".parse().ok(), variables: None };
        let render = |prompt| self.render_marked(&probe, probe.messages(), &options, prompt);
        let ((without, _), (with, marks)) = (render(false).ok()?, render(true).ok()?);
        let mut header = with.strip_prefix(&*without)?;
        if header.is_empty() {
            let (at, _) = with.char_indices().rfind(|&(_, c)| marks.id(c).is_some())?;
            header = &with[at..];
        }
        // Contents could imitate a header of plain text.
        header.chars().any(|c| marks.id(c).is_some()).then(|| header.to_string())
    }
}
