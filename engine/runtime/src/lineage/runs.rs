//! Reading: which runs there are, and which one is meant.

use std::collections::{BTreeSet, HashMap};

use llmflow_contract::{Digest, StageId};
use sqlx::{AssertSqlSafe, Row, sqlite::SqliteRow};

use super::{
    columns::{count, json, text},
    *,
};
use crate::{
    event::RunStatus,
    pipeline::{Overrides, diagnostic::nearest},
    store::Store,
};

/// Which runs are asked for, newest first.
#[derive(Clone, Debug, Default)]
pub struct RunFilter {
    /// Of this pipeline alone.
    pub pipeline: Option<String>,
    /// That ended, or stand, so.
    pub status: Option<RunStatus>,
    /// At most so many; `None`: all.
    pub limit: Option<u32>,
}

/// What [`RunRow`] holds; the conditions follow.
pub(super) const RUNS: &str =
    "SELECT run, pipeline, status, started_ms, seconds, changed, set_json, overrides, resumes, machine, version,
        (SELECT count(*) FROM stages s WHERE s.run = r.run AND s.status = 'ran') AS ran,
        (SELECT count(*) FROM stages s WHERE s.run = r.run AND s.status = 'cached') AS cached,
        (SELECT count(*) FROM stages s WHERE s.run = r.run AND s.status = 'failed') AS failed,
        (SELECT count(*) FROM stages s WHERE s.run = r.run AND s.status = 'refused') AS refused,
        (SELECT count(*) FROM stages s WHERE s.run = r.run AND s.status = 'skipped') AS skipped,
        (SELECT count(*) FROM stages s WHERE s.run = r.run AND s.status = 'interrupted' AND s.attempts > 0) AS interrupted,
        NOT EXISTS (SELECT 1 FROM runs o WHERE o.pipeline = r.pipeline AND o.number < r.number) AS is_first
    FROM runs r";

/// The key that a stage's result has; none of a stage that was skipped.
pub type Told = Option<Digest>;

/// How the newest run of a file ended, and what its stages came to: one text, for ten thousand rows take longer.
const NEWEST_RESULTS: &str = "SELECT status, store,
        (SELECT json_group_object(stage, key) FROM stages s WHERE s.run = r.run) AS keys
    FROM runs r WHERE pipeline = ? AND path = ? ORDER BY number DESC LIMIT 1";

/// From a run up through those that it goes on with, as far as they are known.
const FIRST_OF: &str = "WITH RECURSIVE chain(run, resumes, number) AS (
        SELECT run, resumes, number FROM runs WHERE run = ?
        UNION SELECT r.run, r.resumes, r.number FROM runs r JOIN chain c ON r.run = c.resumes)
    SELECT run FROM chain ORDER BY number LIMIT 1";

impl Lineage {
    /// Is the newest run of a file, whose pipeline has this name, done, in this store, and of exactly these stages with
    /// these results? `None`: nobody asked for the stage.
    pub async fn tells_of<'a>(
        &self,
        (pipeline, path): (&str, &Path),
        store: Option<&str>,
        stages: impl ExactSizeIterator<Item = (&'a StageId, Option<Told>)>,
    ) -> Result<bool, Failure> {
        let newest = sqlx::query(NEWEST_RESULTS).bind(pipeline).bind(path.to_string_lossy().into_owned());
        let Some(newest) = newest.fetch_optional(&self.pool).await.map_err(failed)? else { return Ok(false) };
        let is_there = newest.try_get::<Option<&str>, _>("store").map_err(failed)? == store;
        let is_done = RunStatus::from_name(newest.try_get("status").map_err(failed)?) == RunStatus::Done;
        if !is_done || !is_there {
            return Ok(false);
        }
        let told: HashMap<StageId, Told> = json(&newest, "keys")?.unwrap_or_default();
        let is_told = |(stage, wanted): (&StageId, Option<Told>)| {
            told.get(stage).is_some_and(|told| wanted.is_none_or(|wanted| *told == wanted))
        };
        Ok(stages.len() == told.len() && { stages }.all(is_told))
    }

    /// Is this the newest run of its file?
    pub async fn is_newest(&self, run: &RunId) -> Result<bool, Failure> {
        let newer: Option<(i64,)> = sqlx::query_as(
            "SELECT r.number FROM runs r JOIN runs this ON this.run = ?
             WHERE r.pipeline = this.pipeline AND r.path = this.path AND r.number > this.number LIMIT 1",
        )
        .bind(&run.0)
        .fetch_optional(&self.pool)
        .await
        .map_err(failed)?;
        Ok(newer.is_none())
    }

