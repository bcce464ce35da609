//! The loop of every row operator: stable order, threads, trace, progress, cancellation, what was judged before.

use std::{borrow::Cow, slice};

use llmflow_contract::{Context, Failure, Funnel};
use rayon::prelude::*;
use serde::Serialize;
use serde_json::Value;

use crate::{
    Dataset, DatasetWriter, Fate, Numbering, Row, Rows, TraceRecord, TraceWriter,
    verdicts::{Memory, Verdicts},
};

/// Rows judged between two looks at cancellation.
const CHUNK_ROWS: usize = 512;

/// What a row operator decides about one row.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    Keep,
    /// Left out by a rule, with what the rule saw.
    Drop {
        rule: Cow<'static, str>,
        evidence: Value,
    },
    /// Replaced by another row, by a rule.
    Change {
        row: Row,
        rule: Cow<'static, str>,
    },
    /// Could not be judged; not an error of the stage.
    SetAside {
        rule: Cow<'static, str>,
        evidence: Value,
    },
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
/// `about` is all that a verdict depends on beside the row: params, the seed if it is used. Verdicts on an input of several
/// parts are remembered part by part, so that a stage that was stopped goes on where it was, and a part that was judged
/// before, in whichever run, is read and not judged.
///
/// # Errors
/// The first error of `judge` in row order; class `cancelled`; a bug if a row vanished.
pub fn map_rows(
    ctx: &Context,
    dataset: &Dataset,
    writer: &mut DatasetWriter,
    trace: TraceWriter,
    about: &impl Serialize,
    judge: impl Fn(&Row) -> Result<Verdict, Failure> + Sync,
) -> Result<Funnel, Failure> {
    let mut record = Record::new(dataset, writer, trace, None);
    let memory = Memory::of(ctx, dataset, about)?;
    for part in dataset.parts() {
        let mut known = memory.recall(part)?.map(Vec::into_iter);
        let mut given = (known.is_none() && memory.is_worth_it()).then(Verdicts::default);
        each_chunk(ctx, dataset.rows_of(slice::from_ref(part)), CHUNK_ROWS, &mut record, |chunk| {
            let verdicts: Vec<Verdict> = match &mut known {
                Some(known) => known.by_ref().take(chunk.len()).collect(),
                None => {
                    // Judged by all threads before one error ends it: so the first in row order is the one told.
                    let verdicts: Vec<_> = chunk.par_iter().map(&judge).collect();
                    verdicts.into_iter().collect::<Result<_, _>>()?
                }
            };
            given.iter_mut().for_each(|given| verdicts.iter().for_each(|verdict| given.note(verdict)));
            Ok(verdicts.into_iter().map(Judged::from).collect())
        })?;
        if let Some(given) = given {
            memory.remember(part, &given)?;
        }
    }
    record.finish()
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
    let mut record = Record::new(dataset, writer, trace, Some(Numbering::new()));
    each_chunk(ctx, dataset.rows(), batch_rows.max(1) * at_once.max(1), &mut record, |chunk| {
        let batches: Vec<_> = std::thread::scope(|scope| {
            let running: Vec<_> = chunk.chunks(batch_rows.max(1)).map(|batch| scope.spawn(|| judge(batch))).collect();
            running.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(panicked()))).collect()
        });
        let judged: Vec<Vec<Judged>> = batches.into_iter().collect::<Result<_, _>>()?;
        Ok(judged.into_iter().flatten().collect())
    })?;
    record.finish()
}

fn panicked() -> Failure {
    Failure::bug("a thread that judged rows panicked")
}

fn each_chunk(
    ctx: &Context,
    mut rows: Rows,
    chunk_rows: usize,
    record: &mut Record,
    mut judge: impl FnMut(&[Row]) -> Result<Vec<Judged>, Failure>,
) -> Result<(), Failure> {
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
        for (row, judged) in chunk.into_iter().zip(judged) {
            record.push(row, judged)?;
        }
        ctx.progress(record.done, Some(record.rows_in), "rows");
    }
}

/// Writes rows and what became of them.
struct Record<'a> {
    writer: &'a mut DatasetWriter,
    trace: TraceWriter,
    numbering: Option<Numbering>,
    /// Rows that were written before this loop.
    before: u64,
    rows_in: u64,
    /// Rows judged so far.
    done: u64,
}

impl<'a> Record<'a> {
    fn new(dataset: &Dataset, writer: &'a mut DatasetWriter, trace: TraceWriter, numbering: Option<Numbering>) -> Self {
        Self { before: writer.rows(), writer, trace, numbering, rows_in: dataset.len(), done: 0 }
    }

    fn push(&mut self, row: Row, Judged { verdict, made }: Judged) -> Result<(), Failure> {
        self.done += 1;
        let parent = row.id.to_string();
        match verdict {
            Verdict::Keep => self.write(row, &parent, Fate::Kept, None)?,
            Verdict::Change { row, rule } => self.write(row, &parent, Fate::Changed, Some(&rule))?,
            Verdict::Drop { rule, evidence } => self.trace.push(TraceRecord::dropped(&row.id, &rule, evidence))?,
            Verdict::SetAside { rule, evidence } => {
                let aside = TraceRecord::new(&row.id, vec![parent.clone()], Fate::SetAside);
                self.trace.push(aside.why(&rule, evidence))?;
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

    fn finish(self) -> Result<Funnel, Failure> {
        self.trace.finish(self.rows_in, self.writer.rows() - self.before)
    }
}

#[cfg(test)]
mod tests;
