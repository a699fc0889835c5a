//! The model that a configuration trains, and what comes out of it.

use std::path::{Path, PathBuf};

use feilun_kernels::gemm::Precision;
use feilun_kernels::{BlockType, Isa, Pool};
use feilun_model::save::{
    self, AdapterInfo, Companions, FlatWeights, GgufMetadata, Job, NamedTensor, Storage,
};
use feilun_model::train::{LoraOptions, Method, Trainee, TraineeOptions};
use feilun_train::run::RunDirectory;
use feilun_train::trainee::{ModelLearner, Reference};

use super::config::RunConfig;
use crate::engine::OpenModel;
use crate::failure::{Failure, Outcome};

/// The learner as it is before the first step.
pub(super) fn open(
    config: &RunConfig,
    model: &OpenModel,
    isa: Isa,
    pool: Pool,
) -> Outcome<ModelLearner> {
    let threads = pool.num_threads();
    let options = TraineeOptions {
        method: match &config.lora {
            None => Method::Full,
            Some(lora) => Method::Lora(LoraOptions {
                rank: lora.rank,
                alpha: lora.alpha,
                targets: LoraOptions::ALL_LINEAR.to_vec(),
            }),
        },
        precision: if config.is_f32 { Precision::F32 } else { Precision::Bf16 },
        isa,
        max_tokens: config.data.plan.row_tokens,
        recompute_mlp: config.recompute_mlp,
    };
    let mut trainee = Trainee::open(&model.files, pool, &options)?;
    let reference = if config.lora.is_some() {
        trainee.initialize_adapter(config.training.seed);
        Reference::Base
    } else if config.objective.needs_reference() {
        // A frozen copy: an adapter without matrices.
        let method = Method::Lora(LoraOptions { rank: 1, alpha: 1.0, targets: Vec::new() });
        let options = TraineeOptions { method, ..options };
        Reference::Model(Box::new(Trainee::open(&model.files, Pool::new(threads)?, &options)?))
    } else {
        Reference::Base
    };
    Ok(ModelLearner::new(trainee, reference, config.objective, config.label_smoothing)?)
}

/// Writes what was trained into the run's directory; returns where.
pub(super) fn save(
    config: &RunConfig,
    model: &OpenModel,
    learner: &ModelLearner,
    directory: &RunDirectory,
) -> Outcome<PathBuf> {
    let root = directory.files().root().to_owned();
    let trainee = learner.trainee();
    let Some(lora) = &config.lora else {
        return save_whole(model, learner, &root);
    };
    let path = root.join("adapter");
    if path.exists() {
        return Ok(path);
    }
    let info = AdapterInfo {
        rank: lora.rank,
        alpha: lora.alpha,
        targets: &LoraOptions::ALL_LINEAR,
        base: &config.base.label,
    };
    let values = trainee.values();
    let tensors = trainee.parameters().iter().map(|info| NamedTensor {
        name: &info.name,
        shape: &info.shape,
        values: &values[info.range.clone()],
    });
    save::save_adapter(&path, &info, tensors)?;
    Ok(path)
}

/// In the format of the base: only there is what belongs to the weights, such as the tokenizer.
fn save_whole(model: &OpenModel, learner: &ModelLearner, root: &Path) -> Outcome<PathBuf> {
    let trainee = learner.trainee();
    let weights = FlatWeights::new(trainee.config(), trainee.parameters(), trainee.values())?;
    let mut job = Job { pool: &mut Pool::new(1)?, progress: &mut |_, _| () };
    if let Some(metadata) = GgufMetadata::of_file(&model.files)? {
        let path = root.join("model.gguf");
        if !path.exists() {
            let storage = Storage::new(BlockType::Bf16);
            save::save_gguf(&path, &metadata, &weights, storage, &mut job)?;
        }
        return Ok(path);
    }
    let path = root.join("model");
    if !path.exists() {
        let companions = Companions::of_folder(&model.files)?
            .ok_or_else(|| Failure::failed("the base is neither a GGUF file nor a folder"))?;
        save::save_folder(&path, &companions, &weights, BlockType::Bf16, &mut job)?;
    }
    Ok(path)
}
