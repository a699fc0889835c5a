//! Chat templates: the Jinja program that comes with a model and turns messages into one text.
//!
//! A template is code from an untrusted file. It runs in `minijinja` without access to anything
//! but the values that are given to it, and every cost has a bound: the length of its source, the
//! work and memory of a run (`minijinja`'s fuel, which pays for instructions and for each byte
//! created), the depth of recursion, and the length of the text. It gets the settings, functions
//! and filters that transformers gives it, so that it renders the same text.
//!
//! ```
//! use feilun_text::template::{ChatTemplate, RenderInput};
//! use serde_json::json;
//!
//! let template = ChatTemplate::new("{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}")?;
//! let messages = json!([{"role": "user", "content": "Hi!"}]);
//! let text = template.render(&RenderInput { messages: &messages, ..RenderInput::default() })?;
//! assert_eq!(text, "<user>Hi!");
//! # Ok::<(), feilun_text::template::TemplateError>(())
//! ```

mod moment;
mod python;
mod source;

use std::error::Error as _;
use std::io;

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, ErrorKind, UndefinedBehavior, Value};

pub use self::moment::{Moment, MomentError};

use self::python::{
    Raised, indent, is_iterable, python_method, raise_exception, tojson, value_of, wordcount,
    write_value,
};
use self::source::adapted;

/// The longest templates in use have about 20 KB.
pub const TEMPLATE_BYTES_MAX: usize = 1 << 18;
/// The longest text that is rendered.
pub const RENDERED_BYTES_MAX: usize = 1 << 24;
/// Fuel of every run: real templates use a few hundred for each message.
const FUEL_BASE: u64 = 250_000;
/// Recursion of macros and loops; real templates need about 10.
const RECURSION_MAX: usize = 100;
/// Values that a template nests into each other are compared, written and dropped recursively.
/// One level costs at least five fuel, and at most this much stack for each of them. The stack
/// is only reserved; its pages exist when they are touched.
const STACK_BYTES_PER_FUEL: u64 = 256;

/// Why a template could not be compiled or rendered.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The template or its text is longer than this crate is willing to handle.
    #[error("{what}: {found} bytes are more than the limit of {limit}")]
    TooLong {
        /// What was measured.
        what: &'static str,
        /// Its length, as far as it was measured.
        found: usize,
        /// The longest accepted.
        limit: usize,
    },
    /// It is not a template.
    #[error("chat template, line {line}: {message}")]
    Syntax {
        /// Where.
        line: usize,
        /// What the parser says.
        message: String,
    },
    /// The template refuses these messages, by `raise_exception`.
    #[error("the chat template refuses these messages: {message}")]
    Raised {
        /// What the template says.
        message: String,
    },
    /// The template used up its allowance of work and memory.
    #[error("the chat template was stopped after its allowance of {fuel} steps")]
    OutOfFuel {
        /// The allowance.
        fuel: u64,
    },
    /// Anything else that went wrong while rendering.
    #[error("chat template, line {line}: {message}")]
    Render {
        /// Where.
        line: usize,
        /// What the engine says.
        message: String,
    },
    /// No thread could be started to render in.
    #[error("cannot start a thread to render the chat template in")]
    Thread {
        /// The system's reason.
        source: io::Error,
    },
}

/// What a template is given. The default is no messages, no tokens, and no date.
#[derive(Clone, Copy, Debug)]
pub struct RenderInput<'a> {
    /// A list of objects with `role`, `content` and so on, as in OpenAI's API.
    pub messages: &'a serde_json::Value,
    /// Descriptions of functions, in the same API's form.
    pub tools: Option<&'a serde_json::Value>,
    /// End with the beginning of an assistant's turn.
    pub add_generation_prompt: bool,
    /// The text of BOS, undefined if there is none.
    pub bos_token: Option<&'a str>,
    /// The text of EOS.
    pub eos_token: Option<&'a str>,
    /// What `strftime_now` shows; without it the function is not defined.
    pub date: Option<Moment>,
    /// Further variables by name, such as `enable_thinking`; an object.
    pub variables: Option<&'a serde_json::Value>,
}

impl Default for RenderInput<'_> {
    fn default() -> Self {
        const NO_MESSAGES: &serde_json::Value = &serde_json::Value::Array(Vec::new());
        RenderInput {
            messages: NO_MESSAGES,
            tools: None,
            add_generation_prompt: false,
            bos_token: None,
            eos_token: None,
            date: None,
            variables: None,
        }
    }
}

/// A compiled template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: Box<str>,
}

const NAME: &str = "chat";

