//! What a program left behind, read and judged: an output that is missing or malformed is a failure that names it.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufReader, Read},
    path::{Path, PathBuf},
};

use llmflow_contract::{AnyMade, Context, Digest, Facts, Failure, Kind, Port, Report, kinds};
use llmflow_dataset::{DatasetWriter, Fate, Numbering, Row, RowId, RowKind, TraceRecord, TraceWriter};
use llmflow_model::{TextTokenizer, weights::gguf::GgufFile};
use serde_json::{Map, Value};

use super::heard::{Line, listen};

/// Kinds other than datasets that a program may leave.
pub(crate) const KINDS: [&str; 6] = ["model", "adapter", "tokenizer", "gguf", "report", "files"];
/// Bytes of one row.
pub(crate) const ROW_BYTES: usize = 64 << 20;
/// Bytes of a JSON file that is read whole.
const JSON_BYTES: u64 = 256 << 20;
/// Bytes of the header of a safetensors file, fixed by the format.
const HEADER_BYTES: u64 = 100_000_000;

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
        let message = format!("what the command left at `{{out.{}}}` is no {}: {why}", self.port, self.kind);
        Failure::input("command/bad-output", message).param(&format!("outputs.{}", self.port))
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
            if meta.is_dir() {
                for entry in fs::read_dir(&path).map_err(|error| Failure::io("listing", &path, &error))? {
                    open.push(entry.map_err(|error| Failure::io("listing", &path, &error))?.path());
                }
            } else if meta.is_file() && path.to_str().is_some() {
                files.push(path);
            } else {
                let name = path.strip_prefix(&self.folder).unwrap_or(&path).display().to_string();
                return Err(self.bad(format!("`{name}` is a link or no file with a UTF-8 name")));
            }
        }
        Ok(files)
    }

    /// JSON Lines to the kind's own form.
    fn rows(self, ctx: &Context, kind: RowKind, facts: Facts, trace: &mut TraceWriter) -> Result<AnyMade, Failure> {
        let file = File::open(&self.path).map_err(|error| Failure::io("reading", &self.path, &error))?;
        let mut writer = DatasetWriter::in_folder(self.folder.clone(), kind);
        let (mut numbering, mut number, mut failure) = (Numbering::new(), 0, None);
        listen(file, ROW_BYTES, |line| {
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

fn read_json(path: &Path) -> Result<Value, String> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let size_bytes = fs::metadata(path).map_err(|_| format!("it has no `{name}`"))?.len();
    if size_bytes > JSON_BYTES {
        return Err(format!("`{name}` has {size_bytes} bytes, more than {JSON_BYTES}"));
    }
    let file = File::open(path).map_err(|error| format!("`{name}`: {error}"))?;
    serde_json::from_reader(BufReader::new(file)).map_err(|error| format!("`{name}` is no JSON: {error}"))
}

/// The facts of a folder of safetensors, whatever its architecture: from its config and the headers of its weights.
fn model_facts(folder: &Path, config: &str) -> Result<Facts, String> {
    let config = read_json(&folder.join(config))?;
    if !config.is_object() {
        return Err("its config is no JSON object".into());
    }
    let mut weights: Vec<PathBuf> = fs::read_dir(folder)
        .map_err(|error| error.to_string())?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "safetensors"))
        .collect();
    weights.sort();
    if weights.is_empty() {
        return Err("it has no `.safetensors` file".into());
    }
    let mut parameters = 0;
    for path in &weights {
        parameters += parameters_of(path)
            .map_err(|why| format!("`{}` {why}", path.file_name().unwrap_or_default().to_string_lossy()))?;
    }
    let tokenizer = if folder.join("tokenizer.json").exists() { tokenizer_facts(folder)? } else { Facts::default() };
    let text = |value: &Value| value.as_str().map(str::to_owned);
    Ok(Facts {
        architecture: text(&config["architectures"][0]),
        parameters: Some(parameters),
        vocab: config["vocab_size"].as_u64(),
        context: config["max_position_embeddings"].as_u64(),
        dtype: text(&config["dtype"]).or_else(|| text(&config["torch_dtype"])),
        ..tokenizer
    })
}

/// Numbers in all tensors of a safetensors file, whose header must agree with its length.
fn parameters_of(path: &Path) -> Result<u64, String> {
    let mut file = File::open(path).map_err(|error| error.to_string())?;
    let size_bytes = file.metadata().map_err(|error| error.to_string())?.len();
    let cut = |_| "is cut short".to_owned();
    let mut length = [0u8; 8];
    file.read_exact(&mut length).map_err(cut)?;
    let length = u64::from_le_bytes(length);
    if length > HEADER_BYTES {
        return Err("is no safetensors file".into());
    }
    let mut header = vec![0u8; length as usize];
    file.read_exact(&mut header).map_err(cut)?;
    let header: Map<String, Value> =
        serde_json::from_slice(&header).map_err(|error| format!("has a header that is no JSON: {error}"))?;
    let (mut parameters, mut end) = (0u64, 0u64);
    for (name, tensor) in header.iter().filter(|(name, _)| *name != "__metadata__") {
        let lacking = || format!("has a tensor `{name}` without shape or place");
        let shape = tensor["shape"].as_array().ok_or_else(lacking)?;
        let numbers = shape.iter().try_fold(1u64, |product, size| product.checked_mul(size.as_u64()?));
        let place = tensor["data_offsets"][1].as_u64();
        let (numbers, place) = numbers.zip(place).ok_or_else(lacking)?;
        (parameters, end) = (parameters.saturating_add(numbers), end.max(place));
    }
    if length.saturating_add(8).saturating_add(end) != size_bytes {
        return Err(format!(
            "has {size_bytes} bytes, its header promises {}",
            length.saturating_add(8).saturating_add(end)
        ));
    }
    Ok(parameters)
}

fn report_facts(path: &Path) -> Result<Facts, String> {
    let json = read_json(path)?;
    if !json.is_object() {
        return Err("it is no JSON object".into());
    }
    serde_json::from_value::<Report>(json).map(|_| Facts::default()).map_err(|error| error.to_string())
}

fn tokenizer_facts(folder: &Path) -> Result<Facts, String> {
    let tokenizer = TextTokenizer::from_folder(folder).map_err(|error| error.to_string())?;
    Ok(Facts {
        tokenizer: Some(Digest::of_json(tokenizer.json())),
        chat_template: tokenizer.template().map(|template| Digest::of(template.as_bytes())),
        vocab: Some(tokenizer.vocab_size() as u64),
        ..Facts::default()
    })
}
