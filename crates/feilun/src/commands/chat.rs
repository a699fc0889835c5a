//! `feilun chat`: talk with a model in the terminal.

mod input;

use std::io::Write as _;
use std::ops::ControlFlow;
use std::sync::Arc;

use feilun_infer::{Engine, EventKind, Finish, FinishReason, Request, SamplingParams};
use feilun_model::Session as ModelSession;
use feilun_text::{ChatFormat, ChatOptions, Conversation, Message, Moment, Role};

use self::input::{Input, Line};
use crate::commands::{Session, pull};
use crate::engine::{EngineArgs, OpenModel, Plan};
use crate::failure::{Failure, Outcome};
use crate::generation::{self, SamplingArgs};
use crate::output;

/// Talk with a model
///
/// With PROMPT it answers once and ends. Without a model installed, the first chat fetches
/// smollm2-135m-instruct.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  feilun chat
  feilun chat 'Name three rivers in China'
  feilun chat --model ./model.gguf --system 'Answer in one sentence'")]
pub(crate) struct Args {
    #[command(flatten)]
    engine: EngineArgs,
    /// Answer this and end
    prompt: Option<String>,
    /// How the model is to behave
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Most tokens of one answer
    #[arg(long, value_name = "N", default_value_t = 1024)]
    max_tokens: usize,
    /// Most tokens of the conversation that are remembered
    #[arg(long, value_name = "N", default_value_t = 8192)]
    context: usize,
    /// Randomness: 0 takes the likeliest token; small models ramble above 0.5
    #[arg(long, value_name = "T", default_value_t = 0.2)]
    temperature: f32,
    /// Keep only the likeliest tokens that together have this probability
    #[arg(long, value_name = "P", default_value_t = 0.9)]
    top_p: f32,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// Say after each answer how fast it was
    #[arg(long)]
    stats: bool,
}

const HELP: &str = "\
/help    what can be said here
/reset   forget the conversation
/quit    leave (so does Ctrl-D)
Ctrl-C   stop the answer; twice to leave";

pub(crate) fn run(args: Args, session: &Session) -> Outcome {
    if args.engine.model.is_none() {
        pull::default_if_missing(session, "the first chat")?;
    }
    let model = args.engine.open(session)?;
    let mut chat = Chat::start(args, model, session)?;
    if let Some(prompt) = chat.args.prompt.clone() {
        return chat.answer(prompt);
    }
    let mut input = Input::open()?;
    output::talk(format!(
        "{} is ready. /help tells what can be said here.",
        chat.model.found.label
    ));
    loop {
        match input.line()? {
            Line::End => return Ok(()),
            Line::Interrupted => return Err(Failure::interrupted("the chat was left")),
            Line::Text(text) => match text.trim() {
                "" => {}
                "/quit" | "/exit" => return Ok(()),
                "/help" => output::talk(HELP),
                "/reset" => {
                    chat.messages.truncate(chat.num_fixed);
                    output::talk("forgotten");
                }
                command if command.starts_with('/') => {
                    output::talk(format!("there is no command {command}; /help lists them"));
                }
                text => chat.answer(text.to_owned())?,
            },
        }
    }
}

/// A conversation and the engine that keeps it in its cache.
struct Chat<'a> {
    args: Args,
    session: &'a Session,
    model: OpenModel,
    format: ChatFormat,
    engine: Engine<ModelSession>,
    sampling: SamplingParams,
    messages: Vec<Message>,
    /// Messages at the start that are never forgotten: the system's.
    num_fixed: usize,
}

