//! The settings of the loop, as they stand in a run's `config.json`.

use serde::{Deserialize, Serialize};

use crate::guard::OutlierSettings;
use crate::optimizer::{MuonSettings, OptimizerSettings};
use crate::schedule::{Schedule, ScheduleError, Shape};

/// What the loop does. All of it is written out: a stored configuration has no defaults that a
/// later version could change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingSettings {
    /// Of the order of the data and of everything else that is random.
    pub seed: u64,
    /// Steps of the run.
    pub num_steps: u64,
    /// The highest learning rate.
    pub learning_rate: f64,
    /// Steps until it is reached.
    pub warmup_steps: u64,
    /// How it goes on.
    pub schedule: Shape,
    /// What is done with the gradient.
    pub optimizer: OptimizerSettings,
    /// A longer gradient is shortened to this; 0 for never.
    pub clip_norm: f64,
    /// When a step is left out.
    pub outliers: OutlierSettings,
    /// Checkpoints and evaluations.
    pub checkpoints: CheckpointSettings,
}

/// When to save, and what to keep.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointSettings {
    /// Steps between checkpoints; 0 for the last step only.
    pub every: u64,
    /// How many of the newest are kept, at least 1.
    pub keep_last: usize,
    /// Whether the one with the lowest held-out loss is kept too.
    pub keep_best: bool,
    /// Steps between evaluations on the held-out rows; 0 for never.
    pub evaluate_every: u64,
}

/// Why settings make no sense.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum SettingsError {
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    #[error("{name} is {found}, expected {expected}")]
    Number { name: &'static str, found: f64, expected: &'static str },
}

impl TrainingSettings {
    /// The learning rate of each step.
    pub fn schedule(&self) -> Schedule {
        Schedule {
            peak: self.learning_rate,
            warmup_steps: self.warmup_steps,
            num_steps: self.num_steps,
            shape: self.schedule,
        }
    }

    /// Checks what the types cannot.
    ///
    /// # Errors
    /// Naming the first setting that makes no sense.
    pub fn check(&self) -> Result<(), SettingsError> {
        self.schedule().check()?;
        let is_positive = |x: f64| x.is_finite() && x >= 0.0;
        let (adamw, muon) = match &self.optimizer {
            OptimizerSettings::AdamW(adamw) => (adamw, MuonSettings::default()),
            OptimizerSettings::Muon(muon) => (&muon.rest, *muon),
        };
        let is_rate = muon.matrix_rate.is_finite() && muon.matrix_rate > 0.0;
        let checks = [
            ("beta1", adamw.beta1, (0.0..1.0).contains(&adamw.beta1), "0 to below 1"),
            ("beta2", adamw.beta2, (0.0..1.0).contains(&adamw.beta2), "0 to below 1"),
            ("epsilon", adamw.epsilon, (1e-30..1.0).contains(&adamw.epsilon), "1e-30 to below 1"),
            ("weight_decay", adamw.weight_decay, is_positive(adamw.weight_decay), "at least 0"),
            ("matrix_rate", muon.matrix_rate, is_rate, "above 0"),
            ("momentum", muon.momentum, (0.0..1.0).contains(&muon.momentum), "0 to below 1"),
            ("weight_decay", muon.weight_decay, is_positive(muon.weight_decay), "at least 0"),
            ("clip_norm", self.clip_norm, is_positive(self.clip_norm), "at least 0"),
            (
                "outliers.sigmas",
                self.outliers.sigmas,
                is_positive(self.outliers.sigmas),
                "at least 0",
            ),
            (
                "outliers.window",
                self.outliers.window as f64,
                (4..=1 << 16).contains(&self.outliers.window),
                "4 to 65536",
            ),
            (
                "checkpoints.keep_last",
                self.checkpoints.keep_last as f64,
                self.checkpoints.keep_last > 0,
                "at least 1",
            ),
        ];
        match checks.into_iter().find(|(.., is_good, _)| !is_good) {
            Some((name, found, _, expected)) => {
                Err(SettingsError::Number { name, found, expected })
            }
            None => Ok(()),
        }
    }

    /// Whether a checkpoint is due after so many steps.
    pub(super) fn is_checkpoint(&self, steps_done: u64) -> bool {
        steps_done == self.num_steps || is_due(self.checkpoints.every, steps_done)
    }

    /// Whether an evaluation is due after so many steps.
    pub(super) fn is_evaluation(&self, steps_done: u64) -> bool {
        let every = self.checkpoints.evaluate_every;
        is_due(every, steps_done) || (every > 0 && steps_done == self.num_steps)
    }
}

