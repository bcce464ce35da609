//! The loop of every row operator: stable order, threads, trace, progress, cancellation, and the law of rows.

use std::collections::BTreeMap;

use llmflow_contract::{Context, Failure, Funnel};
use rayon::prelude::*;
use serde_json::Value;

use crate::{Dataset, DatasetError, DatasetWriter, Fate, Row, TraceRecord, TraceWriter};

/// Rows judged between two looks at cancellation.
const CHUNK_ROWS: usize = 512;

/// What a row operator decides about one row.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    Keep,
    /// Left out by a rule, with what the rule saw.
    Drop {
        rule: &'static str,
        evidence: Value,
    },
    /// Replaced by another row, by a rule.
    Change {
        row: Row,
        rule: &'static str,
    },
    /// Could not be judged; not an error of the stage.
    SetAside {
        rule: &'static str,
        evidence: Value,
    },
}

/// How many rows met which fate.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally {
    pub kept: u64,
    pub changed: u64,
    pub made: u64,
    pub set_aside: u64,
    /// By rule.
    pub dropped: BTreeMap<String, u64>,
}

impl Tally {
    pub(crate) fn count(&mut self, record: &TraceRecord) {
        match record.verdict {
            Fate::Kept => self.kept += 1,
            Fate::Changed => self.changed += 1,
            Fate::Made => self.made += 1,
            Fate::SetAside => self.set_aside += 1,
            Fate::Dropped => {
                let rule = record.rule.clone().unwrap_or_else(|| "dropped".to_owned());
                *self.dropped.entry(rule).or_default() += 1;
            }
        }
    }

    /// The law: each row in has one fate, and the rows out are those kept, changed and made.
    pub(crate) fn check(&self, rows_in: u64, rows_out: u64) -> Result<(), DatasetError> {
        let dropped: u64 = self.dropped.values().sum();
        let accounted = self.kept + self.changed + dropped + self.set_aside;
        let out = self.kept + self.changed + self.made;
        if accounted == rows_in && out == rows_out {
            return Ok(());
        }
        let Self { kept, changed, made, set_aside, .. } = self;
        let detail = format!(
            "{kept} kept, {changed} changed, {dropped} dropped, {set_aside} set aside; {made} made, {rows_out} out"
        );
        Err(DatasetError::Law { rows_in, accounted, detail })
    }

    pub(crate) fn funnel(&self, rows_in: u64) -> Funnel {
        Funnel {
            rows_in,
            kept: self.kept + self.changed,
            made: self.made,
            set_aside: self.set_aside,
            dropped: self.dropped.clone(),
        }
    }
}

/// Judges every row on all threads and writes what is kept in the order of the input.
///
/// # Errors
/// The first error of `judge` in row order; class `cancelled`; a bug if a row vanished.
pub fn map_rows(
    ctx: &Context,
    dataset: &Dataset,
    writer: &mut DatasetWriter,
    mut trace: TraceWriter,
    judge: impl Fn(&Row) -> Result<Verdict, Failure> + Sync,
) -> Result<Funnel, Failure> {
    let total = dataset.len();
    let mut rows = dataset.rows();
    let (mut done, written_before) = (0, writer.rows());
    loop {
        ctx.check()?;
        let chunk: Vec<Row> = rows.by_ref().take(CHUNK_ROWS).collect::<Result<_, _>>()?;
        if chunk.is_empty() {
            break;
        }
        let verdicts: Vec<Result<Verdict, Failure>> = chunk.par_iter().map(&judge).collect();
        done += chunk.len() as u64;
        for (row, verdict) in chunk.into_iter().zip(verdicts) {
            match verdict? {
                Verdict::Keep => {
                    trace.push(TraceRecord::kept(&row.id))?;
                    writer.push(row)?;
                }
                Verdict::Drop { rule, evidence } => trace.push(TraceRecord::dropped(&row.id, rule, evidence))?,
                Verdict::Change { row: changed, rule } => {
                    let parents = vec![row.id.to_string()];
                    trace.push(TraceRecord::new(&changed.id, parents, Fate::Changed).why(rule, Value::Null))?;
                    writer.push(changed)?;
                }
                Verdict::SetAside { rule, evidence } => {
                    let parents = vec![row.id.to_string()];
                    trace.push(TraceRecord::new(&row.id, parents, Fate::SetAside).why(rule, evidence))?;
                }
            }
        }
        ctx.progress(done, Some(total), "rows");
    }
    trace.finish(total, writer.rows() - written_before)
}
