//! What the history answers with.

use std::{collections::BTreeMap, path::PathBuf};

use llmflow_contract::{Digest, Failure, Kind, Locks, Port, StageId};
use serde::Serialize;
use serde_json::Value;

use crate::{
    event::{RunId, RunStatus},
    pipeline::Overrides,
    plan::Selection,
};

/// The file a run was started with.
#[derive(Clone, Debug, PartialEq)]
pub struct PipelineRow {
    /// Absolute.
    pub path: PathBuf,
    pub name: String,
    pub text: String,
    /// The file's params with their final values.
    pub params: BTreeMap<String, Value>,
    /// All that was asked in place of what the file says.
    pub overrides: Overrides,
    /// The run that this one goes on with.
    pub resumes: Option<RunId>,
    /// What its remote sources were found to be.
    pub locks: Locks,
    /// Which stages were asked for.
    pub selection: Selection,
    /// The store's URL, where it is not the home's own.
    pub store: Option<String>,
}

/// One run.
#[derive(Clone, Debug, Serialize)]
pub struct RunRow {
    pub run: RunId,
    pub pipeline: String,
    pub status: RunStatus,
    /// Milliseconds since 1970 (UTC).
    pub started_ms: u64,
    pub seconds: Option<f64>,
    pub ran: u32,
    pub cached: u32,
    pub failed: u32,
    pub refused: u32,
    pub skipped: u32,
    /// Those that had begun.
    pub interrupted: u32,
    /// What differed from the last success, in one line; empty for a first run.
    pub changed: String,
    /// Of a rehearsal: `--limit`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// `--set`, as typed.
    pub set: Vec<String>,
    /// `--params-file`, absolute; of old runs as typed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub params_file: Option<PathBuf>,
    /// `--profile`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// The run that this one goes on with.
    pub resumes: Option<RunId>,
    /// Where it ran: the host's name.
    pub machine: String,
    /// Of LLMflow.
    pub version: String,
    /// No run of this pipeline came before it.
    pub is_first: bool,
}

/// One attempt at a stage.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AttemptRow {
    /// From 1.
    pub attempt: u32,
    /// From its start to its end; none of one that never came to an end.
    pub seconds: Option<f64>,
    pub failure: Option<Failure>,
}

/// One stage of a run.
#[derive(Clone, Debug, Serialize)]
pub struct StageRow {
    pub stage: StageId,
    pub operator: String,
    pub version: u32,
    /// `waiting`, `running`, `ran`, `cached`, `failed`, `refused`, `skipped`, `interrupted`.
    pub status: String,
    pub key: Option<Digest>,
    pub seconds: Option<f64>,
    pub summary: String,
    pub attempts: u32,
    pub failure: Option<Failure>,
    /// Stages it waits for, data and `after`.
    pub needs: Vec<StageId>,
    /// The main output first.
    pub outputs: Vec<OutputRow>,
    pub inputs: Vec<InputRow>,
    pub metrics: BTreeMap<String, f64>,
}

/// One output of a stage; without a digest until the stage has succeeded.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OutputRow {
    pub port: Port,
    pub kind: Kind,
    pub digest: Option<Digest>,
}

/// One input of a stage, and the output it reads.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InputRow {
    pub port: Port,
    /// The name it goes by where the pipeline gives its port a map.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    pub from_stage: StageId,
    pub from_port: Port,
    pub digest: Option<Digest>,
    /// The digest where it need not be what the stage gave in this run: a frozen stage read that once.
    #[serde(skip)]
    pub noted: Option<Digest>,
}

impl InputRow {
    /// As a key names it behind `in.`: `data`; with a label `data.code`.
    pub fn slot(&self) -> String {
        slot(&self.port, self.label.as_deref())
    }
}

pub(super) fn slot(port: &Port, label: Option<&str>) -> String {
    label.map_or_else(|| port.to_string(), |label| format!("{port}.{label}"))
}

/// A place where an artifact was made or read.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Whereabouts {
    pub run: RunId,
    pub stage: StageId,
    pub port: Port,
}