    /// The runs of a filter, newest first.
    pub async fn runs(&self, filter: &RunFilter) -> Result<Vec<RunRow>, Failure> {
        let sql = format!(
            "{RUNS} WHERE (?1 IS NULL OR pipeline = ?1) AND (?2 IS NULL OR status = ?2) ORDER BY number DESC LIMIT ?3"
        );
        let rows = sqlx::query(AssertSqlSafe(sql))
            .bind(&filter.pipeline)
            .bind(filter.status.map(RunStatus::name))
            .bind(filter.limit.map_or(-1, i64::from))
            .fetch_all(&self.pool)
            .await
            .map_err(failed)?;
        rows.iter().map(run_row).collect()
    }

    /// One run.
    ///
    /// # Errors
    /// `lineage/run` if there is none of that name.
    pub async fn run(&self, run: &RunId) -> Result<RunRow, Failure> {
        let row = sqlx::query(AssertSqlSafe(format!("{RUNS} WHERE run = ?")))
            .bind(&run.0)
            .fetch_optional(&self.pool)
            .await
            .map_err(failed)?;
        run_row(&row.ok_or_else(|| no_run(run))?)
    }

    /// The run of the same pipeline before this one: the newest with the same `--limit`, else the newest of all.
    pub async fn run_before(&self, run: &RunId) -> Result<Option<RunId>, Failure> {
        let row: Option<(String,)> = sqlx::query_as(
            "SELECT r.run FROM runs r JOIN runs this ON this.run = ?
             WHERE r.pipeline = this.pipeline AND r.number < this.number
             ORDER BY (nullif(r.overrides, '') ->> '$.limit') IS (nullif(this.overrides, '') ->> '$.limit') DESC,
                 r.number DESC LIMIT 1",
        )
        .bind(&run.0)
        .fetch_optional(&self.pool)
        .await
        .map_err(failed)?;
        Ok(row.map(|(run,)| RunId(run)))
    }

    /// The run that `@` (newest), `@-N` (N before it) or a unique prefix of a name stands for.
    ///
    /// # Errors
    /// `lineage/run` if there is none, or more than one.
    pub async fn find_run(&self, text: &str) -> Result<RunId, Failure> {
        let rows: Vec<(String,)> = match text.strip_prefix('@') {
            Some(back) => {
                let back: i64 = back.strip_prefix('-').map_or(Ok(0), str::parse).unwrap_or(0);
                sqlx::query_as("SELECT run FROM runs ORDER BY number DESC LIMIT 1 OFFSET ?")
                    .bind(back)
                    .fetch_all(&self.pool)
                    .await
            }
            None => {
                sqlx::query_as(
                    "SELECT run FROM runs WHERE substr(run, 1, length(?1)) = ?1 ORDER BY run <> ?1, number DESC",
                )
                .bind(text)
                .fetch_all(&self.pool)
                .await
            }
        }
        .map_err(failed)?;
        let names: Vec<&str> = rows.iter().map(|(name,)| name.as_str()).collect();
        match names[..] {
            [] if text.starts_with('@') => Err(Failure::input("lineage/run", "there is no such run here yet")
                .help("llmflow run PIPELINE.yaml makes one; llmflow runs lists them")),
            [] => Err(self.no_such_run(text).await?),
            [one] => Ok(RunId(one.to_owned())),
            [exact, ..] if exact == text => Ok(RunId(exact.to_owned())),
            [..] => Err(Failure::input("lineage/run", format!("`{text}` could be {}", names.join(", ")))
                .help("write more of the name")),
        }
    }

    /// What to say of a run that is not there.
    async fn no_such_run(&self, text: &str) -> Result<Failure, Failure> {
        let all: Vec<(String,)> =
            sqlx::query_as("SELECT run FROM runs ORDER BY number DESC").fetch_all(&self.pool).await.map_err(failed)?;
        let near = nearest(text, all.iter().map(|(run,)| run.as_str()));
        let near = near.map(|near| format!("; the nearest is `{near}`")).unwrap_or_default();
        let message = format!("no run is called `{text}`{near}");
        Ok(Failure::input("lineage/run", message).help("llmflow runs lists them"))
    }

