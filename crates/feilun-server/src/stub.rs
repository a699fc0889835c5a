//! A backend without a model: it repeats the prompt, a token at a time. Everything around the
//! engine is real, so it shows what the server itself does and costs.
//!
//! Its tokens are bytes; the answer to a chat is what the user said last, unless the
//! constraint wants something else: then the lowest token that is allowed, so that an answer is
//! always what was asked for.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use feilun_infer::event::{GeneratedToken, GenerationError, StopCause, Timings, Usage};
use feilun_infer::sampling::TokenLogprobs;
use feilun_infer::stop::StopMatcher;
use feilun_infer::{
    ConstraintCompiler, ConstraintLimits, EventKind, Finish, FinishReason, ModelText, Request,
    SubmitError,
};
use feilun_store::digest::ModelDigest;
use feilun_text::{ChatFormat, EncodeOptions, StreamDecoder, Tokenizer, TokenizerError};

use crate::backend::{
    Backend, EventSink, KnownModel, LoadRefusal, ModelFacts, ModelStatus, Refusal, ServedModel,
    Status, Submission, Ticket,
};

/// How the stub behaves.
#[derive(Clone, Debug)]
pub struct StubOptions {
    /// Time before each token.
    pub token_time: Duration,
    /// Most requests at work; more are refused as a full queue would.
    pub running_max: usize,
    /// Longest prompt and answer.
    pub context_length: usize,
    /// What every chat is answered with, instead of what was said.
    pub answer: Option<String>,
    /// A prompt with this text makes the engine panic when it is submitted: a fault of the
    /// program, for tests of who suffers from it.
    pub panic_on: Option<String>,
    /// Further models, which are not loaded at first.
    pub shelved: Vec<String>,
}

impl Default for StubOptions {
    fn default() -> Self {
        StubOptions {
            token_time: Duration::ZERO,
            running_max: 256,
            context_length: 4096,
            answer: None,
            panic_on: None,
            shelved: Vec::new(),
        }
    }
}

/// Why there is no stub.
#[derive(Debug, thiserror::Error)]
pub enum StubError {
    /// The tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The chat format.
    #[error(transparent)]
    Chat(#[from] feilun_text::ChatError),
    /// The constraint compiler.
    #[error(transparent)]
    Constraint(#[from] feilun_infer::constraint::ConstraintError),
}

/// A model named `stub`, and those of the shelf.
pub struct StubBackend {
    models: Vec<Arc<StubModel>>,
    /// The names of those that are loaded.
    loaded: Mutex<BTreeSet<String>>,
    shared: Arc<Shared>,
}

/// What the models share.
#[derive(Default)]
struct Shared {
    running: AtomicUsize,
    /// Tenants of the requests so far: tests ask who would have shared a prefix.
    tenants: Mutex<BTreeSet<[u8; 16]>>,
}

impl std::fmt::Debug for StubBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StubBackend")
    }
}

struct StubModel {
    facts: ModelFacts,
    options: StubOptions,
    end: u32,
    shared: Arc<Shared>,
}

const END: &str = "<|im_end|>";

/// The template of SmolLM2 and its like, without a system message of its own.
const TEMPLATE: &str = "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + \
message['content'] + '<|im_end|>' + '\n'}}{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

