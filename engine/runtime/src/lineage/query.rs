//! Reading: what the commands that look back ask.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
};

use llmflow_contract::{Digest, Kind, Port, StageId};
use sqlx::{Row, sqlite::SqliteRow};

use super::*;
use crate::{
    address::Address,
    event::{Event, RunStatus},
    plan::LastSuccess,
};

impl Lineage {
    /// The newest runs, newest first.
    pub async fn runs(&self, limit: u32) -> Result<Vec<RunRow>, Failure> {
        self.run_rows(None, limit).await
    }

    /// One run.
    pub async fn run(&self, run: &RunId) -> Result<RunRow, Failure> {
        self.run_rows(Some(run), 1).await?.pop().ok_or_else(|| no_run(run))
    }

    /// The run of that name, or all of them: newest first.
    async fn run_rows(&self, run: Option<&RunId>, limit: u32) -> Result<Vec<RunRow>, Failure> {
        let rows = sqlx::query(
            "SELECT run, pipeline, status, started_ms, seconds, changed,
                    (SELECT count(*) FROM stages s WHERE s.run = r.run AND s.status = 'ran') AS ran,
                    (SELECT count(*) FROM stages s WHERE s.run = r.run AND s.status = 'cached') AS cached,
                    (SELECT count(*) FROM stages s WHERE s.run = r.run AND s.status IN ('failed', 'refused')) AS failed,
                    (SELECT count(*) FROM stages s WHERE s.run = r.run AND s.status = 'skipped') AS skipped
             FROM runs r WHERE ?1 IS NULL OR run = ?1 ORDER BY number DESC LIMIT ?2",
        )
        .bind(run.map(|run| run.0.as_str()))
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await
        .map_err(failed)?;
        rows.iter().map(run_row).collect()
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
            [] => {
                Err(Failure::input("lineage/run", format!("no run is called `{text}`")).help("llmflow runs lists them"))
            }
            [one] => Ok(RunId(one.to_owned())),
            [exact, ..] if exact == text => Ok(RunId(exact.to_owned())),
            [..] => Err(Failure::input("lineage/run", format!("`{text}` could be {}", names.join(", ")))
                .help("write more of the name")),
        }
    }

    /// The newest run that can be resumed.
    pub async fn newest_unfinished(&self) -> Result<Option<RunId>, Failure> {
        let row: Option<(String,)> = sqlx::query_as(
            "SELECT run FROM runs WHERE status IN ('interrupted', 'failed', 'refused') ORDER BY number DESC LIMIT 1",
        )
        .fetch_optional(&self.pool)
        .await
        .map_err(failed)?;
        Ok(row.map(|(run,)| RunId(run)))
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

    /// The file a run was started with.
    pub async fn pipeline_of(&self, run: &RunId) -> Result<PipelineRow, Failure> {
        let row = sqlx::query("SELECT path, pipeline, text, set_json, params, resumes FROM runs WHERE run = ?")
            .bind(&run.0)
            .fetch_optional(&self.pool)
            .await
            .map_err(failed)?
            .ok_or_else(|| no_run(run))?;
        Ok(PipelineRow {
            path: PathBuf::from(text(&row, "path")?),
            name: text(&row, "pipeline")?,
            text: text(&row, "text")?,
            set: serde_json::from_str(&text(&row, "set_json")?).map_err(unreadable)?,
            params: serde_json::from_str(&text(&row, "params")?).map_err(unreadable)?,
            resumes: row.try_get::<Option<String>, _>("resumes").map_err(failed)?.map(RunId),
        })
    }

    /// The stages of a run, in an order that ran.
    pub async fn stages_of_run(&self, run: &RunId) -> Result<Vec<StageRow>, Failure> {
        let rows = sqlx::query("SELECT * FROM stages WHERE run = ? ORDER BY position")
            .bind(&run.0)
            .fetch_all(&self.pool)
            .await
            .map_err(failed)?;
        let mut stages = rows.iter().map(stage_row).collect::<Result<Vec<_>, _>>()?;
        let mut place: BTreeMap<StageId, usize> = BTreeMap::new();
        for (index, stage) in stages.iter().enumerate() {
            place.insert(stage.stage.clone(), index);
        }
        for row in self.of_run("SELECT * FROM outputs WHERE run = ? ORDER BY position, port", run).await? {
            let output = OutputRow { port: port(&row, "port")?, kind: kind(&row)?, digest: digest(&row, "digest")? };
            stages[place[&stage_id(&row, "stage")?]].outputs.push(output);
        }
        let inputs = "SELECT i.*, o.digest FROM inputs i
            LEFT JOIN outputs o ON o.run = i.run AND o.stage = i.from_stage AND o.port = i.from_port
            WHERE i.run = ? ORDER BY i.position";
        for row in self.of_run(inputs, run).await? {
            let input = InputRow {
                port: port(&row, "port")?,
                from_stage: stage_id(&row, "from_stage")?,
                from_port: port(&row, "from_port")?,
                digest: digest(&row, "digest")?,
            };
            stages[place[&stage_id(&row, "stage")?]].inputs.push(input);
        }
        for row in self.of_run("SELECT * FROM metrics WHERE run = ? AND step IS NULL ORDER BY id", run).await? {
            if let Some(value) = row.try_get::<Option<f64>, _>("value").map_err(failed)? {
                stages[place[&stage_id(&row, "stage")?]].metrics.insert(text(&row, "name")?, value);
            }
        }
        Ok(stages)
    }

    async fn of_run(&self, sql: &'static str, run: &RunId) -> Result<Vec<SqliteRow>, Failure> {
        sqlx::query(sql).bind(&run.0).fetch_all(&self.pool).await.map_err(failed)
    }

    /// A metric's values over steps, one a step: of an attempt that went back to a checkpoint the last.
    pub async fn series(&self, run: &RunId, stage: &StageId, name: &str) -> Result<Vec<(u64, f64)>, Failure> {
        let rows: Vec<(i64, Option<f64>)> = sqlx::query_as(
            "SELECT step, value FROM metrics WHERE run = ? AND stage = ? AND name = ? AND step IS NOT NULL ORDER BY id",
        )
        .bind(&run.0)
        .bind(stage.as_str())
        .bind(name)
        .fetch_all(&self.pool)
        .await
        .map_err(failed)?;
        let points: BTreeMap<u64, f64> =
            rows.into_iter().filter_map(|(step, value)| Some((step as u64, value?))).collect();
        Ok(points.into_iter().collect())
    }

    /// Everything that happened in a run, in order; points of series are in [`Self::series`].
    pub async fn events(&self, run: &RunId) -> Result<Vec<Event>, Failure> {
        let rows: Vec<(String,)> = sqlx::query_as("SELECT json FROM events WHERE run = ? ORDER BY id")
            .bind(&run.0)
            .fetch_all(&self.pool)
            .await
            .map_err(failed)?;
        rows.iter().map(|(json,)| serde_json::from_str(json).map_err(unreadable)).collect()
    }

    /// The run of an address, its stages, and which of them is meant.
    ///
    /// # Errors
    /// `lineage/address` if it names no stage, or a part that does not exist.
    pub async fn find_stage(&self, address: &Address) -> Result<(RunId, Vec<StageRow>, usize), Failure> {
        let run = self.find_run(&address.run).await?;
        let stages = self.stages_of_run(&run).await?;
        let bad = |message: String| Failure::input("lineage/address", message);
        let names = || stages.iter().map(|stage| stage.stage.as_str()).collect::<Vec<_>>().join(", ");
        let Some(wanted) = &address.stage else {
            let message = format!("the address names a run; name one of its stages too: {}", names());
            return Err(bad(message).help(format!("llmflow show {run}")));
        };
        let Some(position) = stages.iter().position(|stage| stage.stage == *wanted) else {
            let message = format!("run `{run}` has no stage `{wanted}`; it has {}", names());
            return Err(bad(message).help(format!("llmflow show {run}")));
        };
        let outputs = &stages[position].outputs;
        if let Some(port) = &address.port
            && outputs.iter().all(|output| output.port != *port)
        {
            let ports: Vec<&str> = outputs.iter().map(|output| output.port.as_str()).collect();
            let message = format!("`{wanted}` of run `{run}` gave no `{port}`; it gave {}", ports.join(", "));
            return Err(bad(message).help(format!("llmflow show {run}/{wanted}")));
        }
        Ok((run, stages, position))
    }

    /// The artifact an address stands for: of a stage without a port its main output.
    ///
    /// # Errors
    /// Those of [`Lineage::find_stage`]; `lineage/address` if the stage gave nothing.
    pub async fn resolve(&self, address: &Address) -> Result<(RunId, StageId, Port, Digest), Failure> {
        let (run, mut stages, position) = self.find_stage(address).await?;
        let stage = stages.swap_remove(position);
        let is_meant = |output: &&OutputRow| address.port.as_ref().is_none_or(|port| output.port == *port);
        let bad = |message: String| Failure::input("lineage/address", message).help(format!("llmflow show {run}"));
        match stage.outputs.iter().find(is_meant) {
            Some(OutputRow { port, digest: Some(digest), .. }) => {
                let (port, digest) = (port.clone(), *digest);
                Ok((run, stage.stage, port, digest))
            }
            Some(output) => {
                Err(bad(format!("`{}.{}` does not exist: the stage is {}", stage.stage, output.port, stage.status)))
            }
            None => Err(bad(format!("`{}` has no output", stage.stage))),
        }
    }

    /// Which stages made an artifact, newest run first.
    pub async fn producers(&self, digest: &Digest) -> Result<Vec<Whereabouts>, Failure> {
        let sql = "SELECT o.run, o.stage, o.port FROM outputs o JOIN runs r ON r.run = o.run
            WHERE o.digest = ? ORDER BY r.number DESC, o.position";
        self.whereabouts(sql, digest).await
    }

    /// Which stages read an artifact, newest run first.
    pub async fn consumers(&self, digest: &Digest) -> Result<Vec<Whereabouts>, Failure> {
        let sql = "SELECT i.run, i.stage, i.port FROM inputs i
            JOIN outputs o ON o.run = i.run AND o.stage = i.from_stage AND o.port = i.from_port
            JOIN runs r ON r.run = i.run WHERE o.digest = ? ORDER BY r.number DESC, i.position";
        self.whereabouts(sql, digest).await
    }

    async fn whereabouts(&self, sql: &'static str, digest: &Digest) -> Result<Vec<Whereabouts>, Failure> {
        let rows = sqlx::query(sql).bind(digest.to_string()).fetch_all(&self.pool).await.map_err(failed)?;
        rows.iter()
            .map(|row| {
                let run = RunId(text(row, "run")?);
                Ok(Whereabouts { run, stage: stage_id(row, "stage")?, port: port(row, "port")? })
            })
            .collect()
    }

    /// The last time each of these stages of a pipeline succeeded.
    pub async fn last_successes(
        &self,
        pipeline: &str,
        stages: &[&StageId],
    ) -> Result<HashMap<StageId, LastSuccess>, Failure> {
        let rows: Vec<(String, String, Option<f64>)> = sqlx::query_as(
            "SELECT s.stage, s.components, s.seconds FROM json_each(?2) wanted JOIN stages s ON s.rowid = (
                 SELECT s.rowid FROM stages s JOIN runs r ON r.run = s.run
                 WHERE s.stage = wanted.value AND r.pipeline = ?1
                     AND s.status IN ('ran', 'cached', 'refused') AND s.components IS NOT NULL
                 ORDER BY r.number DESC LIMIT 1)",
        )
        .bind(pipeline)
        .bind(serde_json::to_string(stages).map_err(unreadable)?)
        .fetch_all(&self.pool)
        .await
        .map_err(failed)?;
        rows.into_iter()
            .map(|(stage, components, seconds)| {
                let components = serde_json::from_str(&components).map_err(unreadable)?;
                let last = LastSuccess { components, seconds: seconds.unwrap_or_default() };
                Ok((StageId::new(stage), last))
            })
            .collect()
    }

    /// The key of each stage's last success.
    pub async fn last_keys(&self, pipeline: &str, stages: &[&StageId]) -> Result<Vec<(StageId, Digest)>, Failure> {
        let rows = sqlx::query(
            "SELECT s.stage, s.key FROM json_each(?2) wanted JOIN stages s ON s.rowid = (
                 SELECT s.rowid FROM stages s JOIN runs r ON r.run = s.run
                 WHERE s.stage = wanted.value AND r.pipeline = ?1
                     AND s.status IN ('ran', 'cached', 'refused') AND s.key IS NOT NULL
                 ORDER BY r.number DESC LIMIT 1)",
        )
        .bind(pipeline)
        .bind(serde_json::to_string(stages).map_err(unreadable)?)
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

    /// What was published at a path last: digest, bytes, modification time in ns, inode.
    pub async fn published(&self, path: &Path) -> Result<Option<(Digest, u64, i64, u64)>, Failure> {
        let row = sqlx::query("SELECT digest, size, mtime_ns, ino FROM published WHERE path = ?")
            .bind(path.to_string_lossy().into_owned())
            .fetch_optional(&self.pool)
            .await
            .map_err(failed)?;
        let Some(row) = row else { return Ok(None) };
        let number = |name: &str| row.try_get::<i64, _>(name).map_err(failed);
        let (size, mtime_ns, inode) = (number("size")? as u64, number("mtime_ns")?, number("ino")? as u64);
        Ok(digest(&row, "digest")?.map(|digest| (digest, size, mtime_ns, inode)))
    }
}

