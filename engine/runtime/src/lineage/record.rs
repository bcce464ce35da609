//! The run record, `runs/<run>.json` in the store: all that history must be made of again where `lineage.db` is lost.
//!
//! Not in it: the points of curves, and when within the run a stage did what. Parts of keys stand in key records; here are
//! only those of stages that never came to one.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
};

use indexmap::IndexMap;
use llmflow_contract::{Digest, Failure, Kind, Locks, Port, StageId, nan};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::Row;

use super::{
    InputRow, Lineage,
    columns::{json, stage_id},
    failed, unreadable,
};
use crate::{
    event::{Compute, Event, RunId, RunStatus, What},
    pipeline::Overrides,
    plan::{Change, Component, Selection},
};

/// One run, as the store keeps it for every home.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunRecord {
    pub run: RunId,
    pub pipeline: String,
    /// Of the pipeline file; absolute.
    pub path: PathBuf,
    /// The home it took place in; absolute.
    #[serde(default)]
    pub home: PathBuf,
    pub text: String,
    /// All that was asked in place of what the file says.
    #[serde(default)]
    pub overrides: Overrides,
    pub params: BTreeMap<String, Value>,
    pub status: RunStatus,
    /// Milliseconds since 1970 (UTC).
    pub started_ms: u64,
    pub seconds: Option<f64>,
    /// What differed from the last success, in one line.
    pub changed: String,
    pub machine: String,
    /// Of LLMflow.
    pub version: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumes: Option<RunId>,
    /// What its remote sources were found to be.
    #[serde(default, skip_serializing_if = "Locks::is_empty")]
    pub locks: Locks,
    /// Which stages were asked for.
    #[serde(default, skip_serializing_if = "Selection::is_plain")]
    pub selection: Selection,
    #[serde(default)]
    pub compute: Compute,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub published: Vec<PathBuf>,
    /// In an order that ran.
    pub stages: IndexMap<StageId, StageRecord>,
}

/// An input of a stage: its port, the output it reads, and what else is known of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InputRecord(
    pub Port,
    pub StageId,
    pub Port,
    #[serde(default, skip_serializing_if = "InputAside::is_empty")] pub InputAside,
);

/// What few inputs have.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct InputAside {
    /// The name it goes by where the pipeline gives its port a map.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// What was read, where that need not be what the stage gave in this run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
}

impl InputAside {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl From<InputRow> for InputRecord {
    fn from(row: InputRow) -> Self {
        let aside = InputAside { label: row.label, digest: row.noted };
        Self(row.port, row.from_stage, row.from_port, aside)
    }
}

/// One stage of a [`RunRecord`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StageRecord {
    pub operator: String,
    pub version: u32,
    /// As in lineage: `ran`, `cached`, `failed` …
    pub status: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Digest>,
    /// What the key is made of, where no key record says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub components: Option<Vec<Component>>,
    /// Why it was going to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because: Option<Vec<Change>>,
    /// Why although nothing of its key had changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub summary: String,
    pub attempts: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// Why it was skipped or refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<What>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<StageId>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<InputRecord>,
    /// Every output by port, the main one first: its kind.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub kinds: IndexMap<Port, Kind>,
    /// Those that exist: what keeps them from `gc`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub outputs: BTreeMap<Port, Digest>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[serde(deserialize_with = "nan::by_name")]
    pub metrics: BTreeMap<String, f64>,
}

/// What a stage's row holds besides [`super::StageRow`].
#[derive(Default)]
struct Aside {
    because: Option<Vec<Change>>,
    asked: Option<String>,
    components: Option<Vec<Component>>,
}

impl Lineage {
    /// All that the store has to keep of a run, as it stands now.
    ///
    /// # Errors
    /// `lineage/run` if there is no such run; those of the database.
    pub async fn record_of(&self, run: &RunId) -> Result<RunRecord, Failure> {
        let (row, file) = (self.run(run).await?, self.pipeline_of(run).await?);
        let (mut asides, mut reasons) = (self.asides(run).await?, HashMap::new());
        let (mut compute, mut home, mut published) = (Compute::default(), PathBuf::new(), Vec::new());
        for event in self.telling_events(run).await? {
            match (event.stage, event.what) {
                (_, What::RunStarted { compute: on, home: at, .. }) => (compute, home) = (on, at),
                (_, What::Published { path, .. }) => published.push(path),
                (Some(stage), what) => drop(reasons.insert(stage, what)),
                _ => {}
            }
        }
        let mut stages = IndexMap::new();
        for stage in self.stages_of_run(run).await? {
            let aside = asides.remove(&stage.stage);
            let Aside { because, asked, components } = aside.unwrap_or_default();
            let record = StageRecord {
                operator: stage.operator,
                version: stage.version,
                status: stage.status,
                key: stage.key,
                components,
                because,
                asked,
                seconds: stage.seconds,
                summary: stage.summary,
                attempts: stage.attempts,
                failure: stage.failure,
                reason: reasons.remove(&stage.stage),
                needs: stage.needs,
                inputs: stage.inputs.into_iter().map(InputRecord::from).collect(),
                outputs: stage.outputs.iter().filter_map(|out| Some((out.port.clone(), out.digest?))).collect(),
                kinds: stage.outputs.into_iter().map(|output| (output.port, output.kind)).collect(),
                metrics: stage.metrics,
            };
            stages.insert(stage.stage, record);
        }
        Ok(RunRecord {
            run: row.run,
            pipeline: row.pipeline,
            path: file.path,
            home,
            text: file.text,
            overrides: file.overrides,
            params: file.params,
            status: row.status,
            started_ms: row.started_ms,
            seconds: row.seconds,
            changed: row.changed,
            machine: row.machine,
            version: row.version,
            resumes: file.resumes,
            locks: file.locks,
            selection: file.selection,
            compute,
            published,
            stages,
        })
    }

    async fn asides(&self, run: &RunId) -> Result<HashMap<StageId, Aside>, Failure> {
        let rows = sqlx::query(
            "SELECT stage, because, asked, CASE WHEN status IN ('ran', 'cached', 'refused') THEN NULL ELSE components END AS parts
             FROM stages WHERE run = ?",
        )
        .bind(&run.0)
        .fetch_all(&self.pool)
        .await
        .map_err(failed)?;
        rows.iter()
            .map(|row| {
                let aside = Aside {
                    because: json(row, "because")?,
                    asked: row.try_get("asked").map_err(failed)?,
                    components: json(row, "parts")?,
                };
                Ok((stage_id(row, "stage")?, aside))
            })
            .collect()
    }

    /// Why stages of a run were skipped, or refused.
    pub async fn reasons_of(&self, run: &RunId) -> Result<BTreeMap<StageId, String>, Failure> {
        let told = self.telling_events(run).await?.into_iter();
        Ok(told.filter_map(|event| Some((event.stage?, event.what.reason()?))).collect())
    }

    /// The events that say what no row says.
    async fn telling_events(&self, run: &RunId) -> Result<Vec<Event>, Failure> {
        let rows = sqlx::query(
            "SELECT json FROM events INDEXED BY events_that_tell
             WHERE run = ? AND json ->> '$.event' IN ('refused', 'skipped', 'published', 'run_started') ORDER BY id",
        )
        .bind(&run.0)
        .fetch_all(&self.pool)
        .await
        .map_err(failed)?;
        let event = |text: &str| serde_json::from_str(text).map_err(unreadable);
        rows.iter().map(|row| event(row.try_get("json").map_err(failed)?)).collect()
    }
}
