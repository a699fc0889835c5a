//! Configurations, each kept once and named by a hash of its canonical JSON.
//!
//! Every turn, feedback and event bears the hash of the configuration under which it was made.

use serde_json::Value as Json;

use crate::db::{Connection, Insert, values};
use crate::digest::ConfigHash;
use crate::error::StoreError;
use crate::limits::json_text;
use crate::store::Store;
use crate::timestamp::Timestamp;
use crate::write::Write;

struct RecordConfig {
    hash: ConfigHash,
    json: String,
}

impl Store {
    /// Keeps a configuration, if it is not there yet, and names it.
    pub async fn record_config(&self, config: &Json) -> Result<ConfigHash, StoreError> {
        let json = canonical(config)?;
        let hash = ConfigHash::from_bytes(blake3::hash(json.as_bytes()).into());
        self.write(RecordConfig { hash, json }).await?;
        Ok(hash)
    }

    /// The configuration of this name.
    pub async fn config(&self, hash: ConfigHash) -> Result<Json, StoreError> {
        let sql = "SELECT json FROM configs WHERE hash = $1";
        let row = self.readers().row(sql, values![hash]).await?;
        row.ok_or(StoreError::NoSuchConfig(hash))?.columns().next()
    }
}

impl Write for RecordConfig {
    type Output = ();

    async fn apply(&self, connection: &mut Connection) -> Result<(), StoreError> {
        Insert::into("configs")
            .set("hash", self.hash)
            .set("json", self.json.as_str())
            .set("created_at", Timestamp::now())
            .run(connection)
            .await
            .map(drop)
    }
}

/// JSON in one spelling: keys in the order of their bytes, no spaces, numbers as `serde_json`
/// writes them.
fn canonical(value: &Json) -> Result<String, StoreError> {
    // The bound on depth lets the sorting be recursive.
    json_text("config", value)?;
    json_text("config", &sorted(value))
}

fn sorted(value: &Json) -> Json {
    match value {
        Json::Array(items) => items.iter().map(sorted).collect(),
        Json::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| key.as_bytes());
            entries.into_iter().map(|(key, item)| (key.clone(), sorted(item))).collect()
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_space_do_not_matter() {
        let one = serde_json::from_str(r#"{"b": [1, {"z": null, "y": 0.1}], "a": "飞"}"#).unwrap();
        let other = serde_json::from_str(r#"{"a":"飞","b":[1,{"y":0.1,"z":null}]}"#).unwrap();
        assert_eq!(canonical(&one).unwrap(), canonical(&other).unwrap());
        assert_eq!(canonical(&one).unwrap(), r#"{"a":"飞","b":[1,{"y":0.1,"z":null}]}"#);
    }
}
