//! Curves: the values of metrics over steps.

use std::collections::BTreeMap;

use llmflow_contract::StageId;

use super::*;

/// Earlier attempts at the same key that came to no end, newest first: whose checkpoints a later run may have gone on from.
pub(super) const UNFINISHED: &str = "SELECT s.run FROM stages s
    JOIN runs r ON r.run = s.run JOIN runs this ON this.run = ?1 JOIN stages own ON own.run = ?1 AND own.stage = ?2
    WHERE s.stage = ?2 AND s.key = own.key AND s.status IN ('interrupted', 'failed') AND r.number < this.number
    ORDER BY r.number DESC LIMIT 100";
pub(super) const POINTS: &str =
    "SELECT name, step, value FROM metrics WHERE run = ?1 AND stage = ?2 AND step IS NOT NULL ORDER BY id";

/// A metric's values over steps, one a step.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    pub name: String,
    pub points: BTreeMap<u64, f64>,
}

impl Lineage {
    /// The curves of a stage, in the order in which they were first heard of: whole, where its result was made in several
    /// runs or in an earlier one.
    pub async fn curves(&self, run: &RunId, row: &StageRow) -> Result<Vec<Curve>, Failure> {
        let (run, stage) = match self.maker(row).await? {
            Some(maker) if row.status != "ran" => maker, // a refused one may have been cached
            _ => (run.clone(), row.stage.clone()),
        };
        let mut curves = self.drawn(&run, &stage).await?;
        if curves.is_empty() {
            return Ok(curves);
        }
        let before: Vec<(String,)> =
            sqlx::query_as(UNFINISHED).bind(&run.0).bind(stage.as_str()).fetch_all(&self.pool).await.map_err(failed)?;
        for (earlier,) in before {
            let parts = self.drawn(&RunId(earlier), &stage).await?;
            for curve in &mut curves {
                let Some(part) = parts.iter().find(|part| part.name == curve.name) else { continue };
                let first = curve.points.first_key_value().map_or(0, |(step, _)| *step);
                curve.points.extend(part.points.range(..first));
            }
        }
        Ok(curves)
    }

    /// What one run told of a stage. Of an attempt that went back to a checkpoint the last word counts.
    async fn drawn(&self, run: &RunId, stage: &StageId) -> Result<Vec<Curve>, Failure> {
        let rows: Vec<(String, i64, Option<f64>)> =
            sqlx::query_as(POINTS).bind(&run.0).bind(stage.as_str()).fetch_all(&self.pool).await.map_err(failed)?;
        let mut curves: Vec<Curve> = Vec::new();
        for (name, step, value) in rows {
            let value = value.unwrap_or(f64::NAN); // SQLite has no other place for it
            let known = curves.iter().position(|curve| curve.name == name).unwrap_or_else(|| {
                curves.push(Curve { name, points: BTreeMap::new() });
                curves.len() - 1
            });
            curves[known].points.insert(step as u64, value);
        }
        Ok(curves)
    }

    /// The first run and stage that gave what this stage gave.
    async fn maker(&self, row: &StageRow) -> Result<Option<(RunId, StageId)>, Failure> {
        let Some(digest) = row.outputs.iter().find_map(|output| output.digest) else { return Ok(None) };
        let producers = self.producers(&digest).await?;
        Ok(producers.into_iter().last().map(|place| (place.run, place.stage)))
    }
}
