//! What a report tells, as plain data: gathered once, then written as HTML or Markdown.
//!
//! Must not know: where it came from, how it looks.

use std::{collections::BTreeMap, path::PathBuf};

use llmflow_contract::{Digest, Facts, Failure, Kind, Port, Report, Series, StageId};
use llmflow_runtime::{
    event::{Compute, RunStatus},
    lineage::NOT_STARTED,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::render::asked::Asked;

/// One run, whole.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReportData {
    pub run: String,
    pub pipeline: String,
    pub status: RunStatus,
    /// Milliseconds since 1970 (UTC).
    pub started_ms: u64,
    pub seconds: Option<f64>,
    /// What differed from the last success, in one line; empty for a first run.
    pub changed: String,
    /// In an order that ran.
    pub stages: Vec<StageData>,
    /// Paths of what was published.
    pub published: Vec<PathBuf>,
    pub source: SourceData,
    pub machine: MachineData,
}

/// The pipeline file as this run read it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SourceData {
    pub path: PathBuf,
    pub text: String,
    /// What was asked beside it.
    pub asked: Asked,
    /// The file's params with their final values.
    pub params: BTreeMap<String, Value>,
}

/// What it ran on, and with.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct MachineData {
    pub compute: Compute,
    pub home: PathBuf,
    /// Machines that made its results, by name.
    pub names: Vec<String>,
    /// Of LLMflow, that made its results.
    pub versions: Vec<String>,
}

/// One stage of the run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StageData {
    pub stage: StageId,
    pub operator: String,
    pub version: u32,
    pub status: Status,
    pub key: Option<Digest>,
    /// Of the attempt that gave the result, in this run or an earlier one.
    pub seconds: Option<f64>,
    pub summary: String,
    pub attempts: u32,
    pub failure: Option<Failure>,
    /// The last lines its worker printed, if it failed.
    pub log: Vec<String>,
    /// The condition that does not hold, and why.
    pub refused: Option<(String, String)>,
    pub skipped_because: Option<String>,
    /// Stages it waits for: those of its inputs, then those it is only `after`.
    pub needs: Vec<StageId>,
    pub inputs: Vec<InputData>,
    pub outputs: Vec<OutputData>,
    /// Params that differ from their default, sources, seed, numerics: the parts of its key but operator and inputs.
    pub settings: Vec<(String, String)>,
    pub metrics: BTreeMap<String, f64>,
    pub report: Option<Report>,
    /// Metrics over steps.
    pub series: Vec<Series>,
}

/// How a stage stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Waiting,
    Running,
    Ran,
    Cached,
    Failed,
    Refused,
    Skipped,
    Interrupted,
    /// The run was interrupted before it came to it.
    NotStarted,
}

impl Status {
    const ALL: [Self; 9] = [
        Self::Waiting,
        Self::Running,
        Self::Ran,
        Self::Cached,
        Self::Failed,
        Self::Refused,
        Self::Skipped,
        Self::Interrupted,
        Self::NotStarted,
    ];

    /// The word that lineage has for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Ran => "ran",
            Self::Cached => "cached",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::Skipped => "skipped",
            Self::Interrupted => "interrupted",
            Self::NotStarted => NOT_STARTED,
        }
    }

    pub fn from_name(name: &str) -> Self {
        Self::ALL.into_iter().find(|status| status.name() == name).unwrap_or(Self::Waiting)
    }

    /// Its sign, always beside the word.
    pub fn sign(self) -> &'static str {
        match self {
            Self::Ran => "✓",
            Self::Cached => "≡",
            Self::Failed | Self::Refused => "✗",
            Self::Running => "●",
            Self::Waiting | Self::Skipped | Self::NotStarted => "○",
            Self::Interrupted => "◐",
        }
    }
}

/// An input, and the output it reads.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct InputData {
    pub port: Port,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    pub from_stage: StageId,
    pub from_port: Port,
    pub digest: Option<Digest>,
}

/// An output, and what is known of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OutputData {
    pub port: Port,
    pub kind: Kind,
    pub digest: Option<Digest>,
    pub facts: Facts,
    pub size_bytes: Option<u64>,
}

impl ReportData {
    pub fn find(&self, stage: &StageId) -> Option<&StageData> {
        self.stages.iter().find(|other| other.stage == *stage)
    }
    pub fn count(&self, status: Status) -> usize {
        self.stages.iter().filter(|stage| stage.status == status).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_survives_its_name() {
        assert!(Status::ALL.into_iter().all(|status| Status::from_name(status.name()) == status));
    }
}
