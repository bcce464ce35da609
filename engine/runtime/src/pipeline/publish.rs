//! `publish`: what is put where, its names looked up, its paths kept inside the file's folder.

use std::{
    collections::HashMap,
    path::{Component, Path, PathBuf},
};

use llmflow_contract::{Port, StageId};

use super::{
    check::Checker,
    diagnostic::{Diagnostic, Diagnostics},
    fields::texts,
    file::Read,
    names::counted,
    node::{Node, Value},
    source::{At, SourceFile, Span},
    store_place,
};

/// What to put where at the end of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    pub target: Target,
    /// Relative to the file's folder and inside it, or `s3://…`, once checked.
    pub paths: Vec<At<String>>,
    /// Of the target.
    pub span: Span,
}

/// What is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The whole run's story.
    Report,
    /// An output of a stage: the main one without a port.
    Output { stage: StageId, port: Option<Port> },
}

/// Where a published path lies, if not below the file.
const REMOTE: [&str; 3] = ["s3://", "gs://", "az://"];

/// The endings of a report.
const REPORTS: [&str; 3] = ["html", "htm", "md"];

/// Whether a published path lies in an object store.
pub fn is_remote(path: &str) -> bool {
    REMOTE.iter().any(|scheme| path.starts_with(scheme))
}

/// One entry of `publish`, as written.
#[derive(Clone, Debug)]
pub(super) struct ReadPublish {
    what: At<String>,
    paths: Vec<At<String>>,
}

pub(super) fn read(node: &Node, diagnostics: &mut Diagnostics) -> Vec<ReadPublish> {
    let Some(entries) = node.as_map() else {
        if node.value != Value::Null {
            let message = format!("`publish` is a map from stages to paths, not {}", node.describe());
            let help = "publish: {gguf: out/model.gguf}";
            diagnostics.push(Diagnostic::new("publish/form", message, node.span).help(help));
        }
        return Vec::new();
    };
    let read =
        |(key, node): &(At<String>, Node)| ReadPublish { what: key.clone(), paths: texts(node, "a path", diagnostics) };
    entries.iter().map(read).collect()
}

/// Paths that are written, and the folders around them, with who names them first.
#[derive(Default)]
struct Taken {
    paths: HashMap<PathBuf, Span>,
    above: HashMap<PathBuf, Span>,
    /// The pipeline's own store, if that is a folder below the file's.
    store: Option<PathBuf>,
}

