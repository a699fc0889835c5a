//! What an evaluation is of, and how it went.

use serde::{Deserialize, Serialize};

use crate::suite::Metric;

/// Hex digits of an evaluation's id.
pub const ID_CHARS: usize = 16;

/// Everything that decides what the results are. Its digest is the evaluation's id: the same
/// command finds what it began.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Of the suite's content.
    pub suite_digest: String,
    /// Of the model's files.
    pub model_digest: String,
    /// Of the adapter's files.
    pub adapter_digest: Option<String>,
    /// Only the first items.
    pub limit: Option<usize>,
    /// Where random numbers begin.
    pub seed: u64,
    /// How answers are sampled.
    pub temperature: f32,
    /// How quantized weights are multiplied.
    pub numerics: String,
    /// Whether the exact mode was asked for.
    pub exact: bool,
    /// Most tokens that a prediction sees.
    pub window: usize,
    /// The version of Feilun: another one may compute something else.
    pub version: String,
}

impl Identity {
    /// The evaluation's id.
    pub fn id(&self) -> String {
        // Strings and numbers: there is nothing that JSON could not say.
        let json = serde_json::to_vec(self).unwrap_or_default();
        blake3::hash(&json).to_hex()[..ID_CHARS].to_owned()
    }
}

/// What an evaluation is of, and how far it is.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Manifest {
    /// Its id.
    pub id: String,
    /// What decides the results.
    pub identity: Identity,
    /// The suite's name.
    pub suite: String,
    /// How the model was called.
    pub model: String,
    /// How the adapter was called.
    pub adapter: Option<String>,
    /// Items that are to be answered.
    pub num_items: usize,
    /// What is measured; the metric that counts comes first.
    pub metrics: Vec<Metric>,
    /// When it was begun, in seconds since 1970.
    pub begun: u64,
    /// When its last item was answered; absent while items are left.
    pub finished: Option<u64>,
    /// Seconds of work, over all times that it was taken up; those of a killed process are not
    /// known.
    pub seconds: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_follow_from_what_decides_the_results() {
        let identity = Identity {
            suite_digest: "aa".into(),
            model_digest: "bb".into(),
            adapter_digest: None,
            limit: None,
            seed: 0,
            temperature: 0.0,
            numerics: "native".into(),
            exact: false,
            window: 4096,
            version: "0.1.0".into(),
        };
        // Written down, so that nobody changes the format of evaluations that are stored.
        let json = serde_json::to_string(&identity).unwrap();
        assert_eq!(
            json,
            r#"{"suite_digest":"aa","model_digest":"bb","adapter_digest":null,"limit":null,"seed":0,"temperature":0.0,"numerics":"native","exact":false,"window":4096,"version":"0.1.0"}"#
        );
        assert_eq!(identity.id().len(), ID_CHARS);
        for other in [
            Identity { limit: Some(3), ..identity.clone() },
            Identity { seed: 1, ..identity.clone() },
            Identity { temperature: 0.5, ..identity.clone() },
            Identity { adapter_digest: Some("cc".into()), ..identity.clone() },
        ] {
            assert_ne!(other.id(), identity.id());
        }
    }
}
