//! What a program left behind, read and judged: an output that is missing or malformed is a failure that names it.

use std::{
    collections::BTreeMap,
    fs::{self, File, FileType},
    path::{Path, PathBuf},
};

use llmflow_contract::{AnyMade, Context, Facts, Failure, Kind, Port, kinds};
use llmflow_dataset::{DatasetWriter, Fate, Numbering, Row, RowId, RowKind, TraceRecord, TraceWriter};
use llmflow_model::weights::gguf::GgufFile;
use serde_json::{Map, Value};

use super::{
    facts::{model_facts, report_facts, tokenizer_facts},
    heard::{Line, listen},
};

/// Kinds other than datasets that a program may leave.
pub(crate) const KINDS: [&str; 6] = ["model", "adapter", "tokenizer", "gguf", "report", "files"];
/// Bytes of one row.
pub(crate) const ROW_BYTES: usize = 64 << 20;

/// One output: its name, its kind, the folder that becomes the artifact, and the path the program is given.
pub(crate) struct Left {
    pub port: Port,
    pub kind: Kind,
    folder: PathBuf,
    pub path: PathBuf,
}

impl Left {
    /// A place for the output. Datasets are written as JSON Lines aside and become Parquet.
    pub fn prepare(ctx: &Context, port: Port, kind: Kind) -> Result<Self, Failure> {
        let folder = ctx.output(port.as_str())?;
        let path = match kind.as_str() {
            "gguf" => folder.join("model.gguf"),
            "report" => folder.join("report.json"),
            _ if kind.is_dataset() => ctx.scratch().join("out").join(format!("{port}.jsonl")),
            _ => folder.clone(),
        };
        Ok(Self { port, kind, folder, path })
    }

    /// Bytes written so far.
    pub fn size_bytes(&self) -> u64 {
        sizes(&self.path)
    }

    /// Reads it, and gives it its facts. Rows go to the trace.
    ///
    /// # Errors
    /// `command/no-output` or `command/bad-output`, naming the output and the file.
    pub fn take(self, ctx: &Context, facts: Facts, trace: Option<&mut TraceWriter>) -> Result<AnyMade, Failure> {
        let files = self.files()?;
        if files.is_empty() {
            let message = format!("the command left nothing at `{{out.{}}}`", self.port);
            return Err(Failure::input("command/no-output", message)
                .param(&format!("outputs.{}", self.port))
                .help(format!("it ended well, but a {} was declared: write it to `{}`", self.kind, self.shown())));
        }
        if let (Some(kind), Some(trace)) = (RowKind::find(self.kind.as_str()), trace) {
            return self.rows(ctx, kind, facts, trace);
        }
        let found = match self.kind.as_str() {
            "model" => model_facts(&self.folder, "config.json"),
            "adapter" => model_facts(&self.folder, "adapter_config.json"),
            "tokenizer" => tokenizer_facts(&self.folder),
            "gguf" => GgufFile::open(&self.path).map(|_| Facts::default()).map_err(|error| error.to_string()),
            "report" => report_facts(&self.path),
            _ => Ok(Facts::default()),
        };
        let found = found.map_err(|why| self.bad(why))?;
        let facts = Facts { licences: facts.licences, used_for: facts.used_for, ..found };
        Ok(AnyMade { kind: self.kind, folder: self.folder, facts, references: BTreeMap::new() })
    }

    fn shown(&self) -> String {
        let inside = self.path.strip_prefix(&self.folder).ok().filter(|inside| !inside.as_os_str().is_empty());
        match inside {
            Some(file) => format!("{{out.{}}}` ({})", self.port, file.display()),
            None => format!("{{out.{}}}", self.port),
        }
    }

    fn bad(&self, why: impl std::fmt::Display) -> Failure {
        // The folder is gone when this is read: its place has a name that stays.
        let name = format!("{{out.{}}}", self.port);
        let paths = [&self.path, &self.folder].map(|path| path.display().to_string());
        let why = paths.iter().fold(why.to_string(), |why, path| why.replace(path, &name));
        let message = format!("what the command left at `{name}` is no {}: {why}", self.kind);
        Failure::input("command/bad-output", message).param(&format!("outputs.{}", self.port))
    }

    /// What lies at the output itself (`inside` is empty) or in it, and cannot be kept.
    fn odd(&self, inside: &Path, found: FileType) -> Failure {
        let name = match inside.as_os_str().is_empty() {
            true => "it".to_owned(),
            false => format!("`{{out.{}}}/{}`", self.port, inside.display()),
        };
        match found {
            found if found.is_symlink() => {
                self.bad(format!("{name} is a link")).help("copy what it leads to: `cp -rL` does")
            }
            _ if inside.to_str().is_none() => self.bad(format!("{name} is a name that is no UTF-8")).help("rename it"),
            _ => self.bad(format!("{name} is neither file nor folder")).help("leave files and folders alone"),
        }
    }

