//! A pipeline to begin with, carried inside the program.
//!
//! Must not know: any template by name; the program brings them.

/// A pipeline file and the data it reads.
#[derive(Clone, Copy, Debug)]
pub struct Template {
    pub name: &'static str,
    /// The text of its file. Line one says what it is for.
    pub pipeline: &'static str,
    /// Paths relative to the pipeline file, and what is in them.
    pub data: &'static [(&'static str, &'static [u8])],
}

/// Where the repository keeps them: the comments name it, a new project has no such folder.
const REPOSITORY_FOLDER: &str = "pipelines/";

impl Template {
    /// Its file's name: `tiny.yaml`.
    pub fn file(&self) -> String {
        format!("{}.yaml", self.name)
    }

    /// The text as it stands in a project of its own.
    pub fn text(&self) -> String {
        self.pipeline.replace(REPOSITORY_FOLDER, "")
    }

    /// What it is for, in one line.
    pub fn summary(&self) -> &'static str {
        self.pipeline.lines().next().unwrap_or_default().trim_start_matches('#').trim()
    }
}
