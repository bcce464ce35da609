//! Reads a dataset, part after part.

use std::path::{Path, PathBuf};

use llmflow_contract::{AnyArtifact, Digest, Failure};

use crate::{
    DatasetError, Row, RowKind,
    columns::{KIND_KEY, rows_of, schema_of},
    parquet_file,
};

/// A dataset at hand: an ordered list of parts. Only footers have been read.
#[derive(Clone, Debug)]
pub struct Dataset {
    kind: RowKind,
    parts: Vec<Part>,
}

/// One Parquet file of a dataset.
#[derive(Clone, Debug)]
pub struct Part {
    pub path: PathBuf,
    pub rows: u64,
    /// Of the file, where it is part of an artifact.
    pub digest: Option<Digest>,
}

impl Dataset {
    /// # Errors
    /// `data/damaged` or `data/columns`, naming the file; a bug if the artifact is no dataset.
    pub fn open(artifact: &AnyArtifact) -> Result<Self, Failure> {
        let files = artifact.manifest.files.iter().filter(|file| is_part(&file.path));
        let files = files.map(|file| (artifact.root.join(&file.path), Some(file.digest))).collect();
        Self::of_parts(artifact.kind().as_str(), files)
    }

    /// A folder that a [`crate::DatasetWriter`] wrote.
    pub fn open_folder(kind: RowKind, folder: &Path) -> Result<Self, Failure> {
        let entries = std::fs::read_dir(folder).map_err(|error| Failure::io("reading", folder, &error))?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let files = names.filter(|name| is_part(name)).map(|name| (folder.join(name), None)).collect();
        Self::of_parts(kind.name(), files)
    }

    fn of_parts(kind: &str, mut files: Vec<(PathBuf, Option<Digest>)>) -> Result<Self, Failure> {
        let kind = RowKind::find(kind).ok_or_else(|| Failure::bug(format!("`{kind}` is no dataset of rows")))?;
        files.sort_by(|(one, _), (other, _)| one.cmp(other));
        let parts = files.into_iter().map(|(path, digest)| {
            let opened = parquet_file::open(&path)?;
            match opened.schema.metadata().get(KIND_KEY) {
                Some(found) if found == kind.name() => Ok(Part { path, rows: opened.rows, digest }),
                found => {
                    let found = found.map_or("nothing", |name| name.as_str());
                    Err(DatasetError::Columns { path, detail: format!("holds {found}, not {kind}") })
                }
            }
        });
        Ok(Self { kind, parts: parts.collect::<Result<_, _>>()? })
    }

    /// The columns of a kind, each with its Arrow type.
    pub fn columns(kind: RowKind) -> Vec<(String, String)> {
        let schema = schema_of(kind);
        schema.fields().iter().map(|field| (field.name().clone(), field.data_type().to_string())).collect()
    }

    pub fn kind(&self) -> RowKind {
        self.kind
    }
    /// Rows in all parts.
    pub fn len(&self) -> u64 {
        self.parts.iter().map(|part| part.rows).sum()
    }
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }
    /// All rows in order; about a thousand are in memory at a time.
    pub fn rows(&self) -> Rows<'_> {
        self.rows_of(&self.parts)
    }
    /// The rows of some of its parts, in their order.
    pub fn rows_of<'a>(&self, parts: &'a [Part]) -> Rows<'a> {
        Rows { kind: self.kind, parts: parts.iter(), current: None, ready: Vec::new().into_iter() }
    }
    /// All rows at once, for datasets that are known to be small or that must be seen whole.
    pub fn read_all(&self) -> Result<Vec<Row>, Failure> {
        self.rows().collect()
    }
}

/// Parts are the Parquet files named `part-…`.
fn is_part(name: &str) -> bool {
    name.starts_with("part-") && name.ends_with(".parquet")
}

/// The rows of a dataset, streamed.
pub struct Rows<'a> {
    kind: RowKind,
    parts: std::slice::Iter<'a, Part>,
    current: Option<(&'a Part, parquet_file::Batches)>,
    ready: std::vec::IntoIter<Row>,
}

impl Rows<'_> {
    /// Loads the next batch; `false` at the end.
    fn refill(&mut self) -> Result<bool, DatasetError> {
        loop {
            if let Some((part, batches)) = &mut self.current {
                if let Some(batch) = batches.next().transpose()? {
                    let rows = rows_of(self.kind, &batch)
                        .map_err(|detail| DatasetError::Columns { path: part.path.clone(), detail })?;
                    self.ready = rows.into_iter();
                    return Ok(true);
                }
                self.current = None;
            }
            let Some(part) = self.parts.next() else { return Ok(false) };
            self.current = Some((part, parquet_file::open(&part.path)?.batches()?));
        }
    }
}

impl Iterator for Rows<'_> {
    type Item = Result<Row, Failure>;
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(row) = self.ready.next() {
                return Some(Ok(row));
            }
            match self.refill() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => {
                    self.parts = [].iter();
                    self.current = None;
                    return Some(Err(error.into()));
                }
            }
        }
    }
}
