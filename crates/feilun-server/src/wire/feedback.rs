//! `POST /v1/feedback` and `POST /v1/events`: what users say of an answer, and what they do.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::message::WireMessage;
use super::number::Whole;
use super::strict::WireRequest;

/// What somebody says of a turn. Append-only: a change of mind is another one.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FeedbackRequest {
    /// The `id` of a completion.
    #[schemars(with = "String", extend("format" = "uuid"))]
    pub(crate) turn_id: Uuid,
    pub(crate) kind: FeedbackKind,
    /// By kind: a boolean, a number, a text, a message, or `{"preferred": turn, "over": turn}`.
    pub(crate) value: Value,
    /// Which of several choices; 0 without it.
    #[serde(default)]
    pub(crate) choice: Option<Whole<0, 63>>,
    #[serde(default)]
    /// Whatever you want to find it by.
    pub(crate) tags: Option<BTreeMap<String, String>>,
    /// Who says it, in your words.
    #[serde(default)]
    pub(crate) user: Option<String>,
}

impl WireRequest for FeedbackRequest {}

/// The kinds of feedback.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FeedbackKind {
    /// Up (`true`) or down.
    Rating,
    /// A number.
    Score,
    /// A text.
    Comment,
    /// The answer as it should have been: an assistant's message.
    Demonstration,
    /// One turn over another.
    Comparison,
}

/// The value of a comparison.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Comparison {
    #[schemars(with = "String", extend("format" = "uuid"))]
    pub(crate) preferred: Uuid,
    #[schemars(with = "String", extend("format" = "uuid"))]
    pub(crate) over: Uuid,
}

/// The value of a demonstration.
pub(crate) type Demonstration = WireMessage;

/// What a user did with an answer.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EventRequest {
    #[schemars(with = "String", extend("format" = "uuid"))]
    pub(crate) turn_id: Uuid,
    pub(crate) kind: EventKind,
    /// What belongs to it, such as the text after an edit: an object.
    #[serde(default)]
    pub(crate) detail: Option<Value>,
    /// Who did it, in your words.
    #[serde(default)]
    pub(crate) user: Option<String>,
}

impl WireRequest for EventRequest {}

/// The kinds of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum EventKind {
    Regenerate,
    Edit,
    Copy,
    Stop,
    Continue,
    Abandon,
}

/// The id of what was recorded.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Recorded {
    pub(crate) id: String,
    pub(crate) object: &'static str,
}
