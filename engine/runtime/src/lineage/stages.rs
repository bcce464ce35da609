//! Reading: the stages of a run, one of them, and what stands around it.

use std::collections::{BTreeMap, HashMap};

use llmflow_contract::StageId;
use sqlx::{Row, sqlite::SqliteRow};

use super::{
    columns::{count, digest, json, kind, port, stage_id, text},
    *,
};
use serde::Serialize;

use crate::{
    event::{Event, What},
    plan::Component,
};

/// The outputs of a run's stages. With [`ONE`] of a single stage, as the others.
pub(super) const OUTPUTS: &str = "SELECT * FROM outputs WHERE run = ?1";
pub(super) const INPUTS: &str = "SELECT i.stage, i.port, i.label, i.from_stage, i.from_port, i.digest AS noted,
        coalesce(i.digest, o.digest) AS digest FROM inputs i
    LEFT JOIN outputs o ON o.run = i.run AND o.stage = i.from_stage AND o.port = i.from_port WHERE i.run = ?1";
pub(super) const METRICS: &str =
    "SELECT stage, name, value FROM metrics INDEXED BY metrics_at_the_end WHERE step IS NULL AND run = ?1";
/// Every stage that reads, directly or not, what `?2` gives. `CROSS` keeps the order of a join: left to itself SQLite walks
/// all stages of the run for each that follows.
pub(super) const FOLLOWING: &str = "WITH RECURSIVE following (stage) AS (
        SELECT stage FROM inputs WHERE run = ?1 AND from_stage = ?2
        UNION SELECT i.stage FROM following f CROSS JOIN inputs i ON i.run = ?1 AND i.from_stage = f.stage)
    SELECT s.stage, s.status, s.seconds FROM following f CROSS JOIN stages s ON s.run = ?1 AND s.stage = f.stage
    ORDER BY s.position";
pub(super) const REASON: &str = "SELECT json FROM events INDEXED BY events_that_tell
    WHERE run = ?1 AND json ->> '$.stage' = ?2 AND json ->> '$.event' IN ('refused', 'skipped', 'published', 'run_started')
    AND json ->> '$.event' IN ('refused', 'skipped') ORDER BY id DESC LIMIT 1";

/// How a stage stands that an interrupted run did not come to.
pub const NOT_STARTED: &str = "not started";

/// How many stages of one operator stand how, and the seconds they took together.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StageCount {
    pub operator: String,
    pub status: String,
    pub stages: u32,
    pub seconds: f64,
}

/// A stage that comes after another.
#[derive(Clone, Debug, PartialEq)]
pub struct Follower {
    pub stage: StageId,
    pub status: String,
    pub seconds: Option<f64>,
}

impl Lineage {
    /// The stages of a run, in an order that ran.
    pub async fn stages_of_run(&self, run: &RunId) -> Result<Vec<StageRow>, Failure> {
        let rows = self.of_run("SELECT * FROM stages WHERE run = ?1 ORDER BY position", run).await?;
        let mut stages = rows.iter().map(stage_row).collect::<Result<Vec<_>, _>>()?;
        let place: HashMap<StageId, usize> =
            stages.iter().enumerate().map(|(index, stage)| (stage.stage.clone(), index)).collect();
        let mut add = |row: &SqliteRow, fill: fn(&mut StageRow, &SqliteRow) -> Result<(), Failure>| {
            // Foreign keys hold: a row without its stage is a damaged file's.
            match place.get(&stage_id(row, "stage")?) {
                Some(index) => fill(&mut stages[*index], row),
                None => Err(unreadable("a row names a stage that is not there")),
            }
        };
        for row in self.of_run("SELECT * FROM outputs WHERE run = ?1 ORDER BY position, port", run).await? {
            add(&row, add_output)?;
        }
        let inputs = sqlx::AssertSqlSafe(format!("{INPUTS} ORDER BY i.position"));
        for row in sqlx::query(inputs).bind(&run.0).fetch_all(&self.pool).await.map_err(failed)? {
            add(&row, add_input)?;
        }
        let metrics = sqlx::AssertSqlSafe(format!("{METRICS} ORDER BY id"));
        for row in sqlx::query(metrics).bind(&run.0).fetch_all(&self.pool).await.map_err(failed)? {
            add(&row, add_metric)?;
        }
        Ok(stages)
    }

    async fn of_run(&self, sql: &'static str, run: &RunId) -> Result<Vec<SqliteRow>, Failure> {
        sqlx::query(sql).bind(&run.0).fetch_all(&self.pool).await.map_err(failed)
    }

