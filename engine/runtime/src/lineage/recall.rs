//! Reading: what past runs were told, what their keys were made of, which curves they drew, what they said.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
};

use llmflow_contract::{Digest, StageId, Work};
use sqlx::{FromRow, Row, sqlite::SqliteRow};

use super::{
    columns::{digest, json, stage_id, text},
    runs::no_run,
    *,
};
use crate::{
    event::{Effort, Event, What},
    home::Home,
    pipeline::Overrides,
    plan::{Change, Component, LastSuccess, Rates, Tried},
    store::Store,
};

pub(super) const LAST_SUCCESSES: &str =
    "SELECT s.stage, s.components, s.seconds, s.effort FROM json_each(?2) wanted JOIN stages s ON s.rowid = (
         SELECT s.rowid FROM stages s JOIN runs r ON r.run = s.run
         WHERE s.stage = wanted.value AND r.pipeline = ?1 AND (nullif(r.overrides, '') ->> '$.limit') IS ?3
             AND s.status IN ('ran', 'cached', 'refused') AND s.components IS NOT NULL
         ORDER BY r.number DESC LIMIT 1)";
pub(super) const LAST_TRIES: &str = "SELECT s.stage, s.status FROM json_each(?2) wanted JOIN stages s ON s.rowid = (
         SELECT s.rowid FROM stages s JOIN runs r ON r.run = s.run
         WHERE s.stage = wanted.value AND r.pipeline = ?1 AND (nullif(r.overrides, '') ->> '$.limit') IS ?3
             AND s.status IN ('failed', 'interrupted') AND s.attempts > 0
         ORDER BY r.number DESC LIMIT 1)";
pub(super) const RATES: &str = "SELECT operator, seconds, effort FROM (
         SELECT operator, status, seconds, effort FROM stages ORDER BY rowid DESC LIMIT 2000)
     WHERE status IN ('ran', 'refused') AND seconds IS NOT NULL AND effort IS NOT NULL";
pub(super) const SUCCESS_BEFORE: &str = "SELECT r.run, r.started_ms, s.components FROM stages s
    JOIN runs r ON r.run = s.run JOIN runs this ON this.run = ?1
    WHERE r.pipeline = this.pipeline AND r.number < this.number AND s.stage = ?2
        AND (nullif(r.overrides, '') ->> '$.limit') IS (nullif(this.overrides, '') ->> '$.limit')
        AND s.status IN ('ran', 'cached', 'refused') AND s.components IS NOT NULL
    ORDER BY r.number DESC LIMIT 1";
pub(super) const PUBLISHED: &str = "SELECT json FROM events INDEXED BY events_that_tell
    WHERE run = ?1 AND json ->> '$.event' = 'published'
        AND json ->> '$.event' IN ('refused', 'skipped', 'published', 'run_started') ORDER BY id";
pub(super) const FIGURES: &str = "SELECT value AS name, (
        SELECT m.value FROM metrics m INDEXED BY metrics_by_what CROSS JOIN stages s ON s.run = m.run AND s.stage = m.stage
        WHERE m.run = ?1 AND m.name = wanted.value AND m.step IS NULL ORDER BY s.position DESC, m.id DESC LIMIT 1) AS value
    FROM json_each(?2) wanted";

/// A success of a stage, before another.
#[derive(Clone, Debug, PartialEq)]
pub struct Success {
    pub run: RunId,
    /// Milliseconds since 1970 (UTC).
    pub started_ms: u64,
    /// What the key was made of.
    pub components: Vec<Component>,
}

/// The store of a run: `None` is the home's own. One below a place where the home's project lay lies where that is now.
fn store_at(run: &str, url: Option<String>, home: &Home) -> Result<Store, Failure> {
    let store = match url.as_deref().map(|url| (url, url.strip_prefix("file://"))) {
        Some((_, Some(folder))) => {
            let folder = home.here(Path::new(folder))?;
            Store::find_local(&folder)?.ok_or_else(|| gone(run, &folder))?
        }
        Some((url, None)) => Store::open(url)?,
        None => Store::open_local(&home.store())?,
    };
    Ok(store.in_home(&home.work()))
}