fn no_run(run: &RunId) -> Failure {
    Failure::input("lineage/run", format!("no run is called `{run}`")).help("llmflow runs lists them")
}

fn run_row(row: &SqliteRow) -> Result<RunRow, Failure> {
    let count = |name: &str| row.try_get::<i64, _>(name).map(|count| count as u32).map_err(failed);
    Ok(RunRow {
        run: RunId(text(row, "run")?),
        pipeline: text(row, "pipeline")?,
        status: RunStatus::from_name(&text(row, "status")?),
        started_ms: row.try_get::<i64, _>("started_ms").map_err(failed)? as u64,
        seconds: row.try_get("seconds").map_err(failed)?,
        ran: count("ran")?,
        cached: count("cached")?,
        failed: count("failed")?,
        skipped: count("skipped")?,
        changed: text(row, "changed")?,
    })
}

fn stage_row(row: &SqliteRow) -> Result<StageRow, Failure> {
    let failure: Option<String> = row.try_get("failure").map_err(failed)?;
    Ok(StageRow {
        stage: stage_id(row, "stage")?,
        operator: text(row, "operator")?,
        version: row.try_get::<i64, _>("version").map_err(failed)? as u32,
        status: text(row, "status")?,
        key: digest(row, "key")?,
        seconds: row.try_get("seconds").map_err(failed)?,
        summary: text(row, "summary")?,
        attempts: row.try_get::<i64, _>("attempts").map_err(failed)? as u32,
        failure: failure.map(|json| serde_json::from_str(&json)).transpose().map_err(unreadable)?,
        needs: serde_json::from_str(&text(row, "needs")?).map_err(unreadable)?,
        outputs: Vec::new(),
        inputs: Vec::new(),
        metrics: BTreeMap::new(),
    })
}

fn text(row: &SqliteRow, name: &str) -> Result<String, Failure> {
    row.try_get(name).map_err(failed)
}

fn stage_id(row: &SqliteRow, name: &str) -> Result<StageId, Failure> {
    text(row, name).map(|text| StageId::from(text.as_str()))
}

fn port(row: &SqliteRow, name: &str) -> Result<Port, Failure> {
    text(row, name).map(|text| Port::from(text.as_str()))
}

fn kind(row: &SqliteRow) -> Result<Kind, Failure> {
    text(row, "kind").map(|text| Kind::new(&text))
}

fn digest(row: &SqliteRow, name: &str) -> Result<Option<Digest>, Failure> {
    let text: Option<String> = row.try_get(name).map_err(failed)?;
    let bad = || Failure::environment("lineage/database", format!("`{name}` in `lineage.db` is no digest"));
    text.map(|text| text.parse().map_err(|_| bad())).transpose()
}