impl Chat<'_> {
    fn start(args: Args, model: OpenModel, session: &Session) -> Outcome<Chat<'_>> {
        let format = match model.chat_format()? {
            Some(format) => format,
            None => {
                output::talk(format!(
                    "{}: {} has no chat template, so it may only continue your text",
                    output::yellow("warning"),
                    model.found.label
                ));
                ChatFormat::plain(Arc::clone(&model.tokenizer))?
            }
        };
        let positions = args.context.min(model.context());
        let engine = model.engine(&args.engine, session, Plan::for_one(positions))?;
        let sampling = args.sampling.params(args.temperature, args.top_p);
        let system = args.system.iter().map(|text| Message::new(Role::System, text.as_str()));
        let messages: Vec<Message> = system.collect();
        let num_fixed = messages.len();
        Ok(Chat { args, session, model, format, engine, sampling, messages, num_fixed })
    }

    /// Answers one message of the user, on stdout, as it is generated.
    fn answer(&mut self, text: String) -> Outcome {
        self.messages.push(Message::new(Role::User, text));
        let (prompt, max_tokens) = match self.prompt() {
            Ok(found) => found,
            Err(failure) => {
                // The conversation stays usable without the message that does not fit.
                self.messages.pop();
                return Err(failure);
            }
        };
        let request = Request {
            sampling: self.sampling.clone(),
            adapter: self.model.adapter.clone(),
            mode: self.args.engine.mode(),
            ..Request::new(prompt, max_tokens)
        };
        let interrupt = &self.session.interrupt;
        interrupt.spare_one();
        let mut answer = String::new();
        let mut written = Ok(());
        let finish = self.engine.generate(request, |event| {
            if let EventKind::Token(token) = &event.kind {
                answer += &token.text;
                written = write(&token.text);
            }
            if written.is_err() || interrupt.was_pressed() {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        });
        let finish = finish.map_err(|error| Failure::failed(error.to_string()))?;
        written?;
        answer += &finish.text;
        write(&finish.text)?;
        output::data("")?;
        self.messages.push(Message::new(Role::Assistant, answer));
        // Another answer to the same question must be free to differ.
        self.sampling.seed = self.sampling.seed.wrapping_add(1);
        self.tell(&finish);
        generation::finish_reason(finish).map(drop)
    }

    fn tell(&self, finish: &Finish) {
        match finish.reason {
            FinishReason::Length => output::talk("(the answer was cut off at its longest)"),
            FinishReason::Cancelled => output::talk("(stopped)"),
            _ => {}
        }
        if self.args.stats {
            let (usage, timings) = (finish.usage, finish.timings);
            let first = timings.first_token.unwrap_or(timings.finished);
            let later = (timings.finished - first).as_secs_f64().max(1e-9);
            output::talk(format!(
                "({} tokens of prompt, {} of them remembered; first token after {:.0} ms; \
                 {} tokens, {:.1} a second)",
                usage.prompt,
                usage.cached_prompt,
                first.as_secs_f64() * 1e3,
                usage.generated,
                usage.generated.saturating_sub(1) as f64 / later,
            ));
        }
    }

    /// The conversation's tokens and the room that is left for the answer. The oldest turns are
    /// forgotten where there is no room.
    fn prompt(&mut self) -> Outcome<(Vec<u32>, usize)> {
        let limit = self.engine.num_positions_max();
        let now = humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string();
        let date: Option<Moment> = now.trim_end_matches('Z').parse().ok();
        let options = ChatOptions { date, ..ChatOptions::default() };
        loop {
            let conversation = Conversation::new(self.messages.clone())?;
            let prompt = self.format.render_for_generation(&conversation, &options)?;
            let room = limit.saturating_sub(prompt.len());
            // A quarter of the context for the answer, or what was asked for if that is less.
            if room >= self.args.max_tokens.min(limit / 4).max(1) {
                return Ok((prompt, self.args.max_tokens.min(room)));
            }
            if self.messages.len() < self.num_fixed + 3 {
                let found = prompt.len();
                return Err(Failure::failed(format!(
                    "{found} tokens leave no room for an answer in a context of {limit}"
                ))
                .hint("shorten the message, or give a larger --context"));
            }
            // A question goes with its answer.
            self.messages.drain(self.num_fixed..self.num_fixed + 2);
            output::talk("(the oldest turn is forgotten: the context is full)");
        }
    }
}

fn write(text: &str) -> Outcome {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    Ok(stdout.flush()?)
}