impl StubBackend {
    /// A stub.
    ///
    /// # Errors
    /// None that depends on the options; the parts are checked as those of any model.
    pub fn new(options: StubOptions) -> Result<StubBackend, StubError> {
        let tokenizer = Arc::new(byte_tokenizer()?);
        let chat_format = Arc::new(ChatFormat::new(Arc::clone(&tokenizer), TEMPLATE)?);
        let vocabulary = ModelText::new(Arc::clone(&tokenizer), &[]).vocabulary();
        let constraints = ConstraintCompiler::new(vocabulary, ConstraintLimits::default())?;
        let constraints = Arc::new(constraints);
        let end = tokenizer.token_id(END).unwrap_or_default();
        let shared = Arc::new(Shared::default());
        let model = |name: &str| {
            let facts = ModelFacts {
                name: name.to_owned(),
                digest: ModelDigest::from_bytes(*blake3::hash(name.as_bytes()).as_bytes()),
                base: None,
                created: SystemTime::UNIX_EPOCH,
                size_bytes: 0,
                context_length: options.context_length,
                tokenizer: Arc::clone(&tokenizer),
                chat_format: Arc::clone(&chat_format),
                constraints: Arc::clone(&constraints),
            };
            let (options, shared) = (options.clone(), Arc::clone(&shared));
            Arc::new(StubModel { facts, options, end, shared })
        };
        let names = std::iter::once("stub").chain(options.shelved.iter().map(String::as_str));
        let models = names.map(model).collect();
        let loaded = Mutex::new(BTreeSet::from(["stub".to_owned()]));
        Ok(StubBackend { models, loaded, shared })
    }

    /// Requests at work.
    pub fn num_running(&self) -> usize {
        self.shared.running.load(Ordering::SeqCst)
    }