fn is_due(every: u64, steps_done: u64) -> bool {
    every > 0 && steps_done.is_multiple_of(every)
}

/// A digest of anything that is written as JSON.
pub(super) fn digest<T: Serialize>(value: &T) -> Result<String, serde_json::Error> {
    Ok(blake3::hash(&serde_json::to_vec(value)?).to_hex().to_string())
}

/// The places where two configurations differ, as `training.seed: 1, found 2`.
pub(super) fn differences(expected: &serde_json::Value, found: &serde_json::Value) -> Vec<String> {
    let mut places = Vec::new();
    compare("", expected, found, &mut places);
    places
}

fn compare(
    place: &str,
    expected: &serde_json::Value,
    found: &serde_json::Value,
    places: &mut Vec<String>,
) {
    use serde_json::Value::{Null, Object};
    if let (Object(a), Object(b)) = (expected, found) {
        for key in a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))) {
            let inner = if place.is_empty() { key.clone() } else { format!("{place}.{key}") };
            compare(&inner, a.get(key).unwrap_or(&Null), b.get(key).unwrap_or(&Null), places);
        }
    } else if expected != found {
        places.push(format!("{place}: {expected}, found {found}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optimizer::AdamWSettings;

    fn settings() -> TrainingSettings {
        TrainingSettings {
            seed: 7,
            num_steps: 100,
            learning_rate: 0.001,
            warmup_steps: 10,
            schedule: Shape::Cosine { final_fraction: 0.1 },
            optimizer: OptimizerSettings::AdamW(AdamWSettings::default()),
            clip_norm: 1.0,
            outliers: OutlierSettings { sigmas: 6.0, window: 128 },
            checkpoints: CheckpointSettings {
                every: 10,
                keep_last: 2,
                keep_best: true,
                evaluate_every: 20,
            },
        }
    }

    #[test]
    fn the_file_is_what_people_would_write() {
        let text = serde_json::to_string(&settings()).unwrap();
        assert_eq!(
            text,
            r#"{"seed":7,"num_steps":100,"learning_rate":0.001,"warmup_steps":10,"schedule":{"kind":"cosine","final_fraction":0.1},"optimizer":{"kind":"adamw","beta1":0.9,"beta2":0.999,"epsilon":1e-8,"weight_decay":0.01},"clip_norm":1.0,"outliers":{"sigmas":6.0,"window":128},"checkpoints":{"every":10,"keep_last":2,"keep_best":true,"evaluate_every":20}}"#
        );
        assert_eq!(serde_json::from_str::<TrainingSettings>(&text).unwrap(), settings());
    }

    #[test]
    fn unknown_keys_are_refused_at_every_level() {
        let text = serde_json::to_string(&settings()).unwrap();
        for (before, key) in [
            ("{\"seed\"", "lr"),
            ("{\"kind\":\"cosine\"", "decay"),
            ("{\"kind\":\"adamw\"", "beta3"),
            ("{\"sigmas\"", "mean"),
            ("{\"every\"", "hourly"),
        ] {
            let changed = text.replace(before, &format!("{{\"{key}\":1,{}", &before[1..]));
            assert_ne!(changed, text);
            let error = serde_json::from_str::<TrainingSettings>(&changed).unwrap_err().to_string();
            assert!(error.contains(&format!("unknown field `{key}`")), "{error}");
        }
    }

    #[test]
    fn numbers_without_sense_are_named() {
        let mut bad = settings();
        bad.clip_norm = f64::NAN;
        assert_eq!(bad.check().unwrap_err().to_string(), "clip_norm is NaN, expected at least 0");
        let mut bad = settings();
        let muon = MuonSettings { momentum: 1.0, ..MuonSettings::default() };
        bad.optimizer = OptimizerSettings::Muon(muon);
        assert_eq!(bad.check().unwrap_err().to_string(), "momentum is 1, expected 0 to below 1");
        let mut bad = settings();
        bad.checkpoints.keep_last = 0;
        let error = bad.check().unwrap_err().to_string();
        assert_eq!(error, "checkpoints.keep_last is 0, expected at least 1");
        assert_eq!(settings().check(), Ok(()));
    }

    #[test]
    fn differences_are_named() {
        let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        let found = differences(
            &value(r#"{"a":{"b":1,"c":2},"d":3}"#),
            &value(r#"{"a":{"b":1,"c":4},"e":5}"#),
        );
        assert_eq!(found, ["a.c: 2, found 4", "d: 3, found null", "e: null, found 5"]);
    }
}
