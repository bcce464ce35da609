//! Writing: the engine alone. Many notes are one transaction; rows that are added travel as one JSON text, which SQLite
//! unpacks.

use std::{collections::BTreeMap, path::Path};

use llmflow_contract::{Digest, StageId};
use serde_json::{Value, json};
use sqlx::{Sqlite, Transaction};

use super::{changed::Changed, *};
use crate::{
    event::{Event, Finished, What},
    plan::Component,
};

/// One thing to write down.
#[derive(Clone, Debug)]
pub enum Note {
    /// The first of a run.
    Begins(Box<Opening>),
    Event(Event),
    /// A stage's key and what it is made of, as soon as both are known.
    Key {
        run: RunId,
        stage: StageId,
        key: Digest,
        components: Vec<Component>,
    },
}

impl Note {
    /// Progress and what is printed are told, not kept.
    pub(super) fn is_kept(&self) -> bool {
        !matches!(self, Self::Event(Event { what: What::Progress(_) | What::Log { .. }, .. }))
    }
    /// May it be told before it is written, and wait a moment for others? Nothing that it says is done.
    pub(super) fn may_wait(&self) -> bool {
        let goes_on = matches!(self, Self::Event(Event { what: What::Started { .. } | What::Metric { .. }, .. }));
        goes_on || matches!(self, Self::Key { .. }) || !self.is_kept()
    }
}

impl Lineage {
    /// A run begins: its file and every stage of its plan.
    pub async fn start_run(&self, run: &RunId, row: &PipelineRow, stages: &[PlannedRow<'_>]) -> Result<(), Failure> {
        self.write(&[Note::Begins(Box::new(Opening::new(run, row, stages)?))]).await
    }

    /// Writes these down, in order, whole or not at all; durable on return.
    pub async fn write(&self, notes: &[Note]) -> Result<(), Failure> {
        let mut batch = Batch::default();
        notes.iter().filter(|note| note.is_kept()).try_for_each(|note| batch.add(note))?;
        if batch.runs.is_empty() && batch.openings.is_empty() {
            return Ok(());
        }
        let mut change = self.change().await?;
        batch.apply(&mut change).await?;
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

    /// A transaction that holds the write lock from its start: one that takes it later fails at once when it is busy.
    async fn change(&self) -> Result<Transaction<'_, Sqlite>, Failure> {
        self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(failed)
    }
}

/// Runs a statement whose `?1` is the run and whose `?2` are the rows.
pub(super) async fn insert(
    change: &mut Transaction<'_, Sqlite>,
    sql: &'static str,
    run: &RunId,
    rows: &Rows,
) -> Result<(), Failure> {
    if rows.0.is_empty() {
        return Ok(());
    }
    sqlx::query(sql).bind(&run.0).bind(format!("[{}]", rows.0)).execute(&mut **change).await.map(|_| ()).map_err(failed)
}

/// Rows to be added, as the inside of a JSON array.
#[derive(Clone, Debug, Default)]
pub(super) struct Rows(String);

impl Rows {
    pub(super) fn add(&mut self, row: &Value) {
        use std::fmt::Write;
        let comma = if self.0.is_empty() { "" } else { "," };
        let _ = write!(self.0, "{comma}{row}"); // a string takes everything
    }
}

/// What many notes come to: the last word on each stage, and all that is added.
#[derive(Default)]
struct Batch {
    openings: Vec<Opening>,
    runs: BTreeMap<RunId, RunBatch>,
}

#[derive(Default)]
struct RunBatch {
    stages: BTreeMap<StageId, Patch>,
    events: Rows,
    outputs: Rows,
    metrics: Rows,
    changed: Option<Changed>,
    ended: Option<(&'static str, f64)>,
}

/// What changes of one stage; what is absent stays.
#[derive(Default)]
struct Patch {
    status: Option<&'static str>,
    attempts: Option<u32>,
    /// `Some(None)` takes an earlier failure back.
    failure: Option<Option<String>>,
    result: Option<(f64, String)>,
    effort: Option<String>,
    key: Option<(Digest, String)>,
}

impl Patch {
    async fn apply(self, change: &mut Transaction<'_, Sqlite>, run: &RunId, stage: &StageId) -> Result<(), Failure> {
        let (seconds, summary) = self.result.unzip();
        let (key, components) = self.key.unzip();
        let clears = self.failure == Some(None);
        sqlx::query(
            "UPDATE stages SET
                status = coalesce(?3, status), attempts = coalesce(?4, attempts),
                failure = CASE WHEN ?6 THEN NULL ELSE coalesce(?5, failure) END,
                seconds = coalesce(?7, seconds), summary = coalesce(?8, summary),
                key = coalesce(?9, key), components = coalesce(?10, components), effort = coalesce(?11, effort)
             WHERE run = ?1 AND stage = ?2",
        )
        .bind(&run.0)
        .bind(stage.as_str())
        .bind(self.status)
        .bind(self.attempts.map(i64::from))
        .bind(self.failure.flatten())
        .bind(clears)
        .bind(seconds)
        .bind(summary)
        .bind(key.map(|key| key.hex()))
        .bind(components)
        .bind(self.effort)
        .execute(&mut **change)
        .await
        .map(|_| ())
        .map_err(failed)
    }
}

impl Batch {
    fn add(&mut self, note: &Note) -> Result<(), Failure> {
        match note {
            Note::Begins(opening) => {
                self.openings.push((**opening).clone());
                Ok(())
            }
            Note::Key { run, stage, key, components } => {
                let patch = self.runs.entry(run.clone()).or_default().stages.entry(stage.clone()).or_default();
                patch.key = Some((*key, text_of(components)?));
                Ok(())
            }
            Note::Event(event) => self.runs.entry(event.run.clone()).or_default().hear(event),
        }
    }

