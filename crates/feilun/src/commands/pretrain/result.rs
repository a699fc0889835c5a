//! What comes out of a pretraining run: a model's folder, a figure, a sample.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use feilun_infer::{EventKind, Request, SamplingParams};
use feilun_kernels::{BlockType, Pool};
use feilun_model::save::{self, FlatWeights, Job};
use feilun_train::data::{PackedRow, Plan};
use feilun_train::run::{Record, RunDirectory, read_metrics};
use feilun_train::trainee::ModelLearner;

use super::config::RunConfig;
use super::vocabulary::Vocabulary;
use crate::commands::Session;
use crate::engine::{EngineArgs, OpenModel, Plan as EnginePlan};
use crate::failure::{Failure, Outcome};
use crate::resolve::FoundModel;

const SAMPLE_TOKENS: usize = 128;
const PROMPT_TOKENS: usize = 16;
/// Usual values: small models ramble at 1 and repeat themselves at 0.
const TEMPERATURE: f32 = 0.8;
const TOP_P: f32 = 0.95;

/// Writes the model into the run's directory, as a folder that every command opens.
pub(super) fn save(
    vocabulary: &Vocabulary,
    learner: &ModelLearner,
    directory: &RunDirectory,
) -> Outcome<PathBuf> {
    let path = directory.files().root().join("model");
    if !path.exists() {
        let trainee = learner.trainee();
        let weights = FlatWeights::new(trainee.config(), trainee.parameters(), trainee.values())?;
        let mut job = Job { pool: &mut Pool::new(1)?, progress: &mut |_, _| () };
        let companions = &vocabulary.companions;
        save::save_folder(&path, companions, &weights, BlockType::Bf16, &mut job)?;
    }
    Ok(path)
}

/// Of the last evaluation.
pub(super) fn bits_per_byte(directory: &RunDirectory) -> Outcome<Option<f64>> {
    let records = read_metrics(&directory.files().metrics())?;
    Ok(records.iter().rev().find_map(|record| match record {
        Record::Evaluation { bits_per_byte, .. } => *bits_per_byte,
        _ => None,
    }))
}

/// A few words of the data, and how the model goes on.
pub(super) struct Sample {
    pub(super) prompt: String,
    pub(super) text: String,
}

pub(super) fn sample(
    session: &Session,
    path: &Path,
    plan: &Plan,
    config: &RunConfig,
) -> Outcome<Sample> {
    let found =
        FoundModel { label: path.display().to_string(), path: path.to_owned(), digest: None };
    let model = OpenModel::open(found)?;
    let first = plan.rows(0)?;
    let row = plan.held_out().first().or(first.first());
    let room = model.context() / 2;
    let prompt = row.map_or_else(Vec::new, |row| beginning(row, PROMPT_TOKENS.min(room)));
    let max_tokens = SAMPLE_TOKENS.min(room);
    let args = EngineArgs::default();
    let mut engine = model.engine(&args, session, EnginePlan::for_one(model.context()))?;
    let sampling = SamplingParams {
        temperature: TEMPERATURE,
        top_p: TOP_P,
        seed: config.training.seed,
        ..SamplingParams::default()
    };
    let request = Request { sampling, ..Request::new(prompt.clone(), max_tokens) };
    let mut text = String::new();
    let finish = engine
        .generate(request, |event| {
            if let EventKind::Token(token) = &event.kind {
                text += &token.text;
            }
            ControlFlow::Continue(())
        })
        .map_err(|error| Failure::failed(format!("cannot make a sample: {error}")))?;
    text += &finish.text;
    Ok(Sample { prompt: model.tokenizer.decode(&prompt, true), text })
}

/// The first tokens of a row's first document.
fn beginning(row: &PackedRow, most: usize) -> Vec<u32> {
    let len = row.documents.first().map_or(0, |len| len.div_ceil(2)).min(most);
    row.tokens[..len].to_vec()
}
