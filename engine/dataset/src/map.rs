//! The loop of every row operator: stable order, threads, trace, progress, cancellation, and the law of rows.

use std::collections::BTreeMap;

use llmflow_contract::{Context, Failure, Funnel};
use rayon::prelude::*;
use serde_json::Value;

use crate::{Dataset, DatasetError, DatasetWriter, Fate, Numbering, Row, TraceRecord, TraceWriter};

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

/// What became of a row, and the rows made from it.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    pub verdict: Verdict,
    /// They follow the row.
    pub made: Vec<Row>,
}

impl From<Verdict> for Judged {
    fn from(verdict: Verdict) -> Self {
        Self { verdict, made: Vec::new() }
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
    trace: TraceWriter,
    judge: impl Fn(&Row) -> Result<Verdict, Failure> + Sync,
) -> Result<Funnel, Failure> {
    let mut record = Record { before: writer.rows(), writer, trace, numbering: None };
    each_chunk(ctx, dataset, CHUNK_ROWS, &mut record, |chunk| {
        let verdicts: Vec<_> = chunk.par_iter().map(|row| judge(row).map(Judged::from)).collect();
        verdicts.into_iter().collect()
    })?;
    record.finish(dataset.len())
}

/// Judges rows `batch_rows` at a time, `at_once` batches side by side; batches begin at the same rows whatever runs.
/// Rows that are changed or made get ids of their own.
///
/// # Errors
/// As [`map_rows`]; a bug if a batch gives another number of verdicts than it has rows.
pub fn map_batches(
    ctx: &Context,
    dataset: &Dataset,
    writer: &mut DatasetWriter,
    trace: TraceWriter,
    (batch_rows, at_once): (usize, usize),
    judge: impl Fn(&[Row]) -> Result<Vec<Judged>, Failure> + Sync,
) -> Result<Funnel, Failure> {
    let mut record = Record { before: writer.rows(), writer, trace, numbering: Some(Numbering::new()) };
    each_chunk(ctx, dataset, batch_rows.max(1) * at_once.max(1), &mut record, |chunk| {
        let batches: Vec<_> = std::thread::scope(|scope| {
            let running: Vec<_> = chunk.chunks(batch_rows.max(1)).map(|batch| scope.spawn(|| judge(batch))).collect();
            running.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(panicked()))).collect()
        });
        let judged: Vec<Vec<Judged>> = batches.into_iter().collect::<Result<_, _>>()?;
        Ok(judged.into_iter().flatten().collect())
    })?;
    record.finish(dataset.len())
}

fn panicked() -> Failure {
    Failure::bug("a thread that judged rows panicked")
}

fn each_chunk(
    ctx: &Context,
    dataset: &Dataset,
    chunk_rows: usize,
    record: &mut Record,
    judge: impl Fn(&[Row]) -> Result<Vec<Judged>, Failure>,
) -> Result<(), Failure> {
    let (mut rows, mut done) = (dataset.rows(), 0);
    loop {
        ctx.check()?;
        let chunk: Vec<Row> = rows.by_ref().take(chunk_rows).collect::<Result<_, _>>()?;
        if chunk.is_empty() {
            return Ok(());
        }
        let judged = judge(&chunk)?;
        if judged.len() != chunk.len() {
            return Err(Failure::bug(format!("{} rows were given {} verdicts", chunk.len(), judged.len())));
        }
        done += chunk.len() as u64;
        for (row, judged) in chunk.into_iter().zip(judged) {
            record.push(row, judged)?;
        }
        ctx.progress(done, Some(dataset.len()), "rows");
    }
}

/// Writes rows and what became of them.
struct Record<'a> {
    writer: &'a mut DatasetWriter,
    trace: TraceWriter,
    numbering: Option<Numbering>,
    /// Rows that were written before this loop.
    before: u64,
}

impl Record<'_> {
    fn push(&mut self, row: Row, Judged { verdict, made }: Judged) -> Result<(), Failure> {
        let parent = row.id.to_string();
        match verdict {
            Verdict::Keep => self.write(row, &parent, Fate::Kept, None)?,
            Verdict::Change { row, rule } => self.write(row, &parent, Fate::Changed, Some(rule))?,
            Verdict::Drop { rule, evidence } => self.trace.push(TraceRecord::dropped(&row.id, rule, evidence))?,
            Verdict::SetAside { rule, evidence } => {
                let aside = TraceRecord::new(&row.id, vec![parent.clone()], Fate::SetAside);
                self.trace.push(aside.why(rule, evidence))?;
            }
        }
        made.into_iter().try_for_each(|row| self.write(row, &parent, Fate::Made, None))
    }

    fn write(&mut self, mut row: Row, parent: &str, fate: Fate, rule: Option<&str>) -> Result<(), Failure> {
        if let Some(numbering) = &mut self.numbering {
            row.id = numbering.unique(row.id);
        }
        let record = TraceRecord::new(&row.id, vec![parent.to_owned()], fate);
        self.trace.push(TraceRecord { rule: rule.map(str::to_owned), ..record })?;
        self.writer.push(row)
    }

    fn finish(self, rows_in: u64) -> Result<Funnel, Failure> {
        self.trace.finish(rows_in, self.writer.rows() - self.before)
    }
}