    async fn apply(self, change: &mut Transaction<'_, Sqlite>) -> Result<(), Failure> {
        for opening in self.openings {
            opening.apply(change).await?;
        }
        for (run, batch) in self.runs {
            batch.apply(change, &run).await?;
        }
        Ok(())
    }
}

impl RunBatch {
    fn hear(&mut self, event: &Event) -> Result<(), Failure> {
        let kept = match &event.what {
            What::Metric { step: Some(_), .. } => None, // points are in `metrics`
            // The plan is in `stages`, row by row.
            What::RunStarted { .. } => Some(text_of(&event.without_plan())?),
            _ => Some(text_of(event)?),
        };
        if let Some(text) = kept {
            self.events.add(&json!([event.at_ms, text]));
        }
        match &event.stage {
            Some(stage) => self.hear_of(stage, &event.what)?,
            None => match &event.what {
                What::RunStarted { plan, .. } => self.changed = Some(Changed::of(plan)),
                What::RunFinished { status, seconds } => self.ended = Some((status.name(), *seconds)),
                _ => {}
            },
        }
        Ok(())
    }

    fn hear_of(&mut self, stage: &StageId, what: &What) -> Result<(), Failure> {
        let patch = self.stages.entry(stage.clone()).or_default();
        match what {
            What::Started { attempt } => (patch.status, patch.attempts) = (Some("running"), Some(*attempt)),
            What::Finished(finished) => self.finish(stage, "ran", finished)?,
            What::Cached(finished) => self.finish(stage, "cached", finished)?,
            What::Refused { .. } => patch.status = Some("refused"),
            What::Skipped { .. } => patch.status = Some("skipped"),
            What::Interrupted => patch.status = Some("interrupted"),
            What::Failed { failure, retry_in_ms } => {
                patch.failure = Some(Some(text_of(failure)?));
                patch.status = Some(if retry_in_ms.is_some() { "waiting" } else { "failed" });
            }
            What::Metric { name, value, step, .. } => self.metrics.add(&json!([stage, name, step, value])),
            _ => {}
        }
        Ok(())
    }

    fn finish(&mut self, stage: &StageId, status: &'static str, finished: &Finished) -> Result<(), Failure> {
        let patch = self.stages.entry(stage.clone()).or_default();
        (patch.status, patch.failure) = (Some(status), Some(None));
        patch.result = Some((finished.seconds, finished.summary.clone()));
        patch.effort = finished.effort.as_ref().map(text_of).transpose()?;
        finished.outputs.iter().for_each(|(port, digest)| self.outputs.add(&json!([stage, port, digest])));
        finished.metrics.iter().for_each(|(name, value)| self.metrics.add(&json!([stage, name, null, value])));
        Ok(())
    }

    async fn apply(self, change: &mut Transaction<'_, Sqlite>, run: &RunId) -> Result<(), Failure> {
        // A statement each: joined with rows of JSON, SQLite looks at every stage of the run.
        for (stage, patch) in self.stages {
            patch.apply(change, run, &stage).await?;
        }
        insert(
            change,
            "INSERT INTO events (run, at_ms, json) SELECT ?1, value ->> 0, value ->> 1 FROM json_each(?2)",
            run,
            &self.events,
        )
        .await?;
        // Ports that no plan names are the ones every stage has: `report` and `trace`, whose kind is their name.
        insert(
            change,
            "INSERT INTO outputs (run, stage, port, kind, digest)
             SELECT ?1, value ->> 0, value ->> 1, value ->> 1, value ->> 2 FROM json_each(?2) WHERE true
             ON CONFLICT (run, stage, port) DO UPDATE SET digest = excluded.digest",
            run,
            &self.outputs,
        )
        .await?;
        insert(
            change,
            "INSERT INTO metrics (run, stage, name, step, value)
             SELECT ?1, value ->> 0, value ->> 1, value ->> 2, CAST(value ->> 3 AS REAL) FROM json_each(?2)",
            run,
            &self.metrics,
        )
        .await?;
        if let Some(changed) = self.changed {
            let line = changed.line(change, run).await?;
            let query = sqlx::query("UPDATE runs SET changed = ? WHERE run = ?").bind(line).bind(&run.0);
            query.execute(&mut **change).await.map_err(failed)?;
        }
        if let Some((status, seconds)) = self.ended {
            let query = sqlx::query("UPDATE runs SET status = ?, seconds = ? WHERE run = ?");
            query.bind(status).bind(seconds).bind(&run.0).execute(&mut **change).await.map_err(failed)?;
        }
        Ok(())
    }
}

pub(super) fn text_of<T: serde::Serialize + ?Sized>(value: &T) -> Result<String, Failure> {
    serde_json::to_string(value).map_err(unreadable)
}
