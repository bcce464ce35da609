//! Datasets as JSON Lines, for other tools and for eyes.

use std::io::Write;

use crate::{Dataset, DatasetError};
use llmflow_contract::Failure;

/// Writes one JSON object a row; gives the number of rows.
pub fn write_jsonl(dataset: &Dataset, to: &mut impl Write) -> Result<u64, Failure> {
    let mut rows = 0;
    for row in dataset.rows() {
        let failed = |source| DatasetError::Io { doing: "writing", path: "rows.jsonl".into(), source };
        writeln!(to, "{}", row?.to_json()).map_err(failed)?;
        rows += 1;
    }
    Ok(rows)
}
