//! The trace: for each row a stage read or made, its parents, what became of it, by which rule.

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow_array::{
    Array, ArrayRef, ListArray, RecordBatch, StringArray, UInt32Array,
    builder::{ListBuilder, StringBuilder},
};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use llmflow_contract::{Context, Failure, Funnel};
use parquet::arrow::ArrowWriter;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{DatasetError, Tally, columns, parquet_file};

/// Name of the file in the `trace` side output.
pub const TRACE_FILE: &str = "trace.parquet";
/// Records of a row group.
const GROUP_RECORDS: usize = 8_192;

/// What became of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    Kept,
    Dropped,
    Changed,
    Made,
    SetAside,
}

impl Fate {
    pub const ALL: [Self; 5] = [Self::Kept, Self::Dropped, Self::Changed, Self::Made, Self::SetAside];

    pub fn name(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Dropped => "dropped",
            Self::Changed => "changed",
            Self::Made => "made",
            Self::SetAside => "set_aside",
        }
    }
}

/// One line of a trace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TraceRecord {
    /// Id of the row in the output; of the input row if it was dropped or set aside (`file:line` if it has no id).
    pub row: String,
    /// Ids of the input rows it comes from; `file:line` at a source.
    pub parents: Vec<String>,
    /// Which artifact of a port that takes many, from 0.
    pub input: u32,
    pub verdict: Fate,
    /// The output it went to, where there are several.
    pub port: Option<String>,
    /// Why it was dropped, set aside or changed: `too_short`.
    pub rule: Option<String>,
    /// What the rule saw.
    pub evidence: Option<Value>,
}

impl TraceRecord {
    pub fn new(row: impl ToString, parents: Vec<String>, verdict: Fate) -> Self {
        Self { row: row.to_string(), parents, input: 0, verdict, port: None, rule: None, evidence: None }
    }
    /// A row that went through unchanged.
    pub fn kept(row: impl ToString) -> Self {
        let row = row.to_string();
        Self::new(row.clone(), vec![row], Fate::Kept)
    }
    /// A row left out by a rule.
    pub fn dropped(row: impl ToString, rule: &str, evidence: Value) -> Self {
        let row = row.to_string();
        Self::new(row.clone(), vec![row], Fate::Dropped).why(rule, evidence)
    }
    pub fn why(mut self, rule: &str, evidence: Value) -> Self {
        self.rule = Some(rule.to_owned());
        self.evidence = Some(evidence).filter(|value| !value.is_null());
        self
    }
    pub fn input(mut self, input: usize) -> Self {
        self.input = input as u32;
        self
    }
    pub fn port(mut self, port: &str) -> Self {
        self.port = Some(port.to_owned());
        self
    }
}

/// Writes the trace of a stage, and holds it to the law: rows in = kept + changed + dropped + set aside.
pub struct TraceWriter {
    path: PathBuf,
    writer: ArrowWriter<File>,
    pending: Vec<TraceRecord>,
    tally: Tally,
}

impl TraceWriter {
    /// The side output `trace`.
    pub fn create(ctx: &Context) -> Result<Self, Failure> {
        Self::in_folder(&ctx.output("trace")?)
    }
    pub fn in_folder(folder: &Path) -> Result<Self, Failure> {
        let path = folder.join(TRACE_FILE);
        let writer = parquet_file::create(&path, schema())?;
        Ok(Self { path, writer, pending: Vec::new(), tally: Tally::default() })
    }

    pub fn push(&mut self, record: TraceRecord) -> Result<(), Failure> {
        self.tally.count(&record);
        self.pending.push(record);
        if self.pending.len() == GROUP_RECORDS {
            self.flush()?;
        }
        Ok(())
    }

    /// Writes the rest.
    ///
    /// # Errors
    /// A bug if `rows_in` rows were not all accounted for, or `rows_out` is not what was kept, changed and made.
    pub fn finish(mut self, rows_in: u64, rows_out: u64) -> Result<Funnel, Failure> {
        self.flush()?;
        parquet_file::close(self.writer, &self.path)?;
        self.tally.check(rows_in, rows_out)?;
        Ok(self.tally.funnel(rows_in))
    }

    fn flush(&mut self) -> Result<(), DatasetError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let batch =
            batch_of(&self.pending).map_err(|detail| DatasetError::Encode { path: self.path.clone(), detail })?;
        self.pending.clear();
        parquet_file::append(&mut self.writer, &batch, &self.path)
    }
}

fn parent_item() -> Field {
    Field::new("item", DataType::Utf8, false)
}

fn schema() -> SchemaRef {
    let text = |name: &str, nullable| Field::new(name, DataType::Utf8, nullable);
    Arc::new(Schema::new(vec![
        text("row", false),
        Field::new("parents", DataType::List(Arc::new(parent_item())), false),
        Field::new("input", DataType::UInt32, false),
        text("verdict", false),
        text("port", true),
        text("rule", true),
        text("evidence", true),
    ]))
}

