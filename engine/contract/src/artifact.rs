//! Artifacts: immutable, content-addressed values of one kind, and what is known of them unopened.

use std::{
    collections::BTreeMap,
    marker::PhantomData,
    ops::Deref,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{Digest, Failure, Kind, PortKind};

/// What is known of an artifact without opening it. At planning a fact may still be unknown (`None`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Facts {
    /// Rows of a dataset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// How these rows may be used.
    #[serde(rename = "use", skip_serializing_if = "Option::is_none")]
    pub used_for: Option<Use>,
    /// Digest of `tokenizer.json`'s canonical content.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<Digest>,
    /// Digest of the chat template's text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chat_template: Option<Digest>,
    /// The model an adapter belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub architecture: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameters: Option<u64>,
    /// Vocabulary size, in tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vocab: Option<u64>,
    /// Longest sequence, in tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dtype: Option<String>,
    /// SPDX names or what the source states, one of each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub licences: Vec<String>,
}

/// What a dataset may be used for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Use {
    #[default]
    Train,
    /// May never reach training: the graph refuses it.
    Eval,
}

/// One file of an artifact; `path` is relative, `/`-separated and stays inside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    pub path: String,
    pub digest: Digest,
    pub size_bytes: u64,
    /// Whether it may be executed; of kind `files` alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub executable: bool,
}

impl FileEntry {
    /// A file that is read only.
    pub fn new(path: impl Into<String>, digest: Digest, size_bytes: u64) -> Self {
        Self { path: path.into(), digest, size_bytes, executable: false }
    }
}

/// An artifact's whole content by digest: no time, no run, no stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    pub kind: Kind,
    /// In order of `path`.
    pub files: Vec<FileEntry>,
    pub facts: Facts,
    /// Other artifacts it needs to be whole, by name: `base` of an adapter.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub references: BTreeMap<String, Digest>,
}

impl Manifest {
    /// Canonical JSON: equal manifests have equal bytes, and the digest of these is the artifact's.
    pub fn text(&self) -> String {
        crate::digest::canonical(&serde_json::to_value(self).expect("a manifest is plain data"))
    }
    /// The artifact's digest.
    pub fn digest(&self) -> Digest {
        Digest::of(self.text().as_bytes())
    }
    pub fn size_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size_bytes).sum()
    }
}

/// An artifact at hand: its manifest, and a folder where its files can be read (never written).
#[derive(Clone, Debug)]
pub struct AnyArtifact {
    pub digest: Digest,
    pub manifest: Manifest,
    pub root: PathBuf,
    pub references: BTreeMap<String, AnyArtifact>,
    /// The name it goes by where the pipeline gives its port a map, for operators that tell inputs apart by name.
    pub label: Option<String>,
}

impl AnyArtifact {
    pub fn kind(&self) -> &Kind {
        &self.manifest.kind
    }
    pub fn facts(&self) -> &Facts {
        &self.manifest.facts
    }
    pub fn has(&self, path: &str) -> bool {
        self.manifest.files.iter().any(|file| file.path == path)
    }
    /// Where one of its files can be read.
    ///
    /// # Errors
    /// `artifact/no-file` if the manifest does not name it.
    pub fn file(&self, path: &str) -> Result<PathBuf, Failure> {
        if self.has(path) {
            return Ok(self.root.join(path));
        }
        let names: Vec<_> = self.manifest.files.iter().map(|file| file.path.as_str()).collect();
        Err(Failure::input(
            "artifact/no-file",
            format!("{} {} has no file `{path}`; it has {}", self.kind(), self.digest.short(), names.join(", ")),
        ))
    }
    pub fn folder(&self) -> &Path {
        &self.root
    }
    /// # Errors
    /// `artifact/no-reference` if it names none such.
    pub fn reference(&self, name: &str) -> Result<&AnyArtifact, Failure> {
        self.references
            .get(name)
            .ok_or_else(|| Failure::bug(format!("{} {} does not say its `{name}`", self.kind(), self.digest.short())))
    }
}

/// An input as its port types it.
#[derive(Clone, Debug)]
pub struct Artifact<K> {
    any: AnyArtifact,
    kind: PhantomData<fn() -> K>,
}

impl<K: PortKind> Artifact<K> {
    pub fn new(any: AnyArtifact) -> Self {
        Self { any, kind: PhantomData }
    }
}

impl<K> Deref for Artifact<K> {
    type Target = AnyArtifact;
    fn deref(&self) -> &AnyArtifact {
        &self.any
    }
}

/// What an operator has written for one output: a folder, its kind, its facts.
#[derive(Clone, Debug)]
pub struct AnyMade {
    pub kind: Kind,
    pub folder: PathBuf,
    pub facts: Facts,
    pub references: BTreeMap<String, Digest>,
}

/// An output as its port types it. Get the folder from [`crate::Context::output`], fill it, then hand this back.
#[derive(Clone, Debug)]
pub struct Made<K> {
    any: AnyMade,
    kind: PhantomData<fn() -> K>,
}

impl<K: PortKind> Made<K> {
    /// Of the kind that the port names.
    pub fn new(folder: PathBuf, facts: Facts) -> Self {
        Self::of_kind(Kind::of(K::ACCEPTS[0]), folder, facts)
    }
    /// Of a kind that followed a param or an input.
    pub fn of_kind(kind: Kind, folder: PathBuf, facts: Facts) -> Self {
        Self { any: AnyMade { kind, folder, facts, references: BTreeMap::new() }, kind: PhantomData }
    }
    pub fn refers_to(mut self, name: &str, artifact: Digest) -> Self {
        self.any.references.insert(name.to_owned(), artifact);
        self
    }
    pub fn into_any(self) -> AnyMade {
        self.any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_executed_is_another_artifact_and_nothing_else_changes() {
        let file = FileEntry::new("a", Digest::of(b"a"), 1);
        let text = serde_json::to_string(&file).unwrap();
        assert!(!text.contains("executable"), "{text}");
        let executable = FileEntry { executable: true, ..file.clone() };
        let back: FileEntry = serde_json::from_str(&serde_json::to_string(&executable).unwrap()).unwrap();
        assert!(back == executable && back != file);
    }
}
