//! Two models on the same items, and the gate's answer.

use std::path::{Path, PathBuf};

use feilun_eval::gate::{
    Comparison, Decision, Direction, GateError, GateOptions, Guardrail, Unit, Verdict, decide,
    foresee,
};
use feilun_eval::report::{GateCard, Language};
use feilun_eval::results::{Evaluation, Pairs, unit};
use feilun_eval::stats::{Aggregate, Plan, Spread};
use feilun_eval::suite::{Metric, Suite};
use serde_json::{Value, json};

use super::evaluate::Evaluate;
use super::{evaluations, show};
use crate::commands::Session;
use crate::engine::{EngineArgs, OpenModel};
use crate::failure::{Failure, Outcome, OutcomeExt as _};
use crate::output;

/// Of how many items two models of one kind differ, where nothing is known: what the power said
/// before the run rests on.
const DISCORDANT: f64 = 0.2;

/// What the gate is asked.
#[derive(Debug, clap::Args)]
pub(super) struct GateArgs {
    /// Compare with this model on the same items, and say whether to promote
    #[arg(long, value_name = "MODEL")]
    pub(super) against: Option<String>,
    /// An adapter for the model to compare with; without --against for the same model
    #[arg(long, value_name = "DIR")]
    pub(super) against_adapter: Option<PathBuf>,
    /// A suite on which the model must not be worse by more than a margin, in units of its metric;
    /// may be given several times
    #[arg(long, value_name = "FILE[=MARGIN]")]
    pub(super) guardrail: Vec<GuardrailArg>,
    /// Smallest improvement that is worth a promotion, in units of the metric; where not given 0.02
    /// of a share, 1 of chrF or BLEU, 0.01 of bits per byte
    #[arg(long, value_name = "X")]
    minimum_effect: Option<f64>,
    /// Probability to promote a model that is no better
    #[arg(long, value_name = "P", default_value_t = 0.025)]
    alpha: f64,
}

/// A file, and how much worse a model may be on it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct GuardrailArg {
    pub(super) path: PathBuf,
    margin: Option<f64>,
}

impl std::str::FromStr for GuardrailArg {
    type Err = String;

    fn from_str(text: &str) -> Result<GuardrailArg, String> {
        let Some((path, margin)) = text.rsplit_once('=') else {
            return Ok(GuardrailArg { path: text.into(), margin: None });
        };
        match margin.parse::<f64>() {
            Ok(margin) if margin > 0.0 && margin.is_finite() => {
                Ok(GuardrailArg { path: path.into(), margin: Some(margin) })
            }
            _ => Err(format!("the margin is `{margin}`, expected a number above 0")),
        }
    }
}

/// What is compared on one suite.
struct Compared {
    candidate: Evaluation,
    incumbent: Evaluation,
    pairs: Pairs,
    metric: Metric,
    aggregate: Box<dyn Aggregate>,
}

impl GateArgs {
    pub(super) fn is_wanted(&self) -> bool {
        self.against.is_some() || self.against_adapter.is_some()
    }

    /// Whether anything is said that has no meaning without a second model.
    pub(super) fn needs_comparison(&self) -> bool {
        !self.guardrail.is_empty() || self.minimum_effect.is_some()
    }

    /// The model to compare with, computed like the other.
    pub(super) fn open(&self, engine: &EngineArgs, session: &Session) -> Outcome<OpenModel> {
        let model = self.against.as_deref().or(engine.model.as_deref());
        engine.open_as(session, model, self.against_adapter.as_deref())
    }
}

/// Compares, writes the card, and answers with the exit code.
pub(super) fn run(
    evaluate: &Evaluate<'_>,
    args: &GateArgs,
    models: [OpenModel; 2],
    suites: &[Suite],
    as_json: bool,
) -> Outcome {
    if !as_json {
        tell_power(suites, evaluate.how.limit, args);
    }
    let [candidate, incumbent] = models;
    let candidates = evaluate.model(candidate, suites)?;
    let incumbents = evaluate.model(incumbent, suites)?;
    let compared: Vec<Compared> =
        candidates.into_iter().zip(incumbents).filter_map(|(c, i)| compare(c, i)).collect();
    let Some((target, guardrails)) = compared.split_first() else {
        return Err(Failure::failed("there is nothing to compare"));
    };
    let verdict = judge(args, target, guardrails, evaluate.how.seed)?;
    let cards = write_cards(evaluate.session, target, &verdict)?;
    let reason = card(target, &verdict, Language::English).sentence();
    let missing: usize = compared.iter().map(|compared| compared.pairs.only_incumbent).sum();
    if as_json {
        let mut value =
            show::evaluation_json(evaluate.session, &target.candidate, evaluate.how.seed);
        value["gate"] = gate_json(target, guardrails, &verdict, missing, &cards)?;
        output::json(&value)?;
    } else {
        for compared in &compared {
            show::print_title(&compared.candidate)?;
            show::print_figures(&compared.candidate, evaluate.how.seed)?;
            show::print_title(&compared.incumbent)?;
            show::print_figures(&compared.incumbent, evaluate.how.seed)?;
        }
        let card = card(target, &verdict, Language::English);
        output::data("")?;
        output::data(card.markdown()?)?;
        output::talk(format!("card: {}", cards.display()));
    }
    for compared in &compared {
        show::tell_problems(&compared.candidate);
        show::tell_problems(&compared.incumbent);
    }
    answer(verdict.decision, &reason, missing)
}

