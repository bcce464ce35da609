//! What frozen stages keep, for every home on the store.

use llmflow_contract::{Digest, Failure, Hasher, StageId};
use serde::{Deserialize, Serialize};

use super::{Store, seal};
use crate::event::RunId;

/// The result that a frozen stage of a named pipeline keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frozen {
    /// As its file states.
    pub pipeline: String,
    pub stage: StageId,
    /// Of a rehearsal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    pub key: Digest,
    /// Who noted it last.
    pub run: RunId,
}

impl Frozen {
    fn path(pipeline: &str, stage: &StageId, limit: Option<u64>) -> String {
        let limit = limit.map(|limit| limit.to_string()).unwrap_or_default();
        let mut hasher = Hasher::new();
        hasher.part(pipeline.as_bytes()).part(stage.as_str().as_bytes()).part(limit.as_bytes());
        format!("frozen/{}.json", hasher.finish())
    }
}

impl Store {
    /// What homes on this store agreed to keep of a stage.
    pub async fn frozen(&self, pipeline: &str, stage: &StageId, limit: Option<u64>) -> Result<Option<Frozen>, Failure> {
        let is_its = |found: &Frozen| (&*found.pipeline, &found.stage, found.limit) == (pipeline, stage, limit);
        let read = |bytes: &[u8]| seal::unseal::<Frozen>(bytes).filter(is_its);
        self.whole(&Frozen::path(pipeline, stage, limit), read).await
    }

    /// Notes what a frozen stage keeps, in place of what was noted before.
    pub async fn freeze(&self, frozen: &Frozen) -> Result<(), Failure> {
        let path = Frozen::path(&frozen.pipeline, &frozen.stage, frozen.limit);
        self.backend.put(&path, seal::seal(frozen)?).await
    }
}