    /// The newest run that is not finished: none that a later run went on with, or whose file a later run
    /// has done as a whole.
    pub async fn newest_unfinished(&self) -> Result<Option<RunId>, Failure> {
        let row: Option<(String,)> = sqlx::query_as(
            "SELECT run FROM runs r WHERE status IN ('interrupted', 'failed', 'refused') AND NOT EXISTS (
                 SELECT 1 FROM runs later WHERE later.number > r.number
                     AND (later.resumes = r.run OR later.path = r.path AND later.status = 'done'
                         AND (nullif(later.overrides, '') ->> '$.limit') IS (nullif(r.overrides, '') ->> '$.limit')
                         AND coalesce(json_array_length(later.selection, '$.only'), 0) = 0
                         AND coalesce(json_array_length(later.selection, '$.from'), 0) = 0))
             ORDER BY number DESC LIMIT 1",
        )
        .fetch_optional(&self.pool)
        .await
        .map_err(failed)?;
        Ok(row.map(|(run,)| RunId(run)))
    }

    /// The stages of a run that have their result.
    pub async fn ended_well(&self, run: &RunId) -> Result<BTreeSet<StageId>, Failure> {
        let rows: Vec<(String,)> =
            sqlx::query_as("SELECT stage FROM stages WHERE run = ? AND status IN ('ran', 'cached', 'refused')")
                .bind(&run.0)
                .fetch_all(&self.pool)
                .await
                .map_err(failed)?;
        Ok(rows.into_iter().map(|(stage,)| StageId::new(stage)).collect())
    }

    /// The runs that ended and used the store at `url`; what the home's own store is called is in no row.
    pub async fn ended_on(&self, url: &str, home: &Home) -> Result<Vec<RunId>, Failure> {
        let is_own = Store::open_local(&home.store()).is_ok_and(|own| own.url() == url);
        let rows: Vec<(String,)> = sqlx::query_as(
            "SELECT run FROM runs WHERE status <> 'running' AND (store = ?1 OR (?2 AND store IS NULL)) ORDER BY number",
        )
        .bind(url)
        .bind(is_own)
        .fetch_all(&self.pool)
        .await
        .map_err(failed)?;
        Ok(rows.into_iter().map(|(run,)| RunId(run)).collect())
    }

    /// The first of the runs that a run goes on with, one after the other; itself if it goes on with none.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn first_of(&self, run: &RunId) -> Result<RunId, Failure> {
        let row: Option<(String,)> =
            sqlx::query_as(FIRST_OF).bind(&run.0).fetch_optional(&self.pool).await.map_err(failed)?;
        Ok(row.map_or_else(|| run.clone(), |(first,)| RunId(first)))
    }

    /// Is this name taken?
    pub async fn has_run(&self, run: &RunId) -> Result<bool, Failure> {
        let row: Option<(i64,)> = sqlx::query_as("SELECT number FROM runs WHERE run = ?")
            .bind(&run.0)
            .fetch_optional(&self.pool)
            .await
            .map_err(failed)?;
        Ok(row.is_some())
    }
}

pub(super) fn no_run(run: &RunId) -> Failure {
    Failure::input("lineage/run", format!("no run is called `{run}`")).help("llmflow runs lists them")
}

fn run_row(row: &SqliteRow) -> Result<RunRow, Failure> {
    let asked: Overrides = serde_json::from_str(&text(row, "overrides")?).unwrap_or_default(); // none of the first homes
    Ok(RunRow {
        run: RunId(text(row, "run")?),
        pipeline: text(row, "pipeline")?,
        status: RunStatus::from_name(&text(row, "status")?),
        started_ms: row.try_get::<i64, _>("started_ms").map_err(failed)? as u64,
        seconds: row.try_get("seconds").map_err(failed)?,
        ran: count(row, "ran")?,
        cached: count(row, "cached")?,
        failed: count(row, "failed")?,
        refused: count(row, "refused")?,
        skipped: count(row, "skipped")?,
        interrupted: count(row, "interrupted")?,
        changed: text(row, "changed")?,
        limit: asked.limit,
        set: json(row, "set_json")?.unwrap_or_default(),
        params_file: asked.params_file.map(|file| file.path),
        profile: asked.profile,
        resumes: row.try_get::<Option<String>, _>("resumes").map_err(failed)?.map(RunId),
        machine: text(row, "machine")?,
        version: text(row, "version")?,
        is_first: row.try_get("is_first").map_err(failed)?,
    })
}
