//! The files that a path or a pattern names, in order of name.

use std::path::{Component, Path, PathBuf};

use globset::GlobBuilder;
use llmflow_contract::Failure;

/// Files of one load; more is most likely a pattern gone wrong.
const MAX_FILES: usize = 100_000;
/// Folders below one another, so that a link to itself ends.
const MAX_DEPTH: usize = 32;

/// One file, and how its user calls it.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// Relative to the pipeline file, as the user wrote it.
    pub name: String,
    pub path: PathBuf,
    pub size_bytes: u64,
}

/// # Errors
/// `file/missing` if no file is there, naming the param.
pub(super) fn find(pattern: &str, base: &Path) -> Result<Vec<Found>, Failure> {
    if pattern.trim().is_empty() {
        return Err(Failure::input("param/invalid", "`path` is empty")
            .param("path")
            .help("name a file, or a pattern such as `docs/*.md`"));
    }
    let plain = base.join(pattern);
    if plain.exists() && !plain.is_dir() {
        return Ok(vec![found(pattern.to_owned(), plain)?]);
    }
    let missing = |message: String| Failure::input("file/missing", message).param("path");
    if plain.is_dir() {
        return Err(missing(format!("`{pattern}` is a folder"))
            .help(format!("name its files: `{}/*.jsonl`", pattern.trim_end_matches('/'))));
    }
    if !pattern.contains(['*', '?', '[', '{']) {
        return Err(missing(format!("`{pattern}` does not exist")).help("paths are relative to the pipeline file"));
    }
    let matcher = GlobBuilder::new(pattern)
        .literal_separator(true)
        .build()
        .map_err(|error| Failure::input("param/pattern", format!("`{pattern}`: {}", error.kind())).param("path"))?
        .compile_matcher();
    // The part before the first wildcard names the folder to walk.
    let fixed: PathBuf = Path::new(pattern)
        .components()
        .take_while(
            |part| !matches!(part, Component::Normal(name) if name.to_string_lossy().contains(['*', '?', '[', '{'])),
        )
        .collect();
    let mut files = Vec::new();
    walk(base, &fixed, 0, &mut |name| {
        if matcher.is_match(name) {
            files.push(name.to_owned());
        }
        files.len() <= MAX_FILES
    });
    if files.len() > MAX_FILES {
        return Err(missing(format!("`{pattern}` names more than {MAX_FILES} files")));
    }
    if files.is_empty() {
        return Err(missing(format!("no file matches `{pattern}`")).help("paths are relative to the pipeline file"));
    }
    files.sort();
    files.into_iter().map(|name| found(name.clone(), base.join(name))).collect()
}

fn found(name: String, path: PathBuf) -> Result<Found, Failure> {
    let metadata = std::fs::metadata(&path).map_err(|error| Failure::io("reading", &path, &error))?;
    if !metadata.is_file() {
        // A device never ends, and a pipe waits for its writer.
        return Err(Failure::input("file/missing", format!("`{name}` is no regular file"))
            .param("path")
            .help("write what it gives to a file, and name that"));
    }
    Ok(Found { name, path, size_bytes: metadata.len() })
}

/// Calls `see` with the name of every file below `folder`, until it says stop. Unreadable folders hold nothing.
fn walk(base: &Path, folder: &Path, depth: usize, see: &mut impl FnMut(&str) -> bool) -> bool {
    let Ok(entries) = std::fs::read_dir(base.join(folder)) else { return true };
    for entry in entries.flatten() {
        let relative = folder.join(entry.file_name());
        let Some(name) = relative.to_str() else { continue };
        let path = entry.path();
        let goes_on =
            if path.is_dir() { depth >= MAX_DEPTH || walk(base, &relative, depth + 1, see) } else { see(name) };
        if !goes_on {
            return false;
        }
    }
    true
}
