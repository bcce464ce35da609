//! The cache that Hugging Face's own tools keep: read where it lies, never written.
//!
//! `models--owner--name/refs/main` holds a commit, `snapshots/COMMIT/path` links to `blobs/ETAG`, and an ETAG is the
//! digest of the content.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use llmflow_contract::{FileDigest, Locked, LockedFile};
use serde_json::Value;

use super::{Hub, Repository, Select, address::is_commit, digest::is_hex};

/// Folders below one another in a snapshot.
const MAX_DEPTH: usize = 16;
/// Largest index of shards that is read, in bytes.
const MAX_INDEX_BYTES: u64 = 64 << 20;

/// `HF_HUB_CACHE`, else `hub` in `HF_HOME`, else in the user's cache folder.
pub(super) fn folders(environment: &dyn Fn(&str) -> Option<String>) -> Vec<PathBuf> {
    if let Some(folder) = environment("HF_HUB_CACHE") {
        return vec![folder.into()];
    }
    let home = environment("HF_HOME").map(PathBuf::from).or_else(|| {
        let caches = environment("XDG_CACHE_HOME").map(PathBuf::from);
        Some(caches.or_else(|| Some(Path::new(&environment("HOME")?).join(".cache")))?.join("huggingface"))
    });
    home.into_iter().map(|home| home.join("hub")).collect()
}

impl Hub {
    fn cache_folders<'a>(&'a self, repository: &'a Repository) -> impl Iterator<Item = PathBuf> + 'a {
        let name = format!("{}--{}", repository.kind.plural(), repository.id.replace('/', "--"));
        self.caches.iter().map(move |cache| cache.join(&name))
    }

    /// Where a file of a commit may lie.
    pub(super) fn cached<'a>(
        &'a self,
        repository: &'a Repository,
        revision: &'a str,
        path: &'a str,
        file: &'a LockedFile,
    ) -> impl Iterator<Item = PathBuf> + 'a {
        self.cache_folders(repository).flat_map(move |folder| {
            [folder.join("snapshots").join(revision).join(path), folder.join("blobs").join(file.digest.hex())]
        })
    }

    /// What the caches know of a revision, where that cannot be wrong: a branch only if the network may not be asked.
    pub(super) fn resolve_in_caches(
        &self,
        repository: &Repository,
        select: &Select,
        revision: &str,
        is_offline: bool,
    ) -> Option<Locked> {
        self.cache_folders(repository).find_map(|folder| {
            let commit = match is_commit(revision) {
                true => revision.to_owned(),
                false if is_offline => fs::read_to_string(folder.join("refs").join(revision)).ok()?.trim().to_owned(),
                false => return None,
            };
            if !is_commit(&commit) {
                return None;
            }
            let snapshot = folder.join("snapshots").join(&commit);
            let files = match select.file() {
                Some(file) => [(file.to_owned(), locked(&snapshot.join(file))?)].into(),
                None => whole_model(&snapshot, select)?,
            };
            Some(Locked { revision: commit, selected: BTreeSet::from([select.pattern.clone()]), files })
        })
    }
}

/// Size and digest of a cached file, as the name of its blob says. They are checked before the file is used.
fn locked(path: &Path) -> Option<LockedFile> {
    let target = fs::canonicalize(path).ok()?;
    let metadata = fs::metadata(&target).ok().filter(fs::Metadata::is_file)?;
    let etag = target.file_name()?.to_str()?;
    let digest = match etag {
        _ if is_hex(etag, 64) => FileDigest::Sha256(etag.to_owned()),
        _ if is_hex(etag, 40) => FileDigest::GitSha1(etag.to_owned()),
        _ => return None,
    };
    Some(LockedFile { size_bytes: metadata.len(), digest })
}

/// The selected files of a snapshot, if a model is whole in it. Other patterns cannot be answered: a snapshot holds what
/// was once asked for, not what the repository holds.
fn whole_model(snapshot: &Path, select: &Select) -> Option<BTreeMap<String, LockedFile>> {
    let mut files = BTreeMap::new();
    list(snapshot, "", 0, &mut |path| {
        if select.matches(path)
            && let Some(file) = locked(&snapshot.join(path))
        {
            files.insert(path.to_owned(), file);
        }
    });
    let has = |name: &str| files.contains_key(name);
    let weights = match has(super::INDEX) {
        true => shards(&snapshot.join(super::INDEX))?.iter().all(|name| has(name)),
        false => has(super::WEIGHTS),
    };
    (weights && has("config.json") && has("tokenizer.json")).then_some(files)
}

/// Names of the files that an index of shards names.
fn shards(index: &Path) -> Option<BTreeSet<String>> {
    if fs::metadata(index).ok()?.len() > MAX_INDEX_BYTES {
        return None;
    }
    let index: Value = serde_json::from_slice(&fs::read(index).ok()?).ok()?;
    index["weight_map"].as_object()?.values().map(|name| name.as_str().map(str::to_owned)).collect()
}

fn list(root: &Path, folder: &str, depth: usize, see: &mut impl FnMut(&str)) {
    for entry in fs::read_dir(root.join(folder)).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let path = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && depth < MAX_DEPTH => list(root, &path, depth + 1, see),
            Ok(_) => see(&path),
            Err(_) => {}
        }
    }
}
