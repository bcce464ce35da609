//! The first words of a run: its file and every stage of its plan, as rows. They are made from the plan at once and
//! written when the recorder comes to them.

use llmflow_contract::{Failure, Kind, Port};
use serde_json::json;
use sqlx::{Sqlite, Transaction};

use super::{
    InputRecord, PipelineRow, failed,
    write::{Rows, insert, text_of},
};
use crate::{
    device,
    event::{RunId, RunStatus, now_ms},
    plan::{Change, Component, StageView, Will},
};

/// Rows that one statement takes: bounds the memory that unpacking them needs.
const ROWS: usize = 10_000;

/// What is written of a stage before anything runs.
#[derive(Clone, Debug)]
pub struct PlannedRow<'a> {
    pub view: &'a StageView,
    /// What its key is made of, where that is known already.
    pub components: Option<Vec<Component>>,
    /// Of a frozen stage: what of the key that it would have is not that of the result it keeps, where that is known.
    pub outgrown: Option<Vec<Change>>,
    pub inputs: Vec<InputRecord>,
    /// The main output first.
    pub outputs: Vec<(Port, Kind)>,
}

/// All that the row of a run says.
pub(super) struct RunWords<'a> {
    pub run: &'a RunId,
    pub row: &'a PipelineRow,
    pub status: RunStatus,
    pub started_ms: u64,
    pub seconds: Option<f64>,
    pub changed: &'a str,
    pub machine: &'a str,
    pub version: &'a str,
}

impl RunWords<'_> {
    pub async fn insert(&self, change: &mut Transaction<'_, Sqlite>) -> Result<(), Failure> {
        let Self { run, row, status, started_ms, seconds, changed, machine, version } = self;
        sqlx::query(
            "INSERT INTO runs (run, pipeline, path, text, set_json, params, status, started_ms, seconds, changed, machine,
                 version, resumes, overrides, store, locks, selection)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(&run.0)
        .bind(&row.name)
        .bind(row.path.to_string_lossy().into_owned())
        .bind(&row.text)
        .bind(text_of(&row.overrides.set)?)
        .bind(text_of(&row.params)?)
        .bind(status.name())
        .bind(*started_ms as i64)
        .bind(seconds)
        .bind(changed)
        .bind(machine)
        .bind(version)
        .bind(row.resumes.as_ref().map(|run| run.0.as_str()))
        .bind(text_of(&row.overrides)?)
        .bind(&row.store)
        .bind(text_of(&row.locks)?)
        .bind(text_of(&row.selection)?)
        .execute(&mut **change)
        .await
        .map(drop)
        .map_err(failed)
    }
}

/// The rows of a run that begins.
#[derive(Clone, Debug)]
pub struct Opening {
    run: RunId,
    row: PipelineRow,
    started_ms: u64,
    stages: Vec<StageRows>,
}

/// The rows of some of its stages.
#[derive(Clone, Debug, Default)]
struct StageRows {
    stages: Rows,
    inputs: Rows,
    outputs: Rows,
}

impl Opening {
    pub fn new(run: &RunId, row: &PipelineRow, stages: &[PlannedRow<'_>]) -> Result<Self, Failure> {
        let chunks = stages.chunks(ROWS).zip((0..).step_by(ROWS));
        let stages = chunks.map(|(chunk, first)| StageRows::new(chunk, first)).collect::<Result<_, _>>()?;
        Ok(Self { run: run.clone(), row: row.clone(), started_ms: now_ms(), stages })
    }

    pub(super) async fn apply(self, change: &mut Transaction<'_, Sqlite>) -> Result<(), Failure> {
        let Self { run, row, started_ms, stages } = self;
        let words = RunWords {
            run: &run,
            row: &row,
            status: RunStatus::Running,
            started_ms,
            seconds: None,
            changed: "",
            machine: &device::machine_name(),
            version: env!("CARGO_PKG_VERSION"),
        };
        words.insert(change).await?;
        for rows in &stages {
            rows.apply(change, &run).await?;
        }
        Ok(())
    }
}

impl StageRows {
    /// `first`: the position of the first in the plan.
    fn new(planned: &[PlannedRow<'_>], first: usize) -> Result<Self, Failure> {
        let mut rows = Self::default();
        for (row, position) in planned.iter().zip(first..) {
            let view = row.view;
            let key = match &view.will {
                Will::Run { key, .. } => key.as_ref(),
                Will::Cached { key, .. } => Some(key),
                _ => None,
            };
            let because = match &view.will {
                Will::Run { because, .. } if !because.is_empty() => Some(text_of(because)?),
                _ => row.outgrown.as_ref().map(text_of).transpose()?,
            };
            let asked = match &view.will {
                Will::Run { asked, .. } | Will::Gate { asked, .. } => asked.as_ref(),
                _ => None,
            };
            let components = row.components.as_ref().map(text_of).transpose()?;
            let needs = text_of(&view.needs)?;
            let (operator, version) = (&view.operator, view.version);
            rows.stages.add(&json!([view.stage, position, operator, version, key, components, because, needs, asked]));
            for (at, InputRecord(port, stage, from, aside)) in row.inputs.iter().enumerate() {
                rows.inputs.add(&json!([view.stage, port, at, stage, from, aside.label, aside.digest]));
            }
            for (at, (port, kind)) in row.outputs.iter().enumerate() {
                rows.outputs.add(&json!([view.stage, port, at, kind.to_string()]));
            }
        }
        Ok(rows)
    }

    async fn apply(&self, change: &mut Transaction<'_, Sqlite>, run: &RunId) -> Result<(), Failure> {
        insert(
            change,
            "INSERT INTO stages (run, stage, position, operator, version, status, key, components, because, needs, asked)
             SELECT ?1, value ->> 0, value ->> 1, value ->> 2, value ->> 3, 'waiting', value ->> 4, value ->> 5, value ->> 6,
                 value ->> 7, value ->> 8
             FROM json_each(?2)",
            run,
            &self.stages,
        )
        .await?;
        insert(
            change,
            "INSERT INTO inputs (run, stage, port, position, from_stage, from_port, label, digest)
             SELECT ?1, value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6 FROM json_each(?2)",
            run,
            &self.inputs,
        )
        .await?;
        insert(
            change,
            "INSERT INTO outputs (run, stage, port, position, kind)
             SELECT ?1, value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM json_each(?2)",
            run,
            &self.outputs,
        )
        .await
    }
}