    /// How many tenants there were: nobody shares prefixes with another.
    pub fn num_tenants(&self) -> usize {
        self.shared.tenants.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backend for StubBackend {
    fn models(&self) -> Vec<Arc<dyn ServedModel>> {
        let loaded = self.lock();
        let models = self.models.iter().filter(|model| loaded.contains(&model.facts.name));
        models.map(|model| Arc::clone(model) as Arc<dyn ServedModel>).collect()
    }

    fn known(&self) -> Vec<KnownModel> {
        let known = |model: &Arc<StubModel>| KnownModel {
            name: model.facts.name.clone(),
            digest: Some(model.facts.digest),
            base: None,
            created: model.facts.created,
        };
        self.models.iter().map(known).collect()
    }

    fn load(&self, name: &str, _: bool) -> Result<Arc<dyn ServedModel>, LoadRefusal> {
        let model = self.models.iter().find(|model| model.facts.name == name);
        let model = model.ok_or_else(|| LoadRefusal::NoSuchModel { name: name.to_owned() })?;
        self.lock().insert(name.to_owned());
        Ok(Arc::clone(model) as Arc<dyn ServedModel>)
    }

    fn unload(&self, name: &str) -> Result<(), LoadRefusal> {
        if self.lock().remove(name) {
            return Ok(());
        }
        Err(LoadRefusal::NotLoaded { name: name.to_owned() })
    }

    fn status(&self) -> Status {
        let model = ModelStatus {
            name: "stub".to_owned(),
            running: self.num_running(),
            ..ModelStatus::default()
        };
        Status { models: vec![model] }
    }
}

impl ServedModel for StubModel {
    fn facts(&self) -> &ModelFacts {
        &self.facts
    }

    fn submit(&self, submission: Submission) -> Result<Ticket, Refusal> {
        self.check(&submission.request)?;
        self.panic_if_told(&submission.request);
        let shared = Arc::clone(&self.shared);
        if shared.running.fetch_add(1, Ordering::SeqCst) >= self.options.running_max {
            shared.running.fetch_sub(1, Ordering::SeqCst);
            return Err(Refusal::Busy { retry_after: Duration::from_secs(1) });
        }
        shared.tenants.lock().unwrap_or_else(PoisonError::into_inner).insert(submission.tenant.0);
        let cancelled = Arc::new(AtomicBool::new(false));
        let mut answer = Answer {
            text: StreamDecoder::continuing(Arc::clone(&self.facts.tokenizer), true),
            stop: StopMatcher::new(&submission.request.stop_strings),
            plan: self.plan(&submission.request),
            end: self.end,
            token_time: self.options.token_time,
            request: submission.request,
            sink: submission.sink,
            cancelled: Arc::clone(&cancelled),
            start: Instant::now(),
            generated: 0,
        };
        let spawned = std::thread::Builder::new().name("feilun-stub".to_owned()).spawn(move || {
            answer.run();
            shared.running.fetch_sub(1, Ordering::SeqCst);
        });
        match spawned {
            Ok(_) => Ok(Ticket::new(move || cancelled.store(true, Ordering::SeqCst))),
            Err(error) => {
                self.shared.running.fetch_sub(1, Ordering::SeqCst);
                Err(Refusal::Gone { reason: error.to_string() })
            }
        }
    }
}

impl StubModel {
    /// The checks of the engine that callers can run into.
    fn check(&self, request: &Request) -> Result<(), SubmitError> {
        if request.prompt.is_empty() {
            return Err(SubmitError::EmptyPrompt);
        }
        let vocab_size = self.facts.tokenizer.vocab_size();
        if let Some(&token) = request.prompt.iter().find(|&&token| token as usize >= vocab_size) {
            return Err(SubmitError::TokenOutOfRange { what: "prompt", token, vocab_size });
        }
        request.sampling.validate(vocab_size)?;
        feilun_infer::stop::validate(&request.stop_strings)?;
        let (prompt_tokens, max_tokens) = (request.prompt.len(), request.max_tokens);
        let limit = self.options.context_length;
        if prompt_tokens.saturating_add(max_tokens) > limit {
            return Err(SubmitError::ContextTooLong { prompt_tokens, max_tokens, limit });
        }
        Ok(())
    }

    #[expect(clippy::panic, reason = "it is what is asked for")]
    fn panic_if_told(&self, request: &Request) {
        let Some(text) = &self.options.panic_on else { return };
        if self.facts.tokenizer.decode(&request.prompt, true).contains(text) {
            panic!("the stub was told to");
        }
    }

    /// What to say: the last message, or the prompt where it is no chat.
    fn plan(&self, request: &Request) -> Vec<u32> {
        if let Some(answer) = &self.options.answer {
            let tokens = self.facts.tokenizer.encode(answer, EncodeOptions::default());
            return tokens.unwrap_or_default();
        }
        let prompt = &request.prompt;
        let ends: Vec<usize> =
            (0..prompt.len()).filter(|&index| prompt[index] == self.end).collect();
        let Some(&last) = ends.last() else { return prompt.clone() };
        let newline = u32::from(b'\n');
        let said = prompt[..last].iter().rposition(|&t| self.facts.tokenizer.is_special(t));
        let start = said.map_or(0, |at| {
            let line = prompt[at..last].iter().position(|&token| token == newline);
            at + line.map_or(1, |offset| offset + 1)
        });
        prompt[start..last].to_vec()
    }
}

/// One answer on its way.
struct Answer {
    request: Request,
    plan: Vec<u32>,
    end: u32,
    token_time: Duration,
    text: StreamDecoder,
    stop: StopMatcher,
    sink: EventSink,
    cancelled: Arc<AtomicBool>,
    start: Instant,
    generated: usize,
}

impl Answer {
    fn run(&mut self) {
        let mut first_token = None;
        self.score_prompt();
        self.embed_prompt();
        let reason = self.generate(&mut first_token);
        let mut text = match &reason {
            FinishReason::Stop(StopCause::String(_)) => String::new(),
            _ => self.stop.push(&self.text.finish()).text,
        };
        text += &self.stop.finish();
        let usage = Usage {
            prompt: self.request.prompt.len(),
            cached_prompt: 0,
            generated: self.generated,
        };
        let timings =
            Timings { admitted: Some(Duration::ZERO), first_token, finished: self.start.elapsed() };
        // Whoever left does not need to know.
        let _ = (self.sink)(EventKind::Finished(Finish { reason, text, usage, timings }));
    }

    fn score_prompt(&mut self) {
        let Some(num_top) = self.request.prompt_logprobs else { return };
        let tokens = self.request.prompt.iter().skip(1);
        let logprobs = tokens.map(|&token| logprobs(token, num_top)).collect();
        let _ = (self.sink)(EventKind::PromptLogprobs { start: 1, logprobs });
    }

    fn embed_prompt(&mut self) {
        if !self.request.embedding {
            return;
        }
        // Counts of tokens by their two lowest bits: as good as any vector to test the path.
        let mut vector = vec![0.0f32; 4];
        self.request.prompt.iter().for_each(|token| vector[*token as usize % 4] += 1.0);
        let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
        vector.iter_mut().for_each(|x| *x /= length.max(1.0));
        let _ = (self.sink)(EventKind::Embedding(vector));
    }

    fn generate(&mut self, first_token: &mut Option<Duration>) -> FinishReason {
        let mut matcher = self.request.constraint.as_ref().map(|constraint| constraint.start());
        for index in 0..self.request.max_tokens {
            std::thread::sleep(self.token_time);
            if self.cancelled.load(Ordering::SeqCst) {
                return FinishReason::Cancelled;
            }
            let mut token = self.plan.get(index).copied().unwrap_or(self.end);
            if let Some(matcher) = &mut matcher {
                if matcher.is_complete() {
                    return FinishReason::Stop(StopCause::Constraint);
                }
                match constrained(matcher, token, self.end) {
                    Ok(allowed) => token = allowed,
                    Err(error) => return FinishReason::Failed(error),
                }
            }
            first_token.get_or_insert(self.start.elapsed());
            self.generated += 1;
            let reason = self.push(token);
            if let Some(reason) = reason {
                return reason;
            }
        }
        FinishReason::Length
    }

    fn push(&mut self, token: u32) -> Option<FinishReason> {
        let mut reason = None;
        let mut text = String::new();
        if token == self.end {
            reason = Some(FinishReason::Stop(StopCause::Token(token)));
        } else {
            let released = self.stop.push(&self.text.push(token));
            text = released.text;
            let stopped = |index| FinishReason::Stop(StopCause::String(index));
            reason = released.stopped_by.map(stopped).or(reason);
        }
        let logprobs = self.request.sampling.logprobs.map(|num_top| logprobs(token, num_top));
        let event = EventKind::Token(GeneratedToken { token, text, logprobs });
        match (self.sink)(event) {
            ControlFlow::Continue(()) => reason,
            ControlFlow::Break(()) => Some(FinishReason::Cancelled),
        }
    }
}

/// The token if the constraint allows it, else the end if it does, else the lowest.
fn constrained(
    matcher: &mut feilun_infer::constraint::Matcher,
    token: u32,
    end: u32,
) -> Result<u32, GenerationError> {
    let mask = matcher.mask()?;
    let lowest = || (0..mask.words().len() as u32 * 32).find(|&token| mask.allows(token));
    let fitting = [token, end].into_iter().find(|&token| mask.allows(token)).or_else(lowest);
    let token = fitting.unwrap_or(end);
    if token != end {
        matcher.accept(token)?;
    }
    Ok(token)
}

/// Every token is as likely as any other.
fn logprobs(token: u32, num_top: usize) -> TokenLogprobs {
    let logprob = -(260f32.ln());
    let top = (token..).take(num_top).map(|token| (token % 256, logprob)).collect();
    TokenLogprobs { token, logprob, top }
}

/// A token for each byte, and three control tokens.
fn byte_tokenizer() -> Result<Tokenizer, TokenizerError> {
    // The characters that stand for bytes in byte-level vocabularies (GPT-2).
    let mut stand_in = 256u32;
    let vocab: serde_json::Map<String, serde_json::Value> = (0..256u32)
        .map(|byte| {
            let shown = matches!(byte, 33..=126 | 161..=172 | 174..=255);
            let code = if shown { byte } else { stand_in };
            stand_in += u32::from(!shown);
            (char::from_u32(code).unwrap_or_default().to_string(), byte.into())
        })
        .collect();
    let control = |id: u32, content: &str| {
        serde_json::json!({
            "id": id, "content": content, "special": true, "single_word": false,
            "lstrip": false, "rstrip": false, "normalized": false,
        })
    };
    let json = serde_json::json!({
        "version": "1.0",
        "added_tokens": [control(256, "<|endoftext|>"), control(257, "<|im_start|>"), control(258, END)],
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
        "post_processor": null,
        "decoder": {"type": "ByteLevel"},
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
    });
    Tokenizer::from_json(json.to_string().as_bytes(), None)
}
