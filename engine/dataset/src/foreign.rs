//! Parquet files of other tools, read as JSON objects.

use std::path::Path;

use arrow_array::{
    Array, BooleanArray, Float32Array, Float64Array, Int8Array, Int16Array, Int32Array, Int64Array, LargeListArray,
    LargeStringArray, ListArray, RecordBatch, StringArray, StringViewArray, StructArray, UInt8Array, UInt16Array,
    UInt32Array, UInt64Array,
};
use llmflow_contract::Failure;
use serde_json::{Map, Value};

use crate::{DatasetError, parquet_file};

/// A Parquet file of any columns, streamed row by row.
pub struct ForeignParquet {
    pub rows: u64,
    path: std::path::PathBuf,
    batches: parquet_file::Batches,
    ready: std::vec::IntoIter<Map<String, Value>>,
}

impl ForeignParquet {
    /// # Errors
    /// `data/damaged` or `data/too-large`, naming the file.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let opened = parquet_file::open(path)?;
        let rows = opened.rows;
        Ok(Self { rows, path: path.to_owned(), batches: opened.batches()?, ready: Vec::new().into_iter() })
    }
}

impl Iterator for ForeignParquet {
    type Item = Result<Map<String, Value>, Failure>;
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(row) = self.ready.next() {
                return Some(Ok(row));
            }
            let columns = |detail| DatasetError::Columns { path: self.path.clone(), detail };
            match self.batches.next()?.and_then(|batch| objects(&batch).map_err(columns)) {
                Ok(rows) => self.ready = rows.into_iter(),
                Err(error) => return Some(Err(error.into())),
            }
        }
    }
}

fn objects(batch: &RecordBatch) -> Result<Vec<Map<String, Value>>, String> {
    let schema = batch.schema();
    let object = |row: usize| {
        let columns = schema.fields().iter().zip(batch.columns());
        columns.map(|(field, column)| Ok((field.name().clone(), value_at(column.as_ref(), row)?))).collect()
    };
    (0..batch.num_rows()).map(object).collect()
}

/// One cell as JSON; types that no text dataset uses (dates, decimals, bytes) are refused by name.
fn value_at(column: &dyn Array, row: usize) -> Result<Value, String> {
    if column.is_null(row) {
        return Ok(Value::Null);
    }
    let any = column.as_any();
    macro_rules! plain {
        ($($array:ty),+) => {$(
            if let Some(values) = any.downcast_ref::<$array>() {
                return Ok(Value::from(values.value(row)));
            }
        )+};
    }
    plain!(StringArray, LargeStringArray, StringViewArray, BooleanArray, Int64Array, Int32Array, Int16Array, Int8Array);
    plain!(UInt64Array, UInt32Array, UInt16Array, UInt8Array, Float64Array, Float32Array);
    let list = any.downcast_ref::<ListArray>().map(|list| list.value(row));
    if let Some(items) = list.or_else(|| any.downcast_ref::<LargeListArray>().map(|list| list.value(row))) {
        return (0..items.len()).map(|item| value_at(items.as_ref(), item)).collect();
    }
    if let Some(parts) = any.downcast_ref::<StructArray>() {
        let fields = parts.fields().iter().zip(parts.columns());
        let fields = fields.map(|(field, part)| Ok((field.name().clone(), value_at(part.as_ref(), row)?)));
        return fields.collect::<Result<Map<_, _>, String>>().map(Value::Object);
    }
    Err(format!("columns of type {} cannot be read as rows", column.data_type()))
}