impl ChatTemplate {
    /// Compiles a template.
    pub fn new(source: &str) -> Result<ChatTemplate, TemplateError> {
        check_length("length of the chat template", source.len(), TEMPLATE_BYTES_MAX)?;
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|error| syntax_error(&error))?);
        environment.set_debug(false);
        environment.set_recursion_limit(RECURSION_MAX);
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment.set_unknown_method_callback(python_method);
        environment.add_function("raise_exception", raise_exception);
        environment.add_filter("tojson", tojson);
        environment.add_filter("wordcount", wordcount);
        environment.add_filter("indent", indent);
        environment.add_test("iterable", is_iterable);
        environment.set_formatter(write_value);
        environment
            .add_template_owned(NAME, adapted(source))
            .map_err(|error| syntax_error(&error))?;
        Ok(ChatTemplate { environment, source: source.into() })
    }

    /// The template as it was given.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Renders messages to a text.
    pub fn render(&self, input: &RenderInput<'_>) -> Result<String, TemplateError> {
        let mut variables = Vec::new();
        for (name, value) in input.variables.and_then(|v| v.as_object()).into_iter().flatten() {
            variables.push((name.clone(), value_of(value)));
        }
        let messages = value_of(input.messages);
        let tools = input.tools.map_or(Value::from(()), value_of);
        variables.push(("messages".into(), messages));
        variables.push(("tools".into(), tools));
        variables.push(("documents".into(), Value::from(())));
        variables.push(("add_generation_prompt".into(), input.add_generation_prompt.into()));
        for (name, token) in [("bos_token", input.bos_token), ("eos_token", input.eos_token)] {
            if let Some(token) = token {
                variables.push((name.into(), token.into()));
            }
        }
        if let Some(date) = input.date {
            let now = Value::from_function(move |format: String| date.format(&format));
            variables.push(("strftime_now".into(), now));
        }
        let context = Value::from_pairs(variables);
        // Long messages may cost more; a byte is looked at a few times by most templates.
        let input_bytes = size_of(input.messages) + input.tools.map_or(0, size_of);
        self.render_in_thread(context, FUEL_BASE + input_bytes as u64)
    }

    /// The stack of the calling thread is of unknown size, so a deep value needs one of its own.
    fn render_in_thread(&self, context: Value, fuel: u64) -> Result<String, TemplateError> {
        let stack_bytes = usize::try_from(fuel * STACK_BYTES_PER_FUEL).unwrap_or(usize::MAX);
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new()
                .name("chat-template".into())
                .stack_size(stack_bytes)
                .spawn_scoped(scope, || self.render_here(context, fuel))
                .map_err(|source| TemplateError::Thread { source })?;
            thread.join().unwrap_or_else(|_| {
                let message = "the template engine panicked".into();
                Err(TemplateError::Render { line: 0, message })
            })
        })
    }

    fn render_here(&self, context: Value, fuel: u64) -> Result<String, TemplateError> {
        // Cloning an environment copies references to its filters and templates.
        let mut environment = self.environment.clone();
        environment.set_fuel(Some(fuel));
        let template = environment.get_template(NAME).map_err(|error| syntax_error(&error))?;
        let mut text = LimitedText::default();
        let rendered = template.render_captured_to(context, &mut text).map(drop);
        if text.too_long {
            let found = text.bytes.len();
            let what = "length of the rendered conversation";
            return Err(TemplateError::TooLong { what, found, limit: RENDERED_BYTES_MAX });
        }
        rendered.map_err(|error| render_error(&error, fuel))?;
        // The engine writes whole strings only.
        Ok(String::from_utf8_lossy(&text.bytes).into_owned())
    }
}

fn check_length(what: &'static str, found: usize, limit: usize) -> Result<(), TemplateError> {
    if found > limit { Err(TemplateError::TooLong { what, found, limit }) } else { Ok(()) }
}

/// Roughly the bytes of a JSON value.
fn size_of(json: &serde_json::Value) -> usize {
    match json {
        serde_json::Value::String(text) => text.len(),
        serde_json::Value::Array(items) => items.iter().map(size_of).sum::<usize>() + 64,
        serde_json::Value::Object(map) => {
            map.iter().map(|(key, value)| key.len() + size_of(value)).sum::<usize>() + 64
        }
        _ => 8,
    }
}

fn syntax_error(error: &minijinja::Error) -> TemplateError {
    TemplateError::Syntax { line: error.line().unwrap_or(0), message: message_of(error) }
}

fn render_error(error: &minijinja::Error, fuel: u64) -> TemplateError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(inner) = cause {
        if let Some(Raised(message)) = inner.downcast_ref::<Raised>() {
            return TemplateError::Raised { message: message.chars().take(500).collect() };
        }
        let engine = inner.downcast_ref::<minijinja::Error>();
        if engine.is_some_and(|error| error.kind() == ErrorKind::OutOfFuel) {
            return TemplateError::OutOfFuel { fuel };
        }
        cause = inner.source();
    }
    TemplateError::Render { line: error.line().unwrap_or(0), message: message_of(error) }
}

/// The engine's message, shortened: a hostile template may put anything into it.
fn message_of(error: &minijinja::Error) -> String {
    let mut message = match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    };
    if let Some(cause) = error.source() {
        message.push_str(&format!(" ({cause})"));
    }
    message.chars().take(500).collect()
}

/// Takes text up to a limit.
#[derive(Default)]
struct LimitedText {
    bytes: Vec<u8>,
    too_long: bool,
}

impl io::Write for LimitedText {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > RENDERED_BYTES_MAX {
            self.too_long = true;
            return Err(io::Error::other("the text is too long"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
