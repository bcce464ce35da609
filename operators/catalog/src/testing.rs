//! A host for unit tests of operators: temporary folders, collected metrics, cancellation on demand.

pub(crate) mod stopping;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use llmflow_contract::{
    AnyArtifact, AnyMade, Checkpoint, Class, Context, Digest, Facts, Failure, FileEntry, Host, Known, KnownInput,
    Lease, Machine, Made, Manifest, Port, Progress, Reach, Report, Secret, SecretName, StageId, kinds,
};
use llmflow_dataset::{DatasetWriter, Row, RowKind};

/// What an operator told the engine, and where it wrote.
pub(crate) struct TestHost {
    folder: tempfile::TempDir,
    metrics: Mutex<BTreeMap<String, f64>>,
    progress: Mutex<Vec<Progress>>,
    outputs: Mutex<BTreeMap<String, PathBuf>>,
    checkpoints: Mutex<Vec<PathBuf>>,
    secrets: Mutex<BTreeMap<String, String>>,
    memo: Mutex<BTreeMap<Vec<u8>, Vec<u8>>>,
    cancelled: AtomicBool,
    dies: AtomicBool,
}

impl TestHost {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for name in ["base", "scratch"] {
            fs::create_dir(folder.path().join(name)).expect("a new folder");
        }
        Self {
            folder,
            metrics: Mutex::default(),
            progress: Mutex::default(),
            outputs: Mutex::default(),
            checkpoints: Mutex::default(),
            secrets: Mutex::default(),
            memo: Mutex::default(),
            cancelled: AtomicBool::new(false),
            dies: AtomicBool::new(false),
        }
    }

    /// Seed 42, two cores, no GPU.
    pub fn context(&self) -> Context<'_> {
        self.context_with_seed(42)
    }
    pub fn context_with_seed(&self, seed: u64) -> Context<'_> {
        let lease = Lease { cores: 2, memory_bytes: 4 << 30, gpus: Vec::new(), gpu_memory_bytes: 0 };
        Context::new(self, seed, lease, self.folder.path().join("scratch"), self.base())
    }
    /// The pipeline file's folder.
    pub fn base(&self) -> PathBuf {
        self.folder.path().join("base")
    }
    /// Writes a user's file, its path relative to the pipeline file.
    pub fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.base().join(path);
        fs::create_dir_all(path.parent().expect("a file has a folder")).expect("a folder");
        fs::write(path, text).expect("a written file");
    }
    /// Sets a secret for the stage.
    pub fn set_secret(&self, variable: &str, value: &str) {
        self.secrets.lock().expect("no test panicked").insert(variable.to_owned(), value.to_owned());
    }
    /// Answers that were paid for.
    pub fn remembered(&self) -> usize {
        self.memo.lock().expect("no test panicked").len()
    }
    /// All that was remembered.
    pub fn memory(&self) -> Vec<u8> {
        self.memo.lock().expect("no test panicked").values().flatten().copied().collect()
    }
    /// From now on the stage is asked to stop.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
    }
    /// The last value of a reproducible metric.
    pub fn metric(&self, name: &str) -> Option<f64> {
        self.metrics.lock().expect("no test panicked").get(name).copied()
    }
    /// Every reproducible metric with its last value.
    pub fn metrics_told(&self) -> BTreeMap<String, f64> {
        self.metrics.lock().expect("no test panicked").clone()
    }
    /// From now on the worker dies the moment something was made durable, once.
    pub fn die_at_next_save(&self, dies: bool) {
        self.dies.store(dies, Ordering::SeqCst);
    }
    fn survive(&self) -> Result<(), Failure> {
        match self.dies.swap(false, Ordering::SeqCst) {
            true => Err(Failure::new(Class::Lost, "worker/lost", "the worker process was killed by SIGKILL")),
            false => Ok(()),
        }
    }
    pub fn progress_seen(&self) -> Vec<Progress> {
        self.progress.lock().expect("no test panicked").clone()
    }
    /// The folder last given for an output.
    pub fn output_folder(&self, port: &str) -> Option<PathBuf> {
        self.outputs.lock().expect("no test panicked").get(port).cloned()
    }
    /// The report the stage wrote.
    pub fn stage_report(&self) -> Report {
        let path = self.output_folder("report").expect("the stage reported").join("report.json");
        serde_json::from_slice(&fs::read(path).expect("a report")).expect("a valid report")
    }
    /// An input of the given rows.
    pub fn dataset(&self, kind: RowKind, rows: impl IntoIterator<Item = Row>) -> AnyArtifact {
        let folder = self.output(&format!("{}-input", kind.name().replace('/', "-"))).expect("a folder");
        let mut writer = DatasetWriter::in_folder(folder, kind);
        rows.into_iter().for_each(|row| writer.push(row).expect("rows of the kind"));
        let made: Made<kinds::AnyDataset> = writer.finish(Facts::default()).expect("a written dataset");
        artifact(made.into_any())
    }
    /// An input of the given rows in parts: as the writer would make them, had it a limit of a few rows.
    pub fn dataset_in_parts(&self, kind: RowKind, parts: impl IntoIterator<Item = Vec<Row>>) -> AnyArtifact {
        let folder = self.output("parts-input").expect("a folder");
        let mut count = 0;
        for (at, rows) in parts.into_iter().enumerate() {
            count += rows.len() as u64;
            let one = self.dataset(kind, rows).root.join("part-00000.parquet");
            fs::rename(one, folder.join(format!("part-{at:05}.parquet"))).expect("a moved part");
        }
        let facts = Facts { rows: Some(count), ..Facts::default() };
        artifact(Made::<kinds::AnyDataset>::of_kind(kind.kind(), folder, facts).into_any())
    }
}

