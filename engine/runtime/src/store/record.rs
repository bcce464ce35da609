//! The key record: the commit of one stage's work.

use std::collections::BTreeMap;

use llmflow_contract::{Digest, Entry, Facts, Kind, Port, nan};
use serde::{Deserialize, Serialize};

use crate::{event::Effort, plan::Component};

/// What a key gave, when and where. Create-only: the first to commit wins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeyRecord {
    pub key: Digest,
    pub components: Vec<Component>,
    /// Manifests by port.
    pub outputs: BTreeMap<Port, Digest>,
    /// `report` and `trace`.
    pub side: BTreeMap<Port, Digest>,
    /// Last values of the reproducible metrics.
    #[serde(deserialize_with = "nan::by_name")]
    pub metrics: BTreeMap<String, f64>,
    pub facts: BTreeMap<Port, (Kind, Facts)>,
    /// The result in one line.
    pub summary: String,
    pub seconds: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effort: Option<Effort>,
    pub attempt: u32,
    pub machine: String,
    /// Milliseconds since 1970 (UTC).
    pub at_ms: u64,
    /// Of LLMflow.
    pub version: String,
}

impl KeyRecord {
    /// Did this operator make it, in whichever version?
    pub fn is_of(&self, entry: &Entry) -> bool {
        let operator = self.components.iter().find(|part| part.part == "operator");
        operator.and_then(|part| part.value.split(' ').next()) == Some(entry.name)
    }
}
