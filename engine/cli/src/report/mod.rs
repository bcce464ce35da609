//! The report of a run: one HTML or Markdown file that tells its story offline.
//!
//! [`collect`] gathers plain data; [`story`] decides what to tell and in which order; [`html`] and [`markdown`] write the
//! same story. Must not know: how a run goes, any operator by name. Text of models and rows never becomes markup.

mod chart;
mod collect;
mod data;
#[cfg(test)]
mod fixture;
mod html;
mod markdown;
mod markup;
mod number;
mod story;
#[cfg(test)]
mod tests;

use std::{
    fs,
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use llmflow_contract::Failure;
use llmflow_runtime::run as engine;

pub use collect::collect;
pub use data::{InputData, MachineData, OutputData, ReportData, SourceData, StageData, Status};
use story::Story;

/// Where a report says what it is: in its first bytes or its last.
const MARKED_BYTES: u64 = 4096;

/// The report as one HTML file without network or script.
pub fn html(data: &ReportData) -> String {
    html::page(&Story::of(data))
}

/// The report as Markdown: the same content as text and tables.
pub fn markdown(data: &ReportData) -> String {
    markdown::page(&Story::of(data))
}

/// Writes the report to `path`, Markdown where it ends in `.md`, else HTML. Whole or not at all.
///
/// # Errors
/// `publish/occupied` if something else lies there; `file/…` or `disk/full` if it cannot be written.
pub fn write(data: &ReportData, path: &Path) -> Result<(), Failure> {
    let is_markdown = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("md"));
    let text = if is_markdown { markdown(data) } else { html(data) };
    let path = &engine::followed(path);
    let failed = |error: std::io::Error| Failure::io("writing", path, &error);
    if path.exists() && !is_report(path).map_err(failed)? {
        return Err(engine::occupied(path));
    }
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    fs::create_dir_all(folder).map_err(failed)?;
    let fresh = beside(path);
    let written = fs::File::create(&fresh).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.and_then(|()| fs::rename(&fresh, path)).map_err(|error| {
        let _ = fs::remove_file(&fresh); // the error that counts is the one before
        failed(error)
    })
}

/// Does a file say of itself that it is a report of ours?
fn is_report(path: &Path) -> std::io::Result<bool> {
    let mut file = fs::File::open(path)?;
    let size = file.metadata()?.len();
    let mut ends = Vec::new();
    (&mut file).take(MARKED_BYTES).read_to_end(&mut ends)?;
    file.seek(SeekFrom::Start(size.saturating_sub(MARKED_BYTES)))?;
    file.take(MARKED_BYTES).read_to_end(&mut ends)?;
    let text = String::from_utf8_lossy(&ends);
    Ok(text.contains(html::MARK) || text.contains(markdown::MARK))
}

/// The name under which a file grows before it takes its place.
fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    path.with_file_name(format!(".{name}.{}.new", std::process::id()))
}
