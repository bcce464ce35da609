//! Proof that nothing changed since a run ended with everything done: then running again has nothing to do, and nothing
//! of it is planned, no record is read, no database opened.
//!
//! A proof names all that a plan depends on: the file and what was asked in its place, the program, the machine, every
//! file that was read, where a param names files by a pattern which ones it found, the store's epoch, every published
//! file. Anything that is not as it was makes an ordinary plan; a proof that is lost or torn costs one.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use llmflow_contract::{Digest, Entry, Hasher, Known, Machine, Registry, Role, Source};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    home::Home,
    lineage, owner,
    pipeline::{Overrides, SourceFile},
    plan::{Plan, files_of},
    remote,
    store::{Stamp, Store},
};

/// What a run asked for, and where its proof lies.
pub(super) struct Question {
    path: PathBuf,
    digest: Digest,
}

/// All that must still be as it was.
#[derive(Serialize, Deserialize)]
struct Proof {
    question: Digest,
    epoch: Digest,
    /// Of the database, by [`lineage::identity`].
    history: Option<(u64, u64)>,
    pipeline: String,
    stages: usize,
    #[serde(default)]
    skipped: usize,
    read: Vec<(PathBuf, Digest)>,
    patterns: Vec<Pattern>,
    published: Vec<PathBuf>,
    /// Each published file, and how it stood.
    files: Vec<(PathBuf, Stamp)>,
    reports: Vec<PathBuf>,
}

/// A stage whose params name files by a pattern or a folder, and the digest of what it found.
#[derive(Serialize, Deserialize)]
struct Pattern {
    op: String,
    with: Value,
    found: Digest,
}

/// What a proof that holds tells of the run before.
pub(super) struct Unchanged {
    pub pipeline: String,
    pub stages: usize,
    pub skipped: usize,
    pub published: Vec<PathBuf>,
    pub reports: Vec<PathBuf>,
}

impl Question {
    pub fn new(
        home: &Home,
        source: &SourceFile,
        overrides: &Overrides,
        registry: &Registry,
        machine: &Machine,
    ) -> Self {
        let mut hasher = Hasher::new();
        let base = crate::plan::absolute(source.base());
        hasher.part(env!("CARGO_PKG_VERSION").as_bytes());
        if let Ok(program) = fs::metadata("/proc/self/exe") {
            hasher.part(&program.len().to_le_bytes()).part(&program.mtime_nsec().to_le_bytes());
            hasher.part(&program.mtime().to_le_bytes());
        }
        for entry in registry.entries() {
            hasher.part(entry.name.as_bytes()).part(&entry.version.to_le_bytes());
        }
        hasher.part(base.as_os_str().as_encoded_bytes()).part(source.file_name().as_bytes());
        hasher.part(source.text.as_bytes());
        hasher.part(&fs::read(base.join(remote::FILE)).unwrap_or_default());
        let asked = [serde_json::to_string(overrides), serde_json::to_string(machine)];
        for text in asked.iter().flatten() {
            hasher.part(text.as_bytes());
        }
        let texts =
            overrides.set.iter().map(String::as_str).chain(overrides.params_file.as_ref().map(|file| &*file.text));
        for name in variables(&source.text).chain(texts.flat_map(variables)) {
            let value = std::env::var(name);
            hasher.part(name.as_bytes()).part(&[u8::from(value.is_ok())]).part(value.unwrap_or_default().as_bytes());
        }
        let digest = hasher.finish();
        Self { path: path(home, source), digest }
    }

    /// The proof, if everything it names is as it was.
    pub fn answer(
        &self,
        home: &Home,
        store: &Store,
        registry: &Registry,
        base: &Path,
        machine: &Machine,
    ) -> Option<Unchanged> {
        let proof: Proof = serde_json::from_slice(&fs::read(&self.path).ok()?).ok()?;
        // Without the history that tells of it there is something to do after all: to write that down.
        let is_told = lineage::identity(&home.database()).is_some_and(|history| proof.history == Some(history));
        if proof.question != self.digest || store.epoch() != Some(proof.epoch) || !is_told {
            return None;
        }
        let vouched = store.vouched();
        let is_read = |(path, digest): &(PathBuf, Digest)| vouched.digest_of(path).is_ok_and(|(now, _)| now == *digest);
        let is_found = |pattern: &Pattern| {
            let entry = registry.find(&pattern.op);
            entry.and_then(|entry| find(entry, &pattern.with, base, machine)) == Some(pattern.found)
        };
        let holds = proof.files.iter().all(|(path, stamp)| Stamp::of_file(path).is_ok_and(|now| now == *stamp))
            && proof.reports.iter().all(|path| path.exists())
            && proof.read.iter().all(is_read)
            && proof.patterns.iter().all(is_found);
        let Proof { pipeline, stages, skipped, published, reports, .. } = proof;
        holds.then_some(Unchanged { pipeline, stages, skipped, published, reports })
    }