    /// One stage of a run, whatever the number of the others.
    pub async fn stage_of_run(&self, run: &RunId, stage: &StageId) -> Result<Option<StageRow>, Failure> {
        let row = self.stage_columns("*", run, stage).await?;
        let Some(row) = row else { return Ok(None) };
        let mut found = stage_row(&row)?;
        for row in self.of_stage(&format!("{OUTPUTS} AND stage = ?2 ORDER BY position, port"), run, stage).await? {
            add_output(&mut found, &row)?;
        }
        for row in self.of_stage(&format!("{INPUTS} AND i.stage = ?2 ORDER BY i.position"), run, stage).await? {
            add_input(&mut found, &row)?;
        }
        for row in self.of_stage(&format!("{METRICS} AND stage = ?2 ORDER BY id"), run, stage).await? {
            add_metric(&mut found, &row)?;
        }
        Ok(Some(found))
    }

    pub(super) async fn of_stage(&self, sql: &str, run: &RunId, stage: &StageId) -> Result<Vec<SqliteRow>, Failure> {
        let query = sqlx::query(sqlx::AssertSqlSafe(sql.to_owned())).bind(&run.0).bind(stage.as_str());
        query.fetch_all(&self.pool).await.map_err(failed)
    }

    /// Columns of a stage's row, if the run has the stage.
    pub(super) async fn stage_columns(
        &self,
        columns: &'static str,
        run: &RunId,
        stage: &StageId,
    ) -> Result<Option<SqliteRow>, Failure> {
        let sql = format!("SELECT {columns} FROM stages WHERE run = ?1 AND stage = ?2");
        Ok(self.of_stage(&sql, run, stage).await?.pop())
    }

    /// What a stage of a run reads, by [`InputRow::slot`].
    pub async fn reads_of(&self, run: &RunId, stage: &StageId) -> Result<Vec<(String, StageId)>, Failure> {
        let sql = "SELECT port, label, from_stage FROM inputs WHERE run = ?1 AND stage = ?2 ORDER BY position";
        let rows = self.of_stage(sql, run, stage).await?;
        let read = |row: &SqliteRow| {
            Ok((row::slot(&port(row, "port")?, label(row)?.as_deref()), stage_id(row, "from_stage")?))
        };
        rows.iter().map(read).collect()
    }

    /// How the stages of a run stand, by operator and status, in the order in which the operators first come.
    pub async fn stage_counts(&self, run: &RunId) -> Result<Vec<StageCount>, Failure> {
        let sql = "SELECT operator, status, count(*) AS stages,
                coalesce(sum(seconds) FILTER (WHERE status IN ('ran', 'refused', 'failed')), 0.0) AS seconds
            FROM stages WHERE run = ?1 GROUP BY operator, status ORDER BY min(position)";
        let rows = self.of_run(sql, run).await?;
        let of = |row: &SqliteRow| -> Result<StageCount, Failure> {
            Ok(StageCount {
                operator: text(row, "operator")?,
                status: text(row, "status")?,
                stages: count(row, "stages")?,
                seconds: row.try_get("seconds").map_err(failed)?,
            })
        };
        let mut counts = rows.iter().map(of).collect::<Result<Vec<_>, _>>()?;
        let not_started = self.not_started(run).await?;
        if not_started.is_empty() {
            return Ok(counts);
        }
        let sql = "SELECT stage, operator, status FROM stages WHERE run = ?1 AND status IN ('interrupted', 'skipped')
            ORDER BY position";
        for row in self.of_run(sql, run).await? {
            if not_started.contains(&stage_id(&row, "stage")?) {
                move_one(&mut counts, &text(&row, "operator")?, &text(&row, "status")?, NOT_STARTED);
            }
        }
        counts.retain(|count| count.stages > 0);
        Ok(counts)
    }

    /// The stages of a run that failed or were refused, in order, at most `limit`; without what they read and gave.
    pub async fn broken_stages(&self, run: &RunId, limit: u32) -> Result<Vec<StageRow>, Failure> {
        let sql = "SELECT * FROM stages WHERE run = ? AND status IN ('failed', 'refused') ORDER BY position LIMIT ?";
        self.some_stages(sql, run, limit).await
    }

    /// The stages of a run that ran longest, the longest first; without what they read and gave.
    pub async fn slowest_stages(&self, run: &RunId, limit: u32) -> Result<Vec<StageRow>, Failure> {
        let sql = "SELECT * FROM stages WHERE run = ? AND status IN ('ran', 'refused') ORDER BY seconds DESC LIMIT ?";
        self.some_stages(sql, run, limit).await
    }

    async fn some_stages(&self, sql: &'static str, run: &RunId, limit: u32) -> Result<Vec<StageRow>, Failure> {
        let query = sqlx::query(sql).bind(&run.0).bind(i64::from(limit));
        query.fetch_all(&self.pool).await.map_err(failed)?.iter().map(stage_row).collect()
    }

    /// The stages of a run that started, with their last attempt, in order: of these there are logs.
    pub async fn attempts_of_run(&self, run: &RunId) -> Result<Vec<(StageId, u32)>, Failure> {
        let sql = "SELECT stage, attempts FROM stages WHERE run = ?1 AND attempts > 0 ORDER BY position";
        let rows = self.of_run(sql, run).await?;
        rows.iter().map(|row| Ok((stage_id(row, "stage")?, count(row, "attempts")?))).collect()
    }

