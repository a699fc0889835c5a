//! Constrained decoding: answers that are JSON, follow a JSON schema, match a regular
//! expression or a grammar in llguidance's Lark dialect.
//!
//! A [`ConstraintCompiler`] belongs to one vocabulary and may be used from any thread; compiling
//! takes milliseconds and is not the scheduler's work. The [`Constraint`] it returns is cheap to
//! clone and starts one [`Matcher`] per request, which says before each token which tokens are
//! allowed.
//!
//! Whatever the source, compiling and matching are bounded in size, depth, steps and memory, and
//! nothing that the source asks for is passed over: what cannot be enforced is an error.

mod cache;
mod regex;
mod schema;
mod tokens;

use std::sync::{Arc, Mutex, PoisonError};

use cache::ConstraintCache;
use llguidance::ParserFactory;
use llguidance::api::{ParserLimits, TopLevelGrammar};
use llguidance::toktrie::{InferenceCapabilities, SimpleVob, TokEnv};
use serde_json::{Value, json};
use tokens::TokenEnvironment;

use crate::vocabulary::Vocabulary;

/// Longest run of white space between two JSON tokens. Without a bound a model may write white
/// space until it runs out of tokens, and small ones do.
const WHITESPACE_PATTERN: &str = r"[\x20\x0A\x0D\x09]{1,40}";
/// The parsers recurse into the source; this stack is enough for sources within the limits (see
/// the hostile tests) and is only touched where it is used.
const COMPILE_STACK_BYTES: usize = 256 << 20;

/// What an answer must be.
#[derive(Clone, Debug, PartialEq)]
pub enum ConstraintSource {
    /// Any JSON object.
    JsonObject,
    /// JSON that the schema accepts.
    JsonSchema(Value),
    /// Text that the whole of a regular expression matches (syntax of the `regex` crate).
    Regex(String),
    /// Text that a grammar generates, in llguidance's dialect of Lark.
    Lark(String),
}

/// The kinds of [`ConstraintSource`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConstraintKind {
    /// Any JSON object, or a schema.
    Json,
    /// A regular expression.
    Regex,
    /// A grammar.
    Lark,
}

impl std::fmt::Display for ConstraintKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            ConstraintKind::Json => "JSON schema",
            ConstraintKind::Regex => "regular expression",
            ConstraintKind::Lark => "grammar",
        })
    }
}

/// Why a constraint was refused or broke off.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConstraintError {
    /// A source that is too long.
    #[error("{kind} has {found} bytes, at most {max} are allowed")]
    SourceTooLong {
        /// Of which kind.
        kind: ConstraintKind,
        /// Bytes found.
        found: usize,
        /// Most allowed.
        max: usize,
    },
    /// Brackets nested too deep.
    #[error("{kind} is nested more than {max} levels deep")]
    SourceTooDeep {
        /// Of which kind.
        kind: ConstraintKind,
        /// Most allowed.
        max: usize,
    },
    /// A schema nested too deep.
    #[error("JSON schema is nested more than {max} levels deep")]
    SchemaTooDeep {
        /// Most allowed.
        max: usize,
    },
    /// A schema of too many values.
    #[error("JSON schema has more than {max} values")]
    SchemaTooLarge {
        /// Most allowed.
        max: usize,
    },
    /// Something other than a schema where one must be.
    #[error("JSON schema: `{path}` is not of the form the standard asks for")]
    NotASchema {
        /// JSON pointer.
        path: String,
    },
    /// A keyword that cannot be enforced.
    #[error("JSON schema: keyword `{keyword}` at `{path}` is not supported")]
    UnsupportedKeyword {
        /// The keyword.
        keyword: String,
        /// JSON pointer to it.
        path: String,
    },
    /// A number beyond what the compiler can count with.
    #[error("JSON schema: {found} at `{path}` is not between -1e18 and 1e18")]
    NumberOutOfRange {
        /// The number.
        found: String,
        /// JSON pointer to its keyword.
        path: String,
    },
    /// A source that the compiler refuses: wrong syntax, or a limit.
    #[error("{kind} cannot be compiled: {reason}")]
    Refused {
        /// Of which kind.
        kind: ConstraintKind,
        /// The compiler's words, shortened.
        reason: String,
    },
    /// A constraint that became too costly while it was matched, or a fault in the matcher.
    #[error("the constraint cannot be continued: {reason}")]
    Broken {
        /// The matcher's words, shortened.
        reason: String,
    },
    /// A vocabulary beyond what the token trie can hold.
    #[error("the vocabulary has {found} {what}, constraints can use at most {max}")]
    VocabularyTooLarge {
        /// Tokens or bytes.
        what: &'static str,
        /// Number found.
        found: usize,
        /// Most allowed.
        max: usize,
    },
    /// The thread to compile in could not be started.
    #[error("cannot start a thread to compile a constraint")]
    Thread,
}