    /// Keeps the proof of a run that is done; `published` are the paths it gave, with all files below them.
    pub fn keep(&self, plan: &Plan, home: &Home, store: &Store, published: Vec<PathBuf>, reports: Vec<PathBuf>) {
        let is_proof = plan.stages.iter().all(|stage| stage.def.shared.is_cached && !stage.standing.is_left_out());
        let known = store.epoch().filter(|_| is_proof).zip(patterns(plan)).zip(read_by(plan));
        let Some(((epoch, patterns), read)) = known else {
            let _ = fs::remove_file(&self.path);
            return;
        };
        let mut files = Vec::new();
        for path in &published {
            for file in files_below(path) {
                let Ok(stamp) = Stamp::of_file(&file) else { return };
                files.push((file, stamp));
            }
        }
        let proof = Proof {
            question: self.digest,
            epoch,
            history: lineage::identity(&home.database()),
            pipeline: plan.pipeline.name.clone(),
            stages: plan.stages.len(),
            skipped: plan.stages.len() - plan.records().count(),
            read,
            patterns,
            published,
            files,
            reports,
        };
        // It is no more than a short cut: one that cannot be kept is made again.
        let _ = serde_json::to_vec(&proof).map(|text| owner::write_whole(&self.path, &text));
    }
}

/// A run of this file begins: what was proven of an earlier one is over.
pub(super) fn forget(home: &Home, source: &SourceFile) {
    let _ = fs::remove_file(path(home, source)); // mostly there is none
}

/// One proof a file: the newest question that was answered.
fn path(home: &Home, source: &SourceFile) -> PathBuf {
    home.work().join("unchanged").join(source.location().hex())
}

/// What a stage would read now.
fn find(entry: &Entry, with: &Value, base: &Path, machine: &Machine) -> Option<Digest> {
    let locks = Default::default(); // a pattern of remote files changes with the lock alone
    let known = Known { inputs: Default::default(), machine: machine.clone(), base: base.to_owned(), locks };
    let (_, plan) = entry.plan(with.clone(), &known).ok()?;
    listed(&plan.sources, |path| Some(files_of(path).ok()?.into_iter().map(|(_, file)| file).collect()))
}

/// Stands for the files among these sources, and for what each names: itself, or what is in it.
fn listed(sources: &[Source], files: impl Fn(&Path) -> Option<Vec<PathBuf>>) -> Option<Digest> {
    let mut hasher = Hasher::new();
    for source in sources {
        let Source::File { path, .. } = source else { continue };
        hasher.part(serde_json::to_string(source).ok()?.as_bytes());
        for file in files(path)? {
            hasher.part(file.as_os_str().as_encoded_bytes());
        }
    }
    Some(hasher.finish())
}

/// Stages whose sources could become more or fewer without any of them changing: of params that say where to read, those
/// with a wildcard or a folder. None if one of them cannot be looked at on its own.
fn patterns(plan: &Plan) -> Option<Vec<Pattern>> {
    let mut found = Vec::new();
    for stage in &plan.stages {
        let mut sources = stage.entry.params.iter().filter(|param| param.role == Role::Source).peekable();
        if sources.peek().is_none() {
            continue;
        }
        let with = stage.def.with();
        let is_open = |text: &str| text.contains(['*', '?', '[', '{']) || plan.base.join(text).is_dir();
        let mut texts = sources.flat_map(|param| match &with[&param.name] {
            Value::Array(items) => items.iter().collect(),
            value => vec![value],
        });
        if texts.any(|value| value.as_str().is_some_and(is_open)) {
            // As it was read: what came since was not.
            let digest = listed(&stage.settled.plan.sources, |path| {
                let files = stage.settled.files().iter().map(|(file, _)| file);
                Some(files.filter(|file| *file == path || file.parent() == Some(path)).cloned().collect())
            })?;
            found.push(Pattern { op: stage.entry.name.to_owned(), with: with.clone(), found: digest });
        }
    }
    Some(found)
}

/// Every file that was read, with its content; none if two stages read one that was edited in between.
fn read_by(plan: &Plan) -> Option<Vec<(PathBuf, Digest)>> {
    let mut read: HashMap<&Path, Digest> = HashMap::new();
    for (path, digest) in plan.stages.iter().flat_map(|stage| stage.settled.files()) {
        if read.insert(path, *digest).is_some_and(|other| other != *digest) {
            return None;
        }
    }
    Some(read.into_iter().map(|(path, digest)| (path.to_owned(), digest)).collect())
}

/// Names of the environment variables that a text refers to, or could.
fn variables(text: &str) -> impl Iterator<Item = &str> {
    text.split("${").skip(1).filter_map(|rest| rest.split_once('}')?.0.trim().strip_prefix("env."))
}

fn files_below(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(path) else { return vec![path.to_owned()] };
    entries.flatten().flat_map(|entry| files_below(&entry.path())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_is_found_however_it_is_written() {
        let names: Vec<_> = variables("a: ${env.A} ${ env.B }-${params.x} $${env.C} ${env.D").collect();
        assert_eq!(names, ["A", "B", "C"], "one too many costs a plan, one too few a run");
    }
}
