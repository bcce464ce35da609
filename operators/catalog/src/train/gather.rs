//! Rows of datasets as things to learn from, each with its fate in the trace.

use std::collections::BTreeMap;

use llmflow_contract::{AnyArtifact, Context, Failure};
use llmflow_dataset::{Dataset, Fate, Row, TraceRecord, TraceWriter};
use rayon::prelude::*;
use serde_json::{Value, json};

/// Most tokens in memory at once: 5 bytes each.
const MAX_TOKENS: u64 = 1 << 29;
/// Rows at a time: between two looks at cancellation.
const CHUNK_ROWS: usize = 256;

/// What became of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Read<T> {
    Whole(T),
    /// Its end lies beyond the longest sequence.
    Cut(T),
    /// Nothing to learn, by which rule.
    Dropped(&'static str),
}

/// Rows as lessons, in the order of their datasets.
#[derive(Clone, Debug)]
pub(crate) struct Gathered<T> {
    pub lessons: Vec<T>,
    /// Id of the row behind each lesson.
    pub rows: Vec<String>,
    pub cut: u64,
    /// Rows dropped, by rule.
    pub dropped: BTreeMap<String, u64>,
}

impl<T> Gathered<T> {
    pub fn dropped_rows(&self) -> u64 {
        self.dropped.values().sum()
    }
}

/// Reads every row of every dataset, some at a time on all cores, in order. `trace` hears the fate of each.
///
/// # Errors
/// `train/too-many` beyond what fits in memory; class `cancelled`; those of `encode` and of reading.
pub(crate) fn gather<T: Send>(
    ctx: &Context,
    datasets: &[&AnyArtifact],
    encode: impl Fn(&Row) -> Result<Read<T>, Failure> + Sync,
    tokens: impl Fn(&T) -> usize,
    mut trace: Option<&mut TraceWriter>,
) -> Result<Gathered<T>, Failure> {
    let datasets = datasets.iter().map(|artifact| Dataset::open(artifact)).collect::<Result<Vec<_>, _>>()?;
    let total: u64 = datasets.iter().map(Dataset::len).sum();
    let mut gathered = Gathered { lessons: Vec::new(), rows: Vec::new(), cut: 0, dropped: BTreeMap::new() };
    let (mut done, mut held) = (0, 0);
    for (input, dataset) in datasets.iter().enumerate() {
        let mut rows = dataset.rows();
        loop {
            ctx.check()?;
            ctx.progress(done, Some(total), "rows");
            let chunk = rows.by_ref().take(CHUNK_ROWS).collect::<Result<Vec<Row>, _>>()?;
            if chunk.is_empty() {
                break;
            }
            done += chunk.len() as u64;
            let read = chunk.par_iter().map(&encode).collect::<Result<Vec<_>, _>>()?;
            for (row, read) in chunk.iter().zip(read) {
                held += match &read {
                    Read::Whole(lesson) | Read::Cut(lesson) => tokens(lesson) as u64,
                    Read::Dropped(_) => 0,
                };
                let record = gathered.take(row, read, &tokens).input(input);
                if let Some(trace) = trace.as_deref_mut() {
                    trace.push(record)?;
                }
            }
            if held > MAX_TOKENS {
                let message = format!("the rows have more than {MAX_TOKENS} tokens, too many to hold at once");
                return Err(Failure::input("train/too-many", message).help("take some of them with `data.split`"));
            }
        }
    }
    Ok(gathered)
}

impl<T> Gathered<T> {
    /// Takes one row in, and says what became of it.
    fn take(&mut self, row: &Row, read: Read<T>, tokens: impl Fn(&T) -> usize) -> TraceRecord {
        let (lesson, record) = match read {
            Read::Whole(lesson) => (lesson, TraceRecord::kept(&row.id)),
            Read::Cut(lesson) => {
                self.cut += 1;
                let record = TraceRecord::new(&row.id, vec![row.id.to_string()], Fate::Changed);
                let kept = json!({"tokens": tokens(&lesson)});
                (lesson, record.why("cut", kept))
            }
            Read::Dropped(rule) => {
                *self.dropped.entry(rule.to_owned()).or_default() += 1;
                return TraceRecord::dropped(&row.id, rule, Value::Null);
            }
        };
        self.lessons.push(lesson);
        self.rows.push(row.id.to_string());
        record
    }
}
