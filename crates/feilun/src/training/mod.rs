//! What `tune` and `pretrain` share: a run as a person sees it, from the checks before its first
//! step to the figures at its end.

mod args;
mod progress;

use std::path::Path;
use std::time::Duration;

use feilun_kernels::bench::gemm_peak;
use feilun_train::data::{Plan, SkippedLine};
use feilun_train::guard;
use feilun_train::learner::{Flat, Learner as _};
use feilun_train::planner;
use feilun_train::run::{
    Outcome as RunOutcome, Parts, Run, RunDirectory, Summary, TrainingSettings,
};
use feilun_train::trainee::ModelLearner;
use serde_json::{Value, json};

use crate::commands::Session;
use crate::failure::{Failure, Outcome};
use crate::model_name::ModelName;
use crate::{machine, output};

pub(crate) use self::args::{OptimizerArg, TrainingArgs, Usual};
pub(crate) use self::progress::Reading;

/// How long the planner measures.
const MEASURE: Duration = Duration::from_secs(4);

/// A run that is ready to go.
pub(crate) struct Job<'a> {
    pub(crate) directory: &'a RunDirectory,
    pub(crate) settings: &'a TrainingSettings,
    pub(crate) learner: &'a mut ModelLearner,
    pub(crate) plan: &'a Plan,
}

/// What must be right before anything is made. `base` names what is begun from, `context` is the
/// longest sequence that it was made for.
pub(crate) fn check(
    plan: &Plan,
    settings: &TrainingSettings,
    learner: &ModelLearner,
    base: &str,
    context: usize,
) -> Outcome {
    let ledger = plan.ledger();
    let num_examples: u64 = ledger.sources.iter().map(|source| source.examples.trained).sum();
    let facts = guard::Facts {
        num_examples: num_examples as usize,
        num_learned_tokens: ledger.tokens().trained,
        num_too_long: 0, // refused, cropped or dropped by the plan
        longest_example: 0,
        context_length: context,
        learning_rate: settings.learning_rate,
        learning_rates: guard::ADAMW_LEARNING_RATES,
        adapter_base: None,
        base: base.to_owned(),
        needed_bytes: planner::formula_bytes(learner.values().len(), learner.other_bytes(), 0),
        available_bytes: machine::memory_bytes().map_or(u64::MAX, |(_, available)| available),
    };
    let errors = guard::check(&facts);
    if errors.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
    Err(Failure::refused(lines.join("; ")))
}

impl Job<'_> {
    /// Trains to the end, from the last checkpoint if there is one.
    pub(crate) fn train(self, session: &Session) -> Outcome<Summary> {
        let num_steps = self.settings.num_steps;
        let roof = roof(self.learner);
        let parts = Parts {
            directory: self.directory,
            settings: self.settings,
            learner: self.learner,
            batches: self.plan,
            peak_memory: &machine::peak_memory,
        };
        let (mut run, refused) = Run::open(parts)?;
        for refused in refused {
            output::talk(format!("{} {refused}", output::yellow("warning:")));
        }
        let done = run.state().step;
        if done > 0 && done < num_steps {
            output::talk(format!("goes on after step {done} of {num_steps}"));
        }
        if done < num_steps {
            progress::print_plan(&run.plan(MEASURE)?, num_steps - done);
        }
        session.interrupt.spare_one();
        let stop = session.interrupt.flag();
        let mut progress = progress::Progress::new(num_steps, roof);
        let outcome = run.train(&stop, &mut |record| progress.see(record));
        progress.finish();
        match outcome? {
            RunOutcome::Finished(summary) => Ok(summary),
            RunOutcome::Interrupted { step, checkpoint } => {
                let saved = checkpoint
                    .map_or_else(String::new, |path| format!("; saved as {}", path.display()));
                Err(Failure::interrupted(format!("after step {step}{saved}"))
                    .hint("the same command goes on from there"))
            }
            RunOutcome::Refused { refusal, checkpoint } => {
                let failure = Failure::refused(refusal);
                Err(match checkpoint {
                    Some(path) => {
                        failure.hint(format!("the last good checkpoint: {}", path.display()))
                    }
                    None => failure,
                })
            }
        }
    }
}

/// The peak of the machine's matrix instructions: a moment of work.
fn roof(learner: &mut ModelLearner) -> Option<progress::Roof> {
    let (precision, flops) = (learner.trainee().precision(), learner.trainee().flops());
    let Flat { pool, isa, .. } = learner.flat_mut();
    let of_thread = gemm_peak(isa, precision, Duration::from_millis(20))?;
    let flops_per_second = of_thread * pool.num_threads() as f64;
    Some(progress::Roof { flops_per_second, flops })
}

/// Tells of the lines that were left out, and how many of how many they were.
pub(crate) fn tell_skipped(skipped: &[SkippedLine], num_skipped: u64, of: &str) {
    for skipped in skipped {
        let place = format!("{}:{}", skipped.path.display(), skipped.line);
        output::talk(format!("{} {place}: {}", output::yellow("skipped"), skipped.problem));
    }
    if num_skipped > 0 {
        output::talk(format!("{num_skipped} {of} skipped"));
    }
}

/// What a finished run has to say, for machines.
pub(crate) fn summary_json(name: &ModelName, path: &Path, summary: &Summary, plan: &Plan) -> Value {
    json!({
        "run": name.as_str(),
        "path": path.display().to_string(),
        "steps": summary.step,
        "steps_skipped": summary.num_skipped,
        "tokens": summary.num_tokens,
        "seconds": summary.seconds,
        "tokens_per_second": summary.num_tokens as f64 / summary.seconds.max(1e-9),
        "loss": summary.last_loss,
        "best_held_out_loss": summary.best.as_ref().map(|best| best.loss),
        "values_digest": summary.values_digest,
        "prediction": summary.score,
        "ledger": plan.ledger(),
    })
}

/// The same for people.
pub(crate) fn print_summary(summary: &Summary, plan: &Plan) {
    let tokens = plan.ledger().tokens();
    output::talk(format!(
        "tokens of the data: {} trained, {} masked, {} cropped, {} dropped, {} held out",
        tokens.trained, tokens.masked, tokens.cropped, tokens.dropped, tokens.held_out
    ));
    if let Some(score) = &summary.score {
        progress::print_score(score);
    }
}
