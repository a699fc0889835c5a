//! Feedback: what somebody says of a turn. It is added and never changed; it goes when its turn
//! goes.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use crate::db::{Connection, Insert, Row, values};
use crate::digest::ConfigHash;
use crate::error::StoreError;
use crate::id::{FeedbackId, KeyId, TurnId, UserId};
use crate::limits::{
    JSON_BYTES_MAX, TAGS_MAX, check_count, check_finite, check_name, check_name_if_any,
    check_text_length, json_text,
};
use crate::named::named;
use crate::store::Store;
use crate::timestamp::Timestamp;
use crate::write::Write;

/// Of one turn, how much feedback is read.
const FEEDBACK_MAX: i64 = 1000;

named! {
    /// What kind of feedback.
    pub enum FeedbackKind {
        /// A thumb, up or down.
        Rating = "rating",
        /// A number.
        Score = "score",
        /// A text.
        Comment = "comment",
        /// The answer as it should have been.
        Demonstration = "demonstration",
        /// One answer over another.
        Comparison = "comparison",
    }
}

/// What somebody says of a turn.
#[derive(Clone, Debug, PartialEq)]
pub enum FeedbackValue {
    /// Good, or not.
    Rating(bool),
    /// A finite number, whose meaning the application knows.
    Score(f64),
    /// A text.
    Comment(String),
    /// The message as it should have been: a JSON object, or a text.
    Demonstration(Json),
    /// One answer is better than another. The turn is one of the two.
    Comparison {
        /// The better one.
        preferred: TurnId,
        /// The other one.
        over: TurnId,
    },
}

impl FeedbackValue {
    /// Its kind.
    pub fn kind(&self) -> FeedbackKind {
        match self {
            Self::Rating(_) => FeedbackKind::Rating,
            Self::Score(_) => FeedbackKind::Score,
            Self::Comment(_) => FeedbackKind::Comment,
            Self::Demonstration(_) => FeedbackKind::Demonstration,
            Self::Comparison { .. } => FeedbackKind::Comparison,
        }
    }
}

/// Feedback, to be added.
#[derive(Clone, Debug, PartialEq)]
pub struct NewFeedback {
    /// Of which turn.
    pub turn: TurnId,
    /// What is said.
    pub value: FeedbackValue,
    /// Of which answer, where the turn has several.
    pub choice: Option<u32>,
    /// Whatever the application wants to find it by.
    pub tags: BTreeMap<String, String>,
    /// Who says it, if it is somebody with an account.
    pub user: Option<UserId>,
    /// Who says it, in the words of the application.
    pub end_user: Option<String>,
    /// The key that it came with.
    pub key: Option<KeyId>,
    /// The configuration of the server, recorded before.
    pub config: ConfigHash,
}

/// Feedback, as it was added.
#[derive(Clone, Debug, PartialEq)]
pub struct Feedback {
    /// Its id.
    pub id: FeedbackId,
    /// What was given to the store.
    pub recorded: NewFeedback,
    /// When it was added.
    pub created_at: Timestamp,
}

impl Store {
    /// Adds feedback to a turn. It returns once it is committed.
    pub async fn add_feedback(&self, feedback: NewFeedback) -> Result<FeedbackId, StoreError> {
        self.write(AddFeedback::new(feedback)?).await
    }

    /// All feedback of a turn, the oldest first; of more than a thousand, the newest thousand.
    pub async fn feedback_of(&self, turn: TurnId) -> Result<Vec<Feedback>, StoreError> {
        let sql = "SELECT id, turn_id, kind, rating, score, body, preferred_id, over_id, choice,
            tags, user_id, end_user, key_id, config_hash, created_at
            FROM feedback WHERE turn_id = $1 ORDER BY id DESC LIMIT $2";
        let rows = self.readers().rows(sql, values![turn, FEEDBACK_MAX]).await?;
        rows.iter().rev().map(feedback_of).collect()
    }
}

struct AddFeedback {
    feedback: NewFeedback,
    row: Insert,
    bytes: usize,
}

impl AddFeedback {
    fn new(feedback: NewFeedback) -> Result<Self, StoreError> {
        check(&feedback)?;
        let (mut rating, mut score, mut body, mut compared) = (None, None, None, None);
        match &feedback.value {
            FeedbackValue::Rating(good) => rating = Some(*good),
            FeedbackValue::Score(number) => score = Some(*number),
            FeedbackValue::Comment(text) => body = Some(Json::from(text.as_str())),
            FeedbackValue::Demonstration(message) => body = Some(message.clone()),
            FeedbackValue::Comparison { preferred, over } => compared = Some((*preferred, *over)),
        }
        let body = body.map(|body| json_text("value", &body)).transpose()?;
        let bytes = 1024 + body.as_deref().map_or(0, str::len);
        let tags = feedback.tags.iter().map(|(name, tag)| (name.clone(), tag.as_str().into()));
        let row = Insert::into("feedback")
            .set("turn_id", feedback.turn)
            .set("kind", feedback.value.kind())
            .set("rating", rating)
            .set("score", score)
            .set("body", body)
            .set("preferred_id", compared.map(|(preferred, _)| preferred))
            .set("over_id", compared.map(|(_, over)| over))
            .set("choice", feedback.choice)
            .set("tags", Json::Object(tags.collect()))
            .set("user_id", feedback.user)
            .set("end_user", feedback.end_user.as_deref())
            .set("key_id", feedback.key)
            .set("config_hash", feedback.config);
        Ok(Self { feedback, row, bytes })
    }
}