fn gone(run: &str, folder: &Path) -> Failure {
    let message = format!("the store of run `{run}`, `{}`, is not there", folder.display());
    Failure::environment("store/gone", message).help("mount it, or run the pipeline again")
}

impl Lineage {
    /// The file a run was started with.
    pub async fn pipeline_of(&self, run: &RunId) -> Result<PipelineRow, Failure> {
        let row = sqlx::query(
            "SELECT path, pipeline, text, set_json, params, overrides, resumes, store, locks, selection FROM runs WHERE run = ?",
        )
        .bind(&run.0)
        .fetch_optional(&self.pool)
        .await
        .map_err(failed)?
        .ok_or_else(|| no_run(run))?;
        let overrides = match text(&row, "overrides")?.as_str() {
            "" => Overrides { set: json(&row, "set_json")?.unwrap_or_default(), ..Overrides::default() },
            text => serde_json::from_str(text).map_err(unreadable)?,
        };
        Ok(PipelineRow {
            path: PathBuf::from(text(&row, "path")?),
            name: text(&row, "pipeline")?,
            text: text(&row, "text")?,
            params: json(&row, "params")?.unwrap_or_default(),
            overrides,
            resumes: row.try_get::<Option<String>, _>("resumes").map_err(failed)?.map(RunId),
            locks: json(&row, "locks")?.unwrap_or_default(),
            selection: json(&row, "selection")?.unwrap_or_default(),
            store: row.try_get("store").map_err(failed)?,
        })
    }

    /// The limit of a run that was a rehearsal, without a look at its stages.
    pub async fn limit_of(&self, run: &RunId) -> Result<Option<u64>, Failure> {
        let row: Option<(Option<i64>,)> =
            sqlx::query_as("SELECT nullif(overrides, '') ->> '$.limit' FROM runs WHERE run = ?")
                .bind(&run.0)
                .fetch_optional(&self.pool)
                .await
                .map_err(failed)?;
        Ok(row.and_then(|(limit,)| limit).and_then(|limit| u64::try_from(limit).ok()))
    }

    /// The store that the newest run used: its own, or the home's.
    ///
    /// # Errors
    /// Those of [`Store::open`]; `store/gone` if its folder is not there.
    pub async fn store_of_newest(&self, home: &Home) -> Result<Store, Failure> {
        let row: Option<(String, Option<String>)> =
            sqlx::query_as("SELECT run, store FROM runs ORDER BY number DESC LIMIT 1")
                .fetch_optional(&self.pool)
                .await
                .map_err(failed)?;
        let (run, url) = row.unwrap_or_default();
        store_at(&run, url, home)
    }

    /// The store that a run used: its results are there.
    ///
    /// # Errors
    /// Those of [`Store::open`]; `store/gone` if its folder is not there.
    pub async fn store_of(&self, run: &RunId, home: &Home) -> Result<Store, Failure> {
        let row: Option<(Option<String>,)> = sqlx::query_as("SELECT store FROM runs WHERE run = ?")
            .bind(&run.0)
            .fetch_optional(&self.pool)
            .await
            .map_err(failed)?;
        store_at(&run.0, row.ok_or_else(|| no_run(run))?.0, home)
    }

    /// The last time each of these stages of a pipeline succeeded, in runs with the same `--limit`.
    pub async fn last_successes(
        &self,
        pipeline: &str,
        limit: Option<u64>,
        stages: &[&StageId],
    ) -> Result<HashMap<StageId, LastSuccess>, Failure> {
        let rows: Vec<(String, String, Option<f64>, Option<String>)> =
            self.last_of(LAST_SUCCESSES, pipeline, limit, stages).await?;
        rows.into_iter()
            .map(|(stage, components, seconds, effort)| {
                let components = serde_json::from_str(&components).map_err(unreadable)?;
                let effort = effort.map(|text| serde_json::from_str(&text)).transpose().map_err(unreadable)?;
                let last = LastSuccess { components, seconds: seconds.unwrap_or_default(), effort };
                Ok((StageId::new(stage), last))
            })
            .collect()
    }

