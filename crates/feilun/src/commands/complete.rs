//! `feilun complete`: continue a text.

use std::io::Write as _;
use std::ops::ControlFlow;

use feilun_infer::sampling::TokenLogprobs;
use feilun_infer::{EventKind, Request, SamplingParams};
use feilun_text::Tokenizer;
use serde_json::{Value, json};

use crate::commands::Session;
use crate::engine::{EngineArgs, Plan};
use crate::failure::{Failure, Outcome};
use crate::generation::{self, ConstraintArgs, SamplingArgs};
use crate::output;

/// Continue a text
///
/// The text goes to the model as it is, without a chat template, and the answer to stdout as it
/// is generated.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  feilun complete --prompt 'The capital of France is' --max-tokens 16
  feilun complete -m gemma3-270m --prompt 'Once upon' --temperature 0.8 --seed 7 --json
  feilun complete --prompt 'A person: ' --json-schema person.json")]
pub(crate) struct Args {
    #[command(flatten)]
    engine: EngineArgs,
    /// The text to continue
    #[arg(long, short, value_name = "TEXT")]
    prompt: String,
    /// Stop after so many tokens
    #[arg(long, value_name = "N", default_value_t = 256)]
    max_tokens: usize,
    /// Randomness: 0 takes the likeliest token, 1 the model's own distribution
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    temperature: f32,
    /// Keep only the likeliest tokens that together have this probability
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    top_p: f32,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// End the answer before this text; may be given several times
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Report the log-probability of each token and of the K likeliest in its place; needs --json
    #[arg(long, value_name = "K", requires = "json")]
    logprobs: Option<usize>,
    #[command(flatten)]
    constraint: ConstraintArgs,
    /// Print one JSON object instead of the text
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, session: &Session) -> Outcome {
    let source = args.constraint.source()?;
    let model = args.engine.open(session)?;
    let prompt = model.encode(&args.prompt)?;
    if prompt.is_empty() {
        return Err(Failure::usage("the prompt is empty, and this model begins with no token")
            .hint("give some text with --prompt"));
    }
    let wanted = prompt.len().saturating_add(args.max_tokens);
    if wanted > model.context() {
        let (context, found) = (model.context(), prompt.len());
        let message = format!(
            "{found} tokens of prompt and {} more exceed the context of {context}",
            args.max_tokens
        );
        return Err(Failure::usage(message).hint("lower --max-tokens, or shorten the prompt"));
    }
    let mut engine = model.engine(&args.engine, session, Plan::for_one(wanted))?;
    let constraint = match &source {
        Some(source) => Some(generation::compile(source, model.vocabulary())?),
        None => None,
    };
    let params = args.sampling.params(args.temperature, args.top_p);
    let sampling = SamplingParams { logprobs: args.logprobs, ..params };
    let seed = sampling.seed;
    let request = Request {
        sampling,
        stop_strings: args.stop.clone(),
        constraint,
        adapter: model.adapter.clone(),
        mode: args.engine.mode(),
        ..Request::new(prompt, args.max_tokens)
    };
    let mut answer = Answer::default();
    let mut written = Ok(());
    let finish = engine
        .generate(request, |event| {
            if let EventKind::Token(token) = &event.kind {
                if !args.json {
                    written = write(&token.text);
                }
                answer.text += &token.text;
                answer.tokens.push(token.token);
                answer.logprobs.extend(token.logprobs.clone());
            }
            // Where the reader went away there is no use in going on.
            if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })
        .map_err(|error| Failure::usage(error.to_string()))?;
    written?;
    answer.text += &finish.text;
    if !args.json {
        write(&finish.text)?;
        output::data("")?;
        return generation::finish_reason(finish).map(drop);
    }
    let (usage, timings) = (finish.usage, finish.timings);
    let logprobs = args.logprobs.map(|_| answer.logprobs_json(&model.tokenizer));
    output::json(&json!({
        "model": model.found.label,
        "digest": model.found.digest,
        "text": answer.text,
        "token_ids": answer.tokens,
        "finish_reason": generation::finish_reason(finish)?,
        "seed": seed,
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.generated,
        "first_token_seconds": timings.first_token.map(|time| time.as_secs_f64()),
        "seconds": timings.finished.as_secs_f64(),
        "logprobs": logprobs,
    }))
}

fn write(text: &str) -> Outcome {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    Ok(stdout.flush()?)
}

/// What was generated.
#[derive(Default)]
struct Answer {
    text: String,
    tokens: Vec<u32>,
    logprobs: Vec<TokenLogprobs>,
}

impl Answer {
    fn logprobs_json(&self, tokenizer: &Tokenizer) -> Value {
        let one = |token: u32, logprob: f32| json!({ "token": token, "text": tokenizer.token_text(token), "logprob": logprob });
        let entry = |found: &TokenLogprobs| {
            let mut entry = one(found.token, found.logprob);
            entry["top"] = found.top.iter().map(|&(token, logprob)| one(token, logprob)).collect();
            entry
        };
        self.logprobs.iter().map(entry).collect()
    }
}