fn batch_of(records: &[TraceRecord]) -> Result<RecordBatch, String> {
    let mut parents = ListBuilder::new(StringBuilder::new()).with_field(parent_item());
    for record in records {
        record.parents.iter().for_each(|parent| parents.values().append_value(parent));
        parents.append(true);
    }
    let evidence = records.iter().map(|record| record.evidence.as_ref().map(Value::to_string));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(records.iter().map(|record| &record.row))),
        Arc::new(parents.finish()),
        Arc::new(UInt32Array::from_iter_values(records.iter().map(|record| record.input))),
        Arc::new(StringArray::from_iter_values(records.iter().map(|record| record.verdict.name()))),
        Arc::new(records.iter().map(|record| record.port.as_deref()).collect::<StringArray>()),
        Arc::new(records.iter().map(|record| record.rule.as_deref()).collect::<StringArray>()),
        Arc::new(evidence.collect::<StringArray>()),
    ];
    RecordBatch::try_new(schema(), columns).map_err(|error| error.to_string())
}

/// The records of a trace, streamed in order.
pub struct TraceReader {
    path: PathBuf,
    batches: parquet_file::Batches,
    ready: std::vec::IntoIter<TraceRecord>,
}

impl TraceReader {
    /// A folder that holds [`TRACE_FILE`].
    pub fn open(folder: &Path) -> Result<Self, Failure> {
        let path = folder.join(TRACE_FILE);
        let batches = parquet_file::open(&path)?.batches()?;
        Ok(Self { path, batches, ready: Vec::new().into_iter() })
    }
    /// Records whose row is `id`, or has it among its parents; a prefix of an id is enough.
    pub fn about(self, id: &str) -> Result<Vec<TraceRecord>, Failure> {
        let is_about = |record: &TraceRecord| {
            record.row.starts_with(id) || record.parents.iter().any(|parent| parent.starts_with(id))
        };
        self.filter(|record| record.as_ref().map_or(true, is_about)).collect()
    }
}

impl Iterator for TraceReader {
    type Item = Result<TraceRecord, Failure>;
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(record) = self.ready.next() {
                return Some(Ok(record));
            }
            let columns = |detail| DatasetError::Columns { path: self.path.clone(), detail };
            match self.batches.next()?.and_then(|batch| records_of(&batch).map_err(columns)) {
                Ok(records) => self.ready = records.into_iter(),
                Err(error) => return Some(Err(error.into())),
            }
        }
    }
}

fn records_of(batch: &RecordBatch) -> Result<Vec<TraceRecord>, String> {
    let text = |name| columns::texts(batch, name);
    let (rows, verdicts, ports, rules, evidence) =
        (text("row")?, text("verdict")?, text("port")?, text("rule")?, text("evidence")?);
    let parents = columns::column::<ListArray>(batch, "parents")?;
    let inputs = columns::column::<UInt32Array>(batch, "input")?;
    let some = |column: &StringArray, at: usize| column.is_valid(at).then(|| column.value(at).to_owned());
    (0..batch.num_rows())
        .map(|at| {
            let list = parents.value(at);
            let list = list.as_any().downcast_ref::<StringArray>().ok_or("`parents` is no list of text")?;
            let fate = verdicts.value(at);
            Ok(TraceRecord {
                row: rows.value(at).to_owned(),
                parents: list.iter().flatten().map(str::to_owned).collect(),
                input: inputs.value(at),
                verdict: Fate::ALL
                    .into_iter()
                    .find(|known| known.name() == fate)
                    .ok_or_else(|| format!("`{fate}` is no verdict"))?,
                port: some(ports, at),
                rule: some(rules, at),
                evidence: some(evidence, at).and_then(|text| serde_json::from_str(&text).ok()),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use llmflow_contract::Class;
    use serde_json::json;

    #[test]
    fn a_trace_survives_its_file_and_is_found_by_row_or_parent() {
        let folder = tempfile::tempdir().unwrap();
        let records = [
            TraceRecord::kept("aa1"),
            TraceRecord::dropped("bb2", "too_short", json!({"words": 2})).input(1),
            TraceRecord::new("cc3", vec!["aa1".into()], Fate::Made).port("test"),
        ];
        let mut writer = TraceWriter::in_folder(folder.path()).unwrap();
        records.iter().for_each(|record| writer.push(record.clone()).unwrap());
        let funnel = writer.finish(2, 2).unwrap();
        assert_eq!((funnel.kept, funnel.made, funnel.dropped["too_short"]), (1, 1, 1));
        let read: Vec<_> = TraceReader::open(folder.path()).unwrap().map(Result::unwrap).collect();
        assert_eq!(read, records);
        let about = TraceReader::open(folder.path()).unwrap().about("aa").unwrap();
        assert_eq!(about.len(), 2);
    }

    #[test]
    fn a_row_that_vanishes_fails_the_stage() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = TraceWriter::in_folder(folder.path()).unwrap();
        writer.push(TraceRecord::kept("a")).unwrap();
        assert_eq!(writer.finish(2, 1).unwrap_err().class, Class::Bug);
    }
}