/// Bounds on sources and on the work that they cause.
#[derive(Clone, Debug)]
pub struct ConstraintLimits {
    /// Longest schema, in bytes.
    pub schema_bytes: usize,
    /// Longest regular expression or grammar, and most bytes of all patterns in a schema. The
    /// compiler takes time in the square of it: `a?` 15,000 times took 20 s, 8,000 times under 2.
    pub text_bytes: usize,
    /// Deepest nesting of a schema, and of brackets in expressions and grammars.
    pub depth: usize,
    /// Most values in a schema.
    pub schema_values: usize,
    /// Most symbols in the productions of the compiled grammar.
    pub grammar_symbols: usize,
    /// Most states of one request's lexer; a state takes 1 to 2 kB.
    pub lexer_states: usize,
    /// Size of the cache of compiled constraints.
    pub cache_bytes: usize,
}

impl Default for ConstraintLimits {
    fn default() -> Self {
        ConstraintLimits {
            schema_bytes: 64 << 10,
            text_bytes: 8 << 10,
            depth: 64,
            schema_values: 8192,
            grammar_symbols: 100_000,
            lexer_states: 20_000,
            cache_bytes: 64 << 20,
        }
    }
}

/// Compiles constraints for one vocabulary.
pub struct ConstraintCompiler {
    factory: ParserFactory,
    limits: ConstraintLimits,
    cache: Mutex<ConstraintCache>,
}

impl std::fmt::Debug for ConstraintCompiler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConstraintCompiler").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl ConstraintCompiler {
    /// Reads the vocabulary; some hundred milliseconds for 262,144 tokens.
    ///
    /// # Errors
    /// If the vocabulary is too large.
    pub fn new(
        vocabulary: Arc<dyn Vocabulary>,
        limits: ConstraintLimits,
    ) -> Result<ConstraintCompiler, ConstraintError> {
        let environment: TokEnv = Arc::new(TokenEnvironment::new(vocabulary)?);
        let slices = llguidance::earley::SlicedBiasComputer::general_slices();
        // Neither fast-forward nor backtracking: masks alone decide (see the engine).
        let capabilities = InferenceCapabilities::default();
        let mut factory = ParserFactory::new(&environment, capabilities, &slices)
            .map_err(|e| ConstraintError::Broken { reason: shorten(&e.to_string()) })?;
        factory.quiet();
        *factory.limits_mut() = ParserLimits {
            max_grammar_size: limits.grammar_symbols,
            max_lexer_states: limits.lexer_states,
            verbose_errors: false,
            ..ParserLimits::default()
        };
        let cache = Mutex::new(ConstraintCache::new(limits.cache_bytes));
        Ok(ConstraintCompiler { factory, limits, cache })
    }

    /// Compiles a source, or finds it in the cache.
    ///
    /// # Errors
    /// If the source is not within the limits, is malformed, or asks for what cannot be enforced.
    pub fn compile(&self, source: &ConstraintSource) -> Result<Constraint, ConstraintError> {
        let (kind, text, grammar) = self.checked(source)?;
        let key = (kind, text);
        if let Some(found) = self.lock().get(&key) {
            return Ok(found);
        }
        let constraint = self.compile_grammar(kind, grammar)?;
        self.lock().insert(key, constraint.clone());
        Ok(constraint)
    }

    /// How many compiled constraints are kept.
    pub fn num_cached(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, ConstraintCache> {
        // The cache is whole whenever its lock is free: a panic elsewhere does not spoil it.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The kind, the text that stands for the source in the cache, and the grammar.
    fn checked(
        &self,
        source: &ConstraintSource,
    ) -> Result<(ConstraintKind, String, TopLevelGrammar), ConstraintError> {
        match source {
            ConstraintSource::JsonObject => self.checked_schema(&json!({"type": "object"})),
            ConstraintSource::JsonSchema(schema) => self.checked_schema(schema),
            ConstraintSource::Regex(text) => {
                check_length(ConstraintKind::Regex, text.len(), self.limits.text_bytes)?;
                regex::check(text, self.limits.depth)?;
                let grammar = TopLevelGrammar::from_regex(text);
                Ok((ConstraintKind::Regex, text.clone(), grammar))
            }
            ConstraintSource::Lark(text) => {
                check_length(ConstraintKind::Lark, text.len(), self.limits.text_bytes)?;
                self.check_brackets(text)?;
                let grammar = TopLevelGrammar::from_lark(text.clone());
                Ok((ConstraintKind::Lark, text.clone(), grammar))
            }
        }
    }

    fn checked_schema(
        &self,
        source: &Value,
    ) -> Result<(ConstraintKind, String, TopLevelGrammar), ConstraintError> {
        let bounds = schema::SchemaBounds {
            depth_max: self.limits.depth,
            values_max: self.limits.schema_values,
            pattern_bytes_max: self.limits.text_bytes,
        };
        schema::check(source, bounds)?;
        let text = source.to_string();
        check_length(ConstraintKind::Json, text.len(), self.limits.schema_bytes)?;
        let mut schema = match source {
            Value::Bool(true) => json!({}),
            other => other.clone(),
        };
        if let Value::Object(map) = &mut schema {
            let options = json!({"whitespace_pattern": WHITESPACE_PATTERN});
            map.insert("x-guidance".to_owned(), options);
        }
        Ok((ConstraintKind::Json, text, TopLevelGrammar::from_json_schema(schema)))
    }

    fn check_brackets(&self, text: &str) -> Result<(), ConstraintError> {
        // Brackets in strings count too: real grammars do not come near the bound either way.
        let mut depth = 0usize;
        for byte in text.bytes() {
            match byte {
                b'(' | b'[' | b'{' => depth += 1,
                b')' | b']' | b'}' => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth > self.limits.depth {
                let kind = ConstraintKind::Lark;
                return Err(ConstraintError::SourceTooDeep { kind, max: self.limits.depth });
            }
        }
        Ok(())
    }

    fn compile_grammar(
        &self,
        kind: ConstraintKind,
        grammar: TopLevelGrammar,
    ) -> Result<Constraint, ConstraintError> {
        let refused = |reason: String| ConstraintError::Refused { kind, reason: shorten(&reason) };
        let compile = || -> Result<Constraint, ConstraintError> {
            let parser = self.factory.create_parser(grammar).map_err(|e| refused(e.to_string()))?;
            let mut matcher = llguidance::Matcher::new(Ok(parser));
            if let Some(error) = matcher.get_error() {
                return Err(refused(error));
            }
            // A warning says that something is approximated or passed over.
            if let Some(warning) = matcher.grammar_warnings().into_iter().next() {
                return Err(refused(warning));
            }
            Ok(Constraint { start: Arc::new(matcher) })
        };
        std::thread::scope(|scope| {
            let builder = std::thread::Builder::new()
                .name("feilun-constraint".to_owned())
                .stack_size(COMPILE_STACK_BYTES);
            let thread =
                builder.spawn_scoped(scope, compile).map_err(|_| ConstraintError::Thread)?;
            thread.join().unwrap_or_else(|_| Err(refused("the compiler panicked".to_owned())))
        })
    }
}

/// A compiled constraint.
#[derive(Clone)]
pub struct Constraint {
    /// A matcher that has seen nothing, to be copied.
    start: Arc<llguidance::Matcher>,
}

impl std::fmt::Debug for Constraint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Constraint").finish_non_exhaustive()
    }
}

