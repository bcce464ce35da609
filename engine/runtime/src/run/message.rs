//! What engine and workers say to each other: JSON lines on a socket of their own.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

use llmflow_contract::{Digest, Failure, Lease, Progress, StageId, Work, nan};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::secret::Secrets;
use crate::{
    event::RunId,
    plan::{Component, Reading},
    store::KeyRecord,
};

/// A self-contained piece of work: nothing else is needed to do it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Assignment {
    pub stage: StageId,
    pub attempt: u32,
    pub operator: String,
    pub version: u32,
    /// Settled.
    pub params: Value,
    pub inputs: Reading,
    pub seed: u64,
    pub lease: Lease,
    /// The GPUs of its lease, as records name them.
    pub gpus: String,
    pub key: Digest,
    pub components: Vec<Component>,
    /// How much there is to do.
    pub amount: Work,
    /// The address of its checkpoints together with those of work that goes further or less far.
    pub kin: Option<Digest>,
    pub store: String,
    /// The home's `work/`.
    pub work: PathBuf,
    /// The pipeline file's folder.
    pub base: PathBuf,
    /// Rows marked `eval` go in: the outputs carry the mark.
    pub marks_eval: bool,
    /// Its record takes the place of one that is there.
    pub replaces: bool,
    /// It was asked for although its result is there: nothing that was saved serves.
    pub is_afresh: bool,
    /// The run that asked for it anew: nothing serves that was remembered before that. Those that go on with it keep it.
    pub anew: Option<RunId>,
    /// Files read from outside, with the content that is in the key.
    pub sources: Vec<(PathBuf, Digest)>,
    /// For this worker alone.
    pub secrets: Secrets,
    /// Its operator runs code of the user's.
    pub is_foreign: bool,
    /// The network is to be left alone.
    pub is_offline: bool,
    /// Keep the operator's service up instead of running it.
    pub serve: bool,
}

/// From the engine.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToWorker {
    Assign(Box<Assignment>),
    /// One step more, one save, then stop.
    Cancel,
}

/// From a worker.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromWorker {
    /// First line: the token it was started with.
    Hello(String),
    Progress(Progress),
    Metric {
        name: String,
        #[serde(deserialize_with = "nan::one")]
        value: f64,
        step: Option<u64>,
        reproducible: bool,
    },
    Checkpoint,
    Restored,
    /// A service listens here.
    Serving(SocketAddr),
    /// Published and committed.
    Done(Box<KeyRecord>),
    Failed(Failure),
}

/// Metrics by name, the last value of each.
pub type Metrics = BTreeMap<String, f64>;