    /// A file where the program was given the path of a file, a folder where it was that of a folder.
    fn check_sort(&self, is_folder: bool) -> Result<(), Failure> {
        match (self.path == self.folder, is_folder) {
            (true, false) => {
                let help = format!("write into the folder that is there: `{{out.{}}}/NAME`", self.port);
                Err(self.bad("it is a file").help(help))
            }
            (false, true) if self.kind.is_dataset() => {
                Err(self.bad("it is a folder").help("write JSON Lines to the path: a JSON object a line"))
            }
            (false, true) => Err(self.bad("it is a folder").help("write one file, to the path itself")),
            _ => Ok(()),
        }
    }

    /// Its regular files. A link or a device is refused: what it shows is not what would be kept.
    fn files(&self) -> Result<Vec<PathBuf>, Failure> {
        let (mut files, mut open) = (Vec::new(), vec![self.path.clone()]);
        while let Some(path) = open.pop() {
            let meta = match fs::symlink_metadata(&path) {
                Ok(meta) => meta,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(Failure::io("reading", &path, &error)),
            };
            let (found, inside) = (meta.file_type(), path.strip_prefix(&self.path).unwrap_or(&path));
            if !(found.is_dir() || found.is_file() && inside.to_str().is_some()) {
                return Err(self.odd(inside, found));
            }
            if path == self.path {
                self.check_sort(found.is_dir())?;
            }
            if found.is_file() {
                files.push(path);
                continue;
            }
            for entry in fs::read_dir(&path).map_err(|error| Failure::io("listing", &path, &error))? {
                open.push(entry.map_err(|error| Failure::io("listing", &path, &error))?.path());
            }
        }
        Ok(files)
    }

    /// JSON Lines to the kind's own form.
    fn rows(self, ctx: &Context, kind: RowKind, facts: Facts, trace: &mut TraceWriter) -> Result<AnyMade, Failure> {
        let file = File::open(&self.path).map_err(|error| Failure::io("reading", &self.path, &error))?;
        let mut writer = DatasetWriter::in_folder(self.folder.clone(), kind);
        let (mut numbering, mut number, mut failure) = (Numbering::new(), 0, None);
        let heard = listen(file, ROW_BYTES, |line| {
            number += 1;
            let mut one = || {
                if number % 512 == 0 {
                    ctx.check()?;
                }
                let Some(fields) = fields_of(&line).map_err(|why| self.bad(format!("line {number} {why}")))? else {
                    return Ok(());
                };
                let (parents, mut row) =
                    row_of(kind, fields).map_err(|why| self.bad(format!("line {number} {why}")))?;
                row.id = numbering.unique(row.id);
                let parents = parents.iter().map(RowId::to_string).collect();
                trace.push(TraceRecord::new(&row.id, parents, Fate::Made).port(self.port.as_str()))?;
                writer.push(row)
            };
            failure = one().err();
            failure.is_none()
        });
        if let Some(failure) = failure {
            return Err(failure);
        }
        heard.map_err(|error| Failure::io("reading", &self.path, &error))?;
        writer.finish::<kinds::AnyDataset>(facts).map(llmflow_contract::Made::into_any)
    }
}

/// The object on a line; none on an empty one.
///
/// # Errors
/// What is wrong with it: `is no JSON object`.
pub(crate) fn fields_of(line: &Line) -> Result<Option<Map<String, Value>>, String> {
    if line.is_cut {
        return Err(format!("is longer than {} MB", ROW_BYTES >> 20));
    }
    if line.bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    match serde_json::from_slice(&line.bytes) {
        Ok(Value::Object(fields)) => Ok(Some(fields)),
        Ok(_) => Err("is no JSON object".into()),
        Err(error) => Err(format!("is no valid JSON: {error}")),
    }
}

/// A row and the rows it says it comes from: its own `id`, or `parent`, or `parents`.
///
/// # Errors
/// What the row lacks.
pub(crate) fn row_of(kind: RowKind, mut fields: Map<String, Value>) -> Result<(Vec<RowId>, Row), String> {
    let one = |value: &Value| value.as_str().map(RowId::new);
    let id = fields.get("id").and_then(one);
    let parent = fields.shift_remove("parent").as_ref().and_then(one);
    let parents = fields.shift_remove("parents");
    let parents = parents.as_ref().and_then(Value::as_array).map(|list| list.iter().filter_map(one).collect());
    let parents = parents.unwrap_or_else(|| parent.or(id).into_iter().collect());
    Ok((parents, Row::from_json(kind, fields)?))
}

/// Regular files below a folder.
pub(crate) fn count_files(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.map(|path| if path.is_dir() { count_files(&path) } else { 1 }).sum()
}

fn sizes(path: &Path) -> u64 {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => {
            fs::read_dir(path).into_iter().flatten().flatten().map(|entry| sizes(&entry.path())).sum()
        }
        Ok(meta) => meta.len(),
        Err(_) => 0,
    }
}