    /// How the last try at each of these stages ended that came to no result, in runs with the same `--limit`.
    pub async fn last_tries(
        &self,
        pipeline: &str,
        limit: Option<u64>,
        stages: &[&StageId],
    ) -> Result<HashMap<StageId, Tried>, Failure> {
        let rows: Vec<(String, String)> = self.last_of(LAST_TRIES, pipeline, limit, stages).await?;
        Ok(rows.into_iter().map(|(stage, status)| (StageId::new(stage), Tried::of(&status))).collect())
    }

    /// A row for each of these stages of a pipeline that has one, in runs with the same `--limit`.
    async fn last_of<R>(
        &self,
        sql: &'static str,
        pipeline: &str,
        limit: Option<u64>,
        stages: &[&StageId],
    ) -> Result<Vec<R>, Failure>
    where
        R: for<'r> FromRow<'r, SqliteRow> + Send + Unpin,
    {
        sqlx::query_as(sql)
            .bind(pipeline)
            .bind(serde_json::to_string(stages).map_err(unreadable)?)
            .bind(limit.map(|limit| limit as i64))
            .fetch_all(&self.pool)
            .await
            .map_err(failed)
    }

    /// How fast operators went in the newest stages that ran here.
    pub async fn rates(&self) -> Result<Rates, Failure> {
        let rows: Vec<(String, f64, String)> = sqlx::query_as(RATES).fetch_all(&self.pool).await.map_err(failed)?;
        let mut rates = Rates::default();
        for (operator, seconds, effort) in rows {
            let Effort { work, .. } = serde_json::from_str(&effort).map_err(unreadable)?;
            if work != Work::Unknown {
                rates.add(operator, work, seconds);
            }
        }
        Ok(rates)
    }

