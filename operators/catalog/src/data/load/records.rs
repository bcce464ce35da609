//! Files as records: JSON objects with the place each came from.

use std::{
    cell::Cell,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    rc::Rc,
};

use flate2::read::MultiGzDecoder;
use llmflow_contract::Failure;
use llmflow_dataset::ForeignParquet;
use serde_json::{Map, Value, json};

use super::{files::Found, spec::SplitText};

/// Longest line or document, in bytes.
const MAX_ROW_BYTES: u64 = 64 << 20;
/// Largest JSON array, in bytes: it is read whole.
const MAX_ARRAY_BYTES: u64 = 2 << 30;

/// What a table's reader takes from its file at once, in bytes: it may have read as much past a row.
const TABLE_BUFFER_BYTES: usize = 1 << 16;

/// One record of a file.
#[derive(Debug)]
pub(super) struct Record {
    /// `file:line` (of an array or a Parquet file: the row, from 1).
    pub place: String,
    pub number: u64,
    /// Its fields, or why they could not be read.
    pub body: Result<Map<String, Value>, String>,
}

pub(super) type Records = Box<dyn Iterator<Item = Result<Record, Failure>>>;

/// The part of a name that says what a file holds: `.gz` left out, in lower case.
fn extension(name: &str) -> String {
    let lower = name.to_lowercase();
    let plain = lower.strip_suffix(".gz").unwrap_or(&lower);
    plain.rsplit_once('.').map_or(String::new(), |(_, extension)| extension.to_owned())
}

/// Is it a document, rather than a file of rows?
pub(super) fn is_document(name: &str) -> bool {
    matches!(extension(name).as_str(), "md" | "markdown" | "txt" | "text" | "rst" | "html")
}

/// # Errors
/// An unreadable file, an unknown extension, a damaged array or Parquet file. A bad row is no error here.
pub(super) fn read(file: &Found, split: SplitText) -> Result<Records, Failure> {
    match extension(&file.name).as_str() {
        _ if is_document(&file.name) => documents(file, split),
        "jsonl" | "ndjson" => lines(file),
        "json" => json(file),
        "csv" => table(file, b','),
        "tsv" => table(file, b'\t'),
        "parquet" => parquet(file),
        _ => Err(unknown_type(&file.name)),
    }
}

/// # Errors
/// `data/file-type`, by the name alone.
pub(super) fn check_type(name: &str) -> Result<(), Failure> {
    let is_known = matches!(extension(name).as_str(), "jsonl" | "ndjson" | "json" | "csv" | "tsv" | "parquet");
    if is_known || is_document(name) { Ok(()) } else { Err(unknown_type(name)) }
}

fn unknown_type(name: &str) -> Failure {
    Failure::input("data/file-type", format!("`{name}` is of no type that can be read"))
        .help("one of .jsonl .json .csv .tsv .parquet .md .txt, or packed: .jsonl.gz")
        .param("path")
}

fn open(file: &Found) -> Result<Box<dyn BufRead>, Failure> {
    let raw = File::open(&file.path).map_err(|error| Failure::io("reading", &file.path, &error))?;
    Ok(match file.name.to_lowercase().ends_with(".gz") {
        true => Box::new(BufReader::with_capacity(1 << 16, MultiGzDecoder::new(raw))),
        false => Box::new(BufReader::with_capacity(1 << 16, raw)),
    })
}

/// The whole content, no more than `limit` bytes of it.
fn whole(file: &Found, limit: u64) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = open(file)?.take(limit + 1).read_to_end(&mut bytes);
    read.map_err(|error| unreadable(file, &error))?;
    if bytes.len() as u64 > limit {
        return Err(Failure::input("data/too-large", format!("`{}` holds more than {} MB", file.name, limit >> 20))
            .help("write it as JSON Lines, which is read row by row"));
    }
    Ok(bytes)
}

fn unreadable(file: &Found, error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
            Failure::input("data/damaged", format!("`{}` is damaged or cut short", file.name)).cause(error)
        }
        _ => Failure::io("reading", &file.path, error),
    }
}

fn documents(file: &Found, split: SplitText) -> Result<Records, Failure> {
    let bytes = whole(file, MAX_ROW_BYTES)?;
    let name = file.name.clone();
    let record = |line: u64, body| Record { place: format!("{name}:{line}"), number: line, body };
    let text = match String::from_utf8(bytes) {
        Ok(text) => text.trim_start_matches('\u{feff}').to_owned(),
        Err(_) => return Ok(Box::new(std::iter::once(Ok(record(1, Err("is no UTF-8 text".into())))))),
    };
    let body = |text: &str| Ok(Map::from_iter([("text".into(), json!(text)), ("source".into(), json!(file.name))]));
    let records: Vec<_> =
        pieces(&text, split).into_iter().map(|(line, piece)| Ok(record(line, body(&piece)))).collect();
    Ok(Box::new(records.into_iter()))
}