impl Checker<'_> {
    pub(super) fn publish(&mut self, read: &Read) -> Vec<Publish> {
        let (items, source): (&[ReadPublish], &SourceFile) = (&read.publish, &read.pipeline.source);
        let store = read.pipeline.store.as_ref();
        let store = store.and_then(|store| store_place::folder_within(&store.value, source));
        let mut taken = Taken { store, ..Taken::default() };
        if let Some(own) = source.path.file_name() {
            taken.paths.insert(PathBuf::from(own), Span::default());
        }
        let mut found = Vec::with_capacity(items.len());
        for item in items {
            for path in &item.paths {
                self.published_path(path, &mut taken);
                if item.what.value == "report" {
                    self.report_path(path);
                }
            }
            if let Some(target) = self.published(&item.what) {
                found.push(Publish { target, paths: item.paths.clone(), span: item.what.span });
            }
        }
        found
    }

    fn published(&mut self, what: &At<String>) -> Option<Target> {
        if what.value == "report" {
            return Some(Target::Report);
        }
        let found = self.names.find(what, &mut self.diagnostics)?;
        self.output(&found, what)?;
        let Some(one) = found.one else {
            let group = &self.names.groups[found.group];
            let message = format!("`{}` is {}: which of them?", group.stage.name.value, counted(group.len));
            let help = format!("name one of {}", self.names.listed(found.group));
            self.diagnostics.push(Diagnostic::new("matrix/many", message, what.span).help(help));
            return None;
        };
        Some(Target::Output { stage: self.names.ids[one as usize].clone(), port: found.rest.map(Port::from) })
    }

    /// A report is one file beside the pipeline, in one of two forms.
    fn report_path(&mut self, path: &At<String>) {
        let ending = Path::new(&path.value).extension().and_then(std::ffi::OsStr::to_str).unwrap_or_default();
        let message = match (is_remote(&path.value), REPORTS.contains(&ending)) {
            (true, _) => format!("`{}`: the report is written below the file's folder", path.value),
            (false, false) => format!(
                "`{}`: a report is written as {}",
                path.value,
                REPORTS.map(|end| format!(".{end}")).join(" or ")
            ),
            (false, true) => return,
        };
        self.diagnostics
            .push(Diagnostic::new("publish/report", message, path.span).help("publish: {report: out/report.html}"));
    }

    fn published_path(&mut self, path: &At<String>, taken: &mut Taken) {
        let clean = match inside(&path.value) {
            Err(message) => {
                let help = "publish below the file's folder, `out/model.gguf`, or to `s3://BUCKET/model.gguf`";
                self.diagnostics.push(Diagnostic::new("publish/path", message, path.span).help(help));
                return;
            }
            Ok(clean) => clean,
        };
        if clean.starts_with(crate::home::FOLDER) {
            let message = format!("`{}` is where LLMflow keeps its own state", path.value);
            let help = "publish beside it: `out/model.gguf`";
            self.diagnostics.push(Diagnostic::new("publish/path", message, path.span).help(help));
            return;
        }
        if taken.store.as_ref().is_some_and(|store| clean.starts_with(store) || store.starts_with(&clean)) {
            let message = format!("`{}` and the pipeline's own store lie one inside the other", path.value);
            let help = "publish beside it: `out/model.gguf`";
            self.diagnostics.push(Diagnostic::new("publish/path", message, path.span).help(help));
            return;
        }
        let around = clean.ancestors().skip(1).find_map(|above| taken.paths.get(above));
        let other = around.or_else(|| taken.above.get(&clean)).filter(|_| !is_remote(&path.value));
        if let Some(first) = other.copied() {
            let message = format!("`{}` and another published path lie one inside the other", path.value);
            let diagnostic = Diagnostic::new("publish/same-path", message, path.span).also(first, "the other");
            self.diagnostics.push(diagnostic.help("give each a place of its own: `out/rows/`, `out/model/`"));
            return;
        }
        if !is_remote(&path.value) {
            taken.above.extend(clean.ancestors().skip(1).map(|above| (above.to_owned(), path.span)));
        }
        if let Some(first) = taken.paths.insert(clean, path.span) {
            let message = format!("`{}` is written twice", path.value);
            let diagnostic =
                Diagnostic::new("publish/same-path", message, path.span).help("give each a path of its own");
            self.diagnostics.push(match first == Span::default() {
                true => diagnostic.label("this is the pipeline file"),
                false => diagnostic.also(first, "the first time"),
            });
        }
    }
}

/// The path without `.` and `..`, if it stays inside the folder and names something in it.
pub(super) fn inside(path: &str) -> Result<PathBuf, String> {
    if is_remote(path) {
        let (scheme, rest) = path.split_once("://").unwrap_or_default();
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        return match bucket.is_empty() || key.trim_matches('/').is_empty() || key.split('/').any(|part| part == "..") {
            true => Err(format!("`{path}` names no object: write `{scheme}://BUCKET/PATH`")),
            false => Ok(PathBuf::from(path)),
        };
    }
    if path.contains("://") {
        return Err(format!("`{path}`: publish to a path, or to {}", REMOTE.join(", ")));
    }
    if path.starts_with(['/', '~', '\\']) || path.contains('\0') {
        return Err(format!("`{path}` is not relative to the pipeline file"));
    }
    let mut clean = PathBuf::new();
    for part in Path::new(path).components() {
        let stays = match part {
            Component::Normal(name) => {
                clean.push(name);
                true
            }
            Component::CurDir => true,
            Component::ParentDir => clean.pop(),
            Component::RootDir | Component::Prefix(_) => false,
        };
        if !stays {
            return Err(format!("`{path}` leaves the pipeline file's folder"));
        }
    }
    if clean.as_os_str().is_empty() { Err(format!("`{path}` names the folder itself")) } else { Ok(clean) }
}

#[cfg(test)]
mod tests {
    use super::inside;

    #[test]
    fn a_published_path_stays_inside_the_files_folder() {
        assert_eq!(inside("out/./a/../m.gguf").unwrap().to_str(), Some("out/m.gguf"));
        assert!(inside("s3://bucket/models/m.gguf").is_ok());
        assert_eq!(inside("out/model/").unwrap().to_str(), Some("out/model"));
        for path in [
            "/etc/x",
            "../x",
            "a/../../x",
            ".",
            "a/..",
            "",
            "~/x",
            "s3://b",
            "s3:///k",
            "s3://b/../k",
            "http://b/k",
            "\\x",
        ] {
            assert!(inside(path).is_err(), "{path}");
        }
    }
}