/// Exit code 0 for a promotion, 3 for everything else, with the reason.
fn answer(decision: Decision, reason: &str, missing: usize) -> Outcome {
    match decision {
        Decision::Promote if missing > 0 => Err(Failure::refused(format!(
            "the candidate has no result on {missing} items that the incumbent answered"
        ))),
        Decision::Promote => Ok(()),
        Decision::Reject => Err(Failure::refused(format!("reject: {reason}"))),
        Decision::NotEnough { .. } => {
            Err(Failure::refused(format!("not enough evidence: {reason}")))
        }
    }
}

fn compare(candidate: Evaluation, incumbent: Evaluation) -> Option<Compared> {
    let metric = candidate.manifest.metrics.first()?.clone();
    let pairs = Pairs::of(&candidate, &incumbent, &metric.name);
    Some(Compared { candidate, incumbent, pairs, aggregate: metric.aggregate(), metric })
}

fn comparison(compared: &Compared) -> Comparison<'_> {
    Comparison {
        name: &compared.candidate.manifest.suite,
        items: &compared.pairs.items,
        aggregate: compared.aggregate.as_ref(),
        direction: match compared.metric.higher_is_better {
            true => Direction::HigherIsBetter,
            false => Direction::LowerIsBetter,
        },
        unit: unit(&compared.metric),
    }
}

fn judge(
    args: &GateArgs,
    target: &Compared,
    guardrails: &[Compared],
    seed: u64,
) -> Outcome<Verdict> {
    let minimum_effect = args.minimum_effect.unwrap_or_else(|| worthwhile(unit(&target.metric)));
    let options = GateOptions { alpha: args.alpha, seed, ..GateOptions::new(minimum_effect) };
    let mut guards = Vec::with_capacity(guardrails.len());
    for (compared, arg) in guardrails.iter().zip(&args.guardrail) {
        let margin = arg.margin.unwrap_or_else(|| worthwhile(unit(&compared.metric)));
        guards.push(Guardrail { comparison: comparison(compared), margin });
    }
    decide(&comparison(target), &guards, &options).map_err(|error| match error {
        // Too few items, or items that do not differ: no fault of anybody, and no evidence.
        GateError::Comparison { name, source } => {
            Failure::refused(format!("not enough evidence: `{name}`: {source}"))
        }
        error => error.into(),
    })
}

/// A difference that people would notice, and about what a few hundred items can show.
fn worthwhile(unit: Unit) -> f64 {
    match unit {
        Unit::Share => 0.02,
        Unit::Points => 1.0,
        Unit::Plain => 0.01,
    }
}

/// What the comparison will be able to see, before anything is computed.
fn tell_power(suites: &[Suite], limit: Option<u32>, args: &GateArgs) {
    let Some(suite) = suites.first() else { return };
    let is_share = suite.metrics().first().is_some_and(|metric| unit(metric) == Unit::Share);
    if !is_share {
        return;
    }
    let num_items = suite.items().len().min(limit.map_or(usize::MAX, |limit| limit as usize));
    let spread = Spread::Discordant { share: DISCORDANT };
    let plan = Plan { alpha: args.alpha, power: 0.8, spread, design_effect: 1.0 };
    if let Ok(foresight) = foresee(&plan, num_items as u64, Unit::Share) {
        let sentence = foresight.sentence(Language::English);
        output::talk(format!("{sentence} (where the models differ on {DISCORDANT} of the items)"));
    }
}

fn card<'a>(target: &'a Compared, verdict: &'a Verdict, language: Language) -> GateCard<'a> {
    GateCard {
        verdict,
        candidate: &target.candidate.manifest.model,
        incumbent: &target.incumbent.manifest.model,
        language,
    }
}

/// Cards in both languages beside the candidate's results; returns the page in English.
fn write_cards(session: &Session, target: &Compared, verdict: &Verdict) -> Outcome<PathBuf> {
    let folder = evaluations(session).folder(&target.candidate.manifest.id);
    let stem = format!("gate-{}", target.incumbent.manifest.id);
    for (language, tail) in [(Language::English, ""), (Language::Chinese, ".zh")] {
        let card = card(target, verdict, language);
        write(&folder.join(format!("{stem}{tail}.md")), &card.markdown()?)?;
        write(&folder.join(format!("{stem}{tail}.html")), &card.html()?)?;
    }
    Ok(folder.join(format!("{stem}.html")))
}

pub(super) fn write(path: &Path, text: &str) -> Outcome {
    std::fs::write(path, text).doing(|| format!("cannot write {}", path.display()))
}

fn gate_json(
    target: &Compared,
    guardrails: &[Compared],
    verdict: &Verdict,
    missing: usize,
    page: &Path,
) -> Outcome<Value> {
    let mut value = serde_json::to_value(verdict)?;
    let incumbents = std::iter::once(target).chain(guardrails);
    let ids: Vec<&str> = incumbents.map(|c| c.incumbent.manifest.id.as_str()).collect();
    value["reason"] = card(target, verdict, Language::English).sentence().into();
    value["incumbent"] = target.incumbent.manifest.model.as_str().into();
    value["incumbent_evaluations"] = json!(ids);
    value["items_without_candidate"] = missing.into();
    value["card"] = page.display().to_string().into();
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guardrails_have_a_file_and_perhaps_a_margin() {
        let parse = |text: &str| text.parse::<GuardrailArg>();
        let found = parse("a/b.jsonl").unwrap();
        assert_eq!(found, GuardrailArg { path: "a/b.jsonl".into(), margin: None });
        assert_eq!(parse("x=y.jsonl=0.03").unwrap().margin, Some(0.03));
        for wrong in ["a=", "a=-1", "a=nan", "a=inf", "a=0"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
