use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use llmflow_contract::{
    AnyArtifact, Checkpoint, Class, Context, Digest, Facts, FileEntry, Host, Lease, Manifest, Progress, Reach, Secret,
    SecretName, kinds,
};
use serde_json::json;

use super::*;
use crate::{Content, Meta, PART_ROWS, RowKind};

const LAST_ROWS: usize = 700;

/// What is remembered, and after how many rows judged the worker dies.
struct TestHost {
    folder: tempfile::TempDir,
    memory: Mutex<HashMap<Vec<u8>, Vec<u8>>>,
    judged: AtomicUsize,
    dies_at: AtomicUsize,
}

impl TestHost {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { folder, memory: Mutex::default(), judged: AtomicUsize::new(0), dies_at: AtomicUsize::new(usize::MAX) }
    }
    fn context(&self) -> Context<'_> {
        let lease = Lease { cores: 2, memory_bytes: 1 << 30, gpus: Vec::new(), gpu_memory_bytes: 0 };
        Context::new(self, 42, lease, self.folder.path().to_owned(), self.folder.path().to_owned())
    }
    /// Every third row is too short, every seventh cannot be judged.
    fn judge(&self, row: &Row) -> Result<Verdict, Failure> {
        if self.judged.fetch_add(1, Ordering::SeqCst) >= self.dies_at.load(Ordering::SeqCst) {
            return Err(Failure::new(Class::Lost, "worker/lost", "killed"));
        }
        let text = row.field(crate::Field::Text);
        let number: u64 = text.rsplit(' ').next().unwrap().parse().unwrap();
        Ok(match number {
            number if number % 3 == 0 => {
                Verdict::Drop { rule: "too_short".into(), evidence: json!({"share": number as f64 / 7.0}) }
            }
            number if number % 7 == 0 => Verdict::SetAside { rule: "unclear".into(), evidence: Value::Null },
            _ => Verdict::Keep,
        })
    }
    fn judged(&self) -> usize {
        self.judged.swap(0, Ordering::SeqCst)
    }
    /// Maps the rows; the bytes of every file that came of it.
    fn map(&self, data: &AnyArtifact, about: &str) -> Result<Vec<Vec<u8>>, Failure> {
        let ctx = self.context();
        let dataset = Dataset::open(data)?;
        let folder = tempfile::tempdir().unwrap();
        let mut writer = DatasetWriter::in_folder(folder.path().to_owned(), dataset.kind());
        let trace = TraceWriter::in_folder(folder.path())?;
        map_rows(&ctx, &dataset, &mut writer, trace, &about, |row| self.judge(row))?;
        writer.finish::<kinds::AnyDataset>(Facts::default())?;
        Ok(files_of(folder.path()).iter().map(|name| std::fs::read(folder.path().join(name)).unwrap()).collect())
    }
}

impl Host for TestHost {
    fn progress(&self, _: Progress) {}
    fn metric(&self, _: &str, _: f64, _: Option<u64>, _: bool) {}
    fn cancelled(&self) -> bool {
        false
    }
    fn output(&self, _: &str) -> Result<PathBuf, Failure> {
        Ok(self.folder.path().to_owned())
    }
    fn restore(&self, _: &Reach) -> Result<Option<Checkpoint>, Failure> {
        Ok(None)
    }
    fn save(&self, _: &mut dyn FnMut(&Path) -> Result<(), Failure>) -> Result<(), Failure> {
        Ok(())
    }
    fn secret(&self, _: &SecretName) -> Result<Secret, Failure> {
        Err(Failure::bug("no secret"))
    }
    fn recall(&self, question: &[u8]) -> Result<Option<Vec<u8>>, Failure> {
        Ok(self.memory.lock().unwrap().get(question).cloned())
    }
    fn remember(&self, question: &[u8], answer: &[u8]) -> Result<(), Failure> {
        self.memory.lock().unwrap().insert(question.to_owned(), answer.to_owned());
        Ok(())
    }
}

