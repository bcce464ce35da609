//! The text of a pipeline file, and places in it.
//!
//! Owns: reading the file within its cap, byte offsets → line and column.
//! Must not know: YAML, what a stage is.

use std::{
    ops::Deref,
    path::{Path, PathBuf},
};

use llmflow_contract::{Digest, Failure, Hasher, Place};
use serde::{Deserialize, Serialize};

/// Larger files are refused before they are parsed: 10,000 stages are about 1 MB.
pub const MAX_FILE_BYTES: u64 = 8 << 20;

const BYTE_ORDER_MARK: char = '\u{feff}';

/// A pipeline file in memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFile {
    /// As the user named it: messages show it unchanged.
    pub path: PathBuf,
    pub text: String,
}

/// A range of bytes in a [`SourceFile`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Span {
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct At<T> {
    pub value: T,
    pub span: Span,
}

impl<T> At<T> {
    pub fn new(value: T, span: Span) -> Self {
        Self { value, span }
    }
}

impl<T> Deref for At<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl SourceFile {
    /// Without the mark of byte order that some editors put in front: it would be a column.
    pub fn new(path: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        let mut text = text.into();
        if text.starts_with(BYTE_ORDER_MARK) {
            text.remove(0);
        }
        Self { path: path.into(), text }
    }

    /// Stands for the file's place, whatever it holds: what a home remembers of it lies under this name.
    pub fn location(&self) -> Digest {
        let base = crate::plan::absolute(self.base());
        Hasher::new().part(base.as_os_str().as_encoded_bytes()).part(self.file_name().as_bytes()).finish()
    }

    /// Where the file lies, absolute.
    pub fn absolute_path(&self) -> PathBuf {
        crate::plan::absolute(self.base()).join(self.file_name())
    }

    /// Reads a pipeline file.
    ///
    /// # Errors
    /// Class `input` if it is missing, over [`MAX_FILE_BYTES`] or not UTF-8.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        Self::read_as("the pipeline", "name the file: `llmflow run FILE.yaml`", path)
    }

    /// Reads a file of params.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_params(path: &Path) -> Result<Self, Failure> {
        Self::read_as("the params", "name a file of params: `--params-file FILE.yaml`", path)
    }

    fn read_as(what: &str, help: &str, path: &Path) -> Result<Self, Failure> {
        let failed = |error| {
            let failure = Failure::io(&format!("reading {what}"), path, &error);
            if failure.help.is_some() { failure } else { failure.help(help) }
        };
        let size_bytes = std::fs::metadata(path).map_err(failed)?.len();
        if size_bytes > MAX_FILE_BYTES {
            let message =
                format!("`{}` has {size_bytes} bytes; such a file has at most {MAX_FILE_BYTES}", path.display());
            return Err(Failure::input("pipeline/too-big", message)
                .help("keep data in files of its own and name them: `with: {path: data.jsonl}`"));
        }
        let bytes = std::fs::read(path).map_err(failed)?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let offset = error.utf8_error().valid_up_to();
            Failure::input(
                "pipeline/not-utf8",
                format!("`{}` is not UTF-8 text, from byte {offset} on", path.display()),
            )
            .help("save it as UTF-8")
        })?;
        Ok(Self::new(path, text))
    }

    /// The folder that relative paths in the file start from.
    pub fn base(&self) -> &Path {
        match self.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        }
    }

    /// The file's name without its extension: the pipeline's default name.
    pub fn stem(&self) -> String {
        self.path.file_stem().map_or_else(|| "pipeline".to_owned(), |stem| stem.to_string_lossy().into_owned())
    }

    /// The file's own name, for one-line mentions: `assistant.yaml`.
    pub fn file_name(&self) -> String {
        self.path
            .file_name()
            .map_or_else(|| self.path.display().to_string(), |name| name.to_string_lossy().into_owned())
    }

    /// Line and column of a byte, from 1; columns count characters.
    pub fn position(&self, offset: usize) -> (usize, usize) {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        let before = &self.text[..offset];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line = 1 + before.bytes().filter(|byte| *byte == b'\n').count();
        (line, 1 + before[line_start..].chars().count())
    }

    pub fn place(&self, span: Span) -> Place {
        let (line, column) = self.position(span.start);
        Place { file: self.path.clone(), line: Some(line), column: Some(column) }
    }

    /// Puts a star in place of every byte of a span, so that every other place stays what it is.
    pub(super) fn mask(&mut self, span: Span) {
        let stars = self.slice(span).bytes().map(|byte| if byte == b'\n' { '\n' } else { '*' }).collect::<String>();
        if !stars.is_empty() {
            self.text.replace_range(span.start..span.end, &stars);
        }
    }

    /// The text a span covers; empty if the span is none of this file's.
    pub fn slice(&self, span: Span) -> &str {
        self.text.get(span.start..span.end).unwrap_or_default()
    }
}

impl Span {
    pub fn new(start: usize, end: usize) -> Self {
        Self { start, end: end.max(start) }
    }
    /// The smallest span that holds both.
    pub fn to(self, other: Self) -> Self {
        Self { start: self.start.min(other.start), end: self.end.max(other.end) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_columns_count_characters_from_one() {
        let source = SourceFile::new("a/p.yaml", "name: é: x\nseed: 1\n");
        assert_eq!(source.position(0), (1, 1));
        assert_eq!(source.position(8), (1, 8), "é has two bytes and one column");
        assert_eq!(source.position(7), (1, 7), "inside é is at é");
        assert_eq!(source.position(12), (2, 1));
        assert_eq!(source.position(9_999), (3, 1));
    }

    #[test]
    fn a_byte_order_mark_is_no_column() {
        let source = SourceFile::new("p.yaml", "\u{feff}nam: x\n");
        assert_eq!((source.text.as_str(), source.position(4)), ("nam: x\n", (1, 5)));
    }

    #[test]
    fn relative_paths_start_at_the_files_folder() {
        assert_eq!(SourceFile::new("a/p.yaml", "").base(), Path::new("a"));
        assert_eq!(SourceFile::new("p.yaml", "").base(), Path::new("."));
        assert_eq!(SourceFile::new("a/p.yaml", "").stem(), "p");
    }

    #[test]
    fn a_file_that_cannot_be_read_is_the_users_to_mend() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.yaml");
        assert_eq!(SourceFile::read(&path).unwrap_err().code, "file/missing");
        std::fs::write(&path, b"name: \xff").unwrap();
        assert_eq!(SourceFile::read(&path).unwrap_err().code, "pipeline/not-utf8");
        std::fs::File::create(&path).unwrap().set_len(MAX_FILE_BYTES + 1).unwrap();
        assert_eq!(SourceFile::read(&path).unwrap_err().code, "pipeline/too-big");
    }
}