    /// The key of each stage's last success in runs of a file, or of one of this name that is no longer where it was, with
    /// the same `--limit`.
    pub async fn last_keys(
        &self,
        (pipeline, path): (&str, &Path),
        limit: Option<u64>,
        stages: &[&StageId],
    ) -> Result<Vec<(StageId, Digest)>, Failure> {
        let own = path.to_string_lossy().into_owned();
        let paths: Vec<(String,)> = sqlx::query_as("SELECT DISTINCT path FROM runs WHERE pipeline = ?")
            .bind(pipeline)
            .fetch_all(&self.pool)
            .await
            .map_err(failed)?;
        let is_its = |path: &String| *path == own || !Path::new(path).is_file(); // else it is another file's
        let paths: Vec<String> = paths.into_iter().map(|(path,)| path).filter(is_its).collect();
        let rows = sqlx::query(
            "SELECT s.stage, s.key FROM json_each(?2) wanted JOIN stages s ON s.rowid = (
                 SELECT s.rowid FROM stages s JOIN runs r ON r.run = s.run
                 WHERE s.stage = wanted.value AND r.pipeline = ?1 AND r.path IN (SELECT value FROM json_each(?5))
                     AND (nullif(r.overrides, '') ->> '$.limit') IS ?4
                     AND s.status IN ('ran', 'cached', 'refused') AND s.key IS NOT NULL
                 ORDER BY r.path = ?3 DESC, r.number DESC LIMIT 1)",
        )
        .bind(pipeline)
        .bind(serde_json::to_string(stages).map_err(unreadable)?)
        .bind(&own)
        .bind(limit.map(|limit| limit as i64))
        .bind(serde_json::to_string(&paths).map_err(unreadable)?)
        .fetch_all(&self.pool)
        .await
        .map_err(failed)?;
        let mut keys = Vec::new();
        for row in &rows {
            if let Some(key) = digest(row, "key")? {
                keys.push((stage_id(row, "stage")?, key));
            }
        }
        Ok(keys)
    }

    /// What a stage's key was made of; nothing if the run never came so far.
    pub async fn components_of(&self, run: &RunId, stage: &StageId) -> Result<Option<Vec<Component>>, Failure> {
        let row = self.stage_columns("components", run, stage).await?;
        row.map_or(Ok(None), |row| json(&row, "components"))
    }

    /// What a stage's key was made of in an earlier run and in this one, where both came so far.
    pub async fn components_then_and_now(
        &self,
        then: &RunId,
        now: &RunId,
        stage: &StageId,
    ) -> Result<Option<(Vec<Component>, Vec<Component>)>, Failure> {
        let row = sqlx::query(
            "SELECT old.components AS old, new.components AS new FROM stages new JOIN stages old
                 ON old.run = ?1 AND old.stage = new.stage WHERE new.run = ?2 AND new.stage = ?3",
        )
        .bind(&then.0)
        .bind(&now.0)
        .bind(stage.as_str())
        .fetch_optional(&self.pool)
        .await
        .map_err(failed)?;
        let Some(row) = row else { return Ok(None) };
        Ok(json(&row, "old")?.zip(json(&row, "new")?))
    }

    /// Why a stage was going to run, as the plan of its run said it; of a frozen one what its result was no longer made of.
    /// Nothing for one that had to wait and see.
    pub async fn because_of(&self, run: &RunId, stage: &StageId) -> Result<Option<Vec<Change>>, Failure> {
        let row = self.stage_columns("because", run, stage).await?;
        row.map_or(Ok(None), |row| json(&row, "because"))
    }

    /// Why a stage was going to run although nothing of its key had changed: `--force`.
    pub async fn asked_of(&self, run: &RunId, stage: &StageId) -> Result<Option<String>, Failure> {
        let row = self.stage_columns("asked", run, stage).await?;
        row.map_or(Ok(None), |row| row.try_get("asked").map_err(failed))
    }

    /// The last success of this stage in an earlier run of the same pipeline with the same `--limit`.
    pub async fn success_before(&self, run: &RunId, stage: &StageId) -> Result<Option<Success>, Failure> {
        let row = sqlx::query(SUCCESS_BEFORE)
            .bind(&run.0)
            .bind(stage.as_str())
            .fetch_optional(&self.pool)
            .await
            .map_err(failed)?;
        row.map(|row| {
            Ok(Success {
                run: RunId(text(&row, "run")?),
                started_ms: row.try_get::<i64, _>("started_ms").map_err(failed)? as u64,
                components: json(&row, "components")?.unwrap_or_default(),
            })
        })
        .transpose()
    }

    /// The last word of a run on each of these metrics: that of the last stage in the plan's order that has it, whichever ended
    /// last.
    pub async fn figures_of_run(&self, run: &RunId, names: &[&str]) -> Result<BTreeMap<String, f64>, Failure> {
        let rows: Vec<(String, Option<f64>)> = sqlx::query_as(FIGURES)
            .bind(&run.0)
            .bind(serde_json::to_string(names).map_err(unreadable)?)
            .fetch_all(&self.pool)
            .await
            .map_err(failed)?;
        Ok(rows.into_iter().filter_map(|(name, value)| Some((name, value?))).collect())
    }

    /// Everything that happened in a run, in order; points of curves are in [`Self::curves`].
    pub async fn events(&self, run: &RunId) -> Result<Vec<Event>, Failure> {
        let rows: Vec<(String,)> = sqlx::query_as("SELECT json FROM events WHERE run = ? ORDER BY id")
            .bind(&run.0)
            .fetch_all(&self.pool)
            .await
            .map_err(failed)?;
        rows.iter().map(|(json,)| serde_json::from_str(json).map_err(unreadable)).collect()
    }

    /// The paths a run published to, in order.
    pub async fn published_by(&self, run: &RunId) -> Result<Vec<PathBuf>, Failure> {
        let rows: Vec<(String,)> =
            sqlx::query_as(PUBLISHED).bind(&run.0).fetch_all(&self.pool).await.map_err(failed)?;
        let mut paths = Vec::new();
        for (json,) in rows {
            let event: Event = serde_json::from_str(&json).map_err(unreadable)?;
            if let What::Published { path, .. } = event.what {
                paths.push(path);
            }
        }
        Ok(paths)
    }
}
