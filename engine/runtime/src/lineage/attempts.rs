//! Reading: how often a stage was tried, and which stages a run never came to.

use std::collections::BTreeSet;

use llmflow_contract::StageId;
use sqlx::Row;

use super::{
    columns::{count, json, stage_id, text},
    *,
};
use crate::event::{Event, RunStatus, What};

pub(super) const ATTEMPTS: &str = "SELECT json FROM events WHERE run = ?1 AND json ->> '$.stage' = ?2
    AND json ->> '$.event' IN ('started', 'failed', 'finished', 'refused', 'interrupted') ORDER BY id";

impl Lineage {
    /// Every attempt at a stage, the first first: how long it took, and why it failed.
    pub async fn attempts_of(&self, run: &RunId, stage: &StageId) -> Result<Vec<AttemptRow>, Failure> {
        let rows = self.of_stage(ATTEMPTS, run, stage).await?;
        let mut attempts: Vec<AttemptRow> = Vec::new();
        let mut began_ms = 0;
        for row in &rows {
            let Some(Event { at_ms, what, .. }) = json(row, "json")? else { continue };
            if let What::Started { attempt } = what {
                began_ms = at_ms;
                attempts.push(AttemptRow { attempt, seconds: None, failure: None });
                continue;
            }
            // An end without a start is that of a stage that could not begin.
            let Some(last) = attempts.last_mut().filter(|last| last.seconds.is_none()) else { continue };
            last.seconds = Some(at_ms.saturating_sub(began_ms) as f64 / 1000.0);
            if let What::Failed { failure, .. } = what {
                last.failure = Some(failure);
            }
        }
        Ok(attempts)
    }

    /// The stages that an interrupted run did not come to: they wait for it to go on, and were not skipped.
    pub async fn not_started(&self, run: &RunId) -> Result<BTreeSet<StageId>, Failure> {
        let status = sqlx::query("SELECT status FROM runs WHERE run = ?").bind(&run.0).fetch_optional(&self.pool).await;
        let Some(status) = status.map_err(failed)? else { return Ok(BTreeSet::new()) };
        if RunStatus::from_name(&text(&status, "status")?) != RunStatus::Interrupted {
            return Ok(BTreeSet::new());
        }
        let sql = "SELECT stage, status, attempts, needs FROM stages WHERE run = ? ORDER BY position";
        let rows = sqlx::query(sql).bind(&run.0).fetch_all(&self.pool).await.map_err(failed)?;
        let (mut not_started, mut interrupted) = (BTreeSet::new(), BTreeSet::new());
        for row in &rows {
            let stage = stage_id(row, "stage")?;
            let needs: Vec<StageId> = json(row, "needs")?.unwrap_or_default();
            let is_kept_back = match row.try_get("status").map_err(failed)? {
                "interrupted" => count(row, "attempts")? == 0,
                "skipped" => needs.iter().any(|need| interrupted.contains(need)),
                _ => continue,
            };
            if is_kept_back {
                not_started.insert(stage.clone());
            }
            if is_kept_back || row.try_get::<&str, _>("status").map_err(failed)? == "interrupted" {
                interrupted.insert(stage);
            }
        }
        Ok(not_started)
    }
}
