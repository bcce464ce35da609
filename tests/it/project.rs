//! A project in a folder of its own, the program run in it, and what that left behind.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::LazyLock,
};

use llmflow_contract::Digest;
use serde_json::Value;
use tempfile::TempDir;

/// The program under test.
pub const LLMFLOW: &str = env!("CARGO_BIN_EXE_llmflow");

/// A folder that looks like a checkout, so that `.llmflow/` is made in it and nowhere else.
pub struct Project {
    folder: TempDir,
}

/// How a command ended.
#[derive(Debug)]
pub struct Done {
    pub code: Option<i32>,
    /// Standard output: data.
    pub out: String,
    /// Standard error: talk.
    pub err: String,
}

impl Project {
    /// The teaching pipelines with their data, as in a fresh clone.
    pub fn teaching() -> Self {
        let project = Self::empty();
        copy(&repository().join("pipelines"), &project.path("pipelines"));
        // What somebody ran in the repository is no part of a fresh clone.
        for left in ["pipelines/out", "pipelines/.llmflow"] {
            let _ = fs::remove_dir_all(project.path(left));
        }
        project
    }

    /// The pipeline `toy.yaml`, which has a stage of every kind and takes seconds, with the data it reads.
    pub fn toy() -> Self {
        let project = Self::empty();
        fs::copy(repository().join("tests/it/toy.yaml"), project.path("toy.yaml")).unwrap();
        copy(&repository().join("pipelines/data/tiny"), &project.path("data"));
        project
    }

    /// One pipeline, `pipeline.yaml`.
    pub fn with(pipeline: &str) -> Self {
        let project = Self::empty();
        project.write("pipeline.yaml", pipeline);
        project
    }

    fn empty() -> Self {
        let folder = tempfile::Builder::new().prefix("llmflow-it-").tempdir().unwrap();
        fs::create_dir(folder.path().join(".git")).unwrap();
        Self { folder }
    }

    pub fn path(&self, inner: &str) -> PathBuf {
        self.folder.path().join(inner)
    }

    pub fn write(&self, inner: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path(inner), bytes).unwrap();
    }

    /// The program with these words as arguments, in the project's folder, free of the tester's own settings.
    pub fn command(&self, words: &str) -> Command {
        self.command_of(LLMFLOW, words)
    }

    /// [`Project::command`] of a copy of the program.
    pub fn command_of(&self, program: impl AsRef<OsStr>, words: &str) -> Command {
        let mut command = Command::new(program);
        command.args(words.split_whitespace());
        self.settle(&mut command);
        command
    }

    /// Sets the folder and the environment of a command that runs the program.
    pub fn settle(&self, command: &mut Command) {
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("LLMFLOW_") {
                command.env_remove(name);
            }
        }
        command.current_dir(self.folder.path()).env("NO_COLOR", "1").env("COLUMNS", "100").stdin(Stdio::null());
    }

    /// Runs the program to its end.
    pub fn llmflow(&self, words: &str) -> Done {
        Done::of(&self.command(words).output().unwrap())
    }

    /// Runs the program to its end, which must be a good one.
    pub fn succeeds(&self, words: &str) -> Done {
        let done = self.llmflow(words);
        assert_eq!(done.code, Some(0), "llmflow {words}\n{}\n{}", done.out, done.err);
        done
    }

    /// What every committed key gave, without when, where and how long.
    pub fn results(&self) -> BTreeMap<String, Value> {
        let keys = files_below(&self.path(".llmflow/store/keys"));
        let result = |path: PathBuf| {
            let text = fs::read_to_string(&path).unwrap(); // the record, and below it the digest of its line
            let mut record: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
            for circumstance in ["seconds", "attempt", "machine", "at_ms"] {
                record.as_object_mut().unwrap().remove(circumstance);
            }
            (path.file_name().unwrap().to_string_lossy().into_owned(), record)
        };
        keys.into_iter().map(result).collect()
    }

    /// Every file below `inner` with the digest of its bytes.
    pub fn digests(&self, inner: &str) -> BTreeMap<PathBuf, String> {
        let root = self.path(inner);
        let digest = |path: &PathBuf| Digest::of_file(path).unwrap().0.hex();
        files_below(&root)
            .into_iter()
            .map(|path| (path.strip_prefix(&root).unwrap().to_owned(), digest(&path)))
            .collect()
    }

    /// How many stages are committed.
    pub fn committed(&self) -> usize {
        files_below(&self.path(".llmflow/store/keys")).len()
    }
}

impl Done {
    pub fn of(output: &Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The events of a run with `--json`.
    pub fn events(&self) -> Vec<Value> {
        self.out.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

/// The events with this name, by the stage they belong to.
pub fn stages_with(events: &[Value], name: &str) -> Vec<String> {
    let named = events.iter().filter(|event| event["event"] == name);
    named.map(|event| event["stage"].as_str().unwrap_or_default().to_owned()).collect()
}

/// A toy project that has run to its end once, shared by the tests that only read from it.
pub static FINISHED_TOY: LazyLock<(Project, Done)> = LazyLock::new(|| {
    let toy = Project::toy();
    let done = toy.succeeds("run toy.yaml --json");
    (toy, done)
});

/// The repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below a folder, sorted; none where there is no folder.
pub fn files_below(root: &Path) -> Vec<PathBuf> {
    let (mut files, mut folders) = (Vec::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    files
}

fn copy(from: &Path, to: &Path) {
    for file in files_below(from) {
        let target = to.join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(&file, &target).unwrap();
    }
}
