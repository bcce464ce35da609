//! Events: everything that happens in a run, once. The live view, plain lines, `--json` and SQLite are readers.

use std::{collections::BTreeMap, path::PathBuf};

use llmflow_contract::{Digest, Failure, Port, Progress, StageId, Work, nan};
use serde::{Deserialize, Serialize};

use crate::plan::PlanView;

/// The name of a run: two words, such as `quiet-otter`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(pub String);

impl std::fmt::Display for RunId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0)
    }
}

/// One thing that happened, when, and to which stage.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Event {
    /// Milliseconds since 1970 (UTC).
    pub at_ms: u64,
    pub run: RunId,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage: Option<StageId>,
    #[serde(flatten)]
    pub what: What,
}

impl Event {
    /// The event as history keeps it: a plan is kept stage by stage.
    pub(crate) fn without_plan(&self) -> Self {
        let what = match &self.what {
            What::RunStarted { pipeline, compute, home, disk_free_bytes, .. } => What::RunStarted {
                pipeline: pipeline.clone(),
                plan: PlanView::default(),
                compute: compute.clone(),
                home: home.clone(),
                disk_free_bytes: *disk_free_bytes,
            },
            what => what.clone(),
        };
        Self { at_ms: self.at_ms, run: self.run.clone(), stage: self.stage.clone(), what }
    }
}

/// What happened.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum What {
    /// First event of a run.
    RunStarted {
        pipeline: String,
        plan: PlanView,
        compute: Compute,
        home: PathBuf,
        disk_free_bytes: Option<u64>,
    },
    /// An attempt began in a worker. `resumed`: it found a checkpoint.
    Started {
        attempt: u32,
    },
    Progress(Progress),
    /// `reproducible` metrics enter the key record.
    Metric {
        name: String,
        #[serde(deserialize_with = "nan::one")]
        value: f64,
        step: Option<u64>,
        reproducible: bool,
    },
    Log {
        level: String,
        message: String,
    },
    /// A checkpoint became durable.
    Checkpoint,
    /// The attempt continues from a checkpoint.
    Restored,
    Finished(Finished),
    /// The result was there already.
    Cached(Finished),
    Skipped {
        because: String,
    },
    /// Asked to stop: what was saved is where it goes on.
    Interrupted,
    /// An attempt failed; `retry_in_ms` when another follows.
    Failed {
        failure: Failure,
        retry_in_ms: Option<u64>,
    },
    /// Committed, but its `require` does not hold.
    Refused {
        expression: String,
        why: String,
    },
    Published {
        path: PathBuf,
        bytes: u64,
        unchanged: bool,
    },
    /// Last event of a run.
    RunFinished {
        status: RunStatus,
        seconds: f64,
    },
}

/// What a stage gave.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Finished {
    pub key: Option<Digest>,
    pub outputs: BTreeMap<Port, Digest>,
    #[serde(deserialize_with = "nan::by_name")]
    pub metrics: BTreeMap<String, f64>,
    /// One line: `301 kept · 4 too_short`.
    pub summary: String,
    pub seconds: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effort: Option<Effort>,
}

/// What a stage's work came to: later runs are forecast by it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Effort {
    /// How much there was to do, as its operator's plan put it.
    pub work: Work,
    /// Size of the files that it left in the store, in bytes.
    pub disk_bytes: u64,
}

/// What the run computes on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Compute {
    pub cores: u32,
    pub memory_bytes: u64,
    /// GPUs found: each serves programs that stages start.
    pub gpus: Vec<Gpu>,
    /// So many of them, the first, serve the operators of this build too.
    pub usable_gpus: u32,
    /// So many stages that run can hold at once.
    #[serde(default)]
    pub asked_gpus: u32,
}

impl What {
    /// Why a stage was skipped, or refused.
    pub fn reason(self) -> Option<String> {
        match self {
            Self::Skipped { because } => Some(because),
            Self::Refused { why, expression } => Some(refusal(&expression, &why)),
            _ => None,
        }
    }
}

/// Why a `require` does not hold, in one sentence: the reason names the expression already, or is joined to it.
pub fn refusal(expression: &str, why: &str) -> String {
    if why.starts_with('`') { why.to_owned() } else { format!("`{expression}`: {why}") }
}

/// One GPU, as its driver tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "RecordedGpu")]
pub struct Gpu {
    /// What `CUDA_VISIBLE_DEVICES` calls it in the engine's own environment: an ordinal, or an id given by hand.
    pub id: String,
    pub name: String,
    /// 0 where nobody asked: the run's stages want none.
    pub memory_bytes: u64,
    /// 0 where no process may compute on it now, or nobody asked.
    pub free_bytes: u64,
    /// CUDA's compute capability, such as `9.0`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capability: Option<String>,
}

/// Events of the first homes hold names alone.
#[derive(Deserialize)]
#[serde(untagged)]
enum RecordedGpu {
    Name(String),
    Whole { id: String, name: String, memory_bytes: u64, free_bytes: u64, capability: Option<String> },
}

impl From<RecordedGpu> for Gpu {
    fn from(recorded: RecordedGpu) -> Self {
        match recorded {
            RecordedGpu::Name(name) => Self { name, ..Self::default() },
            RecordedGpu::Whole { id, name, memory_bytes, free_bytes, capability } => {
                Self { id, name, memory_bytes, free_bytes, capability }
            }
        }
    }
}

/// How a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    Running,
    Done,
    Failed,
    Refused,
    /// Asked to stop, or its process died.
    Interrupted,
}

impl RunStatus {
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::Interrupted => "interrupted",
        }
    }
    pub fn from_name(name: &str) -> Self {
        [Self::Running, Self::Done, Self::Failed, Self::Refused]
            .into_iter()
            .find(|status| status.name() == name)
            .unwrap_or(Self::Interrupted)
    }
}

/// Milliseconds since 1970 (UTC).
pub fn now_ms() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_its_expression_once() {
        let refused = |why: &str| What::Refused { expression: "kept > 100".into(), why: why.into() }.reason().unwrap();
        assert_eq!(refused("`kept > 100` is false (kept = 12)"), "`kept > 100` is false (kept = 12)");
        assert_eq!(refused("no such metric"), "`kept > 100`: no such metric");
    }

    #[test]
    fn a_gpu_recorded_by_its_name_alone_is_read() {
        let text = r#"{"cores":2,"memory_bytes":1,"gpus":["NVIDIA H100"],"usable_gpus":0}"#;
        let old: Compute = serde_json::from_str(text).unwrap();
        assert_eq!((old.gpus[0].name.as_str(), old.usable_gpus), ("NVIDIA H100", 0));
        let gpu = Gpu { id: "0".into(), memory_bytes: 8, capability: Some("9.0".into()), ..old.gpus[0].clone() };
        assert_eq!(serde_json::from_str::<Gpu>(&serde_json::to_string(&gpu).unwrap()).unwrap(), gpu);
    }
}
