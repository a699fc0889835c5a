//! `/v1/fine_tuning/jobs`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::number::{Real, Whole};
use super::strict::WireRequest;
use crate::http::query::WireQuery;

/// A request for a fine-tuned model: an adapter on a base.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "CreateFineTuningJobRequest")]
pub(crate) struct JobRequest {
    /// The model to begin from; see `/v1/models`.
    pub(crate) model: String,
    /// The id of a file of examples.
    pub(crate) training_file: String,
    /// Not supported: a share of the examples is kept back to measure on.
    #[serde(default)]
    pub(crate) validation_file: Option<String>,
    /// The older place for them; `method` has its own.
    #[serde(default)]
    pub(crate) hyperparameters: Option<Hyperparameters>,
    #[serde(default)]
    pub(crate) method: Option<Method>,
    /// Becomes a part of the model's name.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub(crate) suffix: Option<String>,
    #[serde(default)]
    pub(crate) seed: Option<Whole<0, 2_147_483_647>>,
    /// Not supported: the server calls nobody.
    #[serde(default)]
    pub(crate) integrations: Option<Vec<Value>>,
    #[serde(default)]
    pub(crate) metadata: Option<BTreeMap<String, String>>,
}

impl WireRequest for JobRequest {}

/// How it is trained.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum Method {
    /// On conversations: to answer as they do.
    Supervised {
        #[serde(default)]
        supervised: Option<Supervised>,
    },
    /// On pairs of answers: to prefer what is preferred.
    Dpo {
        #[serde(default)]
        dpo: Option<Dpo>,
    },
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Supervised {
    #[serde(default)]
    pub(crate) hyperparameters: Option<Hyperparameters>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Dpo {
    #[serde(default)]
    pub(crate) hyperparameters: Option<DpoHyperparameters>,
}

pub(crate) type Epochs = OrAuto<Whole<1, 50>>;
pub(crate) type BatchSize = OrAuto<Whole<1, 256>>;
pub(crate) type Multiplier = OrAuto<Real<0, 100>>;
pub(crate) type Beta = OrAuto<Real<0, 2>>;

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Hyperparameters {
    /// Passes over the examples; 3 without it.
    #[serde(default)]
    pub(crate) n_epochs: Option<Epochs>,
    /// Examples of a step.
    #[serde(default)]
    pub(crate) batch_size: Option<BatchSize>,
    /// Factor on the usual learning rate.
    #[serde(default)]
    pub(crate) learning_rate_multiplier: Option<Multiplier>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DpoHyperparameters {
    /// How dear it is to leave the base.
    #[serde(default)]
    pub(crate) beta: Option<Beta>,
    #[serde(default)]
    pub(crate) n_epochs: Option<Epochs>,
    #[serde(default)]
    pub(crate) batch_size: Option<BatchSize>,
    #[serde(default)]
    pub(crate) learning_rate_multiplier: Option<Multiplier>,
}

/// A number, or `"auto"`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum OrAuto<T> {
    Auto,
    Value(T),
}

impl<T: Copy> OrAuto<T> {
    pub(crate) fn value(self) -> Option<T> {
        match self {
            OrAuto::Auto => None,
            OrAuto::Value(value) => Some(value),
        }
    }
}

impl<T> From<Option<T>> for OrAuto<T> {
    fn from(value: Option<T>) -> OrAuto<T> {
        value.map_or(OrAuto::Auto, OrAuto::Value)
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for OrAuto<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(text) if text == "auto" => Ok(OrAuto::Auto),
            value => T::deserialize(value)
                .map(OrAuto::Value)
                .map_err(|error| D::Error::custom(format_args!("{error}, or \"auto\""))),
        }
    }
}

impl<T: Serialize> Serialize for OrAuto<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            OrAuto::Auto => serializer.serialize_str("auto"),
            OrAuto::Value(value) => value.serialize(serializer),
        }
    }
}

impl<T: JsonSchema> JsonSchema for OrAuto<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "OrAuto".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({"anyOf": [{"const": "auto"}, generator.subschema_for::<T>()]})
    }
}

/// A page of jobs, or of a job's events.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct JobsQuery {
    /// The last of the page before.
    pub(crate) after: Option<String>,
    pub(crate) limit: Option<Whole<1, 1000>>,
}

impl WireQuery for JobsQuery {
    const LITERALS: &'static [&'static str] = &["limit"];
}

/// Which events.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EventsQuery {
    /// The last of the page before.
    pub(crate) after: Option<String>,
    pub(crate) limit: Option<Whole<1, 1000>>,
    /// As a stream, the oldest first, until the job has ended.
    pub(crate) stream: Option<bool>,
}

impl WireQuery for EventsQuery {
    const LITERALS: &'static [&'static str] = &["limit", "stream"];
}

/// A job.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "FineTuningJob")]
pub(crate) struct Job {
    pub(crate) id: String,
    pub(crate) object: &'static str,
    /// Seconds since 1970.
    pub(crate) created_at: u64,
    pub(crate) finished_at: Option<u64>,
    /// The base.
    pub(crate) model: String,
    /// What to write as `model`, once it is there.
    pub(crate) fine_tuned_model: Option<String>,
    pub(crate) organization_id: &'static str,
    /// `queued`, `running`, `succeeded`, `failed` or `cancelled`.
    pub(crate) status: &'static str,
    pub(crate) error: Option<JobError>,
    pub(crate) hyperparameters: UsedHyperparameters,
    pub(crate) method: UsedMethod,
    pub(crate) training_file: String,
    pub(crate) validation_file: Option<String>,
    pub(crate) result_files: [String; 0],
    pub(crate) integrations: [String; 0],
    pub(crate) seed: u64,
    pub(crate) trained_tokens: Option<u64>,
    pub(crate) estimated_finish: Option<u64>,
    pub(crate) metadata: BTreeMap<String, String>,
}

/// Why a job failed.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "FineTuningJobError")]
pub(crate) struct JobError {
    pub(crate) code: &'static str,
    pub(crate) message: String,
    pub(crate) param: Option<String>,
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct UsedHyperparameters {
    pub(crate) n_epochs: u64,
    pub(crate) batch_size: OrAuto<u64>,
    pub(crate) learning_rate_multiplier: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) beta: Option<f64>,
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct UsedMethod {
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) supervised: Option<WithHyperparameters>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dpo: Option<WithHyperparameters>,
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct WithHyperparameters {
    pub(crate) hyperparameters: UsedHyperparameters,
}

/// A page of jobs.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct JobList {
    pub(crate) object: &'static str,
    pub(crate) data: Vec<Job>,
    pub(crate) has_more: bool,
}

/// Something that happened in a job.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "FineTuningJobEvent")]
pub(crate) struct JobEvent {
    pub(crate) id: String,
    pub(crate) object: &'static str,
    /// Seconds since 1970.
    pub(crate) created_at: u64,
    /// `info`, `warn` or `error`.
    pub(crate) level: String,
    pub(crate) message: String,
    /// `message` or `metrics`.
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    pub(crate) data: Value,
}

/// A page of events, the newest first.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct JobEventList {
    pub(crate) object: &'static str,
    pub(crate) data: Vec<JobEvent>,
    pub(crate) has_more: bool,
}
