//! Rows of datasets as things to learn from, each with its fate in the trace.

use std::collections::BTreeMap;

use llmflow_contract::{AnyArtifact, Context, Failure};
use llmflow_dataset::{Dataset, Fate, Row, TraceRecord, TraceWriter};
use serde_json::{Value, json};

/// Most tokens in memory at once: 5 bytes each.
const MAX_TOKENS: u64 = 1 << 29;
/// Rows between two looks at cancellation.
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

/// Reads every row of every dataset. `trace` hears the fate of each.
///
/// # Errors
/// `train/too-many` beyond what fits in memory; class `cancelled`; those of `encode` and of reading.
pub(crate) fn gather<T>(
    ctx: &Context,
    datasets: &[&AnyArtifact],
    encode: impl Fn(&Row) -> Result<Read<T>, Failure>,
    tokens: impl Fn(&T) -> usize,
    mut trace: Option<&mut TraceWriter>,
) -> Result<Gathered<T>, Failure> {
    let mut gathered = Gathered { lessons: Vec::new(), rows: Vec::new(), cut: 0, dropped: BTreeMap::new() };
    let mut held = 0_u64;
    for (input, artifact) in datasets.iter().enumerate() {
        for (index, row) in Dataset::open(artifact)?.rows().enumerate() {
            let row = row?;
            if index % CHUNK_ROWS == 0 {
                ctx.check()?;
            }
            let (lesson, mut record) = match encode(&row)? {
                Read::Whole(lesson) => (Some(lesson), TraceRecord::kept(&row.id)),
                Read::Cut(lesson) => {
                    gathered.cut += 1;
                    let record = TraceRecord::new(&row.id, vec![row.id.to_string()], Fate::Changed);
                    let kept = json!({"tokens": tokens(&lesson)});
                    (Some(lesson), record.why("cut", kept))
                }
                Read::Dropped(rule) => {
                    *gathered.dropped.entry(rule.to_owned()).or_default() += 1;
                    (None, TraceRecord::dropped(&row.id, rule, Value::Null))
                }
            };
            record = record.input(input);
            if let Some(trace) = trace.as_deref_mut() {
                trace.push(record)?;
            }
            let Some(lesson) = lesson else { continue };
            held += tokens(&lesson) as u64;
            if held > MAX_TOKENS {
                let message = format!("the rows have more than {MAX_TOKENS} tokens, too many to hold at once");
                return Err(Failure::input("train/too-many", message).help("take some of them with `data.split`"));
            }
            gathered.lessons.push(lesson);
            gathered.rows.push(row.id.to_string());
        }
    }
    Ok(gathered)
}
