//! One Parquet file: written with the same bytes everywhere, read with caps before memory is taken.

use std::{
    fs::File,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use parquet::{
    arrow::{
        ArrowWriter,
        arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder},
    },
    basic::{Compression, ZstdLevel},
    file::properties::{EnabledStatistics, WriterProperties},
};

use crate::DatasetError;

/// Rows decoded at once.
pub(crate) const BATCH_ROWS: usize = 1024;
/// Rows of one file; ours hold 8,192, other tools' about a million a row group.
const MAX_FILE_ROWS: u64 = 1 << 30;
/// Decoded bytes of one row group.
const MAX_GROUP_BYTES: u64 = 4 << 30;

/// Opens a file for writing. Nothing of the machine, the clock or the library's version enters it.
pub(crate) fn create(path: &Path, schema: SchemaRef) -> Result<ArrowWriter<File>, DatasetError> {
    let file = File::create(path).map_err(|source| io("creating", path, source))?;
    let level = ZstdLevel::try_new(3).expect("3 is a zstd level");
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(level))
        .set_created_by("llmflow".to_owned())
        .set_statistics_enabled(EnabledStatistics::None)
        .build();
    ArrowWriter::try_new(file, schema, Some(properties)).map_err(|error| encode(path, error))
}

/// Encodes one batch as (part of) a row group.
pub(crate) fn append(writer: &mut ArrowWriter<File>, batch: &RecordBatch, path: &Path) -> Result<(), DatasetError> {
    writer.write(batch).map_err(|error| encode(path, error))
}

/// The batches to come start another row group.
pub(crate) fn end_group(writer: &mut ArrowWriter<File>, path: &Path) -> Result<(), DatasetError> {
    writer.flush().map_err(|error| encode(path, error))
}

/// Writes the footer.
pub(crate) fn close(writer: ArrowWriter<File>, path: &Path) -> Result<(), DatasetError> {
    writer.close().map(drop).map_err(|error| encode(path, error))
}

/// Footer of a file: its rows, its kind if it names one, and the batches to come.
pub(crate) struct Opened {
    pub rows: u64,
    pub schema: SchemaRef,
    builder: ParquetRecordBatchReaderBuilder<File>,
    path: PathBuf,
}

/// Reads and checks the footer alone.
pub(crate) fn open(path: &Path) -> Result<Opened, DatasetError> {
    let file = File::open(path).map_err(|source| io("reading", path, source))?;
    let builder = guarded(path, || ParquetRecordBatchReaderBuilder::try_new(file))?;
    let metadata = builder.metadata();
    let rows = u64::try_from(metadata.file_metadata().num_rows()).unwrap_or(u64::MAX);
    refuse_more(path, "rows", rows, MAX_FILE_ROWS)?;
    for group in metadata.row_groups() {
        let bytes = u64::try_from(group.total_byte_size()).unwrap_or(u64::MAX);
        refuse_more(path, "bytes in a row group", bytes, MAX_GROUP_BYTES)?;
    }
    Ok(Opened { rows, schema: builder.schema().clone(), builder, path: path.to_owned() })
}

impl Opened {
    /// The batches in file order.
    pub fn batches(self) -> Result<Batches, DatasetError> {
        let Self { builder, path, .. } = self;
        let reader = guarded(&path, || builder.with_batch_size(BATCH_ROWS).build())?;
        Ok(Batches { reader, path })
    }
}

/// Batches of at most [`BATCH_ROWS`] rows.
pub(crate) struct Batches {
    reader: ParquetRecordBatchReader,
    path: PathBuf,
}

impl Iterator for Batches {
    type Item = Result<RecordBatch, DatasetError>;
    fn next(&mut self) -> Option<Self::Item> {
        let Self { reader, path } = self;
        guarded(path, || reader.next().transpose()).transpose()
    }
}

/// The decoder's errors, and its panics on damaged pages, as [`DatasetError::Damaged`].
fn guarded<T, E: std::fmt::Display>(path: &Path, read: impl FnOnce() -> Result<T, E>) -> Result<T, DatasetError> {
    let damaged = |detail: String| DatasetError::Damaged { path: path.to_owned(), detail };
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(damaged(error.to_string())),
        Err(_) => Err(damaged("its pages do not decode".to_owned())),
    }
}

fn refuse_more(path: &Path, what: &'static str, found: u64, limit: u64) -> Result<(), DatasetError> {
    if found > limit {
        return Err(DatasetError::TooLarge { path: path.to_owned(), what, found, limit });
    }
    Ok(())
}

pub(crate) fn io(doing: &'static str, path: &Path, source: std::io::Error) -> DatasetError {
    DatasetError::Io { doing, path: path.to_owned(), source }
}

fn encode(path: &Path, error: parquet::errors::ParquetError) -> DatasetError {
    match error {
        parquet::errors::ParquetError::External(source) => match source.downcast::<std::io::Error>() {
            Ok(source) => io("writing", path, *source),
            Err(other) => DatasetError::Encode { path: path.to_owned(), detail: other.to_string() },
        },
        other => DatasetError::Encode { path: path.to_owned(), detail: other.to_string() },
    }
}
