//! Reading: what the keys of past stages were made of, and which curves they drew.

use llmflow_contract::StageId;
use sqlx::Row;

use super::*;
use crate::plan::Component;

/// A success of a stage, before another.
#[derive(Clone, Debug, PartialEq)]
pub struct Success {
    pub run: RunId,
    /// Milliseconds since 1970 (UTC).
    pub started_ms: u64,
    /// What the key was made of.
    pub components: Vec<Component>,
}

impl Lineage {
    /// What a stage's key was made of; nothing if the run never came so far.
    pub async fn components_of(&self, run: &RunId, stage: &StageId) -> Result<Option<Vec<Component>>, Failure> {
        let row: Option<(Option<String>,)> =
            sqlx::query_as("SELECT components FROM stages WHERE run = ? AND stage = ?")
                .bind(&run.0)
                .bind(stage.as_str())
                .fetch_optional(&self.pool)
                .await
                .map_err(failed)?;
        let text = row.and_then(|(text,)| text);
        text.map(|text| serde_json::from_str(&text).map_err(unreadable)).transpose()
    }

    /// The last success of this stage in an earlier run of the same pipeline.
    pub async fn success_before(&self, run: &RunId, stage: &StageId) -> Result<Option<Success>, Failure> {
        let row = sqlx::query(
            "SELECT r.run, r.started_ms, s.components FROM stages s JOIN runs r ON r.run = s.run
             JOIN runs this ON this.run = ?
             WHERE r.pipeline = this.pipeline AND r.number < this.number AND s.stage = ?
                 AND s.status IN ('ran', 'cached', 'refused') AND s.components IS NOT NULL
             ORDER BY r.number DESC LIMIT 1",
        )
        .bind(&run.0)
        .bind(stage.as_str())
        .fetch_optional(&self.pool)
        .await
        .map_err(failed)?;
        row.map(|row| {
            let components: String = row.try_get("components").map_err(failed)?;
            Ok(Success {
                run: RunId(row.try_get("run").map_err(failed)?),
                started_ms: row.try_get::<i64, _>("started_ms").map_err(failed)? as u64,
                components: serde_json::from_str(&components).map_err(unreadable)?,
            })
        })
        .transpose()
    }

    /// The metrics of which a stage has values over steps, in the order in which they were first heard of.
    pub async fn series_names(&self, run: &RunId, stage: &StageId) -> Result<Vec<String>, Failure> {
        let rows: Vec<(String,)> = sqlx::query_as(
            "SELECT name FROM metrics WHERE run = ? AND stage = ? AND step IS NOT NULL GROUP BY name ORDER BY min(id)",
        )
        .bind(&run.0)
        .bind(stage.as_str())
        .fetch_all(&self.pool)
        .await
        .map_err(failed)?;
        Ok(rows.into_iter().map(|(name,)| name).collect())
    }
}