impl Write for AddFeedback {
    type Output = FeedbackId;

    async fn apply(&self, connection: &mut Connection) -> Result<FeedbackId, StoreError> {
        check_references(connection, self.feedback.turn, self.feedback.config).await?;
        if let FeedbackValue::Comparison { preferred, over } = self.feedback.value {
            for turn in [preferred, over] {
                check_references(connection, turn, self.feedback.config).await?;
            }
        }
        let id = FeedbackId::new();
        let row = self.row.clone().set("id", id).set("created_at", Timestamp::now());
        row.run(connection).await?;
        Ok(id)
    }

    fn bytes(&self) -> usize {
        self.bytes
    }
}

/// That there is such a turn, and such a configuration. Where the turn goes in the same moment,
/// the foreign key has the last word.
pub(crate) async fn check_references(
    connection: &mut Connection,
    turn: TurnId,
    config: ConfigHash,
) -> Result<(), StoreError> {
    let sql = "SELECT (SELECT 1 FROM turns WHERE id = $1),
        (SELECT 1 FROM configs WHERE hash = $2)";
    let row = connection.row(sql, values![turn, config]).await?;
    let row = row.ok_or_else(|| StoreError::damaged("an answer without a row"))?;
    let mut columns = row.columns();
    let (turn_is_there, config_is_there) = (columns.next_is_there()?, columns.next_is_there()?);
    if !turn_is_there {
        return Err(StoreError::NoSuchTurn(turn));
    }
    if !config_is_there {
        return Err(StoreError::NoSuchConfig(config));
    }
    Ok(())
}

fn check(feedback: &NewFeedback) -> Result<(), StoreError> {
    check_name_if_any("end_user", feedback.end_user.as_deref())?;
    check_count("tags", feedback.tags.len(), TAGS_MAX)?;
    for (name, tag) in &feedback.tags {
        check_name("tag", name)?;
        check_name("tag", tag)?;
    }
    let invalid = |found: String, expected: &str| {
        Err(StoreError::Invalid { field: "value", found, expected: expected.to_owned() })
    };
    match &feedback.value {
        FeedbackValue::Rating(_) => Ok(()),
        FeedbackValue::Score(number) => check_finite("value", *number),
        FeedbackValue::Comment(text) => check_text_length("value", text, JSON_BYTES_MAX / 8),
        FeedbackValue::Demonstration(Json::Object(_) | Json::String(_)) => Ok(()),
        FeedbackValue::Demonstration(_) => invalid("other JSON".to_owned(), "a message or a text"),
        FeedbackValue::Comparison { preferred, over } if preferred == over => {
            invalid(format!("{preferred} twice"), "two different turns")
        }
        FeedbackValue::Comparison { preferred, over } => {
            if ![preferred, over].contains(&&feedback.turn) {
                return invalid(format!("{preferred} and {over}"), "the turn as one of the two");
            }
            Ok(())
        }
    }
}

fn feedback_of(row: &Row) -> Result<Feedback, StoreError> {
    let mut columns = row.columns();
    let id: FeedbackId = columns.next()?;
    let (turn, kind) = (columns.next()?, columns.next()?);
    let (rating, score): (Option<bool>, Option<f64>) = (columns.next()?, columns.next()?);
    let body: Option<Json> = columns.next()?;
    let compared: (Option<TurnId>, Option<TurnId>) = (columns.next()?, columns.next()?);
    let value = match (kind, rating, score, body, compared) {
        (FeedbackKind::Rating, Some(good), None, None, _) => FeedbackValue::Rating(good),
        (FeedbackKind::Score, None, Some(number), None, _) => FeedbackValue::Score(number),
        (FeedbackKind::Comment, None, None, Some(Json::String(text)), _) => {
            FeedbackValue::Comment(text)
        }
        (FeedbackKind::Demonstration, None, None, Some(message), _) => {
            FeedbackValue::Demonstration(message)
        }
        (FeedbackKind::Comparison, None, None, None, (Some(preferred), Some(over))) => {
            FeedbackValue::Comparison { preferred, over }
        }
        _ => return Err(StoreError::damaged(format!("feedback {id:?} is no {kind}"))),
    };
    let recorded = NewFeedback {
        turn,
        value,
        choice: columns.next()?,
        tags: tags_of(columns.next()?)?,
        user: columns.next()?,
        end_user: columns.next()?,
        key: columns.next()?,
        config: columns.next()?,
    };
    Ok(Feedback { id, recorded, created_at: columns.next()? })
}

fn tags_of(json: Json) -> Result<BTreeMap<String, String>, StoreError> {
    serde_json::from_value(json).map_err(|error| StoreError::damaged(format!("tags: {error}")))
}
