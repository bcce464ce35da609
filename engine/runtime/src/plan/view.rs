//! A plan as people and programs read it.

use llmflow_contract::{Digest, StageId};
use serde::{Deserialize, Serialize};

use crate::event::Finished;

/// What a plan says of each stage, in an order that runs.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PlanView {
    pub stages: Vec<StageView>,
}

/// What will happen to one stage, and why.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StageView {
    pub stage: StageId,
    pub operator: String,
    pub version: u32,
    /// Stages it needs, data and `after`.
    pub needs: Vec<StageId>,
    pub will: Will,
    /// Seconds that its last run took, if there was one.
    pub seconds: Option<f64>,
    pub memory_bytes: u64,
    pub disk_bytes: u64,
}

/// What will happen.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "will", rename_all = "snake_case")]
pub enum Will {
    /// Its key has no record.
    Run {
        key: Digest,
        because: Vec<Change>,
    },
    Cached {
        key: Digest,
        finished: Finished,
    },
    /// Runs only if these give other bytes than before.
    Waits {
        on: Vec<StageId>,
    },
}

/// One part of a key that differs from the stage's last success. No parts: it never ran.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// `with.lora_r`, `in.data`, `operator`.
    pub part: String,
    pub before: Option<String>,
    pub now: Option<String>,
    /// Where the new value comes from: `params.rank, assistant.yaml:10, set by --set`.
    pub origin: Option<String>,
}

impl PlanView {
    pub fn to_run(&self) -> usize {
        self.stages.iter().filter(|stage| !matches!(stage.will, Will::Cached { .. })).count()
    }
    pub fn cached(&self) -> usize {
        self.stages.len() - self.to_run()
    }
}