    /// The names of a run's stages, in order, at most `limit`.
    pub async fn stage_names(&self, run: &RunId, limit: Option<u32>) -> Result<Vec<StageId>, Failure> {
        let rows = sqlx::query("SELECT stage FROM stages WHERE run = ? ORDER BY position LIMIT ?")
            .bind(&run.0)
            .bind(limit.map_or(-1, i64::from))
            .fetch_all(&self.pool)
            .await
            .map_err(failed)?;
        rows.iter().map(|row| stage_id(row, "stage")).collect()
    }

    /// The stages of this run that read what a stage gives.
    pub async fn readers_of(&self, run: &RunId, stage: &StageId) -> Result<Vec<StageId>, Failure> {
        let sql = "SELECT DISTINCT i.stage FROM inputs i JOIN stages s ON s.run = i.run AND s.stage = i.stage
            WHERE i.run = ?1 AND i.from_stage = ?2 ORDER BY s.position";
        self.of_stage(sql, run, stage).await?.iter().map(|row| stage_id(row, "stage")).collect()
    }

    /// Every stage of this run that reads, directly or not, what a stage gives; in an order that ran.
    pub async fn following(&self, run: &RunId, stage: &StageId) -> Result<Vec<Follower>, Failure> {
        let rows = self.of_stage(FOLLOWING, run, stage).await?;
        let follower = |row: &SqliteRow| {
            Ok(Follower {
                stage: stage_id(row, "stage")?,
                status: text(row, "status")?,
                seconds: row.try_get("seconds").map_err(failed)?,
            })
        };
        rows.iter().map(follower).collect()
    }

    /// What the run said of a stage that was skipped or refused, last.
    pub async fn reason_of(&self, run: &RunId, stage: &StageId) -> Result<Option<What>, Failure> {
        let rows = self.of_stage(REASON, run, stage).await?;
        let event: Option<Event> = rows.first().map(|row| json(row, "json")).transpose()?.flatten();
        Ok(event.map(|event| event.what))
    }

    /// What the keys of a run's stages were made of, of those that had one.
    pub async fn components_of_run(&self, run: &RunId) -> Result<HashMap<StageId, Vec<Component>>, Failure> {
        let sql = "SELECT stage, components FROM stages WHERE run = ?1 AND components IS NOT NULL";
        let rows = self.of_run(sql, run).await?;
        rows.iter().map(|row| Ok((stage_id(row, "stage")?, json(row, "components")?.unwrap_or_default()))).collect()
    }
}

/// One stage of an operator stands another way.
fn move_one(counts: &mut Vec<StageCount>, operator: &str, from: &str, to: &str) {
    let mut place = |status: &str| match counts.iter().position(|it| it.operator == operator && it.status == status) {
        Some(place) => place,
        None => {
            counts.push(StageCount { operator: operator.into(), status: status.into(), stages: 0, seconds: 0.0 });
            counts.len() - 1
        }
    };
    let (from, to) = (place(from), place(to));
    counts[from].stages = counts[from].stages.saturating_sub(1);
    counts[to].stages += 1;
}

fn stage_row(row: &SqliteRow) -> Result<StageRow, Failure> {
    Ok(StageRow {
        stage: stage_id(row, "stage")?,
        operator: text(row, "operator")?,
        version: count(row, "version")?,
        status: text(row, "status")?,
        key: digest(row, "key")?,
        seconds: row.try_get("seconds").map_err(failed)?,
        summary: text(row, "summary")?,
        attempts: count(row, "attempts")?,
        failure: json(row, "failure")?,
        needs: json(row, "needs")?.unwrap_or_default(),
        outputs: Vec::new(),
        inputs: Vec::new(),
        metrics: BTreeMap::new(),
    })
}

fn add_output(stage: &mut StageRow, row: &SqliteRow) -> Result<(), Failure> {
    stage.outputs.push(OutputRow { port: port(row, "port")?, kind: kind(row)?, digest: digest(row, "digest")? });
    Ok(())
}

fn add_input(stage: &mut StageRow, row: &SqliteRow) -> Result<(), Failure> {
    stage.inputs.push(InputRow {
        port: port(row, "port")?,
        label: label(row)?,
        from_stage: stage_id(row, "from_stage")?,
        from_port: port(row, "from_port")?,
        digest: digest(row, "digest")?,
        noted: digest(row, "noted")?,
    });
    Ok(())
}

fn label(row: &SqliteRow) -> Result<Option<String>, Failure> {
    row.try_get("label").map_err(failed)
}

fn add_metric(stage: &mut StageRow, row: &SqliteRow) -> Result<(), Failure> {
    // SQLite has no NaN: it keeps one as NULL.
    let value = row.try_get::<Option<f64>, _>("value").map_err(failed)?.unwrap_or(f64::NAN);
    stage.metrics.insert(text(row, "name")?, value);
    Ok(())
}