/// The pieces of a document, each with the line it begins at.
fn pieces(text: &str, split: SplitText) -> Vec<(u64, String)> {
    let mut pieces: Vec<(u64, String)> = Vec::new();
    let mut in_fence = false;
    let mut begins = true;
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_fence = !in_fence;
        }
        match split {
            SplitText::None => {}
            SplitText::Paragraphs if line.trim().is_empty() => {
                begins = true;
                continue;
            }
            SplitText::Paragraphs => {}
            SplitText::Headings => begins |= !in_fence && line.starts_with('#'),
        }
        match pieces.last_mut() {
            Some((_, piece)) if !begins => {
                piece.push('\n');
                piece.push_str(line);
            }
            _ => pieces.push((number as u64 + 1, line.to_owned())),
        }
        begins = false;
    }
    if split == SplitText::None {
        return vec![(1, text.trim_end().to_owned())];
    }
    pieces.retain(|(_, piece)| !piece.trim().is_empty());
    pieces.iter_mut().for_each(|(_, piece)| piece.truncate(piece.trim_end().len()));
    pieces
}

fn lines(file: &Found) -> Result<Records, Failure> {
    let mut reader = open(file)?;
    let (file, mut number) = (file.clone(), 0);
    Ok(Box::new(std::iter::from_fn(move || {
        loop {
            let mut line = Vec::new();
            match reader.by_ref().take(MAX_ROW_BYTES + 1).read_until(b'\n', &mut line) {
                Ok(0) => return None,
                Ok(_) => number += 1,
                Err(error) => return Some(Err(unreadable(&file, &error))),
            }
            if line.len() as u64 > MAX_ROW_BYTES {
                let message = format!("`{}:{number}` is longer than {} MB", file.name, MAX_ROW_BYTES >> 20);
                return Some(Err(Failure::input("data/too-large", message)));
            }
            let text = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&line).trim_ascii();
            if !text.is_empty() {
                return Some(Ok(Record { place: format!("{}:{number}", file.name), number, body: object(text) }));
            }
        }
    })))
}

fn object(text: &[u8]) -> Result<Map<String, Value>, String> {
    match serde_json::from_slice(text) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err("is no JSON object".into()),
        Err(error) => Err(format!("is no valid JSON ({error})")),
    }
}

fn json(file: &Found) -> Result<Records, Failure> {
    let bytes = whole(file, MAX_ARRAY_BYTES)?;
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes).trim_ascii_start();
    if !text.starts_with(b"[") {
        return lines(file);
    }
    let rows: Vec<Value> = serde_json::from_slice(text).map_err(|error| {
        Failure::input("data/damaged", format!("`{}` is no valid JSON array: {error}", file.name)).param("path")
    })?;
    let name = file.name.clone();
    Ok(Box::new(rows.into_iter().zip(1..).map(move |(row, number)| {
        let body = match row {
            Value::Object(fields) => Ok(fields),
            _ => Err("is no JSON object".to_owned()),
        };
        Ok(Record { place: format!("{name}:{number}"), number, body })
    })))
}

/// Reads on while no more than `left` bytes are taken; refilled at each row.
struct RowLimit<R> {
    inner: R,
    left: Rc<Cell<u64>>,
}

impl<R: Read> Read for RowLimit<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let size = self.inner.read(buffer)?;
        let left = self.left.get().checked_sub(size as u64).ok_or(io::ErrorKind::FileTooLarge)?;
        self.left.set(left);
        Ok(size)
    }
}

/// A table whose bytes cannot be read, or whose row does not end.
fn unreadable_table(file: &Found, number: u64, error: &io::Error) -> Failure {
    if error.kind() != io::ErrorKind::FileTooLarge {
        return unreadable(file, error);
    }
    let message = format!("`{}:{number}` is longer than {} MB", file.name, MAX_ROW_BYTES >> 20);
    Failure::input("data/too-large", format!("{message}: a quote may be unclosed")).param("path")
}

fn table(file: &Found, delimiter: u8) -> Result<Records, Failure> {
    let most = MAX_ROW_BYTES + TABLE_BUFFER_BYTES as u64;
    let left = Rc::new(Cell::new(most));
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(delimiter)
        .buffer_capacity(TABLE_BUFFER_BYTES)
        .from_reader(RowLimit { inner: open(file)?, left: left.clone() });
    let (file, name) = (file.clone(), file.name.clone());
    let headers = reader.headers().map_err(|error| match error.kind() {
        csv::ErrorKind::Io(error) => unreadable_table(&file, 1, error),
        _ => Failure::input("data/damaged", format!("`{name}` has no header that can be read: {error}")).param("path"),
    })?;
    let headers: Vec<String> = headers.iter().map(|header| header.trim_start_matches('\u{feff}').to_owned()).collect();
    left.set(most);
    let mut number = 1;
    Ok(Box::new(reader.into_records().map(move |row| {
        left.set(most);
        number = row.as_ref().ok().and_then(|row| row.position().map(csv::Position::line)).unwrap_or(number + 1);
        let body = match row {
            Ok(row) => Ok(headers.iter().cloned().zip(row.iter().map(|cell| json!(cell))).collect()),
            Err(error) => match error.kind() {
                csv::ErrorKind::Io(error) => return Err(unreadable_table(&file, number, error)),
                _ => Err(format!("is no valid row ({error})")),
            },
        };
        Ok(Record { place: format!("{name}:{number}"), number, body })
    })))
}

fn parquet(file: &Found) -> Result<Records, Failure> {
    let name = file.name.clone();
    let rows = ForeignParquet::open(&file.path)?;
    Ok(Box::new(
        rows.zip(1..)
            .map(move |(row, number)| Ok(Record { place: format!("{name}:{number}"), number, body: Ok(row?) })),
    ))
}