impl Host for TestHost {
    fn progress(&self, progress: Progress) {
        self.progress.lock().expect("no test panicked").push(progress);
    }
    fn metric(&self, name: &str, value: f64, _step: Option<u64>, reproducible: bool) {
        if reproducible {
            self.metrics.lock().expect("no test panicked").insert(name.to_owned(), value);
        }
    }
    fn cancelled(&self) -> bool {
        self.cancelled.load(Ordering::SeqCst)
    }
    fn output(&self, port: &str) -> Result<PathBuf, Failure> {
        let folder = tempfile::Builder::new().prefix(port).tempdir_in(self.folder.path());
        let folder = folder.map_err(|error| Failure::io("creating", port, &error))?.keep();
        self.outputs.lock().expect("no test panicked").insert(port.to_owned(), folder.clone());
        Ok(folder)
    }
    fn restore(&self, reach: &Reach) -> Result<Option<Checkpoint>, Failure> {
        let saved = self.checkpoints.lock().expect("no test panicked").clone();
        let furthest =
            saved.into_iter().filter_map(|folder| Some((reach(&folder)?, folder))).max_by_key(|(far, _)| *far);
        Ok(furthest.map(|(_, folder)| Checkpoint { folder }))
    }
    fn save(&self, write: &mut dyn FnMut(&Path) -> Result<(), Failure>) -> Result<(), Failure> {
        let folder = self.output("checkpoint")?;
        write(&folder)?;
        self.checkpoints.lock().expect("no test panicked").push(folder);
        self.survive()
    }
    fn secret(&self, name: &SecretName) -> Result<Secret, Failure> {
        let value = self.secrets.lock().expect("no test panicked").get(name.variable()).cloned();
        value.map(Secret::new).ok_or_else(|| Failure::bug("no such secret"))
    }
    fn recall(&self, question: &[u8]) -> Result<Option<Vec<u8>>, Failure> {
        Ok(self.memo.lock().expect("no test panicked").get(question).cloned())
    }
    fn remember(&self, question: &[u8], answer: &[u8]) -> Result<(), Failure> {
        self.memo.lock().expect("no test panicked").insert(question.to_owned(), answer.to_owned());
        self.survive()
    }
}

/// What the store would hand to the next stage.
pub(crate) fn artifact(made: AnyMade) -> AnyArtifact {
    let mut files = Vec::new();
    list(&made.folder, "", &mut files);
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let manifest = Manifest { kind: made.kind, files, facts: made.facts, references: made.references };
    AnyArtifact { digest: manifest.digest(), manifest, root: made.folder, references: BTreeMap::new(), label: None }
}

fn list(folder: &Path, prefix: &str, files: &mut Vec<FileEntry>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let entry = entry.expect("an entry");
        let path = format!("{prefix}{}", entry.file_name().to_str().expect("a readable name"));
        if entry.path().is_dir() {
            list(&entry.path(), &format!("{path}/"), files);
        } else {
            let (digest, size_bytes) = Digest::of_file(&entry.path()).expect("a readable file");
            files.push(FileEntry::new(path, digest, size_bytes));
        }
    }
}

/// What a planner knows of these inputs on a machine of two cores.
pub(crate) fn known(base: PathBuf, inputs: &[(&str, &AnyArtifact)]) -> Known {
    let mut by_port: BTreeMap<Port, Vec<KnownInput>> = BTreeMap::new();
    for (port, artifact) in inputs {
        by_port.entry(Port::from(*port)).or_default().push(KnownInput {
            stage: StageId::from("stage"),
            label: artifact.label.clone(),
            kind: artifact.kind().clone(),
            facts: artifact.facts().clone(),
            digest: Some(artifact.digest),
        });
    }
    Known {
        inputs: by_port,
        machine: Machine { cores: 2, memory_bytes: 8 << 30, usable_gpus: 0 },
        base,
        locks: Default::default(),
    }
}

/// A test's folder of real data, or `None` with a message where there is none.
///
/// # Panics
/// If `LLMFLOW_REQUIRE_DATA=1` and the folder is absent.
pub(crate) fn shared_data(path: &str) -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let root = std::env::var_os("LLMFLOW_SHARED_DATA").map_or(beside, PathBuf::from);
    let found = root.join(path);
    if found.exists() {
        return Some(found);
    }
    assert!(std::env::var("LLMFLOW_REQUIRE_DATA").as_deref() != Ok("1"), "`{path}` of the shared data is absent");
    eprintln!("skipped: `{path}` of the shared data is absent");
    None
}

/// SmolLM2-135M-Instruct in Q4_1, named by `LLMFLOW_SMOLLM2_GGUF`.
///
/// # Panics
/// If `LLMFLOW_REQUIRE_DATA=1` and it is absent.
pub fn smollm2() -> Option<PathBuf> {
    let found = std::env::var_os("LLMFLOW_SMOLLM2_GGUF").map(PathBuf::from).filter(|path| path.exists());
    if found.is_none() {
        let is_required = std::env::var("LLMFLOW_REQUIRE_DATA").as_deref() == Ok("1");
        assert!(!is_required, "LLMFLOW_SMOLLM2_GGUF names no file");
        eprintln!("skipped: LLMFLOW_SMOLLM2_GGUF names no file");
    }
    found
}
