//! Writes a dataset in parts whose borders depend on the rows alone.

use std::path::PathBuf;

use llmflow_contract::{Context, Facts, Failure, Made, PortKind};

use crate::{DatasetError, Row, RowKind, columns, parquet_file};

/// Rows of a full part.
pub const PART_ROWS: usize = 8_192;
/// Text of a full part, in bytes: long documents make parts of fewer rows.
const PART_BYTES: usize = 64 << 20;

/// Collects rows of one kind into Parquet parts in an output's folder.
///
/// Equal rows in equal order give equal bytes, whatever the machine or the number of threads.
pub struct DatasetWriter {
    kind: RowKind,
    folder: PathBuf,
    pending: Vec<Row>,
    pending_bytes: usize,
    parts: usize,
    rows: u64,
}

impl DatasetWriter {
    /// For the output `port`.
    pub fn create(ctx: &Context, port: &str, kind: RowKind) -> Result<Self, Failure> {
        Ok(Self::in_folder(ctx.output(port)?, kind))
    }
    /// Into an existing empty folder.
    pub fn in_folder(folder: PathBuf, kind: RowKind) -> Self {
        Self { kind, folder, pending: Vec::new(), pending_bytes: 0, parts: 0, rows: 0 }
    }

    /// # Errors
    /// A bug if the row is of another kind.
    pub fn push(&mut self, row: Row) -> Result<(), Failure> {
        if row.kind() != self.kind {
            return Err(DatasetError::Kind { expected: self.kind.name(), found: row.kind().name() }.into());
        }
        self.rows += 1;
        self.pending_bytes += row.text().len();
        self.pending.push(row);
        if self.pending.len() == PART_ROWS || self.pending_bytes >= PART_BYTES {
            self.write_part()?;
        }
        Ok(())
    }

    /// Rows pushed so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Writes the last part. An empty dataset has one part without rows, so that its kind can be read.
    /// `facts.rows` is set here.
    pub fn finish<K: PortKind>(mut self, facts: Facts) -> Result<Made<K>, Failure> {
        if !self.pending.is_empty() || self.parts == 0 {
            self.write_part()?;
        }
        Ok(Made::of_kind(self.kind.kind(), self.folder, Facts { rows: Some(self.rows), ..facts }))
    }

    fn write_part(&mut self) -> Result<(), DatasetError> {
        let path = self.folder.join(format!("part-{:05}.parquet", self.parts));
        let batch = columns::batch_of(self.kind, &self.pending)
            .map_err(|detail| DatasetError::Encode { path: path.clone(), detail })?;
        let mut writer = parquet_file::create(&path, columns::schema_of(self.kind))?;
        parquet_file::append(&mut writer, &batch, &path)?;
        parquet_file::close(writer, &path)?;
        self.pending.clear();
        self.pending_bytes = 0;
        self.parts += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Chat, Choice, Content, Dataset, Message, Meta, Preference, Prompt};
    use llmflow_contract::{Class, kinds};

    fn one_of_each() -> Vec<Row> {
        let ask = vec![Message::user("q")];
        let call = Message { tool_calls: Some("[]".into()), ..Message::assistant("") };
        let contents = [
            Content::Text("é".into()),
            Content::Chat(Chat { messages: vec![Message::user("q"), call], tools: Some("[]".into()) }),
            Content::Prompt(Prompt { prompt: ask.clone(), answer: None }),
            Content::Choice(Choice { query: "q".into(), choices: vec!["a".into(), "b".into()], gold: 1 }),
            Content::Preference(Preference {
                prompt: ask,
                chosen: vec![Message::assistant("a")],
                rejected: vec![Message::assistant("b")],
                margin: Some(0.5),
            }),
        ];
        let meta = Meta::from_iter([("line".to_owned(), 3.into())]);
        contents.into_iter().map(|content| Row::new(content, meta.clone())).collect()
    }

    fn write(folder: &std::path::Path, rows: &[Row]) {
        let mut writer = DatasetWriter::in_folder(folder.to_owned(), rows[0].kind());
        rows.iter().for_each(|row| writer.push(row.clone()).unwrap());
        writer.finish::<kinds::AnyDataset>(Facts::default()).unwrap();
    }

    #[test]
    fn every_kind_survives_its_file() {
        for row in one_of_each() {
            let folder = tempfile::tempdir().unwrap();
            write(folder.path(), std::slice::from_ref(&row));
            let dataset = Dataset::open_folder(row.kind(), folder.path()).unwrap();
            assert_eq!(dataset.read_all().unwrap(), [row]);
        }
    }

    #[test]
    fn part_borders_and_bytes_come_from_the_rows() {
        let rows: Vec<Row> =
            (0..PART_ROWS + 5).map(|n| Row::new(Content::Text(format!("row {n}")), Meta::new())).collect();
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write(one.path(), &rows);
        write(two.path(), &rows);
        let dataset = Dataset::open_folder(RowKind::Text, one.path()).unwrap();
        let sizes: Vec<_> = dataset.parts().iter().map(|part| part.rows).collect();
        assert_eq!(sizes, [PART_ROWS as u64, 5]);
        for part in dataset.parts() {
            let other = two.path().join(part.path.file_name().unwrap());
            assert_eq!(std::fs::read(&part.path).unwrap(), std::fs::read(other).unwrap());
        }
        assert_eq!(dataset.read_all().unwrap(), rows);
    }

    #[test]
    fn a_damaged_part_is_an_input_failure_that_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &one_of_each()[..1]);
        let path = folder.path().join("part-00000.parquet");
        let bytes = std::fs::read(&path).unwrap();
        for cut in [0, 3, bytes.len() / 2, bytes.len() - 1] {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            let failure = Dataset::open_folder(RowKind::Text, folder.path()).unwrap_err();
            assert_eq!(failure.class, Class::Input);
            assert!(failure.message.contains("part-00000.parquet"), "{failure}");
        }
        // Every single damaged byte gives rows or a failure, never a panic.
        for position in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[position] ^= 0x55;
            std::fs::write(&path, &damaged).unwrap();
            if let Ok(dataset) = Dataset::open_folder(RowKind::Text, folder.path()) {
                let _ = dataset.rows().count();
            }
        }
    }

    #[test]
    fn a_row_of_another_kind_is_a_bug() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = DatasetWriter::in_folder(folder.path().to_owned(), RowKind::Chat);
        assert_eq!(writer.push(one_of_each().remove(0)).unwrap_err().class, Class::Bug);
    }
}
