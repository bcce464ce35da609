//! Rows and files: datasets as Parquet parts, the trace of what became of each row, and the loop over rows.
//!
//! Owns: the row types of every `dataset/*` kind, row ids, their Parquet form, traces, [`map_rows`].
//! Must not know: operators, stages, where artifacts are stored. Nothing outside names arrow or parquet.
//! Start at [`Dataset`] to read, [`DatasetWriter`] to write, [`Row`] for what flows.

mod columns;
mod error;
mod export;
mod foreign;
mod from_json;
mod map;
mod message_columns;
mod parquet_file;
mod reader;
mod row;
mod row_id;
mod tally;
mod trace;
mod verdicts;
mod writer;

pub use error::DatasetError;
pub use export::{RowFile, write_jsonl, write_parquet};
pub use foreign::ForeignParquet;
pub use map::{Judged, Verdict, map_batches, map_rows};
pub use reader::{Dataset, Part, Rows};
pub use row::{Chat, Choice, Content, Field, Message, Meta, Preference, Prompt, Role, Row, RowKind};
pub use row_id::{Numbering, RowId};
pub use tally::Tally;
pub use trace::{Fate, TRACE_FILE, TraceReader, TraceRecord, TraceWriter};
pub use writer::{DatasetWriter, PART_ROWS};