fn files_of(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// An artifact of numbered rows, in parts as the writer makes them; the row at `edited` says something else.
fn numbered(folder: &Path, rows: usize, edited: Option<usize>) -> AnyArtifact {
    let mut writer = DatasetWriter::in_folder(folder.to_owned(), RowKind::Text);
    for number in 0..rows {
        let word = if edited == Some(number) { "edited" } else { "row" };
        writer.push(Row::new(Content::Text(format!("{word} {number}")), Meta::new())).unwrap();
    }
    let made = writer.finish::<kinds::AnyDataset>(Facts::default()).unwrap().into_any();
    let files = files_of(folder).into_iter().map(|path| {
        let (digest, size_bytes) = Digest::of_file(&folder.join(&path)).unwrap();
        FileEntry::new(path, digest, size_bytes)
    });
    let manifest = Manifest { kind: made.kind, files: files.collect(), facts: made.facts, references: made.references };
    AnyArtifact {
        digest: manifest.digest(),
        manifest,
        root: folder.to_owned(),
        references: Default::default(),
        label: None,
    }
}

/// Two whole parts, and one of [`LAST_ROWS`].
const ROWS: usize = 2 * PART_ROWS + LAST_ROWS;

#[test]
fn killed_in_the_middle_it_goes_on_after_the_last_finished_part_to_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let data = numbered(folder.path(), ROWS, None);
    let undisturbed = TestHost::new();
    let expected = undisturbed.map(&data, "rules").unwrap();
    assert_eq!(undisturbed.judged(), ROWS);

    let host = TestHost::new();
    host.dies_at.store(PART_ROWS + 2000, Ordering::SeqCst);
    assert_eq!(host.map(&data, "rules").unwrap_err().class, Class::Lost);
    host.judged();
    host.dies_at.store(usize::MAX, Ordering::SeqCst);
    assert_eq!(host.map(&data, "rules").unwrap(), expected);
    assert_eq!(host.judged(), ROWS - PART_ROWS, "the first part was finished");

    // A worker that has lost what it remembered judges all again.
    host.memory.lock().unwrap().clear();
    assert_eq!(host.map(&data, "rules").unwrap(), expected);
    assert_eq!(host.judged(), ROWS);
}

#[test]
fn of_a_dataset_that_changed_in_one_part_that_part_alone_is_judged() {
    let (before, after) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let data = numbered(before.path(), ROWS, None);
    let edited = numbered(after.path(), ROWS, Some(PART_ROWS + 2));
    let expected = TestHost::new().map(&edited, "rules").unwrap();

    let host = TestHost::new();
    assert_ne!(host.map(&data, "rules").unwrap(), expected, "the edited row is in the result");
    assert_eq!(host.judged(), ROWS);
    assert_eq!(host.map(&edited, "rules").unwrap(), expected);
    assert_eq!(host.judged(), PART_ROWS);
    host.map(&edited, "other rules").unwrap();
    assert_eq!(host.judged(), ROWS, "other rules, other verdicts");
}

#[test]
fn the_number_of_threads_changes_no_byte_with_or_without_what_is_remembered() {
    let folder = tempfile::tempdir().unwrap();
    let data = numbered(folder.path(), ROWS, None);
    let on = |threads: usize, host: &TestHost| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| host.map(&data, "rules").unwrap())
    };
    let (one, five) = (TestHost::new(), TestHost::new());
    let expected = on(1, &one);
    assert_eq!(on(5, &five), expected);
    assert_eq!(*one.memory.lock().unwrap(), *five.memory.lock().unwrap());
    assert_eq!(on(5, &one), expected);
}

#[test]
fn what_is_remembered_of_other_rows_or_damaged_is_not_believed() {
    let folder = tempfile::tempdir().unwrap();
    let data = numbered(folder.path(), ROWS, None);
    let host = TestHost::new();
    let expected = host.map(&data, "rules").unwrap();
    host.judged();
    let fewer = br#"{"rows":3,"left_out":[]}"#;
    let beyond = format!(r#"{{"rows":{PART_ROWS},"left_out":[[{PART_ROWS},"dropped","too_short",null]]}}"#);
    let made = format!(r#"{{"rows":{PART_ROWS},"left_out":[[0,"made","too_short",null]]}}"#);
    for wrong in [&fewer[..], beyond.as_bytes(), made.as_bytes(), b"", b"[]"] {
        host.memory.lock().unwrap().values_mut().for_each(|answer| *answer = wrong.to_owned());
        assert_eq!(host.map(&data, "rules").unwrap(), expected);
        assert_eq!(host.judged(), ROWS);
    }
    host.map(&data, "rules").unwrap();
    assert_eq!(host.judged(), 0, "judged again, they stand again");
}

#[test]
fn a_dataset_of_one_part_is_judged_and_nothing_is_kept_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let data = numbered(folder.path(), LAST_ROWS, None);
    let host = TestHost::new();
    assert_eq!(host.map(&data, "rules").unwrap().len(), 2, "one part, and the trace");
    assert!(host.memory.lock().unwrap().is_empty());
}

#[test]
fn a_part_with_changed_rows_is_judged_again() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = Dataset::open(&numbered(folder.path(), ROWS, None)).unwrap();
    let host = TestHost::new();
    let changed = |row: &Row| Ok(Verdict::Change { row: row.clone(), rule: "same".into() });
    let out = tempfile::tempdir().unwrap();
    let mut writer = DatasetWriter::in_folder(out.path().to_owned(), dataset.kind());
    let trace = TraceWriter::in_folder(out.path()).unwrap();
    let funnel = map_rows(&host.context(), &dataset, &mut writer, trace, &"rules", changed).unwrap();
    assert_eq!(funnel.kept, ROWS as u64);
    assert!(host.memory.lock().unwrap().is_empty(), "what was remembered would be as large as the rows");
}
