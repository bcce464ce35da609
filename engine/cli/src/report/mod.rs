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
    io::Write,
    path::{Path, PathBuf},
};

use llmflow_contract::Failure;

pub use collect::collect;
pub use data::{InputData, MachineData, OutputData, ReportData, SourceData, StageData, Status};
use story::Story;

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
/// `file/…` or `disk/full` if it cannot be written.
pub fn write(data: &ReportData, path: &Path) -> Result<(), Failure> {
    let is_markdown = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("md"));
    let text = if is_markdown { markdown(data) } else { html(data) };
    let failed = |error: std::io::Error| Failure::io("writing", path, &error);
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

/// The name under which a file grows before it takes its place.
fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    path.with_file_name(format!(".{name}.{}.new", std::process::id()))
}