impl Constraint {
    /// A matcher at the beginning of an answer.
    pub fn start(&self) -> Matcher {
        // Deep, so that no request pays for, or is limited by, the lexer states of another.
        Matcher { inner: self.start.deep_clone() }
    }
}

/// One answer on its way through a constraint.
pub struct Matcher {
    inner: llguidance::Matcher,
}

impl std::fmt::Debug for Matcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Matcher").field("is_complete", &self.is_complete()).finish_non_exhaustive()
    }
}

/// The tokens that are allowed at one place.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenMask(SimpleVob);

impl TokenMask {
    /// One bit per token id, the lowest bit of the first word for id 0.
    pub fn words(&self) -> &[u32] {
        self.0.as_slice()
    }

    /// Whether a token is allowed.
    pub fn allows(&self, token: u32) -> bool {
        let word = self.words().get(token as usize / 32).copied().unwrap_or(0);
        word >> (token % 32) & 1 == 1
    }

    /// The one token that is allowed, if it is one.
    pub fn forced(&self) -> Option<u32> {
        let mut set = self.words().iter().enumerate().filter(|(_, word)| **word != 0);
        let (index, word) = set.next()?;
        let alone = word.is_power_of_two() && set.next().is_none();
        alone.then(|| index as u32 * 32 + word.trailing_zeros())
    }
}

impl Matcher {
    /// The tokens that may come next; end tokens are among them where the answer may end.
    ///
    /// # Errors
    /// If a limit is reached. The matcher is of no use then.
    pub fn mask(&mut self) -> Result<TokenMask, ConstraintError> {
        self.inner.compute_mask_or_eos().map(TokenMask).map_err(|e| broken(&e))
    }

    /// Goes on by one token.
    ///
    /// # Errors
    /// If the token is not allowed, or a limit is reached. The matcher is of no use then.
    pub fn accept(&mut self, token: u32) -> Result<(), ConstraintError> {
        self.inner.consume_token(token).map_err(|e| broken(&e))
    }

    /// Whether the answer is whole and nothing may be added to it.
    pub fn is_complete(&self) -> bool {
        self.inner.is_stopped() && !self.inner.is_error()
    }
}

fn check_length(kind: ConstraintKind, found: usize, max: usize) -> Result<(), ConstraintError> {
    if found > max { Err(ConstraintError::SourceTooLong { kind, found, max }) } else { Ok(()) }
}

fn broken(error: &impl std::fmt::Display) -> ConstraintError {
    ConstraintError::Broken { reason: shorten(&error.to_string()) }
}

/// The beginning of a message: llguidance appends backtraces and dumps of its state, and quotes
/// sources at length.
fn shorten(message: &str) -> String {
    let end = message.find("\n<").unwrap_or(message.len());
    let message = message[..end].trim();
    match message.char_indices().nth(300) {
        Some((end, _)) => format!("{}…", &message[..end]),
        None => message.to_owned(),
    }
}
