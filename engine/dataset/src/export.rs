//! Datasets as one file, for other tools and for eyes: JSON Lines or Parquet.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::Path,
};

use crate::{Dataset, DatasetError, columns, parquet_file};
use llmflow_contract::{Failure, Kind};

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

/// Writes all parts as one Parquet file at `path`, over what is there; a part becomes a row group or more.
pub fn write_parquet(dataset: &Dataset, path: &Path) -> Result<(), Failure> {
    let mut writer = parquet_file::create(path, columns::schema_of(dataset.kind()))?;
    for part in dataset.parts() {
        for batch in parquet_file::open(&part.path)?.batches()? {
            parquet_file::append(&mut writer, &batch?, path)?;
        }
        parquet_file::end_group(&mut writer, path)?;
    }
    parquet_file::close(writer, path)?;
    Ok(())
}

/// The endings of files that rows are not written as: a folder of such a name would be taken for one.
const OTHERS: [&str; 12] =
    ["arrow", "csv", "feather", "gguf", "html", "json", "md", "pdf", "safetensors", "tsv", "txt", "xlsx"];

/// How rows lie in one file that other tools read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowFile {
    Jsonl,
    Parquet,
}

impl RowFile {
    /// What the ending of a path asks for, where rows are to lie there.
    pub fn of(kind: &Kind, path: &Path) -> Option<Self> {
        match ending(path).filter(|_| kind.is_dataset())?.as_str() {
            "jsonl" => Some(Self::Jsonl),
            "parquet" => Some(Self::Parquet),
            _ => None,
        }
    }

    /// Does the ending of a path ask for rows in a form that they are not written in? A trace has one form, Parquet.
    pub fn is_other(kind: &Kind, path: &Path) -> bool {
        let is_trace = kind.as_str() == "trace";
        let is_other = |ending: &str| OTHERS.contains(&ending) || is_trace && ending == "jsonl";
        (kind.is_dataset() || is_trace) && ending(path).is_some_and(|ending| is_other(&ending))
    }

    /// Writes all rows at `path`, over what is there.
    ///
    /// # Errors
    /// Rows that cannot be read, a path that cannot be written.
    pub fn write(self, dataset: &Dataset, path: &Path) -> Result<(), Failure> {
        match self {
            Self::Jsonl => {
                let failed = |source| DatasetError::Io { doing: "writing", path: path.to_owned(), source };
                let mut buffer = BufWriter::new(File::create(path).map_err(failed)?);
                write_jsonl(dataset, &mut buffer)?;
                Ok(buffer.flush().map_err(failed)?)
            }
            Self::Parquet => write_parquet(dataset, path),
        }
    }
}

fn ending(path: &Path) -> Option<String> {
    Some(path.extension()?.to_str()?.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Content, DatasetWriter, Meta, PART_ROWS, Row, RowKind};
    use llmflow_contract::{Facts, kinds};

    #[test]
    fn an_ending_that_promises_another_form_is_one_for_rows_alone() {
        let is_other = |kind: &Kind, path: &str| RowFile::is_other(kind, Path::new(path));
        assert!(is_other(&RowKind::Text.kind(), "out/a.CSV"));
        for path in ["a.jsonl", "a.parquet", "a", "rows-v1.2"] {
            assert!(!is_other(&RowKind::Text.kind(), path), "{path}");
        }
        assert!(!is_other(&Kind::new("files"), "table.csv"));
        let trace = Kind::new("trace");
        assert!(is_other(&trace, "t.jsonl") && !is_other(&trace, "t.parquet") && !is_other(&trace, "t"));
    }

    #[test]
    fn parts_become_one_parquet_file_that_is_a_dataset_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = DatasetWriter::in_folder(folder.path().to_owned(), RowKind::Text);
        for number in 0..PART_ROWS + 2 {
            writer.push(Row::new(Content::Text(number.to_string()), Meta::new())).unwrap();
        }
        writer.finish::<kinds::AnyDataset>(Facts::default()).unwrap();
        let dataset = Dataset::open_folder(RowKind::Text, folder.path()).unwrap();
        assert_eq!(dataset.parts().len(), 2);
        let out = tempfile::tempdir().unwrap();
        write_parquet(&dataset, &out.path().join("part-00000.parquet")).unwrap();
        let whole = Dataset::open_folder(RowKind::Text, out.path()).unwrap();
        assert_eq!(whole.parts().len(), 1);
        assert_eq!(whole.read_all().unwrap(), dataset.read_all().unwrap());
    }
}
