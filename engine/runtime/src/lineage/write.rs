//! Writing: the engine alone, each change in a transaction of its own.

use std::path::Path;

use llmflow_contract::{Digest, Kind, Port, StageId};
use sqlx::{Sqlite, Transaction};

use super::*;
use crate::{
    event::{Event, Finished, What},
    plan::{Change, Component, PlanView, StageView, Will},
};

/// What is written of a stage before anything runs.
#[derive(Clone, Debug)]
pub struct PlannedRow<'a> {
    pub view: &'a StageView,
    /// The input port, and the output it reads.
    pub inputs: Vec<(Port, StageId, Port)>,
    /// The main output first.
    pub outputs: Vec<(Port, Kind)>,
}

impl Lineage {
    /// A run begins: its file and every stage of its plan.
    pub async fn start_run(&self, run: &RunId, row: &PipelineRow, stages: &[PlannedRow<'_>]) -> Result<(), Failure> {
        let mut change = self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
        sqlx::query(
            "INSERT INTO runs (run, pipeline, path, text, set_json, params, status, started_ms)
             VALUES (?, ?, ?, ?, ?, ?, 'running', ?)",
        )
        .bind(&run.0)
        .bind(&row.name)
        .bind(row.path.to_string_lossy().into_owned())
        .bind(&row.text)
        .bind(serde_json::to_string(&row.set).map_err(unreadable)?)
        .bind(serde_json::to_string(&row.params).map_err(unreadable)?)
        .bind(crate::event::now_ms() as i64)
        .execute(&mut *change)
        .await
        .map_err(failed)?;
        for (position, stage) in stages.iter().enumerate() {
            plan_stage(&mut change, run, position, stage).await?;
        }
        change.commit().await.map_err(failed)
    }

    /// Notes a stage's key and what it is made of, as soon as both are known.
    pub async fn set_components(
        &self,
        run: &RunId,
        stage: &StageId,
        key: &Digest,
        parts: &[Component],
    ) -> Result<(), Failure> {
        sqlx::query("UPDATE stages SET key = ?, components = ? WHERE run = ? AND stage = ?")
            .bind(key.to_string())
            .bind(serde_json::to_string(parts).map_err(unreadable)?)
            .bind(&run.0)
            .bind(stage.as_str())
            .execute(&self.pool)
            .await
            .map(|_| ())
            .map_err(failed)
    }

    /// Notes one event: the event itself, and what it says about its stage or run.
    pub async fn record(&self, event: &Event) -> Result<(), Failure> {
        let mut change = self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
        let is_point = matches!(event.what, What::Metric { step: Some(_), .. });
        if !is_point {
            sqlx::query("INSERT INTO events (run, at_ms, json) VALUES (?, ?, ?)")
                .bind(&event.run.0)
                .bind(event.at_ms as i64)
                .bind(serde_json::to_string(event).map_err(unreadable)?)
                .execute(&mut *change)
                .await
                .map_err(failed)?;
        }
        match &event.stage {
            Some(stage) => project_stage(&mut change, &event.run, stage, &event.what).await?,
            None => project_run(&mut change, &event.run, &event.what).await?,
        }
        change.commit().await.map_err(failed)
    }

    /// Remembers what lies at a published path: digest, bytes, modification time in ns, inode.
    pub async fn set_published(
        &self,
        path: &Path,
        digest: &Digest,
        size: u64,
        mtime_ns: i64,
        inode: u64,
    ) -> Result<(), Failure> {
        sqlx::query("INSERT OR REPLACE INTO published (path, digest, size, mtime_ns, ino) VALUES (?, ?, ?, ?, ?)")
            .bind(path.to_string_lossy().into_owned())
            .bind(digest.to_string())
            .bind(size as i64)
            .bind(mtime_ns)
            .bind(inode as i64)
            .execute(&self.pool)
            .await
            .map(|_| ())
            .map_err(failed)
    }
}

async fn plan_stage(
    change: &mut Transaction<'_, Sqlite>,
    run: &RunId,
    position: usize,
    planned: &PlannedRow<'_>,
) -> Result<(), Failure> {
    let view = planned.view;
    sqlx::query(
        "INSERT INTO stages (run, stage, position, operator, version, status) VALUES (?, ?, ?, ?, ?, 'waiting')",
    )
    .bind(&run.0)
    .bind(view.stage.as_str())
    .bind(position as i64)
    .bind(&view.operator)
    .bind(i64::from(view.version))
    .execute(&mut **change)
    .await
    .map_err(failed)?;
    for (position, (port, from_stage, from_port)) in planned.inputs.iter().enumerate() {
        sqlx::query("INSERT INTO inputs (run, stage, port, position, from_stage, from_port) VALUES (?, ?, ?, ?, ?, ?)")
            .bind(&run.0)
            .bind(view.stage.as_str())
            .bind(port.as_str())
            .bind(position as i64)
            .bind(from_stage.as_str())
            .bind(from_port.as_str())
            .execute(&mut **change)
            .await
            .map_err(failed)?;
    }
    for (position, (port, kind)) in planned.outputs.iter().enumerate() {
        sqlx::query("INSERT INTO outputs (run, stage, port, position, kind) VALUES (?, ?, ?, ?, ?)")
            .bind(&run.0)
            .bind(view.stage.as_str())
            .bind(port.as_str())
            .bind(position as i64)
            .bind(kind.to_string())
            .execute(&mut **change)
            .await
            .map_err(failed)?;
    }
    Ok(())
}

async fn project_run(change: &mut Transaction<'_, Sqlite>, run: &RunId, what: &What) -> Result<(), Failure> {
    let query = match what {
        What::RunStarted { plan, .. } => {
            sqlx::query("UPDATE runs SET changed = ? WHERE run = ?").bind(changed(plan)).bind(&run.0)
        }
        What::RunFinished { status, seconds } => sqlx::query("UPDATE runs SET status = ?, seconds = ? WHERE run = ?")
            .bind(status.name())
            .bind(*seconds)
            .bind(&run.0),
        _ => return Ok(()),
    };
    query.execute(&mut **change).await.map(|_| ()).map_err(failed)
}

async fn project_stage(
    change: &mut Transaction<'_, Sqlite>,
    run: &RunId,
    stage: &StageId,
    what: &What,
) -> Result<(), Failure> {
    let status = match what {
        What::Started { attempt } => {
            sqlx::query("UPDATE stages SET attempts = ? WHERE run = ? AND stage = ?")
                .bind(i64::from(*attempt))
                .bind(&run.0)
                .bind(stage.as_str())
                .execute(&mut **change)
                .await
                .map_err(failed)?;
            "running"
        }
        What::Finished(finished) => {
            set_result(change, run, stage, finished).await?;
            "ran"
        }
        What::Cached(finished) => {
            set_result(change, run, stage, finished).await?;
            "cached"
        }
        What::Refused { .. } => "refused",
        What::Skipped { .. } => "skipped",
        What::Failed { failure, retry_in_ms } => {
            let failure = serde_json::to_string(failure).map_err(unreadable)?;
            sqlx::query("UPDATE stages SET failure = ? WHERE run = ? AND stage = ?")
                .bind(failure)
                .bind(&run.0)
                .bind(stage.as_str())
                .execute(&mut **change)
                .await
                .map_err(failed)?;
            if retry_in_ms.is_some() { "waiting" } else { "failed" }
        }
        What::Interrupted => "interrupted",
        What::Metric { name, value, step, .. } => {
            return add_metric(change, run, stage, name, *value, *step).await;
        }
        _ => return Ok(()),
    };
    sqlx::query("UPDATE stages SET status = ? WHERE run = ? AND stage = ?")
        .bind(status)
        .bind(&run.0)
        .bind(stage.as_str())
        .execute(&mut **change)
        .await
        .map(|_| ())
        .map_err(failed)
}

async fn set_result(
    change: &mut Transaction<'_, Sqlite>,
    run: &RunId,
    stage: &StageId,
    finished: &Finished,
) -> Result<(), Failure> {
    sqlx::query("UPDATE stages SET seconds = ?, summary = ?, failure = NULL WHERE run = ? AND stage = ?")
        .bind(finished.seconds)
        .bind(&finished.summary)
        .bind(&run.0)
        .bind(stage.as_str())
        .execute(&mut **change)
        .await
        .map_err(failed)?;
    for (port, digest) in &finished.outputs {
        // Ports that no plan names are the ones every stage has: `report` and `trace`, whose kind is their name.
        sqlx::query(
            "INSERT INTO outputs (run, stage, port, kind, digest) VALUES (?, ?, ?, ?, ?)
             ON CONFLICT (run, stage, port) DO UPDATE SET digest = excluded.digest",
        )
        .bind(&run.0)
        .bind(stage.as_str())
        .bind(port.as_str())
        .bind(port.as_str())
        .bind(digest.to_string())
        .execute(&mut **change)
        .await
        .map_err(failed)?;
    }
    for (name, value) in &finished.metrics {
        add_metric(change, run, stage, name, *value, None).await?;
    }
    Ok(())
}

async fn add_metric(
    change: &mut Transaction<'_, Sqlite>,
    run: &RunId,
    stage: &StageId,
    name: &str,
    value: f64,
    step: Option<u64>,
) -> Result<(), Failure> {
    sqlx::query("INSERT INTO metrics (run, stage, name, step, value) VALUES (?, ?, ?, ?, ?)")
        .bind(&run.0)
        .bind(stage.as_str())
        .bind(name)
        .bind(step.map(|step| step as i64))
        .bind(value)
        .execute(&mut **change)
        .await
        .map(|_| ())
        .map_err(failed)
}

/// What differs from the last success, in one line: `sft.lora_r 16 → 32`.
fn changed(plan: &PlanView) -> String {
    let mut words: Vec<String> = Vec::new();
    for stage in &plan.stages {
        let Will::Run { because, .. } = &stage.will else { continue };
        for Change { part, before, now, .. } in because {
            let part = part.strip_prefix("with.").unwrap_or(part);
            words.push(match (before, now) {
                (Some(before), Some(now)) if before.len() + now.len() <= 40 => {
                    format!("{}.{part} {before} → {now}", stage.stage)
                }
                _ => format!("{}.{part}", stage.stage),
            });
        }
    }
    words.join(", ")
}
